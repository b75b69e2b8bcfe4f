"""The Responses API of the simulator, through the real client with strict validation."""

import json
from typing import Any

import anyio
import httpx2
import openai
import pydantic
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseStreamEvent, ResponseUsage
from simulator_support import connect

from runmeter.engine import TokenCounter
from runmeter.simulator import Fault, Reply, ScriptedCall, Simulator

MODEL = "gpt-6-luna"
QUESTION = "Where is my parcel AB-123? It should have come on Monday."  # one tool call
QUESTION_FOR_TWO = "Where is parcel AB-125, and what is the weather like?"
FIND_PARCEL: Any = {
    "type": "function",
    "name": "find_parcel",
    "description": "Find out where a parcel is.",
    "parameters": {
        "type": "object",
        "properties": {"parcel_id": {"type": "string", "description": "The parcel's number."}},
        "required": ["parcel_id"],
        "additionalProperties": False,
    },
}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
        "required": ["city", "unit"],
    },
}


def usage_of(response: Response) -> ResponseUsage:
    assert response.usage is not None
    return response.usage


def calls_in(response: Response) -> list[ResponseFunctionToolCall]:
    return [item for item in response.output if item.type == "function_call"]


def answers(response: Response, output: str = '{"status": "in transit", "city": "Berlin"}') -> list[Any]:
    return [{"type": "function_call_output", "call_id": call.call_id, "output": output} for call in calls_in(response)]


async def events_of(stream: Any) -> list[ResponseStreamEvent]:
    return [event async for event in stream]


# --- Text ---


async def test_an_answer_is_made_from_the_question_and_its_usage_is_counted(client: AsyncOpenAI) -> None:
    text = "The archive holds letters. The letters of the archive were written in Trieste. Nobody reads them."
    response = await client.responses.create(model=MODEL, input=text, instructions="Be brief.")
    assert response.status == "completed"
    assert response.output_text in text
    counter = TokenCounter()
    usage = usage_of(response)
    expected = await counter.count_messages(text, MODEL, instructions="Be brief.")
    assert usage.input_tokens == expected.tokens
    assert usage.output_tokens == (await counter.count_text(response.output_text, MODEL)).tokens
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.output_tokens_details.reasoning_tokens == 0


async def test_settings_are_echoed(client: AsyncOpenAI) -> None:
    response = await client.responses.create(
        model="gpt-4.1",
        input="Hi.",
        instructions="Be brief.",
        tools=[FIND_PARCEL],
        tool_choice="none",
        parallel_tool_calls=False,
        metadata={"tenant": "acme"},
        max_output_tokens=100,
        temperature=0.1,
        top_p=0.5,
        user="u1",
        service_tier="flex",
        prompt_cache_key="k",
    )
    assert response.tools[0].to_dict() == {**FIND_PARCEL, "strict": True}
    assert (response.instructions, response.tool_choice, response.metadata) == ("Be brief.", "none", {"tenant": "acme"})
    assert (response.max_output_tokens, response.temperature, response.top_p) == (100, 0.1, 0.5)
    assert (response.user, response.service_tier, response.prompt_cache_key) == ("u1", "flex", "k")
    assert not response.parallel_tool_calls


@pytest.mark.parametrize(
    ("requested", "served"), [(None, "default"), ("auto", "default"), ("fast", "priority"), ("flex", "flex")]
)
async def test_the_tier_served_is_reported(client: AsyncOpenAI, requested: Any, served: str) -> None:
    response = await client.responses.create(model=MODEL, input="Hi.", service_tier=requested)
    assert response.service_tier == served


async def test_the_output_limit_is_kept_to_the_token(client: AsyncOpenAI, simulator: Simulator) -> None:
    simulator.script(Reply("One word after another, and yet another. " * 20))
    response = await client.responses.create(model=MODEL, input="Talk.", max_output_tokens=21)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert usage_of(response).output_tokens == 21
    assert response.output[0].type == "message"
    assert response.output[0].status == "incomplete"
    assert "One word after another".startswith(response.output_text[:22])


