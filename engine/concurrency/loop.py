"""Access to the event loop: reaching it from other threads, tasks of its own, and telling cancellations apart."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any


class LoopThread:
    """The thread of the event loop that runs now, and the way into it from others."""

    def __init__(self) -> None:
        from anyio.lowlevel import current_token  # here, because an import of this package should be light

        token: Any = current_token().native_token
        self._ident = threading.get_ident()
        # The one thing anyio has no word for: a call made in the loop's thread that no other waits for.
        self._run_soon = getattr(token, "call_soon_threadsafe", None) or token.run_sync_soon

    @property
    def is_current(self) -> bool:
        """The calling code runs in this thread."""
        return threading.get_ident() == self._ident

    def run(self, function: Callable[[], object]) -> None:
        """Call the function in the loop's thread: at once if this is it, else soon.

        Raises:
            RuntimeError: the loop has closed. (On trio `trio.RunFinishedError`, which is one.)
        """
        if self.is_current:
            function()
        else:
            self._run_soon(function)

    def run_soon(self, function: Callable[[], object]) -> None:
        """Call the function in the loop's thread, soon, even if this is it.

        Raises:
            RuntimeError: the loop has closed.
        """
        self._run_soon(function)


def is_own_failure(error: BaseException) -> bool:
    """Tell whether the code that raised this failed by itself, and is not being cancelled.

    On asyncio, code that awaits a task or future that was cancelled elsewhere gets the same `CancelledError` as code
    that is cancelled itself. The difference is whether the current task was asked to end.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)


def without_cancellations(error: BaseException) -> BaseException | None:
    """Reduce what a task group raised to what failed in it: None if all of it is cancellation."""
    from anyio import get_cancelled_exc_class

    cancelled = get_cancelled_exc_class()
    if not isinstance(error, BaseExceptionGroup):
        return None if isinstance(error, cancelled) else error
    failures = error.split(cancelled)[1]
    while isinstance(failures, BaseExceptionGroup) and len(failures.exceptions) == 1:
        failures = failures.exceptions[0]
    return failures


def spawn(function: Callable[[], Coroutine[Any, Any, None]], name: str) -> object:
    """Start a task of the event loop's own, which no other task has to wait for.

    Args:
        function: Does its work. It may raise nothing but its cancellation, which comes when the loop ends.
        name: What to call it.

    Returns:
        The task: keep it while it runs.
    """
    from anyio.lowlevel import current_token

    loop: Any = current_token().native_token
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop.create_task(function(), name=name)
    import trio

    return trio.lowlevel.spawn_system_task(function, name=name)


def interrupt_program() -> None:
    """Pass on a Ctrl-C that hit a background task to the program's main task.

    asyncio needs no help: a `KeyboardInterrupt` leaves its loop whichever task it hits. trio lets it go no further than
    the task's nursery, but hands a signal that comes in one of its own tasks to the main one.
    """
    if "trio" in sys.modules and not _runs_asyncio():
        signal.raise_signal(signal.SIGINT)


def _runs_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
