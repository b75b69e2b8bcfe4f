"""The state that the endpoints share: ids, the clock, replies, the meter, faults, the accounts and what is stored."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Protocol, TypeAlias

import msgspec

from runmeter.engine import PriceBook

from .accounts import Accounts, Bill
from .fault_queue import Faults
from .faults import Fault
from .model.billing import Generation, Meter
from .model.limits import fitted, limited
from .model.prompt import Item, Prompt
from .model.replies import Replies, Reply, Script
from .objects.conversation import Conversation, StoredItem
from .objects.store import Store
from .objects.thoughts import Thoughts
from .objects.upload import Upload
from .objects.vector_store import VectorStore

STORED_RESPONSES = 10_000
"""Upper bound on responses kept; the oldest are forgotten, as the real ones are after 30 days."""
STORED_CONVERSATIONS = 10_000
"""Upper bound on conversations kept; the oldest are forgotten, which the real ones are not."""
STORED_ITEMS = 100_000
"""Upper bound on items that can be referred to; the oldest are forgotten."""
STORED_FILES = 1_000
STORED_VECTOR_STORES = 100
"""Upper bounds on files and vector stores kept."""


class Call(msgspec.Struct, frozen=True):
    """A request, as an endpoint is given it."""

    body: bytes
    id: str
    """The id in the path, if the path has one."""
    fault: Fault | None
    """The fault that hits it, unless that is an error or a drop: then the endpoint is not asked at all."""
    account: Bill
    """The account of the API key that it came with."""
    part_id: str = ""
    """The second id in the path, if it has one: of a part of what `id` names."""
    query: Mapping[str, str] = {}
    """The URL's parameters."""
    lists: Mapping[str, Sequence[str]] = {}
    """All values of each of the URL's parameters, for those that are lists: `name=a&name=b`, or `name[]=a&name[]=b`."""
    content_type: str = "application/json"
    """The media type of the body."""
    ending: ExitStack = msgspec.field(default_factory=ExitStack)
    """The work to be done when the request has ended, however it ended."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One server-sent event, and how many tokens of output it carries."""

    data: bytes
    tokens: int = 0


class Stream(Protocol):
    """A streamed answer, and what is to be done when it ends. Exactly one of the last three is called, once."""

    @property
    def chunks(self) -> Sequence[Chunk]:
        """The events of the stream, in order."""
        ...

    def error(self, fault: Fault, position: int) -> bytes:
        """Write the event that reports a fault, at this position."""
        ...

    def completed(self) -> None:
        """Settle a stream of which all is about to have been sent."""
        ...

    def abandoned(self, tokens: int) -> None:
        """Settle a stream whose client left, or was left, after so many tokens of output."""
        ...

    def failed(self) -> None:
        """Settle a stream that an error event ended."""
        ...


class Plain(msgspec.Struct, frozen=True):
    """An answer in JSON, and what it brings about."""

    body: bytes
    delivered: Callable[[], None]
    """Called when it is about to be sent, unless the client has left by then."""


Answer: TypeAlias = bytes | Plain | Stream
"""An answer: JSON, or events."""


class StoredResponse(msgspec.Struct):
    """A response as `GET /responses/{id}` and `previous_response_id` need it."""

    body: bytes
    """The response as JSON."""
    given: Sequence[StoredItem] = ()
    """The items that its request had."""
    items: Sequence[Item] | None = None
    """The whole conversation: all input and the output. None as long as it is not complete."""


@cache
def _usual_prices() -> PriceBook:
    """Make the price book of all simulators that were given none: its rates take long to load."""
    return PriceBook()


class Service:
    """State of the simulated service. Only faults, replies and accounts may be used off the server's thread."""

    def __init__(
        self,
        script: Script | Iterable[Reply] | None,
        faults: Iterable[Fault],
        clock: Callable[[], float],
        *,
        billing_delay: float = 0,
        prices: PriceBook | None = None,
    ) -> None:
        self.clock = clock
        self.replies = Replies(script)
        self.faults = Faults(faults)
        self.accounts = Accounts(clock, billing_delay)
        self.prices = prices or _usual_prices()
        self.responses = Store[StoredResponse](STORED_RESPONSES)
        self.items = Store[StoredItem](STORED_ITEMS)
        self.thoughts = Thoughts(STORED_ITEMS)
        self.conversations = Store[Conversation](STORED_CONVERSATIONS)
        self.uploads = Store[Upload](STORED_FILES)
        self.vector_stores = Store[VectorStore](STORED_VECTOR_STORES)
        self._meter = Meter()
        self._ids = itertools.count(1)

    def new_id(self, prefix: str) -> str:
        """Make the next id: the first request's ids are the same in every run."""
        return f"{prefix}{next(self._ids):032x}"

    def keep_items(self, items: Iterable[StoredItem]) -> None:
        """Keep items, so that they can be referred to by their ids."""
        for stored in items:
            self.items.put(stored.id, stored)

    def find_item(self, item_id: str) -> StoredItem | None:
        """Find an item by its id, unless it was never kept, deleted, or forgotten."""
        return self.items.get(item_id)

    def generate(self, prompt: Prompt, fault: Fault | None) -> Generation:
        """Generate the model's answer to a prompt.

        Raises:
            ApiError: 400 `context_length_exceeded`: the prompt is too long for its model.
        """
        half = fault is not None and fault.kind == "incomplete"
        prompt, tokens = fitted(prompt)
        reply = self.replies.reply(prompt)
        return self._meter.generate(limited(prompt, len(tokens)), reply, tokens, half=half)
