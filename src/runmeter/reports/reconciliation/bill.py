"""The bill's side: what OpenAI says was used and costs, from its endpoints or from exports of its dashboard.

Sources: openai 3.54.0, `types/admin/organization/usage_completions_response.py` and `usage_costs_params.py`; line items
and exports as public integrations quote them (`priority | gpt-5.6-sol, output, long context`, amounts as numbers or as
text, empty cells for days without costs; 2025-10 to 2026-09).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from runmeter.engine import RunmeterError, Usage

from .counts import Counts, counts_of

_KINDS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "input_cached_tokens",
    "cache_write_tokens": "input_cache_write_tokens",
    "cache_write_12h_tokens": "input_cache_write_12h_tokens",
    "audio_output_tokens": "output_audio_tokens",
    "image_output_tokens": "output_image_tokens",
    "audio_cache_read_tokens": "input_cached_audio_tokens",
}
"""Kinds of `Usage`, and the fields that say the same. Audio and image input is told without what was cached of it."""
_ALWAYS_TOLD = {"input_tokens", "output_tokens"}
_ITEM = re.compile(r"(?:(?P<tier>[^|]+)\| *)?(?P<model>[^,| ]+)(?: \w+)?, .+")
STANDARD = "default"
"""The tier of the requests that name none."""
_TIERS = {None: STANDARD, "": STANDARD, "auto": STANDARD, "standard": STANDARD, "fast": "priority"}
WEB_SEARCHES, FILE_SEARCHES = "web search tool calls", "file search tool calls"
"""Names of what is billed by the call, whatever the model."""


class BillError(RunmeterError):
    """A bill could not be read: the message names the cause and the way out."""


class BilledUsage(msgspec.Struct, frozen=True):
    """Requests that a bill counts together."""

    start: int
    """Start of the time in which they were made: seconds since the Unix epoch."""
    project: str | None
    model: str
    tier: str | None
    counts: Counts

    @property
    def day(self) -> date:
        """The UTC day in which they were made."""
        return day_of(self.start)


class BilledCost(msgspec.Struct, frozen=True):
    """An amount on a bill."""

    day: date
    project: str | None
    item: str
    """The model, or the name of the line where it is of none."""
    usd: Decimal | None
    """None where the bill has the line, and no amount."""


class BilledFigures(msgspec.Struct, frozen=True):
    """A bill: usage and costs by day, as far as it has either."""

    usage: Sequence[BilledUsage] = ()
    costs: Sequence[BilledCost] = ()
    untold: frozenset[str] = frozenset()
    """Kinds of `Usage` that it does not tell of, at least not always."""
    has_usage: bool = True
    has_costs: bool = True
    has_tiers: bool = True

    @property
    def newest(self) -> date | None:
        """The last day of which it tells anything."""
        return max((day for day, _ in self._told), default=None)

    @property
    def projects(self) -> Sequence[str]:
        """The projects that it names."""
        return sorted({project for _, project in self._told if project})

    @property
    def _told(self) -> Iterator[tuple[date, str | None]]:
        yield from ((usage.day, usage.project) for usage in self.usage)
        yield from ((cost.day, cost.project) for cost in self.costs)


class BillSource(Protocol):
    """A source of bills: endpoints, or files."""

    @property
    def is_live(self) -> bool:
        """True if it tells what is billed by now; else it ends where it was written."""
        ...

    def read(self, first: date, end: date) -> BilledFigures:
        """Read the bill of the days from one on to before another.

        Raises:
            BillError: It cannot be read.
        """
        ...

    def minutes(self, day: date) -> Sequence[BilledUsage] | None:
        """Read a day's usage by the minute; None where the source knows days alone.

        Raises:
            BillError: It cannot be read.
        """
        ...


def day_of(seconds: int) -> date:
    """Find the UTC day of a time in seconds since the Unix epoch."""
    return datetime.fromtimestamp(seconds, UTC).date()


def tier_named(name: str | None) -> str:
    """Name a service tier as bills do."""
    return _TIERS.get(name) or str(name)


def usage_told(start: int, result: Mapping[str, Any]) -> tuple[BilledUsage, frozenset[str]] | None:
    """Read one result of usage, with the kinds that it does not tell of. None if it is not of a model.

    Args:
        start: Start of its bucket: seconds since the Unix epoch.
        result: As the endpoint sends it, or a row of an export under the same names.

    Raises:
        ValueError: A count is not a whole number.
    """
    model = result.get("model")
    if not model:
        return None
    told = {kind: _count(result.get(name)) for kind, name in _KINDS.items()}
    for name in ("audio", "image"):
        plain, cached = _count(result.get(f"input_{name}_tokens")), _count(result.get(f"input_cached_{name}_tokens"))
        told[f"{name}_input_tokens"] = None if plain is None else plain + (cached or 0)
    is_embedding = "output_tokens" not in result
    untold = {kind for kind, count in told.items() if count is None} - _ALWAYS_TOLD
    usage = Usage(**{kind: count or 0 for kind, count in told.items()})
    tier = "batch" if str(result.get("batch")).lower() == "true" else tier_named(result.get("service_tier"))
    counts = counts_of(usage, _count(result.get("num_model_requests")) or 0)
    billed = BilledUsage(start, result.get("project_id") or None, model, tier, counts)
    return billed, frozenset() if is_embedding else frozenset(untold)


def cost_told(start: int, line_item: str | None, project: str | None, value: Any) -> BilledCost:
    """Read one amount.

    Raises:
        ArithmeticError: It is not a number.
    """
    amount = None if value in {None, ""} else Decimal(str(value))
    return BilledCost(day_of(start), project or None, item_named(line_item or "(no line item)"), amount)


def item_named(line_item: str) -> str:
    """Name what a line is of: its model, or itself."""
    for name in (WEB_SEARCHES, FILE_SEARCHES):
        if name.removesuffix(" tool calls") in line_item.lower():
            return name
    found = _ITEM.fullmatch(line_item)
    return found["model"] if found else line_item


def sum_costs(costs: Iterable[BilledCost]) -> Decimal | None:
    """Add up amounts. There is no sum of none, nor of one that is not known."""
    amounts = [cost.usd for cost in costs]
    known = [usd for usd in amounts if usd is not None]
    return sum(known, Decimal(0)) if known and len(known) == len(amounts) else None


def _count(value: Any) -> int | None:
    return None if value in {None, ""} else int(value)
