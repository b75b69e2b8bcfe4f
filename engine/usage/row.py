"""Rows of usage statistics, and sums of them."""

from collections.abc import Hashable, Iterable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from ..events import Provenance, Status, Usage
from ..prices.cost_estimate import CostEstimate
from .histogram import HistogramSnapshot, merge

_Group = TypeVar("_Group", bound=Hashable)


class CostRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A cost as rows hold it: in decimals, so that any program can read a row that msgspec has encoded. USD."""

    low: Decimal = Decimal(0)
    high: Decimal | None = Decimal(0)
    unpriced: int = 0

    @classmethod
    def of(cls, cost: CostEstimate) -> "CostRecord":
        """Make the record of a cost."""
        return cls(cost.low, cost.high, cost.unpriced)

    @property
    def cost(self) -> CostEstimate:
        """The cost that was recorded."""
        return CostEstimate.between(self.low, self.high, self.unpriced)

    def __add__(self, other: "CostRecord") -> "CostRecord":
        return CostRecord.of(self.cost + other.cost)


class UsageCounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The counts of some runs and of their requests: of a row, the part that a bill is made of.

    A plain name is a total (`requests`), and `_by_` says how it is made up (`requests_by_provenance`).
    """

    executions: int = 0
    """Number of runs started."""
    by_status: Mapping[Status, int] = {}
    """Number of runs finished, by status."""
    requests_by_provenance: Mapping[Provenance, int] = {}
    """Requests to models that have ended, by how their usage is known."""
    usage_by_provenance: Mapping[Provenance, Usage] = {}
    """Usage of these requests, as far as anything is known of it."""
    cost_record: CostRecord = msgspec.field(default=CostRecord(), name="cost")
    """`cost`, as msgspec encodes it: under that name."""

    @property
    def in_flight(self) -> int:
        """Number of runs started and not finished."""
        return self.executions - sum(self.by_status.values())

    @property
    def successes(self) -> int:
        """Runs that finished with status `ok`."""
        return self.by_status.get(Status.OK, 0)

    @property
    def failures(self) -> int:
        """Runs that ended with an error, out of time, or refused by a budget. Cancelled ones are not among them."""
        return sum(self.by_status.values()) - self.successes - self.cancelled

    @property
    def cancelled(self) -> int:
        """Runs that were stopped from outside: a caller had left, or the engine closed."""
        return self.by_status.get(Status.CANCELLED, 0)

    @property
    def requests(self) -> int:
        """Requests to models that have ended, well or not."""
        return sum(self.requests_by_provenance.values())

    @property
    def usage(self) -> Usage:
        """Usage of the requests, whether the API reported it or not. Requests of unknown usage are not in it."""
        return sum(self.usage_by_provenance.values(), start=Usage())

    @property
    def cost(self) -> CostEstimate:
        """Cost of these requests in USD."""
        return self.cost_record.cost


class UsageRow(UsageCounts, frozen=True, kw_only=True, omit_defaults=True):
    """The sums over some runs. Rows add up. Times are in nanoseconds."""

    run_latency: HistogramSnapshot = HistogramSnapshot()
    errors_by_type: Mapping[str, int] = {}
    """Errors that ended runs, by type. A cancellation is not an error."""
    function_calls_by_name: Mapping[str, int] = {}
    function_errors_by_type: Mapping[str, int] = {}
    function_latency: HistogramSnapshot = HistogramSnapshot()
    assistant_runs: int = 0
    """Work of assistants on threads, well or not."""
    threads_created: int = 0
    """Assistant runs that made their thread."""
    threads_resumed: int = 0
    """Assistant runs that went on with one."""
    assistant_latency: HistogramSnapshot = HistogramSnapshot()
    """Durations of assistant runs, in nanoseconds."""
    retrievals_by_source: Mapping[str, int] = {}
    retrieval_errors_by_type: Mapping[str, int] = {}
    retrieval_latency: HistogramSnapshot = HistogramSnapshot()
    documents_found: int = 0
    """Passages that retrievals found."""
    empty_retrievals: int = 0
    """Retrievals that found nothing; those that failed are not among them."""
    notices_by_kind: Mapping[str, int] = {}
    """Warnings before something becomes an error, by kind, such as of a budget that nears its end."""
    model_latency: HistogramSnapshot = HistogramSnapshot()
    """Durations from a request's start to the end of its answer."""
    first_chunk_latency: HistogramSnapshot = HistogramSnapshot()
    """Durations from a request's start to the first chunk of a streamed answer."""
    request_errors_by_type: Mapping[str, int] = {}

    @property
    def function_calls(self) -> int:
        """Calls of functions, failed ones included."""
        return sum(self.function_calls_by_name.values())

    @property
    def retrievals(self) -> int:
        """Searches for passages, failed ones included."""
        return sum(self.retrievals_by_source.values())

    @property
    def notices(self) -> int:
        """Warnings before something becomes an error."""
        return sum(self.notices_by_kind.values())

    @property
    def p50(self) -> int | None:
        """Median duration of a run, in nanoseconds."""
        return self.run_latency.quantile(0.50)

    @property
    def p95(self) -> int | None:
        """Duration that 95 % of the runs did not exceed, in nanoseconds."""
        return self.run_latency.quantile(0.95)

    @property
    def p99(self) -> int | None:
        """Duration that 99 % of the runs did not exceed, in nanoseconds."""
        return self.run_latency.quantile(0.99)

    def __add__(self, other: "UsageRow") -> "UsageRow":
        return sum_rows((self, other))


def sum_rows(rows: Iterable[UsageRow]) -> UsageRow:
    """Add rows up to one."""
    columns = zip(*(msgspec.structs.astuple(row) for row in rows), strict=True)
    return UsageRow(**dict(zip(UsageRow.__struct_fields__, map(_sum_column, columns), strict=False)))


def group_rows(rows: Iterable[tuple[_Group, UsageRow]]) -> dict[_Group, UsageRow]:
    """Sum rows by group, in order of first appearance."""
    groups: dict[_Group, list[UsageRow]] = {}
    for group, row in rows:
        groups.setdefault(group, []).append(row)
    return {group: sum_rows(members) for group, members in groups.items()}


def _sum_column(values: tuple[Any, ...]) -> Any:
    """Sum up one field: a number, a cost, a histogram, or a table of numbers or usages."""
    first = values[0]
    if isinstance(first, HistogramSnapshot):
        filled = [value for value in values if value.buckets]  # most are empty: what is alone needs no merging
        return merge(filled) if len(filled) > 1 else filled[0] if filled else first
    if not isinstance(first, Mapping):
        return sum(values[1:], start=first)
    table: dict[Any, Any] = {}
    for value in values:
        for key, amount in value.items():
            table[key] = table[key] + amount if key in table else amount
    return table
