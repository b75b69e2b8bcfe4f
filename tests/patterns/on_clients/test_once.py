"""One request is counted once, however many meters see it; and what a client sends again is an attempt of it."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from meter_support import ASKED, UNAVAILABLE, MeterScene, check_once
from openai import APIStatusError
from pattern_support import KEY, at_once

from runmeter import (
    Budget,
    BudgetExceeded,
    ModelRequest,
    Provenance,
    Usage,
    current_execution,
    meter,
    open_model_call,
)
from runmeter.patterns import (
    OpenAIFunctionCallingPattern,
    OpenAIPatternConfig,
    RetryPolicy,
)
from runmeter.patterns.requests.usage import read_usage
from runmeter.simulator import Fault

MODEL = "gpt-6-luna"
REQUEST = ModelRequest(provider="openai", model=MODEL, api="responses")
pytestmark = [
    # The client's own streams leave generators behind on trio, metered or not.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client try again at once."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)


async def by_hand(client: Any) -> None:
    """Ask within a hand-written `model_call`."""
    with current_execution().model_call(REQUEST) as call:
        answer = await client.responses.create(model=MODEL, input=ASKED)
        read_usage(answer).record(call)


async def by_hand_streamed(client: Any) -> None:
    with current_execution().model_call(REQUEST) as call:
        stream = await client.responses.create(model=MODEL, input=ASKED, stream=True)
        async for event in stream:
            if event.type == "response.completed":
                read_usage(event.response).record(call)


async def by_task(client: Any) -> None:
    """Ask in a task of its own."""
    with current_execution().model_call(REQUEST) as call:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                read_usage(await client.responses.create(model=MODEL, input=ASKED)).record(call)

            tasks.start_soon(ask)


async def by_client_alone(client: Any) -> None:
    await client.responses.create(model=MODEL, input=ASKED)


def asking(client: Any) -> Any:
    """A pattern that asks by hand."""

    async def pattern(messages: Any, context: Any) -> None:
        await by_hand(client)

    return pattern


PAIRS: dict[str, Callable[[Any], Awaitable[None]]] = {
    "by hand": by_hand,
    "by hand, streamed": by_hand_streamed,
    "by hand, in a task": by_task,
    "client alone": by_client_alone,
}


@pytest.mark.parametrize("retried", [False, True])
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("where", ["in a run", "in none"])
async def test_each_pair_counts_once(pair: str, retried: bool, where: str) -> None:
    await check_once(PAIRS[pair], retried=retried, where=where)


async def test_a_pattern_with_a_metered_client_counts_once() -> None:
    async with MeterScene.open() as scene:
        config = OpenAIPatternConfig(base_url=scene.simulator.url, api_key=KEY)
        retry = RetryPolicy(max_retries=1, sleep=at_once)
        async with OpenAIFunctionCallingPattern(config, retry=retry) as pattern:
            meter(pattern.clients.get())
            scene.simulator.inject(UNAVAILABLE)
            result = await scene.engine.run(pattern, "How deep?")
        await scene.settled()
        assert [event.attempt for event in scene.ends] == [1, 2]
        assert result.usage == sum(scene.billed.values(), Usage())


async def test_a_client_that_gives_up_leaves_the_last_attempt_to_the_call() -> None:
    async with MeterScene.open() as scene:
        client = scene.client(max_retries=1)
        scene.simulator.inject(Fault("unavailable", times=2))
        with pytest.raises(APIStatusError):
            await scene.engine.run(asking(client), "")
        await client.close()
        await scene.settled()
        assert [(event.attempt, event.error_type) for event in scene.ends] == [
            (1, "InternalServerError"),
            (2, "InternalServerError"),
        ]


async def test_attempts_within_a_call_need_room_each() -> None:
    async with MeterScene.open(budgets=[Budget(calls=1)]) as scene:
        client = scene.client(max_retries=2)
        scene.simulator.inject(UNAVAILABLE)
        with pytest.raises(BudgetExceeded):
            await scene.engine.run(asking(client), "")
        await client.close()
        await scene.settled()
        assert scene.arrived == 1
        assert [event.attempt for event in scene.ends] == [1]
        assert scene.engine.budgets()[0].reserved == 0


async def test_what_is_asked_beside_a_stream_is_not_inside_it() -> None:
    async with MeterScene.open() as scene:
        client = scene.client()

        async def pattern(messages: Any, context: Any) -> None:
            stream = await client.responses.create(model=MODEL, input=ASKED, stream=True)
            async for _ in stream:
                assert open_model_call() is None
                break
            await client.responses.create(model=MODEL, input=ASKED)
            async for _ in stream:
                pass

        for work in (partial(scene.engine.run, pattern, ""), partial(pattern, "", None)):
            await work()
        await client.close()
        await scene.settled()
        assert [event.provenance for event in scene.ends] == [Provenance.REPORTED] * 4


async def test_a_request_for_the_sake_of_another_is_a_run_of_its_own() -> None:
    async with MeterScene.open() as scene:
        helper = scene.client()

        async def key() -> str:
            await helper.responses.create(model=MODEL, input=ASKED)
            return KEY

        client = scene.client(api_key=key)
        await client.chat.completions.create(model=MODEL, messages=ASKED)
        await client.close()
        await helper.close()
        await scene.settled()
        assert scene.runs == [("openai.responses", "ok"), ("openai.chat", "ok")]
        assert scene.arrived == len(scene.ends) == 2
