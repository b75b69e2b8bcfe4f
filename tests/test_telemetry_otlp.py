"""On the wire: everything arrives, once and well-formed; and a collector that is away costs nothing."""

import logging
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from socket import create_server
from typing import Any

import anyio
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from otlp_receiver import ReceivedSpan, Receiver, decoded, receive_grpc, receive_http
from process_support import python, run_command
from telemetry_support import no_variables

from runmeter.engine import Engine, ModelRequest, RunInfo, Usage, current_execution
from runmeter.telemetry import ExporterStatistics, OpenTelemetry, configure, semconv

__all__ = ["no_variables"]
pytestmark = pytest.mark.usefixtures("no_variables", "no_thread_is_left")

LUNA = ModelRequest(provider="openai", model="gpt-6-luna", server_address="api.openai.com", server_port=443)
RECEIVERS: dict[str, Callable[[], AbstractContextManager[Receiver]]] = {
    "http/protobuf": receive_http,
    "grpc": receive_grpc,
}
SPANS_A_RUN = 4


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """Check that a test ends every thread that it starts."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and not is_of_the_loop(thread)]
    for thread in left:
        thread.join(5)
    assert [thread.name for thread in left if thread.is_alive()] == []


def is_of_the_loop(thread: threading.Thread) -> bool:
    """Trio keeps its idle worker threads for ten seconds, for other loops."""
    return "Trio thread" in thread.name


@pytest.fixture(params=list(RECEIVERS))
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def receiver(protocol: str) -> Iterator[Receiver]:
    with RECEIVERS[protocol]() as receiver:
        yield receiver


@pytest.fixture
def dead_endpoint() -> str:
    """A URL where nobody listens."""
    with closing(create_server(("127.0.0.1", 0))) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def pattern(messages: Any, context: Any) -> str:
    execution = current_execution()
    with execution.model_call(LUNA) as call:
        call.record(Usage(100, 10, cache_read_tokens=50), response_id="resp_1", finish_reasons=("stop",))
    with execution.function_call("find"), execution.child(RunInfo("helper", operation="invoke_workflow")):
        await anyio.lowlevel.checkpoint()
    return "done"


async def run(telemetry: OpenTelemetry, count: int) -> None:
    async with Engine(telemetry=telemetry, drain_timeout=5) as engine:
        await engine.map(pattern, range(count), concurrency=50, tags={"tenant": "acme"})


def of(telemetry: OpenTelemetry, signal: str) -> ExporterStatistics:
    """The account of the one exporter of a signal; it must balance."""
    [account] = [account for account in telemetry.statistics().exporters if account.name.startswith(signal)]
    assert account.taken == account.sent + account.failed + account.dropped + account.pending
    return account


async def test_every_span_arrives_once_and_whole(protocol: str, receiver: Receiver) -> None:
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, service_name="shop")
    await run(telemetry, 500)
    assert of(telemetry, "traces").sent == 500 * SPANS_A_RUN  # closing the engine has sent them all
    assert telemetry.statistics().spans == 500 * SPANS_A_RUN
    telemetry.shutdown()

    assert len(receiver.spans) == 500 * SPANS_A_RUN
    spans = {(span.span.trace_id, span.span.span_id): span for span in receiver.spans}
    assert len(spans) == len(receiver.spans)
    for received in receiver.spans:
        assert_well_formed(received, spans)
    names = Counter(received.span.name for received in receiver.spans)
    assert set(names) == {"invoke_agent pattern", "chat gpt-6-luna", "execute_tool find", "invoke_workflow helper"}
    assert set(names.values()) == {500}


def assert_well_formed(received: ReceivedSpan, spans: dict[tuple[bytes, bytes], ReceivedSpan]) -> None:
    span = received.span
    assert (len(span.trace_id), len(span.span_id)) == (16, 8)
    assert any(span.trace_id)
    assert any(span.span_id)
    assert received.resource["service.name"] == "shop"
    assert (received.scope.name, received.schema_url) == ("runmeter", semconv.SCHEMA_URL)
    assert received.scope.version
    assert 1.7e18 < span.start_time_unix_nano <= span.end_time_unix_nano
    assert span.status.code == Status.STATUS_CODE_UNSET
    parents = {"chat gpt-6-luna": "invoke_agent pattern", "execute_tool find": "invoke_agent pattern"}
    parents["invoke_workflow helper"] = "execute_tool find"
    if span.name == "invoke_agent pattern":
        assert span.parent_span_id == b""
    else:
        parent = spans[span.trace_id, span.parent_span_id].span
        assert parent.name == parents[span.name]
        assert parent.start_time_unix_nano <= span.start_time_unix_nano
    assert span.kind == (Span.SPAN_KIND_CLIENT if span.name.startswith("chat") else Span.SPAN_KIND_INTERNAL)
    if span.name.startswith("chat"):
        attributes = received.attributes
        assert attributes["gen_ai.usage.input_tokens"] == 100
        assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
        assert attributes["server.port"] == 443
        assert isinstance(attributes["runmeter.cost.usd"], float)


def received(receiver: Receiver, name: str) -> list[Metric]:
    """What has arrived of one metric, a collection each."""
    return [received.metric for received in receiver.metrics if received.metric.name == name]


async def test_metrics_arrive_too(protocol: str, receiver: Receiver) -> None:
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, service_name="shop")
    await run(telemetry, 20)
    assert of(telemetry, "metrics").sent == 1
    metrics = {received.metric.name: received for received in receiver.metrics}
    assert metrics["runmeter.cost"].resource["service.name"] == "shop"
    assert metrics["runmeter.cost"].scope.name == "runmeter"
    [tokens] = metrics["gen_ai.client.inference.usage.input_tokens"].metric.sum.data_points
    assert tokens.as_int == 2000
    assert decoded(tokens.attributes)["gen_ai.request.model"] == "gpt-6-luna"
    [duration] = metrics["gen_ai.client.inference.duration"].metric.histogram.data_points
    assert duration.count == 20
    assert tuple(duration.explicit_bounds) == semconv.INFERENCE_DURATION.buckets
    await anyio.to_thread.run_sync(telemetry.shutdown)


@pytest.mark.parametrize(
    ("preference", "counts", "temporality"),
    [
        ("cumulative", [20, 40], AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE),
        ("delta", [20, 20], AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA),
        ("lowmemory", [20, 20], AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA),
    ],
)
async def test_metrics_are_cumulative_or_delta_as_the_variable_says(
    protocol: str,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    preference: str,
    counts: list[int],
    temporality: int,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference)
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, traces_exporter="none")
    await run(telemetry, 20)
    await run(telemetry, 20)
    await telemetry.flush(5)  # with delta there is nothing more to say
    durations = received(receiver, "gen_ai.client.inference.duration")
    assert [metric.histogram.data_points[0].count for metric in durations[:2]] == counts
    assert {metric.histogram.aggregation_temporality for metric in durations} == {temporality}
    tokens = received(receiver, "gen_ai.client.inference.usage.input_tokens")
    assert [metric.sum.data_points[0].as_int for metric in tokens[:2]] == [100 * count for count in counts]
    assert {(metric.sum.aggregation_temporality, metric.sum.is_monotonic) for metric in tokens} == {(temporality, True)}
    assert len(tokens) == len(durations) == (3 if preference == "cumulative" else 2)
    await anyio.to_thread.run_sync(telemetry.shutdown)


async def test_exponential_histograms_are_the_sdks(
    protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram")
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, traces_exporter="none")
    await run(telemetry, 20)
    [duration] = received(receiver, "gen_ai.client.inference.duration")
    assert duration.exponential_histogram.data_points[0].count == 20
    [tokens] = received(receiver, "gen_ai.client.inference.usage.input_tokens")
    assert tokens.sum.data_points[0].as_int == 2000
    await anyio.to_thread.run_sync(telemetry.shutdown)


async def test_exemplars_are_the_sdks(protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "always_on")
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, traces_exporter="none")
    await run(telemetry, 20)
    [duration] = received(receiver, "gen_ai.client.inference.duration")
    assert duration.histogram.data_points[0].exemplars
    await anyio.to_thread.run_sync(telemetry.shutdown)


async def test_metrics_are_exported_as_often_as_the_variable_says(
    protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, traces_exporter="none")
    await run(telemetry, 1)
    arrived, take = threading.Semaphore(0), receiver.take

    def count(*arguments: Any) -> bool:
        arrived.release()
        return take(*arguments)

    monkeypatch.setattr(receiver, "take", count)
    for _ in range(3):  # though nobody flushes
        assert await anyio.to_thread.run_sync(arrived.acquire, True, 30)
    await anyio.to_thread.run_sync(telemetry.shutdown)
    durations = received(receiver, "gen_ai.client.inference.duration")
    assert {metric.histogram.data_points[0].count for metric in durations} == {1}


async def test_headers_and_compression_are_as_configured(
    protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, headers={"X-Tenant": "acme"})
    await run(telemetry, 1)
    assert len(receiver.spans) == SPANS_A_RUN
    assert len(receiver.headers) == 2
    for headers in receiver.headers:
        assert headers["x-tenant"] == "acme"
        if protocol != "grpc":  # which keeps its own encoding to itself
            assert headers["content-encoding"] == "gzip"
    await anyio.to_thread.run_sync(telemetry.shutdown)


async def test_a_collector_that_is_away_costs_nothing(
    protocol: str, dead_endpoint: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    caplog.set_level(logging.INFO)
    telemetry = configure(endpoint=dead_endpoint, protocol=protocol)
    async with Engine(telemetry=telemetry) as engine:
        results = await engine.map(pattern, range(100))
        closing_at = time.monotonic()
    assert time.monotonic() - closing_at < 5  # though an exporter alone would go on trying for ten seconds
    assert len(results) == 100
    telemetry.shutdown()
    account = of(telemetry, "traces")
    assert (account.taken, account.failed) == (100 * SPANS_A_RUN, 100 * SPANS_A_RUN)
    assert of(telemetry, "metrics").failed > 0
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2  # one for traces, one for metrics
    assert all(message.startswith("telemetry does not arrive:") and dead_endpoint in message for message in messages)


async def test_a_collector_that_comes_back_gets_what_waited(
    protocol: str, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver.refusing = True
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, metrics_exporter="none")
    await run(telemetry, 3)  # gives up waiting, not trying
    assert receiver.refusals > 0
    assert of(telemetry, "traces").pending == 3 * SPANS_A_RUN
    receiver.refusing = False
    await run(telemetry, 2)
    while of(telemetry, "traces").pending:
        await telemetry.flush(30)
    assert len(receiver.spans) == of(telemetry, "traces").sent == 5 * SPANS_A_RUN
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "telemetry does not arrive",
        "telemetry arrives again",
    ]
    await anyio.to_thread.run_sync(telemetry.shutdown)


async def test_a_collector_that_hangs_holds_up_nobody(
    protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "30")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    receiver.going.clear()
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, metrics_exporter="none")
    async with Engine(telemetry=telemetry, drain_timeout=0.1) as engine:
        await engine.map(pattern, range(100))
        closing_at = time.monotonic()
    assert time.monotonic() - closing_at < 2
    account = of(telemetry, "traces")
    assert account.taken == 100 * SPANS_A_RUN
    assert account.pending <= 30
    assert account.dropped >= 100 * SPANS_A_RUN - 2 * 30
    await anyio.to_thread.run_sync(telemetry.shutdown)
    account = of(telemetry, "traces")
    assert (account.sent, account.pending) == (0, 0)


async def test_exporters_of_others_log_as_ever(
    dead_endpoint: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    configure(endpoint=dead_endpoint).shutdown()
    caplog.clear()
    exporter = OTLPSpanExporter(f"{dead_endpoint}/v1/traces", timeout=0.01)
    exporter.export([])
    exporter.shutdown()  # type: ignore[no-untyped-call] # the SDK has not typed it
    assert {record.name for record in caplog.records} == {"opentelemetry.exporter.otlp.proto.http.trace_exporter"}


async def test_flushing_with_nothing_to_send_is_quick(receiver: Receiver, protocol: str) -> None:
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    await telemetry.flush(5)
    telemetry.shutdown()
    telemetry.shutdown()  # again: nothing happens
    assert receiver.spans == []


async def test_what_comes_after_the_end_is_dropped_and_counted(receiver: Receiver, protocol: str) -> None:
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    telemetry.shutdown()
    await run(telemetry, 1)
    assert of(telemetry, "traces").dropped == SPANS_A_RUN


SCRIPT = """
import anyio, os, sys
from runmeter.engine import Engine, ModelRequest, current_execution
from runmeter.telemetry import configure

