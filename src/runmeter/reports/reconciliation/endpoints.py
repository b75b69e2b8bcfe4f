"""Bills from OpenAI's endpoints of usage and costs."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeVar

import msgspec

from runmeter.patterns.openai_client.organization import OrganizationError, OrganizationFigures

from .bill import BilledCost, BilledFigures, BilledUsage, BillError, cost_told, usage_told

T = TypeVar("T")


class _UsageBucket(msgspec.Struct):
    start_time: int
    results: list[dict[str, Any]]


class _Amount(msgspec.Struct):
    value: Decimal | None = None
    currency: str | None = None


class _Cost(msgspec.Struct):
    amount: _Amount | None = None
    line_item: str | None = None
    project_id: str | None = None


class _CostBucket(msgspec.Struct):
    start_time: int
    results: list[_Cost]


class _UsagePage(msgspec.Struct):
    data: list[_UsageBucket]


class _CostPage(msgspec.Struct):
    data: list[_CostBucket]


_GROUPS: Mapping[str, Sequence[str]] = {
    "completions": ("project_id", "model", "service_tier", "batch"),
    "embeddings": ("project_id", "model"),
}


class ToldBill:
    """A bill as OpenAI's endpoints tell it.

    Args:
        figures: Where they are read.
        projects: The only projects that count; none for all.
    """

    def __init__(self, figures: OrganizationFigures, projects: Sequence[str] = ()) -> None:
        self._figures = figures
        self._projects = projects
        self.is_live = True

    def read(self, first: date, end: date) -> BilledFigures:
        """Read the bill of the days from one on to before another.

        Raises:
            BillError: It cannot be read.
        """
        if first >= end:
            return BilledFigures()
        usage, untold = self._usage(first, end, "1d")
        return BilledFigures(usage, list(self._costs(first, end)), untold)

    def minutes(self, day: date) -> Sequence[BilledUsage] | None:
        """Read a day's usage by the minute.

        Raises:
            BillError: It cannot be read.
        """
        return self._usage(day, day + timedelta(1), "1m")[0]

    def _usage(self, first: date, end: date, width: Literal["1d", "1m"]) -> tuple[list[BilledUsage], frozenset[str]]:
        usage: list[BilledUsage] = []
        untold: set[str] = set()
        for figure in ("completions", "embeddings"):
            for page in self._pages(figure, first, end, _UsagePage, width):
                for bucket in page.data:
                    for result in bucket.results:
                        if (told := usage_told(bucket.start_time, result)) is not None:
                            usage.append(told[0])
                            untold |= told[1]
        return usage, frozenset(untold)

    def _costs(self, first: date, end: date) -> Iterator[BilledCost]:
        for page in self._pages("costs", first, end, _CostPage, "1d"):
            for bucket in page.data:
                for cost in bucket.results:
                    amount = cost.amount or _Amount()
                    if amount.currency not in {None, "usd", "USD"}:
                        raise BillError(f"the bill is in {amount.currency}, and a ledger's costs are in USD")
                    yield cost_told(bucket.start_time, cost.line_item, cost.project_id, amount.value)

    def _pages(
        self,
        figure: Literal["completions", "embeddings", "costs"],
        first: date,
        end: date,
        shape: type[T],
        width: Literal["1d", "1m"],
    ) -> Iterator[T]:
        groups = _GROUPS.get(figure, ("project_id", "line_item"))
        try:
            for page in self._figures.pages(
                figure, _start(first), _start(end), group_by=groups, projects=self._projects, width=width
            ):
                yield msgspec.json.decode(page, type=shape)
        except OrganizationError as error:
            raise BillError(str(error)) from None
        except msgspec.DecodeError as error:
            raise BillError(f"the {figure} that were told make no sense: {error}") from None


def _start(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
