"""Schemas that say they are strict, judged as the API judges them, wherever a request may have one."""

import enum
import json
from contextlib import suppress
from typing import Annotated, Any, Literal

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field

from runmeter.patterns.tools.strict_form import strict
from runmeter.simulator import Simulator
from runmeter.simulator.errors import ApiError
from runmeter.simulator.model.schemas import check_schema
from runmeter.simulator.model.strict import DEEPEST, MOST_PROPERTIES, first_fault

KEY = {"authorization": "Bearer sk-simulated"}
TEXT = {"type": "string"}


def closed(properties: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """An object in strict form."""
    properties = properties or {}
    own = {"properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "object", **own, **rest}


def nested(levels: int) -> dict[str, Any]:
    return closed({"in": nested(levels - 1) if levels > 1 else TEXT})


STRICT = [
    closed(),
    closed({"a": TEXT, "b": {"type": ["integer", "null"]}}),
    closed({"a": {"type": "string", "pattern": "^a+$", "format": "date-time", "description": "When", "title": "A"}}),
    closed({"a": {"type": "number", "minimum": 0, "exclusiveMaximum": 9, "multipleOf": 0.5}}),
    closed({"a": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 3}}),
    closed({"a": {"enum": ["x", 1]}, "b": {"const": "x"}}),
    closed({"a": {"anyOf": [{"$ref": "#/$defs/B"}, {"type": "null"}]}}, **{"$defs": {"B": closed({"x": TEXT})}}),
    closed({"a": {"anyOf": [{"$ref": "#"}, {"type": "null"}], "description": "The next."}}),
    closed({"a": {"$ref": "#/definitions/B"}}, definitions={"B": TEXT}),
    nested(DEEPEST),
    closed({"in": {"$ref": "#/$defs/B"}}, **{"$defs": {"B": nested(DEEPEST)}}),
]

LOOSE: list[tuple[dict[str, Any], str]] = [
    ({"type": "array", "items": TEXT}, "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'."),
    ({"anyOf": [closed(), closed()]}, "got 'type: \"None\"'."),
    ({**closed(), "additionalProperties": True}, "In context=(), 'additionalProperties' is required to be supplied"),
    ({"type": "object", "properties": {}, "required": []}, "'additionalProperties' is required to be supplied"),
    (closed({"a": TEXT}, required=[]), "to be an array including every key in properties. Missing 'a'."),
    (closed({"a": TEXT}, required=["a", "b"]), "Extra required key 'b' supplied."),
    (closed({"a": closed({"b": TEXT}, required=[])}), "In context=('properties', 'a'), 'required' is required"),
    (closed({"a": {}}), "In context=('properties', 'a'), schema must have a 'type' key."),
    (closed({"a": {"description": "Anything"}}), "schema must have a 'type' key."),
    (closed({"a": True}), "schema must have a 'type' key."),
    (closed({"a": {"type": "array"}}), "In context=('properties', 'a'), array schema missing items."),
    (closed({"a": {"type": ["array", "null"]}}), "array schema missing items."),
    (
        closed({"a": {"type": "array", "items": {}}}),
        "In context=('properties', 'a', 'items'), schema must",
    ),
    (
        closed({"a": {"anyOf": [TEXT, {}]}}),
        "In context=('properties', 'a', 'anyOf', '1'), schema must",
    ),
    (closed({"a": {"$ref": "#/$defs/B"}}, **{"$defs": {"B": {}}}), "In context=('$defs', 'B'), schema must have a"),
    (
        closed({"a": {"$ref": "#/$defs/B", "description": "x"}}, **{"$defs": {"B": TEXT}}),
        "In context=('properties', 'a'), $ref cannot have keywords {'description'}.",
    ),
    (closed({"a": TEXT, "b": {"$ref": "#/properties/a"}}), "can only point to definitions at the top level."),
    (closed({"a": {**TEXT, "default": "x"}}), "In context=('properties', 'a'), 'default' is not permitted."),
    (closed({"a": {**TEXT, "minLength": 1}}), "'minLength' is not permitted."),
    (closed({"a": {"oneOf": [TEXT]}}), "'oneOf' is not permitted."),
    (closed({"a": {"allOf": [TEXT]}}), "'allOf' is not permitted."),
    (closed({"a": {"type": "array", "items": TEXT, "uniqueItems": True}}), "'uniqueItems' is not permitted."),
    (closed({"a": {**TEXT, "format": "uri"}}), "'uri' is not a valid format."),
    (closed({"a": {**TEXT, "pattern": "^(?!x)"}}), "lookaround"),
    (nested(DEEPEST + 1), f"objects are nested more than {DEEPEST} levels deep."),
    (closed({f"p{n}": TEXT for n in range(MOST_PROPERTIES + 1)}), f"more than {MOST_PROPERTIES} properties."),
]


def places(schema: dict[str, Any], *, is_strict: bool | None) -> list[tuple[str, dict[str, Any]]]:
    """The four places of a request in which a schema may stand."""
    named = {"name": "look", "strict": is_strict}
    message = [{"role": "user", "content": "Look."}]
    chat = {"model": "gpt-4.1", "messages": message}
    responses = {"model": "gpt-4.1", "input": message}
    formed = {"type": "json_schema", "json_schema": {**named, "schema": schema}}
    return [
        ("/responses", {**responses, "tools": [{"type": "function", **named, "parameters": schema}]}),
        ("/responses", {**responses, "text": {"format": {"type": "json_schema", **named, "schema": schema}}}),
        ("/chat/completions", {**chat, "tools": [{"type": "function", "function": {**named, "parameters": schema}}]}),
        ("/chat/completions", {**chat, "response_format": formed}),
    ]


async def post(simulator: Simulator, schema: dict[str, Any], *, is_strict: bool | None = True) -> list[httpx2.Response]:
    async with httpx2.AsyncClient(headers=KEY, base_url=simulator.url) as http:
        return [await http.post(path, json=body) for path, body in places(schema, is_strict=is_strict)]


@pytest.mark.parametrize("schema", STRICT, ids=lambda schema: str(schema)[:60])
async def test_strict_schemas_are_taken_everywhere(simulator: Simulator, schema: dict[str, Any]) -> None:
    assert [answer.status_code for answer in await post(simulator, schema)] == [200] * 4


@pytest.mark.parametrize(("schema", "complaint"), LOOSE, ids=lambda each: str(each)[:60])
async def test_what_is_not_strict_is_refused_everywhere(
    simulator: Simulator, schema: dict[str, Any], complaint: str
) -> None:
    errors = [answer.json()["error"] for answer in await post(simulator, schema)]
    assert all(complaint in error["message"] for error in errors), errors
    assert [(error["param"], error["code"]) for error in errors] == [
        ("tools[0].parameters", "invalid_function_parameters"),
        ("text.format.schema", "invalid_json_schema"),
        ("tools[0].function.parameters", "invalid_function_parameters"),
        ("response_format", "invalid_value"),
    ]
    owners = ["function", "response_format"] * 2
    heads = [f"Invalid schema for {owner} 'look': " for owner in owners]
    assert all(error["message"].startswith(head) for error, head in zip(errors, heads, strict=True))


@pytest.mark.parametrize("is_strict", [False, None])
async def test_what_does_not_say_it_is_strict_need_not_be(simulator: Simulator, is_strict: bool | None) -> None:
    schema = {"type": "object", "properties": {"a": {**TEXT, "default": "x", "minLength": 1}, "b": {}}}
    assert [answer.status_code for answer in await post(simulator, schema, is_strict=is_strict)] == [200] * 4


async def test_only_the_first_fault_is_told(simulator: Simulator) -> None:
    error = (await post(simulator, {"type": "array"}))[0].json()["error"]
    assert error["message"].count("schema must be") == 1


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Lamp(BaseModel):
    """A lamp."""

    name: str
    kind: Literal["floor", "desk"]
    colour: Annotated[Colour, Field(description="Which colour")]
    height: float | None = None
    spare: "Lamp | None" = None
    parts: list["Lamp"]


def test_what_the_clients_own_helper_makes_is_strict() -> None:
    assert first_fault(to_strict_json_schema(Lamp)) is None


PROPERTIES = st.recursive(
    st.sampled_from([TEXT, {"type": "integer"}, {"type": "boolean"}, {"type": "string", "enum": ["a", "b"]}]),
    lambda inner: (
        inner.map(lambda each: {"type": "array", "items": each})
        | inner.map(lambda each: {"anyOf": [each, {"type": "null"}]})
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
            lambda each: {"type": "object", "properties": each, "required": [], "additionalProperties": False}
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from("abc"), PROPERTIES, max_size=3))
def test_what_the_patterns_make_strict_is_strict(properties: dict[str, Any]) -> None:
    """Except for how deep it is: a schema nested too deeply cannot be made any other."""
    made = strict({"type": "object", "properties": properties, "required": [], "additionalProperties": False})
    assert first_fault(json.loads(json.dumps(made))) is None


VALUES = st.recursive(
    st.sampled_from(["object", "array", "string", "#", "#/$defs/a", "(?=", 5, None, True, ["object", "null"]]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "properties", "items", "anyOf", "$ref", "enum", "required", "additionalProperties"),
                    *("$defs", "definitions", "format", "pattern", "const", "oneOf", "a"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["properties", "$defs", "anyOf", "$ref", "required"]), VALUES), st.booleans())
def test_whatever_is_called_a_schema_is_judged(rest: dict[str, Any], is_strict: bool) -> None:
    with suppress(ApiError):
        check_schema({"type": "object", "properties": {}, **rest}, "x", "x", "x", strict=is_strict)
