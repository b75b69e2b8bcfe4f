"""Metrics kept as plain sums and bucket counts, which readers collect in the SDK's form.

An instrument of the SDK takes ten microseconds or more for each measurement, most of them to check and hash attributes
that are the same every time. Here they are looked up once, and a measurement is an addition.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, TypeAlias

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as SdkMetric
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from .instruments import Attributes, Instruments, Record
from .semconv import Metric

Clock: TypeAlias = Callable[[], int]

CARDINALITY_LIMIT = 2_000
"""Distinct sets of attributes that a metric has at most, as in the SDK (opentelemetry-sdk 1.45, `MetricReader`), so a
flood of model or tool names stays bounded. What has other attributes shares one point more."""
OVERFLOW: Attributes = {"otel.metric.overflow": True}


class Total:
    """The sum of a counter's measurements that have the same attributes."""

    __slots__ = ("attributes", "start_ns", "value")

    def __init__(self, attributes: Attributes, start_ns: int) -> None:
        self.attributes = attributes
        self.start_ns = start_ns
        self.value: float = 0

    def record(self, value: float) -> None:
        """Add one measurement to the sum; one that is negative or not finite is left out."""
        if 0 <= value < inf:
            self.value += value

    def copy(self) -> "Total":
        """Copy the sum as it is now."""
        copy = Total(self.attributes, self.start_ns)
        copy.value = self.value
        return copy

    def is_empty(self) -> bool:
        """Tell whether nothing was measured: never, because nothing is kept before it is measured, and 0 is a sum."""
        return False

    def point(self, time_ns: int) -> NumberDataPoint:
        """Make the SDK's data point of the sum so far."""
        return NumberDataPoint(self.attributes, self.start_ns, time_ns, self.value)


class Distribution:
    """The distribution of a histogram's measurements that have the same attributes."""

    __slots__ = ("attributes", "bounds", "counts", "highest", "lowest", "start_ns", "sum")

    def __init__(self, bounds: tuple[float, ...], attributes: Attributes, start_ns: int) -> None:
        self.attributes = attributes
        self.start_ns = start_ns
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0
        self.lowest: float = inf
        self.highest: float = -inf

    def record(self, value: float) -> None:
        """Add one measurement to its bucket; one that is negative or not finite is left out."""
        if not self.lowest <= value <= self.highest:
            if not 0 <= value < inf:
                return
            self.lowest = min(self.lowest, value)
            self.highest = max(self.highest, value)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> "Distribution":
        """Copy the distribution as it is now."""
        copy = Distribution(self.bounds, self.attributes, self.start_ns)
        copy.counts = self.counts.copy()
        copy.sum, copy.lowest, copy.highest = self.sum, self.lowest, self.highest
        return copy

    def is_empty(self) -> bool:
        """Tell whether nothing was measured that counts."""
        return self.lowest == inf

    def point(self, time_ns: int) -> HistogramDataPoint:
        """Make the SDK's data point of the distribution so far."""
        return HistogramDataPoint(
            attributes=self.attributes,
            start_time_unix_nano=self.start_ns,
            time_unix_nano=time_ns,
            count=sum(self.counts),
            sum=self.sum,
            bucket_counts=tuple(self.counts),
            explicit_bounds=self.bounds,
            min=self.lowest,
            max=self.highest,
        )


