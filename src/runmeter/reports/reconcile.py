"""Reconciliation: a ledger compared with OpenAI's bill by day, project and model, and the causes of what differs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec

from runmeter.engine import PriceBook

from .reconciliation.amounts import Amount, sum_amounts
from .reconciliation.bill import BilledCost, BilledFigures, BilledUsage, BillSource, sum_costs
from .reconciliation.causes import Cause, DayCase, Finding, find_causes
from .reconciliation.counts import NOTHING, total
from .reconciliation.matching import Match, compare
from .reconciliation.midnight import Key, move_over_midnight
from .reconciliation.parts import Knowledge, LedgerDay, LedgerPart, ledger_day, ledger_days
from .reconciliation.prices import ModelPricing
from .reconciliation.terms import Terms

_DAY, _MINUTE = 86_400, 60
_SECOND_NS = 10**9
LATE_DAYS = 3
"""Days that a bill may be late: OpenAI does not say how late its usage and costs come."""


class Reconciled(msgspec.Struct, frozen=True):
    """A day's requests to one model, on the ledger and on the bill."""

    day: date
    project: str | None
    """The project; None where several are compared as one."""
    model: str
    """The model, or the name of what is billed by the call."""
    requests: int
    """Number of the ledger's requests."""
    billed_requests: int | None
    """Number of the bill's requests; None where it does not tell of usage."""
    ledger: Amount
    """Cost by the ledger."""
    known: Decimal
    """Cost by the ledger in USD as far as it is known exactly: the bill is this, and what the causes add to it."""
    billed: Decimal | None
    """The amount on the bill in USD; None where there is none yet."""
    findings: Sequence[Finding] = ()

    @property
    def difference(self) -> Amount:
        """The bill less the ledger's cost."""
        return Amount(None, None) if self.billed is None else Amount.exactly(self.billed) - self.ledger


class Reconciliation(msgspec.Struct, frozen=True):
    """A ledger and a bill, compared."""

    rows: Sequence[Reconciled]
    """The comparisons, in the order of day, project and model."""
    notes: Sequence[str] = ()
    """What could not be compared, and the way to compare it."""

    @property
    def causes(self) -> Mapping[Cause, Amount]:
        """The amount that each cause adds to the bill, over all rows."""
        found: dict[Cause, list[Amount]] = defaultdict(list)
        for row in self.rows:
            for finding in row.findings:
                found[finding.cause].append(finding.usd)
        return {cause: sum_amounts(found[cause]) for cause in Cause if cause in found}


@dataclass(frozen=True)
class DayRange:
    """The days that are compared, and the day that is today, all in UTC."""

    first: date
    end: date
    """The day after the last one."""
    today: date


@dataclass(frozen=True)
class _Sides:
    """Ledger and bill by day, project and model."""

    days: Mapping[Key, LedgerDay]
    usage: Mapping[Key, Sequence[BilledUsage]]
    costs: Mapping[Key, Sequence[BilledCost]]


def reconcile(
    parts: Iterable[LedgerPart], source: BillSource, period: DayRange, prices: PriceBook, *, by_project: bool = False
) -> Reconciliation:
    """Compare a ledger with a bill.

    Args:
        parts: The ledger's requests. They are read two or three times, and kept where the two sides differ.
        source: Where the bill is read.
        period: The days that are compared.
        prices: What tokens cost.
        by_project: The ledger's requests know their project. Else all projects of the bill are compared as one.

    Raises:
        BillError: The bill cannot be read.
    """
    bill = source.read(period.first, period.end)
    terms = Terms(bill, by_project=by_project)
    by_end, sides, differing = _fitting_sides(parts, bill, terms, period)
    minutes = {day: source.minutes(day) for day in sorted({day for day, _, _ in differing})}
    details = _Details(bill, terms, period, minutes, is_live=source.is_live)
    kept: dict[Key, list[LedgerPart]] = {key: [] for key in differing}
    for part in terms.parts(parts, period.first, period.end, by_end=by_end):
        if (key := (part.day, part.project, part.model)) in kept:
            kept[key].append(part)
    move_over_midnight(kept, sides.usage)
    rows = []
    for key, seen in sides.days.items():
        # A ledger may be written while it is read: what is compared in detail is what was read at once.
        ledger = ledger_day(key, kept[key]) if key in differing else seen
        pricing = ModelPricing(prices, ledger.model, _start_ns(ledger.day))
        billed = sum_costs(sides.costs.get(key, ()))
        if key in differing:
            exact = [part for part in kept.pop(key) if part.knowledge is Knowledge.EXACT]
            case = details.case(ledger, exact, sides.usage.get(key, ()), pricing)
        else:
            newest = details.is_newest(ledger.day)
            case = DayCase(ledger, Match(), pricing, is_newest=newest, has_usage=bill.has_usage)
        rows.append(_row(case, sides.usage.get(key, ()), billed, bill))
    return Reconciliation(rows, list(_notes(bill, sides, by_project=by_project)))


def _fitting_sides(
    parts: Iterable[LedgerPart], bill: BilledFigures, terms: Terms, period: DayRange
) -> tuple[bool, _Sides, Set[Key]]:
    """Bring both sides together by the time that requests left or ended, whichever agrees on more days.

    Returns:
        Whether it is by the time that they ended; the sides; and the keys under which they differ.
    """
    found = []
    for by_end in (False, True):
        sides = _sides(bill, terms, terms.parts(parts, period.first, period.end, by_end=by_end))
        differing = {key for key in sides.days if bill.has_usage and not _agrees(sides, key)}
        found.append((by_end, sides, differing))
        if len(differing) < 2:  # a request that is on another day makes two differ
            break
    return min(found, key=lambda each: len(each[2]))


