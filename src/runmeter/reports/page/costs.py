"""Costs by day and group: what is known, what lies in an interval, and what has no price."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal

import msgspec

from runmeter.engine import CostEstimate, Usage, UsageCell
from runmeter.engine.ledger.days import DayUsage
from runmeter.engine.usage.statistics import OTHER, OTHER_TAGS

MAX_GROUPS = 7
"""Groups that are told apart, dearest first; all others share one."""
UNTAGGED = "(none)"
"""Stands for the runs without the tag."""


class RequestCost(msgspec.Struct, frozen=True):
    """Requests, and their cost in USD."""

    requests: int = 0
    cost: CostEstimate = CostEstimate()
    doubt: Decimal = Decimal(0)
    """USD between the lower and the upper bound, of that part of the cost which has an upper bound."""

    def __add__(self, other: "RequestCost") -> "RequestCost":
        return RequestCost(self.requests + other.requests, self.cost + other.cost, self.doubt + other.doubt)

    @classmethod
    def of(cls, requests: int, cost: CostEstimate) -> "RequestCost":
        """Make it of a number of requests and their cost."""
        return cls(requests, cost, Decimal(0) if cost.high is None else cost.high - cost.low)


class GroupSum(msgspec.Struct, frozen=True):
    """The sums over one group."""

    group: str
    executions: int
    failures: int
    usage: Usage
    spent: RequestCost
    inclusive: CostEstimate
    """The cost of the group's runs with all the runs within them."""


class CostSplit(msgspec.Struct, frozen=True):
    """The cost by day and group. Groups and days without requests are left out."""

    by: str
    """What makes the groups: `model`, `pattern`, or a tag's name."""
    is_tag: bool
    sums: Sequence[GroupSum]
    """The sums of the groups that are told apart, dearest first, and of all others under `OTHER`."""
    days: Mapping[tuple[date, str], RequestCost]
    """What each group spent on each day, in order of days."""

    @property
    def groups(self) -> Sequence[str]:
        """The names of the groups, dearest first."""
        return [each.group for each in self.sums]

    def day_sums(self) -> Mapping[date, RequestCost]:
        """Sum up the days."""
        sums: defaultdict[date, RequestCost] = defaultdict(RequestCost)
        for (day, _), spent in self.days.items():
            sums[day] += spent
        return dict(sums)


def split_by_model(days: Iterable[DayUsage]) -> CostSplit:
    """Split costs by the model that was asked for."""
    return _split("model", [each for each in days if each.cell.model is not None], lambda cell: str(cell.model))


def split_by_pattern(days: Iterable[DayUsage]) -> CostSplit:
    """Split costs by pattern. What a run used is its own pattern's, not its parent's."""
    return _split("pattern", days, lambda cell: cell.pattern)


def split_by_tag(days: Iterable[DayUsage], name: str) -> CostSplit:
    """Split costs by a tag's value."""

    def value(cell: UsageCell) -> str:
        return OTHER if cell.tags == OTHER_TAGS else dict(cell.tags).get(name, UNTAGGED)

    return _split(name, days, value, is_tag=True)


def tag_names(days: Iterable[DayUsage]) -> Sequence[str]:
    """List the names of tags, in order."""
    return sorted({name for each in days if each.cell.tags != OTHER_TAGS for name, _ in each.cell.tags})


class _Group:
    """The counts of a group."""

    __slots__ = ("executions", "failures", "inclusive", "spent", "usage")

    def __init__(self) -> None:
        self.executions = self.failures = 0
        self.usage = Usage()
        self.spent = RequestCost()
        self.inclusive = CostEstimate()

    def add(self, other: "_Group") -> None:
        self.executions += other.executions
        self.failures += other.failures
        self.usage += other.usage
        self.spent += other.spent
        self.inclusive += other.inclusive


def _split(
    by: str, days: Iterable[DayUsage], group_of: Callable[[UsageCell], str], *, is_tag: bool = False
) -> CostSplit:
    groups: defaultdict[str, _Group] = defaultdict(_Group)
    by_day: defaultdict[tuple[date, str], RequestCost] = defaultdict(RequestCost)
    for each in days:
        group, row = group_of(each.cell), each.cell.row
        counts = groups[group]
        counts.executions += row.executions
        counts.failures += row.failures
        counts.inclusive += each.inclusive.cost
        if row.requests:
            spent = RequestCost.of(row.requests, row.cost)
            counts.usage += row.usage
            counts.spent += spent
            by_day[each.day, group] += spent
    shown = _shown(groups)
    days_shown: defaultdict[tuple[date, str], RequestCost] = defaultdict(RequestCost)
    for (day, group), spent in sorted(by_day.items(), key=lambda item: item[0][0]):
        days_shown[day, group if group in shown else OTHER] += spent
    return CostSplit(by, is_tag, [_sum(group, counts) for group, counts in shown.items()], dict(days_shown))


def _shown(groups: Mapping[str, _Group]) -> Mapping[str, _Group]:
    """The groups that are told apart, dearest first; all others in one."""
    order = sorted((name for name in groups if name != OTHER), key=lambda name: _weight(groups[name]), reverse=True)
    told_apart = order if len(order) <= MAX_GROUPS + (OTHER not in groups) else order[:MAX_GROUPS]
    shown = {name: groups[name] for name in told_apart}
    if len(shown) < len(groups):
        rest = shown[OTHER] = _Group()
        for name in groups.keys() - told_apart:
            rest.add(groups[name])
    return shown


def _weight(counts: _Group) -> tuple[Decimal, int, int]:
    return counts.spent.cost.low + counts.spent.doubt, counts.spent.requests, counts.executions


def _sum(group: str, counts: _Group) -> GroupSum:
    return GroupSum(group, counts.executions, counts.failures, counts.usage, counts.spent, counts.inclusive)