class MetricStream:
    """A metric as one reader sees it.

    Args:
        metric: What is measured.
        temporality: Delta starts anew with each collection, cumulative never does.
        clock: Nanoseconds since the Unix epoch.
        limit: How many distinct sets of attributes it keeps apart.
    """

    def __init__(self, metric: Metric, temporality: AggregationTemporality, clock: Clock, limit: int) -> None:
        self._metric = metric
        self._limit = limit
        self._temporality = temporality
        self.is_delta = temporality is AggregationTemporality.DELTA
        self._clock = clock
        self._make = Total if metric.buckets is None else partial(Distribution, metric.buckets)
        self._kept: dict[frozenset[tuple[str, object]], Total | Distribution] = {}
        self._collected_ns: int | None = None

    def at(self, attributes: Attributes) -> Total | Distribution:
        """Find or make the sum or distribution of the measurements with these attributes."""
        key = frozenset(attributes.items())
        if key not in self._kept and len(self._kept) >= self._limit:
            attributes = OVERFLOW
            key = frozenset(attributes.items())
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = self._make(attributes, self._collected_ns or self._clock())
        return kept

    def take(self) -> "tuple[int, list[Total | Distribution]]":
        """Take the time, and the measurements until then: with delta all of them are given away, else copied."""
        now = self._clock()
        kept = list(self._kept.values())
        if not self.is_delta:
            return now, [each.copy() for each in kept]
        self._kept = {}
        self._collected_ns = now
        return now, kept

    def exported(self, now: int, kept: "Sequence[Total | Distribution]") -> SdkMetric | None:
        """Make the SDK's metric of the measurements taken; None if there are none."""
        points: list[Any] = [each.point(now) for each in kept if not each.is_empty()]
        if not points:
            return None
        metric = self._metric
        data = Sum(points, self._temporality, True) if metric.buckets is None else Histogram(points, self._temporality)
        return SdkMetric(metric.name, metric.description, metric.unit, data)


@dataclass(slots=True, eq=False)
class RunningSums:
    """The streams that one reader collects, by metric."""

    of_counters: AggregationTemporality
    of_histograms: AggregationTemporality
    streams: dict[Metric, MetricStream] = field(default_factory=dict)


class Accumulators(Instruments):
    """Keeps measurements for any number of readers, to each its own account.

    A forked process starts with nothing: what was measured before is the parent's to report.

    Args:
        scope: What the metrics say they come from.
        clock: Nanoseconds since the Unix epoch.
        limit: How many distinct sets of attributes a metric keeps apart.
    """

    def __init__(
        self, scope: InstrumentationScope, clock: Clock = time.time_ns, limit: int = CARDINALITY_LIMIT
    ) -> None:
        super().__init__()
        self._limit = limit
        self._scope = scope
        self._clock = clock
        self._accounts: list[RunningSums] = []

    def _forked(self) -> None:
        super()._forked()
        for account in self._accounts:
            account.streams = {}

    def open(self, of_counters: AggregationTemporality, of_histograms: AggregationTemporality) -> RunningSums:
        """Open an account for one more reader, of the measurements from now on."""
        account = RunningSums(of_counters, of_histograms)
        with self.lock:
            self._accounts.append(account)
            self.epoch += 1
        return account

    def close(self, account: RunningSums) -> None:
        """End a reader's account."""
        with self.lock:
            self._accounts.remove(account)
            self.epoch += 1

    def bind(self, metric: Metric, attributes: Attributes) -> Record:
        """Make the function that adds to the sums in each reader's account."""
        records = [self._stream(account, metric).at(attributes).record for account in self._accounts]
        if len(records) == 1:
            return records[0]

        def record(value: float) -> None:
            for each in records:
                each(value)

        return record

    def _stream(self, account: RunningSums, metric: Metric) -> MetricStream:
        stream = account.streams.get(metric)
        if stream is None:
            temporality = account.of_counters if metric.buckets is None else account.of_histograms
            stream = account.streams[metric] = MetricStream(metric, temporality, self._clock, self._limit)
        return stream

    def collect(self, account: RunningSums) -> ScopeMetrics | None:
        """Collect the metrics that one reader has to report; None if there are none."""
        metrics = []
        with self.lock:
            streams = list(account.streams.values())
        for stream in streams:
            with self.lock:  # for one metric at a time: the loop that records waits for no more than that
                taken = stream.take()
                self.epoch += stream.is_delta
            metric = stream.exported(*taken)
            if metric is not None:
                metrics.append(metric)
        return ScopeMetrics(self._scope, metrics, self._scope.schema_url or "") if metrics else None
