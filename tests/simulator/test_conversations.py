"""The Conversations API of the simulator, and responses in conversations, through the real client."""

from typing import Any, cast

import anyio
import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.conversations import ConversationCreateParams, ConversationUpdateParams
from openai.types.conversations.item_list_params import ItemListParams
from openai.types.responses import Response
from simulator_support import connect
from time_support import advance_simulator, until

from runmeter.simulator import Fault, Prompt, Reply, ScriptedCall, Simulator
from runmeter.simulator.endpoints.conversations import CreateConversation, UpdateConversation
from runmeter.simulator.objects.pages import PageParams
from runmeter.simulator.objects.store import Store

MODEL = "gpt-6-luna"
LOOK: Any = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
CALL = Reply(tool_calls=(ScriptedCall("look"),))
HELLO: Any = {"role": "user", "content": "Hello."}
LOCKED = "Another process is currently operating on this conversation. Please retry in a few seconds."


async def ask(client: AsyncOpenAI, conversation: Any, text: Any = "The sky is grey today.", **settings: Any) -> Any:
    return await client.responses.create(model=MODEL, input=text, conversation=conversation, **settings)


async def items_of(client: AsyncOpenAI, conversation: str) -> list[Any]:
    return [item async for item in client.conversations.items.list(conversation, order="asc")]


async def types_of(client: AsyncOpenAI, conversation: str) -> list[str]:
    return [item.type for item in await items_of(client, conversation)]


async def read(stream: Any) -> list[Any]:
    """A stream's events, as far as it goes."""
    events = []
    try:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - what came before an error matters
    except openai.APIError:
        pass
    return events


# --- Conversations ---


async def test_a_conversation_lives_from_create_to_delete(client: AsyncOpenAI) -> None:
    made = await client.conversations.create(metadata={"tenant": "acme"})
    assert made.id.startswith("conv_")
    assert (made.object, made.metadata) == ("conversation", {"tenant": "acme"})
    assert await client.conversations.retrieve(made.id) == made
    changed = await client.conversations.update(made.id, metadata={"topic": "parcels"})
    assert (changed.id, changed.metadata) == (made.id, {"topic": "parcels"})
    assert await client.conversations.retrieve(made.id) == changed
    assert (await client.conversations.update(made.id, metadata=None)).metadata == {}
    deleted = await client.conversations.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "conversation.deleted")


