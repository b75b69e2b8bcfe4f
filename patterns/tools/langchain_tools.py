"""LangChain's tools: what they need that only a graph has, and how they are called."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any
from uuid import UUID, uuid4

from runmeter.engine import ConfigurationError

from ..errors import InvalidArguments
from ..functions import in_thread
from .injected import check_return, filled_in_by, hints_of

metered_tool_run: ContextVar[UUID | None] = ContextVar("runmeter_metered_tool_run", default=None)
"""LangChain's id of a tool run that is a function call already: a callback handler must not count it again."""


def hidden_arguments(tool: Any) -> frozenset[str]:
    """List the arguments of a LangChain tool that no model gives, as LangChain or a graph may fill them in.

    Raises:
        ConfigurationError: the tool needs one that only a graph has, or returns commands to one.
    """
    own = [function for name in ("func", "coroutine") if (function := getattr(tool, name, None)) is not None]
    own = own or [function for name in ("_run", "_arun") if (function := getattr(tool, name, None)) is not None]
    check_return(*own)
    hidden: set[str] = set()
    for name, annotation, required in (*_fields(getattr(tool, "args_schema", None)), *_parameters(own)):
        who = filled_in_by(annotation)
        if who is None:
            continue
        hidden.add(name)
        if required and who != "LangChain":
            raise ConfigurationError(f"only {who} fills in {name!r}: give it a default, or do without it")
    return frozenset(hidden)


def langchain_call(tool: Any) -> Callable[[Mapping[str, Any], str], Awaitable[Any]]:
    """Make a function that calls a LangChain tool with arguments by name and the model's id for the call.

    Raises:
        ConfigurationError: the tool needs a graph.
    """
    hidden = hidden_arguments(tool)
    # LangChain gives sync tools to asyncio's thread pool, which trio has not: they go to anyio's.
    if hasattr(tool, "coroutine"):
        sync = tool.coroutine is None
    else:
        sync = getattr(getattr(type(tool), "_arun", None), "__qualname__", "") == "BaseTool._arun"

    async def call(arguments: Mapping[str, Any], call_id: str) -> Any:
        if not hidden.isdisjoint(arguments):
            raise InvalidArguments(f"there is no argument {', '.join(sorted(hidden & arguments.keys()))!r}")
        request = {"type": "tool_call", "name": tool.name, "args": dict(arguments), "id": call_id}
        run_id = uuid4()
        config = {"run_id": run_id}
        token = metered_tool_run.set(run_id)
        try:
            if sync:
                return await in_thread(functools.partial(tool.invoke, request, config))
            return await tool.ainvoke(request, config)
        finally:
            metered_tool_run.reset(token)

    return call


def _fields(model: Any) -> Iterator[tuple[str, Any, bool]]:
    """List the fields of a pydantic model, with what annotates them, and whether they must be given."""
    fields = getattr(model, "model_fields", {}) if isinstance(model, type) else {}
    for name, field in fields.items():
        for extra in field.metadata:
            yield name, extra if isinstance(extra, type) else type(extra), field.is_required()
        yield name, field.annotation, field.is_required()


def _parameters(functions: Iterable[Callable[..., Any]]) -> Iterator[tuple[str, Any, bool]]:
    """List the parameters of functions, with what annotates them, and whether they must be given."""
    for function in functions:
        hints = hints_of(function)
        for name, parameter in inspect.signature(function).parameters.items():
            yield name, hints.get(name, parameter.annotation), parameter.default is parameter.empty
