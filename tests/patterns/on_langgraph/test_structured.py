"""Answers in a given shape: how a model is asked for them, and how whatever it says is read."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from pattern_support import KEY

from runmeter.patterns.errors import MalformedAnswer
from runmeter.patterns.langgraph.structured import Shape, bind_shape, read_shape, shape_of
from runmeter.patterns.nesting import MAX_NESTING


class Step(msgspec.Struct):
    """A step."""

    text: str
    minutes: int = 5
    after: str | None = None


class Plan(msgspec.Struct):
    """A plan of several steps."""

    steps: list[Step]
    mood: Literal["calm", "hasty"] = "calm"


class Tree(msgspec.Struct):
    """A tree."""

    name: str
    branches: list["Tree"]


PLAN = shape_of(Plan, "plan")
WRITTEN = '{"steps": [{"text": "dig", "minutes": 3, "after": null}], "mood": "hasty"}'
READ = Plan([Step("dig", 3)], "hasty")


def objects(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in a schema."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for part in schema:
            yield from objects(part)


@pytest.mark.parametrize("shape", [PLAN, shape_of(Tree, "tree"), shape_of(Step, "step")])
def test_a_shape_is_a_schema_in_strict_form(shape: Shape[Any]) -> None:
    assert shape.schema["type"] == "object", "the API wants one at the root"
    for each in objects(shape.schema):
        assert each["required"] == list(each["properties"])
        assert each["additionalProperties"] is False
    text = json.dumps(shape.schema)
    references = {part.split('"')[0] for part in text.split("#/$defs/")[1:]}
    assert references <= set(shape.schema.get("$defs", ())), "none leads nowhere"
    assert "default" not in text


def test_its_docstring_is_its_description() -> None:
    assert (PLAN.name, PLAN.description) == ("plan", "A plan of several steps.")
    assert set(PLAN.schema["$defs"]) == {"Step"}, "and not itself"


def test_another_schema_may_take_the_place_of_its_own() -> None:
    schema = {"type": "object", "properties": {"mood": {"type": "string", "enum": ["calm"]}}, "required": ["mood"]}
    shape = shape_of(Plan, "plan", schema=schema)
    assert shape.schema == {**schema, "additionalProperties": False}
    assert shape.kind is Plan


@pytest.mark.parametrize(
    "text",
    [
        WRITTEN,
        f"```json\n{WRITTEN}\n```",
        f"Here is the plan:\n\n{WRITTEN}\n\nGood luck!",
        WRITTEN.replace("3", '"3"'),  # models that are held to nothing write numbers as strings
        WRITTEN.replace("}]", ', "colour": "red"}]'),
    ],
)
def test_json_is_read_alone_or_within_text(text: str) -> None:
    assert read_shape(AIMessage(text), PLAN) == READ


def test_a_call_of_the_function_that_stands_for_it_is_read() -> None:
    calls = [
        {"name": "other", "args": {}, "id": "1", "type": "tool_call"},
        {"name": "plan", "args": json.loads(WRITTEN), "id": "2", "type": "tool_call"},
    ]
    assert read_shape(AIMessage("{not this}", tool_calls=calls), PLAN) == READ


def test_null_stands_for_what_is_not_given() -> None:
    text = '{"steps": [{"text": "dig", "minutes": null, "after": null}], "mood": null}'
    assert read_shape(AIMessage(text), PLAN) == Plan([Step("dig")])
    with pytest.raises(MalformedAnswer, match=r"\$\.steps"):
        read_shape(AIMessage('{"steps": null, "mood": null}'), PLAN)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no JSON object in it"),
        ("I would rather not.", "there is no JSON object in it"),
        ("[1, 2]", "there is no JSON object in it"),
        ('{"steps": [', "there is no JSON object in it"),
        ("{x}", "it is not JSON"),
        ('{"steps": "\ud800" x}', "it is not JSON"),
        ('{"steps": ' + "[" * MAX_NESTING + "]" * MAX_NESTING + "}", "it nests deeper than 100 levels"),
        ("{" + '"a": {' * 5_000 + "}" * 5_001, "it nests deeper than 100 levels"),
        ("{" + '"a": {' * 50_000 + "}" * 50_001, "it nests deeper than 100 levels"),
        ("{}", "missing required field `steps`"),
        ('{"steps": [{"text": 1}]}', r"Expected `str`, got `int` - at `\$.steps\[0\].text`"),
        ('{"steps": [], "mood": "angry"}', "Invalid enum value 'angry'"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, why: str) -> None:
    with pytest.raises(MalformedAnswer, match=why) as raised:
        read_shape(AIMessage(text), PLAN)
    assert raised.value.shape == "plan"
    assert isinstance(raised.value, ValueError)


def test_as_deep_as_it_may_be_it_is_read() -> None:
    written = Tree("leaf", [])
    for _ in range(MAX_NESTING // 2 - 1):  # each is an object and an array
        written = Tree("branch", [written])
    assert read_shape(AIMessage(msgspec.json.encode(written).decode()), shape_of(Tree, "tree")) == written


def test_a_call_that_nests_too_deeply_is_said() -> None:
    args: dict[str, Any] = {}
    for _ in range(MAX_NESTING):
        args = {"steps": args}
    call = {"name": "plan", "args": args, "id": "1", "type": "tool_call"}
    with pytest.raises(MalformedAnswer, match="it nests deeper than 100 levels"):
        read_shape(AIMessage("", tool_calls=[call]), PLAN)


def test_a_long_text_without_an_object_is_read_at_once() -> None:
    """Looking for the end anew from each of its braces would take minutes."""
    with pytest.raises(MalformedAnswer, match="there is no JSON object"):
        read_shape(AIMessage("{" * 1_000_000), PLAN)


def test_the_error_keeps_what_was_said() -> None:
    call = {"name": "plan", "args": {"steps": 1}, "id": "1", "type": "tool_call"}
    for answer, said in ((AIMessage("No."), "No."), (AIMessage("", tool_calls=[call]), '{"steps": 1}')):
        with pytest.raises(MalformedAnswer) as raised:
            read_shape(answer, PLAN)
        assert raised.value.answer == said


@given(st.text() | st.text().map(lambda text: "{" + text + "}"))
def test_nothing_else_is_raised(text: str) -> None:
    try:
        read_shape(AIMessage(text), PLAN)
    except MalformedAnswer:
        pass


@given(
    st.lists(st.builds(Step, st.text(), st.integers(-(2**53), 2**53), st.none() | st.text())),
    st.sampled_from(["calm", "hasty"]),
    st.text(alphabet=st.characters(exclude_characters="{}")),
)
def test_what_is_written_is_read(steps: list[Step], mood: Any, around: str) -> None:
    plan = Plan(steps, mood)
    written = msgspec.json.encode(plan).decode()
    assert read_shape(AIMessage(f"{around}{written}{around}"), PLAN) == plan


def test_openai_is_held_to_it_by_structured_outputs() -> None:
    model: Any = bind_shape(ChatOpenAI(model="gpt-6-luna", api_key=lambda: KEY), PLAN)
    form = model.kwargs["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"] == {
        "name": "plan",
        "description": "A plan of several steps.",
        "schema": PLAN.schema,
        "strict": True,
    }


class Caller(FakeListChatModel):
    """A model that can call functions."""

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Any:
        return tools, tool_choice


def test_another_model_must_call_a_function() -> None:
    bound: Any = bind_shape(Caller(responses=[]), PLAN)
    tools, choice = bound
    assert choice == "plan"
    [definition] = tools
    assert definition["function"]["parameters"] == PLAN.schema


def test_a_model_that_can_do_neither_is_told() -> None:
    with pytest.raises(NotImplementedError):
        bind_shape(FakeListChatModel(responses=[]), PLAN)
    request = PLAN.request
    assert request.startswith("A plan of several steps.")
    assert json.loads(request[request.index("{") :]) == PLAN.schema