async def test_what_is_not_there_is_not_found(client: AsyncOpenAI) -> None:
    gone = await client.conversations.create()
    await client.conversations.delete(gone.id)
    items = client.conversations.items
    for asking in (
        client.conversations.retrieve(gone.id),
        client.conversations.update(gone.id, metadata={}),
        client.conversations.delete(gone.id),
        items.create(gone.id, items=[HELLO]),
        items.retrieve("msg_1", conversation_id=gone.id),
        items.delete("msg_1", conversation_id=gone.id),
        ask(client, gone.id),
        ask(client, {"id": gone.id}),
        ask(client, gone.id, stream=True),
        client.responses.input_tokens.count(model=MODEL, input="Hi.", conversation=gone.id),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            await asking
        message = f"Conversation with id '{gone.id}' not found."
        expected = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        assert caught.value.body == expected


@pytest.mark.parametrize(
    "metadata", [{"k": "v" * 513}, {"k" * 65: "v"}, {f"k{i}": "v" for i in range(17)}, {"k": cast("Any", 5)}]
)
async def test_metadata_out_of_range_are_refused(client: AsyncOpenAI, metadata: dict[str, str]) -> None:
    with pytest.raises(openai.BadRequestError, match="metadata"):
        await client.conversations.create(metadata=metadata)


@pytest.mark.parametrize(
    ("params", "ours"),
    [
        (ConversationCreateParams, CreateConversation),
        (ConversationUpdateParams, UpdateConversation),
        (ItemListParams, PageParams),
    ],
)
def test_every_parameter_the_client_knows_is_known(params: Any, ours: Any) -> None:
    assert params.__required_keys__ | params.__optional_keys__ <= {*ours.__struct_fields__, "include"}


async def test_an_unknown_parameter_is_refused_and_an_empty_body_is_not(simulator: Simulator) -> None:
    async with httpx2.AsyncClient(headers={"authorization": "Bearer sk"}) as http:
        refused = await http.post(f"{simulator.url}/conversations", json={"topic": "parcels"})
        made = await http.post(f"{simulator.url}/conversations")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_parameter")
    assert (made.status_code, made.json()["metadata"]) == (200, {})


def test_only_so_many_are_kept_and_the_oldest_are_forgotten() -> None:
    store = Store[int](2)
    for number in range(3):
        store.put(f"conv_{number}", number)
    store.put("conv_2", 5)
    assert [store.get(f"conv_{number}") for number in range(3)] == [None, 1, 5]


async def test_requests_are_counted_and_nothing_is_billed(client: AsyncOpenAI, simulator: Simulator) -> None:
    conversation = await client.conversations.create(items=[HELLO])
    (item,) = await items_of(client, conversation.id)
    await client.conversations.items.retrieve(item.id, conversation_id=conversation.id)
    await client.conversations.items.delete(item.id, conversation_id=conversation.id)
    await client.conversations.items.create(conversation.id, items=[HELLO])
    await client.conversations.retrieve(conversation.id)
    await client.conversations.update(conversation.id, metadata={})
    await client.conversations.delete(conversation.id)
    statistics = simulator.statistics()
    assert statistics.usage == {}
    assert statistics.requests == {
        "POST /conversations": 1,
        "GET /conversations/{id}": 1,
        "POST /conversations/{id}": 1,
        "DELETE /conversations/{id}": 1,
        "POST /conversations/{id}/items": 1,
        "GET /conversations/{id}/items": 1,
        "GET /conversations/{id}/items/{item_id}": 1,
        "DELETE /conversations/{id}/items/{item_id}": 1,
    }


# --- Items ---

KINDS: list[Any] = [
    {"role": "user", "content": "Is it raining?"},
    {"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}, {"type": "input_text", "text": "?"}]},
    {"role": "assistant", "content": "Let me look.", "phase": "commentary"},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Look."}], "status": None},
    {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "Rain."}]},
]


