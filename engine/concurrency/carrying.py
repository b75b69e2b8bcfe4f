"""Functions that take their run along, wherever they are called."""

import inspect
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
_LIBRARY = "current_async_library_cvar"
"""sniffio's variable, by which anyio knows which event loop it is in."""


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function that works in the run, and with the tags, of the caller of `carry`, on any thread or event loop.

        await loop.run_in_executor(None, carry(summarize), document)

    Executors call functions without the context of who submits them (`asyncio.to_thread` and anyio's threads do not):
    what is asked there would belong to no run. It may be called often, and from several threads at once.

    Args:
        function: Sync, or async. All context variables go along, those of telemetry too.
    """
    context = _captured()
    if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)):

        @wraps(function)
        def carried(*args: P.args, **named: P.kwargs) -> R:
            return context.copy().run(function, *args, **named)  # a copy: one context can be entered only once

        return carried

    @wraps(function)
    async def awaited(*args: P.args, **named: P.kwargs) -> Any:
        undo = _enter(context)
        try:
            return await cast("Any", function(*args, **named))
        finally:
            for step in undo:
                step()

    return cast("Callable[P, R]", awaited)


def _captured() -> Context:
    """Copy the context, but for what it says of the event loop it is in: it will be read in another."""
    context = copy_context()
    for variable in context:
        if variable.name == _LIBRARY:
            context.run(variable.set, None)
    return context


def _enter(context: Context) -> list[Callable[[], None]]:
    """Give the context variables that differ the values they have in a context.

    Returns:
        What undoes it, in order.
    """
    changed = [
        (variable, value)
        for variable, value in context.items()
        if variable.name != _LIBRARY and variable.get(None) is not value
    ]
    return [_undo(variable, variable.set(value)) for variable, value in changed][::-1]


def _undo(variable: Any, token: Any) -> Callable[[], None]:
    return lambda: variable.reset(token)
