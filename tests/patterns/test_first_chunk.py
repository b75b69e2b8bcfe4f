"""The first chunk of an answer is the first piece of it, and not news of it: the same in both frameworks."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from answer_support import event_stream
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pattern_support import KEY
from pydantic import SecretStr

from runmeter.engine import Engine, TokenUsage
from runmeter.engine.testing import ManualClock, Recorder
from runmeter.patterns import MeteringHandler, OpenAIPatternConfig
from runmeter.patterns.openai.function_calling import OpenAIFunctionCallingPattern
from runmeter.patterns.openai_client.metering.meter import meter

URL = "http://127.0.0.1:1/v1"
Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    """LangChain's model needs asyncio."""
    return "asyncio"


PART = {"type": "output_text", "text": "Lyon.", "annotations": [], "logprobs": []}
MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [PART]}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "find", "arguments": "{}"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}


def response(*output: Json, status: str = "completed") -> Json:
    usage = {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-6-luna",
        "status": status,
        "output": list(output),
        "usage": usage if status == "completed" else None,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def added(item: Json, index: int = 0) -> Json:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def delta(kind: str, text: str, index: int = 0) -> Json:
    more = {"content_index": 0, "logprobs": []} if kind == "output_text" else {}
    return {"type": f"response.{kind}.delta", "output_index": index, "item_id": "msg_1", "delta": text, **more}


NEWS: list[Json] = [
    {"type": "response.created", "response": response(status="in_progress")},
    {"type": "response.in_progress", "response": response(status="in_progress")},
    {"type": "response.queued", "response": response(status="queued")},
    {"type": "response.heartbeat", "note": "still here"},
    {"type": "keepalive"},
    {"type": "codex.rate_limits", "limits": {}},
]
"""What says nothing of the answer, some of it known to no client."""
BEGIN = added({**MESSAGE, "status": "in_progress", "content": []})
END = {"type": "response.completed", "response": response(MESSAGE)}
STREAMS: list[tuple[list[Json], Json]] = [
    ([*NEWS, BEGIN], delta("output_text", "Lyon.")),
    ([BEGIN, delta("output_text", ""), *NEWS], delta("output_text", "Lyon.")),
    ([*NEWS, added(THOUGHT), *NEWS[3:]], delta("output_text", "Lyon.", 1)),
    ([*NEWS], added({**CALL, "arguments": ""})),
]
"""What comes before the first chunk, and that chunk."""


class Slow(httpx2.AsyncByteStream):
    """A stream of events, each of which takes a second to come."""

    def __init__(self, clock: ManualClock, events: list[Json]) -> None:
        self._clock = clock
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, event in enumerate(self._events):
            self._clock.advance(1)
            yield event_stream({**event, "sequence_number": number})


def client_of(clock: ManualClock, events: list[Json]) -> httpx2.AsyncClient:
    def serve(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Slow(clock, events))

    return httpx2.AsyncClient(transport=httpx2.MockTransport(serve))


@pytest.mark.parametrize("framework", ["openai", "langchain", "client"])
@pytest.mark.parametrize(("before", "first"), STREAMS)
async def test_news_of_the_answer_is_no_chunk(
    monkeypatch: pytest.MonkeyPatch, framework: str, before: list[Json], first: Json
) -> None:
    clock, recorder = ManualClock(), Recorder()
    final = END if "delta" in first else {"type": "response.completed", "response": response(CALL)}
    http = client_of(clock, [*before, first, delta("output_text", "More."), final])
    config = OpenAIPatternConfig(base_url=URL, api_key=KEY, max_iterations=1)
    model = ChatOpenAI(
        model="gpt-6-luna", use_responses_api=True, base_url=URL, api_key=SecretStr(KEY), http_async_client=http
    )

    async def ask(messages: Any, context: Any) -> str:
        with MeteringHandler(stream=True) as handler:
            return "".join([chunk.text async for chunk in model.astream(messages, {"callbacks": [handler]})])

    async def ask_client(messages: Any, context: Any) -> None:
        client = meter(AsyncOpenAI(base_url=URL, api_key=KEY, http_client=http))
        async for _ in await client.responses.create(model="gpt-6-luna", input=messages, stream=True):
            pass

    async with OpenAIFunctionCallingPattern(config) as pattern, Engine(clock=clock) as engine:
        monkeypatch.setattr(pattern.clients.get(), "_client", http)
        engine.subscribe(recorder, name="recorder")
        asked: dict[str, Any] = {"openai": pattern, "langchain": ask, "client": ask_client}
        await engine.run(asked[framework], "Where?")
    [ended] = [event for event in recorder.events if isinstance(event, TokenUsage)]
    assert ended.first_chunk_ns == (len(before) + 1) * 1_000_000_000


@pytest.mark.parametrize(
    ("events", "seconds"),
    [
        ([{"type": "response.output_item.done", "output_index": 0, "item": MESSAGE}], 1),
        ([*NEWS], len(NEWS) + 1),
        ([added(THOUGHT), delta("refusal", "No.")], 2),
    ],
)
async def test_an_answer_that_comes_in_one_piece_has_a_first_chunk(
    monkeypatch: pytest.MonkeyPatch, events: list[Json], seconds: int
) -> None:
    clock, recorder = ManualClock(), Recorder()
    config = OpenAIPatternConfig(base_url=URL, api_key=KEY)
    async with OpenAIFunctionCallingPattern(config) as pattern, Engine(clock=clock) as engine:
        monkeypatch.setattr(pattern.clients.get(), "_client", client_of(clock, [*events, END]))
        engine.subscribe(recorder, name="recorder")
        await engine.run(pattern, "Where?")
    [ended] = [event for event in recorder.events if isinstance(event, TokenUsage)]
    assert ended.first_chunk_ns == seconds * 1_000_000_000


async def test_an_answer_that_says_nothing_has_no_first_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, recorder = ManualClock(), Recorder()
    events = [*NEWS, added(THOUGHT), {"type": "response.completed", "response": response(THOUGHT)}]
    config = OpenAIPatternConfig(base_url=URL, api_key=KEY)
    async with OpenAIFunctionCallingPattern(config) as pattern, Engine(clock=clock) as engine:
        monkeypatch.setattr(pattern.clients.get(), "_client", client_of(clock, events))
        engine.subscribe(recorder, name="recorder")
        await engine.run(pattern, "Where?")
    [ended] = [event for event in recorder.events if isinstance(event, TokenUsage)]
    assert ended.first_chunk_ns is None
