"""Upper bounds of requests as budgets need them, and the ways to make room for a request that was refused."""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

import msgspec

from ..events import TokenUsage, Usage
from ..formats import Kind
from ..prices.cost_estimate import CostEstimate
from ..request import ModelRequest
from .budget import Budget

MIN_OUTPUT_TOKENS = 16
"""The lowest `max_output_tokens` that OpenAI's Responses API takes. Source: its error message `integer below minimum
value. Expected a value >= 16`, as quoted in earendil-works/pi#6265 (2026-07-02)."""


NAMED_TIER = (
    'a service_tier, or Engine(assume_tier="default") where that is your project\'s own: as no tier is named, room is '
    "reserved for the dearest"
)
"""The way to make room for a request that names no service tier."""


class Prices(Protocol):
    """A price book, as far as budgets need it."""

    def cost(self, event: TokenUsage) -> CostEstimate:
        """Compute the cost of a request, in USD."""
        ...

    def upper_bound(
        self, provider: str, model: str, service_tier: str | None, bound: Usage, at_ns: int
    ) -> Decimal | None:
        """Compute the upper bound of a request's cost, in USD; None if it has no price."""
        ...


class Need(NamedTuple):
    """The upper bound of a request, of each kind; None where it is not known."""

    usd: Decimal | None
    tokens: Decimal | None
    calls: Decimal

    def of(self, kind: Kind) -> Decimal:
        """Take the amount of a kind. A request of which it is not known has been refused."""
        amount: Decimal | None = getattr(self, kind)
        assert amount is not None  # noqa: S101 - a request that lacks it was refused
        return amount


def tokens_of(usage: Usage | None) -> Decimal | None:
    """Count all tokens of a usage; None where they are not known, or the counts make no sense."""
    if usage is None or usage.input_tokens < 0 or usage.output_tokens < 0:
        return None
    return Decimal(usage.total_tokens)


def max_output_tokens(request: ModelRequest) -> int:
    """Find the upper bound of one answer's tokens."""
    return 0 if request.bound is None else request.bound.output_tokens // _answers(request)


def limited(request: ModelRequest, max_output_tokens: int) -> ModelRequest:
    """Limit a request's answers to a number of tokens, and its bound with them."""
    output = max_output_tokens * _answers(request)
    bound = msgspec.structs.replace(request.bound or Usage(), output_tokens=output)
    return msgspec.structs.replace(request, max_output_tokens=max_output_tokens, bound=bound)


def ways_out(request: ModelRequest, budget: Budget, kind: Kind, *, is_only_reserved: bool) -> Sequence[str]:
    """Name the ways to make room for a request that a budget refused.

    Args:
        request: As it was to be sent.
        budget: The budget that had no room.
        kind: What of it.
        is_only_reserved: Whether there would be room if requests under way used nothing.
    """
    ways = []
    if kind != "calls" and max_output_tokens(request) > MIN_OUTPUT_TOKENS:
        if request.max_output_tokens is None:
            ways.append(
                "openai_max_tokens, without which room is reserved for the longest answer that the model can give"
            )
        else:
            ways.append(f"a lower openai_max_tokens than {request.max_output_tokens:,}")
        if budget.when_exceeded == "refuse":
            ways.append('when_exceeded="lower", which makes answers shorter')
    if is_only_reserved and budget.when_reserved == "refuse":
        ways.append('when_reserved="wait", which waits until what is only reserved is free')
    return ways


def _answers(request: ModelRequest) -> int:
    """Count the answers of `max_output_tokens` that the bound makes room for."""
    bound, limit = request.bound, request.max_output_tokens
    return 1 if bound is None or not limit else max(1, -(-bound.output_tokens // limit))
