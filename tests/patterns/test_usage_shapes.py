"""Usage as servers report it: what becomes of each shape, whichever way it is asked for. A new shape is one row."""

import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient
from openai.types.responses import Response
from pydantic import SecretStr

from runmeter.engine import (
    MSGPACK,
    Budget,
    Engine,
    Notice,
    PriceBook,
    Provenance,
    Tokenizer,
    TokenUsage,
    Usage,
    UsageAggregator,
)
from runmeter.engine.testing import Recorder
from runmeter.patterns import (
    AugmentedLLMPattern,
    MeteringHandler,
    OpenAIFunctionCallingPattern,
    OpenAIPatternConfig,
    OpenAIStreamingPattern,
    PatternConfig,
)
from runmeter.patterns.requests.usage import Reading, read_usage

MODEL = "gpt-4.1-mini"
"""USD 0.40, 0.10 (cached) and 1.60 a million tokens."""
TEXT = "Lyon it is."
PRICES = PriceBook()
PIECES = ("Lyon", " it", " is.")
REPORTED, ESTIMATED = Provenance.REPORTED, Provenance.ESTIMATED


class Shape(NamedTuple):
    """What a server says of one request for `TEXT`, and what is right."""

    read: Any
    written: Any
    total: Any = None
    cached: Any = None
    reasoning: Any = None
    usage: Usage | None = None
    """None: nothing was reported."""
    low: str | None = None
    """USD; None where it is estimated."""
    high: str | None = None
    """Where it is another amount."""
    conflict: str | None = None
    """A field that the contradiction names."""
    repeated: bool = False
    """In streams of Chat Completions it comes as running totals, with each chunk."""
    finish: bool = True
    """Whether a plain answer says why it ended."""
    bare: bool = False
    """In streams of Chat Completions there is no usage at all."""

    def said(self, read: str, written: str) -> dict[str, Any]:
        """The usage, by an API's names."""
        said = {f"{read}_tokens": self.read, f"{written}_tokens": self.written, "total_tokens": self.total}
        if self.cached is not None:
            said[f"{read}_tokens_details"] = {"cached_tokens": self.cached}
        if self.reasoning is not None:
            said[f"{written}_tokens_details"] = {"reasoning_tokens": self.reasoning}
        return {name: value for name, value in said.items() if value is not None or name != "total_tokens"}


SHAPES = {
    "plain": Shape(100, 20, 120, usage=Usage(100, 20), low="0.000072"),
    "no total": Shape(100, 20, usage=Usage(100, 20), low="0.000072"),
    "cached": Shape(100, 20, 120, 60, usage=Usage(100, 20, cache_read_tokens=60), low="0.000054"),
    "whole floats": Shape(100.0, 20.0, 120.0, usage=Usage(100, 20), low="0.000072"),
    "running totals": Shape(100, 20, 120, usage=Usage(100, 20), low="0.000072", repeated=True),
    "no finish reason": Shape(100, 20, 120, usage=Usage(100, 20), low="0.000072", finish=False),
    "reasoning beside": Shape(
        *(100, 20, 420, None, 300),
        usage=Usage(100, 20, reasoning_tokens=300),
        low="0.000072",
        high="0.000552",
        conflict="reasoning_tokens",
    ),
    "cached beside": Shape(
        *(20, 20, 1_040, 1_000),
        usage=Usage(20, 20, cache_read_tokens=1_000),
        low="0.000034",
        high="0.000140",
        conflict="cache_read_tokens",
    ),
    "total too high": Shape(
        100, 20, 150, usage=Usage(100, 20), low="0.000072", high="0.000120", conflict="total_tokens"
    ),
    "a part below zero": Shape(
        100, 20, 120, -3, usage=Usage(100, 20), low="0.000042", high="0.000072", conflict="cache"
    ),
    "zeros": Shape(0, 0, 0, conflict="input_tokens"),
    "no output": Shape(100, 0, 100, conflict="output_tokens"),
    "null": Shape(None, None),
    "null input": Shape(None, 20, 20),
    "below zero": Shape(-100, 20),
}


