"""From events to finished runs: their costs, those of the runs within them, and their ends. In bounded memory."""

from collections import deque
from collections.abc import Mapping

import msgspec

from runmeter.engine.events import Event, ExecutionFinished, ExecutionStarted, ModelCallStarted, Status, TokenUsage
from runmeter.engine.prices.cost_estimate import CostEstimate
from runmeter.engine.usage.sequence import SeqWindow

from .token_use import Chain

MAX_OPEN = 10_000
"""Number of outermost runs in flight at once; beyond, the oldest count as never finished."""
RECENT = 4_096
"""Number of finished runs whose duplicates and stragglers are recognized."""
UNBOUNDED = CostEstimate(high_units=None)


class FinishedRun(msgspec.Struct, frozen=True):
    """An outermost run, with all the runs within it."""

    pattern: str
    framework: str
    tags: Mapping[str, str]
    models: frozenset[str]
    """The models that were asked."""
    is_ok: bool
    duration_ns: int
    cost: CostEstimate


class _Tree:
    """An outermost run in flight, with the runs within it."""

    __slots__ = ("cost", "models", "open_calls", "open_runs", "root")

    def __init__(self, root: ExecutionStarted) -> None:
        self.root = root
        self.cost = CostEstimate()
        self.models: set[str] = set()
        self.open_runs: dict[str, RunInTree] = {}
        """The runs of the tree; those that have finished stay until the outermost one has."""
        self.open_calls: dict[tuple[str, int], ModelCallStarted] = {}


class RunInTree:
    """A run in flight, outermost or within another."""

    __slots__ = ("chain", "finished", "pattern", "seen", "tree")

    def __init__(self, pattern: str, tree: _Tree) -> None:
        self.pattern = pattern
        self.tree = tree
        self.finished = False
        self.chain = Chain()
        self.seen = SeqWindow()


class RunTrees:
    """Puts events in their runs. Events may come duplicated, and a run's events out of order after its start."""

    def __init__(self) -> None:
        self._runs: dict[str, RunInTree] = {}
        self._trees: dict[str, _Tree] = {}
        self._recent: dict[str, None] = {}
        self._order: deque[str] = deque()
        self.unfinished = 0
        """Outermost runs given up because too many began after them and they never finished."""
        self.strays = 0
        """Events of runs whose start was never seen."""

    @property
    def in_flight(self) -> int:
        """Number of outermost runs that began and have not finished."""
        return len(self._trees)

    def find(self, event: Event) -> RunInTree | None:
        """Find the run of an event; None for a duplicate, and for what belongs to no run in flight."""
        run = self._runs.get(event.run_id)
        if run is None and isinstance(event, ExecutionStarted):
            run = self._begin(event)
        if run is None:
            self.strays += event.run_id not in self._recent
            return None
        return run if run.seen.takes(event.seq) else None

    def request_started(self, run: RunInTree, event: ModelCallStarted) -> None:
        """Note a request that is about to leave."""
        run.tree.models.add(event.model)
        run.tree.open_calls[event.run_id, event.call_id] = event

    def request_ended(self, run: RunInTree, event: TokenUsage, cost: CostEstimate) -> None:
        """Note a request that has ended, at this cost."""
        tree = run.tree
        tree.models.add(event.model)
        tree.open_calls.pop((event.run_id, event.call_id), None)
        tree.cost += cost

    def finished(self, run: RunInTree, event: ExecutionFinished) -> FinishedRun | None:
        """Note a run that has finished. Gives what is known of an outermost one that was not cancelled, else None.

        Where a request within it never ended, or a run within it, its cost has no upper bound.
        """
        run.finished = True
        tree = run.tree
        root = tree.root
        if event.run_id != root.run_id:
            return None
        self._forget(tree)
        if event.status is Status.CANCELLED:  # it did not come to show what it costs, or whether it succeeds
            return None
        whole = not tree.open_calls and all(each.finished for each in tree.open_runs.values())
        return FinishedRun(
            root.pattern,
            root.framework,
            root.tags,
            frozenset(tree.models),
            event.status is Status.OK,
            event.duration_ns,
            tree.cost if whole else tree.cost + UNBOUNDED,
        )

    def _begin(self, event: ExecutionStarted) -> RunInTree | None:
        if event.run_id in self._recent:
            return None
        tree = self._trees.get(event.root_run_id)
        if event.run_id == event.root_run_id:
            tree = self._trees[event.run_id] = _Tree(event)
            if len(self._trees) > MAX_OPEN:
                self.unfinished += 1
                self._forget(next(iter(self._trees.values())))
        if tree is None:
            return None
        run = tree.open_runs[event.run_id] = self._runs[event.run_id] = RunInTree(event.pattern, tree)
        return run

    def _forget(self, tree: _Tree) -> None:
        del self._trees[tree.root.run_id]
        for run_id in tree.open_runs:
            del self._runs[run_id]
            self._recent[run_id] = None
            self._order.append(run_id)
        while len(self._order) > RECENT:
            del self._recent[self._order.popleft()]
