"""What the endpoints share: ids, the clock, replies, the meter, faults, the account and the stored responses."""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from .billing import Generation, Meter
from .faults import Fault, Faults
from .prompts import Item, Prompt
from .replies import Replies, Reply, Script
from .statistics import Account

STORED_RESPONSES = 10_000
"""How many responses are kept; the oldest are forgotten, as the real ones are after 30 days."""


class Call(msgspec.Struct, frozen=True):
    """One request, as an endpoint is given it."""

    body: bytes
    id: str
    """The id in the path, if the path has one."""
    fault: Fault | None
    """The fault that hits it, unless that is an error or a drop: then the endpoint is not asked at all."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One server-sent event, and how many tokens of output it carries."""

    data: bytes
    tokens: int = 0


class Stream(Protocol):
    """A streamed answer, and what is to be done when it ends. Exactly one of the last three is called, once."""

    @property
    def chunks(self) -> Sequence[Chunk]:
        """Its events, in order."""
        ...

    def error(self, fault: Fault, position: int) -> bytes:
        """The event that reports a fault, at this position."""
        ...

    def completed(self) -> None:
        """All of it is about to have been sent."""
        ...

    def abandoned(self, tokens: int) -> None:
        """The client left, or was left, after so many tokens of output."""
        ...

    def failed(self) -> None:
        """An error event ended it."""
        ...


Answer: TypeAlias = bytes | Stream
"""JSON, or events."""


class StoredResponse(msgspec.Struct):
    """What `GET /responses/{id}` and `previous_response_id` need."""

    body: bytes
    """The response as JSON."""
    items: Sequence[Item] | None = None
    """The whole conversation: all input and the output. None as long as it is not complete."""


class ResponseStore:
    """The newest responses, by id."""

    def __init__(self, capacity: int = STORED_RESPONSES) -> None:
        self._responses: OrderedDict[str, StoredResponse] = OrderedDict()
        self._capacity = capacity

    def put(self, response_id: str, response: StoredResponse) -> None:
        """Keep a response, or replace it."""
        self._responses[response_id] = response
        if len(self._responses) > self._capacity:
            self._responses.popitem(last=False)

    def get(self, response_id: str) -> StoredResponse | None:
        """A response, unless it was never kept, deleted, or forgotten."""
        return self._responses.get(response_id)

    def delete(self, response_id: str) -> bool:
        """Whether there was one."""
        return self._responses.pop(response_id, None) is not None


class Service:
    """The simulated service. Belongs to the server's thread, but for the faults, the replies and the account."""

    def __init__(
        self, script: Script | Iterable[Reply] | None, faults: Iterable[Fault], clock: Callable[[], float]
    ) -> None:
        self.clock = clock
        self.replies = Replies(script)
        self.faults = Faults(faults)
        self.account = Account()
        self.responses = ResponseStore()
        self._meter = Meter()
        self._ids = itertools.count(1)

    def new_id(self, prefix: str) -> str:
        """The next id: the first request's ids are the same in every run."""
        return f"{prefix}{next(self._ids):032x}"

    def generate(self, prompt: Prompt, fault: Fault | None) -> Generation:
        """The model's answer to a prompt."""
        half = fault is not None and fault.kind == "incomplete"
        return self._meter.generate(prompt, self.replies.reply(prompt), half=half)
