"""What a metering handler keeps of what has begun under it, and has not ended."""

import logging
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
from langchain_core.messages import AIMessage
from langchain_core.outputs import LLMResult

from runmeter.engine import Execution, ModelCall, ModelRequest, Provenance, ToolCall, Usage

from ...requests.bounds import Sent
from ...requests.usage import RunningTotals
from .requests import describe_sent
from .usage import Answer, Told, read_answer

logger = logging.getLogger("runmeter")

_OPENAI = ("openai", "azure.ai.openai")
"""Whose models LangChain asks for the usage of a stream, if it is told to."""


@dataclass(slots=True, eq=False)
class Root:
    """The outermost graph, chain, tool or model: when it ends, so does all that is left of it."""

    run_id: UUID
    scopes: set[UUID] = field(default_factory=set)
    calls: set[UUID] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class OpenScope:
    """A graph, chain or tool that has not ended: other things run within it."""

    root: Root
    context: Context
    """Its context, for callbacks that come from threads without one."""


@dataclass(slots=True, eq=False)
class OpenQuestion:
    """A question to a model, kept for when the upper bound of its usage must be known."""

    request: ModelRequest
    serialized: Mapping[str, Any] | None
    params: Mapping[str, Any]
    """One object for all requests of a batch."""
    messages: Any

    @property
    def sent(self) -> Sent:
        """The parts of the request that count for how much it can use."""
        try:
            return describe_sent(self.request, self.serialized, self.params, self.messages)
        except Exception:  # some model's parameters are like no other's: no reason to lose the request
            logger.exception("cannot tell what is sent to %s", self.request.model)
            return Sent(provider=self.request.provider, model=self.request.model, messages="", refers=True)


@dataclass(slots=True, eq=False, weakref_slot=True)
class OpenCall:
    """A metered call that has not ended."""

    owner: object
    """The handler that entered it, and counts its chunks."""
    forget: Callable[[UUID], None]
    """Has the owner forget the call, by its id."""
    run: Execution
    """The run it belongs to."""
    call: ModelCall | ToolCall
    context: Context | None
    """The one it was entered in, if that was not the current one."""
    question: OpenQuestion | None = None
    """A model's question; None of a tool."""
    awaited: bool = False
    """True if `finish` will be called."""
    ended: bool = False
    error: BaseException | None = None
    """The exception it ended with."""
    answer: AIMessage | None = None
    """One that is complete, and whose usage was not reported."""
    outside: Execution | None = None
    """A run of its own, of a request that belongs to none: it ends with the request."""
    pieces: int = 0
    """Chunks with text, or with a part of a tool call, that a model has streamed: a token each, or more."""

    totals: RunningTotals = field(default_factory=RunningTotals)
    """What its chunks say that was used."""
    told: Told = field(default_factory=Told)
    """What else they tell of the answer."""

    @property
    def unreported(self) -> bool:
        """True for a request whose usage is not known, as far as it is."""
        return isinstance(self.call, ModelCall) and self.call.provenance is not Provenance.REPORTED

    def take(self, token: Any, chunk: Any) -> None:
        """Take a chunk of an answer, and count the pieces of it that say something."""
        message = getattr(chunk, "message", None)
        if (used := getattr(message, "usage_metadata", None)) is not None:
            self.totals.take(used)
        # LangChain keeps some of it beside the message until it has told its handlers.
        beside, within = getattr(chunk, "generation_info", None), getattr(message, "response_metadata", None)
        self.told.take({**within, **beside} if beside and within else beside or within)
        said = says_something(token, chunk)
        self.pieces += said
        if (said or getattr(message, "tool_call_chunks", None)) and isinstance(self.call, ModelCall):
            self.call.first_chunk()

    def read(self, result: LLMResult) -> Answer:
        """Read the answer, or the part of it that came."""
        choices = self.question.params.get("n") if self.question is not None else None
        return read_answer(result, self.totals, self.told, choices=choices if isinstance(choices, int) else 1)

    def record_whole(self, answer: Answer) -> None:
        """Say what a complete answer reports that it used; or that it reports nothing."""
        assert isinstance(self.call, ModelCall)  # noqa: S101 - only models answer
        answer.reading.record(self.call)
        if answer.usage is not None:
            return
        self.answer = answer.message
        request = self.question and self.question.request
        if request and request.provider in _OPENAI and (self.pieces or request.stream) and request.api != "responses":
            self.call.notice(
                "unreported_usage", "streamed answers come without usage, which is estimated: set stream_usage=True"
            )

    def record_cut(self, usage: Usage | None = None) -> None:
        """Record a lower bound of what was used; if nothing came, it stays unknown."""
        if isinstance(self.call, ModelCall) and (usage is not None or self.pieces):
            usage = usage or Usage()
            least = max(usage.output_tokens, self.pieces)
            self.call.record(msgspec.structs.replace(usage, output_tokens=least), Provenance.PARTIAL)


open_calls: WeakValueDictionary[UUID, OpenCall] = WeakValueDictionary()
"""Open calls of all handlers, which keep them alive."""


def says_something(token: Any, chunk: Any) -> bool:
    """Tell whether a chunk carries a part of the answer, and not only news of it."""
    if isinstance(token, str) and token:
        return True
    calls = getattr(getattr(chunk, "message", None), "tool_call_chunks", None) or ()
    if any(call.get("args") for call in calls):
        return True
    return not isinstance(token, str) and any(
        isinstance(block, str) or block.get("text") or block.get("refusal") for block in token or ()
    )
