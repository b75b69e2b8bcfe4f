"""Runs of requests that belong to no other, in the one engine that runs."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from ..budgets.reserving import Reserving
from ..calls.model_call import ModelCall
from ..concurrency.outside import outside
from ..request import ModelRequest
from ..runtime import RunInfo
from .execution import Execution, running

OUTSIDE = "outside"
"""The name of runs that are made for requests which belong to none."""


def outside_run() -> Execution | None:
    """Count a request that belongs to no run, and make a run called `outside` for it, in the one engine that runs.

    The budgets of runs without tags apply to it.

    Returns:
        The run, to be entered; None if no engine runs in this process, or several do.
    """
    outside.count()
    runtime = outside.runtime
    return None if runtime is None else _OutsideRun(runtime, RunInfo(OUTSIDE))


class _OutsideRun(Execution):
    """The run of a request that belongs to no other. It ends with its engine, if that closes before."""

    def model_call(self, request: ModelRequest, *, attempt: int = 1) -> ModelCall:
        return _CallOutside(self, request, attempt)

    def __enter__(self) -> Self:
        super().__enter__()
        outside.call_at_close(self.runtime.owner, self._close)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if outside.forget_close(self._close):
            super().__exit__(exc_type, exc, tb)
            return
        # The engine has closed, and has ended it, in another context than this one.
        if self.runtime.tracing is not None:
            self.runtime.tracing.end_span(self._span)
        with suppress(ValueError, RuntimeError):
            running.reset(self._outer)

    def _close(self) -> None:
        super().__exit__(None, None, None)


class _CallOutside(ModelCall):
    """A request that belongs to no run, in one of its own: it ends with that run, if not before."""

    _closed = False

    def __enter__(self) -> Self:
        is_first = self.call_id < 0
        super().__enter__()
        if is_first:
            self._execution.at_end = (*self._execution.at_end, self._close)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not self._closed:
            super().__exit__(exc_type, exc, tb)
            return
        if self._execution.runtime.tracing is not None:
            self._execution.runtime.tracing.end_span(self._span)
        self._leave_context()

    def _close(self) -> None:
        if self.is_open:
            self._closed = True
            super().__exit__(None, None, None)


class OutsideModelCall(_CallOutside):
    """A request that belongs to no run, in a run of its own that begins and ends with it."""

    def __init__(self, run: Execution, request: ModelRequest, attempt: int) -> None:
        super().__init__(run, request, attempt)
        self._run = run

    def begin(self) -> None:
        """Begin an attempt, and with the first the run."""
        if self.call_id >= 0:  # for another attempt
            super().begin()
            return
        with _begun(self._run):
            super().begin()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        super().__exit__(exc_type, exc, tb)
        self._run.__exit__(exc_type, exc, tb)


class OutsideReserving:
    """A reservation for a request that belongs to no run, in a run of its own, which `model_call` within it is of."""

    def __init__(self, run: Execution, request: ModelRequest, *, may_lower: bool) -> None:
        self._run = run
        self._request = request
        self._may_lower = may_lower
        self._reserving: Reserving

    def __enter__(self) -> ModelRequest:
        with _begun(self._run):
            self._reserving = self._run.reserve(self._request, may_lower=self._may_lower)
            return self._reserving.__enter__()

    async def __aenter__(self) -> ModelRequest:
        with _begun(self._run):
            self._reserving = self._run.reserve(self._request, may_lower=self._may_lower)
            return await self._reserving.__aenter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._reserving.__exit__(exc_type, exc, tb)
        self._run.__exit__(exc_type, exc, tb)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, tb)


@contextmanager
def _begun(run: Execution) -> Iterator[None]:
    """Begin a run that goes on after the block, unless that raises."""
    run.__enter__()
    try:
        yield
    except BaseException as error:
        run.__exit__(type(error), error, error.__traceback__)
        raise
