"""Savings by prompt caching, and their upper bound, at the rates of the time of each request.

OpenAI caches prompts of 1,024 tokens or more, as far as their beginning was seen before
(developers.openai.com/api/docs/guides/prompt-caching, 2026-11). Which prompts begin alike cannot be told without their
contents, so what could be saved is an upper bound: that of a whole prompt read from the cache, which is never reached.
"""

from collections.abc import Iterator

import msgspec

from runmeter.engine.events import Provenance, TokenUsage, Usage
from runmeter.engine.formats import format_count, format_rough_dollars
from runmeter.engine.prices.cost_estimate import CostEstimate
from runmeter.engine.prices.price_book import PriceBook
from runmeter.engine.prices.units import to_usd

from .advice import MIN_RUNS, Advice, percent

CACHEABLE = 1_024
"""Number of input tokens from which a prompt is cached."""
LITTLE = 0.25
"""The share of cacheable input read from the cache below which more is worth a thought."""
MAX_CELLS = 1_000
"""Patterns with a model that are told apart; further ones are left out."""


class _Cell:
    __slots__ = ("cached", "cost", "input", "long", "possible", "read", "requests", "saved", "unpriced", "writing")

    def __init__(self) -> None:
        self.requests = self.read = self.long = self.input = self.cached = self.unpriced = 0
        self.saved = self.writing = self.possible = self.cost = 0
        """Sums in units of money."""


class CacheSavings:
    """Adds up the savings by cache reads and their upper bounds, by pattern and model."""

    def __init__(self, prices: PriceBook) -> None:
        self._prices = prices
        self._cells: dict[tuple[str, str], _Cell] = {}
        self.left_out = 0
        """Requests of names that there was no room for."""

    def requested(self, pattern: str, event: TokenUsage, cost: CostEstimate) -> None:
        """Count a request that has ended, at this cost. One whose usage the API did not report says nothing here."""
        usage = event.usage
        if usage is None or event.provenance is not Provenance.REPORTED or event.operation == "embeddings":
            return
        key = pattern, event.model
        cell = self._cells.get(key)
        if cell is None:
            if len(self._cells) >= MAX_CELLS:
                self.left_out += 1
                return
            cell = self._cells[key] = _Cell()
        self._count(cell, event, usage, cost.usd_units)

    def _count(self, cell: _Cell, event: TokenUsage, usage: Usage, paid: int | None) -> None:
        cell.requests += 1
        is_long = usage.input_tokens >= CACHEABLE
        cell.read += usage.cache_read_tokens > 0
        if is_long:
            cell.long += 1
            cell.input += usage.input_tokens
            cell.cached += usage.cache_read_tokens
        unread = self._price(event, usage, cache_read_tokens=0, audio_cache_read_tokens=0)
        unwritten = self._price(event, usage, cache_write_tokens=0, cache_write_12h_tokens=0)
        all_read = self._price(
            event,
            usage,
            cache_read_tokens=usage.input_tokens,
            audio_cache_read_tokens=usage.audio_input_tokens,
            cache_write_tokens=0,
            cache_write_12h_tokens=0,
        )
        if paid is None or unread is None or unwritten is None or all_read is None:
            cell.unpriced += 1
            return
        cell.cost += paid
        cell.saved += unread - paid
        cell.writing += paid - unwritten
        if is_long and cell.long > 1:  # the first prompt cannot have been seen before
            cell.possible += max(paid - all_read, 0)

    def _price(self, event: TokenUsage, usage: Usage, **other: int) -> int | None:
        """Compute the request's cost if its cache had worked otherwise, in units of money."""
        if all(getattr(usage, field) == count for field, count in other.items()):
            return self._prices.cost(event).usd_units
        replaced = msgspec.structs.replace(event, usage=msgspec.structs.replace(usage, **other))
        return self._prices.cost(replaced).usd_units

    def advice(self) -> Iterator[Advice]:
        """Tell what was saved in all, and where more could be, most money first."""
        cells = self._cells.items()
        if any(cell.read for _, cell in cells):
            yield self._saved()
        for (pattern, model), cell in sorted(cells, key=lambda item: -item[1].possible):
            if cell.long >= MIN_RUNS and cell.possible > 0 and cell.cached < LITTLE * cell.input:
                yield _possible(f"{pattern} with {model}", cell)

    def _saved(self) -> Advice:
        cells = self._cells.values()
        saved, writing = sum(cell.saved for cell in cells), sum(cell.writing for cell in cells)
        read, requests = sum(cell.read for cell in cells), sum(cell.requests for cell in cells)
        unpriced = sum(cell.unpriced for cell in cells)
        paid = f" Writing to the cache cost {_usd(writing)} more than plain input, so {_net(saved - writing)}."
        return Advice(
            kind="caching_saved",
            subject="prompt caching",
            text=f"Reading from the prompt cache saved {_usd(saved)}: {read:,} of "
            f"{format_count(requests, 'request')} did."
            f"{paid if writing else ''}{_not_priced(unpriced)}",
            figures={"saved_usd": to_usd(saved), "writing_usd": to_usd(writing), "net_usd": to_usd(saved - writing)},
            counts={"requests": requests, "requests_with_cache_reads": read, "unpriced": unpriced},
        )


def _possible(subject: str, cell: _Cell) -> Advice:
    share = cell.cached / cell.input
    return Advice(
        kind="caching_possible",
        subject=subject,
        text=f"{subject}: {cell.long:,} of {format_count(cell.requests, 'request')} had {CACHEABLE:,} input tokens "
        f"or more, and {percent(share)} of that input came from the cache. More caching could have saved at most "
        f"{_usd(cell.possible)} of {_usd(cell.cost)}, if every prompt had been seen before to its end; in truth only "
        f"the beginning that prompts share can be. Let prompts begin with what stays the same."
        f"{_not_priced(cell.unpriced)}",
        figures={
            "possible_usd": to_usd(cell.possible),
            "cost_usd": to_usd(cell.cost),
            "cached_share": share,
            "input_tokens": cell.input,
            "cached_tokens": cell.cached,
        },
        counts={"requests": cell.requests, "cacheable_requests": cell.long, "unpriced": cell.unpriced},
    )


def _usd(units: int) -> str:
    return (
        f"-{format_rough_dollars(float(to_usd(-units)))}" if units < 0 else format_rough_dollars(float(to_usd(units)))
    )


def _net(units: int) -> str:
    return f"caching saved {_usd(units)} in all" if units >= 0 else f"caching cost {_usd(-units)} more in all"


def _not_priced(count: int) -> str:
    return (
        f" {format_count(count, 'request')} without a price {'is' if count == 1 else 'are'} not in this."
        if count
        else ""
    )
