"""Cells: the counts of one pattern, framework, model and set of tags, and how each event adds to them."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..events import (
    AssistantRun,
    ExecutionFinished,
    FunctionCall,
    Notice,
    Provenance,
    Retrieval,
    RunReported,
    Status,
    TokenUsage,
    Usage,
)
from ..prices.cost_estimate import CostEstimate
from .histogram import Histogram
from .row import CostRecord, UsageRow
from .statistics import OTHER, Key

UNKNOWN = "unknown"
"""Pattern and framework of runs whose start was never seen."""
MAX_NAMES = 100
"""Different functions, sources of retrievals, kinds of notices, and types of error that a cell tells apart."""
REPORTED = "(reported)"
"""Stands for the functions that a run reported by hand has called: their names are not known."""
_NOTHING_USED = Usage()


class Cell:
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
        self.models: dict[str, Cell] = {}
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
        """Make the row of the counts so far."""
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


class InCell(Protocol):
    """A run, as far as its events are counted in one cell."""

    cell: Cell


def count_finish(cell: Cell, event: ExecutionFinished) -> None:
    """Count the end of a run."""
    cell.statuses[event.status] += 1
    cell.run_latency.add(event.duration_ns)
    if event.error_type and event.status is not Status.CANCELLED:
        _count(cell.errors, event.error_type)


def count_request(cell: Cell, event: TokenUsage, cost: CostEstimate) -> None:
    """Count the end of a request in the cell of its model. Of an event that makes no sense, nothing is counted."""
    provenance, usage = event.provenance, event.usage
    # All that may raise comes first.
    cost = cell.cost + cost
    if usage is not None:
        cell.usage[provenance] = cell.usage.get(provenance, _NOTHING_USED) + usage
    cell.cost = cost
    cell.requests[provenance] += 1
    cell.model_latency.add(event.duration_ns)
    if event.first_chunk_ns is not None:
        cell.first_chunk_latency.add(event.first_chunk_ns)
    if event.error_type:
        _count(cell.request_errors, event.error_type)


def count_reported(cell: Cell, event: RunReported) -> None:
    """Count a run reported by hand, but for its usage."""
    cell.executions += 1
    cell.statuses[event.status] += 1
    cell.assistant_runs += event.assistant_runs
    if event.function_calls:
        _count(cell.function_calls, REPORTED, event.function_calls)
    if event.duration_ns is not None:
        cell.run_latency.add(event.duration_ns)
        if event.assistant_runs == 1:  # it took all of the run; how long each of several took is not known
            cell.assistant_latency.add(event.duration_ns)


def count_reported_request(cell: Cell, request: TokenUsage, cost: CostEstimate) -> None:
    """Count the usage of a run reported by hand in the cell of its model: how long its requests took is not known."""
    if request.usage is not None:
        cell.requests[request.provenance] += 1
        cell.usage[request.provenance] = cell.usage.get(request.provenance, _NOTHING_USED) + request.usage
        cell.cost += cost


def reported_request(event: RunReported) -> TokenUsage | None:
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


def _count_function_call(run: InCell, event: FunctionCall) -> None:
    cell = run.cell
    _count(cell.function_calls, event.name)
    cell.function_latency.add(event.duration_ns)
    if event.error_type:
        _count(cell.function_errors, event.error_type)


def _count_assistant_run(run: InCell, event: AssistantRun) -> None:
    cell = run.cell
    cell.assistant_runs += 1
    cell.threads_created += event.thread == "created"
    cell.threads_resumed += event.thread == "resumed"
    cell.assistant_latency.add(event.duration_ns)


def _count_retrieval(run: InCell, event: Retrieval) -> None:
    cell = run.cell
    _count(cell.retrievals, event.source)
    cell.retrieval_latency.add(event.duration_ns)
    cell.documents_found += event.documents
    if event.error_type:
        _count(cell.retrieval_errors, event.error_type)
    elif not event.documents:
        cell.empty_retrievals += 1


def _count_notice(run: InCell, event: Notice) -> None:
    _count(run.cell.notices, event.kind)


COUNTED_IN_RUN: Mapping[type, Callable[[InCell, Any], None]] = {
    FunctionCall: _count_function_call,
    AssistantRun: _count_assistant_run,
    Retrieval: _count_retrieval,
    Notice: _count_notice,
}
"""The events that count in their run's cell and change nothing else, by class, with the function that counts each."""
