"""Usage as servers report it: what becomes of each shape, whichever way it is asked for. A new shape is one row."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk
from openai import DefaultAsyncHttpxClient
from openai.types.responses import Response
from usage_support import CHAT, MODEL, TEXT, WAYS, Ask, Server, Shape, graph_pattern, handler, server

from runmeter.engine import (
    MSGPACK,
    Budget,
    Engine,
    Notice,
    PriceBook,
    Provenance,
    TokenUsage,
    Usage,
    UsageAggregator,
)
from runmeter.engine.testing import Recorder
from runmeter.patterns.requests.usage import Reading, read_usage

__all__ = ["server"]
PRICES = PriceBook()
REPORTED, ESTIMATED = Provenance.REPORTED, Provenance.ESTIMATED


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


@pytest.fixture
def anyio_backend() -> str:
    """LangChain needs asyncio."""
    return "asyncio"


@pytest.fixture
async def http() -> AsyncIterator[Any]:
    async with DefaultAsyncHttpxClient() as http:
        yield http


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
        assert Decimal("0.00016") < cost.high < Decimal("0.0004"), "the bound: 100 tokens at most, in the dearest tier"
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


NOTHING: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize(
    "message",
    [
        {"content": "Lyon."},
        {"content": [{"type": "text", "text": "Lyon."}]},
        {"content": None, "refusal": "I cannot."},
        {"content": None, "reasoning_content": "Where is it?"},
        {"content": None, "reasoning": "Where is it?"},
        {"content": None, "audio": {"id": "audio_1", "data": "AAAA"}},
        {"content": None, "tool_calls": [{"id": "call_1", "type": "function"}]},
        {"content": "", "additional_kwargs": {"refusal": "I cannot."}},
    ],
    ids=str,
)
def test_zeros_for_any_answer_are_no_report(message: dict[str, Any]) -> None:
    told = read_usage({"choices": [{"message": message}], "usage": NOTHING})
    assert told.usage is None
    assert told.contradiction == "input_tokens and output_tokens 0 of an answer that says something"
    silent = read_usage({"choices": [{"message": {"content": "", "refusal": None, "audio": None}}], "usage": NOTHING})
    assert silent == Reading(Usage())


@pytest.mark.parametrize(
    "kind",
    ["reasoning", "function_call", "web_search_call", "image_generation_call", "computer_call", "local_shell_call"],
)
def test_zeros_for_an_item_of_any_kind_are_no_report(kind: str) -> None:
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    assert read_usage({"output": [{"type": kind}], "usage": usage}).usage is None
    assert read_usage({"output": [{"type": "message", "content": []}], "usage": usage}) == Reading(Usage())


@pytest.mark.parametrize(
    ("beside", "right"),
    [
        ({"prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20}, Usage(100, 20, 80)),
        ({"cache_read_input_tokens": 80}, Usage(100, 20, 80)),
        ({"cache_creation_input_tokens": 30}, Usage(100, 20, 0, 30)),
        ({"cache_read_input_tokens": 0, "cache_creation_input_tokens": None}, Usage(100, 20)),
        ({"cache_read_input_tokens": 80, "prompt_tokens_details": {"cached_tokens": 80}}, Usage(100, 20, 80)),
    ],
    ids=str,
)
def test_caches_are_read_by_the_names_that_other_servers_give_them(beside: dict[str, Any], right: Usage) -> None:
    said = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, **beside}
    assert read_usage({"choices": [{"message": {"content": "Lyon."}}], "usage": said}) == Reading(right)


def test_caches_that_are_named_beside_the_input_contradict_it() -> None:
    said = {"prompt_tokens": 20, "completion_tokens": 100, "total_tokens": 120, "cache_read_input_tokens": 1_000}
    told = read_usage({"choices": [{"message": {"content": "Lyon."}}], "usage": said})
    assert told.usage == Usage(20, 100, 1_000)
    assert "cache_read_tokens 1000" in (told.contradiction or "")


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
