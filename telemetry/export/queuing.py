"""Where the SDK's providers hand over spans and collections of metrics: into the queues of exporters."""

from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from ..environment import variable
from .drain import Drain
from .exporter import Exporter
from .span_size import span_size

_CUMULATIVE, _DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA


class QueuingSpanProcessor(SpanProcessor):
    """Queues ended spans for export.

    Args:
        exporter: Exports them.
    """

    def __init__(self, exporter: Exporter[ReadableSpan]) -> None:
        self._exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span for export, if it is sampled."""
        context = span.context
        if context is not None and context.trace_flags.sampled:
            self._exporter.put(span, span_size(span))

    def shutdown(self) -> None:
        """Close nothing, for nothing is kept here: the exporter ends with all of telemetry."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send pending spans, in at most `timeout_millis` milliseconds. It blocks."""
        return Drain([self._exporter]).wait(timeout_millis / 1e3)


class QueuingMetricExporter(MetricExporter):
    """Queues collections of metrics for export.

    Args:
        exporter: Exports them.
        encode: Makes a request of a collection.
        by_the_variables: Prefers the temporality and the histograms that the standard variables name.
    """

    def __init__(
        self, exporter: Exporter[bytes], encode: Callable[[MetricsData], bytes], *, by_the_variables: bool
    ) -> None:
        super().__init__(*((_temporality(), _aggregation()) if by_the_variables else (None, None)))
        self._exporter = exporter
        self._encode = encode

    def takes_sums_and_buckets(self) -> bool:
        """Tell whether it prefers only sums of counters and the buckets that a histogram is made with."""
        return not isinstance((self._preferred_aggregation or {}).get(Histogram), ExponentialBucketHistogramAggregation)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        """Encode and queue a collection of metrics."""
        try:
            request = self._encode(metrics_data)
        except Exception as error:
            self._exporter.refuse(error)
            return MetricExportResult.FAILURE
        self._exporter.put(request, len(request))
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush nothing, for nothing is kept here: the exporter sends in the background."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Close nothing, for nothing is kept here: the exporter ends with all of telemetry."""


def _temporality() -> dict[type, AggregationTemporality]:
    """Read the temporality that OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE names, by instrument.

    Source: OpenTelemetry specification, "Metrics Exporter - OTLP", "Additional Environment Variable Configuration"
    (opentelemetry.io/docs/specs/otel/metrics/sdk_exporters/otlp, read 2026-11-29).
    """
    said = (variable("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE") or "cumulative").lower()
    return {
        Counter: _CUMULATIVE if said == "cumulative" else _DELTA,
        Histogram: _CUMULATIVE if said == "cumulative" else _DELTA,
        ObservableCounter: _DELTA if said == "delta" else _CUMULATIVE,
        UpDownCounter: _CUMULATIVE,
        ObservableUpDownCounter: _CUMULATIVE,
        ObservableGauge: _CUMULATIVE,
    }


def _aggregation() -> dict[type, Aggregation]:
    """Read the aggregation that OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION names, by instrument."""
    said = (variable("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION") or "").lower()
    if said == "base2_exponential_bucket_histogram":
        return {Histogram: ExponentialBucketHistogramAggregation()}
    return {Histogram: ExplicitBucketHistogramAggregation()}
