"""`runmeter usage`: the bill of ledgers and event logs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

import msgspec
from rich.console import Console
from rich.text import Text

from runmeter.engine import ConfigurationError, LedgerError, PriceBook, Provenance, Usage
from runmeter.engine.formats import format_count, printable
from runmeter.reports.bill import BillLine, BillQuery, UsageBill
from runmeter.reports.sources import reader_of

from ..ending import CommandError
from ..log_reading import DamagedLines, reading_bar
from ..output import cost_fields, table_console, write_csv, write_json
from ..tables import Column, fitted_table

Format: TypeAlias = Literal["table", "json", "csv"]
NONE = "–"
"""Stands in a table for a value that there is none of."""


@dataclass(frozen=True, kw_only=True)
class UsageOptions:
    """Options of the command line."""

    files: Sequence[Path]
    query: BillQuery
    format: Format = "table"
    prices: Path | None = None
    """A price file of the user's own, for what is not rolled up."""


def show_usage(options: UsageOptions, out: TextIO, console: Console | None = None) -> int:
    """Show a bill.

    Args:
        options: What is asked.
        out: Where the bill goes.
        console: Where progress and damaged lines are shown; by default the standard error.

    Returns:
        The exit code: 0, or 1 if a log has no line that is an event.

    Raises:
        CommandError: a file cannot be read, or is given twice.
    """
    console = console or Console(stderr=True)
    bill, skipped, is_empty = UsageBill(options.query), 0, False
    try:
        prices = PriceBook(options.prices)
        for path in _once(options.files):
            damaged = DamagedLines(path)
            counted = _add(bill, path, prices, damaged, console)
            damaged.tell(console)
            skipped += damaged.count
            is_empty |= not counted
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror or error}") from None
    except (ConfigurationError, LedgerError) as error:
        raise CommandError(str(error)) from None
    if options.format == "json":
        write_json(out, _report(bill, options, skipped))
    elif options.format == "csv":
        write_csv(out, _csv_header(bill), _csv_rows(bill))
    else:
        _print(bill, out)
    return 1 if is_empty else 0


def _once(paths: Sequence[Path]) -> Iterator[Path]:
    """Give each path; refuse a file that comes again, as it would count twice."""
    seen: dict[tuple[int, int], Path] = {}
    for path in paths:
        status = path.stat()
        if (other := seen.setdefault((status.st_dev, status.st_ino), path)) is not path:
            raise CommandError(f"{path} and {other} are one file: it would count twice")
        yield path


def _add(bill: UsageBill, path: Path, prices: PriceBook, damaged: DamagedLines, console: Console) -> bool:
    """Add what a file holds to a bill, and tell whether it holds anything."""
    query = bill.query
    with reading_bar(path, console) as progress, reader_of(path, prices, damaged, progress) as ledger:
        for counts in ledger.counts(query.since, query.until):
            bill.add(counts)
        for request in ledger.unended_requests():
            bill.add_unended(request, prices)
        return not damaged.count or bool(ledger.runs(limit=1))


def _print(bill: UsageBill, out: TextIO) -> None:
    console = table_console(out)
    lines, total, query = bill.lines(), bill.total(), bill.query
    if not lines:
        console.print(Text(f"nothing was used {_span(query)}"), soft_wrap=True)
        return
    shown = [*lines, total] if query.by else [total]
    columns = [
        Column(name, [Text(printable(NONE if each is None else each)) for each in values], is_text=True)
        for name, values in zip(
            map(printable, query.by), zip(*(line.group for line in lines), strict=True), strict=True
        )
    ]
    if query.by:
        columns = [
            column._replace(cells=[*column.cells, "total" if place == 0 else ""])
            for place, column in enumerate(columns)
        ]
    columns += _figures(shown, total)
    console.print(fitted_table(_title(query), columns, console.width, has_sum=bool(query.by)))
    for note in _notes(bill, total):
        console.print(Text(note, "yellow"), soft_wrap=True)


def _groups(by: Sequence[str], lines: Sequence[BillLine]) -> Iterator[Column]:
    for place, name in enumerate(by):
        values = [line.group[place] for line in lines]
        cells = [Text(printable(NONE if value is None else value)) for value in values]
        yield Column(printable(name), [*cells, "" if place else "total"], is_text=True)


