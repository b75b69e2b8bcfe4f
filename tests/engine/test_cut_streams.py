"""A stream may break off anywhere: what is said of its usage then is true wherever that is.

Streams are recorded from the simulator, and cut: by their end, by the connection's, and by whoever reads them.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal, get_args

import anyio
import httpx2
import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_openai import ChatOpenAI
from pattern_support import KEY, Run
from pydantic import SecretStr

from runmeter.engine import Event, PriceBook, Provenance, TokenUsage, Usage, UsageAggregator
from runmeter.engine.usage.statistics import UsageStatistics
from runmeter.patterns import AugmentedLLMPattern, PatternConfig, ResponseFailed, RetryPolicy
from runmeter.patterns.openai.responses.metered import MeteredResponses
from runmeter.patterns.openai_client.clients import Clients
from runmeter.simulator import Fault, Reply, ScriptedCall, Simulator

Cut = Literal["end", "reset", "cancelled"]

QUESTION = "Where is parcel AB-1?"
TEXT = "It is in Berlin — 柏林 — where it waits for the customs officer to come back from a very long lunch."
FIND = {"type": "function", "name": "find", "parameters": {"type": "object", "properties": {}}, "strict": False}
FIND_CHAT = {"name": "find", "parameters": {"type": "object", "properties": {}}}
NO_REASONING = {"reasoning_effort": "none"}  # else this API gives its newer models no tools
CALLS = (ScriptedCall("find", '{"number": "AB-1", "city": "Berlin"}'), ScriptedCall("find", "{}"))
USAGE = b'"completion_tokens":'
LONG = "The parcel is late. " * 400
SHAPES: dict[str, tuple[Reply, dict[str, Any]]] = {
    "text": (Reply(TEXT), {}),
    "tools": (Reply("Let me see.", tool_calls=CALLS), {"tools": [FIND]}),
    "reasoning": (Reply(TEXT, reasoning_tokens=70), {"reasoning": {"effort": "low", "summary": "auto"}}),
    "incomplete": (Reply(TEXT), {"max_output_tokens": 16}),
    "cached": (Reply(TEXT), {"input": LONG, "prompt_cache_options": {"ttl": "12h"}, "service_tier": "flex"}),
}


CHAT_SHAPES: dict[str, tuple[Reply, dict[str, Any]]] = {
    "text": (Reply(TEXT), {}),
    "tools": (
        Reply("Let me see.", tool_calls=CALLS),
        {"tools": [{"type": "function", "function": FIND_CHAT}], **NO_REASONING},
    ),
    "reasoning": (Reply(TEXT, reasoning_tokens=70), {"reasoning_effort": "low"}),
    "incomplete": (Reply(TEXT), {"max_completion_tokens": 16}),
}


CUTS: tuple[Cut, ...] = get_args(Cut)
EACH_CHAT_SHAPE = [
    pytest.param(shape, cut, marks=() if (number - offset) % len(CUTS) == 0 else pytest.mark.campaign)
    for number, shape in enumerate(CHAT_SHAPES)
    for offset, cut in enumerate(CUTS)
]
"""Each with each cut, in short each with one."""


class Recording(msgspec.Struct, frozen=True):
    """A stream, as it came."""

    params: dict[str, Any]
    events: tuple[bytes, ...]
    usage: Usage
    """What was billed for all of it."""

    @property
    def data(self) -> bytes:
        return b"".join(self.events)

    @property
    def ends(self) -> list[int]:
        """Where its events end, and where the first begins."""
        return [0, *accumulate(map(len, self.events))]

    @property
    def positions(self) -> list[int]:
        """Where to cut it: between all events, around the last one's end, and in some places at random."""
        total = self.ends[-1]
        some = random.Random(1).sample(range(total), 15)  # noqa: S311 - nothing is kept secret
        return sorted({*self.ends, *some, *range(total - 4, total)})


@lru_cache(1)
def price_book() -> PriceBook:
    return PriceBook()


def params_of(shape: str) -> dict[str, Any]:
    return {"model": "gpt-6-luna", "input": QUESTION, **SHAPES[shape][1]}


