"""What the simulator says of its own accord: extracts, tool calls, and instances of JSON schemas."""

import json
import re
import timeit
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runmeter.simulator import Item, Prompt, PromptTool, Reply
from runmeter.simulator.model.arguments import REMARK, synthesise
from runmeter.simulator.model.catalogue import find_model
from runmeter.simulator.model.questions import asking, question
from runmeter.simulator.model.replies import improvise
from runmeter.simulator.model.words import keywords, stems, summary, words

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


@pytest.mark.parametrize(
    "alike",
    [
        "bee bees Bee's",
        "pollinate pollination pollinated pollinating",
        "run runs running",
        "carry carries carried",
        "glass glasses",
        "sea seas",
        "lie lies",
        "bus buses",
        "deep deeply",
        "parcel parcels parcel\u2019s",
    ],
)
def test_forms_of_a_word_have_one_stem(alike: str) -> None:
    assert len(stems(alike)) == len(alike.split())
    assert len(set(stems(alike))) == 1


@pytest.mark.parametrize("different", ["bee bed", "sea sad", "room rome", "1100 110", "AB-11 AB-1", "car cat"])
def test_different_words_have_different_stems(different: str) -> None:
    assert len(set(stems(different))) == 2


def test_questions_get_an_answer_too() -> None:
    assert improvise(prompt("Where is my parcel AB-123?")).text == 'You asked: "Where is my parcel AB-123?"'
    assert improvise(prompt("")).text == "There was nothing to answer."


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ('{"city": "Berlin", "stops": [{"at": 9}, {"at": 12}]}', "look says: city: Berlin, stops: at: 9; at: 12."),
        ('{"words": 1200, "different": 31, "long": true}', "look says: 1,200 words, different: 31, long: True."),
        ("12", "look says: 12."),
        ('["bees.md: Bees visit flowers. It rained.", "and so on"]', "look says: Bees visit flowers."),
        ("gone", "look says: gone."),
        ("It is cold in here today. It is. ", "look says: It is cold in here today."),
        ("x " * 400, f"look says: {'x ' * 120}…"),
    ],
)
def test_outputs_are_used_in_the_answer(output: str, said: str) -> None:
    call = Item("function_call", name="look", call_id="call_1", arguments="{}")
    result = Item("function_call_output", call_id="call_1", output=output)
    tool = PromptTool("look")
    assert improvise(prompt("Where?", call, result, tools=[tool], allowed=[tool])) == Reply(said)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Do bees make honey?", "Do bees make honey?"),
        ("Answer the following request. Keep to the outline.\n\nList bees.\n\nOutline:\n\n- wasps", "List bees."),
        ("Some words. And more.\n\nDo bees make honey?\n\nOr wasps?", "Do bees make honey?"),
        ("What?\n\nQuestion: Do bees make honey?", "Do bees make honey?"),
        ('## Answers\n\nYou asked: "Do bees make honey?"', "Do bees make honey?"),
        ("Your task: bees\n\nDo bees make honey?", "Do bees make honey?"),
        ("Bees make honey", "Bees make honey"),
        ("# Bees", "# Bees"),
        ("Where " + "is it " * 100, "Where " + "is it " * 32 + "…"),
        ("", ""),
    ],
)
def test_a_question_is_found_among_what_is_around_it(text: str, asked: str) -> None:
    assert question(text) == asked


def test_a_message_that_only_says_how_to_answer_asks_nothing() -> None:
    frame = "Judge the following answer to the request above.\n\nThe answer:\n\nHoney is sweet."
    assert asking(["Do bees make honey?", frame]) == "Do bees make honey?"
    assert asking(["Honey is sweet.", "So it is."]) == "So it is."
    assert asking([]) == ""


def test_an_agent_that_was_handed_a_question_answers_it_and_does_not_hand_it_on() -> None:
    call = Item("function_call", name="transfer_to_expert", call_id="call_1", arguments="{}")
    result = Item("function_call_output", call_id="call_1", output="Handed over.")
    back, find = PromptTool("transfer_to_assistant"), PromptTool("find")
    asked = prompt("Do bees make honey?", call, result, tools=[back], allowed=[back])
    assert improvise(asked) == Reply('You asked: "Do bees make honey?"')
    with_tools = prompt("Do bees make honey?", call, result, tools=[back, find], allowed=[back, find])
    assert [call.name for call in improvise(with_tools).tool_calls] == ["find"]


def test_outputs_before_the_last_user_message_are_history() -> None:
    call = Item("function_call", name="look", call_id="call_1", arguments="{}")
    result = Item("function_call_output", call_id="call_1", output="gone")
    later = Item(role="user", content="And now?")
    assert prompt("Where?", call, result).outputs[0].tool == "look"
    assert prompt("Where?", call, result, later).outputs == []
    assert prompt("Where?", call, result, later).user_text == "And now?"


# --- Passages ---

