"""`runmeter runs`: the runs of a ledger as a list, as they end, or one of them as a tree."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

from rich.console import Group
from rich.text import Text

from runmeter.engine import (
    ConfigurationError,
    LedgerError,
    LedgerReader,
    ModelCallStarted,
    PriceBook,
    RunReported,
    Status,
    TokenUsage,
)
from runmeter.engine.formats import format_count, format_time, printable
from runmeter.engine.ledger.reader import RunRecord
from runmeter.engine.usage.cell import reported_request
from runmeter.reports.run_costs import RunCost, run_costs
from runmeter.reports.trace_lines import TraceLine
from runmeter.reports.unended import unanswered

from ..ending import CommandError
from ..output import cost_fields, table_console, write_json
from ..tables import Column, fitted_table
from ..trace_view import trace_tree

POLL = 0.5
"""Seconds between two looks for runs that have ended."""
SHORT = 12
"""Digits of a run's id that are shown: few enough for a table, enough to find it by."""
PAGE = 100
"""Runs that are looked up at once."""
Order: TypeAlias = Literal["newest", "slowest", "dearest"]


@dataclass(frozen=True, kw_only=True)
class RunsOptions:
    """Options of the command line."""

    ledger: Path
    run_id: str | None = None
    """The run to show; None: a list."""
    pattern: str | None = None
    status: Status | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    since_ns: int = 0
    until_ns: int = 2**63 - 1
    nested: bool = False
    """Runs within others are listed, too."""
    order: Order = "newest"
    limit: int = 50
    follow: bool = False
    as_json: bool = False
    prices: Path | None = None
    trace_url: str | None = None
    """The address of a trace, with `{trace_id}` in it."""

    def matching(self) -> dict[str, Any]:
        """Make the arguments of `LedgerReader.runs`, but for the status."""
        return {
            "since_ns": self.since_ns,
            "until_ns": self.until_ns,
            "pattern": self.pattern,
            "tags": self.tags,
            "outermost": not self.nested,
        }


def show_runs(options: RunsOptions, out: TextIO, sleep: Callable[[float], object] = time.sleep) -> int:
    """Show runs.

    Args:
        options: What is asked.
        out: Where they go.
        sleep: Waits between two looks.

    Returns:
        The exit code: 0.

    Raises:
        CommandError: the ledger cannot be read, or there is no such run.
    """
    try:
        with LedgerReader(options.ledger, PriceBook(options.prices)) as ledger:
            if options.run_id is not None:
                _show_run(ledger, options.run_id, options, out)
            elif options.follow:
                _follow(ledger, options, out, sleep)
            else:
                _list(ledger, options, out)
    except (ConfigurationError, LedgerError) as error:
        raise CommandError(str(error)) from None
    return 0


def _list(ledger: LedgerReader, options: RunsOptions, out: TextIO) -> None:
    runs = ledger.runs(**options.matching(), status=options.status, order=options.order, limit=options.limit)
    costed = _with_costs(ledger, runs)
    if options.as_json:
        for run, cost in costed:
            write_json(out, _fields(run, cost, options))
        return
    console = table_console(out)
    if not runs:
        console.print("no such runs")
        return
    console.print(_table(list(costed), console.width, options.order))
    if len(runs) == options.limit:
        console.print(Text(f"these are the {options.order} {options.limit:,}: --limit shows more", "dim"))


def _follow(ledger: LedgerReader, options: RunsOptions, out: TextIO, sleep: Callable[[float], object]) -> None:
    """Show runs as they end, until Ctrl-C; first the latest."""
    matching = options.matching()
    found = ledger.runs(**matching, order="latest", limit=options.limit)[::-1]
    last = max((run.number for run in ledger.runs(order="latest", limit=1)), default=0)
    under_way: set[int] = set()
    while True:
        ended = [run for run in found if _has_ended(run)]
        under_way |= {run.number for run in found if not _has_ended(run)}
        shown = [run for run in ended if options.status in (None, run.status)]
        for run, cost in _with_costs(ledger, shown):
            if options.as_json:
                write_json(out, _fields(run, cost, options))
            else:
                out.write(_text(run, cost) + "\n")
        out.flush()
        sleep(POLL)
        new = ledger.runs(**matching, after=last, order="written")
        last = max((run.number for run in new), default=last)
        before = [run for run in ledger.numbered(under_way) if _has_ended(run)]
        under_way -= {run.number for run in before}
        found = [*before, *new]


def _has_ended(run: RunRecord) -> bool:
    return run.status is not None or run.lost


def _with_costs(ledger: LedgerReader, runs: Sequence[RunRecord]) -> Iterator[tuple[RunRecord, RunCost | None]]:
    """Compute what runs cost, from the events that are kept; None where none is."""
    for start in range(0, len(runs), PAGE):
        some = runs[start : start + PAGE]
        trees = {run.root_run_id or run.run_id for run in some}
        within = [each.run_id for root in sorted(trees) for each in ledger.tree(root)]
        events = list(ledger.events(within))
        kept = {event.run_id for event in events}
        costs = run_costs(events, ledger.prices)
        for run in some:
            yield run, costs.get(run.run_id, RunCost()) if run.run_id in kept else None


def _table(runs: Sequence[tuple[RunRecord, RunCost | None]], width: int, order: Order) -> Group:
    records = [run for run, _ in runs]
    columns = [
        Column("run", [run.run_id[:SHORT] for run in records], is_text=True),
        Column("began (UTC)", [_when(run.start_ns) for run in records], 5, is_text=True),
        Column("pattern", [Text(printable(run.pattern or "unknown")) for run in records], is_text=True),
        Column("status", [_status(run) for run in records], is_text=True),
        Column("took", [format_time(run.duration_ns) for run in records], 3),
        Column("requests", [str(cost.requests) if cost else "–" for _, cost in runs], 7),
        Column("cost", [Text(_money(cost), "green") for _, cost in runs], 1),
        Column("tags", [Text(_tags(run)) for run in records], 6, is_text=True),
    ]
    return fitted_table(f"Runs, the {order} first", columns, width)


