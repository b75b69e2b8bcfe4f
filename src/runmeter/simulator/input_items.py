"""The items of a Responses request's `input`: which keys each kind has, and which it must have.

Source: openai 3.54.0, `types/responses/response_input_param.py` (2026-11).
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from .errors import convert
from .prompts import Item, Part


class _InputItem(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str = "message"
    id: str | None = None
    status: str | None = None


class Message(_InputItem, kw_only=True):
    """A message of the user's, the developer's, or an earlier answer."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    phase: str | None = None


class FunctionCall(_InputItem, kw_only=True):
    """A call the model made."""

    call_id: str
    name: str
    arguments: str
    namespace: Any = None
    caller: Any = None
    is_async: Any = msgspec.field(name="async", default=None)


class FunctionCallOutput(_InputItem, kw_only=True):
    """What the call gave back."""

    call_id: str
    output: str | list[Part]
    name: Any = None
    namespace: Any = None
    caller: Any = None


class Reasoning(_InputItem, kw_only=True):
    """What the model thought."""

    summary: list[Part]
    content: list[Part] | None = None
    encrypted_content: str | None = None


_SHAPES: dict[str, type[_InputItem]] = {
    "message": Message,
    "function_call": FunctionCall,
    "function_call_output": FunctionCallOutput,
    "reasoning": Reasoning,
}
"""The kinds that are understood. Others, such as calls of built-in tools, pass unread."""


def read_items(given: str | Sequence[dict[str, Any]] | None) -> Sequence[Item]:
    """The items of an `input`.

    Raises:
        ApiError: 400: a key that an item does not have, or lacks, or a value that does not fit.
    """
    if isinstance(given, str):
        return [Item(role="user", content=given)]
    return [_read(item, f"input[{index}]") for index, item in enumerate(given or ())]


def _read(given: dict[str, Any], at: str) -> Item:
    item = convert(given, Item, at)
    if shape := _SHAPES.get(item.type):
        convert(given, shape, at)
    return item
