"""What a metered client leaves behind: nothing of a run that has ended, and nothing of a client that is dropped."""

import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import ref

import anyio
import httpx2
import pytest
from meter_support import ASKED, MeterScene
from openai import APIStatusError, AsyncOpenAI
from pattern_support import KEY

from runmeter import Budget, BudgetExceeded, Execution, ModelCall, meter
from runmeter.engine.budgets.reservation import Reservation, Scope
from runmeter.patterns.openai_client.metering.client_call import ClientCall
from runmeter.patterns.openai_client.metering.exchange import Counted

MODEL = "gpt-6-luna"
KINDS = (Execution, ModelCall, Reservation, Scope, ClientCall, Counted)
BUDGETS: dict[str, list[Budget]] = {
    "none": [],
    "waiting": [Budget(calls=10, when_reserved="wait")],
    "tokens": [Budget(tokens=10_000)],
    "spent": [Budget(calls=1, every="day")],
}
pytestmark = [
    # The client's own streams leave generators behind on trio, metered or not.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def alive() -> list[Any]:
    """All that is there of runs, but for the handles outside them."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, KINDS) and each.__class__.__name__[:3] != "_No"]


async def whole(client: Any) -> None:
    await client.responses.create(model=MODEL, input=ASKED, max_output_tokens=100)


async def streamed(client: Any) -> None:
    async for _ in await client.responses.create(model=MODEL, input=ASKED, max_output_tokens=100, stream=True):
        pass


async def left(client: Any) -> None:
    stream = await client.responses.create(model=MODEL, input=ASKED, max_output_tokens=100, stream=True)
    async for _ in stream:
        break
    await stream.close()


async def refused(client: Any) -> None:
    with suppress(APIStatusError):
        await client.responses.create(model="gpt-none", input=ASKED, max_output_tokens=100)


async def copied(client: Any) -> None:
    await whole(client.with_options(timeout=30))


@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize("budgets", BUDGETS)
@pytest.mark.parametrize("ask", [whole, streamed, left, refused, copied])
async def test_no_run_is_kept(ask: Callable[[Any], Any], budgets: str) -> None:
    before = {id(each) for each in alive()}
    async with MeterScene.open(budgets=BUDGETS[budgets]) as scene:
        client = scene.client()
        for _ in range(3):
            with suppress(BudgetExceeded):
                await ask(client)
        await scene.settled()
        assert scene.runs
        for _ in range(2):  # generators of the client's end in tasks of their own once they are collected
            gc.collect()
            await anyio.wait_all_tasks_blocked()
        assert [each for each in alive() if id(each) not in before] == []
        await client.close()


@pytest.mark.parametrize("is_metered", [False, True])
async def test_a_dropped_client_goes_as_a_bare_one_does(is_metered: bool) -> None:
    """One that was used has a circle of its own, with its resources: the collector takes it (openai 3.57)."""
    client = AsyncOpenAI(api_key=KEY, http_client=httpx2.AsyncClient())
    if is_metered:
        meter(client)
    assert client.responses is not None
    kept = ref(client), ref(client._client)
    del client
    gc.collect()
    assert [each() for each in kept] == [None, None]


async def test_a_copy_of_a_client_that_is_dropped_is_metered() -> None:
    async with MeterScene.open() as scene:
        copy = meter(AsyncOpenAI(**scene.settings())).with_options(timeout=30)
        gc.collect()
        await whole(copy)
        await copy.close()
        await scene.settled()
        assert scene.runs == [("openai.responses", "ok")]
