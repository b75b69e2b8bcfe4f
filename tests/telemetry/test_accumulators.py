"""Our accumulators against the SDK's instruments: the same events, the same data points."""

import sys
import threading
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    DataT,
    InMemoryMetricReader,
    MetricReader,
    MetricsData,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from runmeter.engine import (
    AssistantRun,
    CostEstimate,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    ModelCallStarted,
    Notice,
    Provenance,
    Retrieval,
    Status,
    TokenUsage,
    Usage,
)
from runmeter.telemetry import metrics as metrics_module
from runmeter.telemetry import semconv
from runmeter.telemetry.accumulators import CARDINALITY_LIMIT, Accumulators
from runmeter.telemetry.instruments import Instruments, SdkInstruments
from runmeter.telemetry.meter_provider import AccumulatingMeterProvider
from runmeter.telemetry.metrics import Metrics
from runmeter.telemetry.open_runs import OpenRuns

SCOPE = InstrumentationScope("runmeter", "1", semconv.SCHEMA_URL)
RESOURCE = Resource({"service.name": "shop"}, "https://example.com/schema")
CUMULATIVE, DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA


def reader_of(
    counters: AggregationTemporality, histograms: AggregationTemporality, limit: int = CARDINALITY_LIMIT
) -> InMemoryMetricReader:
    return InMemoryMetricReader(
        {Counter: counters, Histogram: histograms}, cardinality_limits={Counter: limit, Histogram: limit}
    )


def price(event: TokenUsage) -> CostEstimate:
    """An eighth of a dollar for each output token, where they are known."""
    if event.usage is None:
        return CostEstimate(high_units=None)
    usd = Decimal(event.usage.output_tokens) / 8
    return CostEstimate.between(usd, usd)


class Measured:
    """Events in, collections out; by accumulators, or by instruments of the SDK."""

    def __init__(self, readers: Sequence[MetricReader], *, ours: bool, limit: int = CARDINALITY_LIMIT) -> None:
        instruments: Instruments
        if ours:
            instruments = Accumulators(SCOPE, limit=limit)
            self.provider: MeterProvider = AccumulatingMeterProvider(readers, RESOURCE, instruments)
        else:
            self.provider = MeterProvider(readers, RESOURCE, shutdown_on_exit=False)
            instruments = SdkInstruments(self.provider.get_meter(SCOPE.name, SCOPE.version, SCOPE.schema_url))
        self.metrics = Metrics(instruments, count_unreported=False)
        self._runs = OpenRuns(price, 100)

    def take(self, events: Sequence[Event]) -> None:
        for event in events:
            self.metrics.record(event, self._runs.fold(event))


def exact(value: Any) -> tuple[type, Any]:
    """With its type: on the wire 1 and 1.0 are not the same."""
    return type(value), value


def contents_of_metric(data: DataT) -> Iterator[Any]:
    if isinstance(data, Sum):
        yield data.aggregation_temporality, data.is_monotonic
        for number in data.data_points:
            yield number.attributes, exact(number.value), number.exemplars
    else:
        assert isinstance(data, HistogramData)
        yield data.aggregation_temporality
        for point in data.data_points:
            yield point.attributes, point.bucket_counts, point.explicit_bounds, point.exemplars
            yield point.count, exact(point.sum), exact(point.min), exact(point.max)


def contents(data: MetricsData | None) -> Iterator[Any]:
    """All that is exported but the times, in its order."""
    for about in data.resource_metrics if data is not None else ():
        yield about.resource, about.schema_url
        for scope in about.scope_metrics:
            yield scope.scope, scope.schema_url
            for metric in scope.metrics:
                yield metric.name, metric.unit, metric.description
                yield from contents_of_metric(metric.data)


