"""Patterns with a client that they are given: its server, its headers, its prices; and that it stays the caller's."""

from typing import Any

import httpx2
import pytest
from meter_support import MeterScene
from openai import AsyncAzureOpenAI, AsyncOpenAI, OpenAI
from pattern_support import KEY

from runmeter import ConfigurationError, meter
from runmeter.patterns import (
    OpenAIAssistantPattern,
    OpenAIConversationPattern,
    OpenAIFunctionCallingPattern,
    OpenAIPatternConfig,
    OpenAIRAGPattern,
    OpenAIStreamingPattern,
)

PATTERNS = [
    OpenAIFunctionCallingPattern,
    OpenAIConversationPattern,
    OpenAIStreamingPattern,
    OpenAIAssistantPattern,
    OpenAIRAGPattern,
]


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("metered", [False, True])
async def test_a_pattern_asks_with_the_client_it_is_given(kind: Any, metered: bool) -> None:
    seen: list[httpx2.Headers] = []

    async def note(request: httpx2.Request) -> None:
        seen.append(request.headers)

    async with MeterScene.open() as scene:
        http = httpx2.AsyncClient(event_hooks={"request": [note]}, trust_env=False)
        client = AsyncOpenAI(**scene.settings(), http_client=http, default_headers={"x-house": "ours"})
        if metered:
            meter(client)
        async with kind(OpenAIPatternConfig(), client=client) as pattern:
            result = await scene.engine.run(pattern, "How deep is the sea?")
        assert not client.is_closed()
        await client.close()
        await scene.settled()
        assert all(headers["x-house"] == "ours" for headers in seen)
        assert result.cost.usd is not None
        assert result.usage == next(iter(scene.billed.values()))
        assert len(scene.ends) == 1


async def test_an_azure_client_has_azures_prices() -> None:
    async with MeterScene.open() as scene:

        async def pass_on(request: httpx2.Request) -> httpx2.Response:
            assert request.url.host == "mine.openai.azure.com"
            headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
            async with httpx2.AsyncClient(trust_env=False) as http:
                answer = await http.post(f"{scene.simulator.url}/responses", headers=headers, content=request.content)
            kind = {"content-type": answer.headers["content-type"]}
            return httpx2.Response(answer.status_code, headers=kind, content=answer.content)

        client = AsyncAzureOpenAI(
            azure_endpoint="https://mine.openai.azure.com",
            api_version="preview",
            api_key=KEY,
            http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(pass_on)),
        )
        config = OpenAIPatternConfig(stream_responses=False)
        async with OpenAIFunctionCallingPattern(config, client=client) as pattern:
            result = await scene.engine.run(pattern, "How deep is the sea?")
        await client.close()
        await scene.settled()
        assert [event.provider for event in scene.ends] == ["azure.ai.openai"]
        assert result.cost.usd is not None


async def test_a_gateways_prices_are_said_by_its_meter() -> None:
    async with MeterScene.open() as scene:
        client = AsyncOpenAI(**scene.settings())
        meter(client, provider="house")
        async with OpenAIFunctionCallingPattern(OpenAIPatternConfig(), client=client) as pattern:
            await scene.engine.run(pattern, "How deep is the sea?")
        await client.close()
        await scene.settled()
        assert [event.provider for event in scene.ends] == ["house"]


@pytest.mark.parametrize("wrong", ["client", OpenAI(api_key=KEY), object()])
def test_what_is_no_async_client_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"openai\.AsyncOpenAI"):
        OpenAIFunctionCallingPattern(OpenAIPatternConfig(), client=wrong)
