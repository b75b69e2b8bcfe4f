"""What requests cost: exact where the API reported usage, an interval that holds the truth where it did not.

The rates are genai-prices' own: per service tier as served, for batches, for long prompts, from their dates on, for
cache reads and writes, audio, images, reasoning and searches. Its `calc_price` is accurate but takes a hundred
microseconds; here the rates are turned once into whole numbers of a tiny part of a dollar, and a price is whole-number
arithmetic. What genai-prices lacks comes from overlay files, see `overlay.py`. Each single rate is taken from the first
that has it: the user's file, genai-prices, the file that this package ships; so is each service tier. So a user's file
always wins, and the shipped one falls silent as genai-prices catches up.

What has no known price is reported as unpriced. It never counts as $0, nor at the rate of something similar.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from os import PathLike
from typing import TYPE_CHECKING, Literal

import msgspec

from .events import Provenance, TokenUsage, Usage
from .overlay import NO_PRICES, STANDARD_TIERS, Overlay, merge, provider_id, read_overlay, shipped_overlay
from .rates import MONEY, Price, Rates, least, most, rates_at, rates_of

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider, TieredPrices

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


class ModelPrices(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs on the standard tier, in prompts that are not long. USD for a million tokens."""

    provider: str
    """As genai-prices or the overlay calls it."""
    model: str
    input: Decimal
    cache_read: Decimal | None = None
    """None where it is not listed: such tokens then cost what plain input costs, or are unpriced."""
    cache_write: Decimal | None = None
    cache_write_12h: Decimal | None = None
    output: Decimal | None = None
    context_window: int | None = None
    """Tokens."""
    source: Literal["genai-prices", "overlay"] = "genai-prices"
    """Where the price of input comes from."""


class Unpriced(msgspec.Struct, frozen=True):
    """Something that a price was asked for and has none."""

    provider: str
    model: str
    """The model that answered, or the one asked for if that is not known."""
    service_tier: str | None
    times: int
    """How often the price was asked for: at least once for each request."""


class PriceBook:
    """Prices requests with the rates of genai-prices and of overlay files. Safe to share between threads.

    The rates are those that genai-prices has when the book is loaded; later updates of its data need a new book.

    Args:
        overlay: A TOML file with prices of your own, which win over all others: for private models, for other
            providers' deployments, for rates agreed upon. Its form is described in `overlay.py`.

    Raises:
        ConfigurationError: The overlay cannot be read, or one of its entries makes no sense.
    """

    def __init__(self, overlay: str | PathLike[str] | None = None) -> None:
        self._user = Overlay() if overlay is None else read_overlay(overlay)
        self._sources: _Sources | None = None
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, str, str | None, str | None], _Period] = {}
        self._unpriced: dict[tuple[str, str, str | None], int] = {}

    @property
    def loaded(self) -> bool:
        """Whether the rates are in memory."""
        return self._sources is not None

    def load(self) -> None:
        """Bring the rates into memory: the first call blocks for about half a second, so make it in a worker thread.

        Without it the first request to be priced does the same.
        """
        self._load()

    def cost(self, event: TokenUsage) -> CostEstimate:
        """What a request cost, by the model that answered, or the one asked for if that one has no price.

        - Usage reported by the API has an exact price. The service tier `batch` stands for the Batch API, whose answers
          do not name it themselves.
        - The usage of a cut stream is a lower bound, so it gives the `low` end: each token at the cheapest rate of its
          direction, since input that nobody has called cached may still have been, and on the standard tier if that is
          cheaper: OpenAI may serve a request there that asked for priority (its guide "Priority processing", 2026-11).
        - Of estimated or unknown usage `low` is 0: it may not have been billed at all.
        - Where usage was not reported, `high` is what the event's `bound` can have cost at the most, see `upper_bound`.
          It is None without a bound, and if more was seen than the bound allows.
        - Unpriced is what has no published rate (the model, the service tier, a kind of usage) and usage that
          contradicts itself, such as more cached tokens than input. No event makes this method raise.
        """
        period = self._cache.get((event.provider, event.model, event.response_model, event.service_tier))
        if period is None or not period.since_ns <= event.start_ns < period.until_ns:
            period = self._look_up(
                event.provider, event.model, event.response_model, event.service_tier, event.start_ns
            )
        usage = event.usage
        if usage is not None and event.provenance is _REPORTED:
            rates = period.base if usage.input_tokens <= period.base_end else rates_at(period.rates, usage.input_tokens)
            price = rates.price(usage) if rates is not None else None
            if price is not None:
                return CostEstimate(price, price)
        elif period.rates:
            seen = usage if usage is not None and event.provenance is _PARTIAL else _NOTHING
            low = _ZERO if seen is _NOTHING else period.least(seen)
            if low is not None:
                return CostEstimate(low, None if event.bound is None else most(period.rates, event.bound, seen))
        self._count_unpriced(event)
        return _UNPRICED

    def upper_bound(
        self, provider: str, model: str, service_tier: str | None, bound: Usage, at_ns: int
    ) -> Decimal | None:
        """The most that a request can cost, in USD, which uses no more tokens than `bound`. None if there is no price.

        All input counts at the dearest rate of input that the model has (cache writes for 12 hours, audio) and all
        output at the dearest of output, with the dearest prices for long prompts within the bound.

        Fees for searches count as far as `bound` says how many there may be. A request whose tools may search more
        often than that has no bound here, nor what the texts that they find add to the input: both are for the caller
        to limit.

        Args:
            provider: As in events, such as `openai`.
            model: As requested.
            service_tier: As requested. None and `auto` count as the standard tier: name the tier if the OpenAI project
                has another one for its default.
            bound: Tokens, and searches, at the most.
            at_ns: When it leaves: nanoseconds since the Unix epoch.
        """
        tier = None if service_tier == "auto" else service_tier
        period = self._cache.get((provider, model, None, tier))
        if period is None or not period.since_ns <= at_ns < period.until_ns:
            period = self._look_up(provider, model, None, tier, at_ns)
        return most(period.rates, bound, _NOTHING) if period.rates else None

    def models(self, at_ns: int | None = None) -> Sequence[ModelPrices]:
        """All models that have a price, by provider and name.

        Args:
            at_ns: When the prices hold: nanoseconds since the Unix epoch. By default now.
        """
        return self._load().models(time.time_ns() if at_ns is None else at_ns)

    def unpriced(self) -> Sequence[Unpriced]:
        """What has been asked a price for since the book was made and has none, the most frequent first.

        Of more than a thousand different ones the later ones are counted together, under the name `other`.
        """
        with self._lock:
            counts = list(self._unpriced.items())
        return [Unpriced(*key, times) for key, times in sorted(counts, key=lambda item: -item[1])]

    def _count_unpriced(self, event: TokenUsage) -> None:
        key = event.provider, event.response_model or event.model, event.service_tier
        with self._lock:
            if key not in self._unpriced and len(self._unpriced) >= _UNPRICED_SIZE:
                key = _OTHER
            self._unpriced[key] = self._unpriced.get(key, 0) + 1

    def _load(self) -> "_Sources":
        sources = self._sources
        if sources is None:
            with self._lock:
                sources = self._sources or _Sources(self._user, _read_providers(), shipped_overlay())
                self._sources = sources
        return sources

    def _look_up(self, provider: str, model: str, answered: str | None, tier: str | None, at_ns: int) -> "_Period":
        """Find a request's rates, and keep them for as long as they hold."""
        if len(self._cache) >= _CACHE_SIZE:  # model names are the user's: there may be any number
            self._cache.clear()
        period = self._load().period(provider_id(provider), _names(model, answered), tier, at_ns)
        self._cache[provider, model, answered, tier] = period
        return period


