"""Calls inside a run: a request to a model, a tool's work, an assistant's work on a thread, a retrieval.

Each is a context manager made by `Execution`; each emits its events, whatever way it is left.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

from .budgets.reservation import Scope
from .errors import BudgetExceeded, StreamClosed
from .events import (
    AssistantRun,
    Event,
    FunctionCall,
    ModelCallStarted,
    Provenance,
    Retrieval,
    Status,
    TokenUsage,
    TraceContext,
    Usage,
)
from .request import ModelRequest
from .runtime import Runtime

MAX_ERROR_MESSAGE = 500
"""Characters of an error's message that an event keeps."""


E = TypeVar("E", bound=Event)


class MeteredRun(Protocol):
    """The run that calls belong to, as far as they use it."""

    run_id: str
    root_run_id: str
    trace: TraceContext | None
    requests: list[TokenUsage]

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

    def claim(self, request: ModelRequest) -> tuple[Usage | None, Callable[[TokenUsage], None]]:
        """Take the reservation of a request that is about to leave."""


class Operation(ABC):
    """An operation within a run, with a start, an end and a span of its own."""

    is_metered = True
    """True where an engine takes the records; False of the handles outside one."""

    __slots__ = (
        "_execution",
        "_span",
        "_start_monotonic",
        "error_message",
        "error_type",
        "start_ns",
        "trace",
    )

    def __init__(self, execution: MeteredRun) -> None:
        self._execution = execution
        self._span: Any = None
        self.trace: TraceContext | None = None
        self.start_ns = 0
        """The time it began: nanoseconds since the Unix epoch."""
        self.error_type: str | None = None
        self.error_message: str | None = None

    def fail(self, error_type: str, message: str | None = None) -> None:
        """Mark the operation as failed, where no exception will leave it."""
        self.error_type = error_type
        self.error_message = message and message[:MAX_ERROR_MESSAGE].encode("utf-8", "replace").decode()

    def __enter__(self) -> Self:
        execution = self._execution
        runtime = execution.runtime
        if runtime.tracing is not None:
            self.trace, self._span = runtime.tracing.start_span(execution.root_run_id, execution.trace)
        self.start_ns = runtime.clock.time_ns()
        self._start_monotonic = runtime.clock.monotonic_ns()
        self._started()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        runtime = self._execution.runtime
        duration_ns = runtime.clock.monotonic_ns() - self._start_monotonic
        if runtime.tracing is not None:
            runtime.tracing.end_span(self._span)
        if exc is not None:
            self.error_type, self.error_message = error_type(exc), error_message(exc)
        self._ended(exc, duration_ns)

    def _started(self) -> None:  # noqa: B027 - most operations have nothing to say at their start
        """Emit the operation's first event, if it has one."""

    @abstractmethod
    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        """Emit the operation's last event."""


class ModelCall(Operation):
    """A request to a model. Record its usage; a usage that was not recorded counts as unknown, never as nothing."""

    __slots__ = (
        "_attempt",
        "_first_chunk_ns",
        "_request",
        "_settle",
        "bound",
        "call_id",
        "finish_reasons",
        "provenance",
        "response_id",
        "response_model",
        "service_tier",
        "usage",
    )

    def __init__(self, execution: MeteredRun, request: ModelRequest, attempt: int) -> None:
        super().__init__(execution)
        self._request = request
        self._attempt = attempt
        self._settle: Callable[[TokenUsage], None] | None = None
        self._first_chunk_ns: int | None = None
        self.call_id = -1
        self.usage: Usage | None = None
        self.provenance = Provenance.UNKNOWN
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.service_tier: str | None = None
        self.finish_reasons: tuple[str, ...] = ()
        self.bound = request.bound

    def record(
        self,
        usage: Usage,
        provenance: Provenance = Provenance.REPORTED,
        *,
        response_id: str | None = None,
        response_model: str | None = None,
        service_tier: str | None = None,
        finish_reasons: tuple[str, ...] = (),
    ) -> None:
        """Record the request's usage, and how it is known. The last call counts.

        Args:
            usage: Tokens and searches.
            provenance: `reported`, `partial` or `estimated`.
            response_id: The API's id of the answer.
            response_model: The exact name of the model that answered.
            service_tier: The tier that served. Where the API does not say, the one asked for counts as such.
            finish_reasons: One for each choice, in order.
        """
        self.usage = usage
        self.provenance = provenance
        self.response_id = response_id or self.response_id
        self.response_model = response_model or self.response_model
        self.service_tier = service_tier or self.service_tier
        self.finish_reasons = finish_reasons or self.finish_reasons

    def first_chunk(self) -> None:
        """Record that a chunk of a streamed answer came; the first time counts."""
        if self._first_chunk_ns is None:
            self._first_chunk_ns = self._execution.runtime.clock.monotonic_ns() - self._start_monotonic

    def __enter__(self) -> Self:
        scope = self._execution.scope
        if scope is not None and scope.limits:
            bound, self._settle = self._execution.claim(self._request)
            if self.bound is None:
                self.bound = bound
        return super().__enter__()

    def _started(self) -> None:
        execution, request = self._execution, self._request
        self.call_id = execution.next_seq()
        execution.runtime.publish(
            ModelCallStarted(
                run_id=execution.run_id,
                seq=self.call_id,  # its own number is the call's
                time_ns=self.start_ns,
                trace=self.trace,
                call_id=self.call_id,
                attempt=self._attempt,
                provider=request.provider,
                operation=request.operation,
                model=request.model,
                stream=request.stream,
                api=request.api,
                service_tier=request.service_tier,
                max_output_tokens=request.max_output_tokens,
                temperature=request.temperature,
                previous_response_id=request.previous_response_id,
                server_address=request.server_address,
                server_port=request.server_port,
                bound=self.bound,
            )
        )

    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        execution, request = self._execution, self._request
        event = execution.emit(
            TokenUsage,
            self.trace,
            call_id=self.call_id,
            attempt=self._attempt,
            provider=request.provider,
            operation=request.operation,
            model=request.model,
            provenance=self.provenance,
            usage=self.usage,
            start_ns=self.start_ns,
            duration_ns=duration_ns,
            first_chunk_ns=self._first_chunk_ns,
            response_id=self.response_id,
            response_model=self.response_model,
            service_tier=_served(self.service_tier, request.service_tier),
            finish_reasons=self.finish_reasons,
            error_type=self.error_type,
            error_message=self.error_message,
            bound=None if self.provenance is Provenance.REPORTED else self.bound,
        )
        execution.requests.append(event)
        if self._settle is not None:
            self._settle(event)


