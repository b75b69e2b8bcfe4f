"""Costs of requests, as far as they are known: an interval in USD."""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

import msgspec

from ..formats import format_count, format_dollars
from .units import UNITS, to_units, to_usd


class CostEstimate(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An interval of US dollars from `low` to `high`. Adding two adds both ends; `CostEstimate()` is nothing at all.

    It is made from dollars by `between`, and kept in whole numbers of a unit, of which `units.UNITS` make a dollar. To
    write one down, write its `low`, `high` and `unpriced`, as rows of usage do.
    """

    low_units: int = 0
    high_units: int | None = 0
    unpriced: int = 0
    """Number of the requests without a known price. They add nothing to `low` and leave `high` None."""

    @classmethod
    def between(cls, low: Decimal, high: Decimal | None, unpriced: int = 0) -> "CostEstimate":
        """Make the interval from a lower to an upper bound in USD, besides requests that have no known price.

        Raises:
            ValueError: An amount is not a number, or has more than 36 decimals.
            OverflowError: An amount is infinite.
        """
        return cls(low_units=to_units(low), high_units=None if high is None else to_units(high), unpriced=unpriced)

    @property
    def low(self) -> Decimal:
        """The lower bound of the cost in USD."""
        return to_usd(self.low_units)

    @property
    def high(self) -> Decimal | None:
        """The upper bound of the cost in USD; None if none is known."""
        return None if self.high_units is None else to_usd(self.high_units)

    @property
    def usd_units(self) -> int | None:
        """The cost in units where it is known exactly, else None."""
        return self.low_units if self.low_units == self.high_units else None

    @property
    def usd(self) -> Decimal | None:
        """The cost in USD where it is known exactly, else None."""
        return to_usd(self.low_units) if self.low_units == self.high_units else None

    @property
    def nearest_usd(self) -> float | None:
        """The exact cost as the nearest float, which is cheaper to make than a Decimal: for telemetry."""
        return self.low_units / UNITS if self.low_units == self.high_units else None

    def __add__(self, other: "CostEstimate") -> "CostEstimate":
        high, more = self.high_units, other.high_units
        return CostEstimate(
            low_units=self.low_units + other.low_units,
            high_units=None if high is None or more is None else high + more,
            unpriced=self.unpriced + other.unpriced,
        )

    def __str__(self) -> str:
        low, high = self.low, self.high
        if high is None:
            amount = f"≥ {format_dollars(low, ROUND_FLOOR)}" if low else "unknown"
        elif low == high:
            amount = format_dollars(low, ROUND_HALF_EVEN)
        else:
            amount = f"{format_dollars(low, ROUND_FLOOR)} to {format_dollars(high, ROUND_CEILING)}"
        if not self.unpriced:
            return amount
        return f"{amount} ({format_count(self.unpriced, 'request')} unpriced)"
