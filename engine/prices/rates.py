"""The arithmetic of one price list: from rates to the price of a request, and to its lower and upper bounds.

All amounts are whole numbers of a tiny part of a dollar, see `units.py`: fast, and exact.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from ..events import Usage
from .readings import is_consistent
from .units import MONEY, to_units

_multiply, _divide = MONEY.multiply, MONEY.divide

INPUT_PRICES = {
    "input_mtok",
    "cache_read_mtok",
    "cache_write_mtok",
    "cache_write_1h_mtok",
    "cache_write_12h_mtok",
    "input_audio_mtok",
    "cache_audio_read_mtok",
    "input_image_mtok",
    "cache_image_read_mtok",
}
_OUTPUT_PRICES = {"output_mtok", "output_reasoning_mtok", "output_audio_mtok", "output_image_mtok"}
TOKEN_PRICES = INPUT_PRICES | _OUTPUT_PRICES
EXPRESSIBLE_PRICES = TOKEN_PRICES | {"web_searches_kcount", "storage_searches_kcount", "requests_kcount"}
"""Prices for what `Usage` can express, by genai-prices' names (which has none for `cache_write_12h_mtok`): in USD for a
million tokens (`_mtok`) or a thousand of something else (`_kcount`). Others are by the hour, the page or the character.
"""

_REQUIRED_PRICES = {
    "output_tokens": "output_mtok",
    "cache_write_tokens": "cache_write_mtok",
    "cache_write_12h_tokens": "cache_write_12h_mtok",
    "audio_input_tokens": "input_audio_mtok",
    "audio_output_tokens": "output_audio_mtok",
    "web_searches": "web_searches_kcount",
    "file_searches": "storage_searches_kcount",
}
"""Kinds of usage that only a price of their own can price. Where reasoning or images have none, they cost what other
tokens of their direction cost, as in genai-prices. Cache reads, which are there to cost less, cost from nothing to
that. Unless a price list says that their price is not known."""

_OPTIONAL_PRICES = {
    "cache_read_tokens": "cache_read_mtok",
    "reasoning_tokens": "output_reasoning_mtok",
    "audio_cache_read_tokens": "cache_audio_read_mtok",
    "image_input_tokens": "input_image_mtok",
    "image_output_tokens": "output_image_mtok",
}


class Price(msgspec.Struct, frozen=True, gc=False):
    """A price in USD for a million tokens, or a thousand of something else."""

    base: Decimal
    beyond: tuple[tuple[int, Decimal], ...] = ()
    """Prices in prompts of more than a number of input tokens, for all of the prompt. The shortest come first."""

    def stepped_like(self, standard: "Price") -> "Price":
        """Raise the price in long prompts by the ratios of a standard price, if it has no steps of its own.

        A price that is no decimal number then has more decimals than money has: `rates_of` refuses it.
        """
        if self.beyond or not standard.base:
            return self
        steps = ((above, _divide(_multiply(self.base, price), standard.base)) for above, price in standard.beyond)
        return Price(self.base, tuple(steps))

    def times(self, factor: Decimal) -> "Price":
        """Multiply the price by a factor."""
        return Price(_multiply(self.base, factor), tuple((above, _multiply(p, factor)) for above, p in self.beyond))

    def at(self, start: int) -> Decimal:
        """Find the price in prompts of more than `start` tokens."""
        return next((price for above, price in reversed(self.beyond) if above <= start), self.base)


class Rates(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The rates for prompts of more than `start` tokens, in units of money.

    As `Usage` counts each special kind of token within the input or the output, so its rate here is the difference to
    plain input or output: negative for cache reads.
    """

    start: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_12h: int
    """Difference to `cache_write`, as these tokens are counted among the cache writes too."""
    reasoning: int
    audio_input: int
    audio_cache_read: int
    audio_output: int
    image_input: int
    image_output: int
    web_search: int
    file_search: int
    request: int
    cheapest_input: int
    """The whole rate of the cheapest kind of input, or 0 if some kind's is not known."""
    cheapest_output: int
    dearest_input: int | None
    """The whole rate of the dearest kind of input, or None if some kind's is not known."""
    dearest_output: int | None
    unrated: tuple[str, ...]
    """Fields of `Usage` that have no rate: a request that uses them is unpriced."""
    unlisted_cache_read: int
    """The whole rate that a cache read counts at where none is listed: so much less it may cost. 0 where one is."""
    unlisted_audio_cache_read: int
    """So much less yet a cached audio token may cost."""
    cache_write_1h: int
    """So much more a cache write may cost: `Usage` does not say for how long it was written."""
    always_special: bool
    """Even a request for plain text has more to it: a fee, a rate of reasoning, a kind without a rate."""
    image_cache_rate: bool
    """Cached images have a rate of their own. `Usage` does not tell how many of the cached tokens are images."""

    def price(self, usage: Usage) -> tuple[int, int] | None:
        """Compute the price in units, or the interval that holds it where a rate is not known exactly.

        `PriceBook.cost` does the same for text by itself, unless `always_special`.

        Returns:
            The lower and the upper end; None if some of the usage has no rate or the counts contradict each other.
        """
        if self._has_unrated(usage) or not is_consistent(usage):
            return None
        if self.image_cache_rate and usage.image_input_tokens and usage.cache_read_tokens:
            return None
        price = (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_read_tokens * self.cache_read
            + usage.cache_write_tokens * self.cache_write
            + usage.cache_write_12h_tokens * self.cache_write_12h
            + usage.reasoning_tokens * self.reasoning
            + usage.audio_input_tokens * self.audio_input
            + usage.audio_cache_read_tokens * self.audio_cache_read
            + usage.audio_output_tokens * self.audio_output
            + usage.image_input_tokens * self.image_input
            + usage.image_output_tokens * self.image_output
            + usage.web_searches * self.web_search
            + usage.file_searches * self.file_search
            + self.request
        )
        less = (
            usage.cache_read_tokens * self.unlisted_cache_read
            + usage.audio_cache_read_tokens * self.unlisted_audio_cache_read
        )
        return price - less, price + usage.cache_write_tokens * self.cache_write_1h

    def lower_bound(self, usage: Usage) -> int | None:
        """Compute the lower bound of a request's cost that used this much or more. None if some of it has no rate.

        Each token counts at the cheapest rate of its direction: input not known to be cached may be so all the same.
        """
        if self._has_unrated(usage):
            return None
        units = (
            usage.input_tokens * self.cheapest_input
            + usage.output_tokens * self.cheapest_output
            + usage.web_searches * self.web_search
            + usage.file_searches * self.file_search
            + self.request
        )
        return max(units, 0)

    def upper_bound(self, bound: Usage, searches: Usage) -> int | None:
        """Compute the upper bound of a request's cost that used no more tokens than `bound`. None if that has no rate.

        Each token counts at the dearest rate of its direction. Searches count as `searches` says.
        """
        if self.dearest_input is None or self.dearest_output is None:
            return None
        if self._has_unrated(bound) or self._has_unrated(searches):
            return None
        return (
            bound.input_tokens * self.dearest_input
            + bound.output_tokens * self.dearest_output
            + searches.web_searches * self.web_search
            + searches.file_searches * self.file_search
            + self.request
        )

    def _has_unrated(self, usage: Usage) -> bool:
        return any(getattr(usage, kind) for kind in self.unrated)


