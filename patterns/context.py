"""What the context of a run says: checked, since it comes from outside as it is."""

from collections.abc import Mapping
from typing import Any

from runmeter.engine import ConfigurationError, current_execution

from .text import valid_text


def instructions_of(context: Mapping[str, Any], default: str | None) -> str | None:
    """Read the instructions of a run from its context, with valid text.

    Args:
        context: Where `instructions` may be; None there stands for none at all.
        default: What holds where the context does not say.

    Raises:
        ConfigurationError: they are no string.
    """
    instructions = context.get("instructions", default)
    if instructions is None:
        return None
    if not isinstance(instructions, str):
        raise ConfigurationError(f"context['instructions'] must be a string, not a {type(instructions).__name__!r}")
    return valid_text(instructions)


def conversation_id_of(context: Mapping[str, Any]) -> str | None:
    """Read the id of the conversation that a run is part of: what the context says, or else the run itself.

    Raises:
        ConfigurationError: it is not a string, or an empty one.
    """
    told = context.get("conversation_id")
    told = current_execution().info.conversation_id if told is None else told
    return None if told is None else checked_id("conversation_id", told)


def checked_id(source: str, value: object) -> str:
    """Check that a value can be an id, and return it.

    Args:
        source: Where it comes from.
        value: A string that is not empty.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{source} must be a string that is not empty, not {value!r}")
    return value
