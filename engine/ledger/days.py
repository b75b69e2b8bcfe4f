"""Roll-ups of a ledger: the statistics of each UTC day, by pattern, framework, model and tags.

They are folded from the events in the order in which those were written, as the usage aggregator folds them. What
belongs to a request counts on the day in which it left; what belongs to a run, on the day in which that began. Rows
add up exactly, so a day's row grows by what each further stretch of events adds to it.
"""

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from ..events import Event, ExecutionFinished, ExecutionStarted, RunReported, TokenUsage
from ..prices.cost_estimate import CostEstimate
from ..prices.price_book import PriceBook
from ..usage.cell import (
    COUNTED_IN_RUN,
    UNKNOWN,
    Cell,
    count_finish,
    count_reported,
    count_reported_request,
    count_request,
    reported_request,
)
from ..usage.row import CostRecord, UsageCounts, UsageRow
from ..usage.statistics import Key, Tags, UsageCell
from .schema import CHUNK
from .stored_events import decode_events

logger = logging.getLogger("runmeter")

DAY_NS = 86_400 * 10**9
EPOCH = date(1970, 1, 1)

DayKey = tuple[int, Key]
"""A UTC day, counted from 1970-01-01, and the key of a cell."""

decode_row = msgspec.json.Decoder(UsageRow).decode
decode_counts = msgspec.json.Decoder(UsageCounts).decode
decode_cost = msgspec.json.Decoder(CostRecord).decode
decode_tags = msgspec.json.Decoder(dict[str, str]).decode
encode = msgspec.json.Encoder(order="sorted").encode


class DayUsage(msgspec.Struct, frozen=True):
    """The statistics of one cell on one UTC day."""

    day: date
    cell: UsageCell
    inclusive: CostRecord = CostRecord()
    """Of a cell without a model: the cost of its runs with all the runs within them. USD.

    A run that is within another of the same pattern adds nothing here, as it is in that one's: so these costs add up
    over cells of one pattern, each request once.
    """
    outermost: CostRecord = CostRecord()
    """The part of `inclusive` that is of runs within no other: these costs add up over all cells, each request once."""

    def __add__(self, other: "DayUsage") -> "DayUsage":
        cell = msgspec.structs.replace(self.cell, row=self.cell.row + other.cell.row)
        return DayUsage(self.day, cell, self.inclusive + other.inclusive, self.outermost + other.outermost)


class DayCounts(msgspec.Struct, frozen=True):
    """The counts of one cell on one UTC day, or a part of them: they are read sooner than the whole statistics."""

    day: date
    key: Key
    counts: UsageCounts
    inclusive: CostRecord
    """As of `DayUsage`."""
    outermost: CostRecord
    """As of `DayUsage`."""


class _Run(msgspec.Struct, gc=False):
    """A run, as far as its events are counted by it."""

    run_id: str
    key: DayKey
    cell: Cell
    parent: "_Run | None"
    model_cells: dict[tuple[int, str], Cell]


_FREE = CostEstimate()
_NOTHING = UsageRow()