def _names(requested: str, answered: str | None) -> tuple[str, ...]:
    """What to look a request's price up by. Where another model answered than was asked for, its price alone counts."""
    if not answered:
        return (requested,)
    return (answered, requested) if answered.startswith(requested) else (answered,)  # such as a dated version


def _read_providers() -> "Mapping[str, Provider]":
    from genai_prices.data_snapshot import get_snapshot  # here, because it is slow to import

    return {provider.id: provider for provider in get_snapshot().providers}


_UNPRICED = CostEstimate(high=None, unpriced=1)
_NOTHING = Usage()
_OTHER = ("other", "other", None)
_REPORTED, _PARTIAL = Provenance.REPORTED, Provenance.PARTIAL
_NO_END = 2**63
_CACHE_SIZE = 4_096
_UNPRICED_SIZE = 1_000
_MINUTE_NS = 60 * 10**9
_DAY_NS = 24 * 60 * _MINUTE_NS


class _Period(msgspec.Struct, frozen=True):
    """What a model costs on a service tier between two points in time."""

    since_ns: int
    until_ns: int
    rates: Sequence[Rates]
    """Those for the longest prompts first; empty if there is no price."""
    base: Rates | None
    """Those for prompts of up to `base_end` tokens: nearly all."""
    base_end: int
    standard: Sequence[Rates]
    """Those of the standard tier, where this is another."""

    @classmethod
    def of(cls, since_ns: int, until_ns: int, rates: Sequence[Rates], standard: Sequence[Rates]) -> "_Period":
        """With the rates of short prompts picked out."""
        base_end = rates[-2].start if len(rates) > 1 else _NO_END
        return cls(since_ns, until_ns, rates, rates[-1] if rates else None, base_end, standard)

    def least(self, seen: Usage) -> Decimal | None:
        """The least USD for so much usage or more, whether this tier served it or the standard one."""
        low, standard = least(self.rates, seen), least(self.standard, seen)
        return low if low is None or standard is None else min(low, standard)


