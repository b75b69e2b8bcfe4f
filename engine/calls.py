"""Calls inside a run: a request to a model, a tool's work, an assistant's work on a thread, a retrieval.

Each is a context manager made by `Execution`; each emits its events, whatever way it is left.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from math import isfinite
from types import TracebackType
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypeVar

import msgspec
from msgspec import convert

from .budgets.reservation import Scope
from .budgets.reserving import Claim
from .errors import BudgetExceeded, ConfigurationError, RunEnded, StreamClosed
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
from .ledger.recording import Recording
from .request import ModelRequest
from .runtime import Runtime
from .validation.checks import (
    Count,
    Counts,
    Id,
    Message,
    Name,
    count_of,
    cut_message,
    encode,
    id_of,
    name_of,
    optional_name,
    sound_usage,
    text_of,
)
from .validation.error_messages import message_of

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


class _SoundAnswer(msgspec.Struct, gc=False):
    usage: Counts | None
    response_id: Id | None
    response_model: Name | None
    service_tier: Name | None
    finish_reasons: tuple[Name, ...]
    bound: Counts | None
    error_type: Name | None
    error_message: Message | None


class ModelCall(Operation):
    """A request to a model. Record its usage; a usage that was not recorded counts as unknown, never as nothing."""

    _sound = _SoundAnswer

    # Defaults of the class, as most calls need few of them.
    call_id = -1
    usage: Usage | None = None
    provenance: Provenance = Provenance.UNKNOWN
    response_id: str | None = None
    response_model: str | None = None
    service_tier: str | None = None
    finish_reasons: tuple[str, ...] = ()
    contradiction: str | None = None
    total_tokens: int | None = None
    around: "ModelCall | None" = None
    """The call that this one is inside of: LangChain begins those of a batch one within the other."""
    is_open = False
    """True from its first event until its last."""
    has_left = False
    """True once a client that is metered itself has sent its request."""
    _settle: Callable[[TokenUsage], None] | None = None
    _reserved_ns: int | None = None
    _failure: "_Failure | None" = None
    _mark: "Token[ModelCall | None] | None" = None
    _first_chunk_ns: int | None = None
    _unkept: Recording | None = None
    """The ledger that its first event must reach before the request leaves."""

    def __init__(self, execution: MeteredRun, request: ModelRequest, attempt: int) -> None:
        super().__init__(execution)
        self._request = request
        self._attempt = attempt
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

        A count must be a whole number, not negative; 7.0 and "7" are taken for 7. Any other value is not a count: then
        the others are a lower bound (`partial`), the request's upper bound holds, and a `Notice` says which it was.
        Texts are cleaned and cut as `engine/validation/checks.py` says.

        Args:
            usage: Tokens and searches.
            provenance: `reported`, `partial` or `estimated`.
            response_id: The API's id of the answer.
            response_model: The exact name of the model that answered.
            service_tier: The tier that served. Where the API does not say, the one asked for counts as such, then the
                engine's `assume_tier`.
            finish_reasons: One for each choice, in order.

        Raises:
            ConfigurationError: `usage` is not a `Usage`, or there is no such provenance.
        """
        if type(usage) is not Usage:
            raise ConfigurationError(
                f"record takes a Usage, not {usage!r:.100}; leave the call out if nothing is known"
            )
        self.provenance = _RECORDED.get(provenance) or _refused(provenance)
        self.usage = usage
        if response_id:
            self.response_id = response_id
        if response_model:
            self.response_model = response_model
        if service_tier:
            self.service_tier = service_tier
        if finish_reasons:
            self.finish_reasons = finish_reasons

    def contradict(self, contradiction: str, total_tokens: int | None = None) -> None:
        """Record that what the server reports cannot all be true: the cost is an interval, and a notice says so.

        Args:
            contradiction: The fields, as `contradiction_in` names them.
            total_tokens: The server's total, where that is not input and output together.
        """
        self.contradiction, self.total_tokens = contradiction, total_tokens
        self.notice("usage", f"what the server reports contradicts itself: {contradiction}")

    def first_chunk(self) -> None:
        """Record that a chunk of a streamed answer came; the first time counts."""
        if self._first_chunk_ns is None:
            self._first_chunk_ns = self._execution.runtime.clock.monotonic_ns() - self._start_monotonic

    def leave(self) -> None:
        """Say that its client sends a request: the call's own or, once one has failed, another attempt at it.

        What it says must be on disk before it leaves, where the ledger promises that: `keep` or `keep_now` comes next.

        Raises:
            BudgetExceeded: a budget has no room for another attempt.
            UnboundedRequest: it has no known upper bound, and a budget needs one.
        """
        self.has_left = True
        failure, self._failure = self._failure, None
        if failure is not None:
            self._try_again(failure)

    def miss(self, error: tuple[str, str | None], *, used_nothing: bool) -> None:
        """Say that a request of its client's has failed. If that sends another, the two are attempts at one call.

        Args:
            error: The type of the failure, and its message.
            used_nothing: Whether it was refused, or did not arrive.
        """
        self._failure = _Failure(*error, used_nothing)

    @property
    def has_failed(self) -> bool:
        """A request of its client's has failed, and no other has been sent since."""
        return self._failure is not None

    def hold_here(self) -> None:
        """Have the code of this context be inside the call, too: it was entered in another."""
        _inside.set(self)

    def _try_again(self, failure: "_Failure") -> None:
        """End the attempt that failed with an event of its own, and begin the next."""
        said = self.error_type, self.error_message
        if self.usage is None and failure.used_nothing:
            self.usage, self.provenance = Usage(), Provenance.REPORTED
        self.fail(failure.error_type, failure.message)
        mark, self._mark = self._mark, None
        super().__exit__(None, None, None)
        self._mark = mark
        self._forget_answer()
        self.error_type, self.error_message = said
        self._attempt += 1
        self.begin()

    def _forget_answer(self) -> None:
        self.usage, self.provenance = None, Provenance.UNKNOWN
        self.response_id = self.response_model = self.service_tier = None
        self.finish_reasons, self._first_chunk_ns = (), None
        self.contradiction = self.total_tokens = None

    def __enter__(self) -> Self:
        self.begin()
        if self._unkept is not None:
            try:
                self.keep_now()
            except BaseException as error:
                self.__exit__(type(error), error, error.__traceback__)
                raise
        return self

    async def __aenter__(self) -> Self:
        """Enter it, and where the ledger promises that a request is on disk before it leaves, wait for that: without
        blocking the event loop, as `with` would. So it is where a shared budget leases room first."""
        await self._execution.lease(self._request)
        self.begin()
        try:
            await self.keep()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, tb)

    def begin(self) -> None:
        """Begin an attempt, as entering does, but wait for no ledger: `keep` or `keep_now` comes before it leaves.

        Raises:
            BudgetExceeded: a budget has no room for it.
            UnboundedRequest: it has no known upper bound, and a budget needs one.
            RunEnded: its run has ended.
        """
        scope = self._execution.scope
        if scope is not None and scope.limits and not self._execution.finished:
            bound, self._reserved_ns, self._settle = self._execution.claim(self._request)
            if self.bound is None:
                self.bound = bound
        super().__enter__()
        self._announce()
        self.is_open = True
        recording = self._execution.runtime.recording
        if recording is not None and recording.keeps_requests:
            self._unkept = recording
        around = _inside.get()
        if around is not self:  # which it is at another attempt
            while around is not None and not around.is_open:  # it has ended in another context
                around = around.around
            self.around = around
            self._mark = _inside.set(self)

    async def keep(self) -> None:
        """Wait until the attempt that was begun is on disk, where the ledger promises that.

        One that is cancelled meanwhile has used nothing: leave the call with the exception.
        """
        recording, self._unkept = self._unkept, None
        if recording is not None:
            with self._not_leaving_if_it_raises():
                durable = await recording.on_disk()
            self._tell_kept(durable)

    def keep_now(self) -> None:
        """Block this thread until the attempt that was begun is on disk, where the ledger promises that."""
        recording, self._unkept = self._unkept, None
        if recording is not None:
            with self._not_leaving_if_it_raises():
                durable = recording.on_disk_now()
            self._tell_kept(durable)

    @contextmanager
    def _not_leaving_if_it_raises(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.usage, self.provenance = Usage(), Provenance.REPORTED
            raise

    def _tell_kept(self, durable: bool) -> None:
        if not durable:
            self.notice("ledger", "the request leaves all the same, though the ledger could not take it")

    def _announce(self) -> None:
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
                reserved_ns=self._reserved_ns,
            )
        )

    def _tidy(self) -> None:
        super()._tidy()
        reasons: Any = self.finish_reasons
        self.response_id = id_of(self.response_id)
        self.response_model = optional_name(self.response_model)
        self.service_tier = optional_name(self.service_tier)
        self.finish_reasons = tuple(map(name_of, reasons)) if isinstance(reasons, tuple | list) else (name_of(reasons),)
        if self.bound is not None and sound_usage(self.bound)[1]:
            self.bound = None
        if self.usage is not None:
            self._tidy_usage(self.usage)

    def _tidy_usage(self, said: Usage) -> None:
        self.usage, wrong = sound_usage(said)
        if not wrong:
            return
        self.provenance = Provenance.UNKNOWN if self.usage is None else Provenance.PARTIAL
        values = ", ".join(f"{name}={_shown(getattr(said, name, None))}" for name in wrong)
        self.notice(
            "usage", f"the usage told of a request has values that are not counts, and are not believed: {values}"
        )

    def _leave_context(self) -> None:
        if self._mark is not None:
            try:
                _inside.reset(self._mark)
            except (ValueError, RuntimeError):
                pass  # left in another context than entered: there `is_open` says so

    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        self._leave_context()
        if not self.is_open:
            return  # a budget refused another attempt, and the last one has ended
        self.is_open = False
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
            service_tier=_served(self.service_tier, request.service_tier, execution.runtime.assumed_tier),
            finish_reasons=self.finish_reasons,
            error_type=self.error_type,
            error_message=self.error_message,
            bound=None if self.provenance is Provenance.REPORTED else self.bound,
            contradiction=self.contradiction,
            total_tokens=self.total_tokens,
            reserved_ns=self._reserved_ns,
        )
        execution.requests.append(event)
        if self._settle is not None:
            self._settle(event)

    def notice(self, kind: str, message: str) -> None:
        """Warn of something about this model on this server, once an engine.

        Args:
            kind: What it is about, in a word. Few different ones.
            message: A sentence.
        """
        request = self._request
        self._execution.notice(
            kind, f"{request.model} at {request.server_address or request.provider}", message, once=True
        )