PASSAGES = """[1] (sea.md) The sea is 3,688 m deep on average. It covers most of the planet.

[2] (bees.md) Bees visit flowers. They make honey!
"""
DEEP = "The sea is 3,688 m deep on average [1]."
HONEY = "They make honey [2]!"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{PASSAGES}\nHow deep is the sea?", DEEP),
        (f"How deep is the sea?\n\n{PASSAGES}", DEEP),
        (f"Question: How deep is the sea?\n\n{PASSAGES}", DEEP),
        (f"{PASSAGES}\n## User question:\nHow deep is the sea", DEEP),
        (f"{PASSAGES}\n**Query:** honey", HONEY),
        (f"{PASSAGES}\nTell me about honey.", HONEY),
        (f"<context>{PASSAGES}</context><question>Do bees make honey?</question>", HONEY),
        (f"{PASSAGES}\nHow deep is the sea, and do bees make honey?", f"{DEEP} {HONEY}"),
        (f"{PASSAGES}\nWho wrote Hamlet?", 'The passages do not answer this: "Who wrote Hamlet?"'),
        (f"{PASSAGES}\nWho is?", "The passages do not answer this."),
        ("[1] Bees\nBees make honey.\n[2]: Bees make honey.\n\nWhat do bees make?", "Bees make honey [1]."),
        ("[7] - *Bees* make [honey](x)\n\nWhat do bees make?", "Bees make honey [7]."),
        ("[1] Bees made honey [3] all day.\n\nWhat do bees make?", "Bees made honey [3] all day [1]."),
        ("The array a[1] is short. What is short?", "The array a[1] is short."),
    ],
)
def test_answers_quote_what_fits_and_say_where_it_stands(text: str, said: str) -> None:
    assert improvise(prompt(text)).text == said


def test_passages_may_stand_elsewhere_than_the_question() -> None:
    asked = "How deep is the sea?"
    question = Item(role="user", content=asked)
    call = Item("function_call", name="search", call_id="call_1", arguments="{}")
    output = Item("function_call_output", call_id="call_1", output=PASSAGES)
    assert improvise(prompt(asked, call, output)).text == DEEP
    assert improvise(prompt(asked, instructions=f"Answer from this:\n{PASSAGES}")).text == DEEP
    for before in (Item(role="developer", content=PASSAGES), Item(role="user", content=PASSAGES)):
        given_before = Prompt(model=find_model("gpt-6-luna"), items=[before, question])
        assert improvise(given_before).text == DEEP


def test_passages_of_an_earlier_question_are_history() -> None:
    answer = Item(role="assistant", content="Deep.")
    later = Item(role="user", content="Where is my parcel?")
    asked = f"{PASSAGES}\nHow deep is the sea?"
    assert improvise(prompt(asked, answer, later)).text == 'You asked: "Where is my parcel?"'


def test_at_most_three_sentences_are_quoted_the_best_first() -> None:
    listed = "\n".join(f"[{n}] The sea is {'deep and ' * (n == 4)}blue in part {n}." for n in range(1, 7))
    said = improvise(prompt(f"{listed}\n\nWhere is the sea blue?")).text
    assert re.findall(r"\[(\d)\]", said) == ["1", "2", "3"]
    assert improvise(prompt(f"{listed}\n\nIs the sea deep?")).text == "The sea is deep and blue in part 4 [4]."


@given(
    st.lists(st.sampled_from(["[1] ", "[2]: ", "\n", "\n\n", "bees", "?", ".", "Question:", "<a>", "(x)", " ", "Tell"]))
)
def test_whatever_looks_like_passages_gets_an_answer(parts: list[str]) -> None:
    assert improvise(prompt("".join(parts))).text


# --- Tools ---


def tool(name: str, description: str = "", **properties: Any) -> PromptTool:
    return PromptTool(name, description, {"type": "object", "properties": properties, "required": list(properties)})


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


def test_where_a_tool_must_be_called_on_every_turn_each_is_called_once_and_then_again() -> None:
    """One of them is how to answer, as Pydantic AI's `final_result` is: a run ends when that is called."""
    tools = [tool("track", parcel={"type": "string"}), tool("weather", city={"type": "string"}), tool("final_result")]
    items: list[Item] = []
    called: list[str] = []
    for _ in range(4):
        asked = prompt("Where is my parcel?", *items, tools=tools, allowed=tools, choice="required", parallel=False)
        (call,) = improvise(asked).tool_calls
        called.append(call.name)
        call_id = f"call_{len(called)}"
        items += [
            Item("function_call", name=call.name, call_id=call_id, arguments=call.arguments),
            Item("function_call_output", call_id=call_id, output="done"),
        ]
    assert called == ["track", "weather", "final_result", "track"]
    later = prompt("And now?", *items, Item(role="user", content="Track it."), tools=tools, allowed=tools)
    assert later.called == set()


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
        "question": "Please change order X-77 to 4 blue lamps by Friday.",
    }


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("Where is my parcel 7?", "7"),
        ("Where is my parcel 00123, and where is 5?", "00123"),
        ("Where is RX-7, the one of 2026?", "RX-7"),
        ("Where is it?", "example"),
    ],
)
def test_a_number_has_the_digits_of_the_question(text: str, made: str) -> None:
    assert synthesise({"type": "object", "properties": {"number": {"type": "string"}}}, text) == {"number": made}


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("question", "Do bees or wasps make honey?"),
        ("text", "Do bees or wasps make honey?"),
        ("keywords", "bees wasps honey"),
        ("reason", "It is about bees, wasps and honey."),
        ("feedback", REMARK),
        ("title", "bees"),
        ("city", "bees"),
    ],
)
def test_texts_are_made_for_what_they_are_called(name: str, made: str) -> None:
    schema = {"type": "object", "properties": {name: {"type": "string"}}}
    assert synthesise(schema, "Do bees or wasps make honey?") == {name: made}


