"""Medians and their intervals: percentile bootstrap (Efron, "Bootstrap Methods", The Annals of Statistics 7, 1979)."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Confidence level of the intervals."""
FEW = 5
"""Values from which on they hold what they should: of 3 they hold the median in three of four cases only."""


class Interval(msgspec.Struct, frozen=True):
    """A median, with an interval that holds it."""

    median: float
    low: float
    high: float
    count: int
    """Number of the values that it is made of."""

    @property
    def is_of_few(self) -> bool:
        """True if its values are too few for an interval to mean anything."""
        return self.count < FEW

    @property
    def half_width(self) -> float:
        """Half of the distance between the ends, in the figure's own unit."""
        return (self.high - self.low) / 2

    def scaled(self, factor: float) -> "Interval":
        """Scale the interval to another unit; the factor is above 0."""
        return Interval(self.median * factor, self.low * factor, self.high * factor, self.count)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def median_interval(values: Sequence[float], seed: int, resamples: int) -> Interval:
    """Compute the median of some values, with the interval that holds it at 95 %.

    Args:
        values: At least one.
        seed: The same values with the same seed have the same interval.
        resamples: How many samples are drawn.
    """
    medians = _medians(values, np.random.default_rng(seed), resamples)
    return _interval(float(np.median(values)), medians, len(values))


def quotient_interval(above: Sequence[float], below: Sequence[float], seed: int, resamples: int) -> Interval:
    """Compute the quotient of two medians, from values that were not measured in the same rounds.

    Args:
        above: Of the numerator, at least one.
        below: Of the denominator, at least one; not around 0.
        seed: The same values with the same seed have the same interval.
        resamples: How many samples are drawn.
    """
    rng = np.random.default_rng(seed)
    quotients = _medians(above, rng, resamples) / _medians(below, rng, resamples)
    return _interval(float(np.median(above) / np.median(below)), quotients, min(len(above), len(below)))


def _medians(values: Sequence[float], rng: np.random.Generator, resamples: int) -> NDArray[Any]:
    drawn = rng.integers(0, len(values), (resamples, len(values)))
    medians: NDArray[Any] = np.median(np.asarray(values, float)[drawn], axis=1)
    return medians


def _interval(median: float, medians: NDArray[Any], count: int) -> Interval:
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # Interpolation may put an end on the other side by the last bit.
    return Interval(median, min(median, float(low)), max(median, float(high)), count)
