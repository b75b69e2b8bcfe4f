"""The items of a request's `input`: which keys each kind has, which it must have, and how it is kept.

Source: openai 3.54.0, `types/responses/response_input_param.py` (2026-11). The words for ids: openai/codex#33176,
CopilotKit/CopilotKit#6117; for items that are not there: can1357/oh-my-pi#41 (all 2026).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import ApiError, convert, not_simulated, unknown_parameter, unsupported_kind
from ..model.prompt import Item
from .content import InputFile, InputImage, InputPiece, InputText, SaidPiece, ThoughtSummary, ThoughtText, check_pieces
from .conversation import StoredItem

_Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]
Find: TypeAlias = Callable[[str], StoredItem | None]
"""Finds an item that is stored, by its id."""

LONGEST_ID = 64


class _InputItem(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str | None = "message"
    id: str | None = None
    status: _Status | None = None


class MessageInput(_InputItem, kw_only=True):
    """A message of the user's or the developer's."""

    role: Literal["user", "system", "developer"]
    content: str | list[InputPiece]
    phase: Literal["commentary", "final_answer"] | None = None


class AnswerInput(_InputItem, kw_only=True):
    """A message that the model said before."""

    role: Literal["assistant"]
    content: str | list[SaidPiece]
    phase: Literal["commentary", "final_answer"] | None = None


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
    output: str | list[InputText | InputImage | InputFile]
    name: Any = None
    namespace: Any = None
    caller: Any = None


class ReasoningInput(_InputItem, kw_only=True):
    """A reasoning item in the input: what the model thought."""

    summary: list[ThoughtSummary]
    content: list[ThoughtText] | None = None
    encrypted_content: str | None = None


SHAPES: Mapping[str, type[_InputItem]] = {
    "message": MessageInput,
    "function_call": FunctionCallInput,
    "function_call_output": FunctionCallOutput,
    "reasoning": ReasoningInput,
}
"""The kinds that are simulated, and answers as messages."""

OTHERS = frozenset(
    {
        *("file_search_call", "web_search_call", "code_interpreter_call", "image_generation_call", "mcp_call"),
        *("computer_call", "computer_call_output", "local_shell_call", "local_shell_call_output"),
        *("shell_call", "shell_call_output", "apply_patch_call", "apply_patch_call_output"),
        *("custom_tool_call", "custom_tool_call_output", "tool_search_call", "tool_search_output", "additional_tools"),
        *("mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "program", "program_output"),
        *("compaction", "compaction_trigger", "configuration_update"),
    }
)
"""The kinds that the API knows and that are not simulated."""

_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fc", "reasoning": "rs"}
"""Beginnings of the ids of items, by type."""
_ID = re.compile("[A-Za-z0-9_]+")

_PIECE_DEFAULTS: dict[str, dict[str, Any]] = {
    "output_text": {"annotations": [], "logprobs": []},
    "input_image": {"detail": "auto"},
}
"""Fields that a piece of content has in an answer even if the request left them out."""


def store_items(
    given: str | Sequence[dict[str, Any]] | None, at: str, new_id: Callable[[str], str], find: Find
) -> Sequence[StoredItem]:
    """Read the items `at` this parameter, and make them as they are kept: with an id, a status, and content in pieces.

    Args:
        given: The items, or the text of one message.
        at: The parameter, for messages.
        new_id: Makes an id for an item that has none.
        find: Finds an item that is only referred to.

    Raises:
        ApiError: 400: a kind of item that is unknown or not simulated, a key that an item does not have, or lacks, or a
            value that does not fit; 404: an item is referred to that is not stored.
    """
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    return [_store(item, f"{at}[{index}]", new_id, find) for index, item in enumerate(items)]


def _store(given: dict[str, Any], at: str, new_id: Callable[[str], str], find: Find) -> StoredItem:
    if _is_reference(given):
        return _referred(given, at, find)
    item = _read(given, at, find)
    present = {key: value for key, value in given.items() if value is not None}
    prefix = "fco_" if item.type == "function_call_output" else f"{_PREFIXES[item.type]}_"
    item_id = str(present.get("id") or new_id(prefix))
    wire = {"type": item.type, "status": "completed", **present, "id": item_id}
    if item.type == "message":
        wire["content"] = _pieces(given["content"], "output_text" if item.role == "assistant" else "input_text")
    elif item.type == "function_call_output" and not isinstance(given["output"], str):
        wire["output"] = _pieces(given["output"], "input_text")
    return StoredItem(item_id, item, msgspec.Raw(msgspec.json.encode(wire)))


def _read(given: dict[str, Any], at: str, find: Find) -> Item:
    kind = given.get("type") or "message"
    if kind in OTHERS:
        raise not_simulated(f"an item of type '{kind}'", f"{at}.type")
    shape = AnswerInput if kind == "message" and given.get("role") == "assistant" else SHAPES.get(kind)
    if shape is None:
        raise unsupported_kind(kind, f"{at}.type", [*SHAPES, "item_reference", *sorted(OTHERS)])
    shaped = convert(given, shape, at)
    for name in ("content", "output"):
        check_pieces(getattr(shaped, name, None), f"{at}.{name}")
    _check_id(shaped.id, f"{at}.id", _PREFIXES[kind])
    if isinstance(shaped, FunctionCallInput | FunctionCallOutput):
        _check_length(shaped.call_id, f"{at}.call_id")
    if at.startswith("input[") and isinstance(shaped, ReasoningInput) and shaped.encrypted_content is None:
        _must_be_there(shaped.id or "", find)  # what was thought is to be read again, and only the service has it
    return convert({**given, "type": kind}, Item, at)


def _is_reference(given: Mapping[str, Any]) -> bool:
    return given.get("type") == "item_reference" or (given.get("type") is None and {"id"} == given.keys() - {"type"})


def _referred(given: Mapping[str, Any], at: str, find: Find) -> StoredItem:
    for name in given.keys() - {"type", "id"}:
        raise unknown_parameter(f"{at}.{name}")
    item_id = convert(given, _InputItem, at).id
    if item_id is None:
        raise ApiError(
            400, f"Missing required parameter: '{at}.id'.", param=f"{at}.id", code="missing_required_parameter"
        )
    _check_id(item_id, f"{at}.id", "")
    return _must_be_there(item_id, find)


def _must_be_there(item_id: str, find: Find) -> StoredItem:
    if (found := find(item_id)) is None:
        message = (
            f"Item with id '{item_id}' not found. Items are not persisted when `store` is set to false. Try again with "
            "`store` set to true, or remove this item from your input."
        )
        raise ApiError(404, message, param="input")
    return found


def _check_id(item_id: str | None, at: str, prefix: str) -> None:
    if item_id is None:
        return
    if not _ID.fullmatch(item_id):
        expected = "contains letters, numbers, underscores, or dashes, but this value contained additional characters"
    elif not item_id.startswith(prefix):
        expected = f"begins with '{prefix}'"
    else:
        _check_length(item_id, at)
        return
    raise ApiError(400, f"Invalid '{at}': '{item_id}'. Expected an ID that {expected}.", param=at, code="invalid_value")


def _check_length(text: str, at: str) -> None:
    if len(text) > LONGEST_ID:
        message = (
            f"Invalid '{at}': string too long. Expected a string with maximum length {LONGEST_ID}, but got a string "
            f"with length {len(text)} instead."
        )
        raise ApiError(400, message, param=at, code="string_above_max_length")


def _pieces(content: str | Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Write content as a list of pieces, a plain text as one of this kind."""
    given = [{"type": kind, "text": content}] if isinstance(content, str) else content
    present = [{key: value for key, value in piece.items() if value is not None} for piece in given]
    return [_PIECE_DEFAULTS.get(piece["type"], {}) | piece for piece in present]
