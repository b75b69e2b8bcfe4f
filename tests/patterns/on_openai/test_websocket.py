"""The streaming pattern over a real WebSocket: a Starlette app on uvicorn, and a client that reads, waits or leaves."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
import uvicorn
from pattern_support import KEY, check_whole
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from time_support import advance, until
from websockets.asyncio.client import ClientConnection, connect

from runmeter.engine import Engine, ExecutionFinished, FunctionCall, Provenance, Status, TokenUsage
from runmeter.engine.testing import Recorder
from runmeter.patterns.errors import ListenerGone, ResponseFailed
from runmeter.patterns.openai.streaming import OpenAIStreamingConfig, OpenAIStreamingPattern
from runmeter.simulator import Fault, Reply, ScriptedCall, Simulator

TEXT = "It is in Berlin, where it waits for the customs officer to come back from a very long lunch."
QUESTION = "Where is parcel AB-1?"
SMALL = 4096
"""Bytes of a connection's buffers in the system, so that it takes little to fill them."""


@pytest.fixture
def anyio_backend() -> str:
    """The server and the client are made for asyncio."""
    return "asyncio"


def find(number: str) -> str:
    """Find a parcel."""
    return f"Parcel {number} is in Berlin."


class Service:
    """An app that answers questions, each over a WebSocket; and what became of the runs."""

    def __init__(self, simulator: Simulator, pattern: OpenAIStreamingPattern, engine: Engine, port: int) -> None:
        self.simulator = simulator
        self.pattern = pattern
        self.engine = engine
        self.port = port
        self.recorder = Recorder()
        self.errors: list[Exception] = []
        self.done: list[str] = []
        self._ended = anyio.Semaphore(0)
        engine.subscribe(self.recorder, name="recorder", lane="lossless")

    async def answer(self, websocket: WebSocket) -> None:
        """Serve one client."""
        await websocket.accept()
        question = await websocket.receive_text()
        try:
            await self.engine.run(self.pattern, question, context={"ws_streaming": websocket})
            self.done.append(question)
        except (ListenerGone, ResponseFailed) as error:
            self.errors.append(error)
        finally:
            self._ended.release()
        with suppress(RuntimeError):  # it is closed already
            await websocket.close()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[ClientConnection]:
        """A client that has not asked yet. Of what it does not read it keeps next to nothing."""
        own = socket.socket()
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        own.connect(("127.0.0.1", self.port))
        url = f"ws://127.0.0.1:{self.port}/"
        async with connect(url, sock=own, max_queue=1, compression=None, proxy=None, ping_interval=None) as client:
            yield client

    async def run_ended(self) -> None:
        """Wait until a run has ended."""
        await self._ended.acquire()

    def events(self, kind: type[Any]) -> list[Any]:
        """The events of a kind, once the engine has stopped. Those of all runs are whole."""
        for run_id in {event.run_id for event in self.recorder.events}:
            check_whole(self.recorder.of(run_id))
        return [event for event in self.recorder.events if type(event) is kind]


