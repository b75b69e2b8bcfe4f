"""The usage aggregator: every event is folded into one cell, and any statistic is a sum of cells.

There is one cell for each pattern, framework, set of tags and model. What belongs to a run as a whole (its status, its
tools, its retrievals) goes to its cell without a model, what belongs to a request to the cell with the model. Because
an event counts in just one cell, all the sums agree: per pattern, per tag and in total each token counts once, however
runs nest.
"""

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any

from ..events import (
    AssistantRun,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    Notice,
    Provenance,
    Retrieval,
    RunReported,
    Status,
    TokenUsage,
    UnknownEvent,
    Usage,
)
from ..prices.cost_estimate import CostEstimate
from ..prices.price_book import PriceBook
from .histogram import Histogram
from .row import CostRecord, UsageRow
from .sequence import SeqWindow
from .statistics import OTHER, OTHER_TAGS, Key, UsageStatistics, statistics_of

logger = logging.getLogger("runmeter")

UNKNOWN = "unknown"
"""Pattern and framework of runs whose start was never seen."""
MAX_NAMES = 100
"""Different functions, sources of retrievals, kinds of notices, and types of error that a cell tells apart."""
REPORTED = "(reported)"
"""Stands for the functions that a run reported by hand has called: their names are not known."""
RECENT_RUNS = 4_096
"""Finished runs of which stragglers and duplicates are still recognized."""


class _Cell:
    """A cell's counts, of which a row is made."""

    __slots__ = (
        "assistant_latency",
        "assistant_runs",
        "cost",
        "documents_found",
        "empty_retrievals",
        "errors",
        "executions",
        "first_chunk_latency",
        "function_calls",
        "function_errors",
        "function_latency",
        "key",
        "model_latency",
        "models",
        "notices",
        "request_errors",
        "requests",
        "retrieval_errors",
        "retrieval_latency",
        "retrievals",
        "run_latency",
        "statuses",
        "threads_created",
        "threads_resumed",
        "usage",
    )

    def __init__(self, key: Key) -> None:
        self.key = key
        self.models: dict[str, _Cell] = {}
        """The cells of a run's requests, by model, where these have their own."""
        self.executions = self.assistant_runs = self.threads_created = self.threads_resumed = 0
        self.statuses: defaultdict[Status, int] = defaultdict(int)
        self.errors: dict[str, int] = {}
        self.function_calls: dict[str, int] = {}
        self.function_errors: dict[str, int] = {}
        self.retrievals: dict[str, int] = {}
        self.retrieval_errors: dict[str, int] = {}
        self.notices: dict[str, int] = {}
        self.documents_found = self.empty_retrievals = 0
        self.requests: defaultdict[Provenance, int] = defaultdict(int)
        self.request_errors: dict[str, int] = {}
        self.usage: dict[Provenance, Usage] = {}
        self.cost = CostEstimate()
        self.run_latency = Histogram()
        self.function_latency = Histogram()
        self.assistant_latency = Histogram()
        self.retrieval_latency = Histogram()
        self.model_latency = Histogram()
        self.first_chunk_latency = Histogram()

    def row(self) -> UsageRow:
        return UsageRow(
            executions=self.executions,
            by_status=dict(self.statuses),
            run_latency=self.run_latency.snapshot(),
            errors_by_type=dict(self.errors),
            function_calls_by_name=dict(self.function_calls),
            function_errors_by_type=dict(self.function_errors),
            function_latency=self.function_latency.snapshot(),
            assistant_runs=self.assistant_runs,
            threads_created=self.threads_created,
            threads_resumed=self.threads_resumed,
            assistant_latency=self.assistant_latency.snapshot(),
            retrievals_by_source=dict(self.retrievals),
            retrieval_errors_by_type=dict(self.retrieval_errors),
            retrieval_latency=self.retrieval_latency.snapshot(),
            documents_found=self.documents_found,
            empty_retrievals=self.empty_retrievals,
            notices_by_kind=dict(self.notices),
            requests_by_provenance=dict(self.requests),
            usage_by_provenance=dict(self.usage),
            cost_record=CostRecord.of(self.cost),
            model_latency=self.model_latency.snapshot(),
            first_chunk_latency=self.first_chunk_latency.snapshot(),
            request_errors_by_type=dict(self.request_errors),
        )


def _count(counts: dict[str, int], name: str, number: int = 1) -> None:
    if name not in counts and len(counts) >= MAX_NAMES:
        name = OTHER
    counts[name] = counts.get(name, 0) + number


_NOTHING = UsageRow()
_NOTHING_USED = Usage()