def rates_at(price_list: Sequence[Rates], input_tokens: int) -> Rates | None:
    """Find the rates of a prompt of so many tokens, in a price list as `rates_of` makes it."""
    return next((rates for rates in price_list if input_tokens > rates.start), None)


def lower_bound(price_lists: Iterable[Sequence[Rates]], seen: Usage) -> int | None:
    """Compute the lower bound, in units, of a request that used this much or more, of any length. None without a rate.

    Args:
        price_lists: As `rates_of` makes them, of all tiers that may have served it.
        seen: A lower bound of each kind.
    """
    bounds = [
        rates.lower_bound(seen)
        for price_list in price_lists
        for rates, longer in zip(price_list, (None, *price_list), strict=False)
        if longer is None or seen.input_tokens <= longer.start
    ]
    return _known(min, bounds)


def upper_bound(price_lists: Iterable[Sequence[Rates]], bound: Usage, seen: Usage) -> int | None:
    """Compute the upper bound, in units, of a request that used no more tokens than `bound`. None if there is none.

    Args:
        price_lists: As `rates_of` makes them, of all tiers that may have served it.
        bound: Upper bounds of tokens, and of searches as far as there are any.
        seen: A lower bound. If it is more than `bound`, then `bound` is not one.
    """
    if not (0 <= seen.input_tokens <= bound.input_tokens and 0 <= seen.output_tokens <= bound.output_tokens):
        return None
    searches = Usage(
        web_searches=max(bound.web_searches, seen.web_searches, 0),
        file_searches=max(bound.file_searches, seen.file_searches, 0),
    )
    bounds = [
        rates.upper_bound(bound, searches)
        for price_list in price_lists
        for rates in price_list
        if bound.input_tokens > rates.start
    ]
    return _known(max, bounds)


