"""Amounts of money that are known from one end to another, and what a known sum says of its parts."""

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

import msgspec

from runmeter.engine import CostEstimate
from runmeter.engine.formats import format_dollars


class Amount(msgspec.Struct, frozen=True):
    """An amount in USD between two ends, each None where there is none. It may be negative."""

    low: Decimal | None = Decimal(0)
    high: Decimal | None = Decimal(0)

    @classmethod
    def exactly(cls, usd: Decimal) -> "Amount":
        """Make an amount that is known."""
        return cls(usd, usd)

    @classmethod
    def of(cls, cost: CostEstimate) -> "Amount":
        """Make the amount of a cost."""
        return cls(cost.low, cost.high)

    @property
    def usd(self) -> Decimal | None:
        """The amount where it is known exactly, else None."""
        return self.low if self.low == self.high else None

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(_plus(self.low, other.low), _plus(self.high, other.high))

    def __neg__(self) -> "Amount":
        return Amount(_minus(self.high), _minus(self.low))

    def __sub__(self, other: "Amount") -> "Amount":
        return self + -other

    def __mul__(self, times: int) -> "Amount":
        if not times:
            return Amount()
        ends = [None if end is None else end * times for end in (self.low, self.high)]
        return Amount(*(ends if times > 0 else reversed(ends)))

    def within(self, other: "Amount") -> "Amount | None":
        """Keep what lies within another one; None if nothing does."""
        low = max((end for end in (self.low, other.low) if end is not None), default=None)
        high = min((end for end in (self.high, other.high) if end is not None), default=None)
        return None if low is not None and high is not None and low > high else Amount(low, high)

    def hull(self, other: "Amount") -> "Amount":
        """Make the amount that holds both."""
        low = None if self.low is None or other.low is None else min(self.low, other.low)
        high = None if self.high is None or other.high is None else max(self.high, other.high)
        return Amount(low, high)

    def __str__(self) -> str:
        low, high = self.low, self.high
        if low is not None and low == high:
            return _dollars(low, ROUND_HALF_EVEN)
        if low is None and high is None:
            return "unknown"
        if high is None:
            return f"≥ {_dollars(low, ROUND_FLOOR)}"
        if low is None:
            return f"≤ {_dollars(high, ROUND_CEILING)}"
        return f"{_dollars(low, ROUND_FLOOR)} to {_dollars(high, ROUND_CEILING)}"


UNKNOWN = Amount(None, None)
ANY_COST = Amount(Decimal(0), None)


def sum_amounts(amounts: Sequence[Amount]) -> Amount:
    """Add up amounts."""
    return sum(amounts, Amount())


def narrowed(parts: Sequence[Amount], whole: Amount) -> Sequence[Amount] | None:
    """Narrow the parts of a sum to what they can be; None if they cannot make it up."""
    narrow = []
    for at, part in enumerate(parts):
        rest = sum_amounts([*parts[:at], *parts[at + 1 :]])
        within = part.within(whole - rest)
        if within is None:
            return None
        narrow.append(within)
    return narrow


def _dollars(usd: Decimal | None, rounding: str) -> str:
    if usd is None:
        return "unknown"
    if usd >= 0:
        return format_dollars(usd, rounding)
    opposite = {ROUND_FLOOR: ROUND_CEILING, ROUND_CEILING: ROUND_FLOOR}
    return f"-{format_dollars(-usd, opposite.get(rounding, rounding))}"


def _plus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one + other


def _minus(end: Decimal | None) -> Decimal | None:
    return None if end is None else -end
