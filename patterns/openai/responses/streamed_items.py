"""Items of a streamed answer, put together from what came of each, for servers whose last event has none of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

CALLS = frozenset(("function_call", "custom_tool_call"))


@dataclass(slots=True, eq=False)
class _Part:
    """An item as far as it has come."""

    kind: str
    id: str | None
    index: int | None
    item: Any = None
    """As it began or, once it is done, as it is; none if only its deltas came."""
    is_done: bool = False
    is_written: bool = False
    """Whether a call's arguments are complete."""
    pieces: list[str] = field(default_factory=list)
    """Of a message's text, or of a call's arguments."""

    @property
    def said(self) -> str:
        return "".join(self.pieces)

    def is_of(self, item: Any, item_id: str | None) -> bool:
        """Tell whether its ids say that it is this item."""
        call_id = getattr(self.item, "call_id", None)
        return bool(item_id and self.id == item_id) or bool(call_id and getattr(item, "call_id", None) == call_id)

    def may_be(self, item: Any, item_id: str | None) -> bool:
        """Tell whether it may be this item, whose ids it does not have: some servers give each event another."""
        if not self.pieces or not (self.id and item_id):
            return True
        return self.said.strip() == (getattr(item, "arguments", None) or _text(item)).strip()

    def is_another_call(self, item: Any) -> bool:
        mine, its = getattr(self.item, "call_id", None), getattr(item, "call_id", None)
        return bool(mine and its and mine != its)


class StreamedItems:
    """Puts the items of an answer together.

    Servers number items as they like: some share an index or have none, and ids are missing or change from one event to
    the next. What an event says belongs to the item with its id, else to one with its index, in the order of arrival.
    """

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._current: _Part | None = None
        """The one that was begun or written to last."""

    def begin(self, event: Any) -> None:
        """Take an item that begins."""
        item = event.item
        self._add(_Part(item.type, getattr(item, "id", None), _index(event), item))

    def finish(self, event: Any) -> None:
        """Take an item that is done; no second time, if it is said again."""
        item, index = event.item, _index(event)
        item_id = getattr(item, "id", None)
        if any(
            part.is_done and part.index == index and part.is_of(item, item_id) and part.item == item
            for part in self._parts
        ):
            return
        found = [part for part in self._open(item.type) if not part.is_another_call(item)]
        same = [part for part in found if part.is_of(item, item_id)]
        near = same or [part for part in _near(found, index) if part.may_be(item, item_id)]
        part = next((part for part in near if part.index == index), near[0] if near else None)
        if part is None:
            part = self._add(_Part(item.type, item_id, index))
        part.item, part.is_done = item, True
        part.index = part.index if index is None else index

    def write_text(self, event: Any, text: str) -> str | None:
        """Add a piece to a message, and tell how the model marks that."""
        part = self._written("message", event)
        part.pieces.append(text)
        return getattr(part.item, "phase", None)

    def write_arguments(self, event: Any, piece: str) -> None:
        """Add a piece to a call's arguments."""
        self._written("function_call", event).pieces.append(piece)

    def end_arguments(self, event: Any) -> None:
        """Take a call's complete arguments: its item may never be called done."""
        part = self._written("function_call", event)
        part.is_written = True
        if arguments := getattr(event, "arguments", None):
            part.pieces = [arguments]

    def complete(self) -> list[dict[str, Any]]:
        """Write all that came as items; no text twice that came in pieces and in a message that is done."""
        texts = [_text(part.item) for part in self._parts if part.is_done and part.kind == "message"]
        told = {text.strip() for text in (*texts, "".join(texts))}
        parts: Sequence[_Part] = self._parts
        if all(part.index is not None for part in parts):
            parts = sorted(parts, key=lambda part: part.index or 0)
        items = []
        for part in parts:
            if part.is_done and (says_something(part.item) or not part.pieces):
                items.append(as_dict(part.item))
            elif part.kind == "message":
                if part.said.strip() not in told:
                    items.append(_message(part))
            elif part.item is not None and (part.pieces or part.is_written):
                items.append({**as_dict(part.item), "arguments": part.said})
        return items

    def _add(self, part: _Part) -> _Part:
        self._parts.append(part)
        self._current = part
        return part

    def _open(self, kind: str) -> list[_Part]:
        return [part for part in self._parts if part.kind == kind and not part.is_done]

    def _written(self, kind: str, event: Any) -> _Part:
        """Find the item that an event adds to, or begin it."""
        item_id, index = getattr(event, "item_id", None), _index(event)
        found = self._open(kind)
        same = [part for part in found if item_id and part.id == item_id]
        near = same or [part for part in _near(found, index) if not part.is_written]
        exact = [part for part in near if part.index == index] or near
        if not exact:
            return self._add(_Part(kind, item_id, index))
        if self._current not in exact or not self._current.pieces:
            self._current = next((part for part in exact if not part.pieces), exact[-1])
        return self._current


def says_something(item: Any) -> bool:
    """Tell whether an item of an answer is more than news of it."""
    match getattr(item, "type", None):
        case "message":
            return bool(_text(item))
        case "function_call":
            return bool(item.arguments)
        case kind:
            return bool(kind != "reasoning")


def as_dict(model: Any) -> dict[str, Any]:
    """Write what a server sent as a dict, as it sent it."""
    fields: dict[str, Any] = model.to_dict(mode="json", warnings=False)
    return fields


def _near(parts: Sequence[_Part], index: int | None) -> list[_Part]:
    """Those whose index is this one, or may be."""
    return [part for part in parts if index is None or part.index is None or part.index == index]


def _index(event: Any) -> int | None:
    index = getattr(event, "output_index", None)
    return index if isinstance(index, int) else None


def _text(item: Any) -> str:
    """The text of a message, or its refusal; some servers send a string in the place of parts."""
    content = getattr(item, "content", None)
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    texts = (getattr(part, "text", None) or getattr(part, "refusal", None) for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


def _message(part: _Part) -> dict[str, Any]:
    """A message whose text came, and which itself did not."""
    phase = getattr(part.item, "phase", None)
    content = {"type": "output_text", "text": part.said, "annotations": []}
    message = {"type": "message", "role": "assistant", "status": "completed", "content": [content]}
    return message if phase is None else {**message, "phase": phase}
