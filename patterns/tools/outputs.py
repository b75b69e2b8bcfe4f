"""Outputs of tools: what the model is told of what a tool returned, and whether that says that the tool failed."""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set, ValuesView
from inspect import isclass, ismodule, isroutine
from typing import Any

import msgspec

from runmeter.engine import ConfigurationError

from ..errors import ToolFailed
from ..text import valid_text

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]{4,}>")
"""The end of what Python says of an object whose class says nothing of it."""


def told(value: Any) -> str:
    """Write what the model is told of a tool's return value.

    An MCP result is told as its text, a LangChain tool message as its content.

    Raises:
        ToolFailed: the value says that the tool failed, as an MCP result does by `isError`; the message is its text.
        ConfigurationError: it is a LangGraph command, which only a graph obeys, or an iterator.
    """
    if _is_langgraph_command(value) or (isinstance(value, list | tuple) and any(map(_is_langgraph_command, value))):
        raise ConfigurationError(
            "a tool returned a Command: only a graph obeys it; return what the model is to be told"
        )
    if _is_tool_message(value):
        if value.status == "error":
            raise ToolFailed(render(value.content))
        return render(value.content)
    failed = _flag_of(value)
    if failed is None:
        return render(value)
    content = _content_of(value)
    if failed:
        said = _field(value, "content") if content is None else content
        raise ToolFailed(render(said or value))
    return render(value if content is None else content)


def render(value: Any) -> str:
    """Write a value for the model: a string as it is, anything else as JSON.

    Raises:
        ConfigurationError: it is an iterator, whose items are not there yet, or has no form that a model could read.
    """
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, deque | range):
        value = list(value)
    if isinstance(value, Iterator) or hasattr(value, "__aiter__"):
        raise ConfigurationError(f"a tool returned a {type(value).__name__}, not what it yields: return a list of that")
    try:
        return msgspec.json.encode(value, enc_hook=_to_plain).decode()
    except RecursionError:
        raise ConfigurationError("a tool returned what nests too deeply, or contains itself") from None
    except ConfigurationError:
        raise
    except (TypeError, ValueError, OverflowError):  # as keys that are no texts, broken text, and numbers of any size
        return valid_text(_rendered_otherwise(value))


def _flag_of(value: Any) -> bool | None:
    """Tell whether a tool failed by what it returned; None if that does not say."""
    # `isError` in the protocol (modelcontextprotocol.io/specification, 2025-11-25, server/tools), `is_error` in mcp
    # 2.3.0 and in Anthropic's tool results.
    for name in ("isError", "is_error"):
        flag = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        if isinstance(flag, bool):
            return flag
    return None


def _content_of(value: Any) -> Any:
    """Read the content of an MCP result: its text, or what it has in place of that; None if it has neither."""
    content = _field(value, "content")
    if not isinstance(content, list | tuple):
        return None
    if not content:
        structured = _field(value, "structuredContent")
        return _field(value, "structured_content") if structured is None else structured
    texts = [_field(block, "text") for block in content if _field(block, "type") == "text"]
    return "\n".join(map(str, texts)) if len(texts) == len(content) else content


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _is_tool_message(value: Any) -> bool:
    return getattr(value, "type", None) == "tool" and hasattr(value, "tool_call_id") and hasattr(value, "status")


def _is_langgraph_command(value: Any) -> bool:
    return any(each.__name__ == "Command" and each.__module__.startswith("langgraph.") for each in type(value).__mro__)


def _to_plain(value: Any) -> Any:
    """Convert what msgspec does not write itself: pydantic models, views and arrays, and the rest as its own text."""
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set | Sequence | ValuesView | deque | range):
        return list(value)
    if type(value).__module__ == "numpy":
        return value.tolist()
    return _as_text(value)


def _rendered_otherwise(value: Any) -> str:
    """Write a value by Python's own writer, which takes more; what has keys of other kinds as its own text."""
    try:
        return json.dumps(value, default=_to_plain, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError):
        return _as_text(value)


def _as_text(value: Any) -> str:
    """Write a value as its class does.

    Raises:
        ConfigurationError: that names where it is in memory, and says nothing of it.
    """
    text = str(value)
    if isclass(value) or isroutine(value) or ismodule(value) or _ADDRESS.search(text):
        raise ConfigurationError(
            f"a tool returned a {type(value).__name__}, or something with one in it, which has no form in JSON: return "
            "a text, numbers, lists, dicts, a dataclass or a pydantic model"
        )
    return text
