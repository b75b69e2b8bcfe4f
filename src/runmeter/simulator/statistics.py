"""Figures of what the simulator has seen and billed: its own account, kept apart from anything a client says."""

from collections import Counter
from collections.abc import Mapping

import msgspec

from runmeter.engine import Usage


class SimulatorStatistics(msgspec.Struct, frozen=True):
    """Figures of a simulator since it was made: of all API keys, or of one. They add up."""

    requests: Mapping[str, int] = {}
    """Requests that arrived, refused ones too, by endpoint, such as `POST /responses`."""
    usage: Mapping[str, Usage] = {}
    """Tokens billed, by model. A plain answer counts in full, even if its client did not wait for it; a stream that its
    client left, or whose connection broke, counts what it had generated; what was refused or failed does not count."""
    faults: int = 0
    """Requests that were hit by a fault on command."""
    tool_calls: int = 0
    """Tool calls asked for in answers that were billed in full."""

    @property
    def total(self) -> Usage:
        """The sum of tokens billed over all models."""
        return sum(self.usage.values(), Usage())

    def __add__(self, other: "SimulatorStatistics") -> "SimulatorStatistics":
        """Add up the figures of two accounts."""
        models = dict.fromkeys((*self.usage, *other.usage))
        return SimulatorStatistics(
            dict(Counter(self.requests) + Counter(other.requests)),
            {model: self.usage.get(model, Usage()) + other.usage.get(model, Usage()) for model in models},
            self.faults + other.faults,
            self.tool_calls + other.tool_calls,
        )
