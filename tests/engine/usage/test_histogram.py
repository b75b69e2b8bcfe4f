import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runmeter.engine.usage.histogram import Histogram, HistogramSnapshot, merge

values = st.lists(st.one_of(st.integers(0, 300), st.integers(0, 10**12), st.integers(0, 2**70)))


def histogram(values: list[int]) -> HistogramSnapshot:
    counting = Histogram()
    for value in values:
        counting.add(value)
    return counting.snapshot()


@given(values.filter(bool), st.floats(0, 1))
def test_a_quantile_is_within_one_percent_of_the_value_of_that_rank(values: list[int], q: float) -> None:
    exact = sorted(values)[max(math.ceil(q * len(values)), 1) - 1]
    quantile = histogram(values).quantile(q)
    assert quantile is not None
    assert abs(quantile - exact) * 100 <= exact


@given(st.integers(0, 2**70))
def test_every_value_lands_in_a_bucket_whose_middle_is_within_one_percent(value: int) -> None:
    # Neighbours above and below keep the quantile from being corrected to an exact minimum or maximum.
    median = histogram([0, value, value, 2**71]).quantile(0.5)
    assert median is not None
    assert abs(median - value) * 100 <= value


@given(values)
def test_buckets_say_what_they_hold_at_the_most(values: list[int]) -> None:
    left = sorted(values)
    least = -1
    for largest, count in histogram(values).up_to():
        inside, left = left[:count], left[count:]
        assert least < inside[0]
        assert inside[-1] <= largest
        assert (largest - inside[0]) * 64 <= largest, "no bucket is wider than a 64th"
        least = largest
    assert not left


def test_small_values_are_exact() -> None:
    for value in range(128):
        assert histogram([0, value, 1000]).quantile(0.5) == value


@given(values)
def test_count_sum_mean_and_extremes_are_exact(values: list[int]) -> None:
    snapshot = histogram(values)
    assert snapshot.count == len(values)
    assert snapshot.sum == sum(values)
    assert snapshot.min == min(values, default=None)
    assert snapshot.max == max(values, default=None)
    assert snapshot.mean == (sum(values) / len(values) if values else None)
    assert snapshot.quantile(0) == snapshot.min
    assert snapshot.quantile(1) == snapshot.max


@given(values, values)
def test_merging_is_counting_everything_in_one(some: list[int], others: list[int]) -> None:
    assert histogram(some) + histogram(others) == histogram(some + others)


@given(values, values, values)
def test_merging_is_commutative_and_associative_and_knows_nothing(a: list[int], b: list[int], c: list[int]) -> None:
    x, y, z = histogram(a), histogram(b), histogram(c)
    assert x + y == y + x
    assert (x + y) + z == x + (y + z) == merge([z, x, y])
    assert x + HistogramSnapshot() == x == HistogramSnapshot() + x
    assert merge([]) == HistogramSnapshot() == histogram([])


@given(values, st.randoms(use_true_random=False))
def test_the_order_of_values_does_not_matter(values: list[int], shuffling: random.Random) -> None:
    shuffled = list(values)
    shuffling.shuffle(shuffled)
    assert histogram(shuffled) == histogram(values)


def test_an_empty_histogram_has_no_quantiles() -> None:
    empty = histogram([])
    assert (empty.quantile(0), empty.quantile(0.5), empty.quantile(1)) == (None, None, None)
    assert (empty.min, empty.max, empty.mean, empty.count, empty.sum) == (None, None, None, 0, 0)


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_a_quantile_outside_its_range_is_an_error(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        histogram([1]).quantile(q)


def test_a_clock_set_back_counts_as_no_time() -> None:
    assert histogram([5, -7]) == histogram([0, 5])
    assert histogram([-7, 5]) == histogram([0, 5])


@given(values)
def test_a_snapshot_survives_encoding(values: list[int]) -> None:
    fits = [value for value in values if value < 2**40]  # a msgpack integer, and so the sum, has 64 bits
    snapshot = histogram(fits)
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=HistogramSnapshot) == snapshot
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=HistogramSnapshot) == snapshot


def test_a_snapshot_does_not_change() -> None:
    counting = Histogram()
    counting.add(1)
    before = counting.snapshot()
    counting.add(2)
    assert before == histogram([1])


def test_memory_depends_on_the_spread_of_values_not_on_their_number() -> None:
    counting = Histogram()
    for value in range(10**6, 2 * 10**6, 7):
        counting.add(value)
    assert len(counting.snapshot().buckets) <= 65  # one octave
