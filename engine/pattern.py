"""The patterns that an engine runs: anything with an async `execute`, or an async function."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import CoroutineType
from typing import Any, Protocol, TypeAlias

from .concurrency.loop import is_own_failure
from .errors import ConfigurationError, StrayCancellation
from .runs.current import current_execution
from .runtime import RunInfo, Runtime
from .validation.checks import check_tags

Messages: TypeAlias = Any
"""The input of a pattern: a string, OpenAI dicts, LangChain messages, whatever it takes."""
Context: TypeAlias = Mapping[str, Any] | None
PatternFunction: TypeAlias = Callable[[Messages, Context], Awaitable[Any]]
Work: TypeAlias = Callable[[], Awaitable[Any]]


class Pattern(Protocol):
    """A pattern that an engine runs. Its `name`, `framework` and `operation` are used where it has them."""

    async def execute(self, messages: Messages, context: Context = None) -> Any:
        """Do the pattern's work. `current_execution()` is the handle of the run."""
        ...


def describe(
    pattern: Pattern | PatternFunction, tags: Mapping[str, str] | None, conversation_id: str | None
) -> tuple[RunInfo, PatternFunction]:
    """Describe a run of a pattern, and find the function that does its work.

    Raises:
        ConfigurationError: it is not a pattern, or a tag or the conversation's id is not a string.
    """
    execute = getattr(pattern, "execute", pattern)
    if not callable(execute) or isinstance(pattern, type):
        raise ConfigurationError(
            f"cannot run {pattern!r}: give an object with `async execute(messages, context)`, or an async function"
        )
    name = getattr(pattern, "name", None) or getattr(pattern, "__qualname__", None) or type(pattern).__name__
    return (
        RunInfo(
            str(name),
            str(getattr(pattern, "framework", None) or "python"),
            getattr(pattern, "operation", None) or "invoke_agent",
            conversation_id,
            {} if tags is None else check_tags(tags),
        ),
        execute,
    )


async def do_work(pattern: str, work: Work) -> Any:
    """Have the pattern do its work.

    Raises:
        ConfigurationError: it is not async.
        StrayCancellation: it let a cancellation from elsewhere through, which would pass for its own.
    """
    awaitable = work()
    if type(awaitable) is not CoroutineType:
        _check_awaitable(pattern, awaitable)
    try:
        return await awaitable
    except asyncio.CancelledError as error:
        if is_own_failure(error):
            raise StrayCancellation(pattern) from error
        raise
    except StopAsyncIteration as error:  # out of a stream it would pass for its end
        raise RuntimeError(f"pattern {pattern!r} raised StopAsyncIteration") from error


def _check_awaitable(pattern: str, given: object) -> None:
    if hasattr(given, "__aiter__"):
        raise ConfigurationError(
            f"pattern {pattern!r} is an async generator: return the answer, and give pieces of it "
            "to `current_execution().delta`"
        )
    if not hasattr(given, "__await__"):
        raise ConfigurationError(f"pattern {pattern!r} is not async: define it with `async def`")


async def run_child(
    pattern: Pattern | PatternFunction,
    messages: Messages,
    context: Context = None,
    *,
    conversation_id: str | None = None,
    runtime: Runtime | None = None,
) -> Any:
    """Run a pattern as part of the current run: a child, with events, statistics and a span of its own.

    Args:
        pattern: An object with `async execute(messages, context)`, or an async function.
        messages: Whatever it takes.
        context: What it is told beyond its messages.
        conversation_id: The conversation the child belongs to.
        runtime: Where its events and deltas go, if not where this run's go.

    Returns:
        What it returns.

    Raises:
        ConfigurationError: it is not a pattern.
        Exception: whatever it raises.
    """
    info, execute = describe(pattern, None, conversation_id)
    with current_execution().child(info, runtime):
        return await do_work(info.pattern, lambda: execute(messages, context))