class _Sources:
    """Where rates come from: the user's file, genai-prices, the shipped file."""

    def __init__(self, user: Overlay, providers: "Mapping[str, Provider]", shipped: Overlay) -> None:
        self._user = user
        self._providers = providers
        self._shipped = shipped

    def period(self, provider: str, names: Sequence[str], tier: str | None, at_ns: int) -> _Period:
        """What the first known of some models costs around a time in nanoseconds, on a service tier as served."""
        span = _DAY_NS  # prices change at midnight UTC
        rates: Sequence[Rates] = ()
        standard: Sequence[Rates] = ()
        try:
            at = datetime.fromtimestamp(at_ns // 10**9, UTC)
        except (ValueError, OverflowError, OSError):  # a time beyond the calendar
            names = ()
        for name in names:
            model = self._find_model(provider, name)
            found = self._merge(provider, name, model, tier, at)
            if found is not None:
                rates = rates_of(*found)
                if tier not in (None, *STANDARD_TIERS):
                    standard = rates_of(*self._merge(provider, name, model, None, at) or found)
                if model is not None and _has_hours(model):
                    span = _MINUTE_NS
                break
        since_ns = at_ns - at_ns % span
        return _Period.of(since_ns, since_ns + span, rates, standard)

    def models(self, at_ns: int) -> Sequence[ModelPrices]:
        """All models that have a price of input, by provider and name."""
        at = datetime.fromtimestamp(at_ns // 10**9, UTC)
        models: dict[tuple[str, str], ModelInfo | None] = {
            (provider, name): self._find_model(provider, name)
            for provider, name in (*self._shipped.models, *self._user.models)
        }
        models |= {(id_, model.id): model for id_, provider in self._providers.items() for model in provider.models}
        rows = (
            self._row(provider, name, model, at)
            for (provider, name), model in sorted(models.items(), key=lambda item: item[0])
        )
        return [row for row in rows if row is not None]

    def _merge(
        self, provider: str, name: str, model: "ModelInfo | None", tier: str | None, at: datetime
    ) -> "tuple[Mapping[str, Price], frozenset[str]] | None":
        """A model's prices on a tier, and which are not known. None if there is no such model."""
        user, shipped = (overlay.find(provider, name, at.date()) for overlay in (self._user, self._shipped))
        if model is None and user is None and shipped is None:
            return None
        listed, listed_tier = ({}, None) if model is None else _listed(model, tier, at)
        if tier in STANDARD_TIERS:
            listed, tier = {**listed, **(listed_tier or {})}, None
        return merge(user or NO_PRICES, listed, listed_tier, shipped or NO_PRICES, tier)

    def _row(self, provider: str, name: str, model: "ModelInfo | None", at: datetime) -> ModelPrices | None:
        prices, unpriced = self._merge(provider, name, model, None, at) or ({}, frozenset())
        if not rates_of(prices, unpriced):
            return None
        user, shipped = (
            overlay.find(provider, name, at.date()) or NO_PRICES for overlay in (self._user, self._shipped)
        )
        known = model is not None and "input_mtok" in _listed(model, None, at)[0]
        base = {key: price.base for key, price in prices.items()}
        return ModelPrices(
            provider=provider,
            model=name,
            input=base["input_mtok"],
            cache_read=base.get("cache_read_mtok"),
            cache_write=base.get("cache_write_mtok"),
            cache_write_12h=base.get("cache_write_12h_mtok"),
            output=base.get("output_mtok"),
            context_window=user.context_window or (model and model.context_window) or shipped.context_window,
            source="genai-prices" if known and "input_mtok" not in user.prices else "overlay",
        )

    def _find_model(self, provider_name: str, name: str) -> "ModelInfo | None":
        provider = self._providers.get(provider_name)
        if provider is None:
            return None
        model = provider.find_model(name, all_providers=list(self._providers.values()))
        if model is None or any(model is own for own in provider.models):
            return model
        return replace(model, price_variants=None)  # passed on from another provider, but not with its service tiers


def _has_hours(model: "ModelInfo") -> bool:
    """Whether the price depends on the time of day. Such prices change at a minute."""
    conditional = model.prices if isinstance(model.prices, list) else []
    return any(hasattr(each.constraint, "start_time") for each in (*conditional, *(model.price_variants or ())))


def _listed(
    model: "ModelInfo", tier: str | None, at: datetime
) -> tuple[Mapping[str, Price], Mapping[str, Price] | None]:
    """genai-prices' standard prices, and those that are others on a tier: None if it does not list the tier."""
    standard = vars(model.get_prices(at))
    if tier is None:
        return _converted(standard), {}
    context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier}
    if not any(
        variant.when == context and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    ):
        return _converted(standard), None  # genai-prices itself would give the standard ones
    resolved = vars(model.get_prices(at, context))
    return _converted(standard), _converted({k: v for k, v in resolved.items() if v is not standard.get(k)})


def _converted(prices: "Mapping[str, Decimal | TieredPrices | None]") -> dict[str, Price]:
    return {
        key: Price(price)
        if isinstance(price, Decimal)
        else Price(price.base, tuple((t.start, t.price) for t in price.tiers))
        for key, price in prices.items()
        if price is not None
    }
