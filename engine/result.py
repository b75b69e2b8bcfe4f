"""The result of a run: its pattern's value, and the run's duration, requests and costs."""

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec

from .events import TokenUsage, Usage
from .prices.cost_estimate import CostEstimate
from .prices.price_book import PriceBook
from .usage.totals import Totals

Value = TypeVar("Value")


class RunResult(msgspec.Struct, Generic[Value], frozen=True):
    """The result of a run that ended well."""

    run_id: str
    value: Value
    """The value that the pattern returned."""
    duration_ns: int
    """Wall time from the run's start to its end, in nanoseconds."""
    requests: tuple[TokenUsage, ...]
    """The ends of the run's own requests to a model, failed ones and retries included."""
    child_requests: tuple[TokenUsage, ...]
    """The ends of the requests of the runs within this run, at any depth."""
    prices: PriceBook
    """The prices that the costs are computed with."""
    trace_id: str
    """The id of the trace that the run is in: the caller's where there is one, or else the run's own id, or the
    outermost run's. 32 hexadecimal digits, to look the run up by."""
    durable: bool | None = None
    """Whether the run's events are on disk: False if the ledger could not take them, which does not take the answer
    away. None where that was not waited for: without a ledger, with `commit="group"`, or within another run."""

    def __repr__(self) -> str:
        return f"RunResult(run_id={self.run_id!r}, value={self.value!r}, duration_ns={self.duration_ns})"

    @property
    def content(self) -> Any:
        """The content of the answer: the value's `content` if it has one, else the value."""
        return getattr(self.value, "content", self.value)

    @property
    def totals(self) -> Totals:
        """The sums over all requests, those of child runs included. Tools are not counted here."""
        return _sum(self.requests + self.child_requests, self.prices)

    @property
    def usage(self) -> Usage:
        """Tokens of all requests, those of child runs included, as far as they are known: see `unknown_requests`."""
        return self.totals.usage

    @property
    def own_usage(self) -> Usage:
        """Tokens of the run's own requests."""
        return _sum(self.requests, self.prices).usage

    @property
    def unknown_requests(self) -> int:
        """The number of requests, those of child runs included, that never said what they used, or what they read."""
        return self.totals.unknown_requests

    @property
    def cost(self) -> CostEstimate:
        """Cost in USD of all requests, those of child runs included. What is not known widens the interval."""
        return self.totals.cost

    @property
    def own_cost(self) -> CostEstimate:
        """Cost in USD of the run's own requests."""
        return _sum(self.requests, self.prices).cost

    @property
    def child_cost(self) -> CostEstimate:
        """Cost in USD of the requests of child runs, at any depth."""
        return _sum(self.child_requests, self.prices).cost


def _sum(requests: Iterable[TokenUsage], prices: PriceBook) -> Totals:
    totals = Totals()
    for request in requests:
        totals = totals.with_request(request, prices.cost(request))
    return totals
