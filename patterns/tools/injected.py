"""Arguments that another framework fills in when it calls a function: no model can write them, and nobody else does."""

from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin, get_type_hints

from runmeter.engine import ConfigurationError

_FILLED_IN = {
    ("langchain_core", "InjectedToolCallId"): "LangChain",
    ("langchain_core", "InjectedToolArg"): "LangGraph",
    ("langchain_core", "_DirectlyInjectedToolArg"): "LangGraph",
    ("langchain_core", "RunnableConfig"): "LangChain",
    ("pydantic_ai", "RunContext"): "Pydantic AI",
    ("agents", "RunContextWrapper"): "the Agents SDK",
    ("fastmcp", "Context"): "FastMCP",
    ("mcp", "Context"): "an MCP server",
}
"""Frameworks by the classes that stand for what they fill in: the top of a class's module, and its name.

Sources: langchain-core 1.7.2 (`tools/base.py`), langgraph 1.2.22 (`prebuilt/tool_node.py`), pydantic-ai 2,
openai-agents 0.24, fastmcp 4, mcp 2.
"""


def filled_in_by(annotation: Any) -> str | None:
    """Tell which framework fills in a parameter with this annotation; None if a caller gives it."""
    for kind in kinds_in(annotation):
        for each in kind.__mro__:
            if who := _FILLED_IN.get((each.__module__.partition(".")[0], each.__name__)):
                return who
    return None


def check_return(*functions: Callable[..., Any]) -> None:
    """Check that functions do not say that they return LangGraph's commands, which only a graph obeys.

    Raises:
        ConfigurationError: one does.
    """
    for function in functions:
        returned = hints_of(function).get("return")
        kind = get_origin(returned) or returned
        if getattr(kind, "__name__", "") == "Command" and getattr(kind, "__module__", "").startswith("langgraph."):
            raise ConfigurationError("it returns a Command, which only a graph obeys: return what the model is told")


def kinds_in(annotation: Any) -> Iterator[type]:
    """List the classes in an annotation: its own, those of a union or an alias, and of what annotates it."""
    if isinstance(annotation, type):
        yield annotation
    if isinstance(origin := get_origin(annotation), type):
        yield origin
    for part in get_args(annotation):
        if isinstance(part, type) or get_origin(part) is not None:
            yield from kinds_in(part)
        else:
            yield type(part)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Read a function's annotations, and where they cannot be evaluated take them as they are."""
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # whatever the evaluation of a string may raise: LangChain reads without
        return dict(getattr(function, "__annotations__", {}))
