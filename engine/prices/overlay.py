"""Prices from files: those this package ships for what genai-prices lacks, and the user's own.

A file has one table for each model and date; `prices.toml`, beside this module, is the example to copy from:

    [[prices]]
    provider = "openai"            # as in events or as genai-prices calls it
    model = "gpt-6.2-sol"          # its dated versions (gpt-6.2-sol-2026-11-17) cost the same
    since = 2026-11-17             # UTC; without it the table holds for all time
    source = "where and when the prices were read"
    rates = { input_mtok = 2, cache_read_mtok = 0.10, cache_write_mtok = 2.50, output_mtok = 10 }
    cache_write_12h = 2            # a write for 12 hours costs so many times a plain one
    thresholds = [{ above = 272_000, input = 2, output = 1.5 }]
    tiers = { flex = 0.5, batch = 0.5, priority = 2 }
    unpriced = ["input_audio_mtok"]
    context_window = 1_050_000     # tokens

- `rates` are those of the standard tier in USD, by genai-prices' names: for a million tokens (`_mtok`) or a thousand of
  something else (`_kcount`).
- `thresholds`: in prompts of more than so many input tokens the table's own rates for tokens are so many times as high.
- `tiers` are multiples of the standard rates for tokens. Fees for searches stay.
- `unpriced` names rates that exist and are not known: what needs them is unpriced, not charged like plain tokens.

Only provider and model are required. Tables for one model add up: of each rate and tier the latest counts that has come
into force, so a change of one rate is one short table. Numbers have at most 12 decimals, and the price of a token,
with all multiples, 36: so every price is exact.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from os import PathLike
from typing import Annotated, Any

import msgspec

from ..errors import ConfigurationError
from ..validation.checks import check_kind
from .rates import EXPRESSIBLE_PRICES, INPUT_PRICES, TOKEN_PRICES, Price
from .units import DECIMALS, MONEY

STANDARD_TIERS = ("default", "standard")
"""Service tiers by other names that are the standard one."""
_DATE_SUFFIX = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_RATE_NAMES = EXPRESSIBLE_PRICES - {"cache_write_12h_mtok"}  # which follows from `cache_write_12h`


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


def provider_id(name: str) -> str:
    """Find genai-prices' name of a provider, whichever of the two names is given."""
    return _PROVIDER_IDS.get(name, name)


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The factors by which the rates for tokens are higher in prompts of more than `above` input tokens."""

    above: int
    input: Decimal
    output: Decimal


class OverlayEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a file: one model's prices from one day on."""

    provider: Annotated[str, msgspec.Meta(min_length=1)]
    model: Annotated[str, msgspec.Meta(min_length=1)]
    since: date | None = None
    source: str | None = None
    rates: Mapping[str, Decimal] = {}
    cache_write_12h: Decimal | None = None
    thresholds: tuple[Threshold, ...] = ()
    tiers: Mapping[str, Decimal] = {}
    unpriced: frozenset[str] = frozenset()
    context_window: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def prices(self) -> dict[str, Price]:
        """Make the prices of the rates, with what they are in long prompts."""
        return {key: self._price(key, rate) for key, rate in self.rates.items()}

    def _price(self, key: str, rate: Decimal) -> Price:
        price = Price(rate)
        if key not in TOKEN_PRICES:
            return price
        limits = sorted(self.thresholds, key=lambda limit: limit.above)
        factors = [(limit.above, limit.input if key in INPUT_PRICES else limit.output) for limit in limits]
        return Price(rate, tuple((above, price.times(factor).base) for above, factor in factors))


class OverlayPrices(msgspec.Struct, frozen=True):
    """The prices of a model in one file, on one day."""

    prices: Mapping[str, Price] = {}
    """Prices of the standard tier, by genai-prices' names."""
    tiers: Mapping[str, Decimal] = {}
    cache_write_12h: Decimal | None = None
    unpriced: frozenset[str] = frozenset()
    context_window: int | None = None


NO_PRICES = OverlayPrices()