def _known(choose: Callable[[Iterable[int]], int], bounds: Sequence[int | None]) -> int | None:
    """Choose one of some bounds; None if there is none, or one is not known."""
    known = [bound for bound in bounds if bound is not None]
    return choose(known) if known and len(known) == len(bounds) else None


def rates_of(prices: Mapping[str, Price], unpriced: frozenset[str] = frozenset()) -> Sequence[Rates]:
    """Make the rates of prices, those for the longest prompts first.

    Args:
        prices: Of `EXPRESSIBLE_PRICES` those that are listed.
        unpriced: The names of prices that exist and are not known.

    Returns:
        Nothing if there is no price of input, or one of something that `Usage` cannot express, or if one has more
        decimals than money has, see `units.DECIMALS`.
    """
    if "input_mtok" not in prices or not prices.keys() <= EXPRESSIBLE_PRICES:
        return ()
    starts = {above for price in prices.values() for above, _ in price.beyond}
    try:
        return tuple(
            _rates_beyond(start, {key: price.at(start) for key, price in prices.items()}, unpriced)
            for start in (*sorted(starts, reverse=True), -1)
        )
    except ValueError:  # rounding would be a wrong price
        return ()


def _rates_beyond(start: int, prices: Mapping[str, Decimal], unpriced: frozenset[str]) -> Rates:
    """Make the rates in prompts of more than `start` tokens. Raises ValueError if one has too many decimals."""
    rates = {key: to_units(price.scaleb(-6 if key.endswith("_mtok") else -3, MONEY)) for key, price in prices.items()}
    inputs = [rate for key, rate in rates.items() if key in INPUT_PRICES]
    outputs = [rate for key, rate in rates.items() if key in _OUTPUT_PRICES] or [0]
    plain_input, plain_output = rates["input_mtok"], rates.get("output_mtok", 0)
    cache_read = rates.get("cache_read_mtok", plain_input)
    audio_input = rates.get("input_audio_mtok", plain_input)
    cache_write = rates.get("cache_write_mtok", plain_input)
    unrated = {kind for kind, key in _REQUIRED_PRICES.items() if key not in rates}
    unrated |= {kind for kind, key in _OPTIONAL_PRICES.items() if key in unpriced}
    unlisted_cache_read = 0 if "cache_read_mtok" in rates else plain_input
    return Rates(
        start=start,
        input=plain_input,
        output=plain_output,
        cache_read=cache_read - plain_input,
        cache_write=cache_write - plain_input,
        cache_write_12h=rates.get("cache_write_12h_mtok", cache_write) - cache_write,
        reasoning=rates.get("output_reasoning_mtok", plain_output) - plain_output,
        audio_input=audio_input - plain_input,
        # A cached audio token is counted three times: as input, as cached and as audio.
        audio_cache_read=rates.get("cache_audio_read_mtok", audio_input) - cache_read - audio_input + plain_input,
        audio_output=rates.get("output_audio_mtok", plain_output) - plain_output,
        image_input=rates.get("input_image_mtok", plain_input) - plain_input,
        image_output=rates.get("output_image_mtok", plain_output) - plain_output,
        web_search=rates.get("web_searches_kcount", 0),
        file_search=rates.get("storage_searches_kcount", 0),
        request=rates.get("requests_kcount", 0),
        cheapest_input=0 if unlisted_cache_read or unpriced & INPUT_PRICES else min(inputs),
        cheapest_output=0 if unpriced & _OUTPUT_PRICES else min(outputs),
        dearest_input=None if unpriced & INPUT_PRICES else max(inputs),
        dearest_output=None if unpriced & _OUTPUT_PRICES else max(outputs),
        unrated=tuple(sorted(unrated)),
        unlisted_cache_read=unlisted_cache_read,
        unlisted_audio_cache_read=(0 if "cache_audio_read_mtok" in rates else audio_input) - unlisted_cache_read,
        cache_write_1h=max(rates.get("cache_write_1h_mtok", cache_write) - cache_write, 0),
        always_special=(
            not {"output_tokens", "cache_read_tokens", "reasoning_tokens"}.isdisjoint(unrated)
            or unlisted_cache_read != 0
            or not {"output_reasoning_mtok", "requests_kcount"}.isdisjoint(rates)
        ),
        image_cache_rate="cache_image_read_mtok" in rates,
    )
