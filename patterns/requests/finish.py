"""The reason why an answer ended, in words of Chat Completions, whichever API gave it."""

from collections.abc import Mapping
from typing import Any


def is_complete(response: Any) -> bool:
    """Tell whether a response is all of it. Some servers say null for its status, and send it whole."""
    status = _get(response, "status")
    return bool(
        status == "completed" or (status is None and _get(response, "error") is None and _get(response, "output"))
    )


def finish_reason_of(response: Any) -> str:
    """Tell why a response ended: `stop`, `tool_calls`, `length`, `content_filter` …

    Args:
        response: Of the Responses API, as an object or a mapping.
    """
    if _get(response, "status") == "incomplete":
        reason = _get(_get(response, "incomplete_details"), "reason") or "length"
        return "length" if reason == "max_output_tokens" else str(reason)
    if not is_complete(response):
        return "error"
    output = _get(response, "output")
    items = output if isinstance(output, list) else ()
    return "tool_calls" if any(_get(item, "type") == "function_call" for item in items) else "stop"


def _get(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)
