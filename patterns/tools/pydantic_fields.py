"""Pydantic's `Field` as the functions of tools use it: as a default, and for bounds.

Sources: pydantic 2, `pydantic/fields.py` (`FieldInfo`: `metadata`, `is_required`, `get_default`), and annotated-types.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

from msgspec import Meta

_BOUNDS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")


def is_field(value: Any) -> bool:
    """Tell whether a value is a `Field(...)`, or one of a framework's kinds of it, such as FastAPI's `Query(...)`."""
    return any(each.__name__ == "FieldInfo" and each.__module__.startswith("pydantic.") for each in type(value).__mro__)


def maker_of(field: Any) -> Callable[[], Any] | None:
    """Return a function that makes a field's default, anew each time where it has a factory; None if it is required."""
    return None if field.is_required() else functools.partial(field.get_default, call_default_factory=True)


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
