"""The items of a request's `input`: which keys each kind has, which it must have, and how a conversation shows it.

Source: openai 3.54.0, `types/responses/response_input_param.py` (2026-11).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from ..errors import ApiError, convert
from ..model.prompt import Item, Part
from .conversation import StoredItem


class _InputItem(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str = "message"
    id: str | None = None
    status: str | None = None


class MessageInput(_InputItem, kw_only=True):
    """A message of the user's, the developer's, or an earlier answer."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    phase: str | None = None


class FunctionCallInput(_InputItem, kw_only=True):
    """A function call the model made."""

    call_id: str
    name: str
    arguments: str
    namespace: Any = None
    caller: Any = None
    is_async: Any = msgspec.field(name="async", default=None)


class FunctionCallOutput(_InputItem, kw_only=True):
    """The output that a call gave back."""

    call_id: str
    output: str | list[Part]
    name: Any = None
    namespace: Any = None
    caller: Any = None


class ReasoningInput(_InputItem, kw_only=True):
    """A reasoning item in the input: what the model thought."""

    summary: list[Part]
    content: list[Part] | None = None
    encrypted_content: str | None = None


_SHAPES: dict[str, type[_InputItem]] = {
    "message": MessageInput,
    "function_call": FunctionCallInput,
    "function_call_output": FunctionCallOutput,
    "reasoning": ReasoningInput,
}
"""The kinds that are understood. Others, such as calls of built-in tools, pass unread."""


_PREFIXES = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_"}
"""Beginnings of the ids of items, by type."""

_PART_DEFAULTS: dict[str, dict[str, Any]] = {
    "output_text": {"annotations": [], "logprobs": []},
    "input_image": {"detail": "auto"},
}
"""Fields that a piece of content has in an answer even if the request left them out."""


def read_items(given: str | Sequence[dict[str, Any]] | None) -> Sequence[Item]:
    """Read the items of an `input`.

    Raises:
        ApiError: 400: a key that an item does not have, or lacks, or a value that does not fit.
    """
    return [_read(item, f"input[{index}]") for index, item in enumerate(_as_list(given))]


def store_items(
    given: str | Sequence[dict[str, Any]] | None, at: str, new_id: Callable[[str], str]
) -> Sequence[StoredItem]:
    """Make the items `at` this parameter as a conversation keeps them: with an id and a status, and content in pieces.

    Raises:
        ApiError: 400: a key that an item does not have, or lacks, or a value that does not fit.
    """
    return [_store(item, f"{at}[{index}]", new_id) for index, item in enumerate(_as_list(given))]


def _as_list(given: str | Sequence[dict[str, Any]] | None) -> Sequence[dict[str, Any]]:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given or []


def _read(given: dict[str, Any], at: str) -> Item:
    item = convert(given, Item, at)
    if shape := _SHAPES.get(item.type):
        convert(given, shape, at)
    return item


def _store(given: dict[str, Any], at: str, new_id: Callable[[str], str]) -> StoredItem:
    item = _read(given, at)
    if item.type == "item_reference":
        message = "This simulator does not look items up for a conversation: send the item itself."
        raise ApiError(400, message, param=at)
    present = {key: value for key, value in given.items() if value is not None}
    item_id = str(present.get("id") or new_id(_PREFIXES.get(item.type, "item_")))
    wire = {"type": item.type, "status": "completed", **present, "id": item_id}
    if item.type == "message":
        kind = "output_text" if item.role == "assistant" else "input_text"
        wire["content"] = _pieces(given["content"], kind)
    elif item.type == "function_call_output" and not isinstance(given["output"], str):
        wire["output"] = _pieces(given["output"], "input_text")
    return StoredItem(item_id, item, msgspec.Raw(msgspec.json.encode(wire)))


def _pieces(content: str | Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Write content as a list of pieces. Text, and pieces that do not say what they are, are of this kind."""
    parts = [{"text": content}] if isinstance(content, str) else content
    present = [{"type": kind} | {key: value for key, value in part.items() if value is not None} for part in parts]
    return [_PART_DEFAULTS.get(part["type"], {}) | part for part in present]
