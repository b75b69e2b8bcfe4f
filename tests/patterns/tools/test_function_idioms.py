"""Functions as Python's and pydantic's users write them: they mean what these mean, or are refused by name."""

import functools
import json
from collections import ChainMap, UserDict, deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import numpy
import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    PlainValidator,
    StringConstraints,
    WrapValidator,
)

from runmeter.engine import ConfigurationError
from runmeter.patterns import Tool
from runmeter.patterns.errors import InvalidArguments
from runmeter.patterns.tools.outputs import render


async def result_of(function: Any, **arguments: Any) -> Any:
    return json.loads(await Tool.from_function(function).run(json.dumps(arguments)))


# A partial's arguments


def send(to: str, text: str, tenant: str = "", key: str = "") -> list[str]:
    return [to, text, tenant, key]


class Sender:
    def __call__(self, to: str, text: str, tenant: str = "", key: str = "") -> list[str]:
        return [to, text, tenant, key]


@pytest.mark.parametrize("function", [send, Sender()])
async def test_what_a_partial_has_bound_is_neither_shown_nor_taken(function: Any) -> None:
    bound = functools.partial(functools.partial(function, key="sk-secret"), tenant="acme")
    tool = Tool.from_function(bound, name="send")
    assert list(tool.parameters["properties"]) == ["to", "text"]
    assert "sk-secret" not in json.dumps(tool.parameters)
    assert json.loads(await tool.run('{"to": "a", "text": "b"}')) == ["a", "b", "acme", "sk-secret"]
    with pytest.raises(InvalidArguments, match="tenant"):
        await tool.run('{"to": "a", "text": "b", "tenant": "evil"}')


# Field as a default


def weather(
    city: str = Field(default="Lyon", description="Where"),
    days: list[int] = Field(default_factory=list),  # noqa: B008 - as users write it
) -> list[Any]:
    days.append(1)
    return [city, days]


async def test_a_fields_default_reaches_the_function() -> None:
    tool = Tool.from_function(weather)
    assert tool.parameters["properties"]["city"] == {"type": "string", "description": "Where", "default": "Lyon"}
    assert tool.parameters.get("required", []) == []
    for _ in range(2):
        assert json.loads(await tool.run("{}")) == ["Lyon", [1]]
    assert await result_of(weather, city="Nice", days=[7]) == ["Nice", [7, 1]]


async def test_a_field_without_a_default_is_required_and_its_bounds_hold() -> None:
    def roll(sides: int = Field(..., ge=2, le=100), times: int = Field(ge=1)) -> int:
        return sides * times

    tool = Tool.from_function(roll)
    assert tool.parameters["required"] == ["sides", "times"]
    assert tool.parameters["properties"]["sides"] == {"type": "integer", "minimum": 2, "maximum": 100}
    with pytest.raises(InvalidArguments, match="times"):
        await tool.run('{"sides": 6}')
    with pytest.raises(InvalidArguments, match="100"):
        await tool.run('{"sides": 600, "times": 1}')


# Bounds


@pytest.mark.parametrize(
    ("kind", "good", "wrong", "shown"),
    [
        (Annotated[int, Field(ge=0, le=10)], 10, 99, {"minimum": 0, "maximum": 10}),
        (Annotated[float, Field(gt=0)], 0.5, 0, {"exclusiveMinimum": 0}),
        (Annotated[int, annotated_types.Lt(5)], 4, 5, {"exclusiveMaximum": 5}),
        (Annotated[int, Field(multiple_of=5)], 10, 9, {"multipleOf": 5}),
        (Annotated[str, Field(min_length=2, max_length=3)], "ab", "abcd", {"minLength": 2, "maxLength": 3}),
        (Annotated[str, Field(pattern="^a+$")], "aa", "b", {"pattern": "^a+$"}),
        (Annotated[list[int], Field(max_length=2)], [1, 2], [1, 2, 3], {"maxItems": 2}),
    ],
)
async def test_the_bounds_of_annotations_hold(kind: Any, good: Any, wrong: Any, shown: dict[str, Any]) -> None:
    def take(n: Any) -> Any:
        return [n]

    take.__annotations__["n"] = kind
    tool = Tool.from_function(take)
    assert shown.items() <= tool.parameters["properties"]["n"].items()
    assert json.loads(await tool.run(json.dumps({"n": good}))) == [good]
    with pytest.raises(InvalidArguments):
        await tool.run(json.dumps({"n": wrong}))


async def test_bounds_deep_within_hold() -> None:
    def take(rows: list[Annotated[int, Field(ge=0)]]) -> int:
        return sum(rows)

    assert await result_of(take, rows=[1, 2]) == 3
    with pytest.raises(InvalidArguments):
        await result_of(take, rows=[1, -2])


# Generators


async def numbers() -> AsyncIterator[int]:
    yield 1


def lines() -> Iterator[str]:
    yield "a"


