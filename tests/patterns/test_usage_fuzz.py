"""Any usage that a server may report, asked for in every way: what is told of it holds, and nothing breaks."""

import itertools
from decimal import Decimal
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openai import DefaultAsyncHttpxClient
from usage_support import TEXT, WAYS, Server, Shape, chat_model, server

from runmeter.engine import Budget, Engine, PriceBook, Provenance, TokenUsage, UsageAggregator
from runmeter.engine.testing import Recorder
from runmeter.patterns.requests.usage import MAX_COUNT

__all__ = ["server"]
PRICES = PriceBook()
INPUT, CACHED, OUTPUT = (Decimal(rate).scaleb(-6) for rate in ("0.40", "0.10", "1.60"))
"""USD for a token, by OpenAI's list (2026-11)."""
COUNTS = st.integers(0, 60) | st.integers(0, 5_000)
ODD = st.none() | st.integers(-50, -1) | st.sampled_from(["7", "many", 7.0, 7.5, True, 10**16, [], {}])
FEW, MANY = (settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow]) for count in (5, 100))


@st.composite
def shapes(draw: st.DrawFn, counts: st.SearchStrategy[Any] = COUNTS) -> Shape:
    """A usage in which much adds up, and much does not."""
    read, written = draw(counts), draw(counts)
    cached, reasoning = draw(st.none() | counts), draw(st.none() | counts)
    parts = [part for part in (read, written, cached, reasoning) if type(part) is int]
    sums = st.sampled_from([sum(each) for n in range(5) for each in itertools.combinations(parts, n)] or [0])
    total = draw(st.none() | sums | counts)
    return Shape(read, written, total, cached, reasoning, finish=draw(st.booleans()), repeated=draw(st.booleans()))


def meanings(shape: Shape) -> list[Decimal]:
    """What each reading costs in which all numbers are true: parts are within their whole, or beside it.

    Where no total tells, a part that fits into its whole is within it.
    """
    cached, costs = shape.cached or 0, []
    inputs = wholes(shape.read, cached, is_told=shape.total is not None)
    outputs = wholes(shape.written, shape.reasoning or 0, is_told=shape.total is not None)
    for read, written in itertools.product(inputs, outputs):
        if shape.total in (None, read + written):
            costs.append((read - cached) * INPUT + cached * CACHED + written * OUTPUT)
    return costs


def wholes(whole: int, part: int, *, is_told: bool) -> list[int]:
    within, beside = [whole] if part <= whole else [], [whole + part]
    return within + beside if is_told or not within else within


def is_sound(shape: Shape) -> bool:
    """Tell whether the numbers are true as the API means them."""
    fits = (shape.cached or 0) <= shape.read and (shape.reasoning or 0) <= shape.written
    return fits and shape.total in (None, shape.read + shape.written)


async def ask_in_every_way(server: Server) -> dict[str, TokenUsage]:
    """Ask once in each way; what is live must be what a replay gives."""
    recorder = Recorder()
    requests: dict[str, TokenUsage] = {}
    async with DefaultAsyncHttpxClient() as http, Engine(prices=PRICES, budgets=[Budget(usd="100")]) as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        spent: Decimal | None = Decimal(0)
        for way, ask in WAYS.items():
            try:
                result = await ask(engine, server.url, http)
            except Exception:
                assert not await can_be_asked(server, http, way), f"{way}: LangChain takes it"
                spent = None  # it may be billed all the same
                continue
            assert result.content == TEXT, way
            [requests[way]] = result.requests
            spent = None if spent is None or result.cost.high is None else spent + result.cost.high
        live = engine.usage()
        [status] = engine.budgets()
    assert spent is None or status.spent == spent, "a budget settles at the upper end, if there is one"
    replayed = UsageAggregator(PRICES)
    replayed.fold(recorder.events)
    assert replayed.snapshot().total == live.total
    return requests


async def can_be_asked(server: Server, http: Any, way: str) -> bool:
    """Tell whether LangChain takes such an answer at all, with nobody metering it."""
    if way.startswith("responses") and "graph" not in way and "handler" not in way:
        return True
    model = chat_model(server.url, http, use_responses_api=way.startswith("responses"), stream_usage=True)
    try:
        if "streamed" in way:
            _ = [chunk async for chunk in model.astream("Where is it?")]
        else:
            await model.ainvoke("Where is it?")
    except Exception:
        return False
    return True


def check(shape: Shape, request: TokenUsage, way: str) -> None:
    cost = PRICES.cost(request)
    if not shape.read or not shape.written:
        assert request.provenance is not Provenance.REPORTED, f"{way}: an answer that says something took tokens"
        assert cost.usd is None, way
        return
    assert request.provenance is Provenance.REPORTED, way
    if is_sound(shape):
        assert request.contradiction is None, way
        assert cost.usd == meanings(shape)[0], way
        return
    assert request.contradiction, way
    assert cost.usd is None, f"{way}: what contradicts itself is never exact"
    for meaning in meanings(shape):
        assert cost.low <= meaning, way
        assert cost.high is None or meaning <= cost.high, way


@FEW
@given(shapes())
@example(Shape(100, 20, 420, None, 300))
@example(Shape(20, 20, 1_040, 1_000))
@example(Shape(20, 5, 330, 5, 300))
def test_an_interval_contains_every_consistent_reading_in_every_way(server: Server, shape: Shape) -> None:
    server.shape = shape
    requests = anyio.run(ask_in_every_way, server)
    for way, request in requests.items():
        check(shape, request, way)
    seen = {(each.usage, each.contradiction, each.total_tokens) for each in requests.values() if each.contradiction}
    assert len(seen) <= 1, "one answer means the same whichever way it was asked for"
    assert requests.keys() == WAYS.keys()


@FEW
@given(shapes(ODD | COUNTS))
def test_nothing_that_a_server_may_send_breaks_a_run(server: Server, shape: Shape) -> None:
    server.shape = shape
    for way, request in anyio.run(ask_in_every_way, server).items():
        cost = PRICES.cost(request)
        numbers = (shape.read, shape.written, shape.total, shape.cached or 0, shape.reasoning or 0)
        if all(type(number) is int and 0 <= number <= MAX_COUNT for number in numbers):
            check(shape, request, way)
        if request.contradiction or request.provenance is not Provenance.REPORTED:
            assert cost.usd is None, way


@pytest.mark.campaign
@MANY
@given(shapes())
def test_many_more_intervals(server: Server, shape: Shape) -> None:
    server.shape = shape
    for way, request in anyio.run(ask_in_every_way, server).items():
        check(shape, request, way)


@pytest.mark.campaign
@MANY
@given(shapes(ODD | COUNTS))
def test_many_more_odd_ones(server: Server, shape: Shape) -> None:
    server.shape = shape
    anyio.run(ask_in_every_way, server)
