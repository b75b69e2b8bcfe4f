"""JSON schemas in OpenAI's strict form, to which the API holds a model.

Sources: guide to structured outputs, "Supported schemas", developers.openai.com/api/docs/guides/structured-outputs
(February 2026), and the OpenAI client's own conversion (openai 3.54.0, `lib/_pydantic.py`).
"""

import json
from collections.abc import Mapping
from typing import Any

from runmeter.engine import ConfigurationError

from ..nesting import MAX_NESTING
from .choices import allows_null, resolve, steps_of
from .class_schemas import Schema

_TYPES = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
_SUPPORTED = frozenset(
    (
        *("type", "title", "description", "enum", "const", "pattern", "format", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    )
)
"""Keywords that stay as they are. Those that hold schemas are written anew; what else there is, is left out."""
_TOLD = frozenset(("minLength", "maxLength", "minProperties", "maxProperties", "uniqueItems", "contentEncoding"))
"""Keywords that the API does not take, and that narrow a value: the model is told of them in words."""
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))
_SAY_NOTHING = frozenset(("default", "examples", "discriminator", "$schema", "$id", "$comment", "deprecated"))
"""Keywords that are left out before it is looked at what a schema says."""
_LOOKAROUND = ("(?=", "(?!", "(?<=", "(?<!")
"""Beginnings of what a pattern may not have."""
_INEXPRESSIBLE = {
    "allOf": "allOf",
    "not": "not",
    "if": "if, then and else",
    "dependentRequired": "dependentRequired",
    "dependentSchemas": "dependentSchemas",
    "dependencies": "dependencies",
    "patternProperties": "a dict of any keys",
    "prefixItems": "tuples",
    "contains": "contains",
    "$dynamicRef": "$dynamicRef",
}


def strict(schema: Mapping[str, Any]) -> Schema:
    """Write the schema of an object in strict form: every property required, the optional ones nullable, no others.

    Raises:
        ConfigurationError: it is not a schema, or strict mode cannot express it: an object of any keys, a tuple, a
            value of any type. The message says where.
    """
    try:
        return _StrictForm(schema).write()
    except RecursionError:
        raise ConfigurationError("strict mode cannot express a schema that has no end") from None


