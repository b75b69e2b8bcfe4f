"""A subscriber that keeps whole runs, to show one of them."""

from collections.abc import Sequence
from typing import NamedTuple

from runmeter.engine import Event, ExecutionFinished, ExecutionStarted

KEPT_RUNS = 256
"""Outermost runs whose events are kept."""
MOST_EVENTS = 60
"""Of a run that fits on a screen."""


class KeptRun(NamedTuple):
    """An outermost run, with all runs within it."""

    run_id: str
    trace_id: str
    events: Sequence[Event]

    @property
    def duration_ns(self) -> int | None:
        """Nanoseconds from its start to its end; None if it has not ended."""
        ends = (each for each in self.events if isinstance(each, ExecutionFinished) and each.run_id == self.run_id)
        return next((end.duration_ns for end in ends), None)


class RunKeeper:
    """Keeps the events of the first runs, those of the runs within them included."""

    def __init__(self) -> None:
        self._runs: dict[str, KeptRun] = {}
        self._events: dict[str, list[Event]] = {}
        """By run: a run within another one shares its list."""

    def __call__(self, events: Sequence[Event]) -> None:
        """Take a batch of events."""
        for event in events:
            if isinstance(event, ExecutionStarted):
                self._begin(event)
            if event.run_id in self._events:
                self._events[event.run_id].append(event)

    def _begin(self, event: ExecutionStarted) -> None:
        if event.parent_run_id is not None:
            if event.root_run_id in self._events:
                self._events[event.run_id] = self._events[event.root_run_id]
        elif len(self._runs) < KEPT_RUNS:
            kept = self._events[event.run_id] = []
            self._runs[event.run_id] = KeptRun(event.run_id, event.trace_id, kept)

    @property
    def runs(self) -> Sequence[KeptRun]:
        """The kept runs, in the order in which they began."""
        return tuple(self._runs.values())

    def busiest(self) -> KeptRun | None:
        """The run in which most happened, of those that fit on a screen; None if there is none."""
        fitting = [run for run in self._runs.values() if len(run.events) <= MOST_EVENTS]
        return max(fitting or self._runs.values(), key=lambda run: len(run.events), default=None)