def _figures(lines: Sequence[BillLine], total: BillLine) -> Iterator[Column]:
    if total.runs is not None:
        yield Column("runs", [f"{line.runs:,}" for line in lines], 3)
        yield Column("fail", [Text(f"{line.failures:,}", "red" if line.failures else "") for line in lines], 8)
        if total.cancelled:
            yield Column("cancelled", [f"{line.cancelled:,}" for line in lines], 9)
    yield Column("requests", [f"{sum(line.requests.values()):,}" for line in lines], 4)
    yield Column("tokens in", [_tokens(line, "input_tokens") for line in lines], 5)
    yield Column("cached", [_tokens(line, "cache_read_tokens") for line in lines], 7)
    yield Column("out", [_tokens(line, "output_tokens") for line in lines], 6)
    yield Column("cost", [Text(str(line.cost), "green") for line in lines])
    if total.inclusive is not None and any(line.inclusive != line.cost for line in lines):
        yield Column("inclusive", [Text(str(line.inclusive), "green") for line in lines], 1)
    if total.unended:
        cells = [Text(f"{line.unended:,}: {line.unended_cost}" if line.unended else "", "yellow") for line in lines]
        yield Column("never ended", cells, 2)


def _tokens(line: BillLine, name: str) -> str:
    """Write a number of tokens; as a lower bound, where some request did not tell all."""
    if line.usage is None:
        return "unknown"
    count: int = getattr(line.usage, name)
    return f"≥ {count:,}" if line.is_lower_bound else f"{count:,}"


def _title(query: BillQuery) -> str:
    where = "".join(f", {name} {value}" for name, value in query.where.items())
    return printable(f"Usage {_span(query)}{where}")


def _span(query: BillQuery) -> str:
    """Name the days of a query."""
    if query.since and query.until:
        return f"from {query.since} to before {query.until} (UTC)"
    if query.since:
        return f"since {query.since} (UTC)"
    return f"before {query.until} (UTC)" if query.until else "of all days"


def _notes(bill: UsageBill, total: BillLine) -> Iterator[str]:
    """Tell what is not known."""
    requests = total.requests
    if total.inclusive is not None and total.inclusive != total.cost:
        yield "cost: of the requests of these days; inclusive: of the runs that began then, with the runs within them"
    if partial := requests.get(Provenance.PARTIAL):
        yield f"{format_count(partial, 'answer')} cut: at least these tokens"
    if estimated := requests.get(Provenance.ESTIMATED):
        yield f"{format_count(estimated, 'request')} whose tokens are estimated"
    if unknown := requests.get(Provenance.UNKNOWN):
        yield f"{format_count(unknown, 'request')} without an answer: their tokens are not known"
    if total.unended:
        lost, under_way = bill.lost, total.unended - bill.lost
        text = f"{format_count(lost, 'request')} never ended, as the process has gone" if lost else ""
        if under_way:
            text += f"{' and ' if lost else ''}{format_count(under_way, 'request')} under way"
        yield f"{text}: possibly billed, {total.unended_cost}, which is not in the cost"


def _report(bill: UsageBill, options: UsageOptions, skipped: int) -> dict[str, Any]:
    query = bill.query
    return {
        "files": [str(path) for path in options.files],
        "since": query.since,
        "until": query.until,
        "by": query.by,
        "where": query.where,
        "lines": [_line_fields(line, query.by) for line in bill.lines()],
        "total": _line_fields(bill.total(), ()),
        "requests_lost": bill.lost,
        "damaged_lines": skipped,
    }


def _line_fields(line: BillLine, by: Sequence[str]) -> dict[str, Any]:
    usage = line.usage
    return {
        **({"group": dict(zip(by, line.group, strict=True))} if by else {}),
        "runs": line.runs,
        "failures": line.failures,
        "cancelled": line.cancelled,
        "requests": sum(line.requests.values()),
        "requests_by_provenance": line.requests,
        "tokens": None if usage is None else {name: getattr(usage, name) for name in Usage.__struct_fields__},
        "tokens_are_lower_bounds": line.is_lower_bound,
        "cost_usd": cost_fields(line.cost),
        "inclusive_cost_usd": None if line.inclusive is None else cost_fields(line.inclusive),
        "never_ended": {"requests": line.unended, "cost_usd": cost_fields(line.unended_cost)},
    }


def _csv_header(bill: UsageBill) -> Sequence[str]:
    return (
        *bill.query.by,
        *("runs", "failures", "cancelled", "requests"),
        *(f"requests_{each}" for each in Provenance),
        *Usage.__struct_fields__,
        *("cost_low_usd", "cost_high_usd", "unpriced"),
        *("inclusive_low_usd", "inclusive_high_usd"),
        *("never_ended", "never_ended_high_usd"),
    )


def _csv_rows(bill: UsageBill) -> Iterator[Sequence[Any]]:
    for line in bill.lines():
        inclusive = line.inclusive
        yield (
            *line.group,
            *(line.runs, line.failures, line.cancelled, sum(line.requests.values())),
            *(line.requests.get(each, 0) for each in Provenance),
            *([None] * len(Usage.__struct_fields__) if line.usage is None else msgspec.structs.astuple(line.usage)),
            *(line.cost.low, line.cost.high, line.cost.unpriced),
            *((None, None) if inclusive is None else (inclusive.low, inclusive.high)),
            *(line.unended, line.unended_cost.high),
        )
