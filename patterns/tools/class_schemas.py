"""JSON schemas of msgspec structs whose fields may be pydantic models: every class has a definition of its own.

msgspec names the classes that it reads, and pydantic those in its models; neither knows the other's names.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, TypeAlias

import msgspec

from runmeter.engine import ConfigurationError

Schema: TypeAlias = dict[str, Any]

_PREFIX = "#/$defs/"
_BY_NAME = frozenset(("properties", "patternProperties", "$defs"))
"""Keywords whose values hold schemas by name."""
_VERBATIM = frozenset(("default", "const", "enum", "examples"))
"""Keywords whose values are data, and hold no schema."""


def schema_of(struct: type[msgspec.Struct]) -> Schema:
    """Make a struct's schema with the struct itself at the root, and the classes it refers to under `$defs`.

    Raises:
        ConfigurationError: a type has no JSON form, or two classes have one qualified name, so that msgspec takes them
            for one (msgspec 0.22.0, `_json_schema.py`, `_build_name_map`).
    """
    models: list[Any] = []

    def refer(kind: Any) -> Schema:
        if not hasattr(kind, "model_json_schema"):
            raise TypeError(f"type {getattr(kind, '__qualname__', kind)} has no JSON form")
        if kind not in models:
            models.append(kind)
        return {"$ref": _model_place(models.index(kind))}

    try:
        (root,), own = msgspec.json.schema_components((struct,), schema_hook=refer, ref_template=_PREFIX + "{name}")
    except KeyError as error:
        raise ConfigurationError(f"there are two classes {error.args[0]!r}: give one another name") from None
    except TypeError as error:
        raise ConfigurationError(str(error).replace("\n", " ")) from error
    schema: Schema = own.pop(root["$ref"].removeprefix(_PREFIX))
    del schema["title"]
    places, foreign = _model_schemas(models)
    names = dict(_free_names(own, foreign))
    moved = {_PREFIX + name: _PREFIX + free for name, free in names.items()}
    places = {place: moved.get(target, target) for place, target in places.items()}
    definitions = {name: _with_references(part, places) for name, part in own.items()}
    definitions |= {names[name]: _with_references(part, moved) for name, part in foreign.items()}
    schema = _with_references(schema, places)
    return {**schema, "$defs": definitions} if definitions else schema


def _model_place(number: int) -> str:
    """A reference that stands for a pydantic model until its definition has a name."""
    return f"pydantic:{number}"


def _model_schemas(models: list[Any]) -> tuple[dict[str, str], Schema]:
    """Have pydantic write the schemas of all models together, so that it tells apart classes of one name.

    Returns:
        The reference of each model, by the one that stands for it; and the definitions by name.
    """
    if not models:
        return {}, {}
    from pydantic.json_schema import models_json_schema  # a user's model has loaded it

    written, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=_PREFIX + "{model}"
    )
    places: dict[str, str] = {}
    found: Schema = dict(definitions.get("$defs", {}))
    for number, model in enumerate(models):
        schema = written[model, "validation"]
        if schema.keys() != {"$ref"}:  # a model that writes its schema itself
            name = next(name for name in _variants(model.__name__) if name not in found)
            found[name] = schema
            schema = {"$ref": _PREFIX + name}
        places[_model_place(number)] = schema["$ref"]
    return places, found


def _free_names(own: Mapping[str, Any], foreign: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give each of pydantic's definitions a name that no other one has."""
    taken = own.keys() | foreign.keys()
    for name in foreign:
        free = name if name not in own else next(each for each in _variants(name) if each not in taken)
        taken = taken | {free}
        yield name, free


def _variants(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(2))


def _with_references(schema: Any, places: Mapping[str, str]) -> Any:
    """Write a schema anew, with its references to other places."""
    if isinstance(schema, list):
        return [_with_references(each, places) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _with_reference(key, value, places) for key, value in schema.items()}


def _with_reference(key: str, value: Any, places: Mapping[str, str]) -> Any:
    if key == "$ref" and isinstance(value, str):
        return places.get(value, value)
    if key in _BY_NAME and isinstance(value, dict):
        return {name: _with_references(part, places) for name, part in value.items()}
    if key == "mapping" and isinstance(value, dict):  # of a discriminator
        return {tag: places.get(place, place) if isinstance(place, str) else place for tag, place in value.items()}
    return value if key in _VERBATIM else _with_references(value, places)
