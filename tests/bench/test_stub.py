"""The model of the benchmarks: as real as a peer can tell, and the same whichever API and form it is asked in."""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from process_support import run_command
from simulator_support import connect

from runmeter.bench.peer import environment_of, find_uv
from runmeter.bench.question import SHIPPED
from runmeter.benchmarks.stub import ANSWER, CALLS, HANDOFFS, MODEL, PIECES, Stub
from runmeter.simulator import Reply, ScriptedCall, Simulator

USER: Any = {"role": "user", "content": "Is it sunny in Paris?"}
PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}


@pytest.fixture
def anyio_backend() -> str:
    """The stub gives way by asyncio: the benchmarks run on nothing else."""
    return "asyncio"


@pytest.fixture
def llm() -> Stub:
    return Stub()


@pytest.fixture
async def client(llm: Stub) -> AsyncOpenAI:
    """One that refuses answers that are not as the API's."""
    strict: AsyncOpenAI = llm.client(_strict_response_validation=True)
    return strict


def tool(name: str) -> Any:
    return {"type": "function", "name": name, "parameters": PARAMETERS, "strict": False}


def chat_tool(name: str) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": PARAMETERS}}


async def events_of(client: AsyncOpenAI, **request: Any) -> list[Any]:
    return [event async for event in await client.responses.create(model=MODEL, stream=True, **request)]


async def chunks_of(client: AsyncOpenAI, **request: Any) -> list[Any]:
    return [chunk async for chunk in await client.chat.completions.create(model=MODEL, stream=True, **request)]


def names_in(value: Any, where: str = "") -> Iterator[str]:
    """All names in some JSON, each with the way to it."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield f"{where}.{name}"
            yield from names_in(each, f"{where}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from names_in(each, where)


def names_of(events: Sequence[Any]) -> set[str]:
    """All names in some events, each with the event's type and the way to it."""
    return {name for event in events for name in names_in(event.to_dict(mode="json"), getattr(event, "type", ""))}


# --- Responses ---


async def test_a_question_gets_the_answer_with_its_usage(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input="What is honey made of?")
    assert response.output_text == ANSWER
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.output_tokens == len(PIECES) == 50
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


async def test_a_stream_has_fifty_deltas_and_ends_with_the_same_response(client: AsyncOpenAI) -> None:
    events = await events_of(client, input="What is honey made of?")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) == 50
    assert "".join(deltas) == ANSWER == events[-1].response.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.output_tokens == 50
    assert len({event.item_id for event in events if hasattr(event, "item_id")}) == 1


@pytest.mark.parametrize("name", CALLS)
async def test_a_tool_it_knows_is_called_once(client: AsyncOpenAI, name: str) -> None:
    items: list[Any] = [USER]
    response = await client.responses.create(model=MODEL, input=items, tools=[tool(name)])
    (call,) = response.output
    assert call.type == "function_call"
    assert (call.name, call.arguments) == (name, CALLS[name])
    items += [call, {"type": "function_call_output", "call_id": call.call_id, "output": "Yes."}]
    response = await client.responses.create(model=MODEL, input=items, tools=[tool(name)])
    assert response.output_text == ANSWER


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_is_streamed_in_pieces(client: AsyncOpenAI, name: str) -> None:
    events = await events_of(client, input=[USER], tools=[tool("unknown"), tool(name)])
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == CALLS[name] == events[-1].response.output[0].arguments
    assert events[-1].response.output[0].name == name


async def test_a_tool_it_does_not_know_is_not_called(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input=[USER], tools=[tool("unknown")])
    assert response.output_text == ANSWER


# --- Chat Completions ---


async def test_a_chat_gets_the_answer_with_its_usage(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model=MODEL, messages=[USER])
    (choice,) = completion.choices
    assert (choice.message.content, choice.finish_reason) == (ANSWER, "stop")
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 50


