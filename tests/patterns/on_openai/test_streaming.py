"""The streaming pattern, over the real client and a server on this machine: pieces, ends, slowness and leaving."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import openai
import pytest
from pattern_support import KEY, Run, check_whole, find
from scene_support import PatternScene
from time_support import passing, until

from runmeter.engine import (
    ConfigurationError,
    Delta,
    Engine,
    ModelCallStarted,
    Provenance,
    RunTimeout,
    TokenUsage,
    Usage,
)
from runmeter.engine.testing import ManualClock, Recorder
from runmeter.patterns import OpenAIPatternConfig, PatternConfig, PatternRegistry, ResponseFailed
from runmeter.patterns.errors import ListenerGone
from runmeter.patterns.openai.streaming import OpenAIStreamingPattern, StreamingResult
from runmeter.simulator import Fault, Reply, ScriptedCall

TEXT = "It is in Berlin, where it waits for the customs officer to come back from a very long lunch."
FIND = ScriptedCall("find", '{"number": "AB-1"}')
QUESTION = "Where is parcel AB-1?"


class Socket:
    """A WebSocket in name, whose messages land in a list; it can fail or hang at a type of message."""

    def __init__(self, *, fails_at: str | None = None, hangs_at: str | None = None) -> None:
        self.messages: list[dict[str, Any]] = []
        self.hanging = anyio.Event()
        self._fails_at = fails_at
        self._hangs_at = hangs_at

    async def send_json(self, message: dict[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()
        if message["type"] == self._fails_at:
            raise OSError("gone")
        if message["type"] == self._hangs_at:
            self.hanging.set()
            await anyio.sleep_forever()
        self.messages.append(message)

    @property
    def types(self) -> list[str]:
        """What came, equal ones in a row once."""
        types = [message["type"] for message in self.messages]
        return [each for number, each in enumerate(types) if number == 0 or types[number - 1] != each]

    @property
    def text(self) -> str:
        return "".join(message.get("text", "") for message in self.messages)


class Scene(PatternScene[OpenAIStreamingPattern]):
    async def billed_in_part(self, whole: int) -> Usage:
        """What an answer that was left was billed, once the simulator has seen it."""
        await until(lambda: self.simulator.statistics().total.output_tokens)
        billed = self.simulator.statistics().total
        assert billed.output_tokens < whole
        return billed


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene(OpenAIStreamingPattern) as scene:
        yield scene


async def test_it_always_streams_and_says_how_it_went(scene: Scene) -> None:
    scene.simulator.script(Reply(TEXT))
    run = Run()
    async with scene.pattern() as pattern:
        with run(conversation_id="c1"):
            result = await pattern.execute(QUESTION)
    assert (result.content, result.finish_reason, result.turns) == (TEXT, "stop", 1)
    assert result.conversation_id == "c1"
    assert result.chunks > 5
    [request] = run.requests
    assert [event.stream for event in run.of(ModelCallStarted)] == [True]
    assert request.first_chunk_ns is not None
    assert result.first_chunk_ns is not None
    assert result.first_chunk_ns >= request.first_chunk_ns, "it begins before the request"
    assert run.reported == scene.simulator.statistics().total


async def test_a_general_config_will_do_and_streams_too(scene: Scene) -> None:
    config = OpenAIPatternConfig(base_url=scene.simulator.url, api_key=KEY, stream_responses=False)
    async with OpenAIStreamingPattern(config) as pattern:
        result = await pattern.execute("Hello there.")
        assert pattern.config.stream_responses
    assert isinstance(result, StreamingResult)
    assert result.content
    with pytest.raises(ConfigurationError, match="OpenAIPatternConfig"):
        OpenAIStreamingPattern(PatternConfig())


async def test_pieces_go_to_who_streams_the_run_and_join_to_the_answer(scene: Scene) -> None:
    scene.simulator.script(Reply("Let me look.", tool_calls=(FIND,)), Reply(TEXT))
    registry = PatternRegistry()
    async with scene.pattern(find) as pattern, Engine(usage=registry.usage) as engine:
        async with engine.stream(pattern, QUESTION) as stream:
            items = [item async for item in stream]
        result = stream.result.value
    pieces = [item.text for item in items if isinstance(item, Delta)]
    assert "".join(pieces) == result.content == TEXT, "without what the model marks as commentary"
    assert result.chunks == len(pieces)
    assert [call.name for call in result.function_calls] == ["find"]
    check_whole([item for item in items if not isinstance(item, Delta)])
    stats = registry.get_usage_stats("openai_streaming")
    assert stats["openai_metrics"]["total_tokens"] == scene.simulator.statistics().total.total_tokens


async def test_the_time_to_the_first_piece_has_the_tools_in_it(scene: Scene) -> None:
    clock = ManualClock()

    def slow() -> str:
        clock.advance(7)
        return "done"

    scene.simulator.script(Reply(tool_calls=(ScriptedCall("slow"),)), Reply(TEXT), Reply(""))
    async with scene.pattern(slow) as pattern, Engine(clock=clock) as engine:
        result = (await engine.run(pattern, QUESTION)).value
        silent = (await engine.run(pattern, QUESTION)).value
    assert result.first_chunk_ns == 7_000_000_000
    assert (silent.content, silent.chunks, silent.first_chunk_ns) == ("", 0, None)


class CountingTransport(httpx2.AsyncHTTPTransport):
    """Counts the bytes of answers that were read."""

    read = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Counted(self, response.stream)
        return response


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, transport: CountingTransport, stream: httpx2.AsyncByteStream) -> None:
        self._transport = transport
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._transport.read += len(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_slow_listener_holds_the_request_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two answers of one length: one is read to its end, while nobody takes more than a piece of the other."""
    long = "parcel " * 12_000
    scene.simulator.script(Reply(long), Reply(long))
    transport = CountingTransport()
    async with scene.pattern() as pattern, Engine() as engine, httpx2.AsyncClient() as other:
        monkeypatch.setattr(pattern.clients.get()._client, "_transport", transport)
        async with engine.stream(pattern, QUESTION, buffer=4) as stream:
            async for item in stream:
                if isinstance(item, Delta):
                    break
            request = {"model": "gpt-6-luna", "input": QUESTION, "stream": True}
            authorised = {"Authorization": f"Bearer {KEY}"}
            whole = await other.post(f"{scene.simulator.url}/responses", json=request, headers=authorised)
    assert len(whole.content) > 1_000_000
    assert 0 < transport.read < len(whole.content) / 8, "no more than the HTTP client reads at once"


