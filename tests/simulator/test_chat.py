"""The Chat Completions API of the simulator, through the real client with strict validation, and through LangChain."""

import json
from typing import Any

import httpx2
import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionChunk

from runmeter.engine import TokenCounter
from runmeter.simulator import Reply, ScriptedCall, Simulator

MODEL = "gpt-6-luna"
QUESTION: Any = {"role": "user", "content": "Where is my parcel AB-123? It should have come on Monday."}
FIND_PARCEL: Any = {
    "type": "function",
    "function": {
        "name": "find_parcel",
        "description": "Find out where a parcel is.",
        "parameters": {
            "type": "object",
            "properties": {"parcel_id": {"type": "string"}},
            "required": ["parcel_id"],
        },
    },
}


def usage_of(answer: Any) -> CompletionUsage:
    assert isinstance(answer.usage, CompletionUsage)
    return answer.usage


async def chunks_of(client: AsyncOpenAI, **request: Any) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(stream=True, **request)
    return [chunk async for chunk in stream]


# --- Plain ---


async def test_an_answer_and_its_usage(client: AsyncOpenAI, simulator: Simulator) -> None:
    messages: list[Any] = [{"role": "developer", "content": "Be brief."}, QUESTION]
    completion = await client.chat.completions.create(model=MODEL, messages=messages, service_tier="fast")
    (choice,) = completion.choices
    assert choice.finish_reason == "stop"
    assert choice.message.content
    assert completion.service_tier == "priority"
    counter = TokenCounter()
    usage = usage_of(completion)
    assert usage.prompt_tokens == (await counter.count_messages(messages, MODEL)).tokens
    assert usage.completion_tokens == (await counter.count_text(choice.message.content, MODEL)).tokens
    billed = simulator.statistics().usage[MODEL]
    assert (billed.input_tokens, billed.output_tokens) == (usage.prompt_tokens, usage.completion_tokens)


async def test_both_apis_bill_the_same_prompt_alike(client: AsyncOpenAI) -> None:
    function: Any = {**FIND_PARCEL["function"], "type": "function"}
    chat = await client.chat.completions.create(
        model="gpt-4.1", messages=[{"role": "developer", "content": "Be brief."}, QUESTION], tools=[FIND_PARCEL]
    )
    response = await client.responses.create(
        model="gpt-4.1", instructions="Be brief.", input=QUESTION["content"], tools=[function]
    )
    assert response.usage is not None
    assert usage_of(chat).prompt_tokens == response.usage.input_tokens
    assert usage_of(chat).completion_tokens == response.usage.output_tokens


async def test_a_tool_is_called_then_its_output_used(client: AsyncOpenAI) -> None:
    request: dict[str, Any] = {"model": "gpt-4.1", "tools": [FIND_PARCEL]}
    first = await client.chat.completions.create(messages=[QUESTION], **request)
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.content is None
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"parcel_id": "AB-123"}
    output = {"role": "tool", "tool_call_id": call.id, "content": "It is in Berlin."}
    messages: list[Any] = [QUESTION, message.to_dict(), output]
    second = await client.chat.completions.create(messages=messages, **request)
    assert second.choices[0].message.content == "find_parcel says: It is in Berlin."
    expected = await TokenCounter().count_messages(messages, "gpt-4.1", tools=[FIND_PARCEL])
    assert usage_of(second).prompt_tokens == expected.tokens


@pytest.mark.parametrize(
    ("choice", "called"),
    [("none", False), ("auto", True), ({"type": "function", "function": {"name": "find_parcel"}}, True)],
)
async def test_tool_choice_is_obeyed(client: AsyncOpenAI, choice: Any, called: bool) -> None:
    completion = await client.chat.completions.create(
        model="gpt-4.1", messages=[QUESTION], tools=[FIND_PARCEL], tool_choice=choice
    )
    assert bool(completion.choices[0].message.tool_calls) is called


async def test_calls_must_be_answered_and_answers_be_called_for(client: AsyncOpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "find_parcel", "arguments": "{}"}}
    asking: Any = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer: Any = {"role": "tool", "tool_call_id": "call_1", "content": "x"}
    with pytest.raises(openai.BadRequestError, match="did not have response messages: call_1") as caught:
        await client.chat.completions.create(model=MODEL, messages=[QUESTION, asking, QUESTION])
    assert caught.value.param == "messages.[2].role"
    with pytest.raises(openai.BadRequestError, match="must be a response to a preceeding message") as caught:
        await client.chat.completions.create(model=MODEL, messages=[QUESTION, answer])
    assert caught.value.param == "messages.[1].role"
    for messages in ([QUESTION, asking], [QUESTION, asking, answer, answer]):
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model=MODEL, messages=messages)
    await client.chat.completions.create(model=MODEL, messages=[QUESTION, asking, answer, QUESTION])