class Server:
    """Answers requests to the Responses API and Chat Completions, with one shape of usage."""

    def __init__(self) -> None:
        self.shape = SHAPES["plain"]
        self.requests = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.requests += 1
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                make = server.response if self.path.endswith("/responses") else server.completion
                stream = bool(body.get("stream"))
                kind, content = "text/event-stream" if stream else "application/json", make(stream)
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def response(self, stream: bool) -> bytes:
        part = {"type": "output_text", "text": TEXT, "annotations": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        answer: dict[str, Any] = {"id": "resp_1", "object": "response", "created_at": 1, "model": MODEL}
        answer |= {"status": "completed" if self.shape.finish else None, "output": [item], "error": None}
        answer |= {"usage": self.shape.said("input", "output"), "tools": [], "parallel_tool_calls": True}
        if not stream:
            return json.dumps(answer).encode()
        begun = {**answer, "status": "in_progress", "output": [], "usage": None}
        events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        events += [{"type": "response.output_text.delta", "delta": piece, **place} for piece in PIECES]
        events += [{"type": "response.completed", "response": {**answer, "status": "completed"}}]
        numbered = ({**event, "sequence_number": number} for number, event in enumerate(events))
        return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in numbered)

    def completion(self, stream: bool) -> bytes:
        usage, answer = self.shape.said("prompt", "completion"), {"id": "chatcmpl-1", "created": 1, "model": MODEL}
        if not stream:
            reason = "stop" if self.shape.finish else None
            choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": reason}
            return json.dumps({**answer, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        deltas: list[tuple[Any, ...]] = [(piece, None) for piece in PIECES] + [("", "stop")]
        chunks: list[dict[str, Any]] = []
        for number, (piece, reason) in enumerate(deltas):
            sofar = {**usage, "completion_tokens": min(number * 7, 20)} if self.shape.repeated else None
            choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": reason}]
            chunks.append({"choices": choices, "usage": sofar})
        if not self.shape.bare:
            chunks.append({"choices": [], "usage": usage})
        lines = (json.dumps({**answer, "object": "chat.completion.chunk", **chunk}) for chunk in chunks)
        return "".join(f"data: {line}\n\n" for line in (*lines, "[DONE]")).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    Tokenizer(MODEL).count_text("The vocabulary is in memory, so that there is time for a bound.")
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def anyio_backend() -> str:
    """LangChain needs asyncio."""
    return "asyncio"


@pytest.fixture
async def http() -> AsyncIterator[Any]:
    async with DefaultAsyncHttpxClient() as http:
        yield http


Ask: TypeAlias = Callable[[Engine, str, Any], Awaitable[Any]]


def chat_model(url: str, http: Any, **settings: Any) -> ChatOpenAI:
    key = SecretStr("sk-1")
    return ChatOpenAI(model=MODEL, base_url=url, api_key=key, max_retries=0, http_async_client=http, **settings)


def openai_pattern(kind: Any) -> Ask:
    async def ask(engine: Engine, url: str, http: Any) -> Any:
        config = OpenAIPatternConfig(openai_model=MODEL, base_url=url, api_key="sk-1", openai_max_tokens=100)
        async with kind(config) as pattern:
            return await engine.run(pattern, "Where is it?")

    return ask


def graph_pattern(**settings: Any) -> Ask:
    async def ask(engine: Engine, url: str, http: Any) -> Any:
        model = chat_model(url, http, max_completion_tokens=100, **settings)
        async with AugmentedLLMPattern(PatternConfig(), model=model) as pattern:
            return await engine.run(pattern, "Where is it?")

    return ask


def handler(*, streams: bool = False, **settings: Any) -> Ask:
    async def ask(engine: Engine, url: str, http: Any) -> Any:
        async def run(messages: Any, context: Any) -> str:
            model = chat_model(url, http, max_completion_tokens=100, **settings)
            with MeteringHandler() as meter:
                if streams:
                    chunks = [chunk async for chunk in model.astream("Where is it?", {"callbacks": [meter]})]
                    return "".join(str(chunk.text) for chunk in chunks)
                return str((await model.ainvoke("Where is it?", {"callbacks": [meter]})).text)

        return await engine.run(run, "")

    return ask


CHAT, RESPONSES = {"use_responses_api": False}, {"use_responses_api": True}
WAYS: dict[str, Ask] = {
    "responses": openai_pattern(OpenAIFunctionCallingPattern),
    "responses, streamed": openai_pattern(OpenAIStreamingPattern),
    "chat, graph": graph_pattern(**CHAT),
    "chat, graph, streamed": graph_pattern(**CHAT, streaming=True, stream_usage=True),
    "responses, graph": graph_pattern(**RESPONSES),
    "chat, handler": handler(**CHAT),
    "chat, handler, streamed": handler(**CHAT, streams=True, stream_usage=True),
    "responses, handler": handler(**RESPONSES),
    "responses, handler, streamed": handler(**RESPONSES, streams=True),
}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # LangChain has it write what is no integer
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SHAPES)
async def test_each_shape_means_the_same_whichever_way_it_is_asked_for(
    server: Server, http: Any, name: str, way: str
) -> None:
    server.shape = shape = SHAPES[name]
    recorder, before = Recorder(), server.requests
    async with Engine(prices=PRICES) as engine:
        engine.subscribe(recorder, name="recorder")
        result = await WAYS[way](engine, server.url, http)
        live = engine.usage().total
    assert result.content == TEXT
    assert server.requests == before + 1, "it is paid for once"
    [request] = result.requests
    cost = result.cost
    if shape.usage is None:
        assert request.provenance is ESTIMATED
        assert 0 < request.usage.input_tokens < 30
        assert 0 < request.usage.output_tokens < 10
        assert cost.low == 0
        assert Decimal("0.00016") < cost.high < Decimal("0.0003"), "the bound: 100 tokens at most"
    else:
        assert (request.provenance, request.usage) == (REPORTED, shape.usage)
        assert shape.low is not None
        assert (cost.low, cost.high) == (Decimal(shape.low), Decimal(shape.high or shape.low))
    if shape.conflict is not None and "null" not in name:
        assert shape.conflict in (request.contradiction or "")
    if shape.high is not None:
        assert cost.usd is None
    replayed = UsageAggregator(PRICES)
    replayed.fold(recorder.events)
    assert replayed.snapshot().total == live


COUNTS = st.none() | st.integers(-5, 3_000) | st.floats(allow_nan=True) | st.text(max_size=3) | st.lists(st.none())


@st.composite
def said(draw: st.DrawFn, read: str, written: str) -> dict[str, Any]:
    """A usage as some server may send it."""
    parts = {
        f"{read}_tokens_details": {"cached_tokens": draw(COUNTS), "cache_write_tokens": draw(COUNTS)},
        f"{written}_tokens_details": {"reasoning_tokens": draw(COUNTS)},
    }
    return {
        f"{read}_tokens": draw(COUNTS),
        f"{written}_tokens": draw(COUNTS),
        "total_tokens": draw(COUNTS),
        **{name: details for name, details in parts.items() if draw(st.booleans())},
    }


def event_of(reading: Reading) -> TokenUsage:
    return TokenUsage(
        run_id="1" * 32,
        seq=1,
        time_ns=1,
        call_id=1,
        provider="openai",
        operation="chat",
        model=MODEL,
        provenance=REPORTED,
        usage=reading.usage,
        start_ns=1_795_305_600_000_000_000,
        duration_ns=1,
        contradiction=reading.contradiction,
        total_tokens=reading.total_tokens,
    )


@given(said("input", "output"))
def test_no_usage_is_too_odd_to_be_read_and_none_that_is_contradictory_exact(usage: dict[str, Any]) -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": TEXT}]}
    reading = read_usage(Response.construct(None, id="resp_1", status="completed", output=[item], usage=usage))
    assert reading == read_usage({"output": [item], "usage": usage}), "an object, or what it was made from"
    if reading.usage is None:
        return
    event = event_of(reading)
    assert MSGPACK.decode(MSGPACK.encode(event)) == event
    cost = PRICES.cost(event)
    if reading.contradiction is None:
        assert cost.usd is not None
        assert sum(reading.usage.__getattribute__(name) for name in ("input_tokens", "output_tokens")) > 0
    else:
        assert cost.usd is None


def test_chunks_of_the_api_say_running_totals_and_those_of_langchain_deltas() -> None:
    def chunk(**usage: Any) -> dict[str, Any]:
        return {"choices": [{"delta": {"content": "x"}}], "usage": usage or None}

    totals = [chunk(prompt_tokens=100, completion_tokens=written) for written in (1, 2, 3)]
    assert read_usage([chunk(), *totals]).usage == Usage(100, 3)
    assert read_usage([chunk(), chunk()]).usage is None
    deltas = [(100, 1), (0, 2), (0, 3)]
    assert read_usage([langchain_chunk(*delta) for delta in deltas]).usage == Usage(100, 6)
    repeated = [(100, 1), (100, 2), (100, 3)]
    assert read_usage([langchain_chunk(*each) for each in repeated]).usage == Usage(100, 3)


def langchain_chunk(read: int, written: int) -> AIMessageChunk:
    total = read + written
    return AIMessageChunk(
        content="x", usage_metadata={"input_tokens": read, "output_tokens": written, "total_tokens": total}
    )


UNASKED: dict[str, Ask] = {
    "handler": handler(**CHAT, streams=True, stream_usage=False),
    "graph": graph_pattern(**CHAT, streaming=True, stream_usage=False),
}


@pytest.mark.parametrize("way", UNASKED)
async def test_a_stream_that_is_not_asked_for_its_usage_is_estimated_and_a_notice_says_what_to_do(
    server: Server, http: Any, way: str
) -> None:
    server.shape = Shape(None, None, bare=True)
    recorder = Recorder()
    async with Engine(prices=PRICES) as engine:
        engine.subscribe(recorder, name="recorder")
        results = [await UNASKED[way](engine, server.url, http) for _ in range(2)]
    assert [result.requests[0].provenance for result in results] == [ESTIMATED, ESTIMATED]
    [notice] = [event for event in recorder.events if isinstance(event, Notice)]
    assert notice.subject == f"{MODEL} at 127.0.0.1"
    assert "stream_usage=True" in notice.message


async def test_a_budget_settles_at_the_upper_end_and_one_notice_tells_of_it(server: Server, http: Any) -> None:
    server.shape = SHAPES["reasoning beside"]
    recorder = Recorder()
    budgets = [Budget(usd="1"), Budget(tokens=1_000_000)]
    async with Engine(prices=PRICES, budgets=budgets) as engine:
        engine.subscribe(recorder, name="recorder")
        for _ in range(2):
            await WAYS["responses"](engine, server.url, http)
        spent = [status.spent for status in engine.budgets()]
    assert spent == [2 * Decimal("0.000552"), 2 * 420]
    [notice] = [event for event in recorder.events if isinstance(event, Notice)]
    assert notice.kind == "usage"
    assert "reasoning_tokens" in notice.message
