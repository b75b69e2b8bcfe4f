"""The bill: what runs used and cost in a time, by day, pattern, framework, model and tags. What is not known is an
interval, or counted as such, and never zero.

A request is on the day in which it left, a run on that in which it began; days are UTC days. `cost` is of the line's
own requests: over the lines, each request is in it once. `inclusive` is of the line's runs with all the runs within
them; a run within another adds to it no second time.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TypeAlias

import msgspec

from runmeter.engine import ConfigurationError, CostEstimate, PriceBook, Provenance, Status, Usage
from runmeter.engine.ledger.days import DAY_NS, EPOCH, DayCounts
from runmeter.engine.ledger.reader import RequestRecord
from runmeter.engine.usage.statistics import Key

from .unended import unanswered

Group: TypeAlias = tuple[str | None, ...]
TAG = "tag:"
COLUMNS = ("day", "pattern", "framework", "model")
"""Names that a bill may be broken down by, besides tags."""
FILTERS = COLUMNS[1:]
"""Names that may be filtered by, besides tags."""


class BillQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The question that a bill answers.

    Args:
        by: What lines are told apart by: `day`, `pattern`, `framework`, `model`, `tag:NAME`.
        since: The first UTC day; None: all days.
        until: The UTC day after the last.
        where: What is counted alone: a value for each of some names, `day` excepted.

    Raises:
        ConfigurationError: there is no such name, or no day is left.
    """

    by: Sequence[str] = ()
    since: date | None = None
    until: date | None = None
    where: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        for asked, names in ((self.by, COLUMNS), (self.where, FILTERS)):
            for name in asked:
                if name not in names and not name.removeprefix(TAG) != name != TAG:
                    raise ConfigurationError(f"{name!r:.100} is none of {', '.join(names)} and {TAG}NAME")
        if self.since and self.until and self.since >= self.until:
            raise ConfigurationError(
                f"no day from {self.since} to before {self.until}: until is the day after the last"
            )

    @property
    def has_runs(self) -> bool:
        """Whether lines have runs: no run is of one model."""
        return "model" not in self.by and "model" not in self.where

    def takes(self, key: Key) -> bool:
        """Tell whether a cell is asked for."""
        if key[2] is None and not self.has_runs:
            return False
        return all(_value(name, key) == value for name, value in self.where.items())

    def group(self, day: date, key: Key) -> Group:
        """Choose the line of a cell."""
        return tuple(day.isoformat() if name == "day" else _value(name, key) for name in self.by)


class BillLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a bill, or its sum."""

    group: Group
    """The values that set it apart, in the order of the query; None where there is none, such as of a tag."""
    runs: int | None
    """Runs that began; None where lines are of models, as a run is not of one."""
    failures: int | None
    cancelled: int | None
    requests: Mapping[Provenance, int]
    """Requests that have ended, by how their usage is known."""
    usage: Usage | None
    """Tokens, as far as they are known; None where nothing is, of no request."""
    cost: CostEstimate
    """Cost of these requests, in USD."""
    inclusive: CostEstimate | None
    """Cost of the runs with all the runs within them, in USD; None where lines are of models."""
    unended: int
    """Requests that left and never ended, or not yet. They may be billed, and are in neither of the costs above."""
    unended_cost: CostEstimate
    """Cost of those, in USD: from 0 to their upper bounds."""

    @property
    def is_lower_bound(self) -> bool:
        """Whether more tokens may have been used than are known: some request did not tell all."""
        known = self.requests
        return bool(known.get(Provenance.UNKNOWN) or known.get(Provenance.PARTIAL) or self.unended)


class UsageBill:
    """Adds up a bill. Its memory grows with its lines alone.

    Args:
        query: What is asked.
    """

    def __init__(self, query: BillQuery) -> None:
        self.query = query
        self.lost = 0
        """Requests that never ended, as their process has gone."""
        self._sums: dict[Group, _Sum] = {}

    def add(self, counts: DayCounts) -> None:
        """Add counts of a cell, if they are asked for. The days are for the caller to choose."""
        if self.query.takes(counts.key):
            self._sum(counts.day, counts.key).add(counts)

    def add_unended(self, request: RequestRecord, prices: PriceBook) -> None:
        """Add a request that has not ended, if it is asked for: it costs from nothing to its upper bound."""
        started, query = request.started, self.query
        if started is None:
            return
        run = request.run
        day = date.fromordinal(EPOCH.toordinal() + started.time_ns // DAY_NS)
        key: Key = (run.pattern or "unknown", run.framework or "unknown", started.model, tuple(run.tags.items()))
        if (query.since and day < query.since) or (query.until and day >= query.until) or not query.takes(key):
            return
        cost = prices.cost(unanswered(started))
        self._sum(day, key).add_unended(cost)
        self.lost += request.lost

    def lines(self) -> Sequence[BillLine]:
        """List the lines in the order of their values; what has none comes last."""
        query = self.query
        of_pattern = "pattern" in query.by or "pattern" in query.where
        return [self._line(group, self._sums[group], of_pattern=of_pattern) for group in sorted(self._sums, key=_order)]

    def total(self) -> BillLine:
        """Sum up all lines."""
        whole = _Sum()
        for each in self._sums.values():
            whole.merge(each)
        return self._line((None,) * len(self.query.by), whole, of_pattern="pattern" in self.query.where)

    def _sum(self, day: date, key: Key) -> "_Sum":
        group = self.query.group(day, key)
        found = self._sums.get(group)
        if found is None:
            found = self._sums[group] = _Sum()
        return found

    def _line(self, group: Group, of: "_Sum", *, of_pattern: bool) -> BillLine:
        """Make a line. Its inclusive cost has each request once: if its runs are of one pattern, or if they are not."""
        has_runs = self.query.has_runs
        return BillLine(
            group=group,
            runs=of.runs if has_runs else None,
            failures=of.failures if has_runs else None,
            cancelled=of.cancelled if has_runs else None,
            requests=dict(of.requests),
            usage=of.usage if of.usage is not None or of.requests else Usage(),
            cost=of.cost,
            inclusive=(of.inclusive if of_pattern else of.outermost) if has_runs else None,
            unended=of.unended,
            unended_cost=of.unended_cost,
        )


class _Sum:
    """A line's counts so far."""

    __slots__ = (
        "cancelled",
        "cost",
        "failures",
        "inclusive",
        "outermost",
        "requests",
        "runs",
        "unended",
        "unended_cost",
        "usage",
    )

    def __init__(self) -> None:
        self.runs = self.failures = self.cancelled = self.unended = 0
        self.requests: dict[Provenance, int] = {}
        self.usage: Usage | None = None
        self.cost = self.inclusive = self.outermost = self.unended_cost = CostEstimate()

    def add(self, counts: DayCounts) -> None:
        row = counts.counts
        self.runs += row.executions
        ended = row.by_status
        if ended:
            cancelled = ended.get(Status.CANCELLED, 0)
            self.failures += sum(ended.values()) - ended.get(Status.OK, 0) - cancelled
            self.cancelled += cancelled
        for provenance, number in row.requests_by_provenance.items():
            self.requests[provenance] = self.requests.get(provenance, 0) + number
        for usage in row.usage_by_provenance.values():
            self.usage = usage if self.usage is None else self.usage + usage
        self.cost += row.cost
        self.inclusive += counts.inclusive.cost
        self.outermost += counts.outermost.cost

    def add_unended(self, cost: CostEstimate) -> None:
        self.unended += 1
        self.unended_cost += cost

    def merge(self, other: "_Sum") -> None:
        self.runs += other.runs
        self.failures += other.failures
        self.cancelled += other.cancelled
        for provenance, number in other.requests.items():
            self.requests[provenance] = self.requests.get(provenance, 0) + number
        if other.usage is not None:
            self.usage = other.usage if self.usage is None else self.usage + other.usage
        self.cost += other.cost
        self.inclusive += other.inclusive
        self.outermost += other.outermost
        self.unended += other.unended
        self.unended_cost += other.unended_cost


def _value(name: str, key: Key) -> str | None:
    if name.startswith(TAG):
        return dict(key[3]).get(name.removeprefix(TAG))
    return key[COLUMNS.index(name) - 1]  # type: ignore[return-value] # the tags come last


def _order(group: Group) -> tuple[tuple[bool, str], ...]:
    return tuple((value is None, value or "") for value in group)