@pytest.mark.parametrize(("model", "limit"), [("gpt-4.1", "max_tokens"), (MODEL, "max_completion_tokens")])
async def test_the_output_limit_is_kept_to_the_token(
    client: AsyncOpenAI, simulator: Simulator, model: str, limit: str
) -> None:
    simulator.script(Reply("word " * 100))
    request: Any = {"model": model, "messages": [QUESTION], limit: 7}
    completion = await client.chat.completions.create(**request)
    assert completion.choices[0].finish_reason == "length"
    assert usage_of(completion).completion_tokens == 7


async def test_reasoning_is_billed_as_output(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model=MODEL, messages=[QUESTION], reasoning_effort="low")
    details = usage_of(completion).completion_tokens_details
    assert details is not None
    assert details.reasoning_tokens is not None
    assert usage_of(completion).completion_tokens > details.reasoning_tokens >= 64


async def test_structured_output_fits_the_schema(client: AsyncOpenAI) -> None:
    schema: Any = {"type": "object", "properties": {"day": {"type": "string", "enum": ["Friday", "Monday"]}}}
    completion = await client.chat.completions.create(
        model=MODEL,
        messages=[QUESTION],
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )
    assert json.loads(completion.choices[0].message.content or "") == {"day": "Monday"}


@pytest.mark.parametrize(
    ("model", "settings", "param"),
    [
        (MODEL, {"temperature": 0.1}, "temperature"),
        (MODEL, {"top_p": 0.5}, "top_p"),
        (MODEL, {"max_tokens": 100}, "max_tokens"),
        (MODEL, {"tools": [FIND_PARCEL]}, "reasoning_effort"),
        ("gpt-5.4", {"tools": [FIND_PARCEL], "reasoning_effort": "low"}, "reasoning_effort"),
        ("gpt-6.1-sol", {"tools": [FIND_PARCEL], "reasoning_effort": "none"}, "reasoning_effort"),
        (MODEL, {"n": 2}, "n"),
    ],
)
async def test_what_a_reasoning_model_refuses(
    client: AsyncOpenAI, model: str, settings: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=model, messages=[QUESTION], **settings)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (MODEL, {"temperature": 1, "top_p": 1}),
        (MODEL, {"temperature": 0.1, "reasoning_effort": "none"}),
        (MODEL, {"tools": [FIND_PARCEL], "reasoning_effort": "none"}),
        ("gpt-5.4", {"tools": [FIND_PARCEL]}),
        ("gpt-5", {"tools": [FIND_PARCEL], "reasoning_effort": "low"}),
    ],
)
async def test_what_it_takes(client: AsyncOpenAI, model: str, settings: dict[str, Any]) -> None:
    assert (await client.chat.completions.create(model=model, messages=[QUESTION], **settings)).choices


# --- Streamed ---

# openai 3.54 leaves a generator open when it sees `[DONE]`, and trio says so: on trio, see the test without the client.
ASYNCIO_ONLY = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@ASYNCIO_ONLY
async def test_a_streamed_text_with_usage(client: AsyncOpenAI, simulator: Simulator) -> None:
    simulator.script(Reply("Naïve résumé: 漢字 👍🏽, and more."))
    chunks = await chunks_of(client, model=MODEL, messages=[QUESTION], stream_options={"include_usage": True})
    *body, last = chunks
    assert body[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in body) == "Naïve résumé: 漢字 👍🏽, and more."
    assert [chunk.choices[0].finish_reason for chunk in body] == [None] * (len(body) - 1) + ["stop"]
    assert [chunk.usage for chunk in body] == [None] * len(body)
    assert last.choices == []
    assert usage_of(last).total_tokens == simulator.statistics().usage[MODEL].total_tokens
    assert len({chunk.id for chunk in chunks}) == 1


async def test_without_the_option_no_chunk_has_usage(simulator: Simulator) -> None:
    body = {"model": MODEL, "messages": [QUESTION], "stream": True}
    async with httpx2.AsyncClient(headers={"authorization": "Bearer sk"}) as http:
        response = await http.post(f"{simulator.url}/chat/completions", json=body)
    *blocks, end = response.text.split("\n\n")
    assert (blocks[-1], end) == ("data: [DONE]", "")
    chunks = [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]
    assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks)
    assert simulator.statistics().usage[MODEL].output_tokens > 0