class Overlay:
    """The entries of one file, or an empty overlay."""

    def __init__(self, entries: Iterable[OverlayEntry] = ()) -> None:
        self._entries: dict[tuple[str, str], list[OverlayEntry]] = {}
        for entry in sorted(entries, key=lambda entry: entry.since or date.min):
            self._entries.setdefault((provider_id(entry.provider), entry.model.lower()), []).append(entry)

    @property
    def models(self) -> Sequence[tuple[str, str]]:
        """Provider and model of all entries."""
        return tuple(self._entries)

    def find(self, provider: str, model: str, day: date) -> OverlayPrices | None:
        """Find a model's prices on a day (UTC), by its exact name or else by the name without its date."""
        name = model.lower()
        entries = self._entries.get((provider, name)) or self._entries.get((provider, _DATE_SUFFIX.sub("", name)), [])
        in_force = [entry for entry in entries if entry.since is None or entry.since <= day]
        return _together(in_force) if in_force else None


def _together(entries: Iterable[OverlayEntry]) -> OverlayPrices:
    """Combine entries, the oldest first."""
    prices: dict[str, Price] = {}
    tiers: dict[str, Decimal] = {}
    unpriced: frozenset[str] = frozenset()
    cache_write_12h: Decimal | None = None
    context_window: int | None = None
    for entry in entries:
        prices = {key: price for key, price in prices.items() if key not in entry.unpriced} | entry.prices()
        tiers |= entry.tiers
        unpriced = (unpriced - entry.rates.keys()) | entry.unpriced
        cache_write_12h = cache_write_12h if entry.cache_write_12h is None else entry.cache_write_12h
        context_window = entry.context_window or context_window
    return OverlayPrices(prices, tiers, cache_write_12h, unpriced, context_window)


def merge(
    user: OverlayPrices,
    listed: Mapping[str, Price],
    listed_tier: Mapping[str, Price] | None,
    shipped: OverlayPrices,
    tier: str | None,
) -> tuple[Mapping[str, Price], frozenset[str]]:
    """Merge a model's prices on a tier, and name those that are not known. No prices if it is not served on that tier.

    Args:
        user: The user's file.
        listed: The list between the two files: its standard prices.
        listed_tier: Which of them are others on the tier; None if it does not list the tier.
        shipped: The shipped file.
        tier: A service tier, or None for the standard one.
    """
    standard = {**shipped.prices, **listed, **user.prices}
    if tier is None:
        prices = standard
    elif tier in user.tiers:
        prices = _times(standard, user.tiers[tier])
    elif listed_tier is not None:
        prices = {**standard, **{key: _as_long(price, standard.get(key)) for key, price in listed_tier.items()}}
    elif tier in shipped.tiers:
        prices = _times(standard, shipped.tiers[tier])
    else:
        return {}, frozenset()
    ratio = shipped.cache_write_12h if user.cache_write_12h is None else user.cache_write_12h
    if ratio is not None and "cache_write_mtok" in prices:
        prices["cache_write_12h_mtok"] = prices["cache_write_mtok"].times(ratio)
    prices = {key: price for key, price in prices.items() if key not in user.unpriced}
    return prices, (user.unpriced | shipped.unpriced) - prices.keys()


def _as_long(price: Price, standard: Price | None) -> Price:
    """Raise a tier's price in long prompts as the standard one is, where the list has forgotten to."""
    return price if standard is None else price.stepped_like(standard)


def _times(standard: Mapping[str, Price], factor: Decimal) -> dict[str, Price]:
    return {key: price.times(factor) if key in TOKEN_PRICES else price for key, price in standard.items()}


def shipped_overlay() -> Overlay:
    """Read the entries that this package ships."""
    from importlib.resources import files  # here, because it is slow to import

    return Overlay(_parse((files(__package__) / "prices.toml").read_text("utf-8"), "prices.toml"))


def read_overlay(path: str | PathLike[str]) -> Overlay:
    """Read a user's file.

    Raises:
        ConfigurationError: It is no path, the file cannot be read, is not TOML, or has an entry that makes no sense.
            The message names file, entry and field.
    """
    check_kind("PriceBook", path, (str, PathLike), "the path of a price file")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the price overlay {path} cannot be read: {error}") from error
    return Overlay(_parse(text, str(path)))