def points(data: MetricsData | None, name: str) -> list[Any]:
    """A metric's points; none if it has not been measured."""
    return [
        point
        for about in (data.resource_metrics if data is not None else ())
        for scope in about.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


words = st.sampled_from(["support", "desk", "gpt-6-luna", "\ud800", "é"])
maybe = st.none() | words
# Eighths of a second, whose sums are exact: the SDK adds in another order.
nanoseconds = st.integers(0, 80_000).map(lambda eighths: eighths * 125_000_000)
tokens = st.integers(0, 10**9)
common: dict[str, Any] = {"run_id": st.sampled_from("ab"), "seq": st.integers(0, 5), "time_ns": st.just(0)}
usages = st.builds(
    Usage,
    tokens,
    tokens,
    cache_read_tokens=tokens,
    cache_write_tokens=tokens,
    reasoning_tokens=tokens,
    audio_input_tokens=tokens,
    audio_cache_read_tokens=tokens,
    audio_output_tokens=tokens,
    image_input_tokens=tokens,
    image_output_tokens=tokens,
)
ended: dict[str, Any] = {**common, "duration_ns": nanoseconds, "error_type": maybe}
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        ExecutionStarted,
        **common,
        pattern=words,
        framework=words,
        root_run_id=words,
        operation=st.sampled_from(["invoke_agent", "invoke_workflow"]),
    ),
    st.builds(
        ModelCallStarted,
        **common,
        call_id=st.integers(0, 2),
        provider=words,
        operation=words,
        model=words,
        server_address=maybe,
        server_port=st.none() | st.just(443),
    ),
    st.builds(
        TokenUsage,
        **ended,
        call_id=st.integers(0, 2),
        provider=st.sampled_from(["openai", "azure"]),
        operation=st.sampled_from(["chat", "embeddings"]),
        model=words,
        provenance=st.sampled_from(Provenance),
        usage=st.none() | usages,
        start_ns=st.just(0),
        first_chunk_ns=st.none() | nanoseconds,
        response_model=maybe,
        service_tier=maybe,
    ),
    st.builds(FunctionCall, **ended, name=words, start_ns=st.just(0)),
    st.builds(AssistantRun, **ended, assistant=words, start_ns=st.just(0), status=st.sampled_from(Status)),
    st.builds(Retrieval, **ended, source=words, start_ns=st.just(0), documents=st.just(1)),
    st.builds(Notice, **common, kind=words, subject=words, message=words),
    st.builds(ExecutionFinished, **ended, status=st.sampled_from(Status)),
)


@settings(deadline=None)
@given(
    batches=st.lists(st.lists(events, max_size=12), max_size=4),
    counters=st.sampled_from([CUMULATIVE, DELTA]),
    histograms=st.sampled_from([CUMULATIVE, DELTA]),
    limit=st.sampled_from([1, 3, CARDINALITY_LIMIT]),
)
def test_what_is_exported_is_what_the_sdk_would_export(
    batches: list[list[Event]], counters: AggregationTemporality, histograms: AggregationTemporality, limit: int
) -> None:
    of_ours, of_sdk = reader_of(counters, histograms, limit), reader_of(counters, histograms, limit)
    ours, sdk = Measured([of_ours], ours=True, limit=limit), Measured([of_sdk], ours=False, limit=limit)
    for batch in batches:
        ours.take(batch)
        sdk.take(batch)
        assert list(contents(of_ours.get_metrics_data())) == list(contents(of_sdk.get_metrics_data()))


def tool(name: str, duration_ns: int = 1_000_000) -> FunctionCall:
    return FunctionCall(run_id="a", seq=0, time_ns=0, name=name, start_ns=0, duration_ns=duration_ns)


DURATION = semconv.EXECUTE_TOOL_DURATION.name


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
def test_the_times_of_a_point_follow_from_its_temporality(ours: bool, temporality: AggregationTemporality) -> None:
    reader = reader_of(temporality, temporality)
    measured = Measured([reader], ours=ours)
    collected = []
    for _ in range(3):
        measured.take([tool("find")])
        [point] = points(reader.get_metrics_data(), DURATION)
        collected.append(point)
    first, second, third = collected
    assert 1.7e18 < first.start_time_unix_nano <= first.time_unix_nano < second.time_unix_nano < third.time_unix_nano
    if temporality is DELTA:
        assert [point.count for point in collected] == [1, 1, 1]
        assert second.start_time_unix_nano == first.time_unix_nano
        assert third.start_time_unix_nano == second.time_unix_nano
    else:
        assert [point.count for point in collected] == [1, 2, 3]
        assert first.start_time_unix_nano == second.start_time_unix_nano == third.start_time_unix_nano


