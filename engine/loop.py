"""Reaching an event loop from other threads."""

import threading
from collections.abc import Callable
from typing import Any

import anyio.lowlevel


class LoopThread:
    """The thread of the event loop that runs now, and the way into it from others."""

    def __init__(self) -> None:
        token: Any = anyio.lowlevel.current_token().native_token
        self._ident = threading.get_ident()
        # The one thing anyio has no word for: a call made in the loop's thread that nobody waits for.
        self._run_soon = getattr(token, "call_soon_threadsafe", None) or token.run_sync_soon

    def run(self, function: Callable[[], object]) -> None:
        """Call the function in the loop's thread: at once if this is it, else soon.

        Raises:
            RuntimeError: the loop has closed. (On trio `trio.RunFinishedError`, which is one.)
        """
        if threading.get_ident() == self._ident:
            function()
        else:
            self._run_soon(function)

    def run_soon(self, function: Callable[[], object]) -> None:
        """Call the function in the loop's thread, soon, even if this is it.

        Raises:
            RuntimeError: the loop has closed.
        """
        self._run_soon(function)
