"""Schemas in OpenAI's strict form: what the guide to structured outputs allows, or a refusal that says where."""

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai.lib._pydantic import to_strict_json_schema

from runmeter.engine import ConfigurationError
from runmeter.patterns import Tool
from runmeter.patterns.errors import InvalidArguments
from runmeter.patterns.tools.choices import resolve
from runmeter.patterns.tools.strict_form import strict
from runmeter.simulator import Simulator

TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}
# As the guide has them, developers.openai.com/api/docs/guides/structured-outputs, "Supported schemas" (February 2026).
KEYWORDS = {
    *("type", "title", "description", "enum", "const", "anyOf", "items", "properties", "required"),
    *("additionalProperties", "pattern", "format", "minItems", "maxItems", "$ref", "$defs", "definitions"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema in a schema."""
    yield schema
    for keyword in ("properties", "$defs", "definitions"):
        for part in schema.get(keyword, {}).values():
            yield from nodes(part)
    for part in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])):
        yield from nodes(part)


def check(schema: dict[str, Any]) -> None:
    """Hold a schema to the guide's rules."""
    assert schema["type"] == "object"
    assert "anyOf" not in schema
    for node in nodes(schema):
        assert node.keys() <= KEYWORDS, node
        if "$ref" in node:
            assert node.keys() == {"$ref"}
            assert resolve(node["$ref"], schema) is not None
            continue
        if "anyOf" in node:
            assert node["anyOf"]
            continue
        kinds = [node["type"]] if isinstance(node["type"], str) else node["type"]
        assert kinds
        assert set(kinds) <= TYPES
        if "array" in kinds:
            assert "items" in node
        if "object" in kinds:
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])


