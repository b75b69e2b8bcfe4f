"""Schemas of functions: what the model is told, and what is made of its arguments."""

import enum
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypedDict
from unittest.mock import Mock

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.tools import StructuredTool

from runmeter.engine import ConfigurationError
from runmeter.patterns import Tool
from runmeter.patterns.errors import InvalidArguments
from runmeter.patterns.nesting import MAX_NESTING
from runmeter.patterns.tools.schema import arguments_from_schema, arguments_of, parse_docstring
from runmeter.patterns.tools.strict_form import strict


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


@dataclass
class Point:
    lat: float
    lon: float = 0.5


class Place(msgspec.Struct):
    name: str
    point: Point | None = None


class Options(TypedDict):
    verbose: bool


class Customer(pydantic.BaseModel):
    name: str
    places: list["Address"] = []


class Address(pydantic.BaseModel):
    city: str


def weather(
    place: Place,
    unit: Unit,
    mode: Literal["now", "later"] = "now",
    hours: Annotated[int, msgspec.Meta(ge=0, le=48, description="How far ahead.")] = 3,
    note: Annotated[str | None, "A remark."] = None,
    options: Options | None = None,
    points: list[Point] = [],  # noqa: B006 - what users write
    table: dict[str, int] | None = None,
    anything: Any = None,
) -> str:
    """Tell the weather."""
    return f"It rains in {place}."


def test_the_schema_says_what_the_signature_says() -> None:
    schema = arguments_of(weather, {"place": "Where."}).schema
    properties = schema["properties"]
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["place", "unit"]
    assert properties["place"] == {"$ref": "#/$defs/Place", "description": "Where."}
    assert properties["unit"] == {"$ref": "#/$defs/Unit"}
    assert properties["mode"] == {"enum": ["later", "now"], "default": "now"}
    assert properties["hours"] == {
        "type": "integer",
        "minimum": 0,
        "maximum": 48,
        "description": "How far ahead.",
        "default": 3,
    }
    assert properties["note"]["description"] == "A remark."
    assert properties["note"]["default"] is None
    assert properties["anything"] == {"default": None}
    assert schema["$defs"]["Unit"]["enum"] == ["c", "f"]
    assert schema["$defs"]["Point"]["required"] == ["lat"]
    assert set(schema["$defs"]) == {"Place", "Point", "Unit", "Options"}


