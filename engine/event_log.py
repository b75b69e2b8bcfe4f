"""Events as lines of JSON in a file: written by a subscriber, read one by one, damaged lines told and skipped."""

import logging
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from .calls.endings import error_message
from .codec import JSON
from .errors import ConfigurationError
from .events import Event

logger = logging.getLogger("runmeter")

NAME = "event log"
"""The subscriber's name in logs and statistics."""
SQLITE = b"SQLite format 3\x00"
"""The first bytes of a ledger. Source: SQLite, "Database File Format", 1.3.1 (2026-11)."""


class EventLog:
    """A subscriber that appends events to a file: `engine.subscribe(log, name=NAME, lane="lossless")`.

    Use it as a context manager around the engine, so that it closes after the last event. Each batch has left the
    process when the call returns: killing the process loses no batch, losing power may.

    Args:
        path: Where to write. A file that is there is continued, after a line break where its last line was cut.

    Raises:
        ConfigurationError: the file is a ledger, which its lines would damage.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        if path.is_file() and is_ledger(path):
            raise ConfigurationError(f"{path} is a ledger: an event log takes another file")
        self.skipped = 0
        """Events that are not written: those without a form in JSON, and those that the file did not take in time."""
        self._file = FileIO(path, "ab")
        self._unwritten = b"" if _ends_with_a_line(path) else b"\n"
        self._failed: Sequence[Event] | None = None  # the batch that was not written whole

    def __call__(self, events: Sequence[Event]) -> None:
        """Write a batch of events.

        Raises:
            OSError: it was not written whole. The bus hands over the same batch again, which then goes on where this
                call stopped: no line is torn or doubled.
        """
        if events is not self._failed:
            if self._failed is not None:
                self._set_aside()
            self._unwritten += b"".join(map(self._line, events))
        self._failed = events
        while self._unwritten:
            written = self._file.write(self._unwritten) or 0
            self._unwritten = self._unwritten[written:]
        self._failed = None

    def _set_aside(self) -> None:
        """Forget the unwritten rest of a batch that the bus has given up, but for the end of a torn line."""
        torn, newline, rest = self._unwritten.partition(b"\n")
        self._unwritten = torn + newline
        self.skipped += rest.count(b"\n")

    @property
    def unwritten(self) -> int:
        """Events of the last batch that are not in the file."""
        return self._unwritten.count(b"\n")

    def _line(self, event: Event) -> bytes:
        try:
            return JSON.encode(event) + b"\n"
        except Exception as error:  # whatever a value in it may be: one event is no reason to lose those after it
            if not self.skipped:
                logger.warning("%s: an event is skipped, and further ones are counted: %s", NAME, error_message(error))
            self.skipped += 1
            return b""

    def close(self) -> None:
        """Close the log's file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def _ends_with_a_line(path: Path) -> bool:
    """Tell whether appended text begins a new line."""
    if not path.is_file() or not path.stat().st_size:  # a pipe has no end to look at
        return True
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def read_events(
    path: Path,
    damaged: Callable[[int, str], None],
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Event]:
    """Read the events in a file, in its order. Those of kinds that only a newer version knows come as `UnknownEvent`.

    Args:
        path: What to read.
        damaged: Told the number of each line (the first is 1) that is not an event, and why; the line is skipped.
        progress: Told after each line how many bytes it had.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    event = JSON.decode(line)
                except msgspec.DecodeError as error:
                    damaged(number, str(error))
                else:
                    yield event
            progress(len(line))


def is_ledger(path: Path) -> bool:
    """Tell a ledger from an event log, by its first bytes.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE
