"""Pydantic's annotations as the functions of tools use them: `Field`, as a default or within, bounds, and validators.

Sources: pydantic 2, `pydantic/fields.py` (`FieldInfo`: `metadata`, `is_required`, `get_default`), and annotated-types.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from msgspec import Meta

from runmeter.engine import ConfigurationError

from ..errors import InvalidArguments

_REWRITERS = ("BeforeValidator", "WrapValidator", "PlainValidator", "SkipValidation", "InstanceOf")
"""Annotations of pydantic's that take something else than the type says: no schema tells a model of that."""
_BOUNDS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")


def is_field(value: Any) -> bool:
    """Tell whether a value is a `Field(...)`, or one of a framework's kinds of it, such as FastAPI's `Query(...)`."""
    return any(each.__name__ == "FieldInfo" and each.__module__.startswith("pydantic.") for each in type(value).__mro__)


class Parameter(NamedTuple):
    """A function's parameter, as pydantic's annotations have it."""

    name: str
    """The name that a model is told."""
    kind: Any
    default: Any
    """`inspect.Parameter.empty` if it must be given."""
    make: Callable[[], Any] | None
    """Makes the default, where the function's own does not."""
    check: Callable[[Any], Any] | None
    """Checks a value that is given, and may change it, beyond its type."""

    @property
    def is_required(self) -> bool:
        """It must be given."""
        return self.default is inspect.Parameter.empty


def read_parameter(name: str, kind: Any, default: Any) -> Parameter:
    """Read a parameter.

    Args:
        name: The function's own name of it.
        kind: Its annotation.
        default: Its default, which may be a `Field`; `inspect.Parameter.empty` if there is none.

    Raises:
        ConfigurationError: its annotations ask for what no schema can tell a model.
    """
    field = default if is_field(default) else _field_within(kind)
    make: Callable[[], Any] | None = None
    if field is not None:
        name = _told_name(field) or name
        if field is default or default is inspect.Parameter.empty:
            kind, make = Annotated[kind, field], _maker_of(field)
            default = inspect.Parameter.empty if make is None else make()
    return Parameter(name, kind, default, make, _checker_of(kind))


def _maker_of(field: Any) -> Callable[[], Any] | None:
    """Return a function that makes a field's default, anew each time where it has a factory; None if it is required."""
    return None if field.is_required() else functools.partial(field.get_default, call_default_factory=True)


def _field_within(kind: Any) -> Any:
    """Find the `Field` in an `Annotated` that has a default or an alias; None if there is none."""
    fields = [extra for extra in get_args(kind)[1:] if is_field(extra)] if get_origin(kind) is Annotated else []
    return next((each for each in fields if not each.is_required() or _told_name(each) is not None), None)


def _told_name(field: Any) -> str | None:
    """Return the name by which a field is given, where that is not its own.

    Raises:
        ConfigurationError: it has several, or a path.
    """
    name = field.alias if field.validation_alias is None else field.validation_alias
    if name is None or isinstance(name, str):
        return name
    raise ConfigurationError(f"a Field has a {type(name).__name__}: a model gives an argument by one name")


def _checker_of(kind: Any) -> Callable[[Any], Any] | None:
    """Return what checks a value that was read, and may change it, as pydantic's validators in its type say.

    Raises:
        ConfigurationError: one of them takes something else than its type says, or pydantic cannot use the type.
    """
    extras = list(_validators_in(kind))
    for extra in extras:
        name = type(extra).__name__
        if name in _REWRITERS or getattr(extra, "__name__", None) in _REWRITERS:
            raise ConfigurationError(
                f"{name} takes something else than its type says, of which a model is not told: take in the function "
                "what the model is to write, and convert it there"
            )
    if not extras:
        return None
    from pydantic import PydanticUserError, TypeAdapter, ValidationError  # slow

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(_without_fields(kind))
    except PydanticUserError as error:
        raise ConfigurationError(f"pydantic cannot check it: {str(error).splitlines()[0]}") from error

    def check(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            told = error.errors(include_url=False, include_context=False, include_input=False)
            raise InvalidArguments("; ".join(each["msg"] for each in told)) from error

    return check


def _without_fields(kind: Any) -> Any:
    """Leave the bounds of fields, and not their names and defaults, which are of no use but in a model."""
    if get_origin(kind) is not Annotated:
        return kind
    inner, *extras = get_args(kind)
    flat = [item for extra in extras for item in (extra.metadata if is_field(extra) else [extra])]
    annotated: Any = Annotated
    return annotated[(_without_fields(inner), *flat)] if flat else inner


def _validators_in(kind: Any) -> Iterator[Any]:
    """List the annotations in a type, also deep within, that check or change a value."""
    origin, arguments = get_origin(kind), get_args(kind)
    for extra in arguments[1:] if origin is Annotated else ():
        for item in (extra, *(getattr(extra, "metadata", None) or ())):
            if hasattr(item, "__get_pydantic_core_schema__") or _is_predicate(item) or _changes_text(item):
                yield item
    for inner in arguments[:1] if origin is Annotated else arguments:
        yield from _validators_in(inner)


def _is_predicate(item: Any) -> bool:
    """Tell whether an annotation is a predicate of annotated-types."""
    return any(each.__name__ == "Predicate" for each in type(item).__mro__)


def _changes_text(item: Any) -> bool:
    """Tell whether an annotation is of `StringConstraints`, and strips a text or changes its case."""
    return any(getattr(item, name, None) for name in ("strip_whitespace", "to_lower", "to_upper"))


def with_bounds(kind: Any) -> Any:
    """Add to a type the bounds that a `Field` or annotated-types sets, as msgspec reads them; also deep within."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        inner, *extras = arguments
        bounds = _bounds(extras)
        annotated: Any = Annotated
        return annotated[(with_bounds(inner), *extras, *([Meta(**bounds)] if bounds else []))]
    if origin in (list, set, frozenset, tuple, dict):
        return origin[tuple(map(with_bounds, arguments))]
    return kind


def _bounds(extras: list[Any]) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    for extra in extras:
        if isinstance(extra, Meta):
            continue
        for item in getattr(extra, "metadata", None) or [extra]:
            found = {name: getattr(item, name, None) for name in _BOUNDS}
            bounds |= {name: value for name, value in found.items() if isinstance(value, int | float | str)}
    return bounds