async def record(simulator: Simulator, path: str, params: dict[str, Any], reply: Reply) -> Recording:
    """Have the simulator answer, and keep what it sends."""
    simulator.script(reply)
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(base_url=simulator.url, headers=headers) as client:
        answer = await client.post(path, json={**params, "stream": True})
    answer.raise_for_status()
    events = tuple(event + b"\n\n" for event in answer.content.split(b"\n\n") if event)
    return Recording(params, events, simulator.statistics().total)


class Replayer:
    """Answers with the beginning of a recording, to be read by a client whose `http` this is."""

    def __init__(self) -> None:
        self.http = httpx2.AsyncClient(transport=httpx2.MockTransport(self._serve))
        self._content: AsyncIterator[bytes] | None = None

    def _serve(self, _: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=self._content)

    async def read(
        self, sent: bytes, cut: Cut, ask: Callable[[], Awaitable[object]], *empty: type[Exception]
    ) -> TokenUsage:
        """Ask, and read so much and then no more. Gives what is said of the request.

        Args:
            sent: So much.
            cut: How it ends.
            ask: Sends the request.
            empty: What a client raises of a stream with nothing in it.
        """
        scope = anyio.CancelScope()

        async def content() -> AsyncIterator[bytes]:
            if sent:
                yield sent
            if cut == "reset":
                raise httpx2.ReadError("gone")
            if cut == "cancelled":
                scope.cancel()
                await anyio.sleep_forever()

        self._content = content()
        run = Run(delta=ignore)
        with scope, suppress(ResponseFailed, openai.APIError, httpx2.TransportError, *empty), run():
            await ask()
        return run.requests[0]


async def ignore(_: str) -> None:
    """Somebody listens, and does nothing with it."""


@pytest.fixture
async def replayer() -> AsyncIterator[Replayer]:
    replayer = Replayer()
    async with replayer.http:
        yield replayer


def check(request: TokenUsage, truths: Sequence[Usage]) -> None:
    """Check that the cost of each usage that may be billed lies within what is said of the request's cost."""
    said = price_book().cost(request)
    assert said.high is not None
    assert said.unpriced == 0
    for truth in truths:
        billed = msgspec.structs.replace(request, provenance=Provenance.REPORTED, usage=truth, bound=None)
        true = price_book().cost(billed)
        assert true.high is not None
        assert said.low <= true.low <= said.high
        if request.usage is not None:
            assert request.usage.output_tokens <= truth.output_tokens
    if request.provenance is Provenance.REPORTED:
        assert said.low == said.high
        assert request.bound is None


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("shape", SHAPES)
async def test_wherever_a_stream_is_cut_what_is_said_of_it_is_true(
    monkeypatch: pytest.MonkeyPatch, simulator: Simulator, replayer: Replayer, shape: str, cut: Cut
) -> None:
    recording = await record(simulator, "/responses", params_of(shape), SHAPES[shape][0])
    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=30)
    monkeypatch.setattr(clients.get(), "_client", replayer.http)
    metered = MeteredResponses(clients, RetryPolicy(max_retries=0), timeout=30, estimate=True)

    async def ask() -> None:
        await metered.create(recording.params, stream=True)

    data = recording.data
    for position in recording.positions:
        request = await replayer.read(data[:position], cut, ask)
        reported = request.provenance is Provenance.REPORTED
        # The last event's data is all there two bytes before its end; it counts once its end is there.
        assert not reported or position >= len(data) - 2
        assert reported or position < len(data)
        if reported:
            assert request.usage == recording.usage
        else:
            assert request.error_type is not None
        check(request, [recording.usage])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # LangGraph needs it