class Color(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Brush:
    color: Annotated[Color, msgspec.Meta(description="Which colour.")]
    width: int = 3


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    tricks: list[str] = []


class Node(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=1, max_length=9)
    children: list["Node"] = []


class Pets(pydantic.BaseModel):
    favourite: Cat | Dog = pydantic.Field(discriminator="kind", description="The best.")
    node: Node = pydantic.Field(description="A tree.")
    when: pydantic.AnyUrl | None = None


def paint(c: Annotated[Color, "which colour"], level: Level, mode: Literal["a", 1, None] = "a") -> list[Any]:
    """Paint.

    Args:
        level: How much.
    """
    return [c, level, mode]


def with_brush(brush: Brush, more: Annotated[Brush | None, "another one"] = None) -> list[Any]:
    return [brush, more]


def keep(pets: Pets) -> list[Any]:
    return [pets]


@pytest.mark.parametrize("function", [paint, with_brush, keep])
def test_functions_have_a_form_that_the_api_takes(function: Any) -> None:
    check(Tool.from_function(function, strict=True).parameters)


def test_a_description_beside_a_reference_stays_with_what_is_referred_to() -> None:
    properties = Tool.from_function(paint, strict=True).parameters["properties"]
    colors = {"type": "string", "title": "Color", "enum": ["blue", "red"]}
    assert properties["c"] == {**colors, "description": "which colour"}
    assert properties["level"] == {"type": "integer", "title": "Level", "description": "How much.", "enum": [1, 2]}
    assert properties["mode"]["type"] == ["null", "integer", "string"]
    brush = Tool.from_function(with_brush, strict=True).parameters
    assert brush["properties"]["brush"] == {"$ref": "#/$defs/Brush"}
    assert brush["$defs"]["Brush"]["properties"]["color"] == {**colors, "description": "Which colour."}
    assert list(brush["$defs"]) == ["Brush"], "a definition that nothing refers to any longer is left out"


def test_what_the_api_does_not_take_is_said_in_words() -> None:
    definitions = Tool.from_function(keep, strict=True).parameters["$defs"]
    name = definitions["Node"]["properties"]["name"]
    assert name == {"type": "string", "title": "Name", "description": "maxLength: 9, minLength: 1"}
    url = definitions["Pets"]["properties"]["when"]["anyOf"][0]
    assert url == {"type": "string", "description": 'minLength: 1, format: "uri"'}


@pytest.mark.parametrize(
    ("pets", "right"),
    [
        ({"kind": "cat", "lives": None}, Cat(kind="cat")),
        ({"kind": "dog", "tricks": None}, Dog(kind="dog")),
        ({"kind": "dog", "tricks": ["sit"]}, Dog(kind="dog", tricks=["sit"])),
    ],
)
def test_null_stands_for_what_is_not_given_in_each_option_of_a_choice(pets: dict[str, Any], right: Any) -> None:
    written = {"pets": {"favourite": pets, "node": {"name": "a", "children": None}, "when": None}}
    arguments = Tool.from_function(keep, strict=True).arguments
    read = arguments.read(json.dumps(written), null_is_absent=True)["pets"]
    assert (read.favourite, read.node.children, read.when) == (right, [], None)


def test_null_that_a_schema_lists_stays() -> None:
    arguments = Tool.from_function(paint, strict=True).arguments
    read = arguments.read('{"c": "red", "level": 1, "mode": null}', null_is_absent=True)
    assert read == {"c": Color.RED, "level": Level.LOW, "mode": None}
    with pytest.raises(InvalidArguments):
        arguments.read('{"c": null, "level": 1, "mode": null}', null_is_absent=True)


def test_the_openai_clients_own_conversion_agrees() -> None:
    class Plain(pydantic.BaseModel):
        color: Color = pydantic.Field(description="which colour")
        names: list[str]
        node: "Leaf | None"

    class Leaf(pydantic.BaseModel):
        size: float

    Plain.model_rebuild(_types_namespace={"Leaf": Leaf, "Color": Color})
    theirs = to_strict_json_schema(Plain)
    check(theirs)
    ours = strict(Plain.model_json_schema())
    del theirs["$defs"]["Color"]  # which nothing refers to any longer
    assert ours == theirs


OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": False, "required": ["a"]}


def with_a(part: Any, **more: Any) -> dict[str, Any]:
    return {**OBJECT, "properties": {"a": part}, **more}


SAME: list[tuple[Any, Any]] = [
    ({"enum": ["x", "y"]}, {"type": "string", "enum": ["x", "y"]}),
    ({"const": 1}, {"type": "integer", "const": 1}),
    ({"enum": [True, 1.5]}, {"type": ["boolean", "number"], "enum": [True, 1.5]}),
    ({"oneOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
    ({"allOf": [{"type": "string"}], "description": "d"}, {"type": "string", "description": "d"}),
    ({"type": "string", "default": "x", "examples": ["y"], "x-more": 1}, {"type": "string"}),
    (
        {"type": "string", "pattern": "^(?=a).*$", "description": "d"},
        {"type": "string", "description": 'd (pattern: "^(?=a).*$")'},
    ),
    ({"type": "string", "format": "email"}, {"type": "string", "format": "email"}),
    (
        {"type": ["object", "null"], "properties": {}},
        {"type": ["object", "null"], "properties": {}, "required": [], "additionalProperties": False},
    ),
    ({"items": {"type": "string"}}, {"type": "array", "items": {"type": "string"}}),
    ({"type": "array", "items": {"$ref": "#"}}, {"type": "array", "items": {"$ref": "#"}}),
    ({"$ref": "#/definitions/B", "description": "d"}, {"type": "string", "description": "d"}),
    ({"$ref": "#/definitions/sla~1sh"}, {"$ref": "#/definitions/sla~1sh"}),
    ({"$ref": "#/properties/b"}, {"type": "integer"}),
    ({"description": "d", "anyOf": [{"type": "string"}]}, {"anyOf": [{"type": "string"}], "description": "d"}),
]
"""Schemas of a property, and the strict form of each."""


@pytest.mark.parametrize(("part", "right"), SAME)
def test_schemas_that_mean_the_same_get_the_form_that_the_api_takes(part: Any, right: Any) -> None:
    written = strict(with_definitions(part))
    check(written)
    assert written["properties"]["a"] == right


def with_definitions(part: Any) -> dict[str, Any]:
    definitions = {"B": {"type": "string", "description": "else"}, "sla/sh": {"type": "boolean"}}
    properties = {"a": part, "b": {"type": "integer"}}
    return {**OBJECT, "properties": properties, "required": ["a", "b"], "definitions": definitions}


async def test_the_simulated_api_takes_what_is_written() -> None:
    tools = [Tool.from_function(function, strict=True).parameters for function in (paint, with_brush, keep)]
    tools += [strict(with_definitions(part)) for part, _ in SAME if "sla~1sh" not in str(part)]
    async with Simulator() as url, AsyncOpenAI(base_url=url, api_key="sk-x", max_retries=0) as client:
        for number, parameters in enumerate(tools):
            function: Any = {"type": "function", "name": f"f{number}", "parameters": parameters, "strict": True}
            answer = await client.responses.create(
                model="gpt-6-luna", input="hi", tools=[function], tool_choice="required"
            )
            [call] = answer.output
            assert call.type == "function_call"
            assert json.loads(call.arguments).keys() == parameters["properties"].keys()


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ({}, r"any type \(at \$\.a\)"),
        (True, "any type"),
        ({"description": "x"}, "any type"),
        ({"type": "array"}, "a list of anything"),
        ({"type": "array", "items": {}}, r"any type \(at \$\.a\[\]\)"),
        ({"type": "array", "items": [{"type": "string"}]}, "tuples"),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, "tuples"),
        ({"type": "object"}, "a dict of any keys"),
        ({"type": "object", "properties": {}, "additionalProperties": {}}, "a dict of any keys"),
        ({"allOf": [{"type": "string"}, {"minLength": 1}]}, "allOf"),
        ({"type": "string", "not": {"const": "x"}}, "not"),
        ({"type": "string", "anyOf": [{"type": "string"}]}, "anyOf beside type"),
        ({"anyOf": []}, "a list of schemas"),
        ({"anyOf": {"type": "string"}}, "a list of schemas"),
        ({"anyOf": ["string"]}, "an object at"),
        ({"enum": "x"}, "enum must be an array"),
        ({"enum": [{"x": 1}]}, "cannot express the value"),
        ({"type": "text"}, "'text' is not a type"),
        ({"type": ["string", 5]}, "not a type"),
        ({"type": 5}, "not a type"),
        ({"type": []}, "not a type"),
        (5, r"an object at \$\.a, not 5"),
        ({"$ref": "#/$defs/Nowhere"}, "leads to no schema"),
        ({"$ref": 5}, "leads to no schema"),
        ({"$ref": "https://example.com/schema.json"}, "leads to no schema"),
        ({"$ref": "#/properties/a", "title": "round"}, "in a circle"),
        ({"type": "object", "properties": [], "additionalProperties": False}, "an object at"),
        ({"type": "object", "properties": {"x": {"type": "string"}}, "required": ["y"]}, "names of properties"),
        ({"type": "object", "properties": {}, "required": [["y"]]}, "names of properties"),
        ({"items": {"$ref": "#/properties/a"}}, "has no end"),
    ],
)
def test_what_the_api_would_refuse_is_refused_when_the_tool_is_made(part: Any, complaint: str) -> None:
    tool = {"name": "find", "handler": print, "strict": True, "parameters": with_a(part)}
    with pytest.raises(ConfigurationError, match=f"tool 'find': .*{complaint}"):
        Tool.from_schema(tool)


