"""What requests cost: exact where the API reported usage, an interval that holds the truth where it did not.

The rates are genai-prices' own: per service tier as served, for long prompts, from their dates on, for cache reads and
writes, audio, images, reasoning and searches. Its `calc_price` is accurate but takes a hundred microseconds; here the
rates are turned once into whole numbers of a tiny part of a dollar, and a price is whole-number arithmetic.

What has no known price is reported as unpriced. It never counts as $0, nor at the rate of something similar.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .events import Provenance, TokenUsage
from .rates import EXPRESSIBLE_PRICES, MONEY, Rates, rates_beyond

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

    _Price: TypeAlias = Decimal | TieredPrices

_add = MONEY.add
_ZERO = Decimal(0)


class CostEstimate(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """US dollars between `low` and `high`. Adding two adds both ends; `CostEstimate()` is nothing at all."""

    low: Decimal = _ZERO
    """USD that it cost at least."""
    high: Decimal | None = _ZERO
    """USD that it cost at most; None if there is no known bound."""
    unpriced: int = 0
    """How many of the requests have no known price. They add nothing to `low` and leave `high` None."""

    @property
    def usd(self) -> Decimal | None:
        """The cost in USD where it is known exactly, else None."""
        return self.low if self.low == self.high else None

    def __add__(self, other: "CostEstimate") -> "CostEstimate":
        low = _add(self.low, other.low)
        high: Decimal | None = low
        if self.high is not self.low or other.high is not other.low:  # else both are exact: one addition is enough
            high = None if self.high is None or other.high is None else _add(self.high, other.high)
        return CostEstimate(low, high, self.unpriced + other.unpriced)

    def __str__(self) -> str:
        if self.high is None:
            amount = f"≥ {_dollars(self.low, ROUND_FLOOR)}" if self.low else "unknown"
        elif self.low == self.high:
            amount = _dollars(self.low, ROUND_HALF_EVEN)
        else:
            amount = f"{_dollars(self.low, ROUND_FLOOR)} to {_dollars(self.high, ROUND_CEILING)}"
        if not self.unpriced:
            return amount
        return f"{amount} ({self.unpriced:,} request{'s' if self.unpriced > 1 else ''} unpriced)"


def _dollars(amount: Decimal, rounding: str) -> str:
    """With two decimals from $100 on, with four down to a cent, and with three digits below."""
    places = 2 if amount >= 100 or not amount else max(4, 2 - amount.adjusted())
    return f"${amount.quantize(Decimal(1).scaleb(-places), rounding, MONEY):,f}"


class PriceBook:
    """Prices requests with the rates of genai-prices. Safe to share between threads.

    The rates are those that genai-prices has when the book is loaded; later updates of its data need a new book.
    """

    def __init__(self) -> None:
        self._providers: Mapping[str, Provider] | None = None
        self._loading = threading.Lock()
        self._cache: dict[tuple[str, str, str | None, str | None], _Period] = {}

    @property
    def loaded(self) -> bool:
        """Whether the rates are in memory."""
        return self._providers is not None

    def load(self) -> None:
        """Bring the rates into memory: the first call blocks for about half a second, so make it in a worker thread.

        Without it the first request to be priced does the same.
        """
        self._load()

    def cost(self, event: TokenUsage) -> CostEstimate:
        """What a request cost, by the model that answered, or the one asked for if that one has no price.

        - Usage reported by the API has an exact price.
        - The usage of a cut stream is a lower bound, so it gives the `low` end: each token at the cheapest rate of its
          direction, since input that nobody has called cached may still have been.
        - Estimated or unknown usage gives no bound: `low` is 0 and `high` None.
        - Unpriced is what has no published rate (the model, the service tier, a kind of usage) and usage that
          contradicts itself, such as more cached tokens than input. No event makes this method raise.
        """
        period = self._cache.get((event.provider, event.model, event.response_model, event.service_tier))
        if period is None or not period.since_ns <= event.start_ns < period.until_ns:
            period = self._look_up(event)
        if not period.rates:
            return _UNPRICED
        usage = event.usage
        if usage is None:
            return _UNKNOWN
        for rates in period.rates:
            if usage.input_tokens > rates.start:
                break
        if event.provenance is _REPORTED:
            price = rates.price(usage)
            return _UNPRICED if price is None else CostEstimate(price, price)
        if event.provenance is _PARTIAL:
            floor = rates.floor(usage)
            return _UNPRICED if floor is None else CostEstimate(floor, None)
        return _UNKNOWN

    def _load(self) -> "Mapping[str, Provider]":
        providers = self._providers
        if providers is None:
            with self._loading:
                providers = self._providers or _read_providers()
                self._providers = providers
        return providers

    def _look_up(self, event: TokenUsage) -> "_Period":
        """Find a request's rates, and keep them for as long as they hold."""
        if len(self._cache) >= _CACHE_SIZE:  # model names are the user's: there may be any number
            self._cache.clear()
        model = self._find_model(event)
        period = _NO_PRICE if model is None else _period(model, event.service_tier, event.start_ns)
        self._cache[event.provider, event.model, event.response_model, event.service_tier] = period
        return period

    def _find_model(self, event: TokenUsage) -> "ModelInfo | None":
        providers = self._load()
        provider = providers.get(_PROVIDER_IDS.get(event.provider, event.provider))
        if provider is None:
            return None
        found = (provider.find_model(name, all_providers=list(providers.values())) for name in _names(event))
        model = next(filter(None, found), None)
        if model is None or any(model is own for own in provider.models):
            return model
        return replace(model, price_variants=None)  # passed on from another provider, but not with its service tiers


