"""Turns: one run at a time in a conversation."""

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakValueDictionary

import anyio
from anyio.lowlevel import RunVar

from .errors import PatternError

_Locks: TypeAlias = WeakValueDictionary[tuple[Hashable, str], anyio.Lock]

# A lock belongs to an event loop, so each loop has its own; and lives as long as a run holds it or waits for it.
_locks: RunVar[_Locks] = RunVar("runmeter_turns")


@dataclass(eq=False)
class _Turn:
    lock: anyio.Lock
    over: bool = False
    """A task that was started in a turn may outlive it, and still find it in its context."""


_held: ContextVar[tuple[_Turn, ...]] = ContextVar("runmeter_turns_held", default=())
"""Those of the runs that this code is part of."""


@asynccontextmanager
async def turn(conversation: str, *, scope: Hashable) -> AsyncIterator[None]:
    """Have a conversation to oneself, within this event loop; those who wait have their turns in order.

    Other event loops and other processes do not wait.

    Args:
        conversation: Its id.
        scope: What its id is unique in: a server's address, a store.

    Raises:
        PatternError: it is part of a run of the same conversation, and would wait for itself.
    """
    locks = _locks.get(None)
    if locks is None:
        locks = WeakValueDictionary()
        _locks.set(locks)
    lock = locks.setdefault((scope, conversation), anyio.Lock())
    outer = _held.get()
    if any(each.lock is lock and not each.over for each in outer):
        raise PatternError(f"a run of conversation {conversation!r} cannot be part of another run of it")
    async with lock:
        mine = _Turn(lock)
        token = _held.set((*outer, mine))
        try:
            yield
        finally:
            mine.over = True
            _held.reset(token)


def turns_known() -> int:
    """How many conversations of this event loop have a run under way or waiting."""
    locks = _locks.get(None)
    return 0 if locks is None else len(locks)
