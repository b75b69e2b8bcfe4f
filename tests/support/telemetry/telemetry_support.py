"""What the telemetry tests share: telemetry that is kept in memory, and an environment without `OTEL_*` variables."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from semconv_check import check_metrics, check_span

from runmeter.engine import Clock, Event, Execution, RunInfo, Runtime
from runmeter.engine.testing import ManualClock
from runmeter.telemetry import OpenTelemetry, configure


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset every variable that OpenTelemetry reads."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


class Captured:
    """Telemetry whose spans and metrics stay in memory, in providers as an application has them."""

    def __init__(self, sampler: Sampler | None = None, **arguments: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(sampler, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry: OpenTelemetry = configure(
            tracer_provider=self.tracer_provider,
            meter_provider=MeterProvider([self._reader], shutdown_on_exit=False),
            **arguments,
        )
        self.events: list[Event] = []

    def runtime(self, clock: Clock | None = None) -> Runtime:
        """A runtime whose runs publish to `events`."""
        return Runtime(None, self.events.append, clock or ManualClock(step_ns=1_000_000), tracing=self.telemetry)

    def execution(self, name: str = "support", **info: Any) -> Execution:
        """A run that publishes to `events`; to be entered."""
        return Execution(self.runtime(), RunInfo(name, **info))

    def receive(self) -> None:
        """Have the events so far made into telemetry."""
        events, self.events[:] = self.events[:], []
        self.telemetry.receive(events)
        assert self.telemetry.statistics().errors == 0

    @property
    def spans(self) -> list[ReadableSpan]:
        """Every span so far, each found to be as the conventions say."""
        spans = list(self._exporter.get_finished_spans())
        assert [wrong for span in spans for wrong in check_span(span)] == []
        return spans

    def span(self, name: str) -> ReadableSpan:
        """The one span of this name."""
        [span] = [span for span in self.spans if span.name == name]
        return span

    def measured(self) -> Mapping[str, list[Any]]:
        """The data points of every metric so far by its name, each found to be as the conventions say."""
        data = self._reader.get_metrics_data() or MetricsData([])
        assert check_metrics(data) == []
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def captured(no_variables: None) -> Iterator[Captured]:
    """Telemetry kept in memory."""
    captured = Captured()
    yield captured
    captured.telemetry.shutdown()


def ids(span: ReadableSpan) -> tuple[int, int, int | None]:
    """A span's trace id, its own, and its parent's."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id, span.parent.span_id if span.parent else None
