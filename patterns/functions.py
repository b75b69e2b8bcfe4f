"""Functions that users hand to a pattern: called on the event loop if they are async, else in a worker thread."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from runmeter.engine import ConfigurationError

MAX_THREADS = 40
"""Sync functions at work at once in an event loop, those not counted that no run waits for any longer."""
_threads: RunVar[anyio.CapacityLimiter] = RunVar("runmeter_function_threads")
T = TypeVar("T")


def check_function(what: str, function: object) -> None:
    """Check that an option's value is a function.

    Raises:
        ConfigurationError: it is not; `what` says which option it is.
    """
    if isinstance(function, type) or not callable(function):
        raise ConfigurationError(f"{what} must be a function, not {function!r}")


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling a function, or an object like one, makes a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


async def call_function(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
    """Call a function, sync or async. A sync one runs in a worker thread, with the caller's context variables.

    Raises:
        Exception: whatever it raises.
    """
    if is_async(function):
        return await function(*arguments, **named)
    # In a tuple: what the thread returns may be awaitable, and trio would take that for a mistake.
    (result,) = await in_thread(lambda: (function(*arguments, **named),))
    return await result if inspect.isawaitable(result) else result


async def in_thread(work: Callable[[], T]) -> T:
    """Do some work in a worker thread. A run that is cancelled waits no longer; the thread goes on.

    These threads are counted by themselves, so that functions that hang keep nothing else from working.
    """
    limiter = _threads.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(MAX_THREADS)
        _threads.set(limiter)
    async with limiter:
        # The second one is for trio, which holds a place until the thread itself ends.
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