@pytest.mark.parametrize("ours", [True, False])
def test_beyond_the_limit_attributes_share_a_point(ours: bool) -> None:
    reader = reader_of(CUMULATIVE, CUMULATIVE)
    measured = Measured([reader], ours=ours)
    names = [f"tool {number}" for number in range(metrics_module.MAX_KEPT + 10)]  # more than are looked up at once, too
    for _ in range(2):
        measured.take([tool(name) for name in names])
    found = {point.attributes.get("gen_ai.tool.name"): point for point in points(reader.get_metrics_data(), DURATION)}
    assert len(found) == CARDINALITY_LIMIT + 1
    rest = found.pop(None)
    assert rest.attributes == {"otel.metric.overflow": True}
    assert rest.count == 2 * (len(names) - CARDINALITY_LIMIT)
    assert {point.count for point in found.values()} == {2}


@pytest.mark.parametrize("ours", [True, False])
def test_a_measurement_that_cannot_be_is_left_out(ours: bool) -> None:
    reader = reader_of(CUMULATIVE, CUMULATIVE)
    measured = Measured([reader], ours=ours)
    measured.take([tool("find", -1)])
    assert points(reader.get_metrics_data(), DURATION) == []
    measured.take([tool("find", 2_000_000_000)])
    [point] = points(reader.get_metrics_data(), DURATION)
    assert (point.count, point.sum, point.min, point.max) == (1, 2, 2, 2)


def test_each_reader_has_an_account_of_its_own() -> None:
    cumulative, delta, late = (reader_of(temporality, temporality) for temporality in (CUMULATIVE, DELTA, CUMULATIVE))
    measured = Measured([cumulative, delta], ours=True)
    counts: dict[MetricReader, list[int]] = {cumulative: [], delta: [], late: []}
    for turn in count():
        if turn == 1:
            measured.provider.add_metric_reader(late)
        measured.take([tool("find")])
        for reader, counted in counts.items():
            if reader is not late or turn >= 1:
                assert isinstance(reader, InMemoryMetricReader)
                counted += [point.count for point in points(reader.get_metrics_data(), DURATION)]
        if turn == 2:
            break
    assert counts == {cumulative: [1, 2, 3], delta: [1, 1, 1], late: [1, 2]}
    measured.provider.remove_metric_reader(late)
    measured.take([tool("find")])
    [point] = points(cumulative.get_metrics_data(), DURATION)
    assert point.count == 4


def test_instruments_of_an_application_are_collected_too() -> None:
    reader = reader_of(CUMULATIVE, CUMULATIVE)
    measured = Measured([reader], ours=True)
    measured.provider.get_meter("shop").create_counter("orders").add(3)
    measured.take([tool("find")])
    data = reader.get_metrics_data()
    assert data is not None
    [about] = data.resource_metrics
    assert about.resource == RESOURCE
    assert [scope.scope.name for scope in about.scope_metrics] == ["shop", "runmeter"]
    [orders] = points(data, "orders")
    assert orders.value == 3


@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
def test_nothing_is_lost_between_recording_and_collecting(temporality: AggregationTemporality) -> None:
    reader = reader_of(temporality, temporality)
    measured = Measured([reader], ours=True)
    batch = [tool(f"tool {number % 7}") for number in range(20_000)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    collected: list[MetricsData | None] = []
    try:
        recording = threading.Thread(target=measured.take, args=(batch,))
        recording.start()
        while recording.is_alive():
            collected.append(reader.get_metrics_data())
        recording.join()
    finally:
        sys.setswitchinterval(interval)
    collected.append(reader.get_metrics_data())
    assert len(collected) > 2
    counted = [sum(point.count for point in points(data, DURATION)) for data in collected]
    assert (sum(counted) if temporality is DELTA else counted[-1]) == len(batch)
    for data in collected:
        for point in points(data, DURATION):
            assert sum(point.bucket_counts) == point.count
            assert point.sum == pytest.approx(point.count * 0.001)
            assert point.start_time_unix_nano <= point.time_unix_nano
