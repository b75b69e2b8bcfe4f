"""Counts and bounds of whole requests: every shape of message, item and tool, and what cannot be counted."""

import json
import struct
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pattern_support import KEY, at_once
from simulator_support import connect

from runmeter.engine import TokenCounter, Tokenizer
from runmeter.patterns import RetryPolicy
from runmeter.patterns.openai.responses.input_tokens import InputTokenCounter
from runmeter.patterns.openai_client.clients import Clients
from runmeter.simulator import Fault, Simulator

MODEL = "gpt-6-luna"
"""tiktoken does not know its vocabulary, so that its bound goes by bytes."""
KNOWN = "gpt-5.6-luna"
"""tiktoken knows this one's."""

SQUARE = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 1024, 1024)
IMAGE = f"data:image/png;base64,{b64encode(SQUARE).decode()}"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FIND: dict[str, Any] = {"type": "function", "name": "find", "description": "Find a parcel", "parameters": SCHEMA}


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Load the vocabularies before Hypothesis measures how long an example takes."""
    for model in (KNOWN, "gpt-4"):
        Tokenizer(model).encode("")


def count(messages: Any, model: str = KNOWN, **rest: Any) -> int:
    counted = Tokenizer(model).count_messages(messages, **rest)
    assert counted.complete
    return counted.tokens


def text_tokens(text: str) -> int:
    return len(Tokenizer(KNOWN).encode(text))


# --- Shapes ---


def test_a_refusal_counts_in_either_api() -> None:
    chat = [{"role": "assistant", "content": None, "refusal": "I cannot help with that."}]
    responses = [{"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot help with that."}]}]
    assert count(chat) == count(responses) == 3 + 1 + text_tokens("I cannot help with that.") + 3


@pytest.mark.parametrize(
    "item",
    [
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"city": "Berlin " * 100}}}]},
        {"type": "function_call", "name": "f", "arguments": {"city": "Berlin " * 100}},
        {"type": "function_call_output", "output": {"city": "Berlin " * 100}},
        {"role": "user", "content": [{"type": "text", "text": {"value": "Berlin " * 100}}]},
        {"role": "user", "content": 10**600},
    ],
)
@pytest.mark.parametrize("model", [MODEL, KNOWN])
def test_what_should_be_text_and_is_not_counts_as_its_json(item: dict[str, Any], model: str) -> None:
    counted = count([item], model)
    assert counted > 100
    bound = Tokenizer(model).bound_messages([item])
    assert bound is not None
    assert bound > counted


def test_a_tool_that_openai_would_refuse_can_be_counted() -> None:
    tool = {"type": "function", "name": 5, "description": 5, "parameters": {"properties": ["city"]}}
    assert count("x", tools=[tool]) > count("x")


def test_a_tools_output_in_parts_counts_like_its_text() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "find", "arguments": "{}"}
    plain = {"type": "function_call_output", "call_id": "c", "output": "in Berlin"}
    parts = {**plain, "output": [{"type": "input_text", "text": "in Berlin"}]}
    with_image = {**plain, "output": [*parts["output"], {"type": "input_image", "image_url": IMAGE, "detail": "high"}]}
    assert count([call, plain]) == count([call, parts])
    assert count([call, with_image], "gpt-4o") == count([call, parts], "gpt-4o") + 765


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": IMAGE, "detail": "high"}},
        {"type": "input_image", "image_url": IMAGE, "detail": "high"},
        {"type": "image_url", "image_url": IMAGE},
        {"type": "computer_screenshot", "image_url": IMAGE},
    ],
)
def test_an_image_counts_by_the_models_rule(part: dict[str, Any]) -> None:
    def message(*parts: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]

    assert count(message(part), "gpt-4o") - count(message(), "gpt-4o") == 765
    assert count(message(part, part)) - count(message()) == 2 * 1229
    assert len(Tokenizer("gpt-4o").encode_messages(message(part))) == count(message(part), "gpt-4o")


def test_a_computers_screenshot_is_an_image() -> None:
    output = {"type": "computer_screenshot", "image_url": IMAGE}
    counted = Tokenizer("gpt-4o").count_messages([{"type": "custom_tool_call_output", "output": output}])
    assert (counted.tokens, counted.complete) == (3 + 1 + 765 + 3, True)


def test_calls_of_all_kinds_count_name_and_arguments() -> None:
    item = {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "print(1)"}
    custom = {"type": "custom", "id": "c", "custom": {"name": "run", "input": "print(1)"}}
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "run", "arguments": "print(1)"}}
    expected = 3 + 1 + text_tokens("run") + text_tokens("print(1)") + 3
    assert count([item]) == count([{"role": "assistant", "tool_calls": [custom]}]) == count([legacy]) == expected


def test_custom_tools_and_namespaces_count() -> None:
    grammar = "start: NUMBER"
    custom = {"type": "custom", "name": "run", "description": "Run it.", "format": {"definition": grammar}}
    chat = {"type": "custom", "custom": {**custom, "format": {"grammar": {"definition": grammar}}}}
    assert count("hi", tools=[custom]) == count("hi", tools=[chat])
    assert count("hi", tools=[custom]) - count("hi") == 7 + text_tokens("run:Run it") + text_tokens(grammar) + 12
    namespace = {"type": "namespace", "name": "parcels", "description": "All of parcels", "tools": [FIND]}
    own = 7 + text_tokens("parcels:All of parcels")
    assert count("hi", tools=[namespace]) == count("hi", tools=[FIND]) + own


def test_the_schema_of_a_structured_answer_counts() -> None:
    responses = {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}
    chat = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    as_json = text_tokens(json.dumps(SCHEMA))
    assert count("hi", text_format=responses) == count("hi", text_format=chat) == count("hi") + as_json
    assert count("hi", text_format={"type": "text"}) == count("hi")


INCOMPLETE: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/cat.png"}]},
    {"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]},
    {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
    {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]},
    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]},
    {"role": "assistant", "content": None, "audio": {"id": "audio_1"}},
    {"type": "item_reference", "id": "msg_1"},
    {"type": "web_search_call", "id": "ws_1", "status": "completed"},
]


@pytest.mark.parametrize("item", INCOMPLETE, ids=json.dumps)
@pytest.mark.parametrize("model", [MODEL, KNOWN])
def test_what_cannot_be_counted_is_said_and_has_no_bound(item: dict[str, Any], model: str) -> None:
    counted = Tokenizer(model).count_messages([{"role": "user", "content": "hi"}, item])
    assert not counted.complete
    assert counted.tokens >= count("hi")
    assert Tokenizer(model).bound_messages([item]) is None


def test_a_tool_that_openai_runs_makes_a_count_incomplete() -> None:
    tools: list[dict[str, Any]] = [FIND, {"type": "web_search"}]
    counted = Tokenizer(KNOWN).count_messages("hi", tools=tools)
    assert (counted.complete, counted.tokens) == (False, count("hi", tools=[FIND]))
    assert Tokenizer(KNOWN).bound_messages("hi", tools=tools) is None


@pytest.mark.parametrize("kind", ["reasoning", "compaction"])
def test_encrypted_content_is_not_counted_but_has_a_bound(kind: str) -> None:
    item = {"type": kind, "id": "rs_1", "summary": [], "encrypted_content": "gAAAAAB" * 100}
    tokenizer = Tokenizer(KNOWN)
    assert not tokenizer.count_messages([item]).complete
    plain = tokenizer.bound_messages([{**item, "encrypted_content": None}])
    assert plain is not None
    assert tokenizer.bound_messages([item]) == plain + 700


# --- Bounds ---

TEXTS = st.text(max_size=80) | st.sampled_from(
    ["<|endoftext|>", "\ud83d", "🧑‍🚒" * 5, "お誕生日", " " * 300, "a" * 300, "\x00\x01"]
)
PARTS = st.fixed_dictionaries({"type": st.sampled_from(["text", "input_text"]), "text": TEXTS}) | st.just(
    {"type": "input_image", "image_url": IMAGE}
)
ITEMS = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "developer"]), "content": TEXTS | st.lists(PARTS, max_size=3)}
    ),
    st.fixed_dictionaries({"role": st.just("user"), "content": TEXTS, "name": TEXTS}),
    st.fixed_dictionaries({"type": st.just("function_call"), "name": TEXTS, "arguments": TEXTS}),
    st.fixed_dictionaries({"type": st.just("function_call_output"), "output": TEXTS | st.lists(PARTS, max_size=2)}),
    st.fixed_dictionaries({"type": st.just("reasoning"), "summary": st.lists(PARTS, max_size=2)}),
)
PROPERTIES = st.dictionaries(
    TEXTS,
    st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={"description": TEXTS, "enum": st.lists(TEXTS | st.integers(), max_size=9)},
    ),
    max_size=4,
)
TOOLS = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "name": TEXTS,
        "description": TEXTS,
        "parameters": st.fixed_dictionaries({"type": st.just("object"), "properties": PROPERTIES}),
    }
)


@given(st.lists(ITEMS, max_size=4), TEXTS, st.lists(TOOLS, max_size=3), st.sampled_from([MODEL, KNOWN, "gpt-4o", "x"]))
def test_a_bound_is_never_less_than_the_count(
    items: list[dict[str, Any]], instructions: str, tools: list[dict[str, Any]], model: str
) -> None:
    tokenizer = Tokenizer(model)
    request: dict[str, Any] = {"instructions": instructions, "tools": tools, "text_format": {"schema": SCHEMA}}
    bound = tokenizer.bound_messages(items, **request)
    assert bound is not None
    assert bound >= tokenizer.count_messages(items, **request).tokens


@given(st.text(max_size=200))
def test_the_bound_of_an_unknown_vocabulary_holds_for_any(text: str) -> None:
    bound = Tokenizer(MODEL).bound_messages(text)
    assert bound is not None
    assert all(bound >= count(text, model) for model in ("gpt-4o", "gpt-4"))
    assert bound >= len(text.encode()), "a vocabulary of single bytes is one too"


def test_the_bound_of_a_known_vocabulary_is_close() -> None:
    text = "The parcel is late. " * 400
    known, unknown = Tokenizer(KNOWN).bound_messages(text), Tokenizer(MODEL).bound_messages(text)
    assert known is not None
    assert unknown is not None
    assert count(text) < known < 1.1 * count(text)
    assert unknown < len(text) + 200


async def test_the_counter_bounds_off_the_event_loop() -> None:
    counter = TokenCounter()
    assert await counter.bound_messages("hi", KNOWN, tools=[FIND]) == Tokenizer(KNOWN).bound_messages(
        "hi", tools=[FIND]
    )
    assert await counter.bound_messages([INCOMPLETE[0]], KNOWN) is None


# --- The API's own count ---

REQUESTS: list[dict[str, Any]] = [
    {"input": "Where is parcel AB-1?"},
    {"input": "お誕生日おめでとう 🎂 <|endoftext|>", "instructions": "Be brief."},
    {"input": "Where?", "tools": [FIND, {**FIND, "name": "other"}], "tool_choice": "auto"},
    {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Where?"}]},
            {"type": "function_call", "call_id": "c", "name": "find", "arguments": '{"city": "Berlin"}'},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "here"}]},
        ],
        "text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA}},
    },
]


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("model", [MODEL, KNOWN, "gpt-4.1"])
async def test_the_apis_count_is_exact_and_never_above_the_bound(
    simulator: Simulator, request_: dict[str, Any], model: str
) -> None:
    clients = Clients(KEY, simulator.url, timeout=30)
    params = {**request_, "model": model, "max_output_tokens": 16, "store": False}
    exact = await InputTokenCounter(clients, RetryPolicy()).count(params)
    async with connect(simulator.url) as client:
        response = await client.responses.create(**params)
    await clients.aclose()
    assert response.usage is not None
    assert exact == response.usage.input_tokens
    bound = await TokenCounter().bound_messages(
        request_["input"],
        model,
        instructions=request_.get("instructions"),
        tools=request_.get("tools", ()),
        text_format=request_.get("text", {}).get("format"),
    )
    assert bound is not None
    assert bound >= exact


async def test_the_apis_count_is_tried_again(simulator: Simulator) -> None:
    clients = Clients(KEY, simulator.url, timeout=30)
    counter = InputTokenCounter(clients, RetryPolicy(max_retries=1, sleep=at_once))
    simulator.inject(Fault("server_error", endpoint="/responses/input_tokens"))
    assert await counter.count({"model": MODEL, "input": "hi"}) == count("hi")
    assert simulator.statistics().faults == 1
    await clients.aclose()
