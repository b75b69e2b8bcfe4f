"""Histories: what was said in conversations, turn by turn, and where that is kept."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Protocol

import msgspec

from runmeter.engine import ConfigurationError

from ...messages import Item

_INSTRUCTING = frozenset(("system", "developer"))
_CALLS = frozenset(("function_call", "custom_tool_call"))
_OUTPUTS = frozenset(("function_call_output", "custom_tool_call_output"))

SUMMARY_PREFIX = "Summary of our conversation so far:\n\n"


class Turn(msgspec.Struct, frozen=True):
    """One turn of a conversation: from a user's message to the last answer before the next one."""

    items: tuple[Item, ...]
    """Responses items. Every call among them has its output."""
    tokens: int
    """As counted here."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation's history, to be written as JSON or msgpack: `msgspec.json.encode(history)`."""

    turns: tuple[Turn, ...] = ()
    """Oldest first."""
    pinned: tuple[Item, ...] = ()
    """System and developer messages of turns that are gone."""
    summary: str | None = None
    """What is left of turns that are gone."""
    response_id: str | None = None
    """The last answer, where OpenAI keeps what was said before."""
    thread_id: str | None = None
    """The conversation of OpenAI's that stands for this one."""

    @property
    def head(self) -> tuple[Item, ...]:
        """The items before the turns: summary and instructions."""
        if self.summary is None:
            return self.pinned
        # As a user's message: what users said must not come back as an instruction.
        return (*self.pinned, {"role": "user", "content": SUMMARY_PREFIX + self.summary})

    @property
    def items(self) -> tuple[Item, ...]:
        """The items that the model is to know."""
        return (*self.head, *(item for turn in self.turns for item in turn.items))

    @property
    def unsent(self) -> tuple[Item, ...]:
        """Outputs after the last answer, which OpenAI was not told: the last turn ended at a limit."""
        last = self.turns[-1].items if self.turns else ()
        count = 0
        while count < len(last) and last[-1 - count].get("type") in _OUTPUTS:
            count += 1
        return last[len(last) - count :]


class HistoryStore(Protocol):
    """A store of histories. Each turn loads its conversation's history once, saves it if it went well, and releases it.

    Turns of one conversation come one after the other, but for those of other processes and event loops: a store that
    serves several may lock a conversation from `load` to `release`.
    """

    async def load(self, conversation_id: str) -> History | None:
        """Load the conversation's history; None if there is none."""
        ...

    async def save(self, conversation_id: str, history: History) -> None:
        """Keep a history, in place of the one before."""
        ...

    async def release(self, conversation_id: str) -> None:
        """Take note of a turn's end: once after each load that went well, also while the turn is being cancelled."""
        ...

    async def delete(self, conversation_id: str) -> None:
        """Forget a conversation's history, if there is one."""
        ...


def checked_store(store: HistoryStore) -> HistoryStore:
    """Check that a store has the methods of a `HistoryStore`.

    Raises:
        ConfigurationError: it has not.
    """
    lacking = [name for name in ("load", "save", "release", "delete") if not callable(getattr(store, name, None))]
    if lacking:
        raise ConfigurationError(f"{type(store).__name__!r} is not a history store: it has no {', '.join(lacking)}")
    return store


class InMemoryHistoryStore:
    """Keeps histories in memory. Beyond a limit it forgets those that were not used for the longest time.

    None that a turn has loaded is forgotten before it is released, so there may be more of them for a moment. Safe from
    any thread.

    Args:
        max_conversations: How many to keep.

    Raises:
        ConfigurationError: that is less than one.
    """

    def __init__(self, max_conversations: int = 1000) -> None:
        if max_conversations < 1:
            raise ConfigurationError(f"max_conversations must be at least 1, is {max_conversations}")
        self.max_conversations = max_conversations
        self._histories: OrderedDict[str, History] = OrderedDict()
        self._loaded: Counter[str] = Counter()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._histories)

    async def load(self, conversation_id: str) -> History | None:
        """Load the conversation's history; None if there is none, or it was forgotten."""
        with self._lock:
            self._loaded[conversation_id] += 1
            return self._histories.get(conversation_id)

    async def save(self, conversation_id: str, history: History) -> None:
        """Keep a history, in place of the one before."""
        with self._lock:
            self._histories[conversation_id] = history

    async def release(self, conversation_id: str) -> None:
        """Let a history be forgotten, as the last one of all."""
        with self._lock:
            self._loaded[conversation_id] -= 1
            if not self._loaded[conversation_id]:
                del self._loaded[conversation_id]
            if conversation_id in self._histories:
                self._histories.move_to_end(conversation_id)
            surplus = len(self._histories) - self.max_conversations
            if surplus > 0:
                unused = [each for each in self._histories if each not in self._loaded]
                for each in unused[:surplus]:
                    del self._histories[each]

    async def delete(self, conversation_id: str) -> None:
        """Forget a conversation's history, if it is here."""
        with self._lock:
            self._histories.pop(conversation_id, None)


def split_turns(items: Iterable[Item]) -> list[tuple[Item, ...]]:
    """Divide what was said into turns: before each user's message that follows an answer, but never so that a call is
    parted from its output."""
    turns: list[list[Item]] = []
    open_calls: set[str] = set()
    answered = True
    for item in items:
        kind = item.get("type", "message")
        is_input = kind == "message" and item.get("role") != "assistant"
        if not turns or (is_input and answered and not open_calls):
            turns.append([])
            answered = False
        answered = answered or not is_input
        if kind in _CALLS:
            open_calls.add(item["call_id"])
        elif kind in _OUTPUTS:
            open_calls.discard(item["call_id"])
        turns[-1].append(item)
    return [tuple(turn) for turn in turns]


def without_open_reasoning(items: Sequence[Item]) -> Sequence[Item]:
    """Leave out reasoning that was cut off before it came to anything: no request may end an answer in it.

    Source: the API's error "'reasoning' was provided without its required following item" (continuedev/continue#8933).
    """
    end = len(items)
    while end and items[end - 1].get("type") == "reasoning":
        end -= 1
    return items[:end]


def instructions_in(turns: Sequence[Turn], pinned: Sequence[Item]) -> tuple[Item, ...]:
    """Find the system and developer messages of turns, each once, after those that are pinned already."""
    found = list(pinned)
    for turn in turns:
        found += [item for item in turn.items if item.get("role") in _INSTRUCTING and item not in found]
    return tuple(found)
