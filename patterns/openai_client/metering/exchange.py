"""One request of a metered client and its answer: which run it belongs to, and how it ended."""

from contextvars import Context, copy_context

from runmeter.engine import (
    Execution,
    ModelCall,
    ModelRequest,
    Provenance,
    StreamClosed,
    Usage,
    hand_reservation,
    hold_reservation,
    metered_execution,
    open_model_call,
)

from ...errors import ResponseFailed
from ...requests.bounds import bound_late
from ...requests.retry import used_nothing
from .answers import failure_of, record_answer
from .background import background, unfinished
from .client_call import ClientCall, client_call
from .sent import RUN_NAMES, SentRequest
from .streams import CompletionReading, ResponseReading, StreamReading
from .trouble import trouble

_STREAM_CUT = "stream_cut", "the stream ended before the answer was complete"
_CALLED = {
    "TimeoutException": "APITimeoutError",
    "RequestError": "APIConnectionError",
}
"""The client's names for what went wrong below it, by the bases of the HTTP library's errors."""


class Counted:
    """A request that is counted, here or elsewhere."""

    sent: SentRequest
    waits = True
    """False if it may leave at once: there is neither room to be reserved nor a ledger to be waited for."""
    _call: ModelCall

    def _wants_bound(self, error: BaseException | None) -> bool:
        call = self._call
        return (
            call.provenance is not Provenance.REPORTED
            and call.bound is None
            and (error is None or not used_nothing(error))
        )

    async def keep(self) -> None:
        """Wait until the request is on disk, where the ledger promises that before it leaves."""
        await self._call.keep()

    def keep_now(self) -> None:
        """Block this thread until the request is on disk, where the ledger promises that before it leaves."""
        self._call.keep_now()

    async def prepare(self, error: BaseException | None = None) -> None:
        """Work out the upper bound of what a request used that has not told it, in a worker thread.

        Args:
            error: What it failed with.
        """
        try:
            if self._wants_bound(error):
                await bound_late(self._call, self.sent.sent)
        except Exception as failure:
            trouble.note(failure)

    def prepare_here(self, error: BaseException | None = None, *, by_bytes: bool = False) -> None:
        """Work it out in this thread: a millisecond for a few thousand words, and a second the first time.

        Args:
            error: What it failed with.
            by_bytes: Count a token for each byte, which takes no second.
        """
        try:
            if self._wants_bound(error):
                self._call.bound = self.sent.sent.bound_here(by_bytes=by_bytes)
        except Exception as failure:
            trouble.note(failure)


class Within(Counted):
    """A request inside a `model_call` that counts it already: that is told of attempts, and nothing else.

    Args:
        call: That call.
        sent: The request.
    """

    def __init__(self, call: ModelCall, sent: SentRequest) -> None:
        self._call = call
        self.sent = sent

    def leave(self) -> None:
        """Say that the request leaves. Raises what `ModelCall.leave` raises."""
        self._call.leave()

    def opened(self) -> None:
        """Leave an answer to whom it is for."""

    def left(self) -> None:
        """Leave it at that."""

    def refused(self, status: int, body: bytes) -> None:
        """Take an error that the server answered with."""
        self._miss(failure_of(status, body), 400 <= status < 500 and status != 408)

    def lost(self, error: BaseException) -> None:
        """Take what kept the answer from coming."""
        if isinstance(error, Exception):
            self._miss((_name_of(error), str(error) or None), used_nothing(error))

    def _miss(self, failure: tuple[str, str | None], nothing: bool) -> None:
        self._call.miss(failure, used_nothing=nothing)


