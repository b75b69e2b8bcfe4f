"""A lock for what may be used in several event loops, one after the other or in threads of their own."""

from types import TracebackType
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import RunVar


class LoopLock:
    """A lock that lets in one task at a time of each event loop. An `anyio.Lock` belongs to one loop."""

    async def __aenter__(self) -> None:
        await self._of_this_loop().acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._of_this_loop().release()

    def _of_this_loop(self) -> anyio.Lock:
        locks = _locks.get(None)
        if locks is None:
            locks = WeakKeyDictionary()
            _locks.set(locks)
        return locks.setdefault(self, anyio.Lock())


# Of an event loop; a lock goes with its `LoopLock`, which a variable of that one's own in a loop that stays would not.
_locks: RunVar[WeakKeyDictionary[LoopLock, anyio.Lock]] = RunVar("runmeter_locks")
