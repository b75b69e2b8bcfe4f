"""Reading a ledger: its days, runs, requests and events. Nothing of it can be changed, and its writers are not held up.

Each reading sees the ledger as it was at one moment, in a short transaction: one that stays open would keep the
write-ahead log from being copied into the file.
"""

import socket
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from ..events import Event, ModelCallStarted, Notice, RunReported, Status, TokenUsage
from ..prices.cost_estimate import CostEstimate
from ..prices.price_book import PriceBook
from ..usage.aggregator import UsageAggregator
from ..usage.cell import reported_request
from ..usage.statistics import UsageStatistics
from .days import (
    EPOCH,
    DayCounts,
    DayFold,
    DayUsage,
    decode_tags,
    folded_through,
    read_counts,
    read_days,
    read_stretch,
)
from .processes import is_alive
from .schema import CHUNK, marks, open_for_reading
from .stored_events import decode_events

SILENCE_NS = 900 * 10**9
"""Nanoseconds without a sign of life after which a writer on another host counts as gone."""
PAGE = 1_000
"""Rows that are read in one go."""
_RUN = (
    "id, run_id, root_run_id, parent_run_id, pattern, framework, tags, conversation_id, trace_id, start_ns,"
    " duration_ns, status, error_type, writer, cost_low, cost_high"
)


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as the ledger lists it."""

    number: int
    """The run's number in the ledger: runs are numbered in the order in which they were written."""
    run_id: str
    root_run_id: str | None
    """The outermost run's id; None of a run whose start was never seen."""
    parent_run_id: str | None
    pattern: str | None
    framework: str | None
    tags: Mapping[str, str]
    conversation_id: str | None
    trace_id: str | None
    start_ns: int
    """Nanoseconds since the Unix epoch."""
    duration_ns: int | None
    status: Status | None
    """The way that the run ended; None if it has not."""
    error_type: str | None
    lost: bool
    """It never ended: its process has gone."""
    cost_low: float
    cost_high: float | None
    """Cost in USD with that of the runs within it, as far as it is rolled up and rounded: to sort by, not to bill."""


class RequestRecord(msgspec.Struct, frozen=True):
    """A request to a model, with the run that made it."""

    run: RunRecord
    started: ModelCallStarted | None
    """None if the ledger holds its end alone."""
    ended: TokenUsage | None
    """None if it has not ended: then it may have been billed, up to the bound in `started`."""
    lost: bool
    """It never ended: its process has gone."""