@pytest.mark.parametrize("include", [True, False])
async def test_a_chat_stream_has_usage_only_if_asked(client: AsyncOpenAI, *, include: bool) -> None:
    chunks = await chunks_of(client, messages=[USER], stream_options={"include_usage": include})
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(filter(None, texts)) == ANSWER
    assert len([text for text in texts if text]) == 50
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    usage = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage is not None]
    assert usage == ([50] if include else [])


@pytest.mark.parametrize("name", CALLS)
async def test_a_chat_calls_a_tool_it_knows_once(client: AsyncOpenAI, name: str) -> None:
    messages: list[Any] = [USER]
    completion = await client.chat.completions.create(model=MODEL, messages=messages, tools=[chat_tool(name)])
    (choice,) = completion.choices
    (call,) = choice.message.tool_calls or []
    assert choice.finish_reason == "tool_calls"
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == (name, CALLS[name])
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "Yes."}]
    completion = await client.chat.completions.create(model=MODEL, messages=messages, tools=[chat_tool(name)])
    assert completion.choices[0].message.content == ANSWER


@pytest.mark.parametrize("name", CALLS)
async def test_a_chat_streams_a_call_in_pieces(client: AsyncOpenAI, name: str) -> None:
    chunks = await chunks_of(client, messages=[USER], tools=[chat_tool(name)])
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert [call.function.name for call in calls if call.function.name] == [name]
    assert "".join(call.function.arguments for call in calls) == CALLS[name]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


# --- Against the simulator of the API ---

WEATHER = "get_weather"
REPLIES = {"text": Reply(ANSWER), "call": Reply(tool_calls=(ScriptedCall(WEATHER, CALLS[WEATHER]),))}


def kinds(events: Sequence[Any]) -> list[str]:
    """Types of events in their order, of equal ones in a row the first."""
    types = [event.type for event in events]
    return [kind for kind, before in zip(types, [None, *types], strict=False) if kind != before]


@pytest.mark.parametrize("kind", REPLIES)
async def test_a_stream_has_the_events_of_the_api(client: AsyncOpenAI, kind: str) -> None:
    tools = [tool(WEATHER)] if kind == "call" else []
    async with Simulator(script=[REPLIES[kind]]) as url, connect(url) as real:
        there = await events_of(real, input=[USER], tools=tools)
    here = await events_of(client, input=[USER], tools=tools)
    assert kinds(here) == kinds(there)
    lacking = names_of(there) - names_of(here)
    assert {name for name in lacking if ".response.tools." not in name} == set(), "it does not echo tools"


@pytest.mark.parametrize("kind", REPLIES)
async def test_a_chat_has_the_chunks_of_the_api(client: AsyncOpenAI, kind: str) -> None:
    request: Any = {"messages": [USER], "stream_options": {"include_usage": True}}
    if kind == "call":
        request |= {"tools": [chat_tool(WEATHER)], "reasoning_effort": "none"}
    async with Simulator(script=[REPLIES[kind]]) as url, connect(url) as real:
        there = await chunks_of(real, **request)
    here = await chunks_of(client, **request)
    assert names_of(there) <= names_of(here)


# --- What it was asked ---


async def test_it_tells_once_what_it_was_asked(client: AsyncOpenAI, llm: Stub) -> None:
    parts: Any = [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "In two "}, {"type": "input_text", "text": "parts"}],
        }
    ]
    await client.responses.create(model=MODEL, input="As a string", tools=[tool("b"), tool("a")])
    await events_of(client, input=parts)
    await chunks_of(client, messages=[{"role": "system", "content": "Be brief."}, USER], tools=[chat_tool("c")])
    assert llm.asked() == [
        {"input": "As a string", "tools": ["a", "b"], "stream": False},
        {"input": "In two parts", "tools": [], "stream": True},
        {"input": USER["content"], "tools": ["c"], "stream": True},
    ]
    assert llm.asked() == []


