"""Calling functions that users hand to a pattern."""

import inspect
from collections.abc import Callable
from typing import Any

import anyio.to_thread

from runmeter.engine import ConfigurationError


def check_function(what: str, function: object) -> None:
    """Check that something is a function.

    Raises:
        ConfigurationError: it is none; `what` says which option it is.
    """
    if isinstance(function, type) or not callable(function):
        raise ConfigurationError(f"{what} must be a function, not {function!r}")


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, sync or async. A sync one runs in a worker thread, so that it holds up nobody else's run.

    Raises:
        Exception: whatever it raises.
    """
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return await function(*arguments)
    result = await anyio.to_thread.run_sync(lambda: function(*arguments), abandon_on_cancel=True)
    return await result if inspect.isawaitable(result) else result