async def pattern(messages, context):
    with current_execution().model_call(ModelRequest(provider="openai", model="gpt-6-luna")):
        pass

async def main(telemetry, count):
    async with Engine(telemetry=telemetry) as engine:
        await engine.map(pattern, range(count))

telemetry = configure()
"""


def run_script(body: str, receiver_or_url: str, protocol: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver_or_url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_BSP_SCHEDULE_DELAY": "60000",
    }
    done = run_command(python(SCRIPT + body, "-W", "ignore"), env=environment)
    assert done.returncode == 0, done.stderr
    return done


def test_nothing_is_lost_when_the_process_just_ends(protocol: str, receiver: Receiver) -> None:
    run_script("anyio.run(main, telemetry, 1000)", receiver.endpoint, protocol)
    assert len({span.span.span_id for span in receiver.spans}) == len(receiver.spans) == 2000


def test_what_no_engine_flushed_is_sent_at_the_end_of_the_process(protocol: str, receiver: Receiver) -> None:
    body = """
from runmeter.engine import Execution, RunInfo, Runtime
events = []
with Execution(Runtime(None, events.append, tracing=telemetry), RunInfo("support")):
    pass
telemetry.receive(events)
"""
    run_script(body, receiver.endpoint, protocol)
    assert [span.span.name for span in receiver.spans] == ["invoke_agent support"]
    assert "gen_ai.invoke_agent.duration" in {received.metric.name for received in receiver.metrics}


def test_a_process_ends_promptly_without_its_collector(protocol: str, dead_endpoint: str) -> None:
    started = time.monotonic()
    done = run_script("anyio.run(main, telemetry, 10)", dead_endpoint, protocol)
    assert time.monotonic() - started < 10  # imports and all; an exporter alone would take that long for each batch
    assert 0 < len(done.stderr.splitlines()) <= 2
    assert "Traceback" not in done.stderr


def test_a_forked_process_exports_its_own_spans_only(protocol: str, receiver: Receiver) -> None:
    body = """
