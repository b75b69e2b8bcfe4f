"""Whatever becomes of the collector: what can arrive does, the rest is counted, and nobody is held up."""

import logging
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import otlp_receiver
import pytest
from export_support import (
    LUNA,
    SPANS_A_RUN,
    dead_endpoint,
    no_thread_is_left,
    of,
    pattern,
    protocol,
    receiver,
    run,
)
from otlp_receiver import Answer, Receiver, receive_grpc, receive_http
from process_support import started
from telemetry_support import no_variables

from runmeter.engine import Engine, Usage, current_execution
from runmeter.telemetry import OpenTelemetry, configure
from runmeter.telemetry.export import backpressure, drain, exporter

__all__ = ["dead_endpoint", "no_thread_is_left", "no_variables", "protocol", "receiver"]
pytestmark = pytest.mark.usefixtures("no_variables", "no_thread_is_left")


async def shut_down(telemetry: OpenTelemetry) -> None:
    await anyio.to_thread.run_sync(telemetry.shutdown)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in other threads."""
    while not condition():  # noqa: ASYNC110 - which have no event for it
        await anyio.sleep(0.005)


def has_caught_up(engine: Engine) -> bool:
    [account] = [each for each in engine.statistics().bus.subscribers if each.name == "telemetry"]
    assert account.dropped == 0
    return account.pending == 0


# Traces alone


@pytest.mark.parametrize(
    ("protocol", "said"), [("grpc", "UNIMPLEMENTED: Method not found!"), ("http/protobuf", "404 Not Found")]
)
async def test_a_collector_of_traces_alone_is_one_line_in_the_log(
    protocol: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    receive = receive_grpc if protocol == "grpc" else receive_http
    with receive(takes_metrics=False) as receiver:
        telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
        for _ in range(3):  # each sends its metrics at its end
            async with Engine(telemetry=telemetry) as engine:
                await engine.run(pattern, "x")
        await shut_down(telemetry)
    traces, metrics = telemetry.statistics().exporters
    assert (traces.sent, traces.unsupported) == (3 * SPANS_A_RUN, False) == (len(receiver.spans), False)
    assert (metrics.sent, metrics.unsupported) == (0, True)
    assert metrics.failed >= 3
    [record] = caplog.records
    place = receiver.endpoint + ("" if protocol == "grpc" else "/v1/metrics")
    assert record.getMessage() == (
        f"{place} takes no metrics ({said}), and neither does Jaeger: send them to a collector that does, or set "
        "OTEL_METRICS_EXPORTER=none"
    )


# Away


async def test_a_collector_that_is_away_costs_nothing(
    protocol: str, dead_endpoint: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setattr(drain, "PATIENCE", 0.05)
    monkeypatch.setattr(drain, "SILENT_PATIENCE", 3_600)  # nor is it silent
    caplog.set_level(logging.INFO)
    telemetry = configure(endpoint=dead_endpoint, protocol=protocol)
    async with Engine(telemetry=telemetry, drain_timeout=3_600) as engine:
        results = await engine.map(pattern, range(100))
    assert len(results) == 100
    await shut_down(telemetry)
    account = of(telemetry, "traces")
    assert (account.taken, account.dropped) == (100 * SPANS_A_RUN, 100 * SPANS_A_RUN)
    assert of(telemetry, "metrics").dropped > 0
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2  # one for traces, one for metrics
    assert all(message.startswith("telemetry does not arrive:") and dead_endpoint in message for message in messages)


async def test_a_collector_of_traces_that_is_away_takes_nothing_from_the_metrics(
    protocol: str, receiver: Receiver, dead_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", dead_endpoint)
    path = "" if protocol == "grpc" else "/v1/metrics"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{receiver.endpoint}{path}")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "20")
    monkeypatch.setattr(drain, "PATIENCE", 0.05)
    telemetry = configure(protocol=protocol)
    async with Engine(telemetry=telemetry, drain_timeout=3_600) as engine:
        await engine.map(pattern, range(500), concurrency=100)
        await until(lambda: has_caught_up(engine))
    account = of(telemetry, "traces")
    assert (account.taken, account.pending) == (500 * SPANS_A_RUN, 20)
    durations = [
        received.metric.histogram.data_points[0].count
        for received in receiver.metrics
        if received.metric.name == "gen_ai.client.inference.duration"
    ]
    assert durations[-1] == 500
    await shut_down(telemetry)


async def test_a_collector_that_comes_back_gets_what_waited(
    protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(drain, "PATIENCE", 0.05)
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
    await shut_down(telemetry)


async def test_who_is_told_to_come_again_loses_nothing(
    protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.9")  # less than it is told to wait
    receiver.answers = [Answer(HTTPStatus.SERVICE_UNAVAILABLE, retry_after=1)]
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, metrics_exporter="none")
    await run(telemetry, 3)
    await until(lambda: of(telemetry, "traces").pending == 0)
    assert receiver.refusals == 1
    assert len(receiver.spans) == of(telemetry, "traces").sent == 3 * SPANS_A_RUN
    await shut_down(telemetry)


@pytest.mark.parametrize(
    ("answer", "failed"),
    [(Answer(rejected=3, message="no such tenant"), 3), (Answer(HTTPStatus.BAD_REQUEST), SPANS_A_RUN * 2)],
)
async def test_what_the_collector_will_not_have_is_counted_as_failed(
    protocol: str, receiver: Receiver, caplog: pytest.LogCaptureFixture, answer: Answer, failed: int
) -> None:
    receiver.answers = [answer]
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, metrics_exporter="none")
    await run(telemetry, 2)
    account = of(telemetry, "traces")
    assert (account.failed, account.sent) == (failed, 2 * SPANS_A_RUN - failed)
    [record] = caplog.records
    assert answer.message in record.getMessage()
    await shut_down(telemetry)


async def test_measurements_of_an_interval_whose_export_failed_are_not_lost(
    protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    monkeypatch.setattr(drain, "PATIENCE", 0.05)
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, traces_exporter="none")
    receiver.refusing = True
    await run(telemetry, 20)
    receiver.refusing = False
    await run(telemetry, 22)
    while of(telemetry, "metrics").pending:
        await telemetry.flush(30)
    counts = [
        received.metric.histogram.data_points[0].count
        for received in receiver.metrics
        if received.metric.name == "gen_ai.client.inference.duration"
    ]
    assert counts == [20, 22]
    await shut_down(telemetry)


# Silent


async def test_a_collector_that_hangs_does_not_delay_the_end(
    protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # To wait for its answer would take an hour.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    monkeypatch.setattr(drain, "SILENT_PATIENCE", 0.2)
    receiver.going.clear()
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    async with Engine(telemetry=telemetry, drain_timeout=3_600) as engine:
        await engine.map(pattern, range(100))
    assert of(telemetry, "traces").pending == 100 * SPANS_A_RUN
    await shut_down(telemetry)
    account = of(telemetry, "traces")
    assert (account.dropped, account.sent) == (100 * SPANS_A_RUN, 0)
    assert of(telemetry, "metrics").dropped > 0
    messages = sorted(record.getMessage() for record in caplog.records)
    assert [message.partition(":")[0] for message in messages] == ["telemetry is dropped"] * 2
    assert messages[1].endswith(f"{100 * SPANS_A_RUN} not sent in time")
    receiver.going.set()


async def test_a_collector_that_hangs_holds_up_nobody(
    protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "30")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    monkeypatch.setattr(drain, "SILENT_PATIENCE", 0.05)
    monkeypatch.setattr(exporter, "KEEPS_UP", 0.2)
    receiver.going.clear()
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, metrics_exporter="none")
    async with Engine(telemetry=telemetry, drain_timeout=3_600) as engine:
        await engine.map(pattern, range(100))
        await until(lambda: has_caught_up(engine))
    account = of(telemetry, "traces")
    assert (account.taken, account.pending, account.dropped) == (100 * SPANS_A_RUN, 30, 100 * SPANS_A_RUN - 30)
    await shut_down(telemetry)
    account = of(telemetry, "traces")
    assert (account.sent, account.pending) == (0, 0)
    receiver.going.set()


async def test_what_comes_after_the_end_is_dropped_and_counted(receiver: Receiver, protocol: str) -> None:
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    telemetry.shutdown()
    await run(telemetry, 1)
    assert of(telemetry, "traces").dropped == SPANS_A_RUN


# Many at once


async def ask(messages: Any, context: Any) -> None:
    with current_execution().model_call(LUNA) as call:
        await anyio.lowlevel.checkpoint()
        call.record(Usage(40, 50))


class Balance:
    """Looks at the account all the time, from a thread of its own."""

    def __init__(self, telemetry: OpenTelemetry) -> None:
        self._telemetry = telemetry
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.looks = 0
        self.most = 0

    def __enter__(self) -> "Balance":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.001):
            for account in self._telemetry.statistics().exporters:
                parts = account.sent, account.failed, account.dropped, account.pending
                assert account.taken == sum(parts)
                assert min(parts) >= 0
                self.most = max(self.most, account.pending)
            self.looks += 1


async def test_a_collector_that_keeps_up_loses_nothing_however_little_may_wait(
    protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    # On a machine that has other work a receiver may be slow; here it is worth waiting for.
    monkeypatch.setattr(exporter, "KEEPS_UP", 3_600)
    monkeypatch.setattr(backpressure, "MAX_WAIT", 3_600)
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    with Balance(telemetry) as balance:
        async with Engine(telemetry=telemetry) as engine:
            await engine.map(ask, range(400), concurrency=100)
            await until(lambda: has_caught_up(engine))
    account = of(telemetry, "traces")
    assert (account.sent, account.dropped) == (800, 0)
    assert len({received.span.span_id for received in receiver.spans}) == len(receiver.spans) == 800
    assert balance.looks
    assert balance.most <= 64
    await shut_down(telemetry)


async def test_one_that_does_not_is_not_waited_for_in_the_long_run(
    protocol: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setattr(exporter, "KEEPS_UP", 3_600)
    monkeypatch.setattr(backpressure, "MAX_WAIT", 0.1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    monkeypatch.setattr(drain, "SILENT_PATIENCE", 0.05)
    receiver.going.clear()
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol, metrics_exporter="none")
    async with Engine(telemetry=telemetry) as engine:
        await engine.map(ask, range(1_000), concurrency=100)
        await until(lambda: has_caught_up(engine))
        assert telemetry.statistics().spans == 2_000
    account = of(telemetry, "traces")
    assert (account.dropped, account.pending) == (2_000 - 64, 64)
    receiver.going.set()
    await telemetry.flush(3_600)
    assert of(telemetry, "traces").sent == 64
    await shut_down(telemetry)


async def test_what_receives_nothing_waits_for_nothing(receiver: Receiver, protocol: str) -> None:
    telemetry = configure(endpoint=receiver.endpoint, protocol=protocol)
    waiting: Awaitable[None] | None = telemetry.receive([])
    assert waiting is None
    await shut_down(telemetry)


@pytest.mark.parametrize("runs", [600, pytest.param(60_000, marks=pytest.mark.campaign)])
async def test_bursts_arrive_whole(protocol: str, runs: int) -> None:
    """Spans of runs a hundred at a time, to a collector in a process of its own, with the bounds as they are."""
    script = Path(otlp_receiver.__file__)
    with started([sys.executable, script, protocol], stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        telemetry = configure(endpoint=process.stdout.readline().strip(), protocol=protocol)
        with Balance(telemetry) as balance:
            async with Engine(telemetry=telemetry, drain_timeout=600) as engine:
                await engine.map(ask, range(runs), concurrency=100)
                await until(lambda: has_caught_up(engine))
        await shut_down(telemetry)
        received, different = process.communicate("\n")[0].split()
    account = of(telemetry, "traces")
    assert (account.taken, account.sent) == (2 * runs, 2 * runs)
    assert int(received) == int(different) == 2 * runs
    assert balance.looks
