"""Costs of a ledger at other prices, by day and model, from its events: sums do not tell how long each prompt was."""

from collections.abc import Sequence
from datetime import date, timedelta

import msgspec

from runmeter.engine import CostEstimate, LedgerReader, PriceBook
from runmeter.engine.ledger.days import DAY_NS, EPOCH

NOTHING = CostEstimate()


class RepricedLine(msgspec.Struct, frozen=True, kw_only=True):
    """What requests of a model on a day cost, at the prices of their time and at others. USD."""

    day: date | None
    """None in the sum."""
    model: str | None
    requests: int
    """Requests that the ledger has counted."""
    kept: int
    """Those of them whose events are kept."""
    recorded: CostEstimate
    """Cost of all of them, at the prices that they were counted with."""
    repriced: CostEstimate
    """Cost of those that are kept, at the other prices."""

    @property
    def difference(self) -> CostEstimate | None:
        """The other cost less the recorded one, which may be negative; None where some events are not kept."""
        if self.kept != self.requests:
            return None
        old, new = self.recorded, self.repriced
        if old.high_units is None:
            return CostEstimate(high_units=None, unpriced=old.unpriced + new.unpriced)
        if new.usd_units is not None and old.usd_units is not None:
            return CostEstimate(low_units=new.usd_units - old.usd_units, high_units=new.usd_units - old.usd_units)
        high = None if new.high_units is None else new.high_units - old.low_units
        return CostEstimate(low_units=new.low_units - old.high_units, high_units=high, unpriced=new.unpriced)


def reprice(
    ledger: LedgerReader, prices: PriceBook, since: date | None = None, until: date | None = None
) -> Sequence[RepricedLine]:
    """Compute what requests cost at other prices, in order of days and models.

    Args:
        ledger: The ledger.
        prices: The other prices.
        since: The first UTC day.
        until: The UTC day after the last.
    """
    lines: dict[tuple[date, str], _Sum] = {}
    for counts in ledger.counts(since, until):
        model = counts.key[2]
        if model is not None:
            each = lines.setdefault((counts.day, model), _Sum())
            each.requests += counts.counts.requests
            each.recorded += counts.counts.cost
    for request in ledger.priced():
        day = EPOCH + timedelta(request.start_ns // DAY_NS)
        if (since is None or day >= since) and (until is None or day < until):
            each = lines.setdefault((day, request.model), _Sum())
            each.kept += 1
            each.repriced += prices.cost(request)
    return [lines[key].line(*key) for key in sorted(lines)]


def total_of(lines: Sequence[RepricedLine]) -> RepricedLine:
    """Sum up lines."""
    whole = _Sum()
    for line in lines:
        whole.requests += line.requests
        whole.kept += line.kept
        whole.recorded += line.recorded
        whole.repriced += line.repriced
    return whole.line(None, None)


class _Sum:
    __slots__ = ("kept", "recorded", "repriced", "requests")

    def __init__(self) -> None:
        self.requests = self.kept = 0
        self.recorded = self.repriced = NOTHING

    def line(self, day: date | None, model: str | None) -> RepricedLine:
        return RepricedLine(
            day=day,
            model=model,
            requests=self.requests,
            kept=self.kept,
            recorded=self.recorded,
            repriced=self.repriced,
        )
