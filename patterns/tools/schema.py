"""JSON schemas of functions, and back: arguments read and checked as a function wants them.

A function's parameters become the fields of a msgspec struct. msgspec writes that struct's schema and reads JSON into
it, so what the model is told and what it is held to are one thing.
"""

import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

from runmeter.engine import ConfigurationError

from ..errors import InvalidArguments
from ..nesting import MAX_NESTING, TOO_DEEP, as_json, check_nesting
from .choices import resolve
from .class_schemas import Schema, schema_of
from .injected import filled_in_by
from .pydantic_fields import is_field, read_parameter, with_bounds
from .written_values import fit


class Arguments:
    """The arguments a tool takes: their JSON schema, and their reading.

    Args:
        fields: Name, type and whether it must be given, for each argument.
        schema: The JSON schema that the model is shown; by default one made from the fields.
        closed: Whether arguments of other names are refused.
        defaults: What makes the value of an argument that is not given, where the function's own default does not.
        checks: What checks the value of an argument that is given, and may change it, beyond its type.
        own_names: The function's own names of arguments that the model is told by others.

    Raises:
        ConfigurationError: a type has no JSON form.
    """

    def __init__(
        self,
        fields: Sequence[tuple[str, Any, bool]],
        *,
        schema: Schema | None = None,
        closed: bool = True,
        defaults: Mapping[str, Callable[[], Any]] | None = None,
        checks: Mapping[str, Callable[[Any], Any]] | None = None,
        own_names: Mapping[str, str] | None = None,
    ) -> None:
        self._defaults = dict(defaults or {})
        self._checks = dict(checks or {})
        self._own_names = dict(own_names or {})
        # Names of arguments need not be Python names, so the struct's fields are numbered.
        self._names = {f"_{number}": name for number, (name, _, _) in enumerate(fields)}
        self._as_written = schema is not None
        try:
            struct = msgspec.defstruct(
                "Arguments",
                [
                    (key, kind) if required else (key, Union[kind, UnsetType], UNSET)  # noqa: UP007 - Any has no |
                    for key, (_, kind, required) in zip(self._names, fields, strict=True)
                ],
                rename=self._names,
                kw_only=True,
                forbid_unknown_fields=closed,
            )
            self._decoder = msgspec.json.Decoder(struct, dec_hook=_read_pydantic)
            self.schema = schema_of(struct) if schema is None else schema
        except TypeError as error:
            raise ConfigurationError(str(error).replace("\n", " ")) from error

    def read(self, arguments: str, *, null_is_absent: bool = False) -> dict[str, Any]:
        """Read arguments written as JSON.

        Args:
            arguments: An object; nothing at all, null, and an empty text or array stand for an empty one.
            null_is_absent: Whether null says "not given" for what may be left out and is not nullable: as in
                strict mode.

        Returns:
            The arguments that were given, by name: as the function wants them, or, for a schema that was given, as
            they were written, whole numbers apart, which are integers where the schema says so.

        Raises:
            InvalidArguments: it is not JSON, not what the schema says, or nests deeper than `MAX_NESTING` levels.
        """
        written = arguments.strip().encode(errors="replace") or b"{}"
        try:
            if written.count(b"{") + written.count(b"[") > MAX_NESTING:
                check_nesting(msgspec.json.decode(written))
            if self._as_written or null_is_absent:
                values = self._fitting(written, null_is_absent)
                struct = self._decoder.decode(msgspec.json.encode(values))
                if self._as_written:
                    return cast("dict[str, Any]", values)
            else:
                struct = self._decode(written)
        except RecursionError:
            raise InvalidArguments(TOO_DEEP) from None
        except ValueError as error:
            raise InvalidArguments(str(error)) from error
        given = ((name, getattr(struct, key)) for key, name in self._names.items())
        values = {name: value for name, value in given if value is not UNSET}
        for name in self._checks.keys() & values.keys():
            values[name] = self._checked(name, values[name])
        values = {name: make() for name, make in self._defaults.items()} | values
        return {self._own_name(name): value for name, value in values.items()}

    def _own_name(self, name: str) -> str:
        return self._own_names.get(name, name)

    def _checked(self, name: str, value: Any) -> Any:
        try:
            return self._checks[name](value)
        except InvalidArguments as error:
            raise InvalidArguments(f"{error} - at `$.{name}`") from error

    def _decode(self, written: bytes) -> Any:
        """Read arguments as they are, and only if that fails as they may have been meant."""
        try:
            return self._decoder.decode(written)
        except msgspec.ValidationError:
            return self._decoder.decode(msgspec.json.encode(self._fitting(written, null_is_absent=False)))

    def _fitting(self, written: bytes, null_is_absent: bool) -> Any:
        value = msgspec.json.decode(written)
        if value is None or value in ("", []):
            return {}
        return fit(value, self.schema, self.schema, null_is_absent=null_is_absent)


