"""The Conversations API: conversations and their items.

Source of the parameters and limits: openai 3.54.0, `resources/conversations/` (2026-11). Conversations do not expire;
deleting one leaves its responses as they are.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from ..errors import ApiError, convert, decode
from ..model.prompt import Metadata
from ..objects.conversation import Conversation, StoredItem
from ..objects.input_items import store_items
from ..objects.pages import PageParams, write_page
from ..service import Answer, Call, Service

ITEMS_PER_CALL = 20
"""As many may be added at a time."""


class CreateConversation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /conversations."""

    items: list[dict[str, Any]] | None = None
    metadata: Metadata | None = None


class UpdateConversation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /conversations/{id}."""

    metadata: Metadata | None


class CreateItems(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /conversations/{id}/items."""

    items: list[dict[str, Any]]


def create(service: Service, call: Call) -> Answer:
    """Answer POST /conversations with a new conversation."""
    request = decode(call.body or b"{}", CreateConversation)
    conversation = Conversation(service.new_id("conv_"), int(service.clock()), request.metadata or {})
    _add(service, conversation, request.items or [])
    service.conversations.put(conversation.id, conversation)
    return msgspec.json.encode(conversation.wire())


def retrieve(service: Service, call: Call) -> Answer:
    """Answer GET /conversations/{id} with the conversation."""
    return msgspec.json.encode(find_conversation(service, call.id).wire())


def update(service: Service, call: Call) -> Answer:
    """Answer POST /conversations/{id}, and put the new metadata in the old ones' place."""
    conversation = find_conversation(service, call.id)
    conversation.metadata = decode(call.body, UpdateConversation).metadata or {}
    return msgspec.json.encode(conversation.wire())


def delete(service: Service, call: Call) -> Answer:
    """Answer DELETE /conversations/{id}, and forget the conversation."""
    conversation = find_conversation(service, call.id)
    service.conversations.delete(conversation.id)
    return msgspec.json.encode({"id": conversation.id, "object": "conversation.deleted", "deleted": True})


def create_items(service: Service, call: Call) -> Answer:
    """Answer POST /conversations/{id}/items, and append the items."""
    conversation = find_conversation(service, call.id)
    added = _add(service, conversation, decode(call.body, CreateItems).items)
    return item_page(added, msgspec.structs.replace(call, query={"order": "asc"}))


def list_items(service: Service, call: Call) -> Answer:
    """Answer GET /conversations/{id}/items with a page of items."""
    conversation = find_conversation(service, call.id)
    return item_page(conversation.items, call)


def retrieve_item(service: Service, call: Call) -> Answer:
    """Answer GET /conversations/{id}/items/{item_id} with the item."""
    return msgspec.json.encode(find_conversation(service, call.id).item(call.part_id).wire)


def delete_item(service: Service, call: Call) -> Answer:
    """Answer DELETE /conversations/{id}/items/{item_id} with the conversation."""
    conversation = find_conversation(service, call.id)
    conversation.remove(call.part_id)
    service.items.delete(call.part_id)
    return msgspec.json.encode(conversation.wire())


def find_conversation(service: Service, conversation_id: str) -> Conversation:
    """Find a conversation by its id.

    Raises:
        ApiError: 404: never made, deleted, or forgotten.
    """
    conversation = service.conversations.get(conversation_id)
    if conversation is None:
        raise ApiError(404, f"Conversation with id '{conversation_id}' not found.")
    return conversation


def _add(service: Service, conversation: Conversation, given: Sequence[dict[str, Any]]) -> Sequence[StoredItem]:
    if len(given) > ITEMS_PER_CALL:
        message = (
            f"Invalid 'items': array too long. Expected an array with maximum length {ITEMS_PER_CALL}, "
            f"but got an array with length {len(given)} instead."
        )
        raise ApiError(400, message, param="items", code="array_above_max_length")
    items = store_items(given, "items", service.new_id, service.find_item)
    conversation.check_new(items, "items")
    conversation.add(items)
    service.keep_items(items)
    return items


def item_page(items: Sequence[StoredItem], call: Call) -> bytes:
    """Write the page of items that a request asks for. `include` is ignored, as there is nothing to include.

    Raises:
        ApiError: 404: there is no item to begin after.
    """
    return write_page(
        items,
        convert(dict(call.query), PageParams, "", strict=False),
        id_of=lambda stored: stored.id,
        wire=lambda stored: stored.wire,
        missing=lambda item_id: ApiError(404, f"Item with id '{item_id}' not found in conversation."),
    )
