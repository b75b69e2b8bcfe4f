"""Latencies: percentiles of runs by day, and of runs and requests by pattern and model."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import date
from typing import TypeVar

import msgspec

from runmeter.engine import HistogramSnapshot, UsageRow
from runmeter.engine.ledger.days import DayUsage
from runmeter.engine.usage.histogram import merge

_Key = TypeVar("_Key", bound=Hashable)

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
"""The percentiles that are shown, by name: half, 95 % and 99 % took no longer."""


class Latency(msgspec.Struct, frozen=True):
    """The durations of some runs or requests, in nanoseconds. None: there is none."""

    count: int
    p50: int | None
    p95: int | None
    p99: int | None
    longest: int | None

    @classmethod
    def of(cls, histogram: HistogramSnapshot) -> "Latency":
        """Take the percentiles from a histogram, each within 1 %."""
        p50, p95, p99 = (histogram.quantile(q) for q in QUANTILES.values())
        return cls(histogram.count, p50, p95, p99, histogram.max)


def runs_by_day(days: Iterable[DayUsage]) -> Mapping[date, Latency]:
    """Take the latency of the runs that began on each day; days without a finished run are left out."""
    return _latencies(((each.day, each.cell.row) for each in days), lambda row: row.run_latency)


def runs_by_pattern(days: Iterable[DayUsage]) -> Mapping[str, Latency]:
    """Take the latency of the runs of each pattern."""
    return _latencies(((each.cell.pattern, each.cell.row) for each in days), lambda row: row.run_latency)


def requests_by_model(days: Iterable[DayUsage]) -> Mapping[str, Latency]:
    """Take the latency of the requests to each model, to the end of their answers."""
    return _latencies(_by_model(days), lambda row: row.model_latency)


def first_chunks_by_model(days: Iterable[DayUsage]) -> Mapping[str, Latency]:
    """Take the time of the requests to each model to the first chunk of a streamed answer."""
    return _latencies(_by_model(days), lambda row: row.first_chunk_latency)


def _by_model(days: Iterable[DayUsage]) -> Iterable[tuple[str, UsageRow]]:
    return ((each.cell.model, each.cell.row) for each in days if each.cell.model is not None)


def _latencies(
    rows: Iterable[tuple[_Key, UsageRow]], latency: Callable[[UsageRow], HistogramSnapshot]
) -> Mapping[_Key, Latency]:
    groups: defaultdict[_Key, list[HistogramSnapshot]] = defaultdict(list)
    for key, row in rows:
        if (histogram := latency(row)).buckets:
            groups[key].append(histogram)
    return {key: Latency.of(merge(members)) for key, members in groups.items()}
