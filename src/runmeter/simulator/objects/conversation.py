"""A conversation: its items, and the one response that may be under way in it.

Source of the shapes: openai 3.54.0, `types/conversations/` (2026-11).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import ApiError
from ..faults import conversation_locked
from ..model.prompt import Item


class StoredItem(msgspec.Struct, frozen=True):
    """An item as it is kept: as the model is given it, and as the client is."""

    id: str
    item: Item
    wire: msgspec.Raw
    """JSON."""


class Conversation:
    """A conversation and its items, oldest first."""

    def __init__(self, conversation_id: str, created_at: int, metadata: Mapping[str, str]) -> None:
        self.id = conversation_id
        self.metadata = metadata
        self._created_at = created_at
        self._items: dict[str, StoredItem] = {}
        self._turn: ConversationTurn | None = None

    @property
    def items(self) -> Sequence[StoredItem]:
        """The items of the conversation, oldest first."""
        return list(self._items.values())

    @property
    def history(self) -> Sequence[Item]:
        """The items of the conversation, as the model is given them."""
        return [stored.item for stored in self._items.values()]

    def wire(self) -> dict[str, Any]:
        """Write the Conversation object, which does not hold its items."""
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": self._created_at,
            "metadata": self.metadata,
        }

    def item(self, item_id: str) -> StoredItem:
        """Find an item by its id.

        Raises:
            ApiError: 404: it is not here, or not any more.
        """
        if (found := self._items.get(item_id)) is None:
            raise ApiError(404, f"Item with id '{item_id}' not found in conversation.")
        return found

    def check_new(self, items: Iterable[StoredItem], param: str) -> None:
        """Check that no item is here already, or given twice.

        Raises:
            ApiError: 400, in the API's words (continuedev/continue#10200, 2026-02).
        """
        seen = set(self._items)
        for stored in items:
            if stored.id in seen:
                message = (
                    f"Duplicate item found with id {stored.id}. Remove duplicate items from your input and try again."
                )
                raise ApiError(400, message, param=param)
            seen.add(stored.id)

    def add(self, items: Iterable[StoredItem]) -> None:
        """Append items to the conversation."""
        self._items.update((stored.id, stored) for stored in items)

    def remove(self, item_id: str) -> None:
        """Take one item out of the conversation.

        Raises:
            ApiError: 404: it is not here, or not any more.
        """
        del self._items[self.item(item_id).id]

    def begin(self, given: Sequence[StoredItem]) -> "ConversationTurn":
        """Begin a response to this input.

        Raises:
            ApiError: 400: another one is under way (`conversation_locked`), or an item of the input is here already.
        """
        if self._turn is not None:
            raise conversation_locked()
        self.check_new(given, "input")
        self._turn = ConversationTurn(self, given)
        return self._turn

    def end(self, turn: "ConversationTurn") -> None:
        """Let the next response begin, if this one is still under way."""
        if self._turn is turn:
            self._turn = None


class ConversationTurn:
    """A response under way in a conversation, which is locked as long."""

    def __init__(self, conversation: Conversation, given: Sequence[StoredItem]) -> None:
        self._conversation = conversation
        self._given = given

    def complete(self, output: Iterable[StoredItem]) -> None:
        """Add the request's input and the response's output to the conversation, and let go of it."""
        self._conversation.add([*self._given, *output])
        self.release()

    def release(self) -> None:
        """Let go of the conversation, if that was not done yet."""
        self._conversation.end(self)
