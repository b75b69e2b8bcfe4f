"""Classes of one name in one function: the model sees a definition of each, and each is read as itself."""

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass, make_dataclass
from typing import Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest

from runmeter.engine import ConfigurationError
from runmeter.patterns import Tool
from runmeter.patterns.tools.choices import resolve

SHOP = pydantic.create_model("Address", street=(str, ...), __module__="shop")
NET = pydantic.create_model("Address", ip=(str, ...), __module__="net")


class Person(pydantic.BaseModel):
    address: SHOP  # type: ignore[valid-type] # made at run time, as its name is taken


class Host(pydantic.BaseModel):
    address: NET  # type: ignore[valid-type] # made at run time, as its name is taken


@dataclass
class Address:
    ip: str


class Kinds:
    class Address(enum.Enum):
        HOME = "home"


class Structs:
    class Address(msgspec.Struct):
        port: int

    class Arguments(msgspec.Struct):
        port: int


class Dicts:
    class Address(TypedDict):
        zip: int


class Odd(pydantic.BaseModel):
    """Has parameters whose names are keywords of JSON schemas."""

    default: Address
    mapping: Host
    properties: list[Person]


def function_of(**kinds: Any) -> Any:
    def take(**_: Any) -> None: ...

    source = f"def take({', '.join(kinds)}): return [{', '.join(kinds)}]"
    scope: dict[str, Any] = {}
    exec(source, scope)  # noqa: S102 - its parameters are the test's
    scope["take"].__annotations__.update(kinds)
    return scope["take"]


def wanted(schema: Any, root: Any) -> set[str]:
    """The names of all properties in a schema, behind its references too."""
    if "$ref" in schema:
        target = resolve(schema["$ref"], root)
        assert target is not None
        return wanted(target, root)
    names = set(schema.get("properties", {}))
    for part in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
        names |= wanted(part, root)
    return names or set(map(str, schema.get("enum", ())))


CASES = [
    ({"p": Person, "h": Host}, {"p": {"address": {"street": "a"}}, "h": {"address": {"ip": "b"}}}),
    ({"a": Address, "p": Person}, {"a": {"ip": "b"}, "p": {"address": {"street": "a"}}}),
    ({"p": Person, "a": Structs.Address}, {"p": {"address": {"street": "a"}}, "a": {"port": 1}}),
    ({"a": Kinds.Address, "h": Host}, {"a": "home", "h": {"address": {"ip": "b"}}}),
    (
        {"a": Address, "b": Structs.Address, "h": Host},
        {"a": {"ip": "x"}, "b": {"port": 1}, "h": {"address": {"ip": "b"}}},
    ),
    ({"a": Dicts.Address, "b": SHOP, "c": NET}, {"a": {"zip": 1}, "b": {"street": "a"}, "c": {"ip": "b"}}),
    ({"a": list[Address], "h": dict[str, Host]}, {"a": [{"ip": "x"}], "h": {"k": {"address": {"ip": "b"}}}}),
    ({"a": Structs.Arguments, "p": Person}, {"a": {"port": 1}, "p": {"address": {"street": "a"}}}),
    (
        {"default": Person, "mapping": Host, "o": Odd},
        {
            "default": {"address": {"street": "a"}},
            "mapping": {"address": {"ip": "b"}},
            "o": {
                "default": {"ip": "x"},
                "mapping": {"address": {"ip": "b"}},
                "properties": [{"address": {"street": "a"}}],
            },
        },
    ),
]


def names_in(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for name, part in value.items():
                if name != "k":
                    yield name
                yield from names_in(part)
        case list():
            for part in value:
                yield from names_in(part)


STRICT = [(*case, True) for case in CASES if "dict" not in str(case[0])]


@pytest.mark.parametrize(("kinds", "written", "strict"), [*((*case, False) for case in CASES), *STRICT])
async def test_what_the_model_is_shown_of_each_is_what_is_read(
    kinds: dict[str, Any], written: dict[str, Any], strict: bool
) -> None:
    tool = Tool.from_function(function_of(**kinds), strict=strict)
    for name, value in written.items():
        shown = tool.parameters["properties"][name]
        part = shown.get("additionalProperties", shown) or shown
        assert wanted(part, tool.parameters) == (set(names_in(value)) or {value})
    assert json.loads(await tool.run(json.dumps(written))) == list(written.values())


def test_models_of_one_module_and_name_are_told_apart_by_pydantic() -> None:
    again = pydantic.create_model("Address", ip=(str, ...), __module__="shop")
    tool = Tool.from_function(function_of(a=SHOP, b=again))
    properties = tool.parameters["properties"]
    assert wanted(properties["a"], tool.parameters) == {"street"}
    assert wanted(properties["b"], tool.parameters) == {"ip"}


def made(field: str) -> type:
    return make_dataclass("Made", [(field, str)])


class Pair(NamedTuple):
    """Two classes of one qualified name."""

    first: Any
    second: Any


@pytest.mark.parametrize("pair", [Pair(made("street"), made("ip"))])
def test_classes_of_one_qualified_name_are_refused(pair: Pair) -> None:
    with pytest.raises(ConfigurationError, match=r"tool 'take': there are two classes .*Made"):
        Tool.from_function(function_of(a=pair.first, b=pair.second))


def test_a_model_that_writes_its_schema_itself_has_a_definition() -> None:
    class Code(pydantic.RootModel[str]):
        @classmethod
        def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
            return {"type": "string", "pattern": "^[a-z]+$"}

    tool = Tool.from_function(function_of(code=Code, person=Person))
    target = resolve(tool.parameters["properties"]["code"]["$ref"], tool.parameters)
    assert target == {"type": "string", "pattern": "^[a-z]+$"}


def test_a_class_that_contains_its_like_is_one() -> None:
    class Tree(pydantic.BaseModel):
        children: list["Tree"] = []

    tool = Tool.from_function(function_of(tree=Tree), strict=True)
    assert list(tool.parameters["$defs"]) == ["Tree"]
