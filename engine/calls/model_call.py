"""A request to a model: its attempts, what was answered, and the call that code is inside of."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, NamedTuple, Self

from ..errors import ConfigurationError
from ..events import ModelCallStarted, Provenance, TokenUsage, Usage
from ..ledger.recording import Recording
from ..request import ModelRequest
from ..validation.checks import id_of, name_of, optional_name, sound_usage
from .answer import RECORDED, SoundAnswer, refused, served, shown
from .operation import MeteredRun, Operation


class ModelCall(Operation):
    """A request to a model. Record its usage; a usage that was not recorded counts as unknown, never as nothing."""

    _sound = SoundAnswer

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
        self.provenance = RECORDED.get(provenance) or refused(provenance)
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
        values = ", ".join(f"{name}={shown(getattr(said, name, None))}" for name in wrong)
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
            service_tier=served(self.service_tier, request.service_tier, execution.runtime.assumed_tier),
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
