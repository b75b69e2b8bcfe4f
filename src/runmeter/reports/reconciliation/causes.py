"""The causes of a difference between a ledger and a bill, and what each may have cost.

The bill is what the ledger knows exactly, and a sum of causes. Each cause has an interval of its own from the ledger's
requests and the bill's tokens; as the sum is known, each is then narrowed to what the others leave.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

import msgspec

from .amounts import ANY_COST, Amount, narrowed, sum_amounts
from .counts import Counts, total
from .matching import Match
from .parts import Knowledge, LedgerDay, LedgerPart
from .prices import ModelPricing

INACCURACY = Decimal("1e-9")
"""Share of a bill by which it may be off: some amounts come as floating-point numbers."""


class Cause(StrEnum):
    """Causes of a difference."""

    UNENDED = "never ended"
    """Requests left and were never answered, as far as the ledger knows: they may have been billed."""
    ESTIMATED = "estimated usage"
    """The API did not report the usage, or a part of it, or numbers that contradict each other."""
    TIER = "service tier"
    """The bill has requests in another service tier than the ledger."""
    CACHE_LIFETIME = "cache lifetime"
    """The bill has cache writes of another lifetime than the ledger."""
    UNPRICED = "unpriced"
    """The ledger's prices lack what these requests cost, or know it only from one end to another."""
    OUTSIDE = "outside the ledger"
    """Requests that the ledger never saw."""
    NOT_YET_BILLED = "not yet billed"
    """Requests of the newest day, which the bill does not have yet."""
    UNEXPLAINED = "unexplained"
    """The rest: other prices, discounts, or requests that are not on the bill though others after them are."""


class Finding(msgspec.Struct, frozen=True):
    """A cause, and what it adds to what the ledger knows exactly."""

    cause: Cause
    requests: tuple[int, int]
    """Number of the requests that it is about, from so many to so many."""
    usd: Amount
    """What it adds to the bill; negative where the bill is lower."""


@dataclass(frozen=True)
class DayCase:
    """A day's requests to one model, on both sides."""

    ledger: LedgerDay
    comparison: Match
    pricing: ModelPricing
    unbilled: Sequence[LedgerPart] = ()
    """Exact requests that were made after the last one on the bill."""
    longest: int | None = None
    """Upper bound on the input tokens of each of the ledger's exact requests, where that is known."""
    is_newest: bool = False
    """The day may not be billed in full yet."""
    has_usage: bool = True
    """The bill tells of usage."""
    is_told_in_full: bool = True
    """The bill tells of all kinds of tokens, so that its tokens have a price."""

    @property
    def known(self) -> Decimal:
        """The cost that the ledger knows: of all usage that is known exactly, as far as it has a price. USD."""
        return self.ledger.cost.low


def find_causes(case: DayCase, billed: Decimal | None) -> Sequence[Finding]:
    """Find the causes of the difference between what a ledger knows and what was billed.

    Args:
        case: Both sides.
        billed: The amount on the bill in USD; None where there is none.
    """
    findings = [*_of_exact_requests(case), *_of_open_requests(case)]
    if billed is None:
        return findings
    amounts = [finding.usd for finding in findings]
    difference = Amount.exactly(billed - case.known)
    rest = difference - sum_amounts(amounts)
    if rest.within(Amount()) is not None:
        narrow = narrowed(amounts, difference) or amounts
        return [msgspec.structs.replace(each, usd=usd) for each, usd in zip(findings, narrow, strict=True)]
    inaccuracy = abs(billed) * INACCURACY
    if rest.within(Amount(-inaccuracy, inaccuracy)) is not None:
        return findings
    return [*findings, Finding(_cause_of_rest(case, rest), (0, total(case.ledger.exact.values()).requests), rest)]


def _cause_of_rest(case: DayCase, rest: Amount) -> Cause:
    """Find the cause of what no tokens explain."""
    if not (case.ledger.exact or case.ledger.uncertain):
        return Cause.OUTSIDE
    is_less = rest.high is not None and rest.high < 0
    return Cause.NOT_YET_BILLED if is_less and case.is_newest else Cause.UNEXPLAINED


