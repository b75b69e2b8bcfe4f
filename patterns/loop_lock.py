"""A lock for what may be used in several event loops, one after the other or in threads of their own."""

from types import TracebackType

import anyio
from anyio.lowlevel import RunVar


class LoopLock:
    """Lets one task at a time of each event loop in. An `anyio.Lock` would belong to the loop that took it first."""

    def __init__(self) -> None:
        self._locks: RunVar[anyio.Lock] = RunVar("runmeter_lock")

    async def __aenter__(self) -> None:
        lock = self._locks.get(None)
        if lock is None:
            lock = anyio.Lock()
            self._locks.set(lock)
        await lock.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._locks.get().release()
