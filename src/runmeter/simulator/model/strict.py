"""Strict schemas, judged as the API judges them: only a part of JSON schema may be used where it is to be kept to.

Sources: developers.openai.com/api/docs/guides/structured-outputs, "Supported schemas" (what is required, sizes);
pydantic-ai 2.68, `profiles/openai.py`, whose authors tried it on the API in 2026 (keywords, formats, where references
lead, what counts for depth); the words: camel-ai/camel#3001, can1357/oh-my-pi#211, jina-ai/node-DeepResearch#79.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

DEEPEST = 10
MOST_PROPERTIES = 5_000
"""Upper bounds on levels of objects and on properties, in the schema and in each of its definitions."""

_FORBIDDEN = frozenset(
    {
        *("allOf", "contains", "default", "dependentRequired", "dependentSchemas", "else", "if", "maxContains"),
        *("maxLength", "maxProperties", "minContains", "minLength", "minProperties", "not", "oneOf"),
        *("patternProperties", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties", "uniqueItems"),
    }
)
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_TYPING = frozenset({"type", "anyOf", "enum", "const"}) | _FORBIDDEN
"""Keywords one of which every schema needs, unless it is a reference."""
_REFERENCE = re.compile(r"#|#/(?:\$defs|definitions)/[^/]+")
_LOOKAROUND = re.compile(r"(?<!\\)(?:\\\\)*\(\?<?[=!]")

_Path: TypeAlias = tuple[str, ...]


def first_fault(schema: Mapping[str, Any]) -> str | None:
    """Find what the API would say of a schema that is not in strict form; None if it is."""
    return next(_faults(schema), None)


def nodes(schema: Any, path: _Path = (), depth: int = 0) -> Iterator[tuple[_Path, Any, int]]:
    """Go through a schema and those within it, each with its place and its depth in objects."""
    depth += isinstance(schema, Mapping) and isinstance(schema.get("properties"), Mapping)
    yield path, schema, depth
    if not isinstance(schema, Mapping):
        return
    for name, each in (schema.get("properties") or {}).items():
        yield from nodes(each, (*path, "properties", name), depth)
    if "items" in schema:
        yield from nodes(schema["items"], (*path, "items"), depth)
    for index, each in enumerate(schema.get("anyOf") or ()):
        yield from nodes(each, (*path, "anyOf", str(index)), depth)


def _faults(schema: Mapping[str, Any]) -> Iterator[str]:
    if schema.get("type") != "object":
        yield f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    parts: dict[_Path, Any] = {(): schema}
    for group in ("$defs", "definitions"):
        parts |= {(group, name): each for name, each in (schema.get(group) or {}).items()}
    for path, part in parts.items():
        deepest = properties = 0
        for where, node, depth in nodes(part, path):
            yield from (f"In context={where}, {fault}" for fault in _faults_of(node))
            deepest = max(deepest, depth)
            properties += len(node.get("properties") or ())
        if deepest > DEEPEST:
            yield f"In context={path}, objects are nested more than {DEEPEST} levels deep."
        if properties > MOST_PROPERTIES:
            yield f"In context={path}, there are more than {MOST_PROPERTIES} properties."


def _faults_of(schema: Any) -> Iterator[str]:
    """Find what is wrong with one schema, apart from those within it."""
    if isinstance(schema, Mapping) and "$ref" in schema:
        yield from _faults_of_reference(schema)
    elif not isinstance(schema, Mapping) or not _TYPING & schema.keys():
        yield "schema must have a 'type' key."
    else:
        yield from (f"'{key}' is not permitted." for key in schema if key in _FORBIDDEN)
        if (name := schema.get("format")) is not None and name not in _FORMATS:
            yield f"'{name}' is not a valid format."
        if _LOOKAROUND.search(str(schema.get("pattern", ""))):
            yield "'pattern' has a lookaround, which is not supported."
        kinds = schema.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if "array" in kinds and "items" not in schema:
            yield "array schema missing items."
        if "object" in kinds:
            yield from _faults_of_object(schema)


def _faults_of_reference(schema: Mapping[str, Any]) -> Iterator[str]:
    if beside := {key for key in schema if key not in ("$ref", "$defs", "definitions")}:
        yield f"$ref cannot have keywords {beside}."
    if not _REFERENCE.fullmatch(schema["$ref"]):
        yield f"reference '{schema['$ref']}' can only point to definitions at the top level."


def _faults_of_object(schema: Mapping[str, Any]) -> Iterator[str]:
    if schema.get("additionalProperties") is not False:
        yield "'additionalProperties' is required to be supplied and to be false."
    properties: Mapping[str, Any] = schema.get("properties") or {}
    required: Sequence[str] = schema.get("required") or ()
    rule = "'required' is required to be supplied and to be an array including every key in properties."
    yield from (f"{rule} Missing '{name}'." for name in properties if name not in required)
    yield from (f"{rule} Extra required key '{name}' supplied." for name in required if name not in properties)
