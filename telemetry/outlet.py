"""The ways out of the process: exporters, wrapped so that what becomes of every span is counted.

A collector that is away is nothing an application should hear about more than once. So what the OpenTelemetry
exporters would log on every attempt becomes one line of ours for each outage, and counts.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import DefaultAggregation, ExplicitBucketHistogramAggregation, SumAggregation
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from .forking import call_in_forked_child
from .statistics import ExporterStatistics

logger = logging.getLogger("runmeter")

_EXPORTERS_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)
_DEFAULT = DefaultAggregation()


class _Closable(Protocol):
    def shutdown(self) -> None: ...


Exporter = TypeVar("Exporter", bound=_Closable)


class Outlet(Generic[Exporter]):
    """Counts what an exporter takes, and hears its complaints.

    Args:
        name: What it exports and where to.
        make: Makes the exporter; again in a forked process, because connections must not be shared between two.
        capacity: How many may be pending.
    """

    def __init__(self, name: str, make: Callable[[], Exporter], capacity: int) -> None:
        self.name = name
        self.in_trouble = False
        """Whether the collector has refused or missed what was last offered."""
        self._make = make
        self.capacity = capacity
        self._closing = False
        self._inherited: Exporter | None = None
        self._reset(make())
        call_in_forked_child(self._forked)

    def _reset(self, exporter: Exporter | None) -> None:
        self.exporter = exporter
        self._lock = threading.Lock()
        self._taken = self._sent = self._failed = self._dropped = 0
        self.in_trouble = False

    def _forked(self) -> None:
        self._inherited = self.exporter  # kept, because letting go of it might close the parent's connection
        self._reset(None)

    def statistics(self) -> ExporterStatistics:
        """The account now."""
        with self._lock:
            pending = self._taken - self._sent - self._failed - self._dropped
            return ExporterStatistics(self.name, self._taken, self._sent, self._failed, self._dropped, pending)

    def admit(self) -> bool:
        """Take one more, if there is room for it."""
        with self._lock:
            pending = self._taken - self._sent - self._failed - self._dropped
            self._taken += 1
            if pending < self.capacity and not self._closing:
                return True
            self._dropped += 1
            return False

    def take(self) -> None:
        """Take one more, whatever is pending: it is sent at once."""
        with self._lock:
            self._taken += 1

    def send(self, count: int, export: Callable[[Exporter], bool]) -> bool:
        """Export what was taken, and count what came of it."""
        sent = False
        if not self._closing:
            self.exporter = self.exporter or self._make()
        if self.exporter is not None:
            _hearing.outlet = self
            try:
                sent = export(self.exporter)
            except Exception as error:
                self.complain(repr(error))
            finally:
                _hearing.outlet = None
        with self._lock:
            if sent:
                self._sent += count
            else:
                self._failed += count
        if sent and self.in_trouble:
            self.in_trouble = False
            logger.info("telemetry arrives again: %s", self.name)
        elif not sent:
            self.complain("not accepted")
        return sent

    def complain(self, why: str) -> None:
        """Hear that the collector does not take what it is offered."""
        if not self.in_trouble:
            self.in_trouble = True
            logger.warning(
                "telemetry does not arrive: %s: %s (the work goes on; further failures are only counted)",
                self.name,
                why,
            )
        if self._closing:
            self._stop()

    def close(self) -> None:
        """From now on give up at the first failure, so that a collector that is away does not delay the exit."""
        self._closing = True
        if self.in_trouble:
            self._stop()

    def _stop(self) -> None:
        with self._lock:
            exporter, self.exporter = self.exporter, None
        if exporter is not None:
            exporter.shutdown()

    def shutdown(self) -> None:
        """Close the exporter."""
        self._closing = True
        self._stop()


class _Hearing(threading.local):
    """Which outlet exports in this thread."""

    outlet: Outlet[Any] | None = None


_hearing = _Hearing()


class _Complaints(logging.Filter):
    """Hands the outlet what its exporter complains of, instead of logging it. Exporters of others log as ever."""

    def filter(self, record: logging.LogRecord) -> bool:
        outlet = _hearing.outlet
        if outlet is None or record.levelno < logging.WARNING:
            return True
        outlet.complain(record.getMessage())
        return False


_complaints = _Complaints()


def hear_complaints() -> None:
    """Listen to the exporters' loggers. Doing it twice does nothing."""
    for name in _EXPORTERS_LOGGERS:
        logging.getLogger(name).addFilter(_complaints)


class CountedSpanExporter(SpanExporter):
    """Exports spans through an outlet."""

    def __init__(self, outlet: Outlet[SpanExporter]) -> None:
        self._outlet = outlet

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch."""
        sent = self._outlet.send(len(spans), lambda exporter: exporter.export(spans) is SpanExportResult.SUCCESS)
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Close the exporter."""
        self._outlet.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return True


class CountedSpanProcessor(BatchSpanProcessor):
    """The SDK's batch processor, filled only as far as its queue goes: what would overflow is dropped, and counted."""

    def __init__(self, outlet: Outlet[SpanExporter], max_export_batch_size: int) -> None:
        super().__init__(CountedSpanExporter(outlet), outlet.capacity, max_export_batch_size=max_export_batch_size)
        self._outlet = outlet

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span for export."""
        if span.context is not None and span.context.trace_flags.sampled and self._outlet.admit():
            super().on_end(span)


class CountedMetricExporter(MetricExporter):
    """Exports metrics through an outlet."""

    def __init__(self, outlet: Outlet[MetricExporter]) -> None:
        assert outlet.exporter is not None  # noqa: S101 - new
        super().__init__(
            outlet.exporter._preferred_temporality,  # noqa: SLF001 - where the SDK's own reader looks
            outlet.exporter._preferred_aggregation,  # noqa: SLF001 - likewise
        )
        self._outlet = outlet

    def takes_sums_and_buckets(self) -> bool:
        """Whether it prefers nothing but sums of counters and the buckets that a histogram is made with."""
        preferred = self._preferred_aggregation or {}
        return isinstance(preferred.get(Counter, _DEFAULT), DefaultAggregation | SumAggregation) and isinstance(
            preferred.get(Histogram, _DEFAULT), DefaultAggregation | ExplicitBucketHistogramAggregation
        )

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        """Export a collection."""
        self._outlet.take()
        sent = self._outlet.send(
            1, lambda exporter: exporter.export(metrics_data, timeout_millis) is MetricExportResult.SUCCESS
        )
        return MetricExportResult.SUCCESS if sent else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing is kept here."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Close the exporter."""
        self._outlet.shutdown()
