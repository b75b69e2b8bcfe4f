"""A run seen while it runs: pieces of its answer and its events, in the order they happen."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeAlias

import anyio
import msgspec

from .concurrency.loop import LoopThread
from .errors import StreamClosed
from .events import Event
from .result import RunResult
from .runs.current import current_execution

logger = logging.getLogger("runmeter")

CLOSE_LIMIT = 5.0
"""Seconds that leaving a stream waits for its run to end."""


class Delta(msgspec.Struct, frozen=True):
    """A piece of a run's answer."""

    run_id: str
    text: str


StreamItem: TypeAlias = Delta | Event


class Channel:
    """A queue between the task that runs and the one that listens. Events always go in; deltas wait for room.

    It never refers to the listener's `RunStream`, so that one that is forgotten can be collected and end the run.
    """

    def __init__(self, buffer: int) -> None:
        self.loop = LoopThread()
        self.scope = anyio.CancelScope()
        """The run's cancel scope: cancel it and the run ends."""
        self.ended = anyio.Event()
        """Set once the run has ended, whatever way."""
        self.result: RunResult[Any] | None = None
        self.error: BaseException | None = None
        self._closed = False
        self._buffer = buffer
        self._items: deque[StreamItem] = deque()
        self._deltas = 0  # of the items
        self._changed = anyio.Event()

    def put(self, event: Event) -> None:
        """Add an event to the queue. From any thread."""
        self._items.append(event)
        self.loop.run(self._wake)

    async def put_delta(self, run_id: str, text: str) -> None:
        """Add a delta to the queue, once there is room.

        Raises:
            StreamClosed: the listener has gone, so that no room will come.
        """
        while not self._closed and self._deltas >= self._buffer and not self.ended.is_set():
            await self._changed.wait()
        if self._closed or self.ended.is_set():
            raise StreamClosed
        self._deltas += 1
        self._items.append(Delta(run_id, text))
        self._wake()

    async def get(self) -> StreamItem:
        """Take the next item from the queue.

        Raises:
            StopAsyncIteration: the run has ended and everything was taken.
            Exception: what the run raised, once everything was taken.
        """
        while not self._items:
            if self.ended.is_set():
                raise self.error or StopAsyncIteration
            await self._changed.wait()
        item = self._items.popleft()
        if isinstance(item, Delta):
            self._deltas -= 1
            self._wake()
        return item

    def close(self) -> None:
        """Take no more deltas. A run that goes on, whatever cancels it, ends at its next one."""
        self._closed = True
        self._wake()

    def leave(self) -> None:
        """End the run, because its listener has gone."""
        if not self.ended.is_set():
            logger.debug("a stream is left before its end: its run is cancelled")
        self.scope.cancel()
        self.close()

    def end(self, result: RunResult[Any] | None, error: BaseException | None) -> None:
        """Keep the run's result or error, and wake the listener."""
        self.result = result
        self.error = error
        self.ended.set()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class RunStream:
    """An async iterator over a run's deltas and events; made by `Engine.stream`.

    The run starts with the first item asked for (or on entering it as a context manager), in a task of its own, so
    that no context of the run is ever left in the listener's task. Leaving early ends the run: by `async with`, by
    `aclose`, or by forgetting the iterator. An exception of the run is raised after its last item.
    """

    def __init__(self, start: Callable[[Channel], Awaitable[None]], buffer: int) -> None:
        self._start = start
        self._buffer = buffer
        self._channel: Channel | None = None

    @property
    def result(self) -> RunResult[Any]:
        """The result that the run returned.

        Raises:
            RuntimeError: the run has not ended well, or not yet.
        """
        if self._channel is None or self._channel.result is None:
            raise RuntimeError("the run has no result: iterate to the end first")
        return self._channel.result

    async def _started(self) -> Channel:
        if self._channel is None:
            self._channel = Channel(self._buffer)
            try:
                await self._start(self._channel)
            except BaseException:
                self._channel.end(None, None)
                raise
        return self._channel

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamItem:
        return await (await self._started()).get()

    async def __aenter__(self) -> Self:
        await self._started()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the run if it has not ended, and wait until it has. From any task of the engine's event loop.

        It waits for at most `CLOSE_LIMIT` seconds. A run that takes longer to clean up, or that swallows its
        cancellation, is left to itself: it goes on being cancelled, and the engine deals with it when it closes.
        """
        channel = self._channel
        if channel is None:
            return
        channel.leave()
        if current_execution().runtime.delta == channel.put_delta:
            return  # the run itself asks: it would wait for its own end
        with anyio.move_on_after(CLOSE_LIMIT, shield=True):
            await channel.ended.wait()
        if not channel.ended.is_set():
            logger.warning("a stream was left, and its run has not ended within %g s of being cancelled", CLOSE_LIMIT)

    def __del__(self) -> None:
        channel = getattr(self, "_channel", None)
        if channel is not None and not channel.ended.is_set():
            # Not at once: the collector may run anywhere, in the middle of the event loop's own work too.
            with suppress(RuntimeError):
                channel.loop.run_soon(channel.leave)