@ASYNCIO_ONLY
async def test_streamed_calls_are_pieced_together_by_index(client: AsyncOpenAI, simulator: Simulator) -> None:
    calls = (
        ScriptedCall("find_parcel", '{"parcel_id": "AB-123"}'),
        ScriptedCall("find_parcel", '{"parcel_id": "CD-456"}'),
    )
    simulator.script(Reply("Two, then.", calls))
    chunks = await chunks_of(client, model="gpt-4.1", messages=[QUESTION], tools=[FIND_PARCEL])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Two, then."
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or ()]
    for index, call in enumerate(calls):
        first, *rest = [delta for delta in deltas if delta.index == index]
        assert first.function is not None
        assert first.id is not None
        assert (first.type, first.function.name, first.function.arguments) == ("function", "find_parcel", "")
        arguments = [delta.function.arguments or "" for delta in rest if delta.function]
        assert "".join(arguments) == call.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert simulator.statistics().tool_calls == 2


# --- LangChain ---


@tool
def find_parcel(parcel_id: str) -> str:
    """Find out where a parcel is."""
    return f"Parcel {parcel_id} is in Berlin."


def langchain(simulator: Simulator, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=simulator.url, api_key="sk-simulated", max_retries=0, **settings)  # type: ignore[arg-type] # a str is made a SecretStr


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # LangChain knows no other
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "settings", [{"use_responses_api": False, "reasoning_effort": "none"}, {}], ids=["chat", "auto"]
)
async def test_langchain_makes_a_round_with_a_tool(
    simulator: Simulator, settings: dict[str, Any], streaming: bool
) -> None:
    model = langchain(simulator, stream_usage=True, **settings).bind_tools([find_parcel])

    async def ask(messages: list[BaseMessage]) -> AIMessage:
        if not streaming:
            return await model.ainvoke(messages)
        chunks = [chunk async for chunk in model.astream(messages)]
        answer = chunks[0]
        for chunk in chunks[1:]:
            assert isinstance(answer, AIMessageChunk)
            assert isinstance(chunk, AIMessageChunk)
            answer += chunk
        return answer

    messages: list[BaseMessage] = [HumanMessage(QUESTION["content"])]
    first = await ask(messages)
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == ("find_parcel", {"parcel_id": "AB-123"})
    output = ToolMessage(find_parcel.invoke(call["args"]), tool_call_id=call["id"])
    second = await ask([*messages, first, output])
    assert second.text == "find_parcel says: Parcel AB-123 is in Berlin."
    statistics = simulator.statistics()
    assert first.usage_metadata is not None
    assert second.usage_metadata is not None
    told = first.usage_metadata["total_tokens"] + second.usage_metadata["total_tokens"]
    assert told == statistics.usage[MODEL].total_tokens
    path = "POST /responses" if not settings else "POST /chat/completions"
    assert statistics.requests == {path: 2}


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_an_agent_that_must_call_a_tool_on_every_turn_ends(client: AsyncOpenAI, api: str) -> None:
    """As Pydantic AI and LangChain's `ToolStrategy` have a structured answer: by a tool that must be called."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    functions = [{"name": name, "parameters": schema} for name in ("find_parcel", "weather", "final_result")]
    history: list[Any] = [{"role": "user", "content": "Where is my parcel?"}]
    called: list[str] = []
    while "final_result" not in called:
        assert len(called) < len(functions), "it calls what it has called before"
        if api == "responses":
            tools: Any = [{"type": "function", **function} for function in functions]
            response: Any = await client.responses.create(
                model=MODEL, input=history, tools=tools, tool_choice="required"
            )
            calls = [item for item in response.output if item.type == "function_call"]
            called += [call.name for call in calls]
            outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "Lyon"} for call in calls]
            history += [*(item.to_dict() for item in response.output), *outputs]
        else:
            tools = [{"type": "function", "function": function} for function in functions]
            completion = await client.chat.completions.create(
                model="gpt-4.1", messages=history, tools=tools, tool_choice="required"
            )
            message: Any = completion.choices[0].message
            called += [call.function.name for call in message.tool_calls]
            outputs = [{"role": "tool", "tool_call_id": call.id, "content": "Lyon"} for call in message.tool_calls]
            history += [message.to_dict(), *outputs]
    assert len(set(called)) == len(called)
