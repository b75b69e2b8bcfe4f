"""Messages in every form users have them, as Responses items and as LangChain messages."""

import msgspec
import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import invalid_tool_call, tool_call
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage

from runmeter.engine import ConfigurationError
from runmeter.patterns.langgraph.messages import answer_open_calls, to_langchain
from runmeter.patterns.messages import to_items

CALL = {"type": "function_call", "call_id": "call_1", "name": "find", "arguments": '{"n":1}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "found"}
HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is it?"},
    {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"n":1}'}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "found"},
    {"role": "assistant", "content": "Here."},
]
ITEMS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is it?"},
    {"role": "assistant", "content": "Let me see."},
    CALL,
    OUTPUT,
    {"role": "assistant", "content": "Here."},
]
LANGCHAIN = [
    SystemMessage("Be brief."),
    HumanMessage("Where is it?"),
    AIMessage("Let me see.", tool_calls=[tool_call(name="find", args={"n": 1}, id="call_1")]),
    ToolMessage("found", tool_call_id="call_1"),
    AIMessage("Here."),
]


def without_ids(messages: list[BaseMessage]) -> list[BaseMessage]:
    return [message.model_copy(update={"id": None}) for message in messages]


@pytest.mark.parametrize("history", [HISTORY, ITEMS, LANGCHAIN, [*LANGCHAIN[:2], *HISTORY[2:]]])
def test_every_form_gives_the_same_items_and_the_same_langchain_messages(history: list[object]) -> None:
    assert to_items(history) == ITEMS
    assert without_ids(to_langchain(history)) == LANGCHAIN


def test_a_single_message_will_do() -> None:
    expected = [{"role": "user", "content": "Hi."}]
    assert to_items("Hi.") == to_items(expected[0]) == to_items(HumanMessage("Hi.")) == to_items(["Hi."]) == expected
    assert (
        to_langchain("Hi.") == to_langchain(expected[0]) == to_langchain(HumanMessage("Hi.")) == [HumanMessage("Hi.")]
    )


def test_parts_are_written_in_each_apis_way() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/x.png", "detail": "low"}},
        {"type": "image_url", "image_url": "https://example.com/y.png"},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
    ]
    [item] = to_items({"role": "user", "content": parts})
    assert item["content"] == [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "https://example.com/x.png", "detail": "low"},
        {"type": "input_image", "image_url": "https://example.com/y.png", "detail": "auto"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
    ]
    [message] = to_langchain([item])
    assert message.content[:2] == [parts[0], parts[1]]
    assert message.content[3] == parts[3]
    [said] = to_items(AIMessage([{"type": "text", "text": "A cat."}, {"type": "reasoning", "summary": []}]))
    assert said["content"] == [{"type": "output_text", "text": "A cat.", "annotations": []}]


def test_the_clients_own_objects_are_taken_as_they_are() -> None:
    message = ResponseOutputMessage.construct(
        id="msg_1", type="message", role="assistant", status="completed", phase="final_answer", content=[]
    )
    call = ResponseFunctionToolCall(id="fc_1", type="function_call", call_id="call_1", name="find", arguments='{"n":1}')
    items = to_items([message, call, OUTPUT])
    assert items[0]["phase"] == "final_answer", "what the API said stays"
    assert items[1] == {**CALL, "id": "fc_1"}


def test_a_call_that_the_model_garbled_stays_a_call() -> None:
    garbled = AIMessage("", invalid_tool_calls=[invalid_tool_call(name="find", args="{x", id="call_1", error="bad")])
    [item] = to_items(garbled)
    assert item == {**CALL, "arguments": "{x"}
    [message] = to_langchain([item])
    assert isinstance(message, AIMessage)
    assert [(call["name"], call["args"]) for call in message.invalid_tool_calls] == [("find", "{x")]


def test_roles_are_kept() -> None:
    [developer] = to_langchain({"role": "developer", "content": "x"})
    assert isinstance(developer, SystemMessage)
    assert to_items(developer) == [{"role": "developer", "content": "x"}]


def test_reasoning_stays_with_the_api_it_came_from() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "…"}
    assert to_items([reasoning, "x"])[0] == reasoning
    assert to_langchain([reasoning, "x"]) == [HumanMessage("x")]
    with pytest.raises(ConfigurationError, match="'web_search_call'"):
        to_langchain({"type": "web_search_call"})


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": 5},
        {"role": "user", "content": [5]},
        {"role": "user", "content": {"type": "text"}},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "assistant", "tool_calls": ["x"]},
        {"role": "tool", "content": "found"},
    ],
)
def test_a_message_that_is_badly_built_is_refused(message: object) -> None:
    with pytest.raises(ConfigurationError):
        to_items(message)


def test_only_what_the_api_knows_is_sent() -> None:
    message: dict[str, object] = {
        "role": "assistant",
        "content": "x",
        "annotations": [],
        "refusal": None,
        "name": "a",
        "id": "msg_1",
    }
    assert to_items(message) == [{"role": "assistant", "content": "x", "id": "msg_1"}]


def test_what_is_no_utf8_is_replaced() -> None:
    asked = AIMessage("", tool_calls=[tool_call(name="find", args={"n": "\ud83d", "é": 1}, id="call_1")])
    items = to_items([{"role": "user", "content": "\ud800"}, {**OUTPUT, "output": "a\udcff"}, asked])
    assert [items[0]["content"], items[1]["output"], items[2]["arguments"]] == ["?", "a?", '{"n":"?","é":1}']
    msgspec.json.encode(items)


@pytest.mark.parametrize("messages", [[], (), [3], 3, None, {"content": "x"}, {"role": "nobody", "content": "x"}])
def test_what_is_no_message_is_refused(messages: object) -> None:
    with pytest.raises(ConfigurationError):
        to_items(messages)
    with pytest.raises(ConfigurationError):
        to_langchain(messages)


def test_calls_that_nobody_answered_are() -> None:
    asked = AIMessage(
        "",
        tool_calls=[tool_call(name="find", args={}, id=f"call_{n}") for n in range(2)],
        invalid_tool_calls=[invalid_tool_call(name="find", args="{", id="call_2", error="bad")],
    )
    history = [HumanMessage("x"), asked, ToolMessage("found", tool_call_id="call_1"), HumanMessage("y")]
    repaired = list(answer_open_calls(history))
    assert [type(message).__name__ for message in repaired] == [
        "HumanMessage",
        "AIMessage",
        "ToolMessage",
        "ToolMessage",
        "ToolMessage",
        "HumanMessage",
    ]
    answered = {message.tool_call_id for message in repaired if isinstance(message, ToolMessage)}
    assert answered == {"call_0", "call_1", "call_2"}
    assert list(answer_open_calls(repaired)) == repaired


def test_items_are_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(to_items(LANGCHAIN))) == ITEMS


def test_a_message_of_the_user_s_own_is_not_changed() -> None:
    own = AIMessage("I look it up.")
    calls: list[dict[str, object]] = [
        {"type": "function_call", "call_id": "1", "name": "find", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "find", "arguments": "{"},
    ]
    [message] = to_langchain([own, *calls])
    assert isinstance(message, AIMessage)
    assert (len(message.tool_calls), len(message.invalid_tool_calls)) == (1, 1)
    assert (own.tool_calls, own.invalid_tool_calls) == ([], [])
