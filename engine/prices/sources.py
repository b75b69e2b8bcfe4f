"""Sources of prices: the user's file, genai-prices, the shipped file."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from .overlay import NO_PRICES, STANDARD_TIERS, Overlay, merge, shipped_overlay
from .rates import Price, Rates, rates_of

if TYPE_CHECKING:
    from genai_prices.types import MatchLogic, ModelInfo, Provider, TieredPrices

_MINUTE_NS = 60 * 10**9
_DAY_NS = 24 * 60 * _MINUTE_NS
_NO_END = 2**63
NOT_SOLD = ("gpt-oss-",)
"""Models that OpenAI publishes and does not serve: its price list has none (2026-11-22). genai-prices 0.2.3 has a
reseller's price for them."""
_VARIANT = re.compile(r"fast|flash|lite|max|mini|nano|plus|pro|turbo|ultra|ultrafast")
"""Words in models' names that stand for another price."""
_WORD = re.compile(r"[a-z]+")
Plain: TypeAlias = tuple[int, int, int, int, int, int, int, int, int]
"""A price of plain text, as a flat tuple: when it holds (from one time until another, in nanoseconds); up to how many
input tokens, -1 if plain text has no price or more to it; up to how many cache writes; the rates of input, output,
cache reads and cache writes, as in `Rates`, but divided by the last number, their greatest common divisor: arithmetic
with small numbers is faster."""


class ModelPrices(msgspec.Struct, frozen=True, kw_only=True):
    """The prices of a model on the standard tier, in prompts that are not long. USD for a million tokens."""

    provider: str
    """The provider's name in genai-prices or the overlay."""
    model: str
    input: Decimal
    cache_read: Decimal | None = None
    """None where it is not listed: such tokens then cost what plain input costs, or are unpriced."""
    cache_write: Decimal | None = None
    cache_write_12h: Decimal | None = None
    output: Decimal | None = None
    context_window: int | None = None
    """Number of tokens that it reads and writes in one turn."""
    source: Literal["genai-prices", "overlay"] = "genai-prices"
    """Source of the price of input."""


class Period(msgspec.Struct, frozen=True):
    """The prices of a model on a service tier between two points in time."""

    since_ns: int
    until_ns: int
    rates: Sequence[Rates]
    """Rates by length of prompt, those for the longest first; empty if there is no price."""
    cheapest: Sequence[Sequence[Rates]]
    """Rates of all tiers that may have served a request whose usage was not reported: these for its lower bound."""
    dearest: Sequence[Sequence[Rates]]
    """Those for its upper bound."""
    plain: Plain
    """The price of plain text, which nearly all requests need, ready to be unpacked."""

    @classmethod
    def of(
        cls,
        since_ns: int,
        until_ns: int,
        rates: Sequence[Rates],
        cheapest: Sequence[Sequence[Rates]],
        dearest: Sequence[Sequence[Rates]],
    ) -> "Period":
        """Make a period, with the price of plain text in short prompts picked out."""
        if not rates or rates[-1].always_special:
            plain = since_ns, until_ns, -1, 0, 0, 0, 0, 0, 1
            return cls(since_ns, until_ns, rates, cheapest, dearest, plain)
        longest = rates[-2].start if len(rates) > 1 else _NO_END
        short = rates[-1]
        most_written = 0 if short.cache_write_1h or "cache_write_tokens" in short.unrated else _NO_END
        scale = math.gcd(short.input, short.output, short.cache_read, short.cache_write) or 1  # 0 if all is free
        input_rate, output_rate = short.input // scale, short.output // scale
        read_rate, write_rate = short.cache_read // scale, short.cache_write // scale
        plain = since_ns, until_ns, longest, most_written, input_rate, output_rate, read_rate, write_rate, scale
        return cls(since_ns, until_ns, rates, cheapest, dearest, plain)


