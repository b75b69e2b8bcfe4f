"""The usage aggregator: every event is folded into one cell, and any statistic is a sum of cells.

There is one cell for each pattern, framework, set of tags and model. What belongs to a run as a whole (its status, its
tools, its retrievals) goes to its cell without a model, what belongs to a request to the cell with the model. Because
an event counts in just one cell, all the sums agree: per pattern, per tag and in total each token counts once, however
runs nest.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ConfigurationError
from ..events import (
    Event,
    ExecutionFinished,
    ExecutionStarted,
    RunReported,
    TokenUsage,
    UnknownEvent,
)
from ..prices.cost_estimate import CostEstimate
from ..prices.price_book import PriceBook
from ..validation.checks import check_kind
from .cell import (
    COUNTED_IN_RUN,
    UNKNOWN,
    Cell,
    count_finish,
    count_reported,
    count_reported_request,
    count_request,
    reported_request,
)
from .row import UsageRow
from .sequence import SeqWindow
from .statistics import OTHER, OTHER_TAGS, Key, UsageStatistics, statistics_of

logger = logging.getLogger("runmeter")

RECENT_RUNS = 4_096
"""Finished runs of which stragglers and duplicates are still recognized."""


_NOTHING = UsageRow()


class _Run(SeqWindow, kw_only=True, gc=False):
    """A run's cell, and the numbers of its events that were counted."""

    cell: Cell
    started: bool = False
    finished: bool = False


