"""The report's data: all that the page shows, read from a ledger."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time

import msgspec

from runmeter.engine import Notice, Status
from runmeter.engine.ledger.days import DayUsage
from runmeter.engine.ledger.reader import LedgerReader, RunRecord

from ..unended import unanswered
from .troubles import Troubles, UnendedRequest, read_troubles
from .waterfalls import Waterfall, read_waterfalls

TOP = 5
"""The number of slowest and of dearest runs that are shown."""
_FAILED = (Status.ERROR, Status.TIMEOUT, Status.BUDGET_EXCEEDED, Status.CANCELLED)
_NEVER_NS = 2**63 - 1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a report, on the UTC days from `since` on to before `until`; None: all that the ledger holds."""

    source: str
    """The name of the ledger or log."""
    made_ns: int
    """The time that it was read: nanoseconds since the Unix epoch."""
    since: date | None
    until: date | None
    days: Sequence[DayUsage]
    troubles: Troubles
    unended: Sequence[UnendedRequest]
    """The requests that left in that time and have not ended."""
    unended_runs: Sequence[RunRecord]
    """The runs that began in that time and have not ended."""
    notices: Sequence[tuple[RunRecord, Notice]]
    """The warnings of that time, in the order in which they were written."""
    slowest: Sequence[Waterfall]
    """The outermost runs that took longest, the slowest first."""
    dearest: Sequence[Waterfall]
    """The outermost runs that cost most, the dearest first."""


def read_report(
    ledger: LedgerReader, *, source: str, made_ns: int, since: date | None = None, until: date | None = None
) -> Report:
    """Read a report's data.

    Args:
        ledger: Where from.
        source: Its name in the report.
        since: The first UTC day; by default the ledger's first.
        until: The UTC day after the last; by default the ledger's last is the last.
        made_ns: The time now, in nanoseconds since the Unix epoch.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    since_ns, until_ns = (0 if since is None else start_ns(since)), (_NEVER_NS if until is None else start_ns(until))
    unended = [
        UnendedRequest(each.run, each.started, each.lost, ledger.prices.cost(unanswered(each.started)))
        for each in ledger.unended_requests()
        if each.started is not None and since_ns <= each.started.time_ns < until_ns
    ]
    return Report(
        source=source,
        made_ns=made_ns,
        since=since,
        until=until,
        days=ledger.days(since, until),
        troubles=read_troubles(ledger.requests(since_ns, until_ns), unended, _failed_roots(ledger), ledger.prices),
        unended=unended,
        unended_runs=[each for each in ledger.unended_runs() if since_ns <= each.start_ns < until_ns],
        notices=list(ledger.notices(since_ns, until_ns)),
        slowest=_top(ledger, since_ns, until_ns, "slowest"),
        dearest=_top(ledger, since_ns, until_ns, "dearest"),
    )


def start_ns(day: date) -> int:
    """Compute when a UTC day begins: nanoseconds since the Unix epoch."""
    return int(datetime.combine(day, time(), UTC).timestamp()) * 10**9


def _failed_roots(ledger: LedgerReader) -> Mapping[str, Status]:
    """The outermost runs that ended otherwise than well, whenever they began."""
    return {run.run_id: status for status in _FAILED for run in ledger.runs(status=status, outermost=True)}


def _top(ledger: LedgerReader, since_ns: int, until_ns: int, order: str) -> Sequence[Waterfall]:
    return read_waterfalls(ledger, ledger.runs(since_ns, until_ns, outermost=True, order=order, limit=TOP))
