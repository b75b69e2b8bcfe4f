"""The JSON schemas of requests, checked as far as they are read: for functions and for structured output."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeAlias, Union

import msgspec

from ..errors import ApiError
from .strict import first_fault, nodes

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_Several: TypeAlias = Annotated[list[Union["Schema", bool]], msgspec.Meta(min_length=1)]


class Schema(msgspec.Struct, rename="camel"):
    """A JSON schema (2020-12), in the keywords that matter here; others are ignored."""

    type: str | list[str] | None = None
    enum: list[Any] | msgspec.UnsetType = msgspec.UNSET
    properties: dict[str, Union["Schema", bool]] = {}
    required: list[str] = []
    items: Union["Schema", bool] = True
    min_items: _Count = 0
    max_items: _Count = 0
    min_length: _Count = 0
    max_length: _Count = 0
    minimum: float = 0
    maximum: float = 0
    exclusive_minimum: float = 0
    exclusive_maximum: float = 0
    multiple_of: Annotated[float, msgspec.Meta(gt=0)] = 1
    format: str = ""
    any_of: _Several | msgspec.UnsetType = msgspec.UNSET
    one_of: _Several | msgspec.UnsetType = msgspec.UNSET
    all_of: _Several | msgspec.UnsetType = msgspec.UNSET
    definitions: dict[str, Union["Schema", bool]] = {}
    defs: dict[str, Union["Schema", bool]] = msgspec.field(name="$defs", default_factory=dict)
    ref: str | None = msgspec.field(name="$ref", default=None)

    def references(self) -> Iterator[str]:
        """Every `$ref` in the schema."""
        if self.ref is not None:
            yield self.ref
        for each in (*self.properties.values(), *self.definitions.values(), *self.defs.values(), self.items):
            yield from each.references() if isinstance(each, Schema) else ()
        for several in (self.any_of, self.one_of, self.all_of):
            for each in several or ():
                yield from each.references() if isinstance(each, Schema) else ()


def check_schema(schema: Mapping[str, Any], of: str, param: str, code: str, *, strict: bool) -> None:
    """Check that a schema is one of an object, that its references lead to schemas in it, and its form if it is strict.

    Args:
        schema: The schema.
        of: Whose it is, for the message.
        param: The parameter it came in.
        code: The API's code for it.
        strict: The API is to hold the model to it.

    Raises:
        ApiError: 400: it is not.
    """
    try:
        for reference in msgspec.convert(schema, Schema).references():
            msgspec.convert(_target(schema, reference), Schema | bool)
        fault = first_fault(schema) if strict else _loose_fault(schema)
    except (msgspec.ValidationError, RecursionError) as error:
        fault = str(error)
    if fault:
        raise ApiError(400, f"Invalid schema for {of}: {fault}", param=param, code=code)


def _loose_fault(schema: Mapping[str, Any]) -> str | None:
    """Find what the API takes in no schema, strict or not.

    As reported: modelscope/ms-agent#610 (items, 2025), spring-projects/spring-ai#4776 (properties, 2025).
    """
    if schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    if "properties" not in schema:
        return "In context=(), object schema missing properties."
    for path, node, _ in nodes(schema):
        if isinstance(node, Mapping) and node.get("type") == "array" and not {"items", "prefixItems"} & node.keys():
            return f"In context={path}, array schema missing items."
    return None


def _target(schema: Mapping[str, Any], reference: str) -> Any:
    """Find the schema a reference points to."""
    found: Any = schema
    for key in filter(None, reference.removeprefix("#").split("/")):
        if not isinstance(found, Mapping) or key not in found:
            raise msgspec.ValidationError(f"reference '{reference}' leads to no schema")
        found = found[key]
    return found
