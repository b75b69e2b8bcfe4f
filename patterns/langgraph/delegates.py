"""Delegates: patterns and functions that do a step's work in place of the pattern's own model, as child runs."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from langchain_core.messages import AIMessage, BaseMessage

from runmeter.engine import ConfigurationError, Execution, Runtime, current_execution, run_child

from ..base import PatternResult
from ..delivery import Delivery
from ..functions import call_function
from ..text import valid_text

DelegateLike: TypeAlias = Any
"""A pattern, or a function of messages and context, sync or async. It returns text, a `PatternResult`, or anything."""


def as_delegate(what: str, delegate: DelegateLike) -> Any:
    """Make a runnable for `run_child` of a pattern or a function. A sync function will run in a worker thread.

    Args:
        what: Which option it is, for the message.
        delegate: A pattern or a function.

    Raises:
        ConfigurationError: it is neither, or yields in place of returning.
    """
    if isinstance(delegate, type) or not callable(getattr(delegate, "execute", delegate)):
        raise ConfigurationError(f"{what} must be a pattern or a function of messages and context, not {delegate!r}")
    if hasattr(delegate, "execute"):
        return delegate
    if inspect.isasyncgenfunction(delegate) or inspect.isgeneratorfunction(delegate):
        raise ConfigurationError(f"{what} must return its answer: pieces of it go to `current_execution().delta`")

    @functools.wraps(delegate)
    async def work(messages: Any, context: Any) -> Any:
        return await call_function(delegate, messages, context)

    work.__qualname__ = getattr(delegate, "__qualname__", type(delegate).__qualname__)
    return work


async def delegate_to(
    delegate: Any, messages: Sequence[BaseMessage], context: Mapping[str, Any], *, conversation_id: str | None = None
) -> Any:
    """Have a delegate do a step on the way, as a child run whose deltas are not handed out.

    Returns:
        What it returns.

    Raises:
        Exception: whatever it raises.
    """
    silent = msgspec.structs.replace(current_execution().runtime, delta=None)
    return await run_child(delegate, list(messages), context, conversation_id=conversation_id, runtime=silent)


async def answer_with(
    delegate: Any,
    messages: Sequence[BaseMessage],
    context: Mapping[str, Any],
    delivery: Delivery,
    *,
    conversation_id: str | None = None,
) -> Any:
    """Have a delegate give the run's answer, as a child run whose deltas become this run's.

    What a delegate that has no deltas answers is handed out in one piece.

    Returns:
        What it returns.

    Raises:
        Exception: whatever it raises.
    """
    answer = _Forwarded(delivery, current_execution())
    runtime = answer.runtime if delivery.wanted else None
    value = await run_child(delegate, list(messages), context, conversation_id=conversation_id, runtime=runtime)
    text = as_result(value).content
    if text and not answer.begun:
        await delivery.delta(text)
    return value


def as_result(value: Any) -> PatternResult:
    """Make a pattern's result of what a delegate returned."""
    if isinstance(value, PatternResult):
        return value
    text = "" if value is None else valid_text(str(value))
    return PatternResult(content=text, messages=(AIMessage(text),))


class _Forwarded:
    """Forwards the deltas of a child run, as those of the run it is part of."""

    def __init__(self, delivery: Delivery, execution: Execution) -> None:
        self._delivery = delivery
        self._execution = execution
        self.begun = False
        """Whether there were any."""

    @property
    def runtime(self) -> Runtime:
        return msgspec.structs.replace(self._execution.runtime, delta=self._forward)

    async def _forward(self, _: str, text: str) -> None:
        self.begun = True
        text = valid_text(text)
        await self._delivery.tell({"type": "delta", "run_id": self._execution.run_id, "text": text})
        await self._execution.delta(text)
