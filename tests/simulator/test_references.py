"""Items that a request only refers to, and what a response had as its input."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from simulator_support import connect

from runmeter.simulator import Prompt, Reply, ScriptedCall, Simulator

MODEL = "gpt-6-luna"
LOOK: Any = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}


async def respond(client: AsyncOpenAI, **settings: Any) -> Any:
    return await client.responses.create(model=MODEL, **settings)


def refer(item_id: Any, **settings: Any) -> Any:
    return {"type": "item_reference", "id": item_id, **settings}


async def test_a_call_answered_by_reference_is_a_call(simulator: Simulator, client: AsyncOpenAI) -> None:
    """As the Vercel AI SDK sends its history: the reasoning and the call by their ids, the output in full."""
    simulator.script(Reply(tool_calls=(ScriptedCall("look"),), reasoning_tokens=16))
    question: Any = {"role": "user", "content": "Where is it?"}
    first = await respond(client, input=[question], tools=[LOOK], reasoning={"effort": "low"})
    reasoning, call = first.output
    assert (reasoning.type, call.type) == ("reasoning", "function_call")
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "In Lyon."}
    by_reference = [question, refer(reasoning.id), refer(call.id), output]
    second = await respond(client, input=by_reference, tools=[LOOK])
    assert second.output_text == "look says: In Lyon."
    in_full = [question, reasoning.to_dict(), call.to_dict(), output]
    third = await respond(client, input=in_full, tools=[LOOK])
    assert second.usage.input_tokens == third.usage.input_tokens


async def test_an_answer_referred_to_is_seen_by_the_model() -> None:
    seen: list[str] = []

    def script(prompt: Prompt) -> Reply:
        seen.append("/".join(item.text for item in prompt.items))
        return Reply("Lyon.")

    async with Simulator(script=script) as url, connect(url) as client:
        first = await respond(client, input="Where?")
        answer = first.output[0].id
        untyped: Any = {"id": answer}
        for reference in (refer(answer), untyped):
            question: Any = {"role": "user", "content": "Sure?"}
            await respond(client, input=[reference, question])
    assert seen == ["Where?", "Lyon./Sure?", "Lyon./Sure?"]


async def test_the_input_of_a_response_can_be_referred_to(client: AsyncOpenAI) -> None:
    first = await respond(client, input="Where?")
    (given,) = (await client.responses.input_items.list(first.id)).data
    again = await respond(client, input=[refer(given.id)])
    assert again.output_text == first.output_text


async def test_items_that_are_not_kept_cannot_be_referred_to(client: AsyncOpenAI) -> None:
    kept = await respond(client, input="Where?")
    unkept = await respond(client, input="Where?", store=False)
    conversation = await client.conversations.create(items=[{"role": "user", "content": "Hi."}])
    item: Any = (await client.conversations.items.list(conversation.id)).data[0]
    await respond(client, input=[refer(kept.output[0].id), refer(item.id)])
    await client.conversations.items.delete(item.id, conversation_id=conversation.id)
    for gone in ("msg_1", unkept.output[0].id, item.id):
        with pytest.raises(openai.NotFoundError, match=f"Item with id '{gone}' not found") as caught:
            await respond(client, input=[refer(gone)])
        assert (caught.value.param, caught.value.type) == ("input", "invalid_request_error")


async def test_what_was_thought_and_not_kept_is_only_read_if_it_is_sent_along(
    simulator: Simulator, client: AsyncOpenAI
) -> None:
    simulator.script(Reply("Lyon.", reasoning_tokens=16))
    first = await respond(client, input="Where?", store=False)
    thought: Any = first.output[0].to_dict()
    rest: Any = [first.output[1].to_dict(), {"role": "user", "content": "Sure?"}]
    await respond(client, input=[thought, *rest], store=False)
    del thought["encrypted_content"]
    with pytest.raises(openai.NotFoundError, match="Items are not persisted when `store` is set to false"):
        await respond(client, input=[thought, *rest])


async def test_what_was_thought_and_what_came_of_it_go_together(simulator: Simulator, client: AsyncOpenAI) -> None:
    calls = (ScriptedCall("look"), ScriptedCall("look"))
    simulator.script(Reply(tool_calls=calls, reasoning_tokens=16), Reply("Lyon.", reasoning_tokens=16))
    thought, one, two = (await respond(client, input="Where?", tools=[LOOK])).output
    more, said = (await respond(client, input="Sure?")).output
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "x"} for call in (one, two)]
    in_full = [item.to_dict(exclude_none=True) for item in (one, two)]
    question = {"role": "user", "content": "And?"}

    whole: list[Any] = [
        [refer(thought.id), *in_full, *outputs],
        [refer(thought.id), refer(one.id), refer(two.id), *outputs],
        [refer(more.id), refer(said.id), question],
        [*({**call, "id": None} for call in in_full), *outputs],  # as items of the caller's own
        [{"role": "assistant", "content": "Lyon."}, question],
        [refer(thought.id), *({**call, "id": None} for call in in_full), *outputs],  # as the Vercel AI SDK sends them
        [more.to_dict(), question],  # what was thought is sent along
    ]
    for given in whole:
        assert (await respond(client, input=given)).status == "completed"

    alone = f"Item '{thought.id}' of type 'reasoning' was provided without its required following item."
    torn: list[tuple[Any, str]] = [
        ([question, refer(thought.id)], alone),
        ([refer(thought.id), question], alone),
        (
            [*in_full, *outputs],
            f"Item '{one.id}' of type 'function_call' was provided without its required 'reasoning'",
        ),
        (
            [refer(said.id), question],
            f"Item '{said.id}' of type 'message' was provided without its required 'reasoning'",
        ),
    ]
    for given, complaint in torn:
        with pytest.raises(openai.BadRequestError, match=complaint) as caught:
            await respond(client, input=given)
        assert (caught.value.param, caught.value.code) == ("input", None)


CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


def said(role: str, **part: Any) -> Any:
    return {"role": role, "content": [part]}


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        (refer("msg_1", role="user"), "role", "unknown_parameter"),
        ({"type": "item_reference"}, "id", "missing_required_parameter"),
        (refer("msg-1"), "id", "invalid_value"),
        ({"role": "user", "content": "Hi.", "id": ""}, "id", "invalid_value"),
        ({"role": "user", "content": "Hi.", "id": "chatcmpl_9"}, "id", "invalid_value"),
        ({"role": "assistant", "content": "Hi.", "id": "rs_9"}, "id", "invalid_value"),
        ({"role": "user", "content": "Hi.", "id": f"msg_{'9' * 61}"}, "id", "string_above_max_length"),
        ({**CALL, "call_id": "c" * 65}, "call_id", "string_above_max_length"),
        ({**CALL, "id": "msg_1"}, "id", "invalid_value"),
        ({"type": "brand_new"}, "type", "invalid_value"),
        ({"role": "user", "content": "Hi.", "status": "done"}, "status", "invalid_value"),
        (said("user", type="output_text", text="x"), "content[0].type", "invalid_value"),
        (said("assistant", type="input_text", text="x"), "content[0].type", "invalid_value"),
        (said("user", text="x"), "content[0].type", "missing_required_parameter"),
        (said("user", type="input_text"), "content[0].text", "missing_required_parameter"),
        (said("user", type="input_text", text="x", cache={}), "content[0].cache", "unknown_parameter"),
    ],
    ids=str,
)
async def test_items_the_api_does_not_take_are_refused(client: AsyncOpenAI, item: Any, param: str, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await respond(client, input=[item])
    assert (caught.value.param, caught.value.code) == (f"input[0].{param}", code)


async def test_input_items_are_those_of_the_request_page_by_page(client: AsyncOpenAI) -> None:
    first = await respond(client, input="Where?")
    given: list[Any] = [{"role": "user", "content": str(number)} for number in range(5)]
    second = await respond(client, input=given, previous_response_id=first.id)
    items: Any = client.responses.input_items
    page = await items.list(second.id, limit=2)
    assert [item.content[0].text for item in page.data] == ["4", "3"]
    assert [item.content[0].text async for item in items.list(second.id, order="asc", limit=2)] == list("01234")
    with pytest.raises(openai.NotFoundError):
        await items.list(second.id, after="msg_1")
    with pytest.raises(openai.NotFoundError):
        await items.list("resp_1")


async def test_a_response_that_is_no_background_one_cannot_be_cancelled(client: AsyncOpenAI) -> None:
    response = await respond(client, input="Where?")
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        await client.responses.cancel(response.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel("resp_1")