async def test_leaving_early_cancels_the_request_and_its_usage_is_partial(scene: Scene) -> None:
    scene.simulator.script(Reply(TEXT))
    scene.simulator.inject(Fault("latency", seconds=0, between_chunks=0.02))
    recorder = Recorder()
    taken = 0
    async with scene.pattern() as pattern, Engine() as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        async with engine.stream(pattern, QUESTION) as stream:
            async for item in stream:
                taken += isinstance(item, Delta)
                if taken == 3:
                    break
        billed = await scene.billed_in_part(len(TEXT.split()))
    check_whole(recorder.events)
    [request] = [event for event in recorder.events if isinstance(event, TokenUsage)]
    assert request.provenance is Provenance.PARTIAL
    assert request.usage is not None
    assert 3 <= request.usage.output_tokens <= billed.output_tokens + 1
    assert request.response_id


ENDS = [
    (Fault("stream_error", after_events=7), ResponseFailed, "server_error", Provenance.UNKNOWN),
    (Fault("stream_error_nested", after_events=7), ResponseFailed, "server_error", Provenance.UNKNOWN),
    (Fault("failed", after_events=7), ResponseFailed, "server_error", Provenance.UNKNOWN),
    (Fault("stream_end", after_events=7), ResponseFailed, "stream_cut", Provenance.PARTIAL),
    (Fault("stream_cut", after_events=7), openai.APIConnectionError, "APIConnectionError", Provenance.PARTIAL),
]


@pytest.mark.parametrize(("fault", "error", "code", "provenance"), ENDS, ids=lambda each: getattr(each, "kind", None))
async def test_a_bad_end_ends_the_run(
    scene: Scene, fault: Fault, error: type[Exception], code: str, provenance: Provenance
) -> None:
    scene.simulator.script(Reply(TEXT))
    scene.simulator.inject(fault)
    ws, run = Socket(), Run()
    async with scene.pattern(ws_streaming=ws) as pattern:
        with pytest.raises(error) as raised, run():
            await pattern.execute(QUESTION)
    [request] = run.requests  # it is not repeated, as pieces of it were handed out
    assert (request.error_type, request.provenance) == (code, provenance)
    assert ws.types == ["started", "delta", "error"]
    assert TEXT.startswith(ws.text)
    assert ws.messages[-1]["code"] == code
    said = ws.messages[-1]["message"]
    assert said == (str(raised.value) if error is ResponseFailed else "the answer could not be completed")