class _Failure(NamedTuple):
    """The end of a request after which a client may send another."""

    error_type: str
    message: str | None
    used_nothing: bool


_inside: ContextVar[ModelCall | None] = ContextVar("runmeter_model_call", default=None)


def open_model_call() -> ModelCall | None:
    """Find the model call that this code is inside of, whose request is then counted already.

    Returns:
        The innermost whose request has not been sent by a metered client yet; else the innermost whose request has
        failed, so that this is another attempt at it; else the innermost.
    """
    innermost: ModelCall | None = None
    failed: ModelCall | None = None
    call = _inside.get()
    while call is not None:
        if call.is_open and not call.has_left:
            return call
        if call.is_open:
            innermost = innermost or call
            failed = failed or (call if call.has_failed else None)
        call = call.around
    return failed or innermost


_RECORDED: dict[str, Provenance] = {
    provenance: provenance for provenance in Provenance if provenance is not Provenance.UNKNOWN
}


def _shown(value: object) -> str:
    """Show a number, or of any other value, which might be content, the type."""
    return repr(value)[:40] if value is None or isinstance(value, int | float) else type(value).__name__


def _refused(provenance: object) -> Provenance:
    raise ConfigurationError(f"provenance is reported, partial or estimated, not {provenance!r:.100}")


