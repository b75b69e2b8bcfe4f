"""A limit on the nesting of JSON that a model or a user writes: one of our own, the same on every interpreter."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from runmeter.engine import ConfigurationError

from .text import valid

MAX_NESTING = 100
"""Levels of objects and arrays. A schema in OpenAI's strict form has ten at most (guide to structured outputs, February
2026). What Python can read depends on its version: 1,000 in CPython 3.11, several thousand in 3.13 (2026-11-29)."""
TOO_DEEP = f"it nests deeper than {MAX_NESTING} levels"


def check_nesting(value: Any) -> None:
    """Check that decoded JSON has no more than `MAX_NESTING` levels of objects and arrays.

    Raises:
        ValueError: it has more.
    """
    level = [value]
    for _ in range(MAX_NESTING):
        level = [part for each in level for part in _parts(each) if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError(TOO_DEEP)


def as_json(value: object, what: str) -> dict[str, Any]:
    """Copy an object that a user gives as JSON has it: lists in place of tuples, text that can be sent.

    Args:
        value: The object.
        what: Its name in errors.

    Raises:
        ConfigurationError: it is not an object, has values that JSON does not have, or nests too deeply.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{what} is a dict, not {value!r:.100}")
    try:
        plain: dict[str, Any] = valid(value)
        check_nesting(plain)
        json.dumps(plain, allow_nan=False)
    except RecursionError:
        raise ConfigurationError(f"{what} is not JSON: {TOO_DEEP}") from None
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{what} is not JSON: {error}") from error
    return plain


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
