"""Cancelling what was written for asyncio alone."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def cancelled_once(work: Coroutine[Any, Any, T]) -> T:
    """Await something in a task of its own, which is cancelled once, and waited for, if the caller is cancelled.

    anyio's scopes cancel whatever awaits again and again until it has ended. LangGraph is written for asyncio's one
    cancellation: the next one would stop it from ending its own tasks.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at, lest asyncio complain: the cancellation is what counts
        raise
