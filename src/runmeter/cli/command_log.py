"""The `--events` option: an event log that, when it cannot be written, says so at once and keeps nothing waiting."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console

from runmeter.engine import ConfigurationError, Event, SQLiteLedger
from runmeter.engine.event_log import EventLog

from .ending import NOT_WRITTEN


def log_to(path: Path | None, ledger: Path | None, console: Console) -> "AbstractContextManager[CommandLog | None]":
    """Open the event log of a command; without a path there is none.

    Args:
        path: Where to write.
        ledger: The command's ledger.
        console: Where it says what is lost.

    Raises:
        ConfigurationError: the file cannot be opened, or is a ledger.
    """
    if path is None:
        return nullcontext()
    if ledger is not None and path.resolve() == ledger.resolve():
        raise ConfigurationError(f"--events and --ledger are one file, {path}: give each its own")
    try:
        return CommandLog(path, partial(console.print, style="red", markup=False, highlight=False, soft_wrap=True))
    except OSError as error:
        raise ConfigurationError(f"--events {path}: {error.strerror or error}") from None


def kept_code(code: int, log: "CommandLog | None", ledger: SQLiteLedger | None) -> int:
    """Turn the exit code of success into `NOT_WRITTEN` if an event is missing in the log or the ledger."""
    if log is not None:
        code = log.code(code)
    return NOT_WRITTEN if code == 0 and ledger is not None and ledger.lost else code


class CommandLog:
    """A subscriber that appends events to a file until it cannot, and counts those that are lost from then on.

    A file that has once refused a write is not tried again: a command has an end, and is not to wait there.

    Args:
        path: Where to write.
        tell: Takes a sentence when the first event is lost, and another at the end.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, tell: Callable[[str], object]) -> None:
        self._path = path
        self._tell = tell
        self._log = EventLog(path)
        self._taken = 0
        self._refused = 0
        self._error: OSError | None = None

    def __call__(self, events: Sequence[Event]) -> None:
        """Write a batch of events, or count them as lost."""
        self._taken += len(events)
        if self._error is not None:
            self._refused += len(events)
            return
        try:
            self._log(events)
        except OSError as error:
            self._fail(error)
            self._refused += self._log.unwritten

    @property
    def lost(self) -> int:
        """The number of events that are not in the file."""
        return self._refused + self._log.skipped

    def code(self, code: int) -> int:
        """Turn the exit code of success into `NOT_WRITTEN` if an event is lost, or the file could not be closed."""
        return NOT_WRITTEN if code == 0 and (self.lost or self._error) else code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            self._log.close()
        except OSError as error:
            self._fail(error)
        if self.lost:
            self._tell(f"--events {self._path}: {self.lost:,} of {self._taken:,} events are not in it")

    def _fail(self, error: OSError) -> None:
        self._error = error
        self._tell(f"--events {self._path}: {error.strerror or error}: what happens from here on is not in it")
