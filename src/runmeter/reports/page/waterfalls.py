"""Single runs, to look into: the slowest and the dearest, as waterfalls of all that happened in them."""

from collections.abc import Iterable, Sequence

import msgspec

from runmeter.engine import CostEstimate, Event, ModelCallStarted, PriceBook, TokenUsage
from runmeter.engine.ledger.reader import LedgerReader, RunRecord

from ..trace_lines import TraceLine, trace_lines
from ..unended import unanswered

MAX_LINES = 80
"""Lines of a waterfall; of a longer one the first are shown."""


class WaterfallLine(msgspec.Struct, frozen=True):
    """A line of a waterfall."""

    line: TraceLine
    offset_ns: int
    """Nanoseconds from the outermost run's start."""
    shown_ns: int
    """Nanoseconds that are drawn: how long it took, or the time until all that is known ends."""
    cost: CostEstimate | None
    """A request's cost."""


class Waterfall(msgspec.Struct, frozen=True):
    """An outermost run with all that happened in it."""

    run: RunRecord
    cost: CostEstimate
    """The cost of all its requests and of those in the runs within it."""
    lines: Sequence[WaterfallLine]
    left_out: int
    """The number of further lines."""


def read_waterfalls(ledger: LedgerReader, runs: Iterable[RunRecord]) -> Sequence[Waterfall]:
    """Read runs with all that happened in them; those of which too little is kept are left out."""
    found = []
    for run in runs:
        within = [each.run_id for each in ledger.tree(run.run_id)]
        try:
            lines = trace_lines(ledger.events(within), run.run_id)
        except ValueError:  # its start is older than what the ledger keeps
            continue
        found.append(_waterfall(run, lines, ledger.prices))
    return found


def _waterfall(run: RunRecord, lines: Sequence[TraceLine], prices: PriceBook) -> Waterfall:
    start_ns = lines[0].start_ns
    end_ns = max(line.start_ns + (line.length_ns or 0) for line in lines)
    costs = [_cost(line.event, prices) for line in lines]
    shown = [
        WaterfallLine(
            line,
            line.start_ns - start_ns,
            end_ns - line.start_ns if line.length_ns is None else line.length_ns,
            cost,
        )
        for line, cost in zip(lines[:MAX_LINES], costs, strict=False)
    ]
    total = sum((cost for cost in costs if cost is not None), start=CostEstimate())
    return Waterfall(run, total, shown, len(lines) - len(shown))


def _cost(event: Event, prices: PriceBook) -> CostEstimate | None:
    """The cost of a line, if it is a request."""
    match event:
        case TokenUsage():
            return prices.cost(event)
        case ModelCallStarted():
            return prices.cost(unanswered(event))
        case _:
            return None