class LedgerReader:
    """Reads a ledger, while others may write it. A context manager; used by one thread at a time.

    Args:
        path: The ledger's file.
        prices: What tokens cost, for what is not rolled up yet.

    Raises:
        LedgerError: there is no ledger, it cannot be read, or is a newer version's.
    """

    def __init__(self, path: str | PathLike[str], prices: PriceBook | None = None) -> None:
        self.path = Path(path)
        self.prices = PriceBook() if prices is None else prices
        self._connection = open_for_reading(self.path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def days(self, since: date | None = None, until: date | None = None) -> list[DayUsage]:
        """Read the statistics by UTC day and cell, in order of days: those from roll-ups and of events since.

        Args:
            since: The first day.
            until: The day after the last one.
        """
        first, end = _span(since, until)
        usage: dict[tuple[Any, ...], DayUsage] = {}
        connection = self._connection
        connection.execute("BEGIN")
        try:
            for each in (*read_days(connection, first, end), *self._rest()):
                if first <= (each.day - EPOCH).days < end:
                    key = (each.day, each.cell.key)
                    usage[key] = usage[key] + each if key in usage else each
        finally:
            connection.execute("COMMIT")
        return [usage[key] for key in sorted(usage, key=_day_order)]

    def counts(self, since: date | None = None, until: date | None = None) -> Iterator[DayCounts]:
        """Read the counts by UTC day and cell, in no order; a cell may come in several parts, which add up.

        Their memory does not grow with the number of days and cells. Until it ends, the ledger's log is not copied
        into its file.

        Args:
            since: The first day.
            until: The day after the last one.
        """
        first, end = _span(since, until)
        connection = self._connection
        connection.execute("BEGIN")
        try:
            yield from read_counts(connection, first, end)
            for each in self._rest():
                if first <= (each.day - EPOCH).days < end:
                    yield DayCounts(each.day, each.cell.key, each.cell.row, each.inclusive, each.outermost)
        finally:
            connection.execute("COMMIT")

    def replay(self) -> UsageStatistics:
        """Fold all events that are kept, as the live engine's aggregator did: the same statistics."""
        aggregator = UsageAggregator(self.prices)
        for events in self._stretches(0):
            aggregator.fold(events)
        return aggregator.snapshot()

    def events(self, run_ids: Sequence[str] | None = None) -> Iterator[Event]:
        """Read events in the order in which they were written.

        Args:
            run_ids: Those of these runs only.
        """
        if run_ids is None:
            for stretch in self._stretches(0):
                yield from stretch
            return
        for start in range(0, len(run_ids), CHUNK):
            some = run_ids[start : start + CHUNK]
            rows = self._connection.execute(
                f"SELECT data FROM events WHERE run IN (SELECT id FROM runs WHERE run_id IN ({marks(some)}))"  # noqa: S608
                " ORDER BY id",
                some,
            ).fetchall()
            yield from decode_events(self._connection, (data for (data,) in rows))

    def lines(self) -> Iterator[str]:
        """Read all events as JSON, in the order in which they were written: an event log has each as a line."""
        after = 0
        while rows := self._connection.execute(
            "SELECT id, data FROM events WHERE id > ? ORDER BY id LIMIT ?", (after, PAGE)
        ).fetchall():
            after = rows[-1][0]
            for _, data in rows:
                yield data

    def events_with_runs(self) -> Iterator[tuple[RunRecord, Event]]:
        """Read all events with the runs that they are of, in the order in which they were written."""
        after = 0
        while rows := self._connection.execute(
            "SELECT id, run, data FROM events WHERE id > ? ORDER BY id LIMIT ?", (after, PAGE)
        ).fetchall():
            after = rows[-1][0]
            runs = self._by_number({run for _, run, _ in rows})
            events = decode_events(self._connection, (data for _, _, data in rows))
            yield from ((runs[run], event) for (_, run, _), event in zip(rows, events, strict=True) if run in runs)

    def priced(self) -> Iterator[TokenUsage]:
        """Read the ends of all requests that are kept; of a run reported by hand, one that stands for all of its."""
        after = 0
        while rows := self._connection.execute(
            "SELECT id, data FROM events WHERE id > ? AND kind IN ('token_usage', 'run_reported') ORDER BY id LIMIT ?",
            (after, PAGE),
        ).fetchall():
            after = rows[-1][0]
            for event in decode_events(self._connection, (data for _, data in rows)):
                request = reported_request(event) if isinstance(event, RunReported) else event
                if isinstance(request, TokenUsage) and (request is event or request.usage is not None):
                    yield request

    def run(self, run_id: str) -> RunRecord | None:
        """Find a run by its id, or by the beginning of it; None if there is none, or there are several."""
        rows = self._connection.execute(
            f"SELECT {_RUN} FROM runs WHERE run_id >= ? AND run_id < ? LIMIT 2",  # noqa: S608 - fixed names
            (run_id, run_id + "g"),  # behind every hexadecimal digit
        ).fetchall()
        return self._records(rows)[0] if len(rows) == 1 else None

    def tree(self, root_run_id: str) -> list[RunRecord]:
        """List a run and all runs within it, in the order in which they began."""
        rows = self._connection.execute(
            f"SELECT {_RUN} FROM runs WHERE root_run_id = ? OR run_id = ? ORDER BY start_ns, id",  # noqa: S608 - fixed names
            (root_run_id, root_run_id),
        ).fetchall()
        return self._records(rows)

    def runs(
        self,
        since_ns: int = 0,
        until_ns: int = 2**63 - 1,
        *,
        pattern: str | None = None,
        status: Status | None = None,
        tags: Mapping[str, str] | None = None,
        outermost: bool = False,
        after: int = 0,
        order: str = "newest",
        limit: int = -1,
    ) -> list[RunRecord]:
        """List runs.

        Args:
            since_ns: The earliest start, in nanoseconds since the Unix epoch.
            until_ns: The time before which they began.
            pattern: Of this pattern only.
            status: That ended in this way only.
            tags: With all of these tags.
            outermost: Without those that are within another.
            after: Those with a higher number than this, which were written later.
            order: `newest`, `oldest`, `slowest` or `dearest` first, or as they were `written`, or the `latest` written.
            limit: How many, at most. -1: all.
        """
        conditions = ["start_ns >= ?", "start_ns < ?"]
        values: list[Any] = [_stored(since_ns), _stored(until_ns)]
        if after:
            conditions.append("id > ?")
            values.append(after)
        filters: list[tuple[str, Any]] = [("pattern = ?", pattern), ("status = ?", status)]
        for condition, value in filters:
            if value is not None:
                conditions.append(condition)
                values.append(value)
        for name, text in (tags or {}).items():
            conditions.append("EXISTS (SELECT 1 FROM json_each(tags) WHERE key = ? AND value = ?)")
            values += [name, text]
        if outermost:
            conditions.append("parent_run_id IS NULL")
        found = self._matching(conditions, values, order, limit)
        if order == "dearest":
            found = self._dearest(found, conditions, values, limit)
        return found

    def numbered(self, numbers: Iterable[int]) -> list[RunRecord]:
        """Read the runs of some numbers."""
        return list(self._by_number(set(numbers)).values())

    def _matching(self, conditions: Sequence[str], values: Sequence[Any], order: str, limit: int) -> list[RunRecord]:
        rows = self._connection.execute(
            f"SELECT {_RUN} FROM runs WHERE {' AND '.join(conditions)} ORDER BY {_ORDERS[order]} LIMIT ?",  # noqa: S608
            (*values, _stored(limit)),
        ).fetchall()
        return self._records(rows)

    def _dearest(
        self, rolled_up: Sequence[RunRecord], conditions: Sequence[str], values: Sequence[Any], limit: int
    ) -> list[RunRecord]:
        """Add what is not rolled up yet to the costs of runs, and find the dearest by these."""
        fold = DayFold(self._connection, self.prices)
        for events in self._stretches(folded_through(self._connection)):
            fold.fold(events)
        found = {run.run_id: run for run in rolled_up}
        for start in range(0, len(changed := sorted(fold.run_costs)), CHUNK):
            some = changed[start : start + CHUNK]
            within = [*conditions, f"run_id IN ({marks(some)})"]
            found |= {run.run_id: run for run in self._matching(within, [*values, *some], "newest", -1)}
        added = [_with_cost(run, fold.run_costs.get(run.run_id)) for run in found.values()]
        added.sort(key=lambda run: (-(run.cost_low if run.cost_high is None else run.cost_high), run.number))
        return added if limit < 0 else added[:limit]

    def unended_runs(self) -> list[RunRecord]:
        """List the runs that have not ended: those under way, and those whose process has gone (`lost`)."""
        rows = self._connection.execute(
            f"SELECT {_RUN} FROM runs WHERE status IS NULL ORDER BY start_ns"  # noqa: S608 - fixed names
        ).fetchall()
        return self._records(rows)

    def unended_requests(self) -> list[RequestRecord]:
        """List the requests that have not ended: those under way, and those whose process has gone (`lost`)."""
        rows = self._connection.execute(
            # CROSS: the few requests are looked up among the many events, and not the other way round.
            "SELECT events.data, open_requests.run, runs.writer FROM open_requests CROSS JOIN events"
            " ON events.run = open_requests.run AND events.seq = open_requests.call_id"
            " CROSS JOIN runs ON runs.id = open_requests.run ORDER BY events.id"
        ).fetchall()
        runs, gone = self._by_number({run for _, run, _ in rows}), _gone_writers(self._connection)
        events = decode_events(self._connection, (data for data, _, _ in rows))
        return [
            RequestRecord(runs[run], event, None, lost=writer in gone)  # its run may have ended before
            for (_, run, writer), event in zip(rows, events, strict=True)
            if run in runs and isinstance(event, ModelCallStarted)
        ]

    def requests(self, since_ns: int = 0, until_ns: int = 2**63 - 1) -> Iterator[RequestRecord]:
        """Read the requests that left in a time and have ended, from the events themselves: slow for millions.

        Args:
            since_ns: The earliest time of leaving, in nanoseconds since the Unix epoch.
            until_ns: The time before which they left.
        """
        after = 0
        while True:
            rows = self._connection.execute(
                "SELECT id, run, data FROM events WHERE id > ? AND kind = 'token_usage' AND time_ns >= ?"
                " ORDER BY id LIMIT ?",
                (after, _stored(since_ns), PAGE),
            ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            runs = self._by_number({run for _, run, _ in rows})
            events = decode_events(self._connection, (data for _, _, data in rows))
            for (_, number, _), event in zip(rows, events, strict=True):
                if number in runs and isinstance(event, TokenUsage) and since_ns <= event.start_ns < until_ns:
                    yield RequestRecord(runs[number], None, event, lost=False)

    def notices(self, since_ns: int = 0, until_ns: int = 2**63 - 1) -> Iterator[tuple[RunRecord, Notice]]:
        """Read the warnings that were given in a time, each with its run, in the order in which they were written.

        Args:
            since_ns: The earliest time, in nanoseconds since the Unix epoch.
            until_ns: The time before which they were given.
        """
        rows = self._connection.execute(
            "SELECT run, data FROM events WHERE kind = 'notice' AND time_ns >= ? AND time_ns < ? ORDER BY id",
            (_stored(since_ns), _stored(until_ns)),
        ).fetchall()
        runs = self._by_number({run for run, _ in rows})
        events = decode_events(self._connection, (data for _, data in rows))
        for (number, _), event in zip(rows, events, strict=True):
            if number in runs and isinstance(event, Notice):
                yield runs[number], event

    def _rest(self) -> Iterator[DayUsage]:
        """Fold the events that are not rolled up yet."""
        fold = DayFold(self._connection, self.prices)
        for events in self._stretches(folded_through(self._connection)):
            fold.fold(events)
        return fold.usage()

    def _stretches(self, after: int) -> Iterator[list[Event]]:
        while True:
            after, events = read_stretch(self._connection, after, PAGE)
            if not events:
                return
            yield events

    def _by_number(self, numbers: set[int]) -> dict[int, RunRecord]:
        found: dict[int, RunRecord] = {}
        for start in range(0, len(wanted := sorted(numbers)), CHUNK):
            some = wanted[start : start + CHUNK]
            rows = self._connection.execute(
                f"SELECT {_RUN} FROM runs WHERE id IN ({marks(some)})",  # noqa: S608 - fixed names
                some,
            ).fetchall()
            found.update(zip((row[0] for row in rows), self._records(rows), strict=True))
        return found

    def _records(self, rows: Sequence[tuple[Any, ...]]) -> list[RunRecord]:
        gone = _gone_writers(self._connection)
        return [_record(row, gone) for row in rows]


_ORDERS = {
    "newest": "start_ns DESC, id DESC",
    "oldest": "start_ns, id",
    "written": "id",
    "latest": "id DESC",
    "slowest": "duration_ns DESC, id",
    "dearest": "coalesce(cost_high, cost_low) DESC, id",  # what has no price is not known to be dear
}


def _record(row: tuple[Any, ...], gone: frozenset[int]) -> RunRecord:
    number, run_id, root, parent, pattern, framework, tags, conversation_id, trace_id, start_ns, duration_ns, *rest = (
        row
    )
    status, error_type, writer, cost_low, cost_high = rest
    return RunRecord(
        number=number,
        run_id=run_id,
        root_run_id=root,
        parent_run_id=parent,
        pattern=pattern,
        framework=framework,
        tags=decode_tags(tags),
        conversation_id=conversation_id,
        trace_id=trace_id,
        start_ns=start_ns,
        duration_ns=duration_ns,
        status=None if status is None else Status(status),
        error_type=error_type,
        lost=status is None and writer in gone,
        cost_low=cost_low,
        cost_high=cost_high,
    )


def _with_cost(run: RunRecord, more: CostEstimate | None) -> RunRecord:
    if more is None:
        return run
    high = None if run.cost_high is None or more.high is None else run.cost_high + float(more.high)
    return msgspec.structs.replace(run, cost_low=run.cost_low + float(more.low), cost_high=high)


def _gone_writers(connection: sqlite3.Connection) -> frozenset[int]:
    """Find the writers that will end no more of their runs: they have said so, or their process has gone."""
    latest = connection.execute("SELECT coalesce(max(seen_ns), 0) FROM writers").fetchone()[0]
    rows = connection.execute("SELECT id, pid, host, born, seen_ns, ended_ns FROM writers").fetchall()
    here = socket.gethostname()
    return frozenset(
        writer
        for writer, pid, host, born, seen_ns, ended_ns in rows
        if ended_ns is not None or (not is_alive(pid, born) if host == here else latest - seen_ns > SILENCE_NS)
    )


def _stored(number: int) -> int:
    """Bring a number into the range of SQLite's: no time in a ledger lies outside it."""
    return max(-(2**63), min(number, 2**63 - 1))


def _span(since: date | None, until: date | None) -> tuple[int, int]:
    """Count the first day and the one after the last from 1970-01-01."""
    return (since - EPOCH).days if since else 0, (until - EPOCH).days if until else 2**31


def _day_order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    day, (pattern, framework, model, tags) = key
    return day, pattern, framework, model is not None, model or "", tags
