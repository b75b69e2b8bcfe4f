"""The reading of event logs at the command line: how far it is, and the lines that are skipped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from runmeter.engine.event_log import is_ledger
from runmeter.engine.formats import format_count, printable

WORTH_A_BAR = 4 * 2**20
"""Bytes from which reading takes long enough to show how far it is."""
MAX_DAMAGED = 10
"""Damaged lines that are shown, each with its number; further ones are only counted."""


class DamagedLine(msgspec.Struct, frozen=True):
    """A line of the log that is not an event."""

    line: int
    error: str


class DamagedLines:
    """Counts the lines of a log that are skipped.

    Args:
        path: The log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.shown: list[DamagedLine] = []

    def __call__(self, line: int, error: str) -> None:
        """Take a damaged line."""
        self.count += 1
        if len(self.shown) < MAX_DAMAGED:
            self.shown.append(DamagedLine(line, error))

    def tell(self, console: Console) -> None:
        """Say which lines were skipped, and why."""
        for damaged in self.shown:
            text = printable(f"{self.path}, line {damaged.line}: skipped, {damaged.error}")
            console.print(Text(text, "yellow"), soft_wrap=True)
        if self.count > len(self.shown):
            more = format_count(self.count - len(self.shown), "more line")
            console.print(Text(f"{more} skipped", "yellow"), soft_wrap=True)


@contextmanager
def reading_bar(path: Path, console: Console) -> Iterator[Callable[[int], None]]:
    """Show how far the reading of a file is, where it takes long.

    Args:
        path: The file.
        console: Where to show it.

    Returns:
        Takes the number of bytes that were read since the last time.
    """
    size = path.stat().st_size
    if size < WORTH_A_BAR or is_ledger(path):
        yield lambda _: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # rarely needed

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("reading", total=size)
        yield lambda count: progress.advance(bar, count)