async def test_a_limit_that_is_just_enough_cuts_nothing(client: AsyncOpenAI, simulator: Simulator) -> None:
    text = "word " * 15 + "end"
    tokens = (await TokenCounter().count_text(text, MODEL)).tokens
    assert tokens == 16
    simulator.script(Reply(text))
    response = await client.responses.create(model=MODEL, input="Talk.", max_output_tokens=16)
    assert (response.status, response.output_text) == ("completed", text)


async def test_too_small_a_limit_is_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=">= 16, but got 15") as caught:
        await client.responses.create(model=MODEL, input="Hi.", max_output_tokens=15)
    assert caught.value.code == "integer_below_min_value"


async def test_structured_output_fits_the_schema(client: AsyncOpenAI) -> None:
    class Line(pydantic.BaseModel):
        item: str
        amount: int

    class Order(pydantic.BaseModel):
        customer: str
        urgent: bool
        lines: list[Line]

    response = await client.responses.parse(model=MODEL, input="Ada orders 12 lamps.", text_format=Order)
    assert response.output_parsed is not None
    assert response.output_parsed.customer == "Ada"
    assert response.output_parsed.lines[0].amount == 12


# --- Reasoning ---


async def test_reasoning_comes_first_and_is_billed_as_output(client: AsyncOpenAI) -> None:
    plain = await client.responses.create(model=MODEL, input=QUESTION)
    thought = await client.responses.create(
        model=MODEL, input=QUESTION, reasoning={"effort": "high", "summary": "auto"}
    )
    assert [item.type for item in plain.output] == ["message"]
    assert [item.type for item in thought.output] == ["reasoning", "message"]
    assert thought.output[0].type == "reasoning"
    assert thought.output[0].summary[0].text
    assert thought.output[0].encrypted_content
    reasoning = usage_of(thought).output_tokens_details.reasoning_tokens
    assert reasoning >= 512
    assert usage_of(thought).output_tokens == usage_of(plain).output_tokens + reasoning


async def test_reasoning_may_use_up_the_limit(client: AsyncOpenAI) -> None:
    response = await client.responses.create(
        model=MODEL, input=QUESTION, reasoning={"effort": "high"}, max_output_tokens=100
    )
    assert response.status == "incomplete"
    assert [item.type for item in response.output] == ["reasoning"]
    assert usage_of(response).output_tokens == usage_of(response).output_tokens_details.reasoning_tokens == 100


@pytest.mark.parametrize(
    ("model", "settings", "param"),
    [
        (MODEL, {"temperature": 0.1}, "temperature"),
        (MODEL, {"top_p": 1.0}, "top_p"),
        (MODEL, {"temperature": 1.0, "reasoning": {"effort": "low"}}, "temperature"),
        ("gpt-5", {"temperature": 0.1}, "temperature"),
        ("gpt-6-astra", {"reasoning": {"effort": "none"}}, "reasoning.effort"),
        ("gpt-5", {"reasoning": {"effort": "none"}}, "reasoning.effort"),
        ("gpt-4.1", {"reasoning": {"effort": "low"}}, "reasoning.effort"),
    ],
)
async def test_what_a_reasoning_model_refuses(
    client: AsyncOpenAI, model: str, settings: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError, match="Unsupported") as caught:
        await client.responses.create(model=model, input="Hi.", **settings)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (MODEL, {"temperature": 0.1, "reasoning": {"effort": "none"}}),
        ("gpt-5.2", {"temperature": 0.1}),  # does not reason unless told to
        ("gpt-4.1", {"temperature": 0.1, "top_p": 0.9}),
        ("gpt-6-astra", {"reasoning": {"effort": "low"}}),
    ],
)
async def test_what_it_takes(client: AsyncOpenAI, model: str, settings: dict[str, Any]) -> None:
    assert (await client.responses.create(model=model, input="Hi.", **settings)).status == "completed"


# --- Tools ---