@pytest.mark.parametrize("function", [numbers, lines, functools.partial(lines)])
def test_a_generator_is_refused_when_the_tool_is_made(function: Any) -> None:
    with pytest.raises(ConfigurationError, match="generator"):
        Tool.from_function(function)


async def test_what_has_items_is_told_as_these_and_what_yields_is_refused() -> None:
    def some(kind: str) -> Any:
        return {"deque": deque([1, 2]), "range": range(2), "map": map(str, [1]), "generator": (n for n in [1])}[kind]

    assert await result_of(some, kind="deque") == [1, 2]
    assert await result_of(some, kind="range") == [0, 1]
    for kind in ("map", "generator"):
        with pytest.raises(ConfigurationError, match=f"returned a {kind}"):
            await result_of(some, kind=kind)


# Validators, and Field within Annotated


def even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even")
    return value


def picky(
    number: Annotated[int, AfterValidator(even)],
    word: Annotated[str, annotated_types.Predicate(str.islower)] = "x",
    many: Annotated[list[Annotated[int, AfterValidator(even)]], Field(alias="list", max_length=3)] = [],  # noqa: B006
    text: Annotated[str, StringConstraints(strip_whitespace=True)] = "",
    doubled: Annotated[int, AfterValidator(lambda value: 2 * value)] = 1,
) -> list[Any]:
    return [number, word, many, text, doubled]


async def test_validators_run_and_what_they_refuse_the_model_is_told() -> None:
    right = {"number": 2, "word": "y", "list": [4], "text": " a ", "doubled": 3}
    assert await result_of(picky, **right) == [2, "y", [4], "a", 6]
    assert await result_of(picky, number=2) == [2, "x", [], "", 1]
    for name, wrong, complaint in (("number", 3, "even"), ("word", "Y", "islower"), ("list", [1], "even")):
        with pytest.raises(InvalidArguments, match=rf"{complaint}.*{name}"):
            await result_of(picky, **{**right, name: wrong})
    with pytest.raises(InvalidArguments, match="length <= 3"):
        await result_of(picky, number=2, list=[2] * 4)


async def test_a_field_within_annotated_gives_the_default_and_the_name() -> None:
    def find(
        number: Annotated[int, Field(default=3, description="Which.")],
        word: Annotated[str, Field(validation_alias="the word", default_factory=str)],
        own: Annotated[int, Field(default=3)] = 4,
    ) -> list[Any]:
        return [number, word, own]

    shown = Tool.from_function(find).parameters
    assert list(shown["properties"]) == ["number", "the word", "own"]
    assert shown["properties"]["number"] == {"type": "integer", "description": "Which.", "default": 3}
    assert shown["properties"]["own"]["default"] == 4, "Python's own default comes first"
    assert shown.get("required", []) == []
    assert await result_of(find) == [3, "", 4]
    assert await result_of(find, **{"the word": "x"}) == [3, "x", 4]
    with pytest.raises(InvalidArguments, match="word"):
        await result_of(find, word="x")


def rewritten(value: Annotated[list[str], BeforeValidator(str.split)]) -> None:
    """Take a text for a list."""


def wrapped(value: Annotated[int, WrapValidator(lambda value, handler: handler(value))]) -> None:
    """Take anything."""


def plain(value: Annotated[int, PlainValidator(int)]) -> None:
    """Take anything."""


def paths(value: Annotated[int, Field(validation_alias=AliasChoices("a", "b"))]) -> None:
    """Take it by two names."""


def twins(a: int, b: Annotated[int, Field(alias="a")]) -> None:
    """Take two by one name."""


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (rewritten, "BeforeValidator"),
        (wrapped, "WrapValidator"),
        (plain, "PlainValidator"),
        (paths, "AliasChoices"),
        (twins, "'a'"),
    ],
)
def test_what_no_schema_can_tell_a_model_is_refused_by_name(function: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Tool.from_function(function)


class Silent:
    """A class that says nothing of its objects."""


class Version:
    def __str__(self) -> str:
        return "1.2"


VIEWED = {"a": 1}


@pytest.mark.parametrize(
    ("value", "right"),
    [
        (VIEWED.keys(), '["a"]'),
        (VIEWED.values(), "[1]"),
        (VIEWED.items(), '[["a",1]]'),
        ({"found": VIEWED.keys()}, '{"found":["a"]}'),
        (UserDict(VIEWED), '{"a":1}'),
        (ChainMap(VIEWED), '{"a":1}'),
        (numpy.arange(3), "[0,1,2]"),
        (numpy.float64(0.5), "0.5"),
        (Version(), "1.2"),
        ([Version()], '["1.2"]'),
        (Path("a/b"), "a/b"),
    ],
)
def test_what_has_a_form_in_json_is_told_in_it(value: Any, right: str) -> None:
    assert render(value).strip('"') == right.strip('"')


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value", [Silent(), [Silent()], {"a": Silent()}, object(), print, Silent, len, lambda: 1, LOOP]
)
def test_what_has_none_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="a tool returned"):
        render(value)