def _served(answered: str | None, requested: str | None, assumed: str | None) -> str | None:
    """Find the tier that served, None where that is not known; `auto` is not a tier, but a way to choose one."""
    if answered and answered != "auto":
        return answered
    return requested if requested and requested != "auto" else assumed


class _SoundToolCall(msgspec.Struct, gc=False):
    name: Name
    call_id: Id | None
    error_type: Name | None
    error_message: Message | None


class ToolCall(Operation):
    """The execution of a tool."""

    _of_tool = True
    _sound = _SoundToolCall

    def __init__(self, execution: MeteredRun, name: str, call_id: str | None) -> None:
        super().__init__(execution)
        self.name = name
        self.call_id = call_id

    def _tidy(self) -> None:
        super()._tidy()
        self.name, self.call_id = name_of(self.name), id_of(self.call_id)

    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        self._execution.emit(
            FunctionCall,
            self.trace,
            name=self.name,
            call_id=self.call_id,
            start_ns=self.start_ns,
            duration_ns=duration_ns,
            error_type=self.error_type,
            error_message=self.error_message,
        )


class _SoundAssistantCall(msgspec.Struct, gc=False):
    assistant: Name
    thread_id: Id | None
    thread: Literal["created", "resumed"] | None
    steps: Count
    error_type: Name | None
    error_message: Message | None