def arguments_of(function: Callable[..., Any], descriptions: Mapping[str, str]) -> Arguments:
    """Read a function's signature into its arguments.

    Args:
        function: Every parameter must be one that can be given by name.
        descriptions: What its docstring says of each parameter.

    Raises:
        ConfigurationError: the signature cannot be read, has `*args`, `**kwargs` or position-only parameters, or a
            type has no JSON form; or a parameter or default is one that only another framework fills in.
    """
    hints = _hints_of(function)
    read = {
        own_name: read_parameter(own_name, hints.get(own_name, Any), parameter.default)
        for own_name, parameter in _parameters_of(function, hints)
    }
    told = [each.name for each in read.values()]
    if twice := {name for name in told if told.count(name) > 1}:
        raise ConfigurationError(f"two parameters have the name {twice.pop()!r}, one of them by its alias")
    defaults = {each.name: each.default for each in read.values() if not each.is_required}
    texts = {each.name: descriptions[own_name] for own_name, each in read.items() if own_name in descriptions}
    texts |= {each.name: text for each in read.values() if (text := _annotated_text(each.kind))}
    arguments = Arguments(
        [(each.name, with_bounds(each.kind), each.is_required) for each in read.values()],
        defaults={each.name: each.make for each in read.values() if each.make is not None},
        checks={each.name: each.check for each in read.values() if each.check is not None},
        own_names={each.name: own_name for own_name, each in read.items()},
    )
    for name, property_schema in arguments.schema["properties"].items():
        if name in texts:
            property_schema.setdefault("description", texts[name])
        if name in defaults:
            _set_default(property_schema, defaults[name])
    return arguments


def arguments_from_schema(schema: Mapping[str, Any]) -> Arguments:
    """Read a JSON schema of an object. Checked are names, required ones, and types as deep as arrays of plain values.

    Raises:
        ConfigurationError: the schema is not that of an object, is not JSON, or nests deeper than `MAX_NESTING` levels.
    """
    schema = {"type": "object", "properties": {}, **as_json(schema, "a tool's schema")}
    if (target := resolve(schema.get("$ref"), schema)) is not None:  # as pydantic writes a model that contains its like
        del schema["$ref"]
        schema |= target
    if schema["type"] != "object":
        raise ConfigurationError(f"a tool's arguments are an object, not of type {schema['type']!r}")
    properties, required = schema["properties"], schema.get("required", ())
    if not isinstance(properties, Mapping) or not isinstance(required, list | tuple):
        raise ConfigurationError("in a tool's schema, properties must be an object and required an array")
    fields = [(name, _type_of(part), name in required) for name, part in properties.items()]
    return Arguments(fields, schema=schema, closed=schema.get("additionalProperties") is False)


_SECTION = re.compile(
    r"^(?:Args|Arguments|Parameters|Keyword Args|Keyword Arguments|Other Parameters|Returns?|Yields?|Raises|Warns"
    r"|Warnings?|Attributes|Examples?|Notes?|References|See Also|Todo):[ \t]*$",
    re.MULTILINE,
)
"""Google-style sections. Source: Napoleon's list, sphinx-doc.org/en/master/usage/extensions/napoleon.html (2026-11)."""


