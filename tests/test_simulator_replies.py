"""What the simulator says of its own accord: extracts, tool calls, and instances of JSON schemas."""

import json
import re
import timeit
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runmeter.simulator import Item, Prompt, Reply, Tool
from runmeter.simulator.arguments import synthesise
from runmeter.simulator.models import find_model
from runmeter.simulator.replies import improvise
from runmeter.simulator.words import keywords, summary, words

MARKDOWN = """# Bees

Tell me what this says:

- *Bees* visit [flowers](https://example.com). Flowers feed bees, and bees pollinate flowers.
- It rained.

```python
print("Flowers and bees. Flowers and bees.")
```

| flowers | bees |
|---|---|

The honey of bees in `old_hives` tastes of flowers. Nothing else happened in the village that year.
"""


def prompt(text: str, *items: Item, **settings: Any) -> Prompt:
    return Prompt(model=find_model("gpt-6-luna"), items=[Item(role="user", content=text), *items], **settings)


# --- Texts ---


def test_a_summary_is_sentences_of_the_text_without_markup() -> None:
    said = summary(MARKDOWN)
    assert said == "Bees visit flowers. Flowers feed bees, and bees pollinate flowers."


def test_a_longer_text_has_a_longer_summary() -> None:
    sentences = [f"Sentence number {n} speaks of the sea." for n in range(20)]
    assert [len(summary(" ".join(sentences[:n])).split(". ")) for n in (1, 3, 4, 8, 20)] == [1, 1, 2, 3, 3]


@pytest.mark.parametrize(
    "text", ["", "no sentence here", "What is it?", "Please list all parcels.", "# Title\n\n---\n"]
)
def test_some_texts_say_nothing(text: str) -> None:
    assert summary(text) == ""


@given(st.text())
def test_reading_never_fails(text: str) -> None:
    summary(text)
    assert all(word in text for word in words(text))
    keywords(text)
    assert isinstance(improvise(prompt(text)), Reply)


def test_questions_get_an_answer_too() -> None:
    assert improvise(prompt("Where is my parcel AB-123?")).text == "You asked about parcel AB-123."
    assert improvise(prompt("")).text == "There was nothing to answer."


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ('{"city": "Berlin", "stops": [{"at": 9}, {"at": 12}]}', "look says: city Berlin, stops at 9; at 12."),
        ("12", "look says: 12."),
        ("gone", "look says: gone."),
        ("It is cold in here today. It is. ", "look says: It is cold in here today."),
        ("x " * 400, f"look says: {'x ' * 120}…"),
    ],
)
def test_outputs_are_used_in_the_answer(output: str, said: str) -> None:
    call = Item("function_call", name="look", call_id="call_1", arguments="{}")
    result = Item("function_call_output", call_id="call_1", output=output)
    tool = Tool("look")
    assert improvise(prompt("Where?", call, result, tools=[tool], allowed=[tool])) == Reply(said)


def test_outputs_before_the_last_user_message_are_history() -> None:
    call = Item("function_call", name="look", call_id="call_1", arguments="{}")
    result = Item("function_call_output", call_id="call_1", output="gone")
    later = Item(role="user", content="And now?")
    assert prompt("Where?", call, result).outputs[0].tool == "look"
    assert prompt("Where?", call, result, later).outputs == []
    assert prompt("Where?", call, result, later).user_text == "And now?"


# --- Tools ---


def tool(name: str, description: str = "", **properties: Any) -> Tool:
    return Tool(name, description, {"type": "object", "properties": properties, "required": list(properties)})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("What's the weather in Paris?", "getWeather"),
        ("Track my parcels.", "track_parcel"),
        ("How much is 12 euros in dollars?", "convert"),
        ("Anything else?", "track_parcel"),  # none fits: the first
    ],
)
def test_the_tool_whose_words_fit_is_called(text: str, name: str) -> None:
    tools = [
        tool("track_parcel", parcel_id={"type": "string"}),
        tool("getWeather", city={"type": "string"}),
        tool("convert", "Convert euros into dollars.", amount={"type": "number"}),
    ]
    assert improvise(prompt(text, tools=tools, allowed=tools)).tool_calls[0].name == name


def test_effort_asked_for_costs_reasoning_and_none_costs_none() -> None:
    efforts: list[Any] = [None, "none", "low", "medium", "high"]
    tokens = {effort: improvise(prompt("Hello there.", effort=effort)).reasoning_tokens for effort in efforts}
    assert tokens[None] == tokens["none"] == 0
    assert 0 < tokens["low"] < tokens["medium"] < tokens["high"]


# --- Instances of schemas ---


def test_arguments_come_from_the_text() -> None:
    schema = {
        "type": "object",
        "properties": {
            "order_id": {"type": "string"},
            "quantity": {"type": "integer"},
            "colour": {"type": "string", "enum": ["red", "blue"]},
            "when": {"type": "string", "format": "date"},
            "question": {"type": "string"},
            "note": {"type": ["string", "null"]},
        },
        "required": ["order_id", "quantity", "colour", "when", "question"],
    }
    made = synthesise(schema, "Please change order X-77 to 4 blue lamps by Friday.")
    assert made == {
        "order_id": "X-77",
        "quantity": 4,
        "colour": "blue",
        "when": "2026-11-22",
        "question": "change order X-77 4 blue lamps",
    }