@pytest.mark.parametrize("name", CALLS)
async def test_the_output_of_a_tool_is_what_it_is_asked_last_but_for_a_handoff(
    client: AsyncOpenAI, llm: Stub, name: str
) -> None:
    call: Any = (await client.responses.create(model=MODEL, input=[USER], tools=[tool(name)])).output[0]
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Done."}
    await client.responses.create(model=MODEL, input=[USER, call, output])
    message = (
        (await client.chat.completions.create(model=MODEL, messages=[USER], tools=[chat_tool(name)])).choices[0].message
    )
    said: Any = {"role": "tool", "tool_call_id": (message.tool_calls or [])[0].id, "content": "Done."}
    messages: Any = [USER, message, said]
    await client.chat.completions.create(model=MODEL, messages=messages)
    last = USER["content"] if name in HANDOFFS else "Done."
    assert [each["input"] for each in llm.asked()] == [USER["content"], last] * 2


async def test_a_handoff_has_one_name_whatever_it_is_called(client: AsyncOpenAI, llm: Stub) -> None:
    for name in HANDOFFS:
        await client.responses.create(model=MODEL, input=[USER], tools=[tool(name)])
    assert [each["tools"] for each in llm.asked()] == [["transfer_to_billing"]] * len(HANDOFFS)


# --- As a transport ---


async def test_no_two_answers_have_the_same_ids(client: AsyncOpenAI) -> None:
    responses = [await client.responses.create(model=MODEL, input=[USER]) for _ in range(3)]
    assert len({response.id for response in responses}) == 3
    assert len({response.output[0].id for response in responses}) == 3
    assert len({response._request_id for response in responses}) == 3


async def test_requests_made_together_are_in_flight_together(llm: Stub) -> None:
    order: list[str] = []
    client = llm.http_client()

    async def ask(number: int) -> None:
        order.append(f"{number} asks")
        await client.post("http://stub.invalid/v1/responses", json={"input": "a"})
        order.append(f"{number} is answered")

    await asyncio.gather(ask(1), ask(2))
    assert order == ["1 asks", "2 asks", "1 is answered", "2 is answered"]


async def test_an_api_it_has_not_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        await client.embeddings.create(model=MODEL, input="honey")


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
async def test_either_http_library_can_be_used(llm: Stub, library: str) -> None:
    http = llm.http_client(library)
    assert type(http).__module__.startswith(f"{library}.") or type(http).__module__ == library
    client = llm.client(http_client=http)
    assert (await client.responses.create(model=MODEL, input=[USER])).output_text == ANSWER
    assert len(await events_of(client, input=[USER])) == 58
    await client.close()


SCRIPT = """
import asyncio, json, openai, stub

async def main():
    llm = stub.Stub()
    async with llm.client() as client:
        plain = await client.responses.create(model=stub.MODEL, input="a")
        events = [event async for event in await client.responses.create(model=stub.MODEL, input="b", stream=True)]
        chat = await client.chat.completions.create(model=stub.MODEL, messages=[{"role": "user", "content": "c"}])
    print(json.dumps({
        "version": openai.__version__,
        "texts": [plain.output_text, events[-1].response.output_text, chat.choices[0].message.content],
        "usage": [plain.usage.output_tokens, events[-1].response.usage.output_tokens, chat.usage.completion_tokens],
        "asked": [each["input"] for each in llm.asked()],
    }))

asyncio.run(main())
"""


@pytest.mark.campaign
@pytest.mark.parametrize("release", ["1.66.5", "2.8.1"])
def test_older_clients_can_use_it(release: str, tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [find_uv(), "run", "--quiet", "--no-project", "--python", sys.executable, "--with", f"openai=={release}"]
    done = run_command([*command, str(script)], env=environment_of(SHIPPED))
    if done.returncode and "fetch" in done.stderr.lower():
        pytest.skip(f"no environment with openai {release}: {done.stderr.strip().splitlines()[-1]}")
    assert json.loads(done.stdout) == {
        "version": release,
        "texts": [ANSWER] * 3,
        "usage": [50] * 3,
        "asked": ["a", "b", "c"],
    }, done.stderr
