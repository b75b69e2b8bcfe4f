"""The price book: costs are exact where the API reported usage, an interval that holds the truth where it did not.

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
from collections.abc import Sequence
from decimal import Decimal
from os import PathLike

import msgspec

from ..events import Provenance, TokenUsage, Usage
from ..models.names import undated
from .cost_estimate import CostEstimate
from .overlay import Overlay, provider_id, read_overlay
from .rates import lower_bound, rates_at, upper_bound
from .readings import is_contradictory, readings
from .sources import ModelPrices, Period, Sources
from .units import to_usd


class Unpriced(msgspec.Struct, frozen=True):
    """A model and tier that a price was asked for and that have none."""

    provider: str
    model: str
    """The model that answered, or the one asked for if that is not known."""
    service_tier: str | None
    times: int
    """Number of times that the price was asked for: at least once for each request."""


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
        self._sources: Sources | None = None
        # Not taken where a price is at hand: `_periods` is only added to or replaced as a whole, and two threads that
        # look up the same price put in equal ones. Held to load once, and to count what has no price.
        self._lock = threading.Lock()
        # By provider, model, the model that answered and tier: names one by one are found sooner than a tuple of them.
        self._periods: dict[str, dict[str, dict[str | None, dict[str | None, Period]]]] = {}
        self._looked_up = 0
        self._unpriced: dict[tuple[str, str, str | None], int] = {}

    @property
    def loaded(self) -> bool:
        """The rates are in memory."""
        return self._sources is not None

    def load(self) -> None:
        """Load the rates into memory: the first call blocks for about half a second, so make it in a worker thread.

        Without it the first request to be priced does the same.
        """
        self._load()

    def cost(self, event: TokenUsage) -> CostEstimate:
        """Compute a request's cost, by the model that answered, or the one asked for if that one has no price.

        - Usage reported by the API has an exact price. The service tier `batch` stands for the Batch API, whose answers
          do not name it themselves.
        - Cached tokens of a model without a listed rate for them cost from nothing to what plain input costs.
        - The usage of a cut stream is a lower bound, so it gives the `low` end: each token at the cheapest rate of its
          direction, since input not reported as cached may still have been, and on the standard tier if that is
          cheaper: OpenAI may serve a request there that asked for priority (its guide "Priority processing", 2026-11).
        - Where usage was not reported and the tier is not known, the cheapest tier that has a price gives the `low` end
          and the dearest the `high` one.
        - Of estimated or unknown usage `low` is 0: it may not have been billed at all.
        - Where usage was not reported, `high` is the `upper_bound` of what the event's `bound` can have cost. It is
          None without a bound, and if more was seen than the bound allows.
        - Usage that contradicts itself, such as more cached tokens than input, costs something between its cheapest and
          its dearest consistent reading, see `readings.py`.
        - Unpriced is what has no published rate (the model, the service tier, a kind of usage), and usage of which no
          reading is consistent. No event makes this method raise.
        """
        # Here is what nearly all requests need, plain text whose rates are at hand, as fast as can be. All else, and
        # whatever is odd about a usage, is for `_cost`, which gives the same answers.
        try:
            period = self._periods[event.provider][event.model][event.response_model][event.service_tier]
        except KeyError:
            return self._cost(event)
        usage, at_ns = event.usage, event.start_ns
        since_ns, until_ns, longest, most_written, input_rate, output_rate, read_rate, write_rate, scale = period.plain
        if (
            usage is None
            or event.provenance is not _REPORTED
            or at_ns < since_ns
            or at_ns >= until_ns
            or event.contradiction is not None
        ):
            return self._cost(event)
        total_input, total_output = usage.input_tokens, usage.output_tokens
        read, written = usage.cache_read_tokens, usage.cache_write_tokens
        if (
            total_input > longest
            or written > most_written
            or read | written | usage.reasoning_tokens < 0  # any of them
            or read + written > total_input
            or usage.reasoning_tokens > total_output
            or usage.cache_write_12h_tokens
            or usage.audio_input_tokens
            or usage.audio_cache_read_tokens
            or usage.audio_output_tokens
            or usage.image_input_tokens
            or usage.image_output_tokens
            or usage.web_searches
            or usage.file_searches
        ):
            return self._cost(event)
        small = total_input * input_rate + total_output * output_rate + read * read_rate + written * write_rate
        units = small * scale
        return CostEstimate(low_units=units, high_units=units)

    def upper_bound(
        self, provider: str, model: str, service_tier: str | None, bound: Usage, at_ns: int
    ) -> Decimal | None:
        """Compute the upper bound in USD of a request that uses at most the tokens of `bound`. None without a price.

        All input counts at the dearest rate of input that the model has (cache writes for 12 hours, audio) and all
        output at the dearest of output, with the dearest prices for long prompts within the bound.

        Fees for searches count as far as `bound` says how many there may be. A request whose tools may search more
        often than that has no bound here, nor what the texts that they find add to the input: both are for the caller
        to limit.

        Args:
            provider: As in events, such as `openai`.
            model: As requested.
            service_tier: As requested. With None and `auto` the project's default decides, so the dearest tier that has
                a price counts.
            bound: Upper bounds of tokens, and of searches.
            at_ns: When it leaves: nanoseconds since the Unix epoch.
        """
        period = self._period(provider, model, None, service_tier, at_ns)
        units = upper_bound(period.dearest, bound, _NOTHING) if period.rates else None
        return None if units is None else to_usd(units)

    def cost_of_sum(
        self, provider: str, model: str, service_tier: str | None, usage: Usage, at_ns: int, *, prompt_tokens: int = 0
    ) -> CostEstimate:
        """Compute the cost of several requests together from the sum of their usage.

        The sum alone does not tell how long each prompt was, so the caller says at which length they are priced.

        Args:
            provider: As in events, such as `openai`.
            model: The model that answered.
            service_tier: The tier that served them.
            usage: The sum of what was reported for them. It counts as of one request where a price has a fee for each.
            at_ns: When they left: nanoseconds since the Unix epoch.
            prompt_tokens: The length of each of the prompts, in tokens. Longer ones may be dearer.

        Returns:
            The cost, an interval where a rate is not known exactly; unpriced if some of the usage has no price.
        """
        period = self._period(provider, model, None, service_tier, at_ns)
        rates = rates_at(period.rates, prompt_tokens)
        price = None if rates is None else rates.price(usage)
        return _UNPRICED if price is None else CostEstimate(low_units=price[0], high_units=price[1])

    def models(self, at_ns: int | None = None) -> Sequence[ModelPrices]:
        """List the models that have a price, by provider and name.

        Args:
            at_ns: When the prices hold: nanoseconds since the Unix epoch. By default now.
        """
        return self._load().models(time.time_ns() if at_ns is None else at_ns)

    def unpriced(self) -> Sequence[Unpriced]:
        """List what has been asked a price for since the book was made and has none, the most frequent first.

        Of more than a thousand different ones the later ones are counted together, under the name `other`.
        """
        with self._lock:
            counts = list(self._unpriced.items())
        return [Unpriced(*key, times) for key, times in sorted(counts, key=lambda item: -item[1])]

    def _cost(self, event: TokenUsage) -> CostEstimate:
        """Compute any request's cost, also one with rates to be looked up, with rare kinds of usage, or an interval."""
        period = self._period(event.provider, event.model, event.response_model, event.service_tier, event.start_ns)
        cost = _priced(event, period)
        if cost is None and event.error_type is not None and event.usage == _NOTHING and event.contradiction is None:
            return CostEstimate()  # refused: nothing costs nothing, whatever the price
        if cost is None:
            self._count_unpriced(event)
            return _UNPRICED
        return cost

    def _count_unpriced(self, event: TokenUsage) -> None:
        key = event.provider, event.response_model or event.model, event.service_tier
        with self._lock:
            if key not in self._unpriced and len(self._unpriced) >= _UNPRICED_SIZE:
                key = _OTHER
            self._unpriced[key] = self._unpriced.get(key, 0) + 1

    def _load(self) -> Sources:
        sources = self._sources
        if sources is None:
            with self._lock:
                sources = self._sources or Sources(self._user)
                self._sources = sources
        return sources

    def _period(self, provider: str, model: str, answered: str | None, tier: str | None, at_ns: int) -> Period:
        """Find a request's rates, which are looked up once and kept for as long as they hold."""
        try:
            period = self._periods[provider][model][answered][tier]
            if period.since_ns <= at_ns < period.until_ns:
                return period
        except KeyError:
            pass  # it is looked up
        period = self._load().period(provider_id(provider), _names(model, answered), tier, at_ns)
        self._looked_up += 1
        if self._looked_up > _MAX_PERIODS:  # model names are the user's: there may be any number
            self._periods, self._looked_up = {}, 1
        self._periods.setdefault(provider, {}).setdefault(model, {}).setdefault(answered, {})[tier] = period
        return period