class MeteredExchange(Counted):
    """A request that is counted here, from before it leaves until its answer has ended, however that is.

    Args:
        sent: The request.
        execution: The run that it belongs to.
        context: Where its events are entered and left, if not in the current context.
        owner: The client's call that has a run for it; None in a run that goes on.
    """

    reading: StreamReading | None = None
    """The answer as far as it has come, where it is streamed."""
    _ended = False

    def __init__(
        self, sent: SentRequest, execution: Execution, context: Context | None = None, owner: ClientCall | None = None
    ) -> None:
        self.sent = sent
        self.execution = execution
        self._context = context
        self._owner = owner

    def begin(self, request: ModelRequest) -> None:
        """Begin, with the request as it is sent, and wait for no ledger. Raises what entering a `model_call` raises."""
        context, owner = self._context, self._owner
        asked_by = client_call.get()
        attempt = self.sent.attempt if asked_by is None else asked_by.attempts
        self._call = call = self.execution.model_call(request, attempt=attempt)
        if owner is not None:
            owner.give_up = self._give_up
        if context is None:
            call.begin()
        else:
            if self.execution.budgeted:
                hand_reservation(context)
            context.run(call.begin)

    def hold(self) -> None:
        """Have the code that asked for a stream not wait for the room that this stream holds."""
        if self._context is not None:
            hold_reservation(self._context)

    def refuse(self, error: BaseException) -> None:
        """End what was begun for a request that does not leave."""
        if self._owner is not None and self._owner.ends_with_stream:
            self._owner.end(error)

    async def keep(self) -> None:
        """Wait until the request is on disk, where the ledger promises that before it leaves."""
        try:
            await super().keep()
        except BaseException as error:
            self._end(error)
            raise

    def keep_now(self) -> None:
        """Block this thread until the request is on disk, where the ledger promises that before it leaves."""
        try:
            super().keep_now()
        except BaseException as error:
            self._end(error)
            raise

    def _give_up(self) -> None:
        """End with what has come, as the engine closes."""
        if self.reading is not None:
            self.reading.end()
        self._end(None)

    def answered(self, body: bytes) -> None:
        """Take an answer that came at once, or that is still being made in the background."""
        if self._ended:
            return
        if self.sent.body.background is True and (response_id := unfinished(body)) is not None:
            self._wait_for(response_id)
            return
        try:
            record_answer(self._call, self.sent.api, body)
        finally:
            self._end(None)

    def _wait_for(self, response_id: str) -> None:
        """Leave the call open until its answer is retrieved, its run ends or its engine closes."""
        call, execution = self._call, self.execution
        call.response_id = response_id
        call.notice("background", "an answer made in the background is counted when it is retrieved")
        self.opened()

        def give_up() -> None:
            background.forget(response_id)
            self.prepare_here(by_bytes=True)
            self._end(None)

        def settle(body: bytes) -> None:
            try:
                record_answer(call, self.sent.api, body)
            finally:
                self._end(None)

        background.wait(response_id, settle, give_up)
        if self._owner is None:
            execution.at_end = (*execution.at_end, give_up)
        else:
            self._owner.give_up = give_up

    def refused(self, status: int, body: bytes) -> None:
        """Take an error that the server answered with."""
        if self._ended:
            return
        if 400 <= status < 500 and status != 408:
            self._call.record(Usage())
        self._call.fail(*failure_of(status, body))
        self._end(None, self._failure())

    def lost(self, error: BaseException) -> None:
        """Take what kept the answer, or the rest of it, from coming."""
        if self._ended:
            return
        if self.reading is not None:
            self.reading.end()
            if self.reading.complete and self._call.provenance is Provenance.REPORTED:
                self._end(None)  # what came after the answer is of no matter
                return
        elif used_nothing(error):
            self._call.record(Usage())
        if isinstance(error, Exception):
            self._call.fail(_name_of(error), str(error) or None)
            self._end(None, error)
        else:
            self._end(error)

    def opened(self) -> None:
        """Say that the answer is read by the caller, who may leave it, so that its end is the call's."""
        if self._owner is not None:
            self._owner.ends_with_stream = True

    def streamed(self) -> StreamReading:
        """Begin to read an answer that is streamed."""
        reading = ResponseReading if self.sent.api == "responses" else CompletionReading
        self.reading = reading(self._call)
        return self.reading

    def stream_ended(self) -> None:
        """Take the end of a stream, as its server ended it."""
        reading = self.reading
        if reading is not None and not self._ended:
            reading.end()
            if not (reading.complete or reading.failed):
                self._call.fail(*_STREAM_CUT)
            elif self._call.provenance is not Provenance.REPORTED and not reading.failed:
                self._call.notice("unreported_usage", "streamed answers come without usage: the cost is an interval")
            self._end(None, self._failure() if reading.failed else None)

    def left(self) -> None:
        """Take that nobody reads on, and none will."""
        if self._ended:
            return
        reading, how = self.reading, None
        failure: ResponseFailed | None = None
        try:
            if reading is not None:
                reading.end()
            if reading is None or not (reading.complete or reading.failed):
                how = StreamClosed()
            elif reading.failed:
                failure = self._failure()
        finally:
            self._end(how, failure)

    def _failure(self) -> ResponseFailed:
        """Make the error that the request's run ends with: its caller gets the client's own."""
        call = self._call
        return ResponseFailed(call.error_type or "error", call.error_message or "the request failed")

    def _end(self, error: BaseException | None, of_run: BaseException | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        call = self._call
        if call.provenance is not Provenance.REPORTED and call.bound is None:
            self.prepare_here(by_bytes=True)
        how = (None, None, None) if error is None else (type(error), error, error.__traceback__)
        if self._context is None:
            call.__exit__(*how)
        else:
            self._context.run(call.__exit__, *how)
        if self._owner is not None and self._owner.ends_with_stream:
            self._owner.end(error or of_run)


def find_exchange(sent: SentRequest) -> MeteredExchange | Within | None:
    """Find where a request is counted.

    Returns:
        `Within` if a model call around it counts it already; None if no engine is there to count it.
    """
    around = open_model_call()
    if around is not None:
        return Within(around, sent)
    call = client_call.get()
    if call is not None:
        call.attempts += 1
    execution = metered_execution()
    if execution is not None:
        # A stream outlives the code that asks for it: what that does next is not inside the request.
        return MeteredExchange(sent, execution, copy_context() if sent.body.stream is True else None)
    if call is None:
        call = ClientCall()
        call.ends_with_stream = True
    entered = call.enter(RUN_NAMES[sent.api])
    return None if entered is None else MeteredExchange(sent, *entered, call)


def _name_of(error: BaseException) -> str:
    """Name an error as the client will, which makes one of its own of it."""
    names = (_CALLED.get(kind.__name__) for kind in type(error).__mro__)
    return next((name for name in names if name), type(error).__qualname__)
