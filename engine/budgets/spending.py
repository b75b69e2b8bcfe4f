"""What a request that has ended spends of a budget, from its last event: live, and as a ledger is read back."""

from decimal import Decimal
from typing import NamedTuple

from ..events import Provenance, TokenUsage
from ..formats import Kind
from ..prices.cost_estimate import CostEstimate
from ..prices.readings import is_contradictory, readings
from .request_limits import tokens_of

_ZERO, _ONE = Decimal(0), Decimal(1)


class Spent(NamedTuple):
    """The amount that a request has spent, as far as its last event tells."""

    amount: Decimal
    is_known: bool = True
    """False: the request's upper bound counts, where that is more."""

    def within(self, bound: Decimal) -> Decimal:
        """Take what counts, of a request with this upper bound."""
        return self.amount if self.is_known else max(self.amount, bound)


class Spending(NamedTuple):
    """What was spent of a budget in the past, of one kind: in one slot of its window, for one of its tag's values."""

    label: str
    """The budget's."""
    kind: Kind
    scope: str | None
    """The value of the tag; None where the budget has none for each, and of runs without the tag."""
    start_ns: int
    expires_ns: int
    """The slot, in nanoseconds since the Unix epoch, as the budget's `slots` has it."""
    amount: Decimal


def spent_by(kind: Kind, event: TokenUsage, cost: CostEstimate | None) -> Spent:
    """Derive the amount spent by a request that has ended.

    Args:
        kind: What is counted.
        event: The request's end.
        cost: What it cost: needed for USD.
    """
    if kind == "calls":
        return Spent(_ONE)
    if kind == "usd":
        assert cost is not None  # noqa: S101 - it was asked for
        return Spent(cost.low, is_known=False) if cost.high is None else Spent(cost.high)
    known = tokens_of(event.usage)
    if known is not None and event.provenance is Provenance.REPORTED:
        return _most(event, known) if is_contradictory(event) else Spent(known)
    bound = tokens_of(event.bound)
    return Spent(known or _ZERO, is_known=False) if bound is None else Spent(max(known or _ZERO, bound))


def _most(event: TokenUsage, known: Decimal) -> Spent:
    """Find the most tokens that a contradictory usage can mean; it may mean nothing at all."""
    assert event.usage is not None  # noqa: S101 - it was reported
    heard = readings(event.usage, event.total_tokens)
    most = max((known, *(Decimal(reading.total_tokens) for reading in heard)))
    return Spent(most, is_known=bool(heard))
