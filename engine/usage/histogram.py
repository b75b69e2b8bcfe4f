"""Histograms of latencies in little memory, from which any quantile can be told within 1 %.

Whole numbers below 128 are counted exactly. Above, each power of two is cut into 64 buckets of equal width, so a
bucket's middle is at most 1/128 (0.8 %) away from any value in it. Where a value goes depends on the value alone:
merging adds counts and nothing else, exactly and in any order. The layout is HdrHistogram's, at a fixed precision.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import msgspec

_OCTAVE_BITS = 6  # 64 buckets an octave
_EXACT_BITS = _OCTAVE_BITS + 1  # the first two octaves need one bucket a value


class HistogramSnapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """The counts of a `Histogram`, as a value. Adds up with others, in any order, to what one would have counted."""

    buckets: tuple[tuple[int, int], ...] = ()
    """Index and count of each bucket that holds anything, in ascending order."""
    sum: int = 0
    """Exact sum of the values, in their unit (nanoseconds, for latencies)."""
    min: int | None = None
    max: int | None = None

    @property
    def count(self) -> int:
        """The number of values counted."""
        return sum(count for _, count in self.buckets)

    @property
    def mean(self) -> float | None:
        """The exact average of all values; None if there is no value."""
        count = self.count
        return self.sum / count if count else None

    def quantile(self, q: float) -> int | None:
        """Find the value that a share `q` of all values does not exceed, within 1 %; None if there is no value.

        It is the ceil(q * count)-th smallest value (nearest rank). `quantile(0)` is the minimum and `quantile(1)` the
        maximum, both exact.

        Raises:
            ValueError: `q` is not between 0 and 1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
        if self.min is None or self.max is None:
            return None
        count = self.count
        rank = math.ceil(q * count)
        if rank <= 1:
            return self.min
        if rank == count:
            return self.max
        seen = 0
        for index, inside in self.buckets:
            seen += inside
            if seen >= rank:
                return min(max(_middle(index), self.min), self.max)
        return self.max

    def up_to(self) -> tuple[tuple[int, int], ...]:
        """List each bucket that holds anything, as the largest value it can hold and its count; in ascending order."""
        return tuple((_largest(index), count) for index, count in self.buckets)

    def __add__(self, other: "HistogramSnapshot") -> "HistogramSnapshot":
        return merge((self, other))


class Histogram:
    """Counts values that are whole and not negative, such as nanoseconds. Not safe for threads by itself."""

    __slots__ = ("_counts", "_max", "_min", "_sum")

    def __init__(self) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._sum = 0
        self._min: float = math.inf
        self._max = -1

    def add(self, value: int) -> None:
        """Count one more value. A negative one, as from a clock set back, counts as 0."""
        if value < self._min:
            value = max(value, 0)
            self._min = value
        if value > self._max:  # noqa: PLR1730 - calling max() would cost a third of all this
            self._max = value
        self._sum += value
        shift = value.bit_length() - _EXACT_BITS
        self._counts[value if shift <= 0 else (shift << _OCTAVE_BITS) + (value >> shift)] += 1

    def merge(self, other: HistogramSnapshot) -> None:
        """Add all counts of another histogram."""
        if other.min is None or other.max is None:
            return
        counts = self._counts
        for index, count in other.buckets:
            counts[index] += count
        self._sum += other.sum
        self._min = min(self._min, other.min)
        self._max = max(self._max, other.max)

    def snapshot(self) -> HistogramSnapshot:
        """Copy the counts so far, as a value."""
        if not self._counts:
            return EMPTY
        return HistogramSnapshot(tuple(sorted(self._counts.items())), self._sum, int(self._min), self._max)


EMPTY = HistogramSnapshot()


def merge(snapshots: Iterable[HistogramSnapshot]) -> HistogramSnapshot:
    """Merge snapshots into the one that a single histogram of all their values would have given."""
    whole = Histogram()
    for snapshot in snapshots:
        whole.merge(snapshot)
    return whole.snapshot()


def _middle(index: int) -> int:
    """Compute the middle of a bucket's values."""
    shift = _shift(index)
    return (index - (shift << _OCTAVE_BITS) << shift) + (1 << shift >> 1)


def _largest(index: int) -> int:
    """Compute the largest of a bucket's values."""
    shift = _shift(index)
    return (index + 1 - (shift << _OCTAVE_BITS) << shift) - 1


def _shift(index: int) -> int:
    """Compute the power of two by which a bucket's width exceeds 1."""
    return max((index >> _OCTAVE_BITS) - 1, 0)
