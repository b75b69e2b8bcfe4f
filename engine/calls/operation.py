"""A call inside a run: a context manager made by `Execution`, which emits its events whatever way it is left."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, TypeVar

import msgspec
from msgspec import convert

from ..budgets.reservation import Scope
from ..budgets.reserving import Claim
from ..errors import RunEnded
from ..events import Event, TokenUsage, TraceContext
from ..request import ModelRequest
from ..runtime import Runtime
from ..validation.checks import cut_message, encode, name_of, optional_name, text_of
from ..validation.error_messages import message_of
from .endings import error_type

E = TypeVar("E", bound=Event)


class MeteredRun(Protocol):
    """The run that calls belong to, as far as they use it."""

    run_id: str
    root_run_id: str
    trace: TraceContext | None
    requests: list[TokenUsage]
    finished: bool
    at_end: tuple[Callable[[], object], ...]

    @property
    def runtime(self) -> Runtime:
        """The parts of the engine that it uses."""

    @property
    def scope(self) -> Scope | None:
        """The budgets that apply to it."""

    def next_seq(self) -> int:
        """Draw the next event's number."""

    def emit(self, event_type: Callable[..., E], trace: TraceContext | None, /, **fields: Any) -> E:
        """Publish an event of the run."""

    def notice(self, kind: str, subject: str, message: str, *, once: bool = False) -> None:
        """Warn of something before it becomes an error."""

    def claim(self, request: ModelRequest) -> Claim:
        """Take the reservation of a request that is about to leave."""

    async def lease(self, request: ModelRequest) -> None:
        """Lease what that is about to reserve in shared budgets."""


class Operation(ABC):
    """An operation within a run, with a start, an end and a span of its own.

    Raises:
        RunEnded: on entering, its run has ended.
    """

    is_metered = True
    """True where an engine takes the records; False of the handles outside one."""

    _of_tool: ClassVar[bool] = False
    """Whether its errors are in the words of a user's function."""
    _sound: ClassVar[type[msgspec.Struct]]
    """The form of its attributes that an event takes."""

    trace: TraceContext | None = None
    error_type: str | None = None
    error_message: str | None = None
    start_ns: int
    """Nanoseconds since the Unix epoch."""
    _span: Any
    _start_monotonic: int

    def __init__(self, execution: MeteredRun) -> None:
        self._execution = execution

    def fail(self, error_type: str, message: str | None = None) -> None:
        """Mark the operation as failed, where no exception will leave it."""
        self.error_type = kind = name_of(error_type)
        said = None if message is None else text_of(message)
        kept = self._execution.runtime.edit(kind, said, not self._of_tool) if said else None
        self.error_message = cut_message(kept) if kept else None

    def __enter__(self) -> Self:
        execution = self._execution
        if execution.finished:
            raise RunEnded(execution.run_id)
        runtime = execution.runtime
        if runtime.tracing is not None:
            self.trace, self._span = runtime.tracing.start_span(execution.root_run_id, execution.trace)
        self.start_ns = runtime.clock.time_ns()  # since the Unix epoch
        self._start_monotonic = runtime.clock.monotonic_ns()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        runtime = self._execution.runtime
        duration_ns = runtime.clock.monotonic_ns() - self._start_monotonic
        if runtime.tracing is not None:
            runtime.tracing.end_span(self._span)
        if exc is not None:
            self.error_type = error_type(exc)
            self.error_message = message_of(exc, self.error_type, runtime.edit, of_tool=self._of_tool)
        try:
            encode(convert(self, self._sound, from_attributes=True))
        except Exception:
            self._tidy()
        self._ended(exc, duration_ns)

    def _tidy(self) -> None:
        """Clean and cut the texts recorded; a value that makes no sense counts as not recorded."""
        self.error_type = optional_name(self.error_type)
        self.error_message = None if self.error_message is None else cut_message(text_of(self.error_message))

    @abstractmethod
    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        """Emit the operation's last event."""
