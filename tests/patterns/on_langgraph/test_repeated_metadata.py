"""Streams that tell the same in several chunks: LangChain puts one after the other, and once is what it means."""

import json
from typing import Any

import httpx2
import pytest
from langchain_openai import ChatOpenAI
from pattern_support import KEY
from pydantic import SecretStr

from runmeter.engine import Budget, Engine, PriceBook, Provenance, Usage
from runmeter.patterns import AugmentedLLMPattern, MeteringHandler, PatternConfig

Json = dict[str, Any]
MODEL = "gpt-4.1-mini-2025-04-14"
TIER = "default"


@pytest.fixture
def anyio_backend() -> str:
    """LangChain needs asyncio."""
    return "asyncio"


def chunk(index: int | None, text: str = "", reason: str | None = None, **fields: Any) -> Json:
    choices = [] if index is None else [{"index": index, "delta": {"content": text}, "finish_reason": reason}]
    head: Json = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return {**head, "service_tier": TIER, "choices": choices, **fields}


USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
TWO = [chunk(0, "Ly"), chunk(1, "Ro"), chunk(0, "on"), chunk(1, "me")]
LAST = chunk(None, usage=USAGE)
STREAMS: dict[str, tuple[int, list[Json], tuple[str, ...]]] = {
    "once": (1, [chunk(0, "Lyon"), chunk(0, reason="stop"), LAST], ("stop",)),
    "two choices": (2, [*TWO, chunk(0, reason="stop"), chunk(1, reason="stop"), LAST], ("stop", "stop")),
    "two choices, two ends": (2, [*TWO, chunk(0, reason="stop"), chunk(1, reason="length"), LAST], ("stop", "length")),
    "an end told twice": (1, [chunk(0, "Lyon"), chunk(0, reason="stop"), chunk(0, reason="stop"), LAST], ("stop",)),
    "an end told with each chunk": (1, [chunk(0, text, "stop") for text in ("Ly", "o", "n")] + [LAST], ("stop",)),
    "a cut end told twice": (1, [chunk(0, "Lyon"), *[chunk(0, reason="length")] * 2, LAST], ("length",)),
}


def model_of(chunks: list[Json], **settings: Any) -> ChatOpenAI:
    lines = "".join(f"data: {line}\n\n" for line in (*map(json.dumps, chunks), "[DONE]"))
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=lines)
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: answer))
    settings = {"model": "gpt-4.1-mini", "stream_usage": True, "max_retries": 0, **settings}
    return ChatOpenAI(api_key=SecretStr(KEY), base_url="http://127.0.0.1:1/v1", http_async_client=http, **settings)


STREAMED = ("astream", "pattern, streamed")
CASES = [(name, way) for name in STREAMS for way in (*STREAMED, "ainvoke", "pattern")]


# ChatOpenAI has no `streaming` with more than one choice
@pytest.mark.parametrize(("name", "way"), [case for case in CASES if STREAMS[case[0]][0] == 1 or case[1] in STREAMED])
async def test_a_stream_that_tells_its_model_twice_is_priced(name: str, way: str) -> None:
    choices, chunks, reasons = STREAMS[name]
    model = model_of(chunks, **({"n": choices} if choices > 1 else {"streaming": True}))
    async with AugmentedLLMPattern(PatternConfig(), model=model) as pattern:

        async def run(messages: Any, context: Any) -> Any:
            with MeteringHandler() as meter:
                if way == "ainvoke":
                    return await model.ainvoke("Where?", {"callbacks": [meter]})
                if way == "astream":
                    return [chunk async for chunk in model.astream("Where?", {"callbacks": [meter]})]
            return await pattern.execute("Where?")

        async with Engine(prices=PriceBook(), budgets=[Budget(usd="10")]) as engine:
            if way == "pattern, streamed":
                async with engine.stream(run, "") as stream:
                    _ = [item async for item in stream]
                result = stream.result
            else:
                result = await engine.run(run, "")
    [request] = result.requests
    assert (request.response_model, request.service_tier, request.finish_reasons) == (MODEL, TIER, reasons)
    assert (request.usage, request.provenance) == (Usage(100, 20), Provenance.REPORTED)
    assert str(result.cost.usd) == "0.000072"
    if "pattern" in way:
        assert result.value.finish_reason == reasons[-1]