def _served(answered: str | None, requested: str | None) -> str | None:
    """Find the tier that served; `auto` is not a tier, but a way to choose one."""
    if answered and answered != "auto":
        return answered
    return requested if requested and requested != "auto" else None


class ToolCall(Operation):
    """The execution of a tool."""

    __slots__ = ("_call_id", "_name")

    def __init__(self, execution: MeteredRun, name: str, call_id: str | None) -> None:
        super().__init__(execution)
        self._name = name
        self._call_id = call_id

    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        self._execution.emit(
            FunctionCall,
            self.trace,
            name=self._name,
            call_id=self._call_id,
            start_ns=self.start_ns,
            duration_ns=duration_ns,
            error_type=self.error_type,
            error_message=self.error_message,
        )


class AssistantCall(Operation):
    """The work of an assistant on a thread."""

    __slots__ = ("_assistant", "steps", "thread", "thread_id")

    def __init__(
        self,
        execution: MeteredRun,
        assistant: str,
        thread_id: str | None,
        thread: Literal["created", "resumed"] | None,
    ) -> None:
        super().__init__(execution)
        self._assistant = assistant
        self.thread_id = thread_id
        self.thread: Literal["created", "resumed"] | None = thread
        self.steps = 0
        """Turns of the loop: count them as they begin."""

    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        self._execution.emit(
            AssistantRun,
            self.trace,
            assistant=self._assistant,
            thread_id=self.thread_id,
            thread=self.thread,
            steps=self.steps,
            status=status_of(error) if error or not self.error_type else Status.ERROR,
            start_ns=self.start_ns,
            duration_ns=duration_ns,
            error_type=self.error_type,
            error_message=self.error_message,
        )


class RetrievalCall(Operation):
    """A search for passages. Record its result; if none was recorded, it found nothing."""

    __slots__ = ("_requested", "_source", "documents", "top_score")

    def __init__(self, execution: MeteredRun, source: str, requested: int | None) -> None:
        super().__init__(execution)
        self._source = source
        self._requested = requested
        self.documents = 0
        self.top_score: float | None = None

    def record(self, documents: int, top_score: float | None = None) -> None:
        """Record the passages found. The last call counts.

        Args:
            documents: How many passages.
            top_score: The best passage's score, on the source's own scale; None if there is none.
        """
        # Local indexes answer in numpy's numbers, which no codec takes.
        self.documents = int(documents)
        self.top_score = None if top_score is None else float(top_score)

    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        self._execution.emit(
            Retrieval,
            self.trace,
            source=self._source,
            start_ns=self.start_ns,
            duration_ns=duration_ns,
            documents=self.documents,
            top_score=self.top_score,
            requested=self._requested,
            error_type=self.error_type,
            error_message=self.error_message,
        )


def status_of(error: BaseException | None) -> Status:
    """Derive a status from the exception that ended something, or from None."""
    if error is None:
        return Status.OK
    if _is_all(error, BudgetExceeded):
        return Status.BUDGET_EXCEEDED
    if _is_all(error, StreamClosed):
        return Status.CANCELLED
    # The event loops' cancellation, and Ctrl-C, derive from BaseException alone.
    return Status.ERROR if isinstance(error, Exception) else Status.CANCELLED


def _is_all(error: BaseException, kind: type[Exception]) -> bool:
    """Tell whether this is an exception of a kind, or a group of such alone."""
    return isinstance(error, kind) or (isinstance(error, BaseExceptionGroup) and error.split(kind)[1] is None)


def error_type(error: BaseException) -> str:
    """Find the provider's error code if the exception carries one, else the exception's name.

    Source of the rule: OpenTelemetry GenAI conventions, `error.type` (2026-10-09).
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    try:
        code = getattr(error, "code", None)
    except Exception:  # a property of its own that raises: no reason to lose the event
        code = None
    return code if code and isinstance(code, str) else type(error).__qualname__


def error_message(error: BaseException) -> str | None:
    """Take an exception's message, as valid UTF-8 and cut to `MAX_ERROR_MESSAGE` characters."""
    try:
        message = str(error)
    except Exception:
        return None
    return message[:MAX_ERROR_MESSAGE].encode("utf-8", "replace").decode() or None
