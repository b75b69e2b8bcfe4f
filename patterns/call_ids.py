"""Ids of function calls: each once in a history, and no longer than the API takes.

Servers are known that give two calls of one answer the same id, begin anew in each answer, or give none; the API knows
an output by its call's id alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from runmeter.engine import ConfigurationError

from .text import valid_text

MAX_LENGTH = 64
"""Characters of a call's id (OpenAPI description of the OpenAI API 2.3.0, `FunctionCallOutputItemParam`, 2026-08)."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A call that has no output yet."""

    given: str
    """The id that it came with."""
    name: str
    call_id: str
    """The id that it has now."""
    is_custom: bool


class CallIds:
    """The ids of the calls in a history, as it is read from its beginning.

    Args:
        taken: Ids that calls before it have.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._open: list[Unanswered] = []

    def call(self, given: object, name: str, *, is_custom: bool = False) -> str:
        """Give a call an id of its own: the one it came with, if no other has it.

        Args:
            given: The id it came with, if any.
            name: The function's.
            is_custom: Whether it is a call of a custom tool.
        """
        said = given if isinstance(given, str) else ""
        call_id = valid_text(said)
        if not said or call_id in self._taken or len(said) > MAX_LENGTH:
            stem = call_id[: MAX_LENGTH - 8] or "call"
            call_id = next(
                each for number in count(2 if said else 1) if (each := f"{stem}_{number}") not in self._taken
            )
        self._taken.add(call_id)
        self._open.append(Unanswered(said, name, call_id, is_custom))
        return call_id

    def output(self, given: object, name: str | None = None) -> Unanswered:
        """Find the call that an output belongs to: the first open one of that id, or without an id of that name.

        An id of no call may be that of one that a server keeps.

        Raises:
            ConfigurationError: it has no id, and no open call has its name.
        """
        for index, call in enumerate(self._open):
            if call.given == given if given else call.name == name:
                return self._open.pop(index)
        if isinstance(given, str) and given:
            return Unanswered(given, name or "", valid_text(given), is_custom=False)
        raise ConfigurationError("a tool's message needs a tool_call_id: the id of the call it answers")
