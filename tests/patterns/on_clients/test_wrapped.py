"""Clients whose methods others wrap, too: a request is counted once, and their wrappers stay when metering ends."""

from typing import Any

import anyio.to_thread
import httpx2
import pytest
from meter_support import ASKED, MeterScene
from openai import AsyncOpenAI, OpenAI
from pattern_support import KEY

from runmeter import Provenance, meter, unmeter
from runmeter.patterns import OpenAIFunctionCallingPattern, OpenAIPatternConfig

MODEL = "gpt-6-luna"
pytestmark = [
    # The client's own streams leave generators behind on trio, metered or not.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Wrapper:
    """Another's wrapper of a method, that stands in its place and counts what passes.

    Args:
        owner: Whose method it is.
        name: The method's.
    """

    def __init__(self, owner: Any, name: str) -> None:
        self._wrapped = getattr(owner, name)
        self.count = 0
        setattr(owner, name, self)

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        return self._wrapped(*args, **options)


async def ask(client: Any, *, stream: bool) -> None:
    if isinstance(client, OpenAI):
        await anyio.to_thread.run_sync(ask_here, client, stream)
    elif stream:
        async for _ in await client.responses.create(model=MODEL, input=ASKED, stream=True):
            pass
    else:
        await client.responses.create(model=MODEL, input=ASKED)


def ask_here(client: Any, stream: bool) -> None:
    answer = client.responses.create(model=MODEL, input=ASKED, stream=stream)
    for _ in answer if stream else ():
        pass


async def close(client: Any) -> None:
    await (client.close() if isinstance(client, AsyncOpenAI) else anyio.to_thread.run_sync(client.close))


def bare(scene: MeterScene, *, is_async: bool) -> Any:
    client: Any = scene.client() if is_async else scene.sync_client()
    return unmeter(client)


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["in a run", "in none"])
@pytest.mark.parametrize("copied", [False, True])
async def test_what_others_wrap_between_two_meters_is_counted_once(
    copied: bool, where: str, stream: bool, is_async: bool
) -> None:
    async with MeterScene.open() as scene:
        client = bare(scene, is_async=is_async)
        wrappers = [Wrapper(client._client, "send"), Wrapper(client, "request")]
        for _ in range(3):
            meter(client)
            wrappers += [Wrapper(client._client, "send"), Wrapper(client, "request")]
        meter(client)
        asked = client.with_options(timeout=30) if copied else client

        async def pattern(messages: Any = None, context: Any = None) -> None:
            await ask(asked, stream=stream)

        await (pattern() if where == "in none" else scene.engine.run(pattern, ""))
        assert {each.count for each in wrappers[::2]} == {1}
        assert {each.count for each in wrappers[1::2]} == {0 if copied else 1}
        await close(client)
        await scene.settled()
        assert scene.arrived == 1
        assert [event.provenance for event in scene.ends] == [Provenance.REPORTED]
        assert [status for _, status in scene.runs] == ["ok"]


@pytest.mark.parametrize("is_async", [True, False])
async def test_unmetering_leaves_what_others_have_put_there(is_async: bool) -> None:
    async with MeterScene.open() as scene:
        client = bare(scene, is_async=is_async)
        before = [Wrapper(client._client, "send"), Wrapper(client, "request")]
        meter(client)
        unmeter(client)
        assert [client._client.send, client.request] == before
        await ask(client, stream=False)
        meter(client)
        after = [Wrapper(client._client, "send"), Wrapper(client, "request")]
        meter(client)
        unmeter(client)
        assert [client._client.send, client.request] == after
        await ask(client, stream=False)
        assert scene.events == []
        assert [each.count for each in (*before, *after)] == [2, 2, 1, 1]
        meter(client)
        await ask(client, stream=False)
        await close(client)
        await scene.settled()
        assert len(scene.ends) == len(scene.runs) == 1


async def test_without_wrappers_nothing_of_the_metering_is_left() -> None:
    client = AsyncOpenAI(api_key=KEY, http_client=httpx2.AsyncClient())
    said = [set(vars(client)), set(vars(client._client))]
    unmeter(meter(meter(client)))
    assert [set(vars(client)), set(vars(client._client))] == said
    await client.close()


async def test_a_second_meter_knows_what_the_first_was_told() -> None:
    async with MeterScene.open() as scene:
        client = AsyncOpenAI(**scene.settings())
        meter(client, provider="house", models={MODEL: "house-model"})
        Wrapper(client._client, "send")
        meter(client)
        await ask(client, stream=False)
        await scene.settled()
        assert [(event.provider, event.model) for event in scene.ends] == [("house", "house-model")]
        Wrapper(client._client, "send")
        config = OpenAIPatternConfig(openai_model=MODEL)
        async with OpenAIFunctionCallingPattern(config, client=client) as pattern:
            await scene.engine.run(pattern, "How deep?")
        await client.close()
        await scene.settled()
        assert [(event.provider, event.model) for event in scene.ends] == [("house", "house-model")] * 2


async def test_the_same_request_sent_again_by_another_is_counted_again() -> None:
    """Above all hooks, a request may be sent twice: by a wrapper that tries again."""
    async with MeterScene.open() as scene:
        client: Any = scene.client()
        send = client._client.send

        async def twice(request: Any, **options: Any) -> Any:
            await (await send(request, **options)).aread()
            return await send(request, **options)

        client._client.send = twice
        await ask(client, stream=False)
        await client.close()
        await scene.settled()
        assert len(scene.ends) == scene.arrived == 2