async def test_a_tool_is_called_then_its_output_used(client: AsyncOpenAI, simulator: Simulator) -> None:
    first = await client.responses.create(model=MODEL, input=QUESTION, tools=[WEATHER, FIND_PARCEL])
    (call,) = calls_in(first)
    assert call.name == "find_parcel"
    assert json.loads(call.arguments) == {"parcel_id": "AB-123"}
    counter = TokenCounter()
    expected = [(await counter.count_text(text, MODEL)).tokens for text in (call.name, call.arguments)]
    assert usage_of(first).output_tokens == sum(expected)

    history: list[Any] = [{"role": "user", "content": QUESTION}, *first.output, *answers(first)]
    second = await client.responses.create(model=MODEL, input=history, tools=[WEATHER, FIND_PARCEL])
    assert calls_in(second) == []
    assert "Berlin" in second.output_text
    assert simulator.statistics().tool_calls == 1


async def test_two_tools_are_called_at_once_for_some_texts(client: AsyncOpenAI) -> None:
    tools = [FIND_PARCEL, WEATHER]
    both = await client.responses.create(model=MODEL, input=QUESTION_FOR_TWO, tools=tools)
    assert {call.name for call in calls_in(both)} == {"find_parcel", "get_weather"}
    assert len({call.call_id for call in calls_in(both)}) == 2
    one = await client.responses.create(model=MODEL, input=QUESTION_FOR_TWO, tools=tools, parallel_tool_calls=False)
    assert len(calls_in(one)) == 1


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("none", []),
        ("auto", ["find_parcel"]),
        ("required", ["find_parcel"]),
        ({"type": "function", "name": "get_weather"}, ["get_weather"]),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get_weather"}]},
            ["get_weather"],
        ),
    ],
)
async def test_tool_choice_is_obeyed(client: AsyncOpenAI, choice: Any, called: list[str]) -> None:
    response = await client.responses.create(
        model=MODEL, input=QUESTION, tools=[FIND_PARCEL, WEATHER], tool_choice=choice
    )
    assert [call.name for call in calls_in(response)] == called


async def test_a_required_tool_is_called_again_and_again(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input=QUESTION, tools=[WEATHER], tool_choice="required")
    for _ in range(3):
        response = await client.responses.create(
            model=MODEL,
            input=answers(response),
            previous_response_id=response.id,
            tools=[WEATHER],
            tool_choice="required",
        )
        assert len(calls_in(response)) == 1


@pytest.mark.parametrize(
    ("choice", "tools"),
    [("required", []), ({"type": "function", "name": "nobody"}, [WEATHER]), ("sometimes", [WEATHER])],
)
async def test_an_impossible_tool_choice_is_refused(client: AsyncOpenAI, choice: Any, tools: list[Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model=MODEL, input="Hi.", tools=tools, tool_choice=choice)
    assert caught.value.param == "tool_choice"


async def test_a_call_without_output_is_refused(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input=QUESTION, tools=[FIND_PARCEL])
    call_id = calls_in(first)[0].call_id
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model=MODEL, input="And now?", previous_response_id=first.id)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body == {
        "message": f"No tool output found for function call {call_id}.",
        "type": "invalid_request_error",
        "param": "input",
        "code": None,
    }


async def test_an_output_without_call_is_refused(client: AsyncOpenAI) -> None:
    output: Any = {"type": "function_call_output", "call_id": "call_unheard_of", "output": "x"}
    with pytest.raises(openai.BadRequestError, match="No tool call found for function call output") as caught:
        await client.responses.create(model=MODEL, input=[output])
    assert caught.value.param == "input"


async def test_scripted_calls_are_passed_on_as_they_are(client: AsyncOpenAI, simulator: Simulator) -> None:
    simulator.script(
        Reply(
            "Let me see.",
            (ScriptedCall("find_parcel", '{"parcel_id": '), ScriptedCall("no_such_tool")),
            reasoning_tokens=7,
        )
    )
    response = await client.responses.create(model=MODEL, input=QUESTION, tools=[FIND_PARCEL])
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "function_call"]
    assert [call.arguments for call in calls_in(response)] == ['{"parcel_id": ', "{}"]
    assert usage_of(response).output_tokens_details.reasoning_tokens == 7
    assert response.output[1].type == "message"
    assert response.output[1].phase == "commentary"
    assert simulator.statistics().tool_calls == 2