@asynccontextmanager
async def serve(**settings: Any) -> AsyncIterator[Service]:
    """The simulator, the pattern, the engine and the server."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    simulator = Simulator()
    async with simulator as url, Engine() as engine:
        config = OpenAIStreamingConfig(base_url=url, api_key=KEY, **settings)
        async with OpenAIStreamingPattern(config, [find]) as pattern:
            service = Service(simulator, pattern, engine, listener.getsockname()[1])
            app = Starlette(routes=[WebSocketRoute("/", service.answer)])
            server = uvicorn.Server(
                uvicorn.Config(app, lifespan="off", log_config=None, ws_ping_interval=None, timeout_graceful_shutdown=5)
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [listener])
                try:
                    yield service
                finally:
                    server.should_exit = True


async def messages_of(client: ClientConnection) -> list[dict[str, Any]]:
    """All that the server says until it closes the connection."""
    return [json.loads(message) async for message in client]


def text_of(messages: list[dict[str, Any]]) -> str:
    return "".join(message["text"] for message in messages if message["type"] == "delta")


async def test_a_client_gets_the_answer_piece_by_piece() -> None:
    async with serve() as service:
        service.simulator.script(Reply(tool_calls=(ScriptedCall("find", '{"number": "AB-1"}'),)), Reply(TEXT))
        async with service.client() as client:
            await client.send(QUESTION)
            messages = await messages_of(client)
        await service.run_ended()
        billed = service.simulator.statistics().total
    kinds = [message["type"] for message in messages]
    assert kinds[:3] == ["started", "function_call", "function_call"]
    assert kinds[-1] == "finished"
    assert set(kinds[3:-1]) == {"delta"}
    assert text_of(messages) == messages[-1]["content"] == TEXT
    assert messages[-1]["usage"]["total_tokens"] == billed.total_tokens
    [call] = service.events(FunctionCall)
    assert call.call_id == messages[1]["call_id"] == messages[2]["call_id"]
    assert {message["run_id"] for message in messages} == {call.run_id}


@pytest.mark.parametrize("how", ["closes", "vanishes"])
async def test_a_client_that_leaves_ends_its_run(how: str) -> None:
    async with serve() as service:
        service.simulator.script(Reply(TEXT))
        service.simulator.inject(Fault("latency", seconds=0, between_chunks=0.02))
        async with service.client() as client:
            await client.send(QUESTION)
            for _ in range(4):
                await client.recv()
            if how == "vanishes":
                client.transport.abort()
        await service.run_ended()
        await until(lambda: service.simulator.statistics().total.output_tokens)
        billed = service.simulator.statistics().total
    [error] = service.errors
    assert isinstance(error, ListenerGone)
    assert error.reason == "WebSocketDisconnect"
    [request] = service.events(TokenUsage)
    assert (request.provenance, request.error_type) == (Provenance.PARTIAL, "ListenerGone")
    assert request.usage is not None
    assert 0 < request.usage.output_tokens <= billed.output_tokens + 1
    assert [event.status for event in service.events(ExecutionFinished)] == [Status.ERROR]


async def test_a_slow_client_is_waited_for_and_keeps_nobody_else_waiting() -> None:
    long = "parcel " * 12_000
    async with serve() as service:
        service.simulator.script(Reply(long), Reply(TEXT))
        async with service.client() as slow:
            await slow.send("slow")
            for _ in range(2):  # until it is being answered
                await slow.recv()
            async with service.client() as quick:
                await quick.send("quick")
                assert text_of(await messages_of(quick)) == TEXT
            await service.run_ended()
            assert service.done == ["quick"]
            messages = await messages_of(slow)
        await service.run_ended()
    assert service.done == ["quick", "slow"]
    assert messages[-1]["content"] == long
    assert long.endswith(text_of(messages))


async def test_a_client_that_takes_nothing_counts_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    send = WebSocket.send_json
    sending = 0

    async def watched(websocket: WebSocket, message: Any) -> None:
        nonlocal sending
        sending += 1
        try:
            await send(websocket, message)
        finally:
            sending -= 1

    monkeypatch.setattr(WebSocket, "send_json", watched)
    async with serve(send_timeout=10, request_timeout=3600) as service:
        service.simulator.script(Reply("parcel " * 12_000))
        async with service.client() as client:
            await client.send(QUESTION)
            for _ in range(2):  # until it is being answered
                await client.recv()
            while not service.errors:
                # No time passes while the answer is being read, which has a limit of its own.
                await until(lambda: sending or service.errors)
                await advance(10)
            await service.run_ended()
            client.transport.abort()
    [error] = service.errors
    assert isinstance(error, ListenerGone)
    assert error.reason == "TimeoutError"
    [request] = service.events(TokenUsage)
    assert request.provenance is Provenance.PARTIAL


async def test_a_failure_is_told_before_the_connection_closes() -> None:
    async with serve(max_retries=0) as service:
        service.simulator.script(Reply(TEXT))
        service.simulator.inject(Fault("stream_error", after_events=7))
        async with service.client() as client:
            await client.send(QUESTION)
            messages = await messages_of(client)
    assert messages[0]["type"] == "started"
    assert (messages[-1]["type"], messages[-1]["code"]) == ("error", "server_error")
    assert TEXT.startswith(text_of(messages))
    assert KEY not in repr(messages)
