"""What depends on the event loop: reaching it from other threads, and telling cancellations apart."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any


class LoopThread:
    """The thread of the event loop that runs now, and the way into it from others."""

    def __init__(self) -> None:
        from anyio.lowlevel import current_token  # here, because an import of this package should be light

        token: Any = current_token().native_token
        self._ident = threading.get_ident()
        # The one thing anyio has no word for: a call made in the loop's thread that nobody waits for.
        self._run_soon = getattr(token, "call_soon_threadsafe", None) or token.run_sync_soon

    @property
    def is_current(self) -> bool:
        """Whether the code that asks runs in this thread."""
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
    """Whether what raised this failed by itself, and is not being cancelled.

    On asyncio, who awaits a task or future that somebody else cancelled gets the same `CancelledError` as who is
    cancelled. The difference is whether the current task was asked to end.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)
