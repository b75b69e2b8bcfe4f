"""The requests of a ledger, one by one, and sums of those of which only the day's statistics are kept."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Protocol, TypeAlias

from runmeter.engine import CostEstimate, PriceBook, Provenance, TokenUsage, UsageRow
from runmeter.engine.ledger.days import DayUsage
from runmeter.engine.ledger.reader import RequestRecord

from .counts import NOTHING, Counts, counts_of
from .parts import FREE, Knowledge, LedgerPart, ended_parts, unended_part

_Key: TypeAlias = tuple[date, str | None, str]  # day, project, model as requested
_DAY_NS = 86_400 * 10**9


class LedgerView(Protocol):
    """A ledger, as far as a reconciliation reads it: `LedgerReader` is one."""

    def days(self, since: date | None = None, until: date | None = None) -> Sequence[DayUsage]:
        """Read the statistics by UTC day and cell."""
        ...

    def requests(self, since_ns: int = 0, until_ns: int = 2**63 - 1) -> Iterator[RequestRecord]:
        """Read the requests that left in a time and have ended."""
        ...

    def unended_requests(self) -> Sequence[RequestRecord]:
        """List the requests that have not ended."""
        ...


@dataclass
class _Read:
    """The requests that were read one by one, of a day to one model."""

    exact: Counts = NOTHING
    requests: int = 0
    cost: CostEstimate = FREE
    seen: dict[Provenance, int] = field(default_factory=lambda: defaultdict(int))


class LedgerRequests:
    """Reads a ledger's requests anew each time that it is iterated.

    Args:
        ledger: The ledger.
        first: The first day.
        end: The day after the last one.
        prices: What tokens cost.
        project_tag: The tag that holds the id of a run's OpenAI project; None where no tag does.
        projects: The only projects that count, where a tag tells them; none for all.
    """

    def __init__(
        self,
        ledger: LedgerView,
        first: date,
        end: date,
        prices: PriceBook,
        *,
        project_tag: str | None = None,
        projects: Sequence[str] = (),
    ) -> None:
        self._ledger = ledger
        self._since_ns, self._until_ns = _start_ns(first), _start_ns(end)
        self._prices = prices
        self._tag = project_tag
        self._projects = projects
        # Before the requests: what is written meanwhile must not be taken for requests that are kept no more.
        self._rows = self._read_rows(ledger.days(first, end))

    def __iter__(self) -> Iterator[LedgerPart]:
        """Read the requests: those that ended, those that did not, and sums of those that are kept no more."""
        read: dict[_Key, _Read] = defaultdict(_Read)
        for record in self._ledger.requests(max(self._since_ns - _DAY_NS, 0), self._until_ns):
            event, project = record.ended, self._project(record.run.tags)
            if event is not None:
                parts = list(ended_parts(event, project, self._prices))
                self._count(read[_day(event.start_ns), project, event.model], event)
                yield from self._wanted(parts)
        for record in self._ledger.unended_requests():
            if record.started is not None:
                part = unended_part(record.started, self._project(record.run.tags), self._prices)
                yield from self._wanted([] if part is None else [part])
        for key, row in self._rows.items():
            yield from self._wanted(_kept_as_sum(key, row, read[key]))

    def _wanted(self, parts: Sequence[LedgerPart]) -> Iterator[LedgerPart]:
        for part in parts:
            if self._tag is None or not self._projects or part.project in self._projects:
                yield part

    def _project(self, tags: Mapping[str, str]) -> str | None:
        return None if self._tag is None else tags.get(self._tag)

    def _read_rows(self, days: Sequence[DayUsage]) -> Mapping[_Key, UsageRow]:
        rows: dict[_Key, UsageRow] = {}
        for each in days:
            cell = each.cell
            if cell.model is not None:
                key = each.day, self._project(dict(cell.tags)), cell.model
                rows[key] = rows[key] + cell.row if key in rows else cell.row
        return rows

    def _count(self, read: _Read, event: TokenUsage) -> None:
        read.requests += 1
        read.seen[event.provenance] += 1
        read.cost += self._prices.cost(event)
        if event.provenance is Provenance.REPORTED and event.usage is not None:
            read.exact += counts_of(event.usage)


def _kept_as_sum(key: _Key, row: UsageRow, read: _Read) -> Sequence[LedgerPart]:
    """Sum up the requests of a day's statistics that were not read one by one: their tier is not kept."""
    day, project, model = key
    left = {kind: number - read.seen[kind] for kind, number in row.requests_by_provenance.items()}
    number = sum(count for count in left.values() if count > 0)
    if row.requests <= read.requests or not number:
        return []
    reported = row.usage_by_provenance.get(Provenance.REPORTED)
    usage = NOTHING if reported is None else counts_of(reported, 0) - counts_of(read.exact.usage, 0)
    low = row.cost.low - read.cost.low
    high = None if row.cost.high is None or read.cost.high is None else row.cost.high - read.cost.high
    is_exact = high == low and all(kind is Provenance.REPORTED or count <= 0 for kind, count in left.items())
    start_ns = _start_ns(day)
    return [
        LedgerPart(
            start_ns=start_ns,
            end_ns=start_ns,
            project=project,
            model=model,
            is_answered=False,
            tier=None,
            knowledge=Knowledge.EXACT if is_exact else Knowledge.ESTIMATED,
            counts=Counts(number, usage.usage),
            cost=CostEstimate.between(max(low, 0 * low), high),
        )
    ]


def _day(time_ns: int) -> date:
    return datetime.fromtimestamp(time_ns // 10**9, UTC).date()


def _start_ns(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**9