class DayFold:
    """Folds a stretch of a ledger's events. Make one for each stretch.

    Args:
        connection: The ledger, to look up the runs that the events belong to.
        prices: What tokens cost.
    """

    def __init__(self, connection: sqlite3.Connection, prices: PriceBook) -> None:
        self._connection = connection
        self._prices = prices
        self._cells: dict[DayKey, Cell] = {}
        self._inclusive: dict[DayKey, CostEstimate] = {}
        self._outermost: dict[DayKey, CostEstimate] = {}
        self._runs: dict[str, _Run] = {}
        self._has_refused = False
        self.run_costs: dict[str, CostEstimate] = {}
        """The cost that the stretch adds to each run, by run id; that of the runs within it is in it."""

    def fold(self, events: Sequence[Event]) -> None:
        """Count events, all of which are in the ledger. One that makes no sense keeps no other from counting."""
        self._look_up({event.run_id for event in events})
        for event in events:
            try:
                self._count(event)
            except Exception as error:  # as in the usage aggregator
                self._refuse(event, error)

    def _count(self, event: Event) -> None:
        run = self._runs[event.run_id]
        kind = type(event)
        if kind is TokenUsage:
            self._count_request(run, event)
        elif kind is ExecutionStarted:
            run.cell.executions += 1
        elif isinstance(event, ExecutionFinished):
            count_finish(run.cell, event)
        elif isinstance(event, RunReported):
            self._count_reported(run, event)
        elif (count := COUNTED_IN_RUN.get(kind)) is not None:
            count(run, event)

    def _refuse(self, event: Event, error: Exception) -> None:
        if not self._has_refused:
            kind = type(event).__name__
            logger.error("event %d of run %s, a %s, is in no day", event.seq, event.run_id, kind, exc_info=error)
        self._has_refused = True

    def usage(self) -> Iterator[DayUsage]:
        """Make the statistics that the stretch adds, cell by cell."""
        for (day, key), cell in self._cells.items():
            row = cell.row()
            inclusive = self._inclusive.get((day, key), _FREE)
            outermost = self._outermost.get((day, key), _FREE)
            if row != _NOTHING or inclusive != _FREE:
                costs = CostRecord.of(inclusive), CostRecord.of(outermost)
                yield DayUsage(EPOCH + timedelta(day), UsageCell(*key, row), *costs)

    def _count_request(self, run: _Run, event: Any) -> None:
        day = event.start_ns // DAY_NS
        cell = run.model_cells.get((day, event.model)) or self._model_cell(run, day, event.model)
        cost = self._prices.cost(event)
        count_request(cell, event, cost)
        self._add_cost(run, cost)

    def _count_reported(self, run: _Run, event: RunReported) -> None:
        request = reported_request(event)
        cost = None if request is None else self._prices.cost(request)  # all that may raise comes first
        count_reported(run.cell, event)
        if request is not None and cost is not None:
            count_reported_request(self._model_cell(run, run.key[0], request.model), request, cost)
            self._add_cost(run, cost)

    def _add_cost(self, run: _Run, cost: CostEstimate) -> None:
        """Add a cost to a run and to those that it is within, and to their cells once a pattern."""
        outer: dict[str, DayKey] = {}
        each: _Run | None = run
        while each is not None:
            outer[each.key[1][0]] = outermost = each.key
            self.run_costs[each.run_id] = self.run_costs.get(each.run_id, _FREE) + cost
            each = each.parent
        for key in outer.values():
            self._inclusive[key] = self._inclusive.get(key, _FREE) + cost
        self._outermost[outermost] = self._outermost.get(outermost, _FREE) + cost

    def _model_cell(self, run: _Run, day: int, model: str) -> Cell:
        pattern, framework, _, tags = run.key[1]
        cell = run.model_cells[day, model] = self._cell((day, (pattern, framework, model, tags)))
        return cell

    def _cell(self, key: DayKey) -> Cell:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell(key[1])
        return cell

    def _look_up(self, run_ids: set[str]) -> None:
        """Read what is known of runs, and of those that they are within."""
        rows: dict[str, tuple[Any, ...]] = {}
        wanted = run_ids - self._runs.keys()
        while wanted:
            found = read_runs(self._connection, sorted(wanted))
            rows.update((row[0], row[1:]) for row in found)
            wanted = {row[1] for row in found if row[1] is not None} - self._runs.keys() - rows.keys()
        for run_id in rows:
            self._enter(run_id, rows)

    def _enter(self, run_id: str, rows: dict[str, tuple[Any, ...]]) -> None:
        """Enter a run after those that it is within."""
        chain = [run_id]
        while (above := rows[chain[-1]][0]) in rows and above not in self._runs and above not in chain:
            chain.append(above)
        for each in reversed(chain):
            if each not in self._runs:
                above, pattern, framework, tags, start_ns = rows[each]
                key = start_ns // DAY_NS, (pattern or UNKNOWN, framework or UNKNOWN, None, tags_of(tags))
                self._runs[each] = _Run(each, key, self._cell(key), self._runs.get(above), {})