def _of_exact_requests(case: DayCase) -> Iterable[Finding]:
    comparison, pricing = case.comparison, case.pricing
    if comparison.moved_requests:
        moved = [pricing.cost(counts, tier, case.longest) for tier, counts in comparison.moved.items()]
        number = comparison.moved_requests
        yield Finding(Cause.TIER, (number, number), sum_amounts(moved))
    shifted = [pricing.lifetime(low, high, tier) for tier, (low, high) in comparison.lifetimes.items() if low or high]
    if shifted:
        yield Finding(Cause.CACHE_LIFETIME, (1, total(case.ledger.exact.values()).requests), sum_amounts(shifted))
    cost = case.ledger.cost
    if cost.unpriced or cost.low != cost.high:
        room = ANY_COST if cost.high is None else Amount(Decimal(0), cost.high - cost.low)
        yield Finding(Cause.UNPRICED, (cost.unpriced, max(cost.unpriced, 1)), room)
    yield from _missing(case)


def _missing(case: DayCase) -> Iterable[Finding]:
    """Find what only the ledger has: not billed yet, or there is no telling why."""
    late = [Amount(part.cost.low, part.cost.low) for part in case.unbilled]
    number = sum(part.counts.requests for part in case.unbilled)
    lost = [case.pricing.cost(counts, tier, case.longest) for tier, counts in case.comparison.missing.items()]
    lost_number = total(case.comparison.missing.values()).requests
    if lost and not case.is_newest:
        yield Finding(Cause.UNEXPLAINED, (lost_number, lost_number), _at_most_known(case, -sum_amounts(lost)))
        lost, lost_number = [], 0
    if late or lost:
        number += lost_number
        usd = _at_most_known(case, -sum_amounts([*late, *lost]))
        yield Finding(Cause.NOT_YET_BILLED, (number, number), usd)


def _at_most_known(case: DayCase, usd: Amount) -> Amount:
    """Keep what a bill can lack of what the ledger knows: unpriced requests are not in that."""
    return usd.within(Amount(-case.known, Decimal(0))) or usd


def _of_open_requests(case: DayCase) -> Iterable[Finding]:
    """Divide what only the bill has among requests of uncertain usage and those that the ledger never saw."""
    uncertain = case.ledger.uncertain
    surplus = total(case.comparison.surplus.values())
    room = {kind: [part for part in uncertain if part.knowledge is kind] for kind in Knowledge}
    causes = {Knowledge.UNENDED: Cause.UNENDED, Knowledge.ESTIMATED: Cause.ESTIMATED}
    number = sum(part.counts.requests for part in uncertain)
    forced = max(surplus.requests - number, 0)
    is_outside = bool(surplus) and not (forced == 0 and _may_be(surplus, uncertain))
    costs = {kind: sum_amounts([Amount.of(part.cost) for part in room[kind]]) for kind in causes}
    if case.has_usage:
        costs = {kind: Amount(_floor(room[kind], surplus), cost.high) for kind, cost in costs.items()}
        if not surplus:
            costs = dict.fromkeys(costs, Amount())
    seen = _surplus_cost(case)
    for kind, cause in causes.items():
        if room[kind]:
            rest = sum_amounts([cost for other, cost in costs.items() if other is not kind])
            usd = costs[kind]
            if case.has_usage and not is_outside:
                usd = usd.within(seen - rest) or seen - rest
            of_kind = sum(part.counts.requests for part in room[kind])
            least = min(max(surplus.requests - (number - of_kind), 0), of_kind) if not is_outside else 0
            yield Finding(cause, (least, of_kind), usd)
    if is_outside:
        usd = (seen - sum_amounts(list(costs.values()))).within(ANY_COST) or ANY_COST
        yield Finding(Cause.OUTSIDE, (max(forced, 0 if number else 1), surplus.requests), usd)


def _floor(parts: Sequence[LedgerPart], surplus: Counts) -> Decimal:
    """Find the least that requests of uncertain usage cost: what was seen of them, if the bill has that much at all."""
    seen = total(part.counts for part in parts)
    return sum((part.cost.low for part in parts), Decimal(0)) if surplus.covers(seen) else Decimal(0)


def _may_be(surplus: Counts, uncertain: Sequence[LedgerPart]) -> bool:
    """Tell whether requests of uncertain usage may have used all of this."""
    bounds = [part.bound for part in uncertain]
    if None in bounds:
        return bool(uncertain)
    most = total(bound for bound in bounds if bound is not None).usage
    usage = surplus.usage
    return usage.input_tokens <= most.input_tokens and usage.output_tokens <= most.output_tokens


def _surplus_cost(case: DayCase) -> Amount:
    if not case.is_told_in_full:
        return ANY_COST
    surplus = case.comparison.surplus
    amounts = [case.pricing.cost(counts, tier, counts.usage.input_tokens) for tier, counts in surplus.items()]
    return sum_amounts([ANY_COST if amount.low is None else amount for amount in amounts])
