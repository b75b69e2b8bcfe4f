"""Prices of tokens that are only known as sums or differences: linear in each kind, as prices are."""

from decimal import Decimal

from runmeter.engine import CostEstimate, PriceBook, Usage

from .amounts import UNKNOWN, Amount
from .counts import Counts
from .parts import PROVIDER

_TEXT = {"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_12h_tokens"}
_ENDLESS = 10**9
"""Input tokens beyond the longest prompt that has a price of its own."""


class ModelPricing:
    """The prices of one model on one day.

    Args:
        book: The prices.
        model: The model.
        at_ns: The time that they hold: nanoseconds since the Unix epoch.
    """

    def __init__(self, book: PriceBook, model: str, at_ns: int) -> None:
        self._book = book
        self._model = model
        self._at_ns = at_ns

    def cost(self, counts: Counts, tier: str | None, longest: int | None = None) -> Amount:
        """Compute the cost of tokens in a tier; negative where the numbers are.

        Args:
            counts: Tokens, or a difference of tokens.
            tier: The service tier; None where it is not known.
            longest: Upper bound on the tokens of each prompt; None where none is known.
        """
        if not counts.usage.total_tokens and counts.usage == Usage():
            return Amount()
        if tier is None:
            return UNKNOWN
        short = self._linear(counts, tier, 0)
        length = _ENDLESS if longest is None else longest
        return short.hull(self._linear(counts, tier, length))

    def lifetime(self, low: int, high: int, tier: str | None) -> Amount:
        """Compute what it costs to write tokens to the cache for 12 hours instead of half an hour."""
        if tier is None:
            return UNKNOWN
        more = self._unit(Usage(1, cache_write_tokens=1, cache_write_12h_tokens=1), tier, 0)
        each = more - self._unit(Usage(1, cache_write_tokens=1), tier, 0)
        return (each * low).hull(each * high)

    def _linear(self, counts: Counts, tier: str, length: int) -> Amount:
        usage = counts.usage
        others = [name for name in Usage.__struct_fields__ if name not in _TEXT and getattr(usage, name)]
        if others:  # sounds and images are cached and plain at once: only whole requests have a price
            return self._unit(usage, tier, length)
        written = usage.cache_write_tokens - usage.cache_write_12h_tokens
        plain = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
        kinds = (
            (plain, Usage(1)),
            (usage.cache_read_tokens, Usage(1, cache_read_tokens=1)),
            (written, Usage(1, cache_write_tokens=1)),
            (usage.cache_write_12h_tokens, Usage(1, cache_write_tokens=1, cache_write_12h_tokens=1)),
            (usage.output_tokens, Usage(output_tokens=1)),
        )
        amounts = [self._unit(unit, tier, length) * tokens for tokens, unit in kinds if tokens]
        return sum(amounts, Amount(Decimal(0), Decimal(0)))

    def _unit(self, usage: Usage, tier: str, length: int) -> Amount:
        cost: CostEstimate = self._book.cost_of_sum(
            PROVIDER, self._model, tier, usage, self._at_ns, prompt_tokens=length
        )
        return UNKNOWN if cost.unpriced else Amount.of(cost)