def _text(run: RunRecord, cost: RunCost | None) -> str:
    """Write a run as one line."""
    figures = f"{format_time(run.duration_ns):>8}  {_money(cost):>12}"
    name = printable(run.pattern or "unknown")
    line = f"{_when(run.start_ns)}  {run.run_id[:SHORT]}  {_status(run).plain:<9}  {figures}  {name}  {_tags(run)}"
    return line.rstrip()


def _show_run(ledger: LedgerReader, run_id: str, options: RunsOptions, out: TextIO) -> None:
    run = ledger.run(run_id)
    if run is None:
        raise CommandError(f"{run_id!r:.100} begins the id of no run in {options.ledger}, or of several")
    events = list(ledger.events([each.run_id for each in ledger.tree(run.root_run_id or run.run_id)]))
    costs = run_costs(events, ledger.prices)
    cost = costs.get(run.run_id, RunCost()) if any(event.run_id == run.run_id for event in events) else None
    if options.as_json:
        tree = [each for each in ledger.tree(run.root_run_id or run.run_id) if _is_within(each, run, events)]
        nested = [_fields(each, costs.get(each.run_id, RunCost()), options) for each in tree]
        write_json(out, {**_fields(run, cost, options), "runs": nested})
        return
    console = table_console(out)
    for line in _heading(run, cost, options):
        console.print(Text(line), soft_wrap=True)
    amend = _amended(costs, ledger.prices)
    try:
        console.print(trace_tree(events, run.run_id, console.width, amend))
    except ValueError:  # its start is not there
        console.print(Text("its events are not kept", "yellow"))


def _is_within(each: RunRecord, run: RunRecord, events: Sequence[Any]) -> bool:
    """Tell whether a run of a tree is within another, at any depth."""
    parents = {event.run_id: getattr(event, "parent_run_id", None) for event in events if event.seq == 0}
    above = each.parent_run_id
    while above is not None and above != run.run_id:
        above = parents.get(above)
    return above is not None


def _heading(run: RunRecord, cost: RunCost | None, options: RunsOptions) -> Iterator[str]:
    yield f"run {run.run_id}: {printable(run.pattern or 'unknown')}, {_status(run).plain}"
    yield f"began {_when(run.start_ns)} UTC, took {format_time(run.duration_ns)}"
    if run.tags:
        yield f"tags {_tags(run)}"
    if run.conversation_id:
        yield f"conversation {printable(run.conversation_id)}"
    if cost is not None:
        own = f", its own requests {cost.own}" if cost.own != cost.inclusive else ""
        yield f"cost {cost.inclusive} of {format_count(cost.requests, 'request')}{own}"
        if cost.unended:
            number = format_count(cost.unended, "request")
            yield f"{number} not ended: possibly billed, {cost.unended_cost}, which is not in the cost"
    if run.trace_id:
        link = _trace_link(run, options)
        yield f"trace {printable(link or run.trace_id)}"


def _amended(costs: Mapping[str, RunCost], prices: PriceBook) -> Callable[[TraceLine], TraceLine]:
    """Make a function that adds costs to the notes of runs and requests."""

    def amend(line: TraceLine) -> TraceLine:
        event = line.event
        match event:
            case TokenUsage():
                note = str(prices.cost(event))
            case ModelCallStarted():
                note = f"possibly billed, {prices.cost(unanswered(event))}"
            case RunReported():
                request = reported_request(event)
                note = "" if request is None else str(prices.cost(request))
            case _ if line.kind == "run":
                cost = costs.get(event.run_id, RunCost())
                own = f" (own {cost.own})" if cost.own != cost.inclusive else ""
                note = f"{cost.inclusive}{own}"
            case _:
                note = ""
        notes = [" · ".join(filter(None, (each, note))) for each in (line.note, line.short_note)]
        return line._replace(note=notes[0], short_note=notes[1])

    return amend


def _fields(run: RunRecord, cost: RunCost | None, options: RunsOptions) -> dict[str, Any]:
    fields = {name: getattr(run, name) for name in run.__struct_fields__ if not name.startswith(("cost_", "number"))}
    if cost is not None:
        fields |= {
            "requests": cost.requests,
            "cost_usd": cost_fields(cost.own),
            "inclusive_cost_usd": cost_fields(cost.inclusive),
            "never_ended": {"requests": cost.unended, "cost_usd": cost_fields(cost.unended_cost)},
        }
    if link := _trace_link(run, options):
        fields["trace_url"] = link
    return fields


def _trace_link(run: RunRecord, options: RunsOptions) -> str | None:
    if options.trace_url is None or run.trace_id is None:
        return None
    return options.trace_url.replace("{trace_id}", run.trace_id)


def _money(cost: RunCost | None) -> str:
    if cost is None:
        return "–"
    return f"{cost.inclusive}, {cost.unended} not ended" if cost.unended else str(cost.inclusive)


def _status(run: RunRecord) -> Text:
    if run.status is None:
        return Text("lost", "red") if run.lost else Text("under way", "yellow")
    style = {Status.OK: "green", Status.CANCELLED: "yellow"}.get(run.status, "red")
    return Text(printable(run.error_type) if run.error_type else str(run.status), style)


def _tags(run: RunRecord) -> str:
    return printable(" ".join(f"{name}={value}" for name, value in sorted(run.tags.items())))


def _when(time_ns: int) -> str:
    """Write a UTC time, to the second."""
    return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")