@pytest.mark.parametrize(("shape", "cut"), EACH_CHAT_SHAPE)
async def test_the_same_holds_for_chat_completions_by_langchain(
    simulator: Simulator, replayer: Replayer, shape: str, cut: Cut
) -> None:
    reply, more = CHAT_SHAPES[shape]
    messages = [{"role": "user", "content": QUESTION}]
    params = {"model": "gpt-6-luna", "messages": messages, "stream_options": {"include_usage": True}, **more}
    recording = await record(simulator, "/chat/completions", params, reply)
    model = ChatOpenAI(
        model="gpt-6-luna",
        base_url="http://127.0.0.1:1/v1",
        api_key=SecretStr(KEY),
        http_async_client=replayer.http,
        max_retries=0,
        stream_usage=True,
        use_responses_api=False,
    )
    pattern = AugmentedLLMPattern(PatternConfig(max_function_calls=0), model=model, retry=RetryPolicy(max_retries=0))
    data = recording.data
    [with_usage] = [end for event, end in zip(recording.events, recording.ends[1:], strict=True) if USAGE in event]
    for position in recording.positions:
        request = await replayer.read(data[:position], cut, lambda: pattern.execute(QUESTION), ValueError)
        reported = request.provenance is Provenance.REPORTED
        assert not reported or position >= with_usage - 2
        assert reported or position < len(data) or cut != "end"
        if reported:
            assert request.usage == recording.usage
        check(request, [recording.usage])


@pytest.mark.parametrize("kind", ["stream_end", "stream_cut"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_what_was_really_billed_lies_within_what_is_said(
    simulator: Simulator, shape: str, kind: Literal["stream_end", "stream_cut"]
) -> None:
    recording = await record(simulator, "/responses", params_of(shape), SHAPES[shape][0])
    clients = Clients(KEY, simulator.url, timeout=30)
    metered = MeteredResponses(clients, RetryPolicy(max_retries=0), timeout=30, estimate=True)
    for count in range(len(recording.events)):
        simulator.script(SHAPES[shape][0])
        simulator.inject(Fault(kind, after_events=count))
        before = simulator.statistics().total
        run = Run()
        with pytest.raises((ResponseFailed, openai.APIConnectionError)), run():
            await metered.create(recording.params, stream=True)
        [request] = run.requests
        assert request.provenance in (Provenance.PARTIAL, Provenance.UNKNOWN)
        check(request, [difference(simulator.statistics().total, before)])
    await clients.aclose()


def difference(after: Usage, before: Usage) -> Usage:
    counts = {name: getattr(after, name) - getattr(before, name) for name in Usage.__struct_fields__}
    return Usage(**counts)


# What is counted of them


def folded(events: Sequence[Event]) -> UsageStatistics:
    aggregator = UsageAggregator(price_book())
    aggregator.fold(events)
    return aggregator.snapshot()


async def a_few_runs(simulator: Simulator) -> list[list[Event]]:
    """Runs with answers whole and cut, refused, tried again, and unanswered."""
    clients = Clients(KEY, simulator.url, timeout=30)
    retries = RetryPolicy(first_delay=0, max_delay=0)
    runs: list[list[Event]] = []
    for number, shape in enumerate(SHAPES):
        simulator.script(*[SHAPES[shape][0]] * 4)
        simulator.inject(
            Fault("stream_end", after_events=4 + number), Fault("rate_limit", retry_after=0), Fault("drop")
        )
        run = Run()
        with run():
            metered = MeteredResponses(clients, retries, timeout=30, estimate=True)
            try:
                await metered.create(params_of(shape), stream=True)
            except openai.APIConnectionError:
                await metered.create(params_of(shape))
        runs.append(run.events)
    await clients.aclose()
    return runs


@pytest.fixture(scope="module")
def runs() -> list[list[Event]]:
    async def make() -> list[list[Event]]:
        simulator = Simulator()
        async with simulator:
            return await a_few_runs(simulator)

    return anyio.run(make)


@given(data=st.data())
def test_events_that_come_twice_and_in_any_order_change_no_total(runs: list[list[Event]], data: st.DataObject) -> None:
    expected = folded([event for run in runs for event in run])
    assert expected.total.usage.total_tokens > 0
    # Of a run its start comes first, since that names it; what follows may come in any order, and any number of times.
    disordered = [
        [run[0], *data.draw(st.permutations([*run[1:], *data.draw(st.lists(st.sampled_from(run)))]))] for run in runs
    ]
    order = data.draw(st.permutations([number for number, run in enumerate(disordered) for _ in run]))
    queues = [iter(run) for run in disordered]
    assert folded([next(queues[number]) for number in order]) == expected