class _Run(SeqWindow, kw_only=True, gc=False):
    """A run's cell, and the numbers of its events that were counted."""

    cell: _Cell
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
        if max_keys < 8:
            raise ValueError(f"max_keys must be at least 8, is {max_keys}")
        self.prices = PriceBook() if prices is None else prices
        self._max_keys = max_keys
        self._cells: dict[Key, _Cell] = {}
        self._strays = self._cell((UNKNOWN, UNKNOWN, None, ()))
        self._runs: dict[str, _Run] = {}
        self._recent: deque[str] = deque()
        self._sources: tuple[Callable[[], None], ...] = ()
        self._uncounted = self._unknown = 0
        self._lock = threading.RLock()  # a signal handler may ask for a snapshot while its own thread folds
        self._fold_one: dict[type, Callable[[_Run, Any], None]] = {
            ExecutionStarted: self._execution_started,
            TokenUsage: self._token_usage,
            FunctionCall: self._function_call,
            AssistantRun: self._assistant_run,
            Retrieval: self._retrieval,
            Notice: self._notice,
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
        cell.statuses[event.status] += 1
        cell.run_latency.add(event.duration_ns)
        if event.error_type and event.status is not Status.CANCELLED:
            _count(cell.errors, event.error_type)

    def _token_usage(self, run: _Run, event: TokenUsage) -> None:
        cell = run.cell.models.get(event.model) or self._model_cell(run.cell, event.model)
        provenance, usage = event.provenance, event.usage
        # All that may raise comes first: of an event that makes no sense, nothing is counted.
        cost = cell.cost + self.prices.cost(event)
        if usage is not None:
            cell.usage[provenance] = cell.usage.get(provenance, _NOTHING_USED) + usage
        cell.cost = cost
        cell.requests[provenance] += 1
        cell.model_latency.add(event.duration_ns)
        if event.first_chunk_ns is not None:
            cell.first_chunk_latency.add(event.first_chunk_ns)
        if event.error_type:
            _count(cell.request_errors, event.error_type)

    def _function_call(self, run: _Run, event: FunctionCall) -> None:
        cell = run.cell
        _count(cell.function_calls, event.name)
        cell.function_latency.add(event.duration_ns)
        if event.error_type:
            _count(cell.function_errors, event.error_type)

    def _assistant_run(self, run: _Run, event: AssistantRun) -> None:
        cell = run.cell
        cell.assistant_runs += 1
        cell.threads_created += event.thread == "created"
        cell.threads_resumed += event.thread == "resumed"
        cell.assistant_latency.add(event.duration_ns)

    def _retrieval(self, run: _Run, event: Retrieval) -> None:
        cell = run.cell
        _count(cell.retrievals, event.source)
        cell.retrieval_latency.add(event.duration_ns)
        cell.documents_found += event.documents
        if event.error_type:
            _count(cell.retrieval_errors, event.error_type)
        elif not event.documents:
            cell.empty_retrievals += 1

    def _notice(self, run: _Run, event: Notice) -> None:
        _count(run.cell.notices, event.kind)

    def _unknown_event(self, run: _Run, event: UnknownEvent) -> None:
        self._unknown += 1

    def _run_reported(self, run: _Run, event: RunReported) -> None:
        if run.started or run.finished:
            return
        cost = CostEstimate() if (request := _reported_request(event)) is None else self.prices.cost(request)
        run.started = run.finished = True
        cell = run.cell = self._cell((event.pattern, event.framework, None, ()))
        cell.executions += 1
        cell.statuses[event.status] += 1
        cell.assistant_runs += event.assistant_runs
        if event.function_calls:
            _count(cell.function_calls, REPORTED, event.function_calls)
        if event.duration_ns is not None:
            cell.run_latency.add(event.duration_ns)
            if event.assistant_runs == 1:  # it took all of the run; how long each of several took is not known
                cell.assistant_latency.add(event.duration_ns)
        if request is not None and request.usage is not None:
            requests, provenance = self._model_cell(cell, request.model), request.provenance
            requests.requests[provenance] += 1
            requests.usage[provenance] = requests.usage.get(provenance, Usage()) + request.usage
            requests.cost += cost

    def _model_cell(self, runs: _Cell, model: str) -> _Cell:
        """Find the cell for requests to a model by runs of another cell."""
        pattern, framework, _, tags = runs.key
        key = (pattern, framework, model, tags)
        cell = self._cell(key)
        if cell.key == key:
            runs.models[model] = cell
        return cell

    def _cell(self, key: Key) -> _Cell:
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
        cell = self._cells[key] = _Cell(key)
        return cell


def _reported_request(event: RunReported) -> TokenUsage | None:
    """Make one request that stands for all of a reported run's, so as to have a price. Its times are not known."""
    if event.usage is None or event.model is None:
        return None
    return TokenUsage(
        run_id=event.run_id,
        seq=event.seq,
        time_ns=event.time_ns,
        call_id=event.seq,
        provider=event.provider,
        operation="chat",
        model=event.model,
        provenance=event.provenance,
        usage=event.usage,
        start_ns=event.time_ns,
        duration_ns=0,
    )