class AssistantCall(Operation):
    """The work of an assistant on a thread."""

    _sound = _SoundAssistantCall

    def __init__(
        self,
        execution: MeteredRun,
        assistant: str,
        thread_id: str | None,
        thread: Literal["created", "resumed"] | None,
    ) -> None:
        super().__init__(execution)
        self.assistant = assistant
        self.thread_id = thread_id
        self.thread: Literal["created", "resumed"] | None = thread
        self.steps = 0
        """Turns of the loop: count them as they begin."""

    def _tidy(self) -> None:
        super()._tidy()
        self.assistant, self.thread_id = name_of(self.assistant), id_of(self.thread_id)
        self.thread = self.thread if self.thread in ("created", "resumed") else None
        self.steps = count_of(self.steps) or 0

    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        self._execution.emit(
            AssistantRun,
            self.trace,
            assistant=self.assistant,
            thread_id=self.thread_id,
            thread=self.thread,
            steps=self.steps,
            status=status_of(error) if error or not self.error_type else Status.ERROR,
            start_ns=self.start_ns,
            duration_ns=duration_ns,
            error_type=self.error_type,
            error_message=self.error_message,
        )


class _SoundRetrieval(msgspec.Struct, gc=False):
    source: Name
    requested: Count | None
    documents: Count
    top_score: float | None
    error_type: Name | None
    error_message: Message | None


class RetrievalCall(Operation):
    """A search for passages. Record its result; if none was recorded, it found nothing."""

    _sound = _SoundRetrieval

    def __init__(self, execution: MeteredRun, source: str, requested: int | None) -> None:
        super().__init__(execution)
        self.source = source
        self.requested = requested
        self.documents = 0
        self.top_score: float | None = None

    def record(self, documents: int, top_score: float | None = None) -> None:
        """Record the passages found. The last call counts.

        Args:
            documents: How many passages.
            top_score: The best passage's score, on the source's own scale; None if there is none.

        Raises:
            ConfigurationError: `documents` is not a count, or the score not a number.
        """
        # Local indexes answer in numpy's numbers, which no codec takes.
        try:
            found, score = count_of(int(documents)), None if top_score is None else float(top_score)
        except (TypeError, ValueError, OverflowError):
            found, score = None, None
        if found is None:
            said = f"{documents!r:.100} and {top_score!r:.100}"
            raise ConfigurationError(f"record takes a number of documents, 0 or more, and a score, not {said}")
        self.documents, self.top_score = found, score if score is not None and isfinite(score) else None

    def _tidy(self) -> None:
        super()._tidy()
        self.source = name_of(self.source)
        self.requested = count_of(self.requested)
        self.documents = count_of(self.documents) or 0

    def _ended(self, error: BaseException | None, duration_ns: int) -> None:
        self._execution.emit(
            Retrieval,
            self.trace,
            source=self.source,
            start_ns=self.start_ns,
            duration_ns=duration_ns,
            documents=self.documents,
            top_score=self.top_score,
            requested=self.requested,
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
    return name_of(code if code and isinstance(code, str) else type(error).__qualname__)


def error_message(error: BaseException) -> str | None:
    """Take an exception's message, as valid UTF-8 and cut to `MAX_ERROR_MESSAGE` characters."""
    try:
        message = str(error)
    except Exception:
        return None
    return cut_message(message) or None
