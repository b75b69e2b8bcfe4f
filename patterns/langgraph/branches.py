"""Results of branches that worked at once, and the making of one answer of them."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from runmeter.engine import ConfigurationError

from ..functions import call_function
from ..text import valid_text


class BranchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one branch, or the error it failed with."""

    name: str
    """The section's name, or `vote 1`, `vote 2` …"""
    output: str = ""
    """Its answer; of a vote with choices, the choice. Empty if it failed."""
    reason: str = ""
    """Why it voted so, where there are choices."""
    finish_reason: str = "stop"
    """Why its last answer ended."""
    error_type: str | None = None
    """The exception it failed with; None if it succeeded."""
    error_message: str | None = None


Aggregator: TypeAlias = Callable[[Sequence[BranchResult]], str | Awaitable[str]]
"""Makes one answer of the branches that succeeded, in their order. A sync one runs in a worker thread."""


def count_votes(branches: Iterable[BranchResult], choices: tuple[str, ...]) -> dict[str, int]:
    """Count the votes each choice got, in the order of the choices."""
    votes = Counter(branch.output for branch in branches if branch.error_type is None)
    return {choice: votes[choice] for choice in choices}


def most_voted(tally: Mapping[str, int]) -> tuple[str, ...]:
    """Find the choices that got the most votes."""
    most = max(tally.values(), default=0)
    return tuple(choice for choice, votes in tally.items() if votes == most)


def concatenate(branches: Iterable[BranchResult]) -> str:
    """Put answers one after the other, each under its branch's name."""
    return "\n\n".join(f"## {branch.name}\n\n{branch.output}" for branch in branches)


def finish_reason_of_all(branches: Iterable[BranchResult]) -> str:
    """Tell why an answer ended that is made of these: if one of them is not whole, neither is it."""
    return next((branch.finish_reason for branch in branches if branch.finish_reason != "stop"), "stop")


async def aggregate(aggregator: Aggregator, branches: Sequence[BranchResult]) -> str:
    """Have a function make one answer of the branches' results.

    Raises:
        ConfigurationError: it gave no string.
        Exception: whatever it raises.
    """
    content = await call_function(aggregator, branches)
    if not isinstance(content, str):
        raise ConfigurationError(f"the aggregator gave a {type(content).__name__!r}, not a string")
    return valid_text(content)