@pytest.mark.parametrize("fault", [end[0] for end in ENDS], ids=lambda each: each.kind)
async def test_what_nobody_heard_is_tried_again(scene: Scene, fault: Fault) -> None:
    scene.simulator.script(Reply(TEXT), Reply(TEXT))
    scene.simulator.inject(fault)
    run = Run()
    async with scene.pattern() as pattern:
        with run():
            result = await pattern.execute(QUESTION)
    assert result.content == TEXT
    assert result.turns == 1
    assert [request.attempt for request in run.requests] == [1, 2]


@pytest.mark.parametrize("cause", ["limit", "fault"])
async def test_an_incomplete_answer_is_an_answer(scene: Scene, cause: str) -> None:
    scene.simulator.script(Reply(TEXT))
    if cause == "fault":
        scene.simulator.inject(Fault("incomplete"))
    ws, run = Socket(), Run()
    async with scene.pattern(ws_streaming=ws, openai_max_tokens=16 if cause == "limit" else None) as pattern:
        with run():
            result = await pattern.execute(QUESTION)
    assert result.finish_reason == "length"
    assert 0 < len(result.content) < len(TEXT)
    assert ws.text == result.content
    assert ws.messages[-1]["type"] == "finished"
    assert run.reported == scene.simulator.statistics().total


async def test_the_socket_is_told_what_happens(scene: Scene) -> None:
    scene.simulator.script(Reply("Let me look.", tool_calls=(FIND, ScriptedCall("nothing"))), Reply(TEXT))
    ws, run = Socket(), Run()
    async with scene.pattern(find, ws_streaming=ws, parallel_tool_calls=False) as pattern:
        with run() as execution:
            result = await pattern.execute(QUESTION)
    assert ws.types == ["started", "function_call", "delta", "finished"]
    assert {message["run_id"] for message in ws.messages} == {execution.run_id}
    first, second = (call.call_id for call in result.function_calls)
    assert [message for message in ws.messages if message["type"] == "function_call"] == [
        {"type": "function_call", "run_id": execution.run_id, **fields}
        for fields in (
            {"status": "begin", "name": "find", "call_id": first},
            {"status": "end", "name": "find", "call_id": first, "error_type": None},
            {"status": "begin", "name": "nothing", "call_id": second},
            {"status": "end", "name": "nothing", "call_id": second, "error_type": "UnknownTool"},
        )
    ]
    used = run.reported
    assert ws.messages[-1]["usage"] == {
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "total_tokens": used.total_tokens,
    }
    assert (ws.text, ws.messages[-1]["content"], ws.messages[-1]["finish_reason"]) == (TEXT, TEXT, "stop")
    json.dumps(ws.messages)


async def test_text_that_no_socket_takes_is_mended(scene: Scene) -> None:
    class TextSocket:
        def __init__(self) -> None:
            self.sent = b""

        async def send_text(self, text: str) -> None:
            self.sent += text.encode()

    ws = TextSocket()
    broken = "half a \ud83d face"
    async with scene.pattern(ws_streaming=ws) as pattern:
        create = pattern.clients.get().responses.create

        async def break_the_end(**params: Any) -> Any:
            return _Broken(await create(**params), broken)

        pattern.clients.get().responses.create = break_the_end  # type: ignore[method-assign] # no server sends that
        result = await pattern.execute(QUESTION)
    assert result.content == "half a ? face"
    assert b'"finished"' in ws.sent


class _Broken:
    """A stream in whose last event the answer's text is another."""

    def __init__(self, stream: Any, text: str) -> None:
        self._stream = stream
        self._text = text

    async def __anext__(self) -> Any:
        event = await self._stream.__anext__()
        if event.type == "response.completed":
            event.response.output[0].content[0].text = self._text
        return event

    async def close(self) -> None:
        await self._stream.close()