def test_arguments_become_what_the_function_wants() -> None:
    arguments = arguments_of(weather, {})
    values = arguments.read(
        '{"place": {"name": "x", "point": {"lat": 1}}, "unit": "f", "points": [{"lat": 2, "lon": 3}]}'
    )
    assert values == {"place": Place("x", Point(1.0)), "unit": Unit.FAHRENHEIT, "points": [Point(2.0, 3.0)]}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "missing required"),
        ("{", "truncated"),
        ("[]", "missing required"),
        ("[1]", "Expected `object`, got `array`"),
        ('{"place": {"name": "x"}}', "missing required"),
        ('{"place": {"name": "x"}, "unit": "k"}', r"'k' - at `\$.unit`"),
        ('{"place": {"name": 1}, "unit": "c"}', r"Expected `str`, got `int` - at `\$.place.name`"),
        ('{"place": {"name": "x"}, "unit": "c", "hours": 49}', "<= 48"),
        ('{"place": {"name": "x"}, "unit": "c", "hours": "3"}', "Expected `int`, got `str`"),
        ('{"place": {"name": "x"}, "unit": "c", "nope": 1}', "unknown field `nope`"),
        ("\ud800", "malformed"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_place(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArguments, match=complaint):
        arguments_of(weather, {}).read(text)


def test_pydantic_models_are_taken_too() -> None:
    def greet(customer: Customer) -> None: ...

    arguments = arguments_of(greet, {})
    assert arguments.schema["$defs"]["Address"]["required"] == ["city"]
    assert arguments.read('{"customer": {"name": "Ada", "places": [{"city": "Rome"}]}}') == {
        "customer": Customer(name="Ada", places=[Address(city="Rome")])
    }
    with pytest.raises(InvalidArguments, match="city"):
        arguments.read('{"customer": {"name": "Ada", "places": [{}]}}')


def test_what_a_model_cannot_give_is_refused_when_the_tool_is_made() -> None:
    def starred(*values: int) -> None: ...
    def named(**values: int) -> None: ...
    def positional(value: int, /) -> None: ...
    def untypable(value: complex) -> None: ...
    def unreadable(value: "NoSuchName") -> None: ...  # type: ignore[name-defined] # noqa: F821 - that is the point

    for function in (starred, named, positional):
        with pytest.raises(ConfigurationError, match="cannot be given by name"):
            arguments_of(function, {})
    with pytest.raises(ConfigurationError, match="complex has no JSON form"):
        arguments_of(untypable, {})
    with pytest.raises(ConfigurationError, match="NoSuchName"):
        arguments_of(unreadable, {})


def test_anything_callable_has_a_signature() -> None:
    class Finder:
        def __call__(self, number: int) -> None: ...
        def method(self, number: int) -> None: ...

    def function(kind: str, number: int) -> None: ...

    for callable_ in (Finder(), Finder().method, partial(function, "x")):
        schema = arguments_of(callable_, {}).schema
        assert schema["properties"]["number"]["type"] == "integer"
    assert arguments_of(lambda text: text, {}).schema["properties"] == {"text": {}}


def test_a_default_without_json_form_is_kept_to_python() -> None:
    def draw(shape: Any = object()) -> None: ...  # noqa: B008 - that is the point

    assert arguments_of(draw, {}).schema["properties"] == {"shape": {}}


def test_the_docstring_describes() -> None:
    def find(number: int, unit: str) -> None:
        """Find a parcel.

        Even a lost one.

        Args:
            number: Its number,
                as on the label.
            unit (str): What of.

        Returns:
            Nothing: at all.
        """

    assert parse_docstring(find) == (
        "Find a parcel.\n\nEven a lost one.",
        {"number": "Its number, as on the label.", "unit": "What of."},
    )
    assert parse_docstring(lambda: None) == ("", {})


def test_a_schema_that_was_given_is_shown_and_checked() -> None:
    schema = {
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "max-results": {"type": "integer"},
            "kinds": {"type": "array", "items": {"type": "string"}},
            "order": {"enum": ["up", "down"]},
            "filter": {"type": "object", "properties": {"x": {}}},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "nullable": {"type": ["string", "null"]},
        },
        "required": ["query"],
        "additionalProperties": False,
    }
    arguments = arguments_from_schema(schema)
    assert arguments.schema == schema
    text = '{"query": "x", "max-results": 2, "kinds": ["a"], "order": "up", "filter": {"x": 1}, "either": 1}'
    assert arguments.read(text) == msgspec.json.decode(text)
    for bad in (
        "{}",
        '{"query": 1}',
        '{"query": "x", "max-results": "2"}',
        '{"query": "x", "kinds": [1]}',
        '{"query": "x", "order": "left"}',
        '{"query": "x", "more": 1}',
    ):
        with pytest.raises(InvalidArguments):
            arguments.read(bad)


def test_an_open_schema_passes_on_what_it_does_not_name() -> None:
    assert arguments_from_schema({}).read('{"any": {"thing": [1]}}') == {"any": {"thing": [1]}}
    with pytest.raises(ConfigurationError, match="'array'"):
        arguments_from_schema({"type": "array"})


