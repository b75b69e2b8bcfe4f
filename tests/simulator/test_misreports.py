"""Answers that misreport themselves on command: billed in full, and told as less, as more than once, or as nothing."""

from typing import Any

import httpx2
import msgspec
import openai
import pytest
from openai import AsyncOpenAI
from simulator_support import connect

from runmeter.engine import Usage
from runmeter.simulator import Fault, Reply, Simulator

MODEL = "gpt-6-luna"
TEXT = "The sky is grey today."
SAID = " ".join(["word"] * 20)
CHAT = {"messages": [{"role": "user", "content": TEXT}]}
BODIES: dict[str, dict[str, Any]] = {"/responses": {"input": TEXT}, "/chat/completions": CHAT}


@pytest.fixture(autouse=True)
def _said(simulator: Simulator) -> None:
    simulator.script(*[Reply(SAID)] * 4)


async def post(simulator: Simulator, path: str, **settings: Any) -> httpx2.Response:
    """The answer as it is sent: a client would make up for what is missing."""
    async with httpx2.AsyncClient(headers={"authorization": "Bearer sk-simulated"}) as http:
        body = {"model": MODEL, **BODIES.get(path, {}), **settings}
        return await http.post(f"{simulator.url}{path}", json=body)


async def events(simulator: Simulator, path: str, **settings: Any) -> list[dict[str, Any]]:
    response = await post(simulator, path, stream=True, **settings)
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [msgspec.json.decode(each) for each in data if each != "[DONE]"]


async def final(simulator: Simulator, path: str, *, stream: bool) -> dict[str, Any]:
    """What says how the answer ended: the answer itself, or the last event of its stream."""
    if not stream:
        answer: dict[str, Any] = (await post(simulator, path)).json()
        return answer
    options = {"stream_options": {"include_usage": True}} if path == "/chat/completions" else {}
    last = (await events(simulator, path, **options))[-1]
    return dict(last.get("response", last))


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("kind", "count"), [("zero_usage", 0), ("null_usage", None)])
async def test_usage_is_told_as_nothing(simulator: Simulator, path: str, stream: bool, kind: Any, count: Any) -> None:
    honest = await final(simulator, path, stream=stream)
    once = simulator.statistics().total
    simulator.inject(Fault(kind))
    lying = await final(simulator, path, stream=stream)
    assert simulator.statistics().total == once + once, "it is billed all the same"

    def counts(usage: Any) -> list[Any]:
        return [each for value in usage.values() for each in (counts(value) if isinstance(value, dict) else [value])]

    assert any(counts(honest["usage"]))
    assert counts(lying["usage"]) == [count] * len(counts(honest["usage"]))


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_not_told_at_all(simulator: Simulator, path: str, stream: bool) -> None:
    simulator.inject(Fault("no_usage"))
    told = await final(simulator, path, stream=stream)
    assert told.get("usage") is None
    assert ("usage" in told) is (stream and path == "/chat/completions")  # where each chunk but one has null
    assert simulator.statistics().usage[MODEL].output_tokens == 20


async def test_embeddings_misreport_too(simulator: Simulator) -> None:
    simulator.inject(Fault("zero_usage"), Fault("no_usage"))
    settings = {"model": "text-embedding-3-small", "input": "The sea."}
    answers = [(await post(simulator, "/embeddings", **settings)).json() for _ in range(2)]
    assert answers[0]["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert "usage" not in answers[1]
    assert simulator.statistics().total == Usage(input_tokens=6)


async def test_totals_grow_in_each_chunk(simulator: Simulator) -> None:
    simulator.inject(Fault("cumulative_usage", times=2))
    for options in ({}, {"stream_options": {"include_usage": True}}):
        usages = [chunk["usage"] for chunk in await events(simulator, "/chat/completions", **options)]
        output = [usage["completion_tokens"] for usage in usages]
        assert output[:3] == [0, 4, 8]
        assert output == sorted(output)
        assert output[-1] == 20
        (input_tokens,) = {usage["prompt_tokens"] for usage in usages}
        assert input_tokens > 0
    assert simulator.statistics().total.output_tokens == 40


@pytest.mark.parametrize("stream", [False, True])
async def test_a_finish_reason_is_null(simulator: Simulator, stream: bool) -> None:
    simulator.inject(Fault("null_finish_reason", times=2))
    assert (await final(simulator, "/responses", stream=stream))["status"] is None
    if stream:
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in await events(simulator, "/chat/completions")]
        assert set(reasons) == {None}
    else:
        answer = await final(simulator, "/chat/completions", stream=False)
        assert answer["choices"][0]["finish_reason"] is None
        assert answer["choices"][0]["message"]["content"]


async def test_the_last_event_has_no_output_and_what_is_kept_has(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("empty_output"))
    assert (await client.responses.create(model=MODEL, input=TEXT)).output_text  # it waits for a stream
    seen = await events(simulator, "/responses")
    assert [event["type"] for event in seen].count("response.output_item.done") == 1
    assert (seen[-1]["type"], seen[-1]["response"]["output"]) == ("response.completed", [])
    assert (await client.responses.retrieve(seen[-1]["response"]["id"])).output_text == SAID


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_tier_that_was_not_asked_for_serves(simulator: Simulator, path: str, stream: bool) -> None:
    simulator.inject(Fault("other_tier"), Fault("other_tier", tier="flex"))
    tiers = [(await final(simulator, path, stream=stream))["service_tier"] for _ in range(3)]
    assert tiers == ["priority", "flex", "default"]


@pytest.mark.parametrize("path", [*BODIES, "/embeddings"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_is_billed(simulator: Simulator, path: str, stream: bool) -> None:
    simulator.inject(Fault("billed_error"))
    settings = {"model": "text-embedding-3-small", "input": "The sea."} if path == "/embeddings" else {"stream": stream}
    response = await post(simulator, path, **settings)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    billed = simulator.statistics()
    await post(simulator, path, **settings)
    assert simulator.statistics() == msgspec.structs.replace(billed + billed, faults=1)


async def test_a_billed_error_leaves_the_conversation_free(simulator: Simulator) -> None:
    async with connect(simulator.url) as client:
        conversation = await client.conversations.create()
        for stream in (False, True):
            simulator.inject(Fault("billed_error"))
            with pytest.raises(openai.InternalServerError):
                await client.responses.create(model=MODEL, input=TEXT, conversation=conversation.id, stream=stream)
        await client.responses.create(model=MODEL, input=TEXT, conversation=conversation.id)
        assert len((await client.conversations.items.list(conversation.id)).data) == 2