def _parse(text: str, path: str) -> Sequence[OverlayEntry]:
    import tomllib  # here, because few runs need it

    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except RecursionError:
        raise ConfigurationError(f"the price overlay {path} nests too deeply") from None
    except ValueError as error:  # as TOML's own errors are, and those of numbers that Python does not read
        raise ConfigurationError(f"the price overlay {path} is not TOML: {error}") from error
    tables = document.pop("prices", [])
    if document or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError(f"the price overlay {path} may hold [[prices]] tables and nothing else")
    entries: dict[tuple[str, str, date | None], OverlayEntry] = {}
    for number, table in enumerate(tables, start=1):
        try:
            entry = _entry(table)
            key = provider_id(entry.provider), entry.model.lower(), entry.since
            if key in entries:
                raise ValueError("`since`: another entry has the same provider, model and date")
        except ValueError as error:  # msgspec's ValidationError is one too
            where = f"entry {number} ({table.get('model', 'without a model')})"
            raise ConfigurationError(f"the price overlay {path}, {where}: {error}") from None
        entries[key] = entry
    models: dict[tuple[str, str], list[OverlayEntry]] = {}
    for (provider, model, _), entry in entries.items():
        models.setdefault((provider, model), []).append(entry)
    for of_model in models.values():
        _check_decimals(of_model, path)
    return tuple(entries.values())


def _check_decimals(entries: Sequence[OverlayEntry], path: str) -> None:
    """Raise ConfigurationError if a model's prices could have more decimals than money has, and so not be exact."""
    factors: tuple[Iterable[Decimal], ...] = (
        [rate for entry in entries for rate in entry.rates.values()],
        [times for entry in entries for limit in entry.thresholds for times in (limit.input, limit.output)],
        [times for entry in entries for times in entry.tiers.values()],
        [entry.cache_write_12h for entry in entries if entry.cache_write_12h is not None],
    )
    decimals = 6 + sum(max(map(_decimals, numbers), default=0) for numbers in factors)  # for a million tokens
    if decimals > DECIMALS:
        raise ConfigurationError(
            f"the price overlay {path}, {entries[0].model}: the price of a token could have {decimals} decimals, and "
            f"more than {DECIMALS} would not be exact: give rates, thresholds, tiers or cache_write_12h fewer"
        )


def _decimals(number: Decimal) -> int:
    return max(-int(number.normalize(MONEY).as_tuple().exponent), 0)


def _entry(table: Mapping[str, Any]) -> OverlayEntry:
    """Read one table of a file. Raises ValueError, with the field's name, if it makes no sense."""
    for field, value in _numbers(table):
        _check_number(field, value)
    entry = msgspec.convert(table, OverlayEntry)
    for field, names in (("rates", entry.rates.keys()), ("unpriced", entry.unpriced)):
        allowed = EXPRESSIBLE_PRICES if field == "unpriced" else _RATE_NAMES
        if unknown := sorted(names - allowed):
            raise ValueError(f"`{field}`: there is no {unknown[0]!r}; there are {', '.join(sorted(allowed))}")
    if both := entry.unpriced & entry.rates.keys():
        raise ValueError(f"`unpriced`: {min(both)!r} has a rate")
    if standard := entry.tiers.keys() & {"auto", *STANDARD_TIERS}:
        raise ValueError(f"`tiers`: {min(standard)!r} is the standard tier: its prices are the `rates`")
    _check_thresholds(entry)
    return entry


def _check_thresholds(entry: OverlayEntry) -> None:
    if entry.thresholds and not entry.rates:
        raise ValueError("`thresholds`: there are no `rates` they could apply to")
    if any(limit.above < 0 for limit in entry.thresholds):
        raise ValueError("`thresholds`: `above` must not be negative")
    if len({limit.above for limit in entry.thresholds}) < len(entry.thresholds):
        raise ValueError("`thresholds`: two have the same `above`")


def _numbers(table: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """List the amounts and multiples in a table, with the names of their fields."""
    for field in ("rates", "tiers"):
        if isinstance(table.get(field), dict):
            yield from ((f"{field}.{key}", value) for key, value in table[field].items())
    if "cache_write_12h" in table:
        yield "cache_write_12h", table["cache_write_12h"]
    thresholds = table.get("thresholds")
    for threshold in thresholds if isinstance(thresholds, list) else ():
        if isinstance(threshold, dict):
            yield from ((f"thresholds.{key}", threshold[key]) for key in ("input", "output") if key in threshold)


def _check_number(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"`{field}`: must be a number, is {value!r}")
    number = Decimal(value)
    # The limits leave every product of a rate and its multiples exact in `MONEY`.
    if not number.is_finite() or not 0 <= number < 10**6 or number != round(number, 12):
        raise ValueError(f"`{field}`: must be from 0 to less than a million, with at most 12 decimals; is {value}")