async def test_every_kind_of_item_comes_back_as_the_client_knows_it(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(items=KINDS[:3])
    added = await client.conversations.items.create(conversation.id, items=KINDS[3:])
    assert (added.object, added.has_more) == ("list", False)
    assert (added.first_id, added.last_id) == (added.data[0].id, added.data[-1].id)
    items = await items_of(client, conversation.id)
    assert items[3:] == added.data
    assert [item.type for item in items] == [item.get("type", "message") for item in KINDS]
    assert {item.status for item in items} == {"completed"}
    assert [item.id.partition("_")[0] for item in items] == ["msg", "msg", "msg", "rs", "fc", "fco"]
    assert [part.type for item in items[:3] for part in item.content] == [
        *("input_text", "input_image", "input_text", "output_text")
    ]
    assert (items[2].role, items[2].phase, items[2].content[0].text) == ("assistant", "commentary", "Let me look.")
    assert (items[3].id, items[5].output[0].text) == ("rs_1", "Rain.")
    for item in items:
        assert await client.conversations.items.retrieve(item.id, conversation_id=conversation.id) == item


async def test_items_are_listed_page_by_page(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    for start in (0, 20):
        new: list[Any] = [{"role": "user", "content": str(number)} for number in range(start, start + 20)]
        await client.conversations.items.create(conversation.id, items=new)
    newest = await client.conversations.items.list(conversation.id)
    assert [item.content[0].text for item in cast("Any", newest.data)] == [str(n) for n in range(39, 19, -1)]
    assert (newest.has_more, newest.last_id) == (True, newest.data[-1].id)
    rest = await newest.get_next_page()
    assert (len(rest.data), rest.has_more) == (20, False)
    for order, numbers in (("asc", range(40)), ("desc", range(39, -1, -1))):
        paged = client.conversations.items.list(conversation.id, order=cast("Any", order), limit=7)
        found = [cast("Any", item).content[0].text async for item in paged]
        assert found == [str(number) for number in numbers]


async def test_an_empty_conversation_has_an_empty_list(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    page = await client.conversations.items.list(conversation.id)
    assert (page.data, page.has_more) == ([], False)


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ({"limit": 0}, "limit", "integer_below_min_value"),
        ({"limit": 101}, "limit", "integer_above_max_value"),
        ({"order": "random"}, "order", "invalid_value"),
    ],
)
async def test_a_page_that_makes_no_sense_is_refused(
    client: AsyncOpenAI, query: dict[str, Any], param: str, code: str
) -> None:
    conversation = await client.conversations.create()
    with pytest.raises(openai.BadRequestError) as caught:
        await client.conversations.items.list(conversation.id, **query)
    assert (caught.value.param, caught.value.code) == (param, code)


async def test_a_deleted_item_is_gone(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(items=[HELLO, {"role": "user", "content": "Bye."}])
    first, second = await items_of(client, conversation.id)
    assert await client.conversations.items.delete(first.id, conversation_id=conversation.id) == conversation
    assert await items_of(client, conversation.id) == [second]
    items = client.conversations.items
    for asking in (
        items.retrieve(first.id, conversation_id=conversation.id),
        items.delete(first.id, conversation_id=conversation.id),
    ):
        with pytest.raises(openai.NotFoundError, match=f"Item with id '{first.id}' not found in conversation"):
            await asking
    with pytest.raises(openai.NotFoundError):
        await client.conversations.items.list(conversation.id, after=first.id)


@pytest.mark.parametrize(
    ("items", "param", "code"),
    [
        ([HELLO] * 21, "items", "array_above_max_length"),
        ([HELLO, {**HELLO, "name": "Ada"}], "items[1].name", "unknown_parameter"),
        ([{"type": "web_search_call", "id": "ws_1", "status": "completed"}], "items[0].type", "not_simulated"),
        ([{**HELLO, "id": "msg_1"}] * 2, "items", None),
    ],
)
async def test_items_that_cannot_be_added_are_refused(
    client: AsyncOpenAI, items: list[Any], param: str, code: str | None
) -> None:
    conversation = await client.conversations.create()
    for asking in (
        client.conversations.create(items=items),
        client.conversations.items.create(conversation.id, items=items),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await asking
        assert (caught.value.param, caught.value.code) == (param, code)
    assert await items_of(client, conversation.id) == []


# --- Responses in a conversation ---


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_is_given_what_was_said_and_adds_to_it(
    client: AsyncOpenAI, simulator: Simulator, stream: bool
) -> None:
    simulator.script(Reply("It will rain.", reasoning_tokens=5))
    conversation = await client.conversations.create(items=[HELLO])
    response = await ask(client, conversation.id, stream=stream)
    if stream:
        response = (await read(response))[-1].response
    assert isinstance(response, Response)
    assert response.conversation is not None
    assert response.conversation.id == conversation.id
    assert (await client.responses.retrieve(response.id)).conversation == response.conversation
    items = await items_of(client, conversation.id)
    assert [item.type for item in items] == ["message", "message", "reasoning", "message"]
    assert [item.role for item in items if item.type == "message"] == ["user", "user", "assistant"]
    assert [item.to_dict() for item in items[2:]] == [item.to_dict() for item in response.output]


async def test_earlier_items_count_as_input(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(items=[HELLO])
    first = await ask(client, conversation.id)
    items: list[Any] = [HELLO, {"role": "user", "content": "The sky is grey today."}, *first.output]
    again: list[Any] = [*items, {"role": "user", "content": "And now?"}]
    counted = await client.responses.input_tokens.count(model=MODEL, input="And now?", conversation=conversation.id)
    assert len(await items_of(client, conversation.id)) == 3  # counting adds nothing
    second = await ask(client, {"id": conversation.id}, "And now?")
    whole = await client.responses.create(model=MODEL, input=again)
    assert counted.input_tokens == second.usage.input_tokens
    assert whole.usage is not None
    assert second.usage.input_tokens == whole.usage.input_tokens


async def test_a_conversation_with_items_needs_no_input(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(items=[HELLO])
    assert (await client.responses.create(model=MODEL, conversation=conversation.id)).status == "completed"
    assert len(await items_of(client, conversation.id)) == 2
    empty = await client.conversations.create()
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model=MODEL, conversation=empty.id)
    assert caught.value.code == "missing_required_parameter"


async def test_a_conversation_and_a_previous_response_exclude_each_other(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    first = await ask(client, conversation.id)
    both: Any = {"model": MODEL, "input": "Hi.", "conversation": conversation.id, "previous_response_id": first.id}
    for asking in (client.responses.create(**both), client.responses.input_tokens.count(**both)):
        with pytest.raises(openai.BadRequestError) as caught:
            await asking
        assert caught.value.code == "mutually_exclusive_parameters"
    assert (await ask(client, conversation.id)).status == "completed"  # and it is not locked by that


async def test_a_misshapen_conversation_is_refused(client: AsyncOpenAI) -> None:
    for conversation, param in (({}, "conversation.id"), ({"id": "x", "y": 1}, "conversation.y")):
        with pytest.raises(openai.BadRequestError) as caught:
            await ask(client, None, extra_body={"conversation": conversation})
        assert caught.value.param == param


async def test_sending_again_what_the_conversation_holds_is_refused(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    first = await ask(client, conversation.id)
    with pytest.raises(openai.BadRequestError, match=f"Duplicate item found with id {first.output[0].id}") as caught:
        await ask(client, conversation.id, first.output)
    assert (caught.value.param, caught.value.code) == ("input", None)


async def test_a_response_outlives_its_conversation(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(items=[HELLO])
    first = await ask(client, conversation.id)
    await client.conversations.delete(conversation.id)
    assert await client.responses.retrieve(first.id) == first
    second = await client.responses.create(model=MODEL, input="Go on.", previous_response_id=first.id)
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.total_tokens


async def test_a_conversation_deleted_while_it_is_answered_stays_deleted(
    client: AsyncOpenAI, simulator: Simulator
) -> None:
    conversation = await client.conversations.create()
    simulator.inject(Fault("latency", seconds=0, between_chunks=0.01))
    stream = await ask(client, conversation.id, stream=True)
    await client.conversations.delete(conversation.id)
    assert (await read(stream))[-1].type == "response.completed"
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(conversation.id)


async def test_an_unstored_response_adds_to_its_conversation_all_the_same(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    await ask(client, conversation.id, store=False)
    assert len(await items_of(client, conversation.id)) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_incomplete_response_adds_what_there_is(
    client: AsyncOpenAI, simulator: Simulator, stream: bool
) -> None:
    simulator.script(Reply("word " * 100))
    simulator.inject(Fault("incomplete"))
    conversation = await client.conversations.create()
    response = await ask(client, conversation.id, stream=stream)
    if stream:
        response = (await read(response))[-1].response
    assert response.status == "incomplete"
    said = (await items_of(client, conversation.id))[-1]
    assert (said.status, said.content[0].text) == ("incomplete", response.output_text)


# --- What ends badly adds nothing, and lets go ---

ENDS: list[Any] = ["stream_end", "stream_cut", "stream_error", "stream_error_nested", "failed"]

# openai 3.54 leaves a generator open when it raises in the middle of a stream, and trio says so.
ASYNCIO_ONLY = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@ASYNCIO_ONLY
@pytest.mark.parametrize("kind", ENDS)
async def test_a_stream_that_ends_badly_adds_nothing(client: AsyncOpenAI, simulator: Simulator, kind: Any) -> None:
    conversation = await client.conversations.create(items=[HELLO])
    simulator.inject(Fault(kind, after_events=2))
    events = await read(await ask(client, conversation.id, stream=True))
    assert events[-1].type != "response.completed"
    assert simulator.statistics().faults == 1
    assert (await ask(client, conversation.id)).status == "completed"  # it is free at once
    assert len(await items_of(client, conversation.id)) == 3


@pytest.mark.parametrize("kind", ["failed", "server_error", "rate_limit", "drop"])
async def test_a_plain_answer_that_fails_adds_nothing(client: AsyncOpenAI, simulator: Simulator, kind: Any) -> None:
    conversation = await client.conversations.create()
    simulator.inject(Fault(kind))
    try:
        assert (await ask(client, conversation.id)).status == "failed"
    except openai.APIError:
        assert kind != "failed"
    assert await items_of(client, conversation.id) == []
    assert (await ask(client, conversation.id)).status == "completed"


async def test_a_script_that_raises_lets_go(caplog: pytest.LogCaptureFixture) -> None:
    def script(prompt: Prompt) -> Reply | None:
        if "bad" in prompt.user_text:
            raise RuntimeError("I am a bad script")
        return None

    async with Simulator(script=script) as url, connect(url) as client:
        conversation = await client.conversations.create()
        with pytest.raises(openai.InternalServerError, match="bad script"):
            await ask(client, conversation.id, "Be bad.")
        assert await items_of(client, conversation.id) == []
        assert (await ask(client, conversation.id)).status == "completed"
    assert "bad script" in caplog.text


async def test_a_refused_request_lets_go(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    for settings in ({"temperature": 0.5}, {"max_output_tokens": 1}, {"background": True}, {"model": "gpt-4"}):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.responses.create(
                **{"model": MODEL, "input": "Hi.", "conversation": conversation.id, **cast("Any", settings)}
            )
        assert caught.value.code != "conversation_locked"
    assert (await ask(client, conversation.id)).status == "completed"
    assert len(await items_of(client, conversation.id)) == 2


# --- One response at a time ---


async def refused(client: AsyncOpenAI, conversation: str) -> bool:
    """Whether the conversation is locked."""
    try:
        await ask(client, conversation)
    except openai.BadRequestError as error:
        body = error.body
    else:
        return False
    assert body == {
        "message": LOCKED,
        "type": "invalid_request_error",
        "param": "conversation",
        "code": "conversation_locked",
    }
    return True


async def test_a_second_response_waits_for_the_first(client: AsyncOpenAI, simulator: Simulator) -> None:
    conversation = await client.conversations.create()
    other = await client.conversations.create()
    simulator.inject(Fault("latency", seconds=3600))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, client, conversation.id)
        await until(lambda: simulator.statistics().faults)
        assert await refused(client, conversation.id)
        assert await items_of(client, conversation.id) == []
        assert not await refused(client, other.id)
        counted = await client.responses.input_tokens.count(model=MODEL, input="Hi.", conversation=conversation.id)
        assert counted.input_tokens > 0
        tasks.cancel_scope.cancel()
    while await refused(client, conversation.id):  # until the server has noticed that its client is gone
        pass
    assert len(await items_of(client, conversation.id)) == 2  # what nobody waited for is not in it


async def test_a_late_answer_holds_its_conversation_until_it_comes(client: AsyncOpenAI, simulator: Simulator) -> None:
    conversation = await client.conversations.create()
    simulator.inject(Fault("latency", seconds=60))
    answers: list[Response] = []

    async def first() -> None:
        answers.append(await ask(client, conversation.id))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await until(lambda: simulator.statistics().faults)
        assert await refused(client, conversation.id)
        advance_simulator(simulator, 60)
    assert answers[0].status == "completed"
    assert not await refused(client, conversation.id)
    assert len(await items_of(client, conversation.id)) == 4


async def test_a_stream_holds_its_conversation_until_its_end(client: AsyncOpenAI, simulator: Simulator) -> None:
    conversation = await client.conversations.create()
    simulator.inject(Fault("latency", seconds=0, between_chunks=10))
    advance_simulator(simulator, 10)
    async for event in await ask(client, conversation.id, stream=True):
        last = event
        if event.type != "response.completed":
            assert await refused(client, conversation.id)
            advance_simulator(simulator, 10)
    assert last.type == "response.completed"
    assert not await refused(client, conversation.id)
    assert len(await items_of(client, conversation.id)) == 4


async def test_the_last_event_is_the_end_of_the_lock(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    stream = await ask(client, conversation.id, stream=True)
    async for event in stream:
        if event.type == "response.completed":
            assert not await refused(client, conversation.id)
    assert len(await items_of(client, conversation.id)) == 4


async def test_a_stream_whose_client_leaves_lets_go(client: AsyncOpenAI, simulator: Simulator) -> None:
    conversation = await client.conversations.create()
    simulator.inject(Fault("latency", seconds=0, between_chunks=3600))
    stream = await ask(client, conversation.id, stream=True)
    assert await refused(client, conversation.id)
    await stream.close()
    while await refused(client, conversation.id):
        pass
    assert len(await items_of(client, conversation.id)) == 2


# --- Faults ---


async def test_a_locked_conversation_on_command(client: AsyncOpenAI, simulator: Simulator) -> None:
    conversation = await client.conversations.create()
    simulator.inject(Fault("conversation_locked", times=2))
    await client.responses.create(model=MODEL, input="Hi.")  # names no conversation: the fault waits
    await client.responses.input_tokens.count(model=MODEL, input="Hi.", conversation=conversation.id)
    assert simulator.statistics().faults == 0
    assert await refused(client, conversation.id)
    with pytest.raises(openai.BadRequestError, match="Another process"):
        await ask(client, {"id": conversation.id}, stream=True)
    assert await items_of(client, conversation.id) == []
    assert not await refused(client, conversation.id)
    assert simulator.statistics().faults == 2


@pytest.mark.parametrize("kind", ["conversation_locked", "orphaned_calls"])
async def test_a_fault_of_conversations_makes_no_sense_without_one(client: AsyncOpenAI, kind: str) -> None:
    with pytest.raises(openai.BadRequestError, match="makes no sense"):
        await client.responses.create(model=MODEL, input="Hi.", stream=True, extra_headers={"X-Simulate": kind})


async def test_orphaned_calls_wait_for_a_stream(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    with pytest.raises(openai.BadRequestError, match="makes no sense"):
        await ask(client, conversation.id, extra_headers={"X-Simulate": "orphaned_calls"})


@ASYNCIO_ONLY
async def test_orphaned_calls_are_left_behind_until_they_are_answered(
    client: AsyncOpenAI, simulator: Simulator
) -> None:
    simulator.script(Reply("Let me look.", (ScriptedCall("look"), ScriptedCall("look"))), Reply("It rains."))
    simulator.inject(Fault("orphaned_calls", after_events=1))
    conversation = await client.conversations.create()
    events = await read(await ask(client, conversation.id, stream=True, tools=[LOOK]))
    assert [event.type for event in events] == ["response.created"]
    cut = await client.responses.retrieve(events[0].response.id)
    assert (cut.status, cut.output) == ("cancelled", [])
    usage = simulator.statistics().usage[MODEL]
    assert (usage.output_tokens, simulator.statistics().tool_calls) == (0, 0)

    items = await items_of(client, conversation.id)
    assert [item.type for item in items] == ["message", "message", "function_call", "function_call"]
    calls = [item.call_id for item in items[2:]]
    for text in ("And now?", [{"type": "function_call_output", "call_id": calls[0], "output": "Rain."}]):
        with pytest.raises(openai.BadRequestError) as caught:
            await ask(client, conversation.id, text)
        orphan = calls[0] if isinstance(text, str) else calls[1]
        message = f"No tool output found for function call {orphan}."
        expected = {"message": message, "type": "invalid_request_error", "param": "input", "code": None}
        assert caught.value.body == expected

    repair: Any = [{"type": "function_call_output", "call_id": call_id, "output": "Rain."} for call_id in calls]
    assert (await ask(client, conversation.id, repair)).output_text == "It rains."
    assert (await ask(client, conversation.id)).status == "completed"


# --- Function calls ---


async def test_calls_are_answered_in_the_next_request(client: AsyncOpenAI, simulator: Simulator) -> None:
    simulator.script(CALL, Reply("It rains."))
    conversation = await client.conversations.create()
    first = await ask(client, conversation.id, tools=[LOOK])
    call_id = first.output[0].call_id
    second = await ask(
        client, conversation.id, [{"type": "function_call_output", "call_id": call_id, "output": "Rain."}]
    )
    assert second.output_text == "It rains."
    expected = ["message", "function_call", "function_call_output", "message"]
    assert await types_of(client, conversation.id) == expected


@pytest.mark.parametrize("repaired", ["answered", "deleted"])
async def test_a_call_without_output_blocks_the_conversation_until_it_is_repaired(
    client: AsyncOpenAI, simulator: Simulator, repaired: str
) -> None:
    simulator.script(CALL)
    conversation = await client.conversations.create()
    call = (await ask(client, conversation.id, tools=[LOOK])).output[0]
    for asking in (
        ask(client, conversation.id, "And now?"),
        ask(client, conversation.id, "And now?", stream=True),
        client.responses.input_tokens.count(model=MODEL, input="And now?", conversation=conversation.id),
    ):
        with pytest.raises(openai.BadRequestError, match=f"No tool output found for function call {call.call_id}"):
            await asking
    items = client.conversations.items
    if repaired == "answered":
        output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
        await items.create(conversation.id, items=[output])
    else:
        await items.delete(call.id, conversation_id=conversation.id)
    assert (await ask(client, conversation.id, "And now?")).status == "completed"