class Sources:
    """The prices of all sources, in memory. Making it takes about half a second."""

    def __init__(self, user: Overlay) -> None:
        from genai_prices.data_snapshot import get_snapshot  # here, because it is slow to import

        self._user = user
        self._providers: Mapping[str, Provider] = {provider.id: provider for provider in get_snapshot().providers}
        self._shipped = shipped_overlay()

    def period(self, provider: str, names: Sequence[str], tier: str | None, at_ns: int) -> Period:
        """Find the prices of the first known of some models around a time in nanoseconds.

        Args:
            provider: As genai-prices calls it.
            names: The models'.
            tier: As served; None or `auto` where that is not known. Then `rates` are the standard ones.
            at_ns: The time.
        """
        span = _DAY_NS  # prices change at midnight UTC
        rates: Sequence[Rates] = ()
        others: Sequence[Sequence[Rates]] = ()
        tier = None if tier == "auto" else tier
        try:
            at = datetime.fromtimestamp(at_ns // 10**9, UTC)
        except (ValueError, OverflowError, OSError):  # a time beyond the calendar
            names = ()
        for name in names:
            model = self._find_model(provider, name)
            found = self._merge(provider, name, model, tier, at)
            if found is not None:
                rates = rates_of(*found)
                others = self._others(provider, name, model, tier, at)
                if model is not None and _has_hours(model):
                    span = _MINUTE_NS
                break
        since_ns = at_ns - at_ns % span
        every = (rates, *others)
        return Period.of(since_ns, since_ns + span, rates, every, every if tier is None else (rates,))

    def _others(
        self, provider: str, name: str, model: "ModelInfo | None", tier: str | None, at: datetime
    ) -> Sequence[Sequence[Rates]]:
        """Find the rates of the other tiers that may serve a request: any if none is named, or else the standard one.

        OpenAI may serve a request on the standard tier that asked for priority (its guide "Priority processing",
        2026-11). Where no tier is named, the project's default decides (its API reference, `service_tier`, 2026-11).
        """
        if tier in STANDARD_TIERS:
            return ()
        tiers = self._tiers(provider, name, model, at) if tier is None else (None,)
        merged = (self._merge(provider, name, model, each, at) for each in tiers)
        priced = (rates_of(*each) for each in merged if each is not None)
        return [rates for rates in priced if rates]

    def _tiers(self, provider: str, name: str, model: "ModelInfo | None", at: datetime) -> Iterable[str]:
        """Name the tiers with prices of their own. Batches are no tier of a request."""
        overlays = (overlay.find(provider, name, at.date()) or NO_PRICES for overlay in (self._user, self._shipped))
        named = {tier for prices in overlays for tier in prices.tiers}
        named |= {variant.when.get("service_tier", "batch") for variant in (model and model.price_variants) or ()}
        return sorted(named - {"batch", *STANDARD_TIERS})

    def models(self, at_ns: int) -> Sequence[ModelPrices]:
        """List the models that have a price of input, by provider and name."""
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
        """Merge a model's prices on a tier, and name those not known. None if there is no such model."""
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
        if provider_name == "openai" and name.startswith(NOT_SOLD):
            return None
        model = provider.find_model(name, all_providers=list(self._providers.values()))
        if model is not None and _is_other_variant(name, model):
            return None
        if model is None or any(model is own for own in provider.models):
            return model
        return replace(model, price_variants=None)  # passed on from another provider, but not with its service tiers


def _is_other_variant(name: str, model: "ModelInfo") -> bool:
    """Tell whether genai-prices takes a variant, such as a faster one, for the model that its name begins with."""
    return not _variants(name) <= _variants(model.id) and not _is_listed(name.lower(), model.match)


def _variants(name: str) -> set[str]:
    return {word for word in _WORD.findall(name.lower()) if _VARIANT.fullmatch(word)}


def _is_listed(name: str, clause: "MatchLogic") -> bool:
    """Tell whether a clause matches more of a name than its beginning."""
    from genai_prices.types import ClauseAnd, ClauseOr, ClauseStartsWith

    if isinstance(clause, ClauseOr):
        return any(_is_listed(name, each) for each in clause.or_)
    if isinstance(clause, ClauseAnd):
        return all(_is_listed(name, each) for each in clause.and_)
    return not isinstance(clause, ClauseStartsWith) and clause.is_match(name)


def _has_hours(model: "ModelInfo") -> bool:
    """Tell whether the price depends on the time of day. Such prices change at a minute."""
    conditional = model.prices if isinstance(model.prices, list) else []
    return any(hasattr(each.constraint, "start_time") for each in (*conditional, *(model.price_variants or ())))


def _listed(
    model: "ModelInfo", tier: str | None, at: datetime
) -> tuple[Mapping[str, Price], Mapping[str, Price] | None]:
    """Find genai-prices' standard prices, and those that are others on a tier: None if it does not list the tier."""
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