# --- Conversations by previous_response_id, and stored responses ---


async def test_earlier_items_are_billed_again_but_instructions_are_not_carried_over(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input="The sky is grey today.", instructions="Be brief.")
    second = await client.responses.create(model=MODEL, input="It will rain.", previous_response_id=first.id)
    conversation = [
        {"role": "user", "content": "The sky is grey today."},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "It will rain."},
    ]
    expected = await TokenCounter().count_messages(conversation, MODEL)
    assert usage_of(second).input_tokens == expected.tokens
    assert second.previous_response_id == first.id


async def test_an_unknown_previous_response_is_refused(client: AsyncOpenAI) -> None:
    unstored = await client.responses.create(model=MODEL, input="Hi.", store=False)
    for response_id in ("resp_unheard_of", unstored.id):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model=MODEL, input="Hi.", previous_response_id=response_id)
        assert caught.value.code == "previous_response_not_found"


async def test_a_stored_response_is_retrieved_until_deleted(client: AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input="Hi there.")
    assert await client.responses.retrieve(response.id) == response
    await client.responses.delete(response.id)
    for gone in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            await gone(response.id)


async def test_what_is_not_simulated_is_refused_not_ignored(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="background"):
        await client.responses.create(model=MODEL, input="Hi.", background=True)


# --- Counting beforehand ---


async def test_the_input_count_is_what_is_billed(client: AsyncOpenAI, simulator: Simulator) -> None:
    first = await client.responses.create(model=MODEL, input=QUESTION, tools=[FIND_PARCEL, WEATHER])
    request: dict[str, Any] = {
        "model": MODEL,
        "instructions": "Answer in one sentence.",
        "tools": [FIND_PARCEL, WEATHER],
        "previous_response_id": first.id,
        "input": [*answers(first), {"role": "user", "content": "Thanks. And tomorrow?"}],
    }
    before = simulator.statistics().usage
    counted = await client.responses.input_tokens.count(**request)
    assert simulator.statistics().usage == before  # counting is free
    billed = await client.responses.create(**request)
    assert counted.object == "response.input_tokens"
    assert counted.input_tokens == usage_of(billed).input_tokens


# --- Streams ---


async def test_a_streamed_text_has_the_documented_events(client: AsyncOpenAI, simulator: Simulator) -> None:
    simulator.script(Reply("The parcel is in Berlin and comes tomorrow."))
    stream = await client.responses.create(model=MODEL, input=QUESTION, stream=True)
    events = await events_of(stream)
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert len(deltas) > 1
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in deltas) == "The parcel is in Berlin and comes tomorrow."
    created, last = events[0], events[-1]
    assert created.type == "response.created"
    assert (created.response.status, created.response.usage, created.response.output) == ("in_progress", None, [])
    assert last.type == "response.completed"
    assert await client.responses.retrieve(last.response.id) == last.response


@pytest.mark.parametrize("text", ["👩‍👩‍👧‍👦 Ünïcödé 漢字かな交じり文 🏳️‍🌈", ""])
async def test_deltas_join_to_the_text_whatever_it_is(client: AsyncOpenAI, simulator: Simulator, text: str) -> None:
    simulator.script(Reply(text))
    stream = await client.responses.create(model=MODEL, input="Hi.", stream=True)
    events = await events_of(stream)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == text
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == text