class _StrictForm:
    """A schema that is written in strict form."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._kept: list[str] = []
        """References to definitions, in the order in which they were met."""

    def write(self) -> Schema:
        """Write the whole schema, with the definitions that it then refers to."""
        root = self._without_detours(self._root, "$")
        if "anyOf" in root:
            raise _cannot("a choice", "$")
        out = self._write(root, "$")
        for reference in self._kept:  # which grows on the way
            keyword, name = steps_of(reference)
            out.setdefault(keyword, {})[name] = self._write(resolve(reference, self._root), reference)
        return out

    def _write(self, schema: Any, place: str) -> Schema:
        schema = self._without_detours(schema, place)
        if "$ref" in schema:
            if schema["$ref"] not in ("#", *self._kept):
                self._kept.append(schema["$ref"])
            return {"$ref": schema["$ref"]}
        _check_expressible(schema, place)
        if "anyOf" in schema:
            return self._write_choice(schema, place)
        kinds = _kinds_of(schema, place)
        out: Schema = {"type": kinds[0] if len(kinds) == 1 else kinds}
        out |= {key: value for key, value in schema.items() if key in _SUPPORTED and key != "type"}
        _tell_of_the_rest(out, schema)
        if "array" in kinds:
            out["items"] = self._write_items(schema, place)
        return out | self._write_object(schema, place) if "object" in kinds else out

    def _write_choice(self, schema: Mapping[str, Any], place: str) -> Schema:
        beside = [key for key in ("type", "properties", "enum", "const") if key in schema]
        if beside:
            raise _cannot(f"anyOf beside {', '.join(beside)}", place)
        said = {key: schema[key] for key in ("title", "description") if key in schema}
        options = enumerate(_several(schema["anyOf"], place), 1)
        return {"anyOf": [self._write(option, f"{place}|{number}") for number, option in options], **said}

    def _without_detours(self, schema: Any, place: str) -> Mapping[str, Any]:
        """Follow references that have something beside them, and choices that leave no choice."""
        for _ in range(MAX_NESTING):
            if schema is True or schema is False or schema == {}:
                raise _cannot("a value of any type", place, "give it a type")
            own = {key: value for key, value in _mapping(schema, place).items() if key not in _SAY_NOTHING}
            if "oneOf" in own and "anyOf" not in own:  # what is read is held to the rest
                own["anyOf"] = own.pop("oneOf")
            if "allOf" in own and len(parts := _several(own["allOf"], place)) == 1:
                del own["allOf"]
                schema = {**_mapping(parts[0], place), **own}
            elif "$ref" in own:
                target = resolve(own["$ref"], self._root)
                if target is None:
                    raise ConfigurationError(f"{place}: the reference {own['$ref']!r} leads to no schema")
                if own.keys() == {"$ref"} and _stays(own["$ref"]):
                    return own
                del own["$ref"]
                schema = {**target, **own}
            else:
                return own
        raise ConfigurationError(f"{place}: the references go round in a circle")

    def _write_items(self, schema: Mapping[str, Any], place: str) -> Schema:
        items = schema.get("items")
        if isinstance(items, list):
            raise _cannot("tuples", place, "use a list")
        if items is None:
            raise _cannot("a list of anything", place, "give its items a type")
        return self._write(items, f"{place}[]")

    def _write_object(self, schema: Mapping[str, Any], place: str) -> Schema:
        more = schema.get("additionalProperties", "properties" not in schema)
        if more is not False:
            raise _cannot("a dict of any keys", place, "use a class")
        properties = _mapping(schema.get("properties", {}), f"{place}.properties")
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(n, str) and n in properties for n in required):
            raise ConfigurationError(f"{place}: required must be an array of names of properties, is {required!r}")
        written = {name: self._write(part, f"{place}.{name}") for name, part in properties.items()}
        return {
            "properties": {
                name: part if name in required or allows_null(part, self._root) else _nullable(part)
                for name, part in written.items()
            },
            "required": list(properties),
            "additionalProperties": False,
        }


def _stays(reference: str) -> bool:
    """Tell whether what a reference refers to is where it was in the strict form, too."""
    return reference == "#" or (reference.startswith(("#/$defs/", "#/definitions/")) and reference.count("/") == 2)


def _cannot(what: str, place: str, instead: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"strict mode cannot express {what} (at {place}); {f'{instead}, or ' if instead else ''}use strict=False"
    )


def _check_expressible(schema: Mapping[str, Any], place: str) -> None:
    for keyword, what in _INEXPRESSIBLE.items():
        if keyword in schema:
            raise _cannot(what, place, "use a list" if what == "tuples" else "")


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ConfigurationError(f"strict mode needs an object at {place}, not {value!r:.100}")
    return value


def _several(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ConfigurationError(f"strict mode needs a list of schemas at {place}, not {value!r:.100}")
    return value


def _kinds_of(schema: Mapping[str, Any], place: str) -> list[str]:
    """List the types that a schema allows, which it need not say where they can be told from the rest of it."""
    said = schema.get("type")
    if said is not None:
        kinds = [said] if isinstance(said, str) else said
        if not isinstance(kinds, list) or not kinds or not all(isinstance(k, str) and k in _TYPES for k in kinds):
            raise ConfigurationError(f"{place}: {said!r} is not a type of JSON's")
        return kinds
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        if not isinstance(values, list) or not values:
            raise ConfigurationError(f"{place}: enum must be an array of values, is {values!r:.100}")
        return list(dict.fromkeys(_kind_of_value(value, place) for value in values))
    for keyword, kind in (("properties", "object"), ("items", "array")):
        if keyword in schema:
            return [kind]
    raise _cannot("a value of any type", place, "give it a type")


def _kind_of_value(value: Any, place: str) -> str:
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (type(None), "null")):
        if isinstance(value, kind):
            return name
    raise _cannot(f"the value {value!r:.100}", place)


def _tell_of_the_rest(out: Schema, schema: Mapping[str, Any]) -> None:
    """Say in words what the API does not take as keywords."""
    told = [key for key in schema if key in _TOLD]
    if "format" in out and str(out["format"]) not in _FORMATS:
        told.append("format")
        del out["format"]
    if any(beginning in str(out.get("pattern", "")) for beginning in _LOOKAROUND):
        told.append("pattern")
        del out["pattern"]
    if told:
        notes = ", ".join(f"{key}: {json.dumps(schema[key], default=str)}" for key in told)
        description = out.get("description")
        out["description"] = f"{description} ({notes})" if description else notes


def _nullable(schema: Schema) -> Schema:
    said: Schema = {key: schema.pop(key) for key in ("title", "description") if key in schema}
    return {"anyOf": [schema, {"type": "null"}], **said}
