"""Calling functions that users hand to a pattern."""

import inspect
from collections.abc import Callable
from typing import Any

import anyio.to_thread


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, sync or async. A sync one runs in a worker thread, so that it holds up nobody else's run.

    Raises:
        Exception: whatever it raises.
    """
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return await function(*arguments)
    result = await anyio.to_thread.run_sync(lambda: function(*arguments), abandon_on_cancel=True)
    return await result if inspect.isawaitable(result) else result