def test_tasks_are_the_question_with_something_to_look_at() -> None:
    task = {"type": "object", "properties": {"title": {"type": "string"}, "instructions": {"type": "string"}}}
    first, second, *_ = synthesise({"type": "array", "items": task}, "Compare bees and wasps.")
    assert first == {"title": "bees", "instructions": "Compare bees and wasps."}
    assert second == {"title": "wasps", "instructions": "Compare bees and wasps. Look at wasps."}


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


TWO_OR_THREE = {"type": "array", "items": {"type": "string"}}
QUERY = {"type": "object", "properties": {"query": {"type": "string"}}}


def test_lists_have_two_or_three_items_that_differ() -> None:
    made = [synthesise(TWO_OR_THREE, f"Ada met Bob in Rome {n} times.") for n in range(20)]
    assert {len(each) for each in made} == {2, 3}
    assert all(len(set(each)) == len(each) for each in made)


@pytest.mark.parametrize(
    ("settings", "made"),
    [
        ({"items": QUERY, "maxItems": 2}, [{"query": "red green lamps"}, {"query": "red green lamps. Look at red."}]),
        ({"maxItems": 0}, []),
        ({"maxItems": 1}, ["red"]),
        ({"minItems": 1}, ["red"]),
        ({"minItems": 4}, ["red", "green", "lamps", "red"]),
        ({"items": {"const": 1}}, [1]),
        ({"items": {"enum": ["blue", "green", "red"]}, "maxItems": 2}, ["green", "red"]),
        ({"items": {"enum": ["blue", "green", "white"]}, "maxItems": 2}, ["green", "blue"]),
    ],
)
def test_lists_are_as_long_as_they_may_and_can_be(settings: dict[str, Any], made: list[Any]) -> None:
    assert synthesise({**TWO_OR_THREE, **settings}, "red green lamps") == made


def test_what_is_true_depends_on_all_of_the_prompt() -> None:
    schema = {"type": "object", "properties": {"good": {"type": "boolean"}}}

    def judge(text: str, *items: Item, **settings: Any) -> bool:
        good: bool = json.loads(improvise(prompt(text, *items, json_schema=schema, **settings)).text)["good"]
        return good

    drafts = [Item(role="assistant", content=f"Draft {n}.") for n in range(20)]
    question = Item(role="user", content="Is it good?")
    assert {judge("Write.", draft, question) for draft in drafts} == {True, False}
    assert {judge("Is it good?", instructions=f"Judge {n}.") for n in range(20)} == {True, False}
    assert len({judge("Is it good?") for _ in range(5)}) == 1


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


@pytest.mark.parametrize(
    "mark",
    [
        "[1] ",
        "[1] a\n",
        "\n[1]",
        "\t",
        "\n \n",
        "<a",
        "<a>",
        "Question:\n",
        "Question",
        "[1] (",
        "[1] ?\n\n",
        "# ",
        "= \n",
    ],
)
@pytest.mark.parametrize("end", ["", "\n\nHow grey is the sea?", "\n\n[1] The sea.\n\nQuestion: How grey is the sea?"])
def test_looking_for_passages_takes_no_longer_for_marks_without_an_end(mark: str, end: str) -> None:
    """As above: some marks make thousands of passages, each of which takes its time, but no more than that."""
    text = mark * (20_000 // len(mark)) + end
    usual = "[1] The sea is grey.\n" * 1_000 + "\n\nHow grey is the sea?"
    assert min(timeit.repeat(lambda: improvise(prompt(text)), number=1, repeat=3)) < 20 * min(
        timeit.repeat(lambda: improvise(prompt(usual)), number=1, repeat=3)
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
        st.builds(
            lambda items, limits: {"type": "array", "items": items, **limits},
            inner,
            st.fixed_dictionaries({}, optional={"minItems": st.integers(0, 3), "maxItems": st.integers(3, 5)})
            | st.fixed_dictionaries({"maxItems": st.integers(0, 5)}),
        )
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
        wrong += ["too few"] * (len(value) < schema.get("minItems", 0))
        wrong += ["too many"] * (len(value) > schema.get("maxItems", 3))
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
