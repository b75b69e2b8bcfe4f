"""Cancelling code that is written for asyncio alone: once, with time to end what it has begun.

anyio's scopes cancel whatever awaits in them in each turn of the event loop until it has ended. asyncio's own way is
one cancellation, and frameworks are written for it: LangGraph, cancelled again while it ends its nodes, leaves them
behind.
"""

import asyncio
import logging
from collections.abc import Awaitable
from functools import cache
from typing import Any, TypeVar

import anyio

logger = logging.getLogger("runmeter")

T = TypeVar("T")

CANCEL_AGAIN = 1.0
"""Seconds that what was cancelled has to end before it is cancelled again."""
CANCELLATIONS = 5
"""How often something is cancelled in that way: then it is left behind, or cancelled in each turn of the loop."""


async def await_foreign(work: Awaitable[T]) -> T:
    """Await what is written for asyncio's one cancellation, in a task of its own that is waited for until it has ended.

    A run's own function need not: the engine cancels it in that way. This is for whoever awaits a graph, or another
    framework, within a scope or a task group of anyio's of their own:

        with anyio.move_on_after(30):
            await await_foreign(graph.ainvoke(state))

    A cancellation can get lost all the same: on Python 3.11 `asyncio.wait_for` swallows one that comes just when what
    it waits for is done, and langchain-openai waits so for each chunk of a stream. So what has not ended after
    `CANCEL_AGAIN` seconds is cancelled again, and after `CANCELLATIONS` times left behind, with a line in the log.
    On trio it awaits the work as it is.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # it is trio's
        return await work
    task = asyncio.ensure_future(work, loop=loop)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await _end(task)
        raise


async def _end(task: asyncio.Future[Any]) -> None:
    for _ in range(CANCELLATIONS):
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN)
        if task.done():
            break
        logger.debug("what was cancelled has not ended within %g s", CANCEL_AGAIN)
    else:
        logger.error(
            "left behind, as it did not end within %g s of being cancelled: %r", CANCELLATIONS * CANCEL_AGAIN, task
        )
        return
    if not task.cancelled():
        task.exception()  # looked at, lest asyncio complain: the cancellation is what counts


def patient_scope() -> type[anyio.CancelScope]:
    """Find the class of scopes for this event loop that give a task time to end before they cancel it again.

    Returns:
        A class like anyio's on asyncio; on trio, which has no foreign frameworks, anyio's own.
    """
    # That of the event loop's own library: asking anyio for one each time takes as long as using it.
    own: Any = type(anyio.CancelScope())
    scope_type: type[anyio.CancelScope] = _patient(own)
    return scope_type


@cache
def _patient(scope_type: Any) -> Any:
    if not hasattr(scope_type, "_deliver_cancellation"):
        return scope_type

    class PatientScope(scope_type):  # type: ignore[misc] # a class of anyio's, which has no public way for this
        """A scope whose host task alone is cancelled each `CANCEL_AGAIN` seconds; with others in it, as anyio does."""

        __slots__ = ("_again", "_times")

        def _deliver_cancellation(self, origin: Any) -> bool:
            loop = asyncio.get_running_loop()
            again = getattr(self, "_again", 0.0)
            if loop.time() < again:
                if origin is self:
                    self._cancel_handle = loop.call_at(again, self._deliver_cancellation, self)
                return bool(self._tasks or self._child_scopes)
            host = self._host_task
            before = host.cancelling() if host else 0
            is_alone = host is not None and _is_alone(self, host)
            retry: bool = super()._deliver_cancellation(origin)
            times = getattr(self, "_times", 0)
            if is_alone and host.cancelling() > before and times < CANCELLATIONS:
                self._times, self._again = times + 1, loop.time() + CANCEL_AGAIN
            return retry

    return PatientScope


def _is_alone(scope: Any, host: Any) -> bool:
    """Tell whether a scope's host is the only task in it, however many scopes it has entered within."""
    while not scope._tasks and len(scope._child_scopes) == 1:  # noqa: SLF001 - see `_patient`
        (scope,) = scope._child_scopes  # noqa: SLF001
    return bool(scope._tasks == {host} and not scope._child_scopes)  # noqa: SLF001
