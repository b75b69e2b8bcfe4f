"""Tasks in the background that end within a limit: what will not end is left behind, named, and not waited for.

A task group waits for its tasks without end, so one that swallows its cancellation would keep its owner from closing
for ever. Here the group lives in a task of its own, beside its owner's: the owner waits for it as long as it wants to.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVarTuple

import anyio
from anyio.abc import TaskGroup

from .loop import interrupt_program, spawn, without_cancellations

logger = logging.getLogger("runmeter")

Args = TypeVarTuple("Args")


class Background:
    """A task group that its owner can leave behind.

    Args:
        name: The name of the task that holds it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: TaskGroup
        self._names: list[str] = []
        self._started: anyio.Event
        self._ended: anyio.Event
        self._error: BaseException | None = None
        self._holder: object = None  # asyncio itself keeps no reference to a task

    async def start(self) -> None:
        """Start the task group, which then takes tasks."""
        self._started, self._ended = anyio.Event(), anyio.Event()
        self._holder = spawn(self._hold, self._name)
        with anyio.CancelScope(shield=True):  # it takes one turn of the loop, and half a start cannot be undone
            await self._started.wait()

    def start_soon(self, function: Callable[[*Args], Awaitable[object]], *args: *Args, name: str) -> None:
        """Start a background task, in a copy of the caller's context."""
        self._tasks.start_soon(self._run, name, function, *args, name=name)

    async def close(self, limit: float) -> None:
        """Cancel the tasks, again and again until they have ended, for at most `limit` seconds.

        Raises:
            BaseException: what ended a task that should have gone on.
        """
        self._tasks.cancel_scope.cancel()
        with anyio.move_on_after(limit, shield=True):
            await self._ended.wait()
        if not self._ended.is_set():
            logger.error(
                "left behind, because they did not end within %g s of being cancelled: %s",
                limit,
                ", ".join(self._names),
            )
        if self._error is not None:
            raise self._error

    async def _hold(self) -> None:
        try:
            async with anyio.create_task_group() as self._tasks:
                self._started.set()
                await anyio.sleep_forever()
        except BaseException as error:
            failure = without_cancellations(error)
            if failure is None:
                raise
            self._fail(failure)
        finally:
            self._ended.set()

    async def _run(self, name: str, function: Callable[[*Args], Awaitable[object]], *args: *Args) -> None:
        with self._named(name):
            await function(*args)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        self._names.append(name)
        try:
            yield
        finally:
            self._names.remove(name)

    def _fail(self, error: BaseException) -> None:
        self._error = error
        if isinstance(error, KeyboardInterrupt):
            interrupt_program()
        else:
            logger.error("%s has failed", self._name, exc_info=error)
