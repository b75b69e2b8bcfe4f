"""The schemas that a value may have: behind references, and where a schema is a choice of several."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from ..nesting import MAX_NESTING

_RESTRICTING = frozenset(("type", "enum", "const", "$ref", "allOf", "properties", "items"))
"""Keywords without which a schema allows any value."""


def resolve(reference: Any, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Find what a reference within a schema refers to; None if that is not there, or not a schema."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: Any = root
    for name in steps_of(reference):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def steps_of(reference: str) -> list[str]:
    """List the keys that lead from the root of a schema to what a reference in it refers to (RFC 6901)."""
    return [part.replace("~1", "/").replace("~0", "~") for part in unquote(reference).split("/")[1:]]


def options(schema: Any, root: Mapping[str, Any], level: int = 0) -> Iterator[Mapping[str, Any]]:
    """List the schemas that a value may have: the schema itself, or those of which it is a choice.

    Args:
        schema: What may be a reference, or a choice.
        root: The schema that it refers to.
        level: The references and choices that have led here; there is an end, lest they go round in a circle.
    """
    if not isinstance(schema, Mapping) or level > MAX_NESTING:
        return
    target = resolve(schema.get("$ref"), root)
    parts = schema.get("allOf")
    choices = schema.get("anyOf") or schema.get("oneOf")
    if target is not None:
        yield from options(target, root, level + 1)
    elif isinstance(parts, list) and len(parts) == 1:
        yield from options(parts[0], root, level + 1)
    elif isinstance(choices, list):
        for choice in choices:
            yield from options(choice, root, level + 1)
    else:
        yield schema


def kinds_of(option: Mapping[str, Any]) -> list[Any]:
    """List the types that a schema says a value may have."""
    said = option.get("type")
    return said if isinstance(said, list) else [] if said is None else [said]


def values_of(option: Mapping[str, Any]) -> list[Any] | None:
    """List the values that a schema allows; None if it does not list them."""
    values = [option["const"]] if "const" in option else option.get("enum")
    return values if isinstance(values, list) else None


def allows_null(schema: Any, root: Mapping[str, Any]) -> bool:
    """Tell whether a value may be null."""
    return any(
        "null" in kinds_of(option) or None in (values_of(option) or ()) or not option.keys() & _RESTRICTING
        for option in options(schema, root)
    )


def part_of(option: Mapping[str, Any], name: str) -> Any:
    """Find the schema of an object's property, of those that are not named, too."""
    properties = option.get("properties")
    if isinstance(properties, Mapping) and name in properties:
        return properties[name]
    return option.get("additionalProperties")