def parse_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Read a docstring's text before its sections, and what its Google-style `Args:` says of each parameter."""
    text = inspect.getdoc(function) or ""
    summary = _SECTION.split(text, maxsplit=1)[0].strip()
    section = re.search(r"^Arg(?:ument)?s:\s*\n(.*?)(?=^\S|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    if section is None:
        return summary, {}
    entries = re.split(r"^(?: {2,8}|\t)\*{0,2}(\w+)(?: ?\([^)]*\))?:", section[1], flags=re.MULTILINE)[1:]
    return summary, {name: " ".join(entry.split()) for name, entry in zip(entries[::2], entries[1::2], strict=True)}


def _read_pydantic(kind: Any, value: Any) -> Any:
    """Read a value that msgspec does not read itself. The schema has let only pydantic models through."""
    return kind.model_validate(value)


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    try:
        return get_type_hints(function, include_extras=True)
    except Exception as error:  # whatever the evaluation of a string may raise
        raise ConfigurationError(f"its annotations cannot be read: {error}") from error


def _parameters_of(function: Callable[..., Any], hints: Mapping[str, Any]) -> Iterator[tuple[str, inspect.Parameter]]:
    """List the parameters that a model gives: not those that are bound, or that another framework may fill in."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"its signature cannot be read: {error}") from error
    bound = _bound_by_name(function)
    for name, parameter in signature.parameters.items():
        if name in bound:
            continue
        _check_parameter(parameter)
        who = filled_in_by(hints.get(name))
        if who is None:
            yield name, parameter
        elif parameter.default is parameter.empty:
            raise ConfigurationError(f"only {who} fills in {name!r}: give it a default, or do without it")


def _check_parameter(parameter: inspect.Parameter) -> None:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise ConfigurationError(f"parameter {parameter} cannot be given by name, as a model must")
    kind = type(parameter.default)
    if not is_field(parameter.default) and kind.__module__.partition(".")[0] == "fastapi":
        raise ConfigurationError(f"parameter {parameter.name}: only FastAPI fills in a {kind.__name__}")


def _bound_by_name(function: Callable[..., Any]) -> set[str]:
    """List the parameters that a partial has bound by name: in its signature they are left, with defaults."""
    names: set[str] = set()
    while isinstance(function, functools.partial):
        names |= function.keywords.keys()
        function = function.func
    return names


def _annotated_text(kind: Any) -> str | None:
    """Read the description in `Annotated[int, "how many"]`, or in one with `Doc` or a pydantic `Field`."""
    if get_origin(kind) is not Annotated:
        return None
    for extra in get_args(kind)[1:]:
        for text in (extra, getattr(extra, "description", None), getattr(extra, "documentation", None)):
            if isinstance(text, str):
                return text
    return None


def _set_default(schema: Schema, value: Any) -> None:
    try:
        default = msgspec.to_builtins(value)
        json.dumps(default, allow_nan=False)
        schema["default"] = default
    except (TypeError, ValueError):
        return  # it has no JSON form: the model is not told, Python still uses it


_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": None,
    "object": dict[str, Any],
}


def _type_of(schema: Any) -> Any:
    """The Python type of what a JSON schema allows, or `Any` where that takes more than a type."""
    if not isinstance(schema, Mapping):
        return Any
    choices = schema.get("enum")
    if choices and isinstance(choices, list | tuple):
        plain = all(isinstance(choice, str) for choice in choices) or all(type(choice) is int for choice in choices)
        return Literal[tuple(choices)] if plain else Any
    match schema.get("type"):
        case "array":
            return list.__class_getitem__(_type_of(schema.get("items")))
        case str() as name:
            return _TYPES.get(name, Any)
        case _:
            return Any
