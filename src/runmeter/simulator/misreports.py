"""Answers that say less than is so, or what is not so: usage, finish reason and output, misreported on command.

The shapes are those of compatible servers: running totals in each chunk (langchain-ai/langchain#30429), null counts,
`finish_reason: null` with a complete answer, a last event without output (BerriAI/litellm#32718).
"""

from collections.abc import Mapping
from typing import Any

from .faults import Fault


def told_usage(usage: Mapping[str, Any], fault: Fault | None) -> dict[str, Any]:
    """Write the usage of an answer as its field, or no field at all, as the fault has it."""
    match fault.kind if fault is not None else None:
        case "no_usage":
            return {}
        case "zero_usage":
            return {"usage": _each_count(usage, 0)}
        case "null_usage":
            return {"usage": _each_count(usage, None)}
        case _:
            return {"usage": usage}


def _each_count(usage: Mapping[str, Any], number: int | None) -> dict[str, Any]:
    return {name: _each_count(value, number) if isinstance(value, Mapping) else number for name, value in usage.items()}
