"""Totals: the usage and cost of a run with all the runs within it, each request once."""

import msgspec

from ..events import TokenUsage, Usage
from ..prices.cost_estimate import CostEstimate

_NOTHING = Usage()
_FREE = CostEstimate()


class Totals(msgspec.Struct, frozen=True, gc=False):
    """The sums over requests to models and calls of tools. Two of them add up."""

    requests: int = 0
    """Requests that have ended, well or not."""
    unknown_requests: int = 0
    """Requests among them that never said what they used, or what they read: `usage` is a lower bound then."""
    usage: Usage = _NOTHING
    """Tokens and searches, as far as they are known."""
    cost: CostEstimate = _FREE
    """Cost in USD. What is not known widens the interval."""
    function_calls: int = 0

    def with_request(self, event: TokenUsage, cost: CostEstimate) -> "Totals":
        """Add a request that has ended, and its cost."""
        return Totals(
            self.requests + 1,
            self.unknown_requests + (not event.is_input_known),
            self.usage if event.usage is None else self.usage + event.usage,
            self.cost + cost,
            self.function_calls,
        )

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.requests + other.requests,
            self.unknown_requests + other.unknown_requests,
            self.usage + other.usage,
            self.cost + other.cost,
            self.function_calls + other.function_calls,
        )
