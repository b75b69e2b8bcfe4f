"""Cancelling what was written for asyncio alone."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

logger = logging.getLogger("runmeter")

T = TypeVar("T")

CANCEL_AGAIN = 1.0
"""Seconds that what was cancelled has to end before it is cancelled again."""
CANCELLATIONS = 5
"""How often something is cancelled before it is left behind."""


async def cancelled_once(work: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine in a task of its own, which is cancelled once, and waited for, if the caller is cancelled.

    anyio's scopes cancel whatever awaits again and again until it has ended. LangGraph is written for asyncio's one
    cancellation: the next one would stop it from ending its own tasks.

    A cancellation can get lost all the same: on Python 3.11 `asyncio.wait_for` swallows one that comes just when what
    it waits for is done, and langchain-openai waits so for each chunk of a stream. So what has not ended after
    `CANCEL_AGAIN` seconds is cancelled again, and after `CANCELLATIONS` times left behind, with a line in the log.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await _end(task)
        raise


async def _end(task: asyncio.Task[Any]) -> None:
    for _ in range(CANCELLATIONS):
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN)
        if task.done():
            break
        logger.debug("a graph has not ended within %g s of being cancelled", CANCEL_AGAIN)
    else:
        logger.error(
            "left behind, as it did not end within %g s of being cancelled: %r", CANCELLATIONS * CANCEL_AGAIN, task
        )
        return
    if not task.cancelled():
        task.exception()  # looked at, lest asyncio complain: the cancellation is what counts
