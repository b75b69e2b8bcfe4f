"""The words of errors that events keep: decided once, at the engine, so that all that is made of events agrees.

Messages are free text. An exception of a user's tool or function may quote a prompt, an argument or a password.
"""

import re
from collections.abc import Callable
from typing import Literal, TypeAlias

from ..errors import ConfigurationError
from .checks import cut_message

ErrorMessages: TypeAlias = Literal["masked", "full", "off"] | Callable[[str, str], str | None]
"""Which words of errors events keep.

`masked`: those of the API, of HTTP and of Runmeter, with `***` for secrets; of all other errors, and of tools, the type
alone. `full`: everything. `off`: types alone. A function takes an error's type and message and returns what to keep, or
None.
"""
Edit: TypeAlias = Callable[[str, str, bool], str | None]
"""Takes an error's type, its message, and whether its words are known to be no user's."""

_KNOWN = frozenset(
    ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "runmeter", "anthropic", "groq", "mistralai", "cohere")
)
"""Packages whose exceptions speak of requests, and not of what a user's function was given."""
_QUOTING = frozenset(("InvalidArguments", "ToolFailed"))
"""Of these, those that say what a tool has said, or was given."""
_LONGEST = 20_000
"""Characters in which secrets are looked for."""

_SECRETS = (
    re.compile(r"(?<=://)[^\s/@]+(?=@)"),
    re.compile(r"(?<![\w/.])[^\s/@:\"']+:[^\s/@\"']+(?=@)"),
    re.compile(r"(?i)(?<=bearer )\S+|(?<=basic )[\w+/=-]{8,}"),
    re.compile(r"\beyJ[\w-]+\.[\w-]+\.?[\w-]*"),
    re.compile(r"\b(?:sk|pk|rk|gh[a-z]|github_pat|xox[a-z]|hf|glpat|AKIA|AIza)[-_]?[\w*-]{8,}"),
    re.compile(
        r"(?i)(?:(?<=key)|(?<=token)|(?<=secret)|(?<=password)|(?<=passwd)|(?<=authorization))"
        r"[\"']?\s*(?:[:=]|\bis\b)\s*[\"']?(?!\*\*\*)(?!bearer )[^\s\"',;&)}]+"
    ),
    re.compile(
        r"\b(?!(?:resp|msg|conv|run|thread|req|call|fc|rs|file|vs|asst|chatcmpl)[_-])"
        r"(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[A-Za-z0-9_-]{40,}"
    ),
)


def mask(text: str) -> str:
    """Put `***` in the place of what looks like a key, a token, a password, or `user:password@`."""
    masked = text[:_LONGEST]
    for secret in _SECRETS:
        masked = secret.sub(_stars, masked)
    return masked


def _stars(found: re.Match[str]) -> str:
    """Keep the sign between a name and its secret."""
    sign = re.match(r"[\"']?\s*(?:[:=]|is\b)\s*[\"']?", found.group())
    return (sign.group() if sign else "") + "***"


def editing(choice: ErrorMessages) -> Edit:
    """Make the function that decides on messages.

    Raises:
        ConfigurationError: there is no such choice.
    """
    if callable(choice):
        return lambda kind, message, known: _edited(choice, kind, message)  # noqa: ARG005 - it decides by itself
    edits: dict[str, Edit] = {
        "masked": lambda kind, message, known: mask(message) if known and kind not in _QUOTING else None,
        "full": lambda kind, message, known: message,  # noqa: ARG005 - everything
        "off": lambda kind, message, known: None,  # noqa: ARG005 - nothing
    }
    given: object = choice
    if not isinstance(given, str) or given not in edits:
        raise ConfigurationError(f"error_messages is masked, full, off or a function, not {choice!r:.100}")
    return edits[choice]


def _edited(choice: Callable[[str, str], str | None], kind: str, message: str) -> str | None:
    try:
        kept = choice(kind, message)
    except Exception:  # a user's function: no reason to lose the event, nor to tell what it should have hidden
        return None
    return None if kept is None else str(kept)


def full(kind: str, message: str, known: bool) -> str:  # noqa: ARG001 - everything
    """Keep every message."""
    return message


def message_of(error: BaseException, kind: str, edit: Edit, *, of_tool: bool = False) -> str | None:
    """Take the message of an exception that an event keeps.

    Args:
        error: The exception.
        kind: Its type, as the event has it.
        edit: Decides on it.
        of_tool: Whether a tool raised it.
    """
    try:
        message = str(error)
    except Exception:
        return None
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    known = not of_tool and _is_known(type(error)) and type(error).__name__ not in _QUOTING
    kept = edit(kind, message, known) if message else None
    return cut_message(kept) if kept else None


def _is_known(kind: type[BaseException]) -> bool:
    """Tell whether an exception is one of a known package: LangChain's own are those of its clients, named anew."""
    package = _package_of(kind)
    return package in _KNOWN or (
        package.startswith("langchain") and any(_package_of(base) in _KNOWN for base in kind.__mro__)
    )


def _package_of(kind: type[BaseException]) -> str:
    return kind.__module__.partition(".")[0]
