"""How commands end: their exit codes, and the signals that end them as Ctrl-C does."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

INTERRUPTED = 128 + signal.SIGINT
"""The exit code of a command that Ctrl-C ended: 130, as shells say it (POSIX.1-2024, Shell, 2.8.2)."""
NOT_WRITTEN = 74
"""The exit code of a command that did its work and could not write what came of it: EX_IOERR of BSD's sysexits(3)."""
LEFT = 128 + 13
"""The exit code of a command whose output is read no further: as of one that SIGPIPE (13) ends."""
_TERMINATING = ("SIGTERM", "SIGHUP")
"""Signals that end a command like Ctrl-C, where the system has them."""


class CommandError(click.UsageError):
    """The reason why a command cannot begin, or cannot succeed: the message names the cause and the way out."""


class Ending:
    """The signal that told the command to end, if one did."""

    def __init__(self) -> None:
        self._signal = signal.SIGINT

    def code(self, code: int) -> int:
        """Turn the exit code of Ctrl-C into that of the signal which stood behind it: 143 for SIGTERM."""
        return 128 + self._signal if code == INTERRUPTED else code

    def pass_on(self, number: int, _: FrameType | None) -> None:
        """Handle a signal as if Ctrl-C had been pressed."""
        self._signal = signal.Signals(number)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)


@contextmanager
def ended_like_ctrl_c() -> Iterator[Ending]:
    """Have SIGTERM and SIGHUP end what is done inside as Ctrl-C does, wherever it is.

    A signal that is ignored (by `nohup`), or handled already, is left alone; and so are all outside the main thread,
    where none comes.
    """
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    taken = [
        signal.Signals[name]
        for name in _TERMINATING
        if name in signal.Signals.__members__ and signal.getsignal(signal.Signals[name]) is signal.SIG_DFL
    ]
    for each in taken:
        signal.signal(each, ending.pass_on)
    try:
        yield ending
    finally:
        for each in taken:
            signal.signal(each, signal.SIG_DFL)
