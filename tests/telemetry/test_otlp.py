"""On the wire: everything arrives, once and well-formed, as the variables say, from this process or a forked one."""

import subprocess
import threading
from collections import Counter
from typing import Any

import anyio
import pytest
from campaign_support import shortly
from export_support import (
    RECEIVERS,
    SPANS_A_RUN,
    dead_endpoint,
    no_thread_is_left,
    of,
    protocol,
    receiver,
    run,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from otlp_receiver import Answer, ReceivedSpan, Receiver, decoded
from process_support import python, run_command
from telemetry_support import no_variables

from runmeter.telemetry import configure, semconv

__all__ = ["dead_endpoint", "no_thread_is_left", "no_variables", "protocol", "receiver"]
pytestmark = pytest.mark.usefixtures("no_variables", "no_thread_is_left")


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

    def count(*arguments: Any) -> Answer:
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


async def test_flushing_with_nothing_to_send_is_quick(receiver: Receiver, protocol: str) -> None:
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    await telemetry.flush(5)
    telemetry.shutdown()
    telemetry.shutdown()  # again: nothing happens
    assert receiver.spans == []


def in_short_by(name: str) -> pytest.MarkDecorator:
    """For a test of processes: in short by one protocol, in the campaigns by each."""
    return pytest.mark.parametrize("protocol", shortly(RECEIVERS, lambda each: each == name), indirect=True)


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


@in_short_by("http/protobuf")
def test_nothing_is_lost_when_the_process_just_ends(protocol: str, receiver: Receiver) -> None:
    run_script("anyio.run(main, telemetry, 1000)", receiver.endpoint, protocol)
    assert len({span.span.span_id for span in receiver.spans}) == len(receiver.spans) == 2000


@in_short_by("grpc")
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


@in_short_by("http/protobuf")
def test_a_process_ends_promptly_without_its_collector(protocol: str, dead_endpoint: str) -> None:
    body = """
from runmeter.telemetry import open_telemetry
open_telemetry.SHUTDOWN_TIMEOUT = 3_600  # to wait for more than a first retry would take an hour
anyio.run(main, telemetry, 10)
"""
    done = run_script(body, dead_endpoint, protocol)
    assert 0 < len(done.stderr.splitlines()) <= 2
    assert "Traceback" not in done.stderr


@in_short_by("grpc")
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


@in_short_by("http/protobuf")
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


@in_short_by("grpc")
def test_a_process_that_is_forked_while_its_parent_exports_ends_by_itself(protocol: str, receiver: Receiver) -> None:
    body = """
from runmeter.telemetry.export import drain
drain.SILENT_PATIENCE = 0.1
anyio.run(main, telemetry, 3)  # both requests hang
child = os.fork()
if not child:
    anyio.run(main, telemetry, 5)
    telemetry.shutdown()
    assert [exporter.pending for exporter in telemetry.statistics().exporters] == [0, 0]
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(telemetry.statistics().exporters[0].pending)
"""
    receiver.going.clear()
    done = run_script(body, receiver.endpoint, protocol)
    assert done.stdout == "6\n"
    receiver.going.set()