def _names(event: TokenUsage) -> tuple[str, ...]:
    """What to look a request's price up by. Where another model answered than was asked for, its price alone counts."""
    requested, answered = event.model, event.response_model
    if not answered:
        return (requested,)
    return (answered, requested) if answered.startswith(requested) else (answered,)  # such as a dated version


def _read_providers() -> "Mapping[str, Provider]":
    from genai_prices.data_snapshot import get_snapshot  # here, because it is slow to import

    return {provider.id: provider for provider in get_snapshot().providers}


_UNPRICED = CostEstimate(high=None, unpriced=1)
_UNKNOWN = CostEstimate(high=None)
_REPORTED, _PARTIAL = Provenance.REPORTED, Provenance.PARTIAL
_CACHE_SIZE = 4_096
_STANDARD_TIERS = ("default", "standard")
_MINUTE_NS = 60 * 10**9
_DAY_NS = 24 * 60 * _MINUTE_NS

_PROVIDER_IDS = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "x_ai": "x-ai",
}
"""From the names of the OpenTelemetry GenAI conventions (2026-11) to those of genai-prices, where they differ.

genai-prices itself takes any name with "openai" in it for OpenAI: here only `openai` is.
"""


class _Period(msgspec.Struct, frozen=True):
    """What a model costs on a service tier between two points in time."""

    since_ns: int
    until_ns: int
    rates: Sequence[Rates]
    """Those for the longest prompts first; empty if there is no price."""


_NO_PRICE = _Period(-(2**63), 2**63, ())


def _period(model: "ModelInfo", tier: str | None, at_ns: int) -> _Period:
    """What a model costs around a time in nanoseconds, on a service tier as served (None is the standard one)."""
    constraints = [variant.constraint for variant in model.price_variants or ()]
    if isinstance(model.prices, list):
        constraints += [conditional.constraint for conditional in model.prices]
    # Prices change at midnight UTC, or at a minute where there is a rebate by the time of day.
    span = _MINUTE_NS if any(hasattr(constraint, "start_time") for constraint in constraints) else _DAY_NS
    since_ns = at_ns - at_ns % span
    try:
        prices = _prices(model, tier, datetime.fromtimestamp(at_ns // 10**9, UTC))
    except (ValueError, OverflowError, OSError):  # a time beyond the calendar
        prices = None
    return _Period(since_ns, since_ns + span, () if prices is None else _rates(prices))


def _prices(model: "ModelInfo", tier: str | None, at: datetime) -> "ModelPrice | None":
    """The prices on a tier; None if it has none, where genai-prices itself would give the standard ones."""
    if tier is None:
        return model.get_prices(at)
    context = {"service_tier": tier}
    listed = any(
        variant.when == context and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )
    return model.get_prices(at, context) if listed or tier in _STANDARD_TIERS else None


def _rates(prices: "ModelPrice") -> Sequence[Rates]:
    listed: dict[str, _Price] = {key: price for key, price in vars(prices).items() if price is not None}
    if "input_mtok" not in listed or not listed.keys() <= EXPRESSIBLE_PRICES:
        return ()
    starts = {tier.start for price in listed.values() if not isinstance(price, Decimal) for tier in price.tiers}
    return tuple(
        rates_beyond(start, {key: _price_beyond(start, price) for key, price in listed.items()})
        for start in (*sorted(starts, reverse=True), -1)
    )


def _price_beyond(start: int, price: "_Price") -> Decimal:
    """The price in prompts of more than `start` tokens."""
    if isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if tier.start <= start), price.base)
