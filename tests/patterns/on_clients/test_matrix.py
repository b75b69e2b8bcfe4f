"""Every method of a metered client with every end that it can come to, sync and async: what is told of it is true."""

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
import msgspec
import pytest
from meter_support import ASKED, MeterScene
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI, RateLimitError, Timeout
from pydantic import BaseModel
from time_support import until

from runmeter import CostEstimate, PriceBook, Provenance, Usage, carry
from runmeter.simulator import Fault

pytestmark = [
    # The client's own streams leave generators behind on trio, metered or not.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MODEL = "gpt-6-luna"
ANSWER = '{"metres": 11000, "words": "' + "In its deepest trench the sea is eleven kilometres deep. " * 3 + '"}'
PRICES = PriceBook()
LATE = Fault("latency", seconds=3600)


class Depth(BaseModel):
    """A structured answer."""

    metres: int


class Method(NamedTuple):
    """A way to ask."""

    run: str
    """The name of the run that a request outside all runs is."""
    ask: Callable[[Any], Any]
    streams: bool = False
    opens: bool = False
    """Whether it gives a context manager."""


def responses(client: Any, **more: Any) -> Any:
    return client.responses.create(model=MODEL, input=ASKED, **more)


def chat(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=ASKED, **more)


METHODS = {
    "responses": Method("openai.responses", responses),
    "responses, raw": Method("openai.responses", lambda client: responses(client.with_raw_response)),
    "responses, parsed": Method(
        "openai.responses", lambda client: client.responses.parse(model=MODEL, input=ASKED, text_format=Depth)
    ),
    "responses, streamed": Method("openai.responses", partial(responses, stream=True), streams=True),
    "responses, by helper": Method(
        "openai.responses", lambda client: client.responses.stream(model=MODEL, input=ASKED), streams=True, opens=True
    ),
    "chat": Method("openai.chat", chat),
    "chat, raw": Method("openai.chat", lambda client: chat(client.with_raw_response)),
    "chat, parsed": Method(
        "openai.chat",
        lambda client: client.chat.completions.parse(model=MODEL, messages=ASKED, response_format=Depth),
    ),
    "chat, streamed": Method("openai.chat", partial(chat, stream=True), streams=True),
    "chat, streamed with usage": Method(
        "openai.chat", partial(chat, stream=True, stream_options={"include_usage": True}), streams=True
    ),
    "chat, by helper": Method(
        "openai.chat",
        lambda client: client.chat.completions.stream(model=MODEL, messages=ASKED),
        streams=True,
        opens=True,
    ),
    "copy": Method("openai.chat", lambda client: chat(client.with_options(organization="house"))),
    "embeddings": Method(
        "openai.embeddings",
        lambda client: client.embeddings.create(model="text-embedding-3-small", input=["sea", "salt"]),
    ),
}


class End(NamedTuple):
    """What becomes of a request."""

    fault: Fault | None = None
    error: type[Exception] | None = None
    """What the caller sees."""
    settings: Mapping[str, Any] = {}
    leaves: bool = False
    cancels: bool = False
    streams_only: bool = False
    ends: tuple[Provenance, ...] = (Provenance.REPORTED,)
    """How each attempt's usage is known."""
    status: str = "ok"


REPORTED, PARTIAL, UNKNOWN = Provenance.REPORTED, Provenance.PARTIAL, Provenance.UNKNOWN
ENDS = {
    "ok": End(),
    "error": End(Fault("insufficient_quota"), RateLimitError, status="error"),
    "retry": End(Fault("rate_limit", retry_after=0.001), settings={"max_retries": 1}, ends=(REPORTED, REPORTED)),
    "retry of a failure": End(
        Fault("unavailable"),
        settings={"max_retries": 1},
        ends=(UNKNOWN, REPORTED),
    ),
    "lost": End(Fault("drop"), APIConnectionError, ends=(UNKNOWN,), status="error"),
    "cut": End(
        Fault("stream_cut", after_events=7), APIConnectionError, streams_only=True, ends=(PARTIAL,), status="error"
    ),
    "left early": End(leaves=True, streams_only=True, ends=(PARTIAL,), status="cancelled"),
    "cancelled": End(LATE, cancels=True, ends=(UNKNOWN,), status="cancelled"),
    "timed out": End(
        LATE, APITimeoutError, settings={"timeout": Timeout(None, read=0.05)}, ends=(UNKNOWN,), status="error"
    ),
}


async def read(method: Method, client: Any, leaves: bool) -> None:
    """Ask, and read the answer: to its end, or until it says something."""
    if method.opens:
        async with method.ask(client) as stream:
            async for event in stream:
                if leaves and says_something(event):
                    break
        return
    answer = await method.ask(client)
    if method.streams:
        async for event in answer:
            if leaves and says_something(event):
                break
        await answer.close()


def read_sync(method: Method, client: Any, leaves: bool) -> None:
    """Do the same, without an event loop."""
    if method.opens:
        with method.ask(client) as stream:
            for event in stream:
                if leaves and says_something(event):
                    break
        return
    answer = method.ask(client)
    if method.streams:
        for event in answer:
            if leaves and says_something(event):
                break
        answer.close()


def says_something(event: Any) -> bool:
    chunk = getattr(event, "chunk", event)
    if hasattr(chunk, "choices"):
        return any(choice.delta.content for choice in chunk.choices)
    return str(event.type).endswith("text.delta")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client try again at once."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)


@pytest.mark.parametrize("where", ["in a run", "in none"])
@pytest.mark.parametrize("end_name", ENDS)
async def test_async(end_name: str, where: str) -> None:
    await play(ENDS[end_name], where, is_async=True)


@pytest.mark.parametrize("where", ["in a run", "in none"])
@pytest.mark.parametrize("end_name", [name for name, end in ENDS.items() if not end.cancels])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_sync(end_name: str, where: str) -> None:
    await play(ENDS[end_name], where, is_async=False)


async def play(end: End, where: str, *, is_async: bool) -> None:
    async with MeterScene.open(ANSWER) as scene:
        client: Any = scene.client(**end.settings) if is_async else scene.sync_client(**end.settings)
        for method in METHODS.values():
            if method.streams or not end.streams_only:
                await scene.begin_anew()
                await play_one(scene, client, method, end, where)
        await (client.close() if is_async else anyio.to_thread.run_sync(client.close))


async def play_one(scene: MeterScene, client: Any, method: Method, end: End, where: str) -> None:
    if end.fault is not None:
        scene.simulator.inject(end.fault)

    async def ask() -> None:
        if isinstance(client, AsyncOpenAI):
            await read(method, client, end.leaves)
        else:
            await anyio.to_thread.run_sync(carry(partial(read_sync, method, client, end.leaves)))

    async def pattern(messages: Any, context: Any) -> None:
        await ask()

    work: Callable[[], Coroutine[Any, Any, Any]] = ask if where == "in none" else partial(scene.engine.run, pattern, "")
    if end.cancels:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await until(lambda: scene.arrived_anew)
            tasks.cancel_scope.cancel()
    elif end.error is not None:
        with pytest.raises(end.error):
            await work()
    else:
        await work()
    await scene.settled()
    name = method.run if where == "in none" else pattern.__qualname__
    status = "ok" if where == "in a run" and end.leaves else end.status
    assert scene.runs == [(name, status)]
    assert [event.provenance for event in scene.ends] == list(end.ends)
    assert [event.attempt for event in scene.ends] == list(range(1, len(end.ends) + 1))
    check_bill(scene, end)


def check_bill(scene: MeterScene, end: End) -> None:
    """Check what is told against the simulator's own account."""
    prices = PRICES
    told = sum((prices.cost(event) for event in scene.ends), start=CostEstimate())
    true = sum((cost_of(prices, scene, *each) for each in scene.billed.items()), start=CostEstimate())
    assert told.low <= true.low
    assert told.high is not None
    assert true.low <= told.high
    if set(end.ends) == {REPORTED}:
        assert told.usd == true.usd
        used = (event.usage for event in scene.ends if event.usage is not None)
        assert sum(used, Usage()) == sum(scene.billed.values(), Usage())


def cost_of(prices: PriceBook, scene: MeterScene, model: str, usage: Usage) -> CostEstimate:
    """What the simulator's bill comes to."""
    said = {"model": model, "response_model": model, "usage": usage, "provenance": REPORTED, "bound": None}
    return prices.cost(msgspec.structs.replace(scene.ends[0], **said))