def test_strict_form_requires_everything_and_allows_null_for_the_rest() -> None:
    class Inner(msgspec.Struct):
        a: int
        b: int = 3

    def function(inner: Inner, items: list[Inner], text: str | None = None, size: int = 1) -> None: ...

    arguments = arguments_of(function, {"size": "How large."})
    schema = strict(arguments.schema)
    assert schema["required"] == ["inner", "items", "text", "size"]
    assert schema["properties"]["text"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert schema["properties"]["size"] == {
        "anyOf": [{"type": "integer"}, {"type": "null"}],
        "description": "How large.",
    }
    inner = schema["$defs"]["Inner"]
    assert inner["required"] == ["a", "b"]
    assert inner["additionalProperties"] is False
    text = '{"inner": {"a": 1, "b": null}, "items": [{"a": 2, "b": null}], "text": null, "size": null}'
    with pytest.raises(InvalidArguments):
        arguments.read(text)
    assert arguments.read(text, null_is_absent=True) == {"inner": Inner(1), "items": [Inner(2)], "text": None}
    with pytest.raises(InvalidArguments, match=r"got `null` - at `\$.inner.a`"):
        arguments.read('{"inner": {"a": null, "b": 1}, "items": [], "text": "", "size": 1}', null_is_absent=True)


def test_strict_form_says_what_it_cannot_express() -> None:
    def free(values: dict[str, int]) -> None: ...
    def anything(values: dict[str, Any]) -> None: ...
    def pair(values: tuple[int, str]) -> None: ...

    for function in (free, anything, pair):
        with pytest.raises(ConfigurationError, match="strict"):
            strict(arguments_of(function, {}).schema)


@given(
    st.fixed_dictionaries(
        {"place": st.fixed_dictionaries({"name": st.text()}), "unit": st.sampled_from(["c", "f"])},
        optional={
            "hours": st.integers(0, 48),
            "note": st.none() | st.text(),
            "table": st.dictionaries(st.text(), st.integers(-9, 9)),
        },
    )
)
def test_what_fits_the_schema_is_read_as_it_was_written(values: dict[str, Any]) -> None:
    read = arguments_of(weather, {}).read(msgspec.json.encode(values).decode())
    assert msgspec.to_builtins(read) == {**values, "place": {**values["place"], "point": None}}


def test_what_cannot_be_read_is_refused() -> None:
    def broken(value: Any) -> None: ...

    broken.__annotations__["value"] = "1+"
    for function in (min, broken, Mock()):
        with pytest.raises(ConfigurationError):
            arguments_of(function, {})
    schemas: list[Any] = [{"properties": None}, {"required": None}, {"properties": []}, 5]
    for schema in schemas:
        with pytest.raises(ConfigurationError):
            arguments_from_schema(schema)
    with pytest.raises(ConfigurationError, match="strict"):
        strict({"type": "object", "properties": {"a": True}})


@pytest.mark.parametrize("null_is_absent", [False, True])
def test_arguments_nest_no_deeper_than_the_limit(null_is_absent: bool) -> None:
    def find(by: dict[str, Any]) -> None: ...

    def read(levels: int) -> Any:
        inner = levels - 2  # within the arguments, and within `by`
        text = '{"by": {"x": ' + "[" * inner + "]" * inner + "}}"
        return arguments_of(find, {}).read(text, null_is_absent=null_is_absent)

    assert read(MAX_NESTING)
    for levels in (MAX_NESTING + 1, 5_000, 50_000):
        with pytest.raises(InvalidArguments, match="it nests deeper than 100 levels"):
            read(levels)


def test_a_default_that_is_no_json_is_not_told() -> None:
    def wait(seconds: float = float("nan"), most: float = 3.0) -> None: ...

    properties = arguments_of(wait, {}).schema["properties"]
    assert "default" not in properties["seconds"]
    assert properties["most"]["default"] == 3.0


def test_only_known_sections_end_the_text() -> None:
    def order() -> None:
        """Order a parcel.

        Good to know:
        It may take a day.

        Returns:
            Nothing.
        """

    assert parse_docstring(order)[0] == "Order a parcel.\n\nGood to know:\nIt may take a day."


def nested(levels: int) -> Any:
    value: Any = {"type": "string"}
    for _ in range(levels):
        value = {"type": "array", "items": value}
    return value


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (nested(20_000), "nests deeper than 100 levels"),
        (nested(99), "nests deeper than 100 levels"),
        ({"enum": {"a", "b"}}, "not JSON serializable"),
        ({"default": object()}, "not JSON serializable"),
        ({"type": "number", "maximum": float("inf")}, "not JSON compliant"),
    ],
)
def test_a_schema_that_is_not_json_is_refused(part: Any, complaint: str, strict: bool) -> None:
    schema = {"properties": {"a": part}}
    with pytest.raises(ConfigurationError, match=f"tool 'find': a tool's schema is not JSON: .*{complaint}"):
        Tool.from_schema({"name": "find", "handler": print, "parameters": schema, "strict": strict})


def test_a_schema_that_contains_itself_is_refused() -> None:
    round_: dict[str, Any] = {"type": "array"}
    round_["items"] = round_
    with pytest.raises(ConfigurationError, match="nests deeper"):
        arguments_from_schema({"properties": {"a": round_}})


def test_a_schema_that_was_given_is_kept_as_it_was() -> None:
    given: dict[str, Any] = {"properties": {"a": {"type": "string", "enum": ("x", "y")}}, "required": ("a",)}
    arguments = arguments_from_schema(given)
    given["properties"]["a"]["enum"] = ["z"]
    assert arguments.schema["properties"]["a"]["enum"] == ["x", "y"]
    assert arguments.schema["required"] == ["a"]


async def test_a_langchain_tool_whose_arguments_contain_their_like_has_properties() -> None:
    class Tree(pydantic.BaseModel):
        name: str
        children: list["Tree"] = []

    def plant(name: str, children: list[Tree]) -> str:
        return f"{name} {len(children)}"

    tool = Tool.from_langchain(StructuredTool.from_function(plant, description="Plant.", args_schema=Tree))
    assert list(tool.parameters["properties"]) == ["name", "children"]
    assert await tool.run('{"name": "oak", "children": [{"name": "acorn"}]}') == "oak 1"
    with pytest.raises(InvalidArguments, match="name"):
        await tool.run('{"children": []}')


@pytest.mark.parametrize("description", [5, ["x"], {"a": 1}])
def test_a_description_is_text(description: Any) -> None:
    with pytest.raises(ConfigurationError, match="tool 'find': description must be a string"):
        Tool.from_schema({"name": "find", "handler": print, "description": description})
