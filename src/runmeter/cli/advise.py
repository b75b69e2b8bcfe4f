"""`runmeter advise`: advice from an event log or a ledger."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from runmeter.engine import Advice, Advisor, Event, LedgerError, LedgerReader
from runmeter.engine.event_log import is_ledger, read_events
from runmeter.engine.formats import printable

from .ending import CommandError
from .log_reading import DamagedLines, reading_bar
from .output import write_json

BATCH = 1_000
"""Events handed over at once."""
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


def advise(path: Path, by: str | None, out: TextIO, console: Console | None = None, *, as_json: bool = False) -> int:
    """Show the advice that a history gives.

    Args:
        path: An event log, or a ledger.
        by: The tag that says which runs do the same work; None: the pattern does.
        as_json: Print one JSON object.
        out: Where the advice goes.
        console: Where progress and damaged lines are shown; by default the standard error.

    Returns:
        The exit code: 0, or 1 if there is no event in it.

    Raises:
        CommandError: it cannot be read.
    """
    console = console or Console(stderr=True)
    advisor, damaged = Advisor(by), DamagedLines(path)
    try:
        count = _read(path, advisor, damaged, console)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from None
    except LedgerError as error:
        raise CommandError(str(error)) from None
    advice = advisor.advice()
    damaged.tell(console)
    if as_json:
        write_json(out, _report(advisor, advice, count, damaged))
    else:
        out.write(_text(advisor, advice, count, path))
    return 0 if count else 1


def _read(path: Path, advisor: Advisor, damaged: DamagedLines, console: Console) -> int:
    """Hand over all events, and count them."""
    if is_ledger(path):
        with LedgerReader(path) as ledger:
            return _hand_over(ledger.events(), advisor)
    with reading_bar(path, console) as progress:
        return _hand_over(read_events(path, damaged, progress), advisor)


def _hand_over(events: Iterator[Event], advisor: Advisor) -> int:
    count = 0
    for batch in _batches(events):
        count += len(batch)
        advisor(batch)
    return count


def _batches(events: Iterator[Event]) -> Iterator[Sequence[Event]]:
    while batch := tuple(islice(events, BATCH)):
        yield batch


def _text(advisor: Advisor, advice: Sequence[Advice], count: int, path: Path) -> str:
    lines = [f"{advisor.runs:,} finished runs in {printable(str(path))} ({count:,} events)"]
    told = [each for each in advice if each.kind != "silence"]
    if not told:
        lines.append("\nToo little to go by: the data do not bear out any advice.")
    for heading in dict.fromkeys(_HEADINGS.values()):
        texts = [f"  - {printable(each.text)}" for each in advice if _HEADINGS[each.kind] == heading]
        lines += [f"\n{heading}", *texts] if texts else []
    if any(each.kind in ("cheaper", "faster") for each in told):
        lines.append(f"\n{CAVEAT}")
    return "\n".join(lines) + "\n"


def _report(advisor: Advisor, advice: Sequence[Advice], count: int, damaged: DamagedLines) -> dict[str, Any]:
    return {
        "runs": advisor.runs,
        "events": count,
        "damaged_lines": damaged.count,
        "damaged": damaged.shown,
        "advice": advice,
        "caveat": CAVEAT,
    }
