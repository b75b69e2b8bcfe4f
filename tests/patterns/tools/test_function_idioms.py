"""Functions as Python's and pydantic's users write them: they mean what these mean, or are refused by name."""

import functools
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import annotated_types
import pytest
from pydantic import Field

from runmeter.engine import ConfigurationError
from runmeter.patterns import Tool
from runmeter.patterns.errors import InvalidArguments


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
