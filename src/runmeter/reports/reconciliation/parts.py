"""The ledger's side: its requests to OpenAI, as far as they matter to a bill."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

import msgspec

from runmeter.engine import CostEstimate, ModelCallStarted, PriceBook, Provenance, TokenUsage, Usage

from ..unended import unanswered
from .bill import FILE_SEARCHES, WEB_SEARCHES, day_of, tier_named
from .counts import NOTHING, Counts, counts_of

PROVIDER = "openai"
"""The only provider whose requests are on OpenAI's bill."""
FREE = CostEstimate()
_SECOND_NS = 10**9


class Knowledge(StrEnum):
    """Knowledge that a ledger has of a request's usage."""

    EXACT = "exact"
    """The API reported it."""
    ESTIMATED = "estimated"
    """Counted here, a part of it, or numbers that contradict each other: the cost is an interval."""
    UNENDED = "unended"
    """The request left, and no answer is known: it may have been billed."""


class LedgerPart(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A request of the ledger, or several of which only the sum is kept."""

    start_ns: int
    """The time that it left: nanoseconds since the Unix epoch."""
    end_ns: int
    """The time that it ended; of one that did not, the time that it left."""
    is_by_end: bool = False
    """It counts on the day in which it ended, not on that in which it left."""
    project: str | None = None
    """The project's id; None where the ledger does not say."""
    model: str
    """The model that answered, or the one asked for; or the name of what is billed by the call."""
    is_answered: bool
    """The model is the one that answered."""
    tier: str | None = None
    """The tier that served it; None where that is not kept."""
    knowledge: Knowledge
    counts: Counts
    """Its usage; a lower bound where that is not known exactly."""
    bound: Counts | None = None
    """The upper bound where the usage is not known exactly; None if there is none."""
    cost: CostEstimate
    """Cost in USD."""

    @property
    def day(self) -> date:
        """The UTC day on which it counts."""
        return day_of((self.end_ns if self.is_by_end else self.start_ns) // _SECOND_NS)


@dataclass
class LedgerDay:
    """The requests of a day to one model, in one project."""

    day: date
    project: str | None
    model: str
    exact: dict[str | None, Counts] = field(default_factory=lambda: defaultdict(lambda: NOTHING))
    """Usage that is known exactly, by tier."""
    cost: CostEstimate = FREE
    """Cost of that usage."""
    uncertain: list[LedgerPart] = field(default_factory=list)
    """The requests whose usage is not known exactly."""

    def add(self, part: LedgerPart) -> None:
        """Count a part of the day."""
        if part.knowledge is Knowledge.EXACT:
            self.exact[part.tier] += part.counts
            self.cost += part.cost
        else:
            self.uncertain.append(part)

    @property
    def whole_cost(self) -> CostEstimate:
        """The cost of all requests, those of uncertain usage included."""
        return sum((part.cost for part in self.uncertain), self.cost)


def ended_parts(event: TokenUsage, project: str | None, prices: PriceBook) -> Iterator[LedgerPart]:
    """Read a request that ended: what its tokens are, and what was billed by the call.

    A request that was refused is none: nothing of it is billed.
    """
    usage = event.usage
    if event.provider != PROVIDER or (usage == Usage() and event.error_type and event.contradiction is None):
        return
    is_exact = event.provenance is Provenance.REPORTED and usage is not None and event.contradiction is None
    tokens = event if usage is None else msgspec.structs.replace(event, usage=_without_searches(usage))
    part = LedgerPart(
        start_ns=event.start_ns,
        end_ns=event.start_ns + event.duration_ns,
        project=project,
        model=event.response_model or event.model,
        is_answered=event.response_model is not None,
        tier=tier_named(event.service_tier),
        knowledge=_knowledge(event, is_exact=is_exact),
        counts=Counts(1) if usage is None else counts_of(usage),
        bound=None if event.bound is None else counts_of(event.bound),
        cost=prices.cost(tokens),
    )
    yield part
    if usage is None or tokens.usage == usage:
        return
    for name, kind in ((WEB_SEARCHES, "web_searches"), (FILE_SEARCHES, "file_searches")):
        if number := getattr(usage, kind):
            fee = prices.cost(msgspec.structs.replace(event, usage=Usage(**{kind: number}), contradiction=None))
            yield msgspec.structs.replace(part, model=name, is_answered=True, counts=NOTHING, cost=fee)


def unended_part(event: ModelCallStarted, project: str | None, prices: PriceBook) -> LedgerPart | None:
    """Read a request that never ended; None if it is not on OpenAI's bill."""
    if event.provider != PROVIDER:
        return None
    return next(ended_parts(unanswered(event), project, prices))


def ledger_day(key: tuple[date, str | None, str], parts: Iterable[LedgerPart]) -> LedgerDay:
    """Add up the parts of one day, project and model."""
    day = LedgerDay(*key)
    for part in parts:
        day.add(part)
    return day


def ledger_days(parts: Iterable[LedgerPart]) -> Mapping[tuple[date, str | None, str], LedgerDay]:
    """Add up parts by day, project and model."""
    days: dict[tuple[date, str | None, str], LedgerDay] = {}
    for part in parts:
        key = part.day, part.project, part.model
        day = days.get(key)
        if day is None:
            day = days[key] = LedgerDay(*key)
        day.add(part)
    return days


def _knowledge(event: TokenUsage, *, is_exact: bool) -> Knowledge:
    if is_exact:
        return Knowledge.EXACT
    is_unanswered = event.provenance is Provenance.UNKNOWN and (event.error_type or not event.response_id)
    return Knowledge.UNENDED if is_unanswered else Knowledge.ESTIMATED


def _without_searches(usage: Usage) -> Usage:
    return msgspec.structs.replace(usage, web_searches=0, file_searches=0)
