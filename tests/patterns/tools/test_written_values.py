"""Arguments as models write them: `5.0` for an integer, null or an empty array for no arguments."""

import enum
import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.tools import tool as langchain_tool

from runmeter.patterns import Tool
from runmeter.patterns.errors import InvalidArguments
from runmeter.patterns.tools.tool import as_tool
from runmeter.patterns.tools.written_values import fit


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Part:
    count: int
    weight: float = 0.0


def order(
    n: int,
    level: Level = Level.LOW,
    mode: Literal[1, 2] = 1,
    parts: list[Part] | None = None,
    sizes: dict[str, int] | None = None,
    pair: tuple[int, float] | None = None,
    either: int | str | None = None,
    weight: float = 0.0,
    any_: Any = None,
) -> list[Any]:
    return [n, level, mode, parts, sizes, pair, either, weight, any_]


@langchain_tool
def langchain_order(n: int, parts: list[Part]) -> list[Any]:
    """Order."""
    return [n, parts]


SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "many": {"type": "array", "items": {"type": "integer"}},
        "deep": {"type": "object", "properties": {"n": {"type": ["integer", "null"]}, "x": {"type": "number"}}},
        "named": {"$ref": "#/$defs/N"},
        "mode": {"enum": [1, 2]},
        "x": {"type": "number"},
        "any": {},
    },
    "$defs": {"N": {"anyOf": [{"type": "integer"}, {"type": "string"}]}},
}


def kinds(value: Any) -> Any:
    """What a value is made of, so that 5 and 5.0 differ."""
    match value:
        case dict():
            return {name: kinds(part) for name, part in value.items()}
        case list() | tuple():
            return [kinds(part) for part in value]
        case _:
            return type(value).__name__, value


async def test_whole_floats_are_integers_where_the_function_wants_these() -> None:
    written = {
        "n": 5.0,
        "level": 1.0,
        "mode": 2.0,
        "parts": [{"count": 2.0, "weight": 3.0}],
        "sizes": {"a": 1.0},
        "pair": [1.0, 2.0],
        "either": 7.0,
        "weight": 4.0,
        "any_": 6.0,
    }
    read = Tool.from_function(order).arguments.read(json.dumps(written))
    assert read["parts"] == [Part(2, 3.0)]
    assert (read["level"], read["pair"]) == (Level.LOW, (1, 2.0))
    rest = {name: read[name] for name in ("n", "mode", "sizes", "either", "weight", "any_")}
    right = {"n": 5, "mode": 2, "sizes": {"a": 1}, "either": 7, "weight": 4.0, "any_": 6.0}
    assert kinds(rest) == kinds(right)


async def test_whole_floats_are_integers_where_a_schema_wants_these() -> None:
    tool = Tool.from_schema({"name": "order", "handler": lambda **given: repr(given), "inputSchema": SCHEMA})
    written = {
        "n": 5.0,
        "many": [1.0, 2],
        "deep": {"n": 3.0, "x": 4.0, "else": 5.0},
        "named": 6.0,
        "mode": 2.0,
        "x": 7.0,
        "any": 8.0,
        "more": 9.0,
    }
    right = {
        "n": 5,
        "many": [1, 2],
        "deep": {"n": 3, "x": 4.0, "else": 5.0},
        "named": 6,
        "mode": 2,
        "x": 7.0,
        "any": 8.0,
        "more": 9.0,
    }
    assert await tool.run(json.dumps(written)) == repr(right)


async def test_whole_floats_reach_langchain_tools() -> None:
    written = {"n": 120000.0, "parts": [{"count": 1.0}]}
    told = await as_tool(langchain_order).run(json.dumps(written))
    assert told == "[120000, [Part(count=1, weight=0.0)]]", "as LangChain writes it"


@pytest.mark.parametrize("n", ["5.5", "1e300", "-1e19", '"5.0"', "true", "null"])
async def test_what_is_no_whole_number_is_refused(n: str) -> None:
    definition = {"name": "order", "handler": print, "inputSchema": {**SCHEMA, "required": ["n"]}}
    for tool in (Tool.from_function(order), Tool.from_schema(definition)):
        with pytest.raises(InvalidArguments, match="int"):
            await tool.run(f'{{"n": {n}}}')


@pytest.mark.parametrize("written", ["", " ", "\n", "null", " null ", "[]", '""', "{}", "{ }"])
@pytest.mark.parametrize("strict", [False, True])
async def test_no_arguments_are_written_in_many_ways(written: str, strict: bool) -> None:
    @langchain_tool
    def now() -> str:
        """Tell the time."""
        return "noon"

    tools = [
        Tool.from_function(lambda: "noon", name="now", strict=strict),
        Tool.from_schema({"name": "now", "handler": lambda: "noon", "strict": strict}),
        as_tool(now),
    ]
    for tool in tools:
        assert await tool.run(written) == "noon"
    if not strict:
        assert Tool.from_function(lambda a=1: a, name="now").arguments.read(written) == {}
    with pytest.raises(InvalidArguments, match="missing required field `n`"):
        await Tool.from_function(order).run(written)


@pytest.mark.parametrize("written", ["[1]", "0", "false", '"x"', "[[]]", "[null]"])
async def test_what_is_not_an_object_is_refused(written: str) -> None:
    for tool in (Tool.from_function(lambda: "noon", name="now"), Tool.from_schema({"name": "now", "handler": print})):
        with pytest.raises(InvalidArguments, match="Expected `object`"):
            await tool.run(written)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["n", "deep", "many", "x"]), inner),
    max_leaves=8,
)


@given(VALUES, st.booleans())
def test_a_value_that_is_made_to_fit_says_the_same(value: Any, null_is_absent: bool) -> None:
    fitted = fit(value, SCHEMA, SCHEMA, null_is_absent=null_is_absent)
    assert fit(fitted, SCHEMA, SCHEMA, null_is_absent=null_is_absent) == fitted
    if not null_is_absent:
        assert fitted == value, "5 and 5.0 are one number"
