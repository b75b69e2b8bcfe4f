"""The state of each run while it is open: how it started, its open requests, and sums over its own events."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from runmeter.engine import (
    CostEstimate,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    ModelCallStarted,
    Notice,
    Provenance,
    TokenUsage,
    Totals,
)

from . import semconv

Price: TypeAlias = Callable[[TokenUsage], CostEstimate]
"""A function that tells a request's cost, such as `PriceBook().cost`."""

ENDED_RUNS = 4_096
"""Runs that have ended and are remembered, for events of theirs that come late."""
MAX_NOTICES = 128
"""Notices that a run keeps for its span: the SDK's own default for a span's events."""
_TOOL_CALL = Totals(function_calls=1)
_BY_CERTAINTY = (Provenance.REPORTED, Provenance.ESTIMATED, Provenance.PARTIAL, Provenance.UNKNOWN)


@dataclass(slots=True)
class OpenRun:
    """A run that has not ended yet."""

    started: ExecutionStarted | None = None
    """The run's first event; None if it was dropped on its way here."""
    requests: dict[int, ModelCallStarted] = field(default_factory=dict)
    """Requests that have not ended, by call id."""
    events: int = 0
    """Number of the run's events that have come."""

    request: ModelCallStarted | None = None
    """The start of the request that ended last; None if the event was dropped on its way here."""
    request_usd: float | None = None
    """Cost in USD of the request that ended last, if it is known."""

    inference_calls: int = 0
    tool_calls: int = 0
    input_tokens: int | None = None
    """Sum over the run's own requests, as far as they are known; None while none is."""
    output_tokens: int | None = None
    provenance: Provenance = Provenance.REPORTED
    """Provenance of the request whose usage is known least."""
    cost: CostEstimate = CostEstimate()  # noqa: RUF009 - frozen
    """Sum over the run's own requests."""
    finish_reasons: tuple[str, ...] = ()
    """Finish reasons of the last request that has any."""
    totals: Totals = Totals()  # noqa: RUF009 - frozen
    """Sum over the run's own requests and tools, and over those of the runs within it that have ended."""
    ended_children: int = 0
    """Number of these runs that came here whole, with all that is within them."""
    notices: list[Notice] = field(default_factory=list)
    """The run's first notices, at most `MAX_NOTICES`."""

    @property
    def pattern(self) -> str | None:
        """The pattern's name, if it is known."""
        return self.started.pattern if self.started is not None else None

    @property
    def agent(self) -> str | None:
        """The pattern's name, if the run is an agent's."""
        started = self.started
        return started.pattern if started is not None and started.operation == semconv.INVOKE_AGENT else None

    def is_whole(self, finished: ExecutionFinished) -> bool:
        """Tell whether all of the run's events have come, so that the sums over them are true."""
        return self.events == finished.seq + 1

    def is_total(self, finished: ExecutionFinished) -> bool:
        """Tell whether the events of the runs within it have all come, too, so that its totals are true."""
        return self.is_whole(finished) and self.ended_children == finished.children

    def count_tool_call(self) -> None:
        """Take a tool's work that has ended into the sums."""
        self.tool_calls += 1
        self.totals += _TOOL_CALL

    def end_request(self, event: TokenUsage, cost: CostEstimate) -> None:
        """Take a request that has ended into the sums."""
        self.request = self.requests.pop(event.call_id, None)
        self.request_usd = cost.nearest_usd
        self.inference_calls += 1
        if event.provenance is not self.provenance:
            self.provenance = max(self.provenance, event.provenance, key=_BY_CERTAINTY.index)
        self.cost += cost
        self.totals = self.totals.with_request(event, cost)
        self.finish_reasons = event.finish_reasons or self.finish_reasons
        if event.usage is not None:
            if event.is_input_known:
                self.input_tokens = (self.input_tokens or 0) + event.usage.input_tokens
            self.output_tokens = (self.output_tokens or 0) + event.usage.output_tokens


class OpenRuns:
    """The runs that have not ended, as far as their events tell.

    Telemetry is on the bus's lossy lane, so an end may never come. The number of runs kept is bounded: beyond it the
    one that began longest ago is forgotten, and counted.

    Args:
        price: What a request cost.
        limit: How many runs to keep.
    """

    def __init__(self, price: Price, limit: int) -> None:
        self._price = price
        self._limit = limit
        self._runs: dict[str, OpenRun] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.forgotten = 0
        """Runs that were forgotten before they ended."""

    def __len__(self) -> int:
        return len(self._runs)

    def fold(self, event: Event) -> OpenRun:
        """Take an event, and give back the run that it belongs to; with its last event a run is no longer open."""
        run = self._runs.get(event.run_id) or self._open(event.run_id)
        run.events += 1
        if isinstance(event, TokenUsage):
            run.end_request(event, self._price(event))
        elif isinstance(event, ModelCallStarted):
            run.requests[event.call_id] = event
        elif isinstance(event, FunctionCall):
            run.count_tool_call()
        elif isinstance(event, ExecutionStarted):
            run.started = event
        elif isinstance(event, ExecutionFinished):
            self._close(run, event)
        elif isinstance(event, Notice) and len(run.notices) < MAX_NOTICES:
            run.notices.append(event)
        return run

    def _open(self, run_id: str) -> OpenRun:
        if run_id in self._ended:  # a straggler, such as a tool's thread that went on: nothing will ever close it
            return OpenRun()
        if len(self._runs) >= self._limit:
            del self._runs[next(iter(self._runs))]
            self.forgotten += 1
        run = self._runs[run_id] = OpenRun()
        return run

    def _close(self, run: OpenRun, event: ExecutionFinished) -> None:
        run_id = event.run_id
        if (started := run.started) is not None and started.parent_run_id is not None:
            parent = self._runs.get(started.parent_run_id)
            if parent is not None:
                parent.totals += run.totals
                parent.ended_children += run.is_total(event)
        self._runs.pop(run_id, None)
        self._ended[run_id] = None
        if len(self._ended) > ENDED_RUNS:
            self._ended.popitem(last=False)
