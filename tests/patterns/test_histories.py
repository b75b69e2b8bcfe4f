"""Histories as other programs have them: understood, or refused by name; none is passed on raw, or emptied."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, BadRequestError
from openai.types.chat import ChatCompletionMessage
from pattern_support import KEY
from pydantic import SecretStr

from runmeter.engine import ConfigurationError, ModelRequest
from runmeter.patterns import AugmentedLLMConfig, AugmentedLLMPattern
from runmeter.patterns.langgraph.messages import to_langchain
from runmeter.patterns.langgraph.metering.requests import describe_sent
from runmeter.patterns.messages import to_items
from runmeter.simulator import Simulator

Json = dict[str, Any]
HI = {"type": "input_text", "text": "hi"}


def call(call_id: str, name: str = "find", arguments: str = '{"n":1}') -> Json:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def output(call_id: str, text: str = "found") -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


# A role and a content, as LangChain takes them

PAIRS: list[tuple[Any, list[tuple[str, Any]]]] = [
    ([("system", "Be brief."), ("user", "hi")], [("system", "Be brief."), ("user", "hi")]),
    (("user", "hi"), [("user", "hi")]),
    ([("human", "hi"), ("ai", "ho"), ("developer", "x")], [("user", "hi"), ("assistant", "ho"), ("developer", "x")]),
    ([["user", "hi"], ["assistant", "ho"]], [("user", "hi"), ("assistant", "ho")]),
    ([("user", [{"type": "text", "text": "hi"}])], [("user", [HI])]),
    ((("user", "hi"), ("user", "ho")), [("user", "hi"), ("user", "ho")]),
    (("hi", "ho"), [("user", "hi"), ("user", "ho")]),
    (["user", "hi"], [("user", "user"), ("user", "hi")]),
    (iter([("user", "hi")]), [("user", "hi")]),
    ([{"role": "human", "content": "hi"}, {"type": "ai", "content": "ho"}], [("user", "hi"), ("assistant", "ho")]),
    ([ChatMessage(content="hi", role="user")], [("user", "hi")]),
]


@pytest.mark.parametrize(("messages", "right"), PAIRS)
def test_a_pair_is_a_message(messages: Any, right: list[tuple[str, Any]]) -> None:
    assert to_items(messages) == [{"role": role, "content": content} for role, content in right]


def test_a_pair_is_a_message_to_langchain_models_too() -> None:
    told = to_langchain([("system", "Be brief."), ("user", "hi"), ("ai", "ho")])
    assert told == [SystemMessage("Be brief."), HumanMessage("hi"), AIMessage("ho")]
    assert to_langchain(("user", "hi")) == [HumanMessage("hi")]


@pytest.mark.parametrize(
    "messages",
    [
        [("nobody", "hi")],
        [("user", "hi", "ho")],
        [("user",)],
        [("user", 5)],
        [("tool", "found")],
        [["hi"]],
        [[{"role": "user", "content": "hi"}]],
        [("user", None)],
        {"user": "hi"},
    ],
)
def test_what_is_no_pair_is_refused(messages: Any) -> None:
    for convert in (to_items, to_langchain):
        with pytest.raises(ConfigurationError):
            convert(messages)


# Parts of a content

PNG = "data:image/png;base64,aGk="
PDF = "data:application/pdf;base64,aGk="
IMAGE = {"type": "input_image", "image_url": PNG, "detail": "auto"}
FILE = {"type": "input_file", "filename": "file.pdf", "file_data": PDF}
AUDIO = {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}
PARTS: list[tuple[Json, Json]] = [
    ({"type": "image", "base64": "aGk=", "mime_type": "image/png"}, IMAGE),
    ({"type": "image", "url": "https://x.org/y.png", "id": "lc_1"}, {**IMAGE, "image_url": "https://x.org/y.png"}),
    ({"type": "image", "url": PNG, "extras": {"detail": "low"}}, {**IMAGE, "detail": "low"}),
    ({"type": "image", "file_id": "file_1"}, {"type": "input_image", "file_id": "file_1", "detail": "auto"}),
    ({"type": "image", "source_type": "base64", "data": "aGk=", "mime_type": "image/png"}, IMAGE),
    ({"type": "image", "source_type": "url", "url": PNG}, IMAGE),
    (
        {"type": "image", "source_type": "id", "id": "file_1"},
        {"type": "input_image", "file_id": "file_1", "detail": "auto"},
    ),
    ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}, IMAGE),
    ({"type": "image", "source": {"type": "url", "url": PNG}}, IMAGE),
    (
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "input_image", "file_id": "file_1", "detail": "auto"},
    ),
    ({"type": "image", "data": "aGk=", "mimeType": "image/png"}, IMAGE),
    ({"type": "image", "data": PNG}, IMAGE),
    ({"type": "image_url", "image_url": PNG}, IMAGE),
    ({"type": "image_url", "image_url": {"url": PNG, "detail": None}}, IMAGE),
    ({"type": "file", "base64": "aGk=", "mime_type": "application/pdf"}, FILE),
    (
        {"type": "file", "base64": "aGk=", "mime_type": "application/pdf", "filename": "a.pdf"},
        {**FILE, "filename": "a.pdf"},
    ),
    (
        {"type": "file", "base64": "aGk=", "mime_type": "application/pdf", "extras": {"filename": "a.pdf"}},
        {**FILE, "filename": "a.pdf"},
    ),
    (
        {
            "type": "file",
            "source_type": "base64",
            "data": "aGk=",
            "mime_type": "application/pdf",
            "metadata": {"name": "a.pdf"},
        },
        {**FILE, "filename": "a.pdf"},
    ),
    ({"type": "file", "url": "https://x.org/a.pdf"}, {"type": "input_file", "file_url": "https://x.org/a.pdf"}),
    ({"type": "file", "file_id": "file_1"}, {"type": "input_file", "file_id": "file_1"}),
    ({"type": "file", "source_type": "id", "id": "file_1"}, {"type": "input_file", "file_id": "file_1"}),
    ({"type": "file", "file": {"file_id": "file_1", "index": 0}}, {"type": "input_file", "file_id": "file_1"}),
    (
        {
            "type": "document",
            "title": "a.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
        },
        {**FILE, "filename": "a.pdf"},
    ),
    (
        {"type": "document", "source": {"type": "url", "url": "https://x.org/a.pdf"}},
        {"type": "input_file", "file_url": "https://x.org/a.pdf"},
    ),
    ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}, HI),
    ({"type": "text-plain", "text": "hi", "mime_type": "text/plain"}, HI),
    ({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}, HI),
    ({"type": "audio", "base64": "aGk=", "mime_type": "audio/wav"}, AUDIO),
    ({"type": "audio", "source_type": "base64", "data": "aGk=", "mime_type": "audio/x-wav"}, AUDIO),
    (
        {"type": "audio", "base64": "aGk=", "mime_type": "audio/mpeg"},
        {**AUDIO, "input_audio": {"data": "aGk=", "format": "mp3"}},
    ),
    ({"type": "non_standard", "value": {"type": "text", "text": "hi"}}, HI),
    (HI, HI),
    (IMAGE, IMAGE),
    (FILE, FILE),
    (AUDIO, AUDIO),
]


@pytest.mark.parametrize(("part", "right"), PARTS)
def test_parts_are_written_as_the_api_has_them(part: Json, right: Json) -> None:
    message: list[Any] = [{"type": "text", "text": "See:"}, part]
    for form in (HumanMessage(message), {"role": "user", "content": message}, ("user", message)):
        assert to_items([form]) == [{"role": "user", "content": [{"type": "input_text", "text": "See:"}, right]}]
    [_, told] = to_items([call("1"), ToolMessage(message, tool_call_id="1")])
    assert told == {**output("1"), "output": [{"type": "input_text", "text": "See:"}, right]}


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ({"type": "video", "base64": "aGk=", "mime_type": "video/mp4"}, "unknown type: 'video'"),
        ({"type": "picture"}, "unknown type: 'picture'"),
        ({"image": "https://x.org/y.png"}, "unknown type: None"),
        ({"type": ["text"]}, "unknown type"),
        ({"type": "image", "base64": "aGk="}, "without its media type"),
        ({"type": "image"}, "neither data as base64, nor a URL, nor the id of a file"),
        ({"type": "file", "path": "x"}, "neither data"),
        ({"type": "document", "source": {"type": "content", "content": "hi"}}, "neither data"),
        ({"type": "audio", "url": "https://x.org/a.wav"}, "audio/mp3 or audio/wav"),
        ({"type": "audio", "base64": "aGk=", "mime_type": "audio/ogg"}, "audio/mp3 or audio/wav"),
        ({"type": "text", "text": None}, "not built as OpenAI's"),
        ({"type": "text", "text": ["hi"]}, "not built as OpenAI's"),
        (5, "not built as OpenAI's"),
        ({"type": "file", "file": "x"}, "not built as OpenAI's"),
        ({"type": "file", "file": {"filename": "a.pdf"}}, "input_file has no file_id or file_url or file_data"),
        ({"type": "input_image", "detail": "auto"}, "input_image has no image_url or file_id"),
        ({"type": "input_text"}, "input_text has no text"),
        ({"type": "refusal", "text": "x"}, "refusal has no refusal"),
        ({"type": "computer_call", "call_id": "1"}, "unknown type: 'computer_call'"),
    ],
)
def test_parts_that_the_api_does_not_have_are_refused(part: Any, complaint: str) -> None:
    for role in ("user", "assistant"):
        with pytest.raises(ConfigurationError, match=complaint):
            to_items({"role": role, "content": [part]})


# What answers hold besides text

SAID = {"type": "output_text", "text": "Lyon.", "annotations": []}
ASIDE: list[Json] = [
    {"type": "thinking", "thinking": "Hm.", "signature": "x"},
    {"type": "redacted_thinking", "data": "x"},
    {"type": "reasoning", "summary": []},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
    {"type": "server_tool_call", "id": "1", "name": "web_search", "args": {}},
]


@pytest.mark.parametrize("part", ASIDE)
def test_how_an_answer_came_about_is_left_out(part: Json) -> None:
    text = {"type": "text", "text": "Lyon."}
    said = {"role": "assistant", "content": [SAID]}
    assert to_items(AIMessage([part, text])) == to_items({"role": "assistant", "content": [part, text]}) == [said]
    assert to_items([AIMessage([part]), "hi"]) == [{"role": "user", "content": "hi"}]
    asked = AIMessage([part], tool_calls=[tool_call(name="find", args={"n": 1}, id="1")])
    assert to_items(asked) == [call("1")]


def test_anthropics_calls_and_results_are_calls_and_outputs() -> None:
    said = {"type": "text", "text": "Lyon."}
    use = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"n": 1}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "found"}]}
    history = [
        {"role": "assistant", "content": [said, use]},
        {"role": "user", "content": [result, {"type": "text", "text": "hi"}]},
    ]
    expected = [
        {"role": "assistant", "content": [SAID]},
        call("toolu_1"),
        {**output("toolu_1"), "output": [{"type": "input_text", "text": "found"}]},
        {"role": "user", "content": [HI]},
    ]
    assert to_items(history) == expected
    langchain = AIMessage([said, use], tool_calls=[tool_call(name="find", args={"n": 1}, id="toolu_1")])
    assert to_items([langchain, history[1]]) == expected
    [asked, told, hi] = to_langchain(history)
    assert isinstance(asked, AIMessage)
    assert [each["id"] for each in asked.tool_calls] == ["toolu_1"]
    assert isinstance(told, ToolMessage)
    assert (told.tool_call_id, hi.text) == ("toolu_1", "hi")


@pytest.mark.parametrize("part", ASIDE)
def test_what_is_left_out_counts_where_langchain_sends_it(part: Json) -> None:
    def bound(*parts: Any) -> int:
        asked = [AIMessage([*parts, {"type": "text", "text": "Lyon."}]), HumanMessage("And now?")]
        request = ModelRequest(provider="openai", model="gpt-6-luna", max_output_tokens=20)
        usage = describe_sent(request, None, {}, asked).bound_here()
        assert usage is not None
        return usage.input_tokens

    without = bound()
    assert without < 1_000
    assert bound(part) > without if part["type"] == "reasoning" else bound(part) > 100_000


REFUSAL = {"type": "refusal", "refusal": "I cannot."}


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"role": "assistant", "content": None, "refusal": "I cannot."}, [REFUSAL]),
        ({"role": "assistant", "refusal": "I cannot."}, [REFUSAL]),
        ({"role": "assistant", "content": "Well.", "refusal": "I cannot."}, [{**SAID, "text": "Well."}, REFUSAL]),
        ({"role": "assistant", "content": [REFUSAL], "refusal": "I cannot."}, [REFUSAL]),
        (ChatCompletionMessage(role="assistant", refusal="I cannot."), [REFUSAL]),
        (AIMessage("", additional_kwargs={"refusal": "I cannot."}), [REFUSAL]),
        (AIMessage([REFUSAL]), [REFUSAL]),
        ({"role": "assistant", "content": "Lyon.", "refusal": None}, "Lyon."),
        ({"role": "assistant", "content": None, "audio": {"id": "audio_1", "transcript": "Lyon."}}, "Lyon."),
        ({"role": "assistant", "content": None}, ""),
    ],
)
def test_an_answer_keeps_what_it_said(message: Any, content: Any) -> None:
    assert to_items(message) == [{"role": "assistant", "content": content}]


def test_a_refusal_is_text_to_langchain_models() -> None:
    [message] = to_langchain({"role": "assistant", "content": None, "refusal": "I cannot."})
    assert message.text == "I cannot."


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"role": "user", "parts": [{"type": "text", "text": "hi"}]}, "'parts' and no content"),
        ({"role": "assistant", "content": "", "parts": [{"type": "text", "text": "hi"}]}, "'parts' and no content"),
        ({"role": "user", "text": "hi"}, "no content; it has role, text"),
        ({"role": "user", "content": None}, "no content"),
        ({"role": "assistant"}, "no content"),
        ({"role": "assistant", "content": None, "audio": {"id": "audio_1"}}, "no content"),
        ({"type": "human", "data": {"content": "hi"}}, "no content; it has data, type"),
        ({"lc": 1, "type": "constructor", "id": ["langchain"], "kwargs": {}}, "unknown type 'constructor'"),
        ({"type": "text", "text": "hi"}, "unknown type 'text'"),
        ({"type": "tool_result_v9"}, "unknown type"),
        ({"type": 5}, "unknown type"),
        ({"role": "model", "content": "hi"}, "got 'model'"),
        (RemoveMessage(id="1"), "got 'remove'"),
        (FunctionMessage(content="found", name="find"), "needs a tool_call_id"),
    ],
)
def test_a_message_that_is_not_understood_is_refused_by_name(message: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        to_items(message)
    if not isinstance(message, BaseMessage):
        with pytest.raises(ConfigurationError, match=complaint):
            to_langchain(message)


def sent_by_langchain(history: list[Any], responses: bool) -> list[Json]:
    """What ChatOpenAI makes of a history, by either API."""
    model = ChatOpenAI(model="gpt-4.1-mini", api_key=SecretStr(KEY), use_responses_api=responses)
    payload = model._get_request_payload(to_langchain(history))
    sent: list[Json] = payload["input" if responses else "messages"]
    return sent


USE = {"type": "tool_use", "id": "t_1", "name": "find", "input": {"n": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "t_1", "content": "found-it"}
LOST: list[tuple[list[BaseMessage], list[str]]] = [
    ([AIMessage([{"type": "text", "text": "I look."}, USE])], ["I look.", "find", "t_1"]),
    ([AIMessage([USE]), HumanMessage([RESULT, {"type": "text", "text": "And?"}])], ["t_1", "found-it", "And?"]),
    ([AIMessage("", additional_kwargs={"refusal": "I cannot."})], ["I cannot."]),
    ([AIMessage("", additional_kwargs={"function_call": {"name": "find", "arguments": '{"n":1}'}})], ["find"]),
    (
        [ChatMessage(content="hi", role="human"), ChatMessage(content="ho", role="ai")],
        ["user", "hi", "assistant", "ho"],
    ),
    (
        [
            AIMessage("", additional_kwargs={"function_call": {"name": "find", "arguments": "{}"}}),
            FunctionMessage(content="found-it", name="find"),
        ],
        ["find", "found-it"],
    ),
]


@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize(("history", "said"), LOST)
def test_what_langchain_would_leave_out_of_its_own_messages_is_said(
    history: list[BaseMessage], said: list[str], responses: bool
) -> None:
    sent = sent_by_langchain([*history, "And now?"], responses)
    written = json.dumps(sent)
    assert all(text in written for text in said)
    assert not {"tool_use", "tool_result", "human", "function"} & {each.get("role") for each in sent}
    assert '"tool_result"' not in written
    assert '"human"' not in written


@pytest.mark.parametrize("message", [ChatMessage(content="hi", role="model"), RemoveMessage(id="1")])
def test_a_role_that_is_not_known_is_refused_by_name_to_langchain_too(message: BaseMessage) -> None:
    with pytest.raises(ConfigurationError, match=r"got 'model'|got 'remove'"):
        to_langchain([message])


@pytest.mark.parametrize(
    "message",
    [
        AIMessage([{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "text", "text": "Lyon."}]),
        AIMessage([USE], tool_calls=[tool_call(name="find", args={"n": 1}, id="t_1")]),
        AIMessage("Lyon.", id="run-1", response_metadata={"model_name": "x"}),
        HumanMessage([{"type": "document", "source": {"type": "text", "data": "hi", "media_type": "text/plain"}}]),
        SystemMessage("Be brief.", name="house"),
    ],
)
def test_other_messages_of_langchains_stay_as_they_are(message: BaseMessage) -> None:
    assert to_langchain([message]) == [message]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("form", [{"type": "audio", "base64": "aGk=", "mime_type": "audio/wav"}, AUDIO])
async def test_audio_that_langchain_would_leave_out_is_refused(form: Json) -> None:
    config = AugmentedLLMConfig(api_key=KEY, base_url="http://127.0.0.1:1/v1")
    for message in (HumanMessage([form]), {"role": "user", "content": [form]}):
        async with AugmentedLLMPattern(config) as pattern:
            with pytest.raises(ConfigurationError, match="audio, which LangChain leaves out"):
                await pattern.execute([message])
    assert AUDIO in sent_by_langchain([HumanMessage([form])], responses=False)[0]["content"]


# Ids


@pytest.mark.parametrize(
    "given", ["3f2a", "chatcmpl-9", "msg", "run--1", "__fake_id__", "msg_" + "1" * 61, "", 5, None]
)
def test_ids_that_are_not_the_apis_are_left_out(given: Any) -> None:
    message = {"id": given, "role": "assistant", "content": "hi", "status": "streaming", "phase": "draft"}
    assert to_items(message) == [{"role": "assistant", "content": "hi"}]
    assert to_items({**call("1"), "id": given}) == [call("1")]
    assert to_items(AIMessage("hi", id=str(given))) == [{"role": "assistant", "content": "hi"}]


def test_what_the_api_said_of_a_message_stays() -> None:
    own = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "phase": "commentary"}
    assert to_items({**own, "content": [SAID], "createdAt": 5}) == [{**own, "content": [SAID]}]
    assert to_items({**call("1"), "id": "fc_1"}) == [{**call("1"), "id": "fc_1"}]
    found = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    assert to_items(found) == [found]


def chat_call(call_id: Any, name: str = "find", arguments: Any = '{"n":1}') -> Json:
    made = {} if call_id is None else {"id": call_id}
    return {**made, "type": "function", "function": {"name": name, "arguments": arguments}}


def asked(*calls: Json) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def answered(call_id: Any, text: str = "found", **more: Any) -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": text, **more}


LEGACY = {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": '{"n":1}'}}
HISTORIES: list[tuple[list[Any], list[Json]]] = [
    # of a function call as it was before tools
    ([LEGACY, {"role": "function", "name": "find", "content": "found"}], [call("call_1"), output("call_1")]),
    (
        [LEGACY, {"role": "function", "name": "find", "content": "a"}] * 2,
        [call("call_1"), output("call_1", "a"), call("call_2"), output("call_2", "a")],
    ),
    (
        [
            AIMessage("", additional_kwargs={"function_call": LEGACY["function_call"]}),
            FunctionMessage(content="found", name="find"),
        ],
        [call("call_1"), output("call_1")],
    ),
    # of servers that give no ids, and write arguments as objects
    (
        [
            asked(chat_call(None, arguments={"n": 1}), chat_call(None, "look")),
            answered(None, "b", tool_name="look"),
            answered(None, "a", name="find"),
        ],
        [call("call_1"), call("call_2", "look"), output("call_2", "b"), output("call_1", "a")],
    ),
    # of servers that give ids twice: in one answer, in several
    (
        [asked(chat_call("c"), chat_call("c")), answered("c", "a"), answered("c", "b")],
        [call("c"), call("c_2"), output("c", "a"), output("c_2", "b")],
    ),
    (
        [asked(chat_call("c")), answered("c", "a"), asked(chat_call("c")), answered("c", "b")],
        [call("c"), output("c", "a"), call("c_2"), output("c_2", "b")],
    ),
    (
        [call("c"), call("c"), output("c", "a"), output("c", "b")],
        [call("c"), call("c_2"), output("c", "a"), output("c_2", "b")],
    ),
    (
        [asked(chat_call("c"), chat_call("c_2"), chat_call("c"))],
        [call("c"), call("c_2"), call("c_3")],
    ),
    ([asked(chat_call("c"), chat_call("c"), chat_call("c_2"))], [call("c"), call("c_2"), call("c_2_2")]),
    # of ids that are too long
    (
        [asked(chat_call("x" * 65)), answered("x" * 65)],
        [call("x" * 56 + "_2"), output("x" * 56 + "_2")],
    ),
    # of what a server keeps the call of
    ([answered("c"), "hi"], [output("c"), {"role": "user", "content": "hi"}]),
    ([output("c"), output("c")], [output("c"), output("c")]),
    # of custom tools
    (
        [
            asked({"id": "c", "type": "custom", "custom": {"name": "run", "input": "ls"}}),
            answered("c"),
        ],
        [
            {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "ls"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "found"},
        ],
    ),
]


@pytest.mark.parametrize(("history", "right"), HISTORIES)
def test_each_call_has_an_id_of_its_own_and_each_output_its_call(history: list[Any], right: list[Json]) -> None:
    assert to_items(history) == right
    assert to_items(right) == right


def ids_of(messages: list[BaseMessage]) -> list[str]:
    found: list[str] = []
    for message in messages:
        if isinstance(message, AIMessage):
            found += [str(each["id"]) for each in (*message.tool_calls, *message.invalid_tool_calls)]
        elif isinstance(message, ToolMessage):
            found.append(message.tool_call_id)
    return found


@pytest.mark.parametrize(("history", "right"), HISTORIES[:-1])
def test_langchain_models_are_told_the_same_ids(history: list[Any], right: list[Json]) -> None:
    expected = [item["call_id"] for item in right if "call_id" in item]
    if not any(isinstance(message, BaseMessage) for message in history):
        assert ids_of(to_langchain(history)) == expected


def test_langchains_own_messages_get_ids_of_their_own_too() -> None:
    made = tool_call(name="find", args={}, id="c")
    garbled = invalid_tool_call(name="find", args="{", id="c", error="bad")
    copies: list[str | Json] = [
        {"type": "tool_use", "id": "c", "name": "find", "input": {}},
        {"type": "text", "text": "x"},
    ] * 2
    history = [
        AIMessage(copies, tool_calls=[made, made], invalid_tool_calls=[garbled]),
        *(ToolMessage(text, tool_call_id="c") for text in "abd"),
    ]
    told = to_langchain(history)
    assert ids_of(told) == ["c", "c_2", "c_3", "c", "c_2", "c_3"]
    assert [part["id"] for part in told[0].content if "id" in part] == ["c", "c_2"]  # type: ignore[index] # they are dicts
    assert ids_of(history) == ["c"] * 6, "the user's own stay as they are"


CALLS = st.lists(st.tuples(st.sampled_from(["", "a", "b", "a_2", "x" * 70]), st.booleans()), max_size=8)


@given(CALLS)
def test_no_two_calls_share_an_id_and_no_output_is_lost(calls: list[tuple[str, bool]]) -> None:
    history: list[Any] = []
    for number, (call_id, at_once) in enumerate(calls):
        history.append(asked(chat_call(call_id)))
        if at_once:
            history.append(answered(call_id, str(number), name="find"))
    items = to_items([*history, "hi"])
    made = [item["call_id"] for item in items if item.get("type") == "function_call"]
    told = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    assert len(set(made)) == len(made)
    assert all(0 < len(call_id) <= 64 for call_id in made)
    assert len(set(told)) == len(told)
    assert set(told) <= set(made)


# What the API says of them


def is_whole(items: list[Json]) -> bool:
    """Tell whether each call among items has its output, and each output its call."""
    calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
    return bool(calls) and sorted(calls) == sorted(item["call_id"] for item in items if "output" in item)


SENT: list[Any] = [
    *(to_items([{"role": "user", "content": [part]}]) for part, _ in PARTS),
    *(right for _, right in HISTORIES if is_whole(right)),
    *(
        [item, *to_items("hi")]
        for part in ASIDE
        for item in to_items({"role": "assistant", "content": [part, {"type": "text", "text": "x"}]})
    ),
    to_items([{"role": "assistant", "content": None, "refusal": "I cannot."}, "hi"]),
    to_items([("system", "Be brief."), ("user", "hi")]),
]


async def test_the_simulated_api_takes_what_is_written() -> None:
    refused = []
    async with Simulator() as url, AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        for items in SENT:
            try:
                await client.responses.create(model="gpt-6-luna", input=items)
            except BadRequestError as error:
                refused.append(error.message)
    assert len(refused) < len(SENT) / 2
    assert all("not simulated" in message for message in refused), refused