def test_references_and_alternatives_are_followed_and_recursion_ends() -> None:
    node = {"type": "object", "properties": {"name": {"type": "string"}, "child": {"$ref": "#/$defs/Node"}}}
    schema = {
        "$defs": {"Node": node},
        "type": "object",
        "properties": {
            "root": {"$ref": "#/$defs/Node"},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
            "both": {"allOf": [{"type": "object", "properties": {"n": {"const": 3}}}, {"required": ["n"]}]},
        },
    }
    made = synthesise(schema, "Ada met Bob.")
    assert made["root"]["name"] == "Ada"
    assert made["root"]["child"]["name"] == "met"
    assert isinstance(made["maybe"], bool)
    assert made["both"] == {"n": 3}
    json.dumps(made)


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"$ref": "#"}, {"$ref": "#/$defs/Nobody"}, {"enum": []}])
def test_odd_schemas_are_no_obstacle(schema: dict[str, Any]) -> None:
    json.dumps(synthesise(schema, "a text"))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 30_000_000},
        {"type": "array", "minItems": 100, "items": {"$ref": "#"}},
        {"type": "object", "properties": {name: {"$ref": "#"} for name in "abcdefghijklmnopqrst"}},
        {"allOf": [{"$ref": "#"}] * 30},
        {"type": "string", "minLength": 10**9},
    ],
)
def test_schemas_of_huge_instances_get_a_small_one(schema: dict[str, Any]) -> None:
    assert len(json.dumps(synthesise(schema, "a text"))) < 100_000


@pytest.mark.parametrize("kind", ["integer", "number"])
def test_numbers_too_large_for_a_float_are_no_obstacle(kind: str) -> None:
    assert synthesise({"type": kind}, "9" * 400) == 1
    assert synthesise({"type": kind, "minimum": 1e308, "multipleOf": 1e-300}, "5") == 1e308


@pytest.mark.parametrize("mark", ["[", "![", "[](", "[a](b", "```x\n", "~~~\n```\n", "*", "-\n", ". "])
def test_reading_takes_no_longer_for_marks_without_an_end(mark: str) -> None:
    """The time for texts of one size may differ, but not by the hundreds that a quadratic search takes."""
    text = mark * (20_000 // len(mark))
    usual = "The sea is grey. " * 1_200
    assert min(timeit.repeat(lambda: summary(text), number=1, repeat=3)) < 20 * min(
        timeit.repeat(lambda: summary(usual), number=1, repeat=3)
    )


STRINGS = st.fixed_dictionaries(
    {"type": st.just("string")}, optional={"minLength": st.integers(0, 9), "maxLength": st.integers(9, 20)}
)
ENUMS = st.lists(st.sampled_from(["red", "green", "blue"]), min_size=1, unique=True).map(
    lambda values: {"enum": values}
)
NUMBERS = st.builds(
    lambda kind, low, span, exclusive: {
        "type": kind,
        f"{'exclusiveMinimum' if exclusive else 'minimum'}": low,
        f"{'exclusiveMaximum' if exclusive else 'maximum'}": low + span,
    },
    st.sampled_from(["integer", "number"]),
    st.integers(-50, 50),
    st.integers(2, 50),
    st.booleans(),
)
SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    STRINGS | ENUMS | NUMBERS | st.sampled_from([{"type": "boolean"}, {"type": "null"}]),
    lambda inner: (
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3))
        | st.dictionaries(st.sampled_from(["query", "city", "item_id", "count"]), inner).map(
            lambda properties: {"type": "object", "properties": properties, "required": list(properties)}
        )
        | inner.map(lambda each: {"anyOf": [each, {"type": "null"}]})
    ),
    max_leaves=8,
)


def problems(value: Any, schema: dict[str, Any]) -> list[str]:
    """What is wrong with an instance: a small validator, written without looking at what it validates."""
    if "anyOf" in schema:
        return [] if any(not problems(value, each) for each in schema["anyOf"]) else ["fits none"]
    if "enum" in schema:
        return [] if value in schema["enum"] else ["not in enum"]
    types = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
    types |= {"array": list, "object": dict}
    if not isinstance(value, types[schema["type"]]):  # type: ignore[arg-type] # a type or a tuple of types
        return [f"{value!r} is no {schema['type']}"]
    wrong = []
    if isinstance(value, str):
        wrong += ["length"] * (not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**6))
    elif schema["type"] in {"integer", "number"}:
        wrong += ["too small"] * (value < schema.get("minimum", value))
        wrong += ["too large"] * (value > schema.get("maximum", value))
        wrong += ["not larger"] * ("exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"])
        wrong += ["not smaller"] * ("exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"])
    elif isinstance(value, list):
        wrong += ["too few"] * (len(value) < schema["minItems"])
        wrong += [each for item in value for each in problems(item, schema["items"])]
    elif isinstance(value, dict):
        wrong += ["missing"] * (not set(schema["required"]) <= value.keys())
        wrong += [each for name in value for each in problems(value[name], schema["properties"][name])]
    return wrong


@given(SCHEMAS, st.text() | st.just("Send 12 red lamps to Rome by 2027, order X-1."))
def test_what_is_made_fits_its_schema_and_is_always_the_same(schema: dict[str, Any], text: str) -> None:
    made = synthesise(schema, text)
    assert problems(made, schema) == []
    assert synthesise(schema, text) == made


@given(st.text())
def test_calls_are_json_whatever_the_text(text: str) -> None:
    tools = [tool("find", query={"type": "string"}), tool("count", n={"type": "integer"})]
    for call in improvise(prompt(text, tools=tools, allowed=tools)).tool_calls:
        assert isinstance(json.loads(call.arguments), dict)
        assert re.fullmatch("find|count", call.name)
