"""For our own peers: an engine that stays open from one measurement to the next.

A measurement is a task of its own, and an engine must be left in the task that entered it, so a task holds it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from worker import Work

PAUSE = 0.012
"""Seconds between two looks at whether subscribers have caught up: looking costs something, and they wait for 10 ms."""


class Host:
    """Holds an engine, which is entered on first use and left by `close`.

    Args:
        make: Makes what is entered, in the running event loop.
        flush: Called at the end of a measurement, once subscribers have all events, with the number of runs.
    """

    def __init__(
        self,
        make: Callable[[], AbstractAsyncContextManager[Any]],
        flush: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._make = make
        self._flush = flush
        self._task: asyncio.Task[None] | None = None
        self._entered: asyncio.Future[Any]
        self._leave: asyncio.Event

    async def engine(self) -> Any:
        """The engine, running."""
        if self._task is None:
            self._entered = asyncio.get_running_loop().create_future()
            self._leave = asyncio.Event()
            self._task = asyncio.create_task(self._hold())
            await asyncio.wait([self._task, self._entered], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()  # raises what went wrong
        return await self._entered

    async def close(self) -> None:
        """Leave it."""
        if self._task is not None:
            self._leave.set()
            await self._task

    def in_a_row(self, run: Callable[[Any], Awaitable[object]]) -> Work:
        """One run after the other."""

        async def work(times: int) -> None:
            engine = await self.engine()
            for _ in range(times):
                await run(engine)
            await self._settle(engine, times)

        return work

    def at_once(self, run: Callable[[Any], Awaitable[object]], number: int) -> Work:
        """So many runs at once, again and again."""

        async def work(times: int) -> None:
            engine = await self.engine()
            for _ in range(0, times, number):
                await asyncio.gather(*[run(engine) for _ in range(number)])
            await self._settle(engine, times)

        return work

    async def _settle(self, engine: Any, times: int) -> None:
        await settle(engine)
        if self._flush is not None:
            await self._flush(times)

    async def _hold(self) -> None:
        async with self._make() as engine:
            self._entered.set_result(engine)
            await self._leave.wait()


async def settle(engine: Any) -> None:
    """Wait until all subscribers have all events: what they do with those of a run is part of what it costs."""
    while any(subscriber.pending for subscriber in engine.statistics().bus.subscribers):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(PAUSE)
