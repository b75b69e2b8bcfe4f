"""Runtime: the parts of an engine that its runs use, and the facts that a run is made with."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import msgspec

from .budgets.budgets import Budgets
from .clock import Clock, IdSource, SystemClock, random_run_id
from .events import Event
from .tracing import Tracing


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


class RunInfo(msgspec.Struct, frozen=True):
    """The name of a run, and what it belongs to."""

    pattern: str
    framework: str = "python"
    operation: Literal["invoke_agent", "invoke_workflow"] = "invoke_agent"
    """The run's kind: one agent's, or a workflow over several agents or model calls."""
    conversation_id: str | None = None
    tags: Mapping[str, str] = {}
