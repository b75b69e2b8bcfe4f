"""Turns: one run at a time in a conversation."""

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from weakref import WeakValueDictionary

from ..errors import PatternError
from .loop_lock import LoopLock

# A lock lives as long as a run holds it or waits for it. Event loops in threads of their own look here too.
_locks: WeakValueDictionary[tuple[Hashable, str], LoopLock] = WeakValueDictionary()
_looking = Lock()


@dataclass(eq=False)
class _Turn:
    lock: LoopLock
    over: bool = False
    """A task that was started in a turn may outlive it, and still find it in its context."""


_held: ContextVar[tuple[_Turn, ...]] = ContextVar("runmeter_turns_held", default=())
"""The turns of the runs that this code is part of."""


@asynccontextmanager
async def turn(conversation: str, *, scope: Hashable) -> AsyncIterator[None]:
    """Have a conversation to oneself, within this event loop; those who wait have their turns in order.

    Other event loops and other processes do not wait.

    Args:
        conversation: Its id.
        scope: What its id is unique in: a server's address, a store.

    Raises:
        PatternError: it is part of a run of the same conversation, and would wait for itself or, in an event loop of
            its own, say things in the middle of it.
    """
    with _looking:
        lock = _locks.setdefault((scope, conversation), LoopLock())
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
