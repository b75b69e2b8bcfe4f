"""What the tests of exporting share: real receivers, runs to tell them of, and accounts that must balance."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from socket import create_server
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from otlp_receiver import Receiver, receive_grpc, receive_http

from runmeter.engine import Engine, ModelRequest, RunInfo, Usage, current_execution
from runmeter.telemetry import ExporterStatistics, OpenTelemetry

LUNA = ModelRequest(provider="openai", model="gpt-6-luna", server_address="api.openai.com", server_port=443)
RECEIVERS: dict[str, Callable[..., AbstractContextManager[Receiver]]] = {
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
