"""`runmeter reconcile`: a ledger held against OpenAI's bill."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from runmeter.engine import Clock, LedgerReader, PriceBook, RunmeterError, SystemClock
from runmeter.engine.formats import format_count, printable
from runmeter.patterns.openai_client.organization import OrganizationFigures
from runmeter.reports.reconcile import DayRange, Reconciled, Reconciliation, reconcile
from runmeter.reports.reconciliation.amounts import Amount, sum_amounts
from runmeter.reports.reconciliation.bill import BillSource
from runmeter.reports.reconciliation.causes import Finding
from runmeter.reports.reconciliation.endpoints import ToldBill
from runmeter.reports.reconciliation.export import ExportedBill
from runmeter.reports.reconciliation.ledger_requests import LedgerRequests

from ..ending import CommandError
from ..output import write_json

USUAL_DAYS = 30
"""Days that are compared where none are named."""
NO_KEY = (
    "set OPENAI_ADMIN_KEY to an admin key, which an owner of the organization makes under Settings, Admin keys; or "
    "give files exported from OpenAI's dashboard by --csv"
)


@dataclass(frozen=True)
class ReconcileOptions:
    """The options of the command."""

    ledger: Path
    since: date | None = None
    until: date | None = None
    base_url: str | None = None
    exports: Sequence[Path] = ()
    projects: Sequence[str] = ()
    project_tag: str | None = None
    prices: Path | None = None
    """A price file of the user's own."""
    as_json: bool = False


def reconcile_ledger(options: ReconcileOptions, out: TextIO, clock: Clock | None = None) -> int:
    """Compare a ledger with the bill, and show what differs and why.

    Args:
        options: What is compared.
        out: Where the comparison goes.
        clock: Tells which day is today.

    Returns:
        The exit code: 0.

    Raises:
        CommandError: the ledger or the bill cannot be read, or the options contradict each other.
    """
    days = _days(options, clock or SystemClock())
    try:
        prices = PriceBook(options.prices)
        with ExitStack() as open_until_here:
            source = _source(options, open_until_here)
            ledger = open_until_here.enter_context(LedgerReader(options.ledger, prices))
            requests = LedgerRequests(
                ledger, days.first, days.end, prices, project_tag=options.project_tag, projects=options.projects
            )
            found = reconcile(requests, source, days, prices, by_project=options.project_tag is not None)
    except RunmeterError as error:
        raise CommandError(str(error)) from None
    if options.as_json:
        write_json(out, _report(options, days, found))
    else:
        out.write("\n".join(_text(options, days, found)) + "\n")
    return 0


def _days(options: ReconcileOptions, clock: Clock) -> DayRange:
    today = datetime.fromtimestamp(clock.time_ns() // 10**9, UTC).date()
    end = options.until or today + timedelta(1)
    first = options.since or end - timedelta(USUAL_DAYS)
    if first >= end:
        raise CommandError(f"--since {first} must be before --until {end}, which is exclusive")
    return DayRange(first, end, today)


def _source(options: ReconcileOptions, open_until_here: ExitStack) -> BillSource:
    if options.exports:
        if options.base_url is not None:
            raise CommandError("--base-url is of OpenAI's endpoints, and --csv of files: give one of them")
        return ExportedBill(options.exports, options.projects)
    key = os.environ.get("OPENAI_ADMIN_KEY", "").strip()
    if not key:
        raise CommandError(NO_KEY)
    figures = OrganizationFigures(key, options.base_url)
    open_until_here.callback(figures.close)
    return ToldBill(figures, options.projects)


# --- For people ---


def _text(options: ReconcileOptions, days: DayRange, found: Reconciliation) -> Iterator[str]:
    last = days.end - timedelta(1)
    yield f"{printable(str(options.ledger))} and OpenAI's bill, {days.first} to {last} (UTC)"
    if not found.rows:
        yield "Neither has anything in these days."
    agreeing = [row for row in found.rows if not row.findings and row.billed is not None]
    unbilled = [row for row in found.rows if not row.findings and row.billed is None]
    if agreeing:
        billed = sum((row.billed or Decimal(0) for row in agreeing), Decimal(0))
        yield f"In agreement: {format_count(len(agreeing), 'row')} of day and model, {Amount.exactly(billed)}."
    if unbilled:
        ledger = sum_amounts([row.ledger for row in unbilled])
        yield f"No amount on the bill yet: {format_count(len(unbilled), 'row')}, by the ledger {ledger}."
    for row in found.rows:
        if row.findings:
            yield from _row_lines(row)
    yield from _sums(found)
    for note in found.notes:
        yield ""
        yield f"Note: {printable(note)}"


def _row_lines(row: Reconciled) -> Iterator[str]:
    project = "" if row.project is None else f"  {printable(row.project)}"
    billed = "no amount yet" if row.billed is None else str(Amount.exactly(row.billed))
    told = "" if row.billed_requests is None else f", of {format_count(row.billed_requests, 'request')}"
    yield ""
    yield f"{row.day}  {printable(row.model)}{project}"
    yield f"  ledger  {row.ledger}, of {format_count(row.requests, 'request')}"
    yield f"  bill    {billed}{told}"
    yield f"  {'known exactly':<20}{Amount.exactly(row.known)}"
    for finding in row.findings:
        yield f"  {finding.cause:<20}{_signed(finding.usd)}{_requests(finding)}"


def _requests(finding: Finding) -> str:
    low, high = finding.requests
    if not high:
        return ""
    return f"  ({format_count(high, 'request')})" if low == high else f"  ({low:,} to {format_count(high, 'request')})"


def _sums(found: Reconciliation) -> Iterator[str]:
    if not found.rows:
        return
    with_amount = [row for row in found.rows if row.billed is not None]
    billed = sum((row.billed or Decimal(0) for row in with_amount), Decimal(0))
    missing = len(found.rows) - len(with_amount)
    yield ""
    yield "In all"
    yield f"  {'ledger':<20}{sum_amounts([row.ledger for row in found.rows])}"
    yield f"  {'bill':<20}{Amount.exactly(billed)}{f', without {missing} that have no amount yet' if missing else ''}"
    for cause, usd in found.causes.items():
        yield f"  {cause:<20}{_signed(usd)}"


def _signed(usd: Amount) -> str:
    return f"+{usd}" if usd.usd is not None and usd.usd > 0 else str(usd)


# --- For programs ---


def _report(options: ReconcileOptions, days: DayRange, found: Reconciliation) -> dict[str, Any]:
    return {
        "ledger": str(options.ledger),
        "since": days.first,
        "until": days.end,
        "rows": [_json_row(row) for row in found.rows],
        "causes": [{"cause": cause, **_ends(usd)} for cause, usd in found.causes.items()],
        "notes": found.notes,
    }


def _json_row(row: Reconciled) -> dict[str, Any]:
    return {
        "day": row.day,
        "project": row.project,
        "model": row.model,
        "requests": row.requests,
        "billed_requests": row.billed_requests,
        "ledger": _ends(row.ledger),
        "known_usd": row.known,
        "billed_usd": row.billed,
        "difference": _ends(row.difference),
        "causes": [
            {"cause": finding.cause, "requests": finding.requests, **_ends(finding.usd)} for finding in row.findings
        ],
    }


def _ends(usd: Amount) -> dict[str, Decimal | None]:
    """Write the ends of an amount in USD; null is no bound."""
    return {"low_usd": usd.low, "high_usd": usd.high}
