# /// script
# requires-python = ">=3.11"
# dependencies = ["opentelemetry-sdk==1.45.2", "opentelemetry-exporter-otlp-proto-common==1.45.2"]
# ///
"""What the same costs with the OpenTelemetry SDK: a span for each model call, and the same measurements.

Spans and measurements have the names and values that Runmeter's have. "span" ends at a provider without a processor;
"events to OTLP bytes" takes spans through a `BatchSpanProcessor` to an exporter that encodes and drops them;
"encode a span" is the SDK's encoder alone. "histogram add" is `histogram.record`, and "fold a usage event" all nine
measurements of a model call. Nothing is switched off; exemplars and limits are as by default.
"""

from collections.abc import Sequence
from typing import Any

from worker import Bench, Work, serve

BATCH = 512
"""Spans encoded at once: the SDK's default."""
QUEUE = 2_048
"""Spans that may wait: the SDK's default."""


def load() -> Bench:
    import opentelemetry.exporter.otlp.proto.common.trace_encoder
    import opentelemetry.sdk.metrics
    import opentelemetry.sdk.trace.export  # noqa: F401 - all that is timed as import

    return Bench(_metrics() | _spans())


def _metrics() -> dict[str, Work]:
    from engine.call import METRIC_ATTRIBUTES, SECOND_NS, in_turn, latencies
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    meter = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False).get_meter("bench")
    counter, histogram = meter.create_counter("counter"), meter.create_histogram("latency", "s")
    measure = measurements(meter)

    def counter_add(times: int) -> None:
        for _ in range(times):
            counter.add(1, METRIC_ATTRIBUTES)

    def histogram_add(times: int) -> None:
        for value in in_turn([each / SECOND_NS for each in latencies()], times):
            histogram.record(value, METRIC_ATTRIBUTES)

    def measure_call(times: int) -> None:
        for _ in range(times):
            measure()

    return {"counter add": counter_add, "histogram add": histogram_add, "fold a usage event": measure_call}


def measurements(meter: Any) -> Any:
    """What takes all measurements of a model call."""
    from engine.call import COUNTED, MEASURED, METRIC_ATTRIBUTES

    counters = [(meter.create_counter(name), value) for name, value in COUNTED.items()]
    histograms = [(meter.create_histogram(name), value) for name, value in MEASURED.items()]

    def measure() -> None:
        for counter, value in counters:
            counter.add(value, METRIC_ATTRIBUTES)
        for histogram, value in histograms:
            histogram.record(value, METRIC_ATTRIBUTES)

    return measure


def _spans() -> dict[str, Work]:  # noqa: C901 - a function for each case
    from engine.call import MODEL, REQUEST_ATTRIBUTES, RESPONSE_ATTRIBUTES, blocks
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.trace import SpanKind

    class Encoding(SpanExporter):
        encoded = 0

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            encode_spans(spans).SerializeToString()
            self.encoded += len(spans)
            return SpanExportResult.SUCCESS

    def make_span(tracer: Any) -> Any:
        span = tracer.start_span(f"chat {MODEL}", kind=SpanKind.CLIENT, attributes=REQUEST_ATTRIBUTES)
        span.set_attributes(RESPONSE_ATTRIBUTES)
        span.end()
        return span

    plain = TracerProvider(shutdown_on_exit=False).get_tracer("bench")
    measure = measurements(MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False).get_meter("bench"))

    def span(times: int) -> None:
        for _ in range(times):
            make_span(plain)

    def span_and_metrics(times: int) -> None:
        for _ in range(times):
            make_span(plain)
            measure()

    def export(times: int) -> None:
        exporter, provider = Encoding(), TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter, QUEUE, max_export_batch_size=BATCH))
        tracer = provider.get_tracer("bench")
        for size in blocks(times, QUEUE // 2):  # never more than it has room for
            for _ in range(size):
                make_span(tracer)
            provider.force_flush()
        provider.shutdown()
        assert exporter.encoded == times

    def encode(times: int) -> None:
        spans = [make_span(plain)] * BATCH
        for size in blocks(times, BATCH):
            encode_spans(spans[:size]).SerializeToString()

    return {
        "span": span,
        "span and metrics": span_and_metrics,
        "events to OTLP bytes": export,
        "encode a span": encode,
    }


if __name__ == "__main__":
    serve(load, ["opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-common"])
