"""`runmeter advise`: advice from an event log."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from runmeter.engine import Advice, Advisor, Event
from runmeter.engine.event_log import read_events
from runmeter.engine.formats import printable

from .ending import CommandError

BATCH = 1_000
"""Events handed over at once."""
WORTH_A_BAR = 4 * 2**20
"""Bytes from which reading takes long enough to show how far it is."""
MAX_DAMAGED = 10
"""Damaged lines that are shown, each with its number; further ones are only counted."""
CAVEAT = (
    "What holds here holds of these runs, with 95 % confidence for all comparisons together. No event tells whether "
    "the answers were as good, whether both sides had cases of the same difficulty, or whether they ran under the same "
    "load."
)
_HEADINGS = {
    "cheaper": "Cheaper",
    "faster": "Faster",
    "caching_saved": "Prompt caching",
    "caching_possible": "Prompt caching",
    "tool_tokens": "What eats tokens",
    "prompt_tokens": "What eats tokens",
    "failed_requests": "Failed requests",
    "silence": "What cannot be told",
}


class DamagedLine(msgspec.Struct, frozen=True):
    """A line of the log that is not an event."""

    line: int
    error: str


@dataclass
class _Reading:
    """The count of events and of damaged lines in the log."""

    events: int = 0
    damaged: int = 0
    shown: list[DamagedLine] = field(default_factory=list)

    def count_damaged(self, line: int, error: str) -> None:
        self.damaged += 1
        if len(self.shown) < MAX_DAMAGED:
            self.shown.append(DamagedLine(line, error))


def advise(path: Path, by: str | None, out: TextIO, console: Console | None = None, *, as_json: bool = False) -> int:
    """Show the advice that a log gives.

    Args:
        path: An event log.
        by: The tag that says which runs do the same work; None: the pattern does.
        as_json: Print one JSON object.
        out: Where the advice goes.
        console: Where progress and damaged lines are shown; by default the standard error.

    Returns:
        The exit code: 0, or 1 if there is no event in the log.

    Raises:
        CommandError: the log cannot be read.
    """
    console = console or Console(stderr=True)
    advisor, reading = Advisor(by), _Reading()
    try:
        _read(path, advisor, reading, console)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from None
    advice = advisor.advice()
    for damaged in reading.shown:
        console.print(Text(f"{path}, line {damaged.line}: skipped, {damaged.error}", "yellow"), soft_wrap=True)
    if reading.damaged > len(reading.shown):
        console.print(Text(f"{reading.damaged - len(reading.shown):,} more lines skipped", "yellow"))
    out.write(_json(advisor, advice, reading) if as_json else _text(advisor, advice, reading, path))
    return 0 if reading.events else 1


def _read(path: Path, advisor: Advisor, reading: _Reading, console: Console) -> None:
    size = path.stat().st_size
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=size < WORTH_A_BAR) as progress:
        bar = progress.add_task("reading", total=size)
        events = read_events(path, reading.count_damaged, lambda count: progress.advance(bar, count))
        for batch in _batches(events):
            reading.events += len(batch)
            advisor(batch)


def _batches(events: Iterator[Event]) -> Iterator[Sequence[Event]]:
    while batch := tuple(islice(events, BATCH)):
        yield batch


def _text(advisor: Advisor, advice: Sequence[Advice], reading: _Reading, path: Path) -> str:
    lines = [f"{advisor.runs:,} finished runs in {printable(str(path))} ({reading.events:,} events)"]
    told = [each for each in advice if each.kind != "silence"]
    if not told:
        lines.append("\nToo little to go by: the data do not bear out any advice.")
    for heading in dict.fromkeys(_HEADINGS.values()):
        texts = [f"  - {printable(each.text)}" for each in advice if _HEADINGS[each.kind] == heading]
        lines += [f"\n{heading}", *texts] if texts else []
    if any(each.kind in ("cheaper", "faster") for each in told):
        lines.append(f"\n{CAVEAT}")
    return "\n".join(lines) + "\n"


def _json(advisor: Advisor, advice: Sequence[Advice], reading: _Reading) -> str:
    report = {
        "runs": advisor.runs,
        "events": reading.events,
        "damaged_lines": reading.damaged,
        "damaged": reading.shown,
        "advice": advice,
        "caveat": CAVEAT,
    }
    return msgspec.json.Encoder(decimal_format="number").encode(report).decode() + "\n"
