"""Runtime: the parts of an engine that its runs use, and the facts that a run is made with."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import msgspec
from msgspec import convert
from msgspec.structs import force_setattr

from .budgets.budgets import Budgets
from .clock import Clock, IdSource, SystemClock, random_run_id
from .errors import ConfigurationError
from .events import Event
from .ledger.recording import Recording
from .tracing import Tracing
from .validation.checks import Id, Name, check_id, check_tags, encode, name_of
from .validation.error_messages import Edit, full

MAX_NOTICED = 1_000
"""Notices that an engine gives once: models may have any number of names."""


class Runtime(msgspec.Struct, frozen=True):
    """The parts of an engine that its runs use."""

    owner: object
    """The engine that made it: a run within a run of the same owner is its child."""
    publish: Callable[[Event], None]
    clock: Clock = SystemClock()
    new_run_id: IdSource = random_run_id
    tracing: Tracing | None = None
    delta: Callable[[str, str], Awaitable[None]] | None = None
    """A function that takes a run id and a piece of its answer; None where the run is not streamed."""
    budgets: Budgets | None = None
    assumed_tier: str | None = None
    """The service tier of requests that name none, where the answer does not say either."""
    edit: Edit = full
    """Decides which messages of errors events keep."""
    recording: Recording | None = None
    """The recording of its events in a ledger."""
    noticed: set[tuple[str, str]] = msgspec.field(default_factory=set)
    """Kinds and subjects of the notices that are given once, `MAX_NOTICED` of them at most."""


class RunInfo(msgspec.Struct, frozen=True):
    """The name of a run, and what it belongs to. Texts are cleaned and cut as `engine/validation/checks.py` says.

    Raises:
        ConfigurationError: a tag or the conversation's id is not a string, or there is no such operation.
    """

    pattern: str
    framework: str = "python"
    operation: Literal["invoke_agent", "invoke_workflow"] = "invoke_agent"
    """Kind of the run: one agent's, or a workflow over several agents or model calls."""
    conversation_id: str | None = None
    tags: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        try:
            encode(convert(self, _SoundInfo, from_attributes=True))
        except Exception:
            self._tidy()

    def _tidy(self) -> None:
        """Clean, cut or refuse the values that are not sound."""
        if self.operation not in ("invoke_agent", "invoke_workflow"):
            raise ConfigurationError(f"operation is invoke_agent or invoke_workflow, not {self.operation!r:.100}")
        force_setattr(self, "pattern", name_of(self.pattern))
        force_setattr(self, "framework", name_of(self.framework))
        force_setattr(self, "conversation_id", check_id("conversation_id", self.conversation_id))
        force_setattr(self, "tags", check_tags(self.tags))


class _SoundInfo(msgspec.Struct, gc=False):
    pattern: Name
    framework: Name
    operation: Literal["invoke_agent", "invoke_workflow"]
    conversation_id: Id | None
    tags: Mapping[Name, Name]
