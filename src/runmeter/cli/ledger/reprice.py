"""`runmeter reprice`: a ledger's costs at another price table."""

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from rich.text import Text

from runmeter.engine import ConfigurationError, CostEstimate, LedgerError, LedgerReader, PriceBook
from runmeter.engine.formats import format_count, format_dollars, printable
from runmeter.reports.repricing import RepricedLine, reprice, total_of

from ..ending import CommandError
from ..output import cost_fields, table_console, write_csv, write_json
from ..tables import Column, fitted_table
from .usage import Format

_CSV = (
    *("day", "model", "requests", "kept", "recorded_low_usd", "recorded_high_usd", "recorded_unpriced"),
    *("repriced_low_usd", "repriced_high_usd", "repriced_unpriced", "difference_low_usd", "difference_high_usd"),
)


def show_repriced(path: Path, prices: Path, since: date | None, until: date | None, form: Format, out: TextIO) -> int:
    """Show what a ledger's requests cost at another price table.

    Args:
        path: The ledger.
        prices: The price file, which wins over the prices that come with Runmeter.
        since: The first UTC day.
        until: The UTC day after the last.
        form: How it is shown.
        out: Where it goes.

    Returns:
        The exit code: 0.

    Raises:
        CommandError: a file cannot be read.
    """
    try:
        with LedgerReader(path) as ledger:
            lines = reprice(ledger, PriceBook(prices), since, until)
    except (ConfigurationError, LedgerError) as error:
        raise CommandError(str(error)) from None
    if form == "json":
        write_json(out, {"lines": [_fields(line) for line in lines], "total": _fields(total_of(lines))})
    elif form == "csv":
        write_csv(out, _CSV, map(_cells, lines))
    else:
        _print(lines, out)
    return 0


def _print(lines: Sequence[RepricedLine], out: TextIO) -> None:
    console = table_console(out)
    if not lines:
        console.print("no requests")
        return
    shown = [*lines, total_of(lines)]
    columns = [
        Column("day", [str(line.day) if line.day else "total" for line in shown], is_text=True),
        Column("model", [Text(printable(line.model or "")) for line in shown], is_text=True),
        Column("requests", [f"{line.requests:,}" for line in shown], 3),
        Column("kept", [f"{line.kept:,}" for line in shown], 2),
        Column("recorded", [str(line.recorded) for line in shown]),
        Column("at these prices", [str(line.repriced) if line.kept else "–" for line in shown]),
        Column("difference", [Text(_signed(line.difference), "bold") for line in shown], 1),
    ]
    console.print(fitted_table("Cost as recorded, and at other prices", columns, console.width, has_sum=True))
    for note in _notes(lines):
        console.print(Text(note, "yellow"), soft_wrap=True)


def _notes(lines: Sequence[RepricedLine]) -> Iterator[str]:
    missing = sum(max(line.requests - line.kept, 0) for line in lines)
    if missing:
        days = len({line.day for line in lines if line.kept < line.requests})
        yield (
            f"the events of {format_count(missing, 'request')} on {format_count(days, 'day')} are not kept: what they"
            " would cost is not known, and there is no difference where they are"
        )


def _signed(difference: CostEstimate | None) -> str:
    """Write a difference with its sign, an interval where it is one; a dash where it is not known."""
    if difference is None:
        return "–"
    low, high = difference.low, difference.high
    if high is None:
        return "unknown"
    return _amount(low) if low == high else f"{_amount(low)} to {_amount(high)}"


def _amount(usd: Decimal) -> str:
    if not usd:
        return "$0.00"
    return f"{'+' if usd > 0 else '−'}{format_dollars(abs(usd))}"


def _fields(line: RepricedLine) -> dict[str, Any]:
    difference = line.difference
    return {
        "day": line.day,
        "model": line.model,
        "requests": line.requests,
        "kept": line.kept,
        "recorded_usd": cost_fields(line.recorded),
        "repriced_usd": cost_fields(line.repriced),
        "difference_usd": None if difference is None else _bounds(difference),
    }


def _bounds(difference: CostEstimate) -> dict[str, Any]:
    return {
        "known": difference.usd,
        "low": None if difference.high is None else difference.low,
        "high": difference.high,
    }


def _cells(line: RepricedLine) -> Sequence[Any]:
    difference = line.difference
    ends = (None, None) if difference is None or difference.high is None else (difference.low, difference.high)
    recorded, repriced = line.recorded, line.repriced
    return (
        *(line.day and line.day.isoformat(), line.model, line.requests, line.kept),
        *(recorded.low, recorded.high, recorded.unpriced, repriced.low, repriced.high, repriced.unpriced, *ends),
    )