def _sides(bill: BilledFigures, terms: Terms, parts: Iterable[LedgerPart]) -> _Sides:
    days = dict(ledger_days(parts))
    usage: dict[Key, list[BilledUsage]] = defaultdict(list)
    for billed in terms.usage(bill.usage):
        usage[billed.day, billed.project, billed.model].append(billed)
    costs: dict[Key, list[BilledCost]] = defaultdict(list)
    for cost in bill.costs:
        costs[cost.day, terms.project(cost.project), cost.item].append(cost)
    keys = sorted({*days, *usage, *costs}, key=lambda key: (key[0], key[1] or "", key[2]))
    return _Sides({key: days.get(key) or LedgerDay(*key) for key in keys}, usage, costs)


def _agrees(sides: _Sides, key: Key) -> bool:
    """Tell whether both sides have the same tokens, in the same tiers, and the ledger knows all of its own."""
    ledger = sides.days[key]
    if ledger.uncertain:
        return False
    billed = sides.usage.get(key, ())
    tiers = {*ledger.exact, *(usage.tier for usage in billed)}
    return all(
        ledger.exact.get(tier, NOTHING) == total(usage.counts for usage in billed if usage.tier == tier)
        for tier in tiers
    )


class _Details:
    """The bill in more detail, for the days on which the two sides differ."""

    def __init__(
        self,
        bill: BilledFigures,
        terms: Terms,
        period: DayRange,
        minutes: Mapping[date, Sequence[BilledUsage] | None],
        *,
        is_live: bool,
    ) -> None:
        self._bill = bill
        self._period = period
        self._is_live = is_live
        self._minutes = {day: None if usage is None else list(terms.usage(usage)) for day, usage in minutes.items()}
        self._billed_until = self._last_minute()

    def is_newest(self, day: date) -> bool:
        """Tell whether a day may not be billed in full yet."""
        newest = self._bill.newest
        if not self._is_live:
            return newest is not None and day >= newest
        age = (self._period.today - day).days
        return age <= 1 or (age <= LATE_DAYS and (newest is None or day >= newest))

    def case(
        self, ledger: LedgerDay, parts: Sequence[LedgerPart], daily: Sequence[BilledUsage], pricing: ModelPricing
    ) -> DayCase:
        """Compare the two sides of a day that differs."""
        minutes = self._minutes.get(ledger.day)
        key = ledger.project, ledger.model
        billed = daily if minutes is None else [usage for usage in minutes if (usage.project, usage.model) == key]
        unbilled = [part for part in parts if self._is_unbilled(part)]
        compared = [part for part in parts if not self._is_unbilled(part)]
        if any(part.tier is None for part in parts):  # of some the tier is not kept: none counts
            compared = [msgspec.structs.replace(part, tier=None) for part in compared]
            billed = [msgspec.structs.replace(usage, tier=None) for usage in billed]
        return DayCase(
            ledger,
            compare(compared, billed, _DAY if minutes is None else _MINUTE),
            pricing,
            unbilled=unbilled,
            longest=max((part.counts.usage.input_tokens for part in parts if part.counts.requests == 1), default=None),
            is_newest=self.is_newest(ledger.day),
            is_told_in_full=not self._bill.untold,
        )

    def _is_unbilled(self, part: LedgerPart) -> bool:
        """Tell whether a request left after the last one that is billed at all."""
        return self._billed_until is not None and part.start_ns >= self._billed_until and self.is_newest(part.day)

    def _last_minute(self) -> int | None:
        newest = self._bill.newest
        if newest is None or not self._is_live:
            return None
        minutes = self._minutes.get(newest)
        if not minutes:
            return _start_ns(newest) + _DAY * _SECOND_NS
        return (max(usage.start for usage in minutes) + _MINUTE) * _SECOND_NS


def _row(case: DayCase, usage: Sequence[BilledUsage], billed: Decimal | None, bill: BilledFigures) -> Reconciled:
    ledger = case.ledger
    own = total(ledger.exact.values()).requests + sum(part.counts.requests for part in ledger.uncertain)
    return Reconciled(
        day=ledger.day,
        project=ledger.project,
        model=ledger.model,
        requests=own,
        billed_requests=total(each.counts for each in usage).requests if bill.has_usage else None,
        ledger=Amount.of(ledger.whole_cost),
        known=case.known,
        billed=billed,
        findings=find_causes(case, billed),
    )


def _notes(bill: BilledFigures, sides: _Sides, *, by_project: bool) -> Iterator[str]:
    if not bill.has_usage:
        yield (
            "The bill tells of costs alone: service tiers, cache lifetimes and requests outside the ledger cannot be "
            "told apart. Give an export of usage as well."
        )
    if not bill.has_costs:
        yield "The bill tells of usage alone: what it costs is by the ledger's prices. Give an export of costs as well."
    if bill.has_usage and not bill.has_tiers:
        yield "The bill does not tell service tiers. Export usage grouped by service tier as well."
    if len(bill.projects) > 1 and not by_project:
        yield (
            f"The bill is of {len(bill.projects)} projects, compared as one: {', '.join(bill.projects)}. Name those of "
            "the ledger by --project, or the tag that tells a run's project by --project-tag."
        )
    if by_project and any(project is None for _, project, _ in sides.days):
        yield "Some runs of the ledger do not tell their project: they are compared with no project's bill."


def _start_ns(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * _SECOND_NS
