"""Reasoning and what came of it: in a request one does not go without the other, if both are kept.

The words: openai/openai-node#1567 (reasoning alone, 2025), cline/cline#12242 (a call alone, 2026),
continuedev/continue#12620 (a message alone, 2026). What is not kept (`store` false) is not checked, nor reasoning that
the request itself holds, as `encrypted_content`.
"""

from collections.abc import Iterator, Sequence

from ..errors import ApiError
from .conversation import StoredItem
from .store import Store


class Thoughts:
    """Which reasoning led to which items, as far as responses are kept."""

    def __init__(self, capacity: int) -> None:
        self._thought = Store[str](capacity)
        """By the id of an item, that of the reasoning before it."""

    def keep(self, output: Sequence[StoredItem]) -> None:
        """Keep what belongs together in the output of a response."""
        thought: str | None = None
        for stored in output:
            if stored.item.type == "reasoning":
                thought = stored.id
            elif thought is not None:
                self._thought.put(stored.id, thought)

    def check(self, given: Sequence[StoredItem]) -> None:
        """Check that a request's items are all there.

        Raises:
            ApiError: 400: reasoning that nothing of the model's follows, or an item without the reasoning before it.
        """
        for fault in self._faults(given):
            raise ApiError(400, fault, param="input")

    def _faults(self, given: Sequence[StoredItem]) -> Iterator[str]:
        ids = [stored.id for stored in given]
        for place, stored in enumerate(given):
            item, thought = stored.item, self._thought.get(stored.id)
            if item.type == "reasoning" and not item.encrypted_content and not _is_said(given[place + 1 : place + 2]):
                yield f"Item '{stored.id}' of type 'reasoning' was provided without its required following item."
            if thought is not None and thought not in ids[:place]:
                yield (
                    f"Item '{stored.id}' of type '{item.type}' was provided without its required 'reasoning' item: "
                    f"'{thought}'."
                )


def _is_said(following: Sequence[StoredItem]) -> bool:
    """Tell whether an item is the model's own. It need not be the very one: the Vercel AI SDK 6.0 sends calls anew."""
    return any(
        stored.item.type in {"function_call", "reasoning"} or stored.item.role == "assistant" for stored in following
    )