def read_stretch(connection: sqlite3.Connection, after: int, count: int) -> tuple[int, list[Event]]:
    """Read events in the order in which they were written.

    Args:
        connection: The ledger.
        after: The number of the last event that is not wanted.
        count: How many, at most.

    Returns:
        The number of the last event read, and the events.
    """
    rows = connection.execute("SELECT id, data FROM events WHERE id > ? ORDER BY id LIMIT ?", (after, count)).fetchall()
    return (rows[-1][0] if rows else after), decode_events(connection, (data for _, data in rows))


def folded_through(connection: sqlite3.Connection) -> int:
    """Read the number of the last event that is in the roll-ups."""
    return int(connection.execute("SELECT through FROM progress WHERE name = 'days'").fetchone()[0])


def add_usage(connection: sqlite3.Connection, usage: Iterable[DayUsage]) -> None:
    """Add statistics to the roll-ups, within a transaction of the caller's."""
    for each in usage:
        day, cell = (each.day - EPOCH).days, each.cell
        key = (day, cell.pattern, cell.framework, cell.model or "", _json(dict(cell.tags)))
        stored = connection.execute(
            "SELECT row, inclusive, outermost FROM days"
            " WHERE day = ? AND pattern = ? AND framework = ? AND model = ? AND tags = ?",
            key,
        ).fetchone()
        row, inclusive, outermost = cell.row, each.inclusive, each.outermost
        if stored is not None:
            row = decode_row(stored[0]) + row
            inclusive, outermost = decode_cost(stored[1]) + inclusive, decode_cost(stored[2]) + outermost
        connection.execute(
            "INSERT OR REPLACE INTO days VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*key, _json(row), _json(inclusive), _json(outermost)),
        )


def read_days(connection: sqlite3.Connection, first: int, end: int) -> Iterator[DayUsage]:
    """Read the roll-ups of the days from one on to before another, both counted from 1970-01-01."""
    rows = connection.execute(
        "SELECT day, pattern, framework, model, tags, row, inclusive, outermost FROM days WHERE day >= ? AND day < ?",
        (first, end),
    )
    for day, pattern, framework, model, tags, row, inclusive, outermost in rows:
        cell = UsageCell(pattern, framework, model or None, tags_of(tags), decode_row(row))
        yield DayUsage(EPOCH + timedelta(day), cell, decode_cost(inclusive), decode_cost(outermost))


def read_counts(connection: sqlite3.Connection, first: int, end: int) -> Iterator[DayCounts]:
    """Read the counts in the roll-ups of the days from one on to before another, both counted from 1970-01-01."""
    rows = connection.execute(
        "SELECT day, pattern, framework, model, tags, row, inclusive, outermost FROM days WHERE day >= ? AND day < ?",
        (first, end),
    )
    tags_of_text = lru_cache(10_000)(tags_of)
    for day, pattern, framework, model, tags, row, inclusive, outermost in rows:
        key = (pattern, framework, model or None, tags_of_text(tags))
        costs = decode_cost(inclusive), decode_cost(outermost)
        yield DayCounts(EPOCH + timedelta(day), key, decode_counts(row), *costs)


def tags_of(text: str) -> Tags:
    """Read tags as they are kept, in the order of their names."""
    return tuple(sorted(decode_tags(text).items()))


def _json(value: object) -> str:
    return encode(value).decode()


def read_runs(connection: sqlite3.Connection, run_ids: Sequence[str]) -> list[tuple[Any, ...]]:
    """Read runs: id, parent's id, pattern, framework, tags and start."""
    rows: list[tuple[Any, ...]] = []
    for start in range(0, len(run_ids), CHUNK):
        some = run_ids[start : start + CHUNK]
        marks = ",".join("?" * len(some))
        rows += connection.execute(
            "SELECT run_id, parent_run_id, pattern, framework, tags, start_ns"  # noqa: S608 - question marks alone
            f" FROM runs WHERE run_id IN ({marks})",
            some,
        )
    return rows