async def test_streamed_calls_follow_each_other_by_index(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(
        model=MODEL, input=QUESTION_FOR_TWO, tools=[FIND_PARCEL, WEATHER], stream=True
    )
    events = await events_of(stream)
    last = events[-1]
    assert last.type == "response.completed"
    for index, call in enumerate(calls_in(last.response)):
        mine = [event for event in events if getattr(event, "output_index", None) == index]
        assert [event.type for event in mine][:1] == ["response.output_item.added"]
        assert [event.type for event in mine][-2:] == [
            "response.function_call_arguments.done",
            "response.output_item.done",
        ]
        deltas = [event.delta for event in mine if event.type == "response.function_call_arguments.delta"]
        assert "".join(deltas) == call.arguments
        assert {getattr(event, "item_id", call.id) for event in mine} == {call.id}
    assert len(calls_in(last.response)) == 2


async def test_streamed_reasoning_comes_first(client: AsyncOpenAI) -> None:
    stream = await client.responses.create(
        model=MODEL, input=QUESTION, stream=True, reasoning={"effort": "low", "summary": "auto"}
    )
    events = await events_of(stream)
    types = [event.type for event in events if getattr(event, "output_index", None) == 0]
    kind = "response.reasoning_summary"
    assert types == [
        "response.output_item.added",
        *(f"{kind}_part.added", f"{kind}_text.delta", f"{kind}_text.done", f"{kind}_part.done"),
        "response.output_item.done",
    ]


async def test_a_stream_ends_with_the_same_response_as_a_plain_answer() -> None:
    async def ask(**settings: Any) -> Any:
        async with Simulator() as url, connect(url) as client:
            return await client.responses.create(model=MODEL, input=QUESTION, **settings)

    async def last_of(**settings: Any) -> Response:
        async with Simulator() as url, connect(url) as client:
            stream = await client.responses.create(model=MODEL, input=QUESTION, stream=True, **settings)
            last = (await events_of(stream))[-1]
            assert last.type in {"response.completed", "response.incomplete"}
            return last.response

    for settings in ({}, {"tools": [FIND_PARCEL]}, {"max_output_tokens": 16, "reasoning": {"effort": "minimal"}}):
        assert await last_of(**settings) == await ask(**settings)


async def test_a_cut_stream_ends_incomplete(client: AsyncOpenAI, simulator: Simulator) -> None:
    simulator.script(Reply("word " * 100))
    stream = await client.responses.create(model=MODEL, input="Talk.", stream=True, max_output_tokens=18)
    last = (await events_of(stream))[-1]
    assert last.type == "response.incomplete"
    assert usage_of(last.response).output_tokens == 18


async def test_the_wire_has_event_and_data_lines_and_no_done(simulator: Simulator) -> None:
    body = {"model": MODEL, "input": "Hi there.", "stream": True}
    async with httpx2.AsyncClient(headers={"authorization": "Bearer sk"}) as http:
        response = await http.post(f"{simulator.url}/responses", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *blocks, end = response.text.split("\n\n")
    assert end == ""
    for block in blocks:
        event, data = block.split("\n")
        assert event == f"event: {json.loads(data.removeprefix('data: '))['type']}"


async def test_the_clients_stream_helper_works(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model=MODEL, input=QUESTION, tools=[FIND_PARCEL]) as stream:
        async for _event in stream:
            pass
        final = await stream.get_final_response()
    assert [call.name for call in calls_in(final)] == ["find_parcel"]


async def test_a_client_that_leaves_is_billed_for_what_was_generated() -> None:
    slow = Fault("latency", seconds=0, between_chunks=0.005)
    simulator = Simulator(script=[Reply("word " * 50_000)], faults=[slow])
    body = json.dumps({"model": MODEL, "input": "Talk.", "stream": True}).encode()
    head = f"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk\r\ncontent-length: {len(body)}\r\n\r\n"
    async with simulator as url, connect(url) as client:
        seen = b""
        async with await anyio.connect_tcp("127.0.0.1", int(url.split(":")[2].removesuffix("/v1"))) as connection:
            await connection.send(head.encode() + body)
            while seen.count(b"event: response.output_text.delta") < 3:
                seen += await connection.receive()
        while not simulator.statistics().usage:  # the server notices in a moment, in its own thread
            await client.models.list()
        abandoned = await client.responses.retrieve(f"resp_{seen.partition(b'resp_')[2][:32].decode()}")
    billed = simulator.statistics().usage[MODEL]
    assert 12 <= billed.output_tokens < 50_000
    assert abandoned.status == "cancelled"
    assert usage_of(abandoned).output_tokens == billed.output_tokens
    assert usage_of(abandoned).input_tokens == billed.input_tokens
