"""Where spans and measurements end up: they take the SDK's own way, to exporters that let nothing out of the process.

Spans go through a `BatchSpanProcessor` with the SDK's default settings. Measurements are collected by a periodic reader
every minute, its default, so that their collection is hardly part of what is timed; recording them is.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from metering.calls import INPUT_TOKENS, Settle

if TYPE_CHECKING:
    from runmeter.telemetry import OpenTelemetry
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from stub import ANSWER, QUESTION

GENAI = "gen_ai.usage.input_tokens"
"""The attribute of the OpenTelemetry GenAI conventions."""


class SpanSink(SpanExporter):
    """Takes spans, counts those that tell how many tokens were used, and drops them.

    Args:
        usage: The attribute that tells it.
        content: Whether spans should have what was asked or answered in them.
        encode: Whether to make the bytes of an OTLP request of each batch first, with the SDK's encoder.
    """

    def __init__(self, usage: str = GENAI, *, content: bool = False, encode: bool = False) -> None:
        self._usage = usage
        self._content = content
        self._encode = _otlp_encoder() if encode else None
        self._count = 0
        self._last: ReadableSpan | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._encode is not None:
            self._encode(spans)
        for span in spans:
            if self._usage in span.attributes:
                self._count += 1
                self._last = span
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True

    def settle(self, flush: Callable[[], object], spans_per_call: int = 1) -> Settle:
        """What ends a case: all that is on its way arrives, and is as it should be, or the case fails."""

        async def settle(calls: int) -> None:
            flush()
            count, self._count = self._count, 0
            if count != calls * spans_per_call:
                raise RuntimeError(f"{calls} calls made {count} spans with {self._usage}")
            self._check(self._last)

        return settle

    def _check(self, span: ReadableSpan) -> None:
        said = str([dict(span.attributes), *(dict(event.attributes) for event in span.events)])
        if str(INPUT_TOKENS) not in str(span.attributes[self._usage]):
            raise RuntimeError(f"there should be {INPUT_TOKENS} input tokens: {said}")
        if self._content != (QUESTION in said or ANSWER in said):
            raise RuntimeError(f"there should be {'some' if self._content else 'no'} content: {said}")


class _MetricSink(MetricExporter):
    """Drops what was measured."""

    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        pass

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True


def tracer_provider(sink: SpanSink) -> TracerProvider:
    """The SDK's provider, whose spans go to a sink in batches."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(sink))
    return provider


def meter_provider() -> MeterProvider:
    """The SDK's provider, whose measurements go nowhere."""
    return MeterProvider([PeriodicExportingMetricReader(_MetricSink())])


def runmeter_telemetry(sink: SpanSink) -> "OpenTelemetry":
    """Runmeter's telemetry: spans take the same way, and measurements its own, to a collector that is not there.

    They would be sent to it once a minute, the default.
    """
    from runmeter.telemetry import configure

    return configure(tracer_provider=tracer_provider(sink), endpoint="http://127.0.0.1:1")


def _otlp_encoder() -> Callable[[Sequence[ReadableSpan]], bytes]:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    return lambda spans: encode_spans(spans).SerializeToString()