@pytest.mark.parametrize("annotation", [Any, list, list[Any], dict, tuple[int, str], object, set])
def test_parameters_without_a_type_are_refused(annotation: Any) -> None:
    def find(by: Any) -> None: ...

    find.__annotations__["by"] = annotation
    with pytest.raises(ConfigurationError, match=r"strict mode cannot express|has no JSON form"):
        Tool.from_function(find, strict=True)
    with pytest.raises(ConfigurationError, match="strict mode cannot express a value of any type"):
        Tool.from_function(lambda by: by, name="untyped", strict=True)


def test_a_choice_at_the_root_is_refused() -> None:
    for keyword in ("anyOf", "oneOf"):
        with pytest.raises(ConfigurationError, match="a choice"):
            strict({**OBJECT, "properties": {"a": {"type": "string"}}, keyword: [{"required": ["a"]}]})


PLAIN = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "string", "object", "#", "#/$defs/A", "a"])
)
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*sorted(KEYWORDS), "allOf", "oneOf", "default", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(ANYTHING, ANYTHING)
def test_any_schema_gets_the_form_that_the_api_takes_or_is_refused(part: Any, definition: Any) -> None:
    tool = {
        "name": "find",
        "handler": print,
        "strict": True,
        "parameters": with_a(part, **{"$defs": {"A": definition}}),
    }
    try:
        written = Tool.from_schema(tool).parameters
    except ConfigurationError:
        return
    check(written)