class UsageAggregator:
    """Folds events into statistics. Safe to share between threads, and between engines.

    A forked process begins with its parent's counts: give it an aggregator of its own, or adding the two counts twice.

    Events may come duplicated, and a run's events out of order: each counts once. Memory depends neither on how many
    runs there were nor on how many names they use: see `max_keys`, `MAX_NAMES` and `RECENT_RUNS`.

    Args:
        prices: What tokens cost; by default genai-prices.
        max_keys: Cells at most. When three quarters are taken, runs with further sets of tags share one cell for each
            pattern, framework and model, with tags `OTHER`; when all are, further runs share a single row.

    Raises:
        ValueError: `max_keys` is less than 8.
    """

    def __init__(self, prices: PriceBook | None = None, max_keys: int = 2_000) -> None:
        given: object = max_keys
        if isinstance(given, bool) or not isinstance(given, int) or given < 8:
            raise ConfigurationError(f"max_keys must be a whole number, at least 8, is {given!r:.100}")
        if prices is not None:
            check_kind("prices", prices, PriceBook, "a PriceBook, such as `PriceBook('prices.toml')`")
        self.prices = PriceBook() if prices is None else prices
        self._max_keys = max_keys
        self._cells: dict[Key, Cell] = {}
        self._strays = self._cell((UNKNOWN, UNKNOWN, None, ()))
        self._runs: dict[str, _Run] = {}
        self._recent: deque[str] = deque()
        self._sources: tuple[Callable[[], None], ...] = ()
        self._uncounted = self._unknown = 0
        self._lock = threading.RLock()  # a signal handler may ask for a snapshot while its own thread folds
        self._fold_one: dict[type, Callable[[_Run, Any], None]] = {
            ExecutionStarted: self._execution_started,
            TokenUsage: self._token_usage,
            **COUNTED_IN_RUN,
            ExecutionFinished: self._execution_finished,
            RunReported: self._run_reported,
            UnknownEvent: self._unknown_event,
        }

    def fold(self, events: Sequence[Event]) -> None:
        """Count a batch of events."""
        runs, fold_one = self._runs, self._fold_one
        with self._lock:
            for event in events:
                run = runs.get(event.run_id)
                if run is None:
                    run = self._meet(event)
                if event.seq == run.next_seq and run.ahead is None:
                    run.next_seq += 1
                elif not run.takes(event.seq):
                    continue
                fold = fold_one.get(type(event))  # a dict by class: `match` costs ten times as much
                if fold is not None:
                    try:
                        fold(run, event)
                    except Exception as error:  # one event that makes no sense must not keep others from counting
                        self._refuse(event, error)

    def snapshot(self) -> UsageStatistics:
        """Compute the statistics so far, with all that the sources followed have published until now."""
        # Before the lock and not under it: a source takes its subscription's lock and then, in `fold`, this one, as the
        # bus does when it delivers. In the other order the two threads could wait for each other for ever.
        for catch_up in self._sources:
            catch_up()
        with self._lock:
            rows = [(key, cell.row()) for key, cell in self._cells.items()]
            uncounted, unknown = self._uncounted, self._unknown
        return statistics_of(((key, row) for key, row in rows if row != _NOTHING), uncounted, unknown)

    def follow(self, catch_up: Callable[[], None]) -> None:
        """Have a source hand over, by calling `fold`, what is pending before each snapshot."""
        with self._lock:
            self._sources += (catch_up,)

    def unfollow(self, catch_up: Callable[[], None]) -> None:
        """Ask this source no more. One that is not followed is not an error."""
        with self._lock:
            self._sources = tuple(source for source in self._sources if source != catch_up)

    def _refuse(self, event: Event, error: Exception) -> None:
        if not self._uncounted:
            logger.error(
                "event %d of run %s, a %s, could not be counted; more of them are only added up",
                event.seq,
                event.run_id,
                type(event).__name__,  # and not all of it: an error's message may quote what the run is about
                exc_info=error,
            )
        self._uncounted += 1

    def _meet(self, event: Event) -> _Run:
        """Take up a run. If this is not its start, it is a stray, and need not be remembered for long."""
        run = self._runs[event.run_id] = _Run(cell=self._strays)
        if type(event) is not ExecutionStarted:
            self._remember(event.run_id)
        return run

    def _remember(self, run_id: str) -> None:
        """Keep a run that is over for its stragglers, and forget the one kept longest."""
        recent = self._recent
        recent.append(run_id)
        if len(recent) > RECENT_RUNS:
            run = self._runs.get(oldest := recent.popleft())
            if run is not None and (run.finished or not run.started):  # else its start came after other events
                del self._runs[oldest]

    def _execution_started(self, run: _Run, event: ExecutionStarted) -> None:
        if run.started or run.finished:  # then it was counted among the strays
            return
        tags = tuple(sorted(event.tags.items())) if event.tags else ()
        run.started = True
        run.cell = self._cell((event.pattern, event.framework, None, tags))
        run.cell.executions += 1

    def _execution_finished(self, run: _Run, event: ExecutionFinished) -> None:
        if run.finished:
            return
        run.finished = True
        cell = run.cell
        if run.started:
            self._remember(event.run_id)
        else:
            cell.executions += 1
        count_finish(cell, event)

    def _token_usage(self, run: _Run, event: TokenUsage) -> None:
        cell = run.cell.models.get(event.model) or self._model_cell(run.cell, event.model)
        count_request(cell, event, self.prices.cost(event))

    def _unknown_event(self, run: _Run, event: UnknownEvent) -> None:
        self._unknown += 1

    def _run_reported(self, run: _Run, event: RunReported) -> None:
        if run.started or run.finished:
            return
        request = reported_request(event)
        cost = CostEstimate() if request is None else self.prices.cost(request)
        run.started = run.finished = True
        cell = run.cell = self._cell((event.pattern, event.framework, None, ()))
        count_reported(cell, event)
        if request is not None:
            count_reported_request(self._model_cell(cell, request.model), request, cost)

    def _model_cell(self, runs: Cell, model: str) -> Cell:
        """Find the cell for requests to a model by runs of another cell."""
        pattern, framework, _, tags = runs.key
        key = (pattern, framework, model, tags)
        cell = self._cell(key)
        if cell.key == key:
            runs.models[model] = cell
        return cell

    def _cell(self, key: Key) -> Cell:
        """Find the cell of a key, or the one that stands in for it where there is no room."""
        cell = self._cells.get(key)
        if cell is not None:
            return cell
        pattern, framework, model, tags = key
        taken = len(self._cells)
        if tags and tags != OTHER_TAGS:
            fits = taken < self._max_keys * 3 // 4
            stand_in: Key = (pattern, framework, model, OTHER_TAGS)
        else:
            fits = taken < self._max_keys - 2  # the last stand-ins: one for runs, one for requests
            stand_in = (OTHER, OTHER, None if model is None else OTHER, OTHER_TAGS)
        if not fits and key != stand_in:
            return self._cell(stand_in)
        cell = self._cells[key] = Cell(key)
        return cell