anyio.run(main, telemetry, 3)
child = os.fork()
anyio.run(main, telemetry, 2 if child else 5)
traces = telemetry.statistics().exporters[0]
assert traces.taken == traces.sent == (2 * (3 + 2) if child else 2 * 5), traces
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    run_script(body, receiver.endpoint, protocol)
    assert len({span.span.span_id for span in receiver.spans}) == len(receiver.spans) == 2 * (3 + 2 + 5)
    processes = Counter(received.resource["service.instance.id"] for received in receiver.spans)
    assert sorted(processes.values()) == [2 * 5, 2 * (3 + 2)]
    connections = {(received.resource["service.instance.id"], received.peer) for received in receiver.spans}
    assert len({peer for _, peer in connections}) == len(connections)  # none is shared


def test_a_forked_process_exports_its_own_measurements_only(protocol: str, receiver: Receiver) -> None:
    body = """
anyio.run(main, telemetry, 3)
child = os.fork()
anyio.run(main, telemetry, 2 if child else 5)
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    run_script(body, receiver.endpoint, protocol)
    last = {
        received.resource["service.instance.id"]: received.metric.histogram.data_points[0].count
        for received in receiver.metrics
        if received.metric.name == "gen_ai.client.inference.duration"
    }
    assert sorted(last.values()) == [3 + 2, 5]