async def test_calls_need_not_be_announced_and_usage_may_be_unknown(scene: Scene) -> None:
    scene.simulator.script(Reply(tool_calls=(FIND,)), Reply(TEXT))
    ws = Socket()
    async with scene.pattern(find, ws_streaming=ws, announce_function_calls=False) as pattern:
        await pattern.execute(QUESTION)
    assert ws.types == ["started", "delta", "finished"]
    assert ws.messages[-1]["usage"] is None, "outside an engine nobody measures"


async def test_a_run_s_own_socket_comes_first(scene: Scene) -> None:
    usual, own = Socket(), Socket()
    async with scene.pattern(ws_streaming=usual) as pattern:
        await pattern.execute("Hello there.", {"ws_streaming": own})
        assert usual.messages == []
        await pattern.execute("Hello there.")
        with pytest.raises(ConfigurationError, match="send_json or send_text"):
            await pattern.execute("Hello there.", {"ws_streaming": object()})
    assert own.types == usual.types == ["started", "delta", "finished"]


async def test_several_runs_at_once_each_have_their_own_pieces(scene: Scene) -> None:
    sockets = [Socket() for _ in range(12)]
    async with scene.pattern(find) as pattern, Engine() as engine, anyio.create_task_group() as tasks:

        async def ask(number: int) -> None:
            context = {"ws_streaming": sockets[number]}
            result = await engine.run(pattern, f"Where is parcel AB-{number}?", context=context)
            assert sockets[number].text == result.value.content

        for number in range(len(sockets)):
            tasks.start_soon(ask, number)
    assert all(f"AB-{number}" in each.text for number, each in enumerate(sockets))
    assert all(len({message["run_id"] for message in each.messages}) == 1 for each in sockets)


@pytest.mark.parametrize("at", ["started", "delta", "function_call", "finished"])
async def test_a_socket_that_fails_ends_the_run(scene: Scene, at: str) -> None:
    scene.simulator.script(Reply(tool_calls=(FIND, FIND)), Reply(TEXT))
    ws, run = Socket(fails_at=at), Run()
    async with scene.pattern(find, ws_streaming=ws) as pattern:
        with pytest.raises(ListenerGone) as raised, run():
            await pattern.execute(QUESTION)
    assert raised.value.reason == "OSError"
    assert "error" not in ws.types
    provenances = {"started": [], "function_call": [Provenance.REPORTED], "finished": [Provenance.REPORTED] * 2}
    expected = provenances.get(at, [Provenance.REPORTED, Provenance.PARTIAL])
    assert [request.provenance for request in run.requests] == expected


async def test_a_socket_that_hangs_counts_as_gone(scene: Scene) -> None:
    run = Run()
    ws = Socket(hangs_at="delta")
    async with scene.pattern(ws_streaming=ws, send_timeout=30) as pattern, passing(30, whenever=ws.hanging.is_set):
        with pytest.raises(ListenerGone) as raised, run():
            await pattern.execute(QUESTION)
    assert raised.value.reason == "TimeoutError"
    assert [request.provenance for request in run.requests] == [Provenance.PARTIAL]


async def test_a_run_that_is_ended_says_so(scene: Scene) -> None:
    scene.simulator.inject(Fault("latency", seconds=3600))
    ws, recorder = Socket(), Recorder()
    async with scene.pattern(ws_streaming=ws) as pattern, Engine() as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        async with passing(30, whenever=lambda: scene.simulator.statistics().faults):
            with pytest.raises(RunTimeout):
                await engine.run(pattern, QUESTION, timeout=30)
    assert [(message["type"], message.get("code")) for message in ws.messages] == [
        ("started", None),
        ("error", "cancelled"),
    ]
    check_whole(recorder.events)


async def test_errors_are_told_without_secrets(scene: Scene) -> None:
    scene.simulator.inject(Fault("insufficient_quota"))
    ws = Socket()
    async with scene.pattern(ws_streaming=ws) as pattern:
        with pytest.raises(openai.RateLimitError):
            await pattern.execute(QUESTION)
        with pytest.raises(ConfigurationError):
            await pattern.execute([])
    assert [message["code"] for message in ws.messages if message["type"] == "error"] == [
        "insufficient_quota",
        "ConfigurationError",
    ]
    assert {message["message"] for message in ws.messages if message["type"] == "error"} == {
        "the answer could not be completed"
    }
    assert KEY not in repr(ws.messages)
