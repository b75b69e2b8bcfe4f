"""A limit on the nesting of JSON that a model writes: a limit of our own, the same on every interpreter."""

from collections.abc import Iterable
from typing import Any

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


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
