"""Patterns with a client that they are given: its server, its headers, its prices; and that it stays the caller's."""

import traceback
from typing import Any

import httpx2
import pytest
from answer_support import event_stream
from meter_support import MeterScene
from openai import AsyncAzureOpenAI, AsyncOpenAI, NotFoundError, OpenAI
from pattern_support import KEY

from runmeter import ConfigurationError, Engine, meter
from runmeter.patterns import (
    OpenAIAssistantPattern,
    OpenAIConversationPattern,
    OpenAIFunctionCallingPattern,
    OpenAIPatternConfig,
    OpenAIRAGPattern,
    OpenAIStreamingPattern,
    RetryPolicy,
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


class Own(AsyncOpenAI):
    """A kind of client of the caller's."""


def kind_of_client(kind: str, http: httpx2.AsyncClient) -> AsyncOpenAI:
    if kind == "azure":
        address = "https://mine.openai.azure.com"
        return AsyncAzureOpenAI(azure_endpoint=address, api_version="preview", api_key=KEY, http_client=http)
    client = (Own if kind == "own" else AsyncOpenAI)(api_key=KEY, http_client=http)
    return meter(client) if kind == "metered" else client


QUOTED = {"code": "invalid_api_key", "message": f"Incorrect API key provided: {KEY}"}
REFUSALS = {
    "status": httpx2.Response(401, json={"error": QUOTED}),
    "stream": httpx2.Response(
        200,
        headers={"content-type": "text/event-stream"},
        content=event_stream({"type": "error", "sequence_number": 0, **QUOTED}),
    ),
}


@pytest.mark.parametrize("how", REFUSALS)
@pytest.mark.parametrize("kind", ["plain", "azure", "metered", "own"])
async def test_its_key_is_in_no_error_of_the_pattern(kind: str, how: str) -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        refusal = REFUSALS[how]
        return httpx2.Response(refusal.status_code, headers=refusal.headers, content=refusal.content)

    client = kind_of_client(kind, httpx2.AsyncClient(transport=httpx2.MockTransport(refuse)))
    said = type(client)
    own = OpenAIFunctionCallingPattern(OpenAIPatternConfig(), client=client, retry=RetryPolicy(max_retries=0))
    async with Engine(error_messages="full") as engine, own as pattern:
        with pytest.raises(Exception, match=r"Incorrect API key provided: \*\*\*") as raised:
            await engine.run(pattern, "How deep is the sea?")
        assert isinstance(pattern.clients.get(), said)
    assert KEY not in "".join(traceback.format_exception(raised.value))
    assert KEY not in repr(vars(raised.value))
    assert type(client) is said, "the caller's stays what it was"
    await client.close()


def test_what_is_no_client_is_not_quoted() -> None:
    wrong: Any = KEY
    for make in (meter, lambda given: OpenAIFunctionCallingPattern(OpenAIPatternConfig(), client=given)):
        with pytest.raises(ConfigurationError) as raised:
            make(wrong)
        assert KEY not in str(raised.value)


async def test_a_server_that_lacks_an_api_is_named_and_a_deployment_that_is_missing_is_not_one() -> None:
    said = {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}
    for kind, message in (("own", "has no Responses API"), ("azure", "The API deployment")):
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: httpx2.Response(404, json=said)))
        client = kind_of_client(kind, http)
        if kind == "own":
            client.base_url = "http://gateway.test/v1"
        async with OpenAIFunctionCallingPattern(OpenAIPatternConfig(), client=client) as pattern:
            with pytest.raises(NotFoundError) as raised:
                await pattern.execute("How deep is the sea?")
        assert message in str(raised.value)
        assert (kind == "own") is ("has no" in str(raised.value))
        await client.close()