def _priced(event: TokenUsage, period: Period) -> CostEstimate | None:
    """Compute a request's cost, or None if it has no price."""
    usage = event.usage
    if not period.rates:
        return None
    if usage is not None and event.provenance is _REPORTED:
        if is_contradictory(event):
            return _contradictory(usage, period, event.total_tokens)
        price = _reported(usage, period)
        return None if price is None else CostEstimate(low_units=price[0], high_units=price[1])
    seen = usage if usage is not None and event.provenance is _PARTIAL else _NOTHING
    low = 0 if seen is _NOTHING else lower_bound(period.cheapest, seen)
    if low is None:
        return None
    high = None if event.bound is None else upper_bound(period.dearest, event.bound, seen)
    return CostEstimate(low_units=low, high_units=high)


def _reported(usage: Usage, period: Period) -> tuple[int, int] | None:
    """Price a usage without a contradiction, in units, from low to high; None if some of it has no rate."""
    rates = rates_at(period.rates, usage.input_tokens)
    return None if rates is None else rates.price(usage)


def _contradictory(usage: Usage, period: Period, total_tokens: int | None) -> CostEstimate | None:
    """Price a usage that contradicts itself: from its cheapest to its dearest consistent reading."""
    heard = readings(usage, total_tokens)
    prices = [_reported(reading, period) for reading in heard]
    known = [price for price in prices if price is not None]
    if not known or len(known) < len(prices):
        return None
    low, high = min(low for low, _ in known), max(high for _, high in known)
    if low == high and not heard[0].total_tokens:
        return None  # the only reading is of nothing at all, and that is not what was said
    if low == high:  # what is contradictory is in no number that was kept: tokens of the right number, of unknown kinds
        at_least = lower_bound([period.rates], heard[0])
        at_most = upper_bound([period.rates], heard[0], heard[0])
        if at_least is None or at_most is None:
            return None
        if at_least == at_most:  # all kinds cost the same: then the total that leaves one number is not believed either
            return None if total_tokens is None else _contradictory(usage, period, None)
        return CostEstimate(low_units=at_least, high_units=at_most)
    return CostEstimate(low_units=low, high_units=high)


def _names(requested: str, answered: str | None) -> tuple[str, ...]:
    """Choose the names to look a price up by. If another model answered than was asked for, its price alone counts."""
    if not answered:
        return (requested,)
    return (answered, requested) if undated(answered) == undated(requested) else (answered,)


_UNPRICED = CostEstimate(high_units=None, unpriced=1)
_NOTHING = Usage()
_OTHER = ("other", "other", None)
_REPORTED, _PARTIAL = Provenance.REPORTED, Provenance.PARTIAL
_MAX_PERIODS = 4_096
_UNPRICED_SIZE = 1_000
