"""Ledgers and logs to report on, of events that are made by hand."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runmeter.engine import (
    Event,
    ExecutionFinished,
    ExecutionStarted,
    ModelCallStarted,
    PriceBook,
    Provenance,
    Status,
    TokenUsage,
    Usage,
)
from runmeter.engine.event_log import EventLog
from runmeter.engine.ledger.imports import Imported, import_events

DAY_NS = 86_400 * 10**9
NOV_1_NS = 1_793_491_200 * 10**9
"""2026-11-01, in nanoseconds since the Unix epoch."""
LUNA = "gpt-6-luna"


class Told:
    """A run's events, in order: what is told of it, one thing after another.

    Args:
        number: Makes its id.
        pattern: What it runs.
        at_ns: When it begins; each event comes a microsecond later.
        within: The run that it is within.
        tags: Its tags.
    """

    def __init__(
        self,
        number: int,
        pattern: str = "routing",
        at_ns: int = NOV_1_NS,
        *,
        within: "Told | None" = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.run_id = f"{number:032x}"
        self.root: str = within.root if within else self.run_id
        self.now_ns = at_ns
        self.began_ns = at_ns
        self.events: list[Event] = [
            ExecutionStarted(
                **self._head(),
                pattern=pattern,
                framework="langgraph",
                root_run_id=self.root,
                parent_run_id=within.run_id if within else None,
                tags=tags or {},
            )
        ]

    def leaves(self, model: str = LUNA, *, bound: Usage | None = None, at_ns: int | None = None) -> "Told":
        """Have a request leave."""
        self.now_ns = at_ns or self.now_ns
        head = self._head()
        self._call = ModelCallStarted(
            **head, call_id=head["seq"], provider="openai", operation="chat", model=model, bound=bound
        )
        self.events.append(self._call)
        return self

    def asks(
        self,
        usage: Usage | None,
        model: str = LUNA,
        *,
        provenance: Provenance = Provenance.REPORTED,
        bound: Usage | None = None,
        at_ns: int | None = None,
        tier: str | None = "default",
    ) -> "Told":
        """Have a request leave and end."""
        self.leaves(model, at_ns=at_ns)
        call = self._call
        self.events.append(
            TokenUsage(
                **self._head(),
                call_id=call.call_id,
                provider="openai",
                operation="chat",
                model=model,
                provenance=provenance,
                usage=usage,
                start_ns=call.time_ns,
                duration_ns=5_000_000,
                service_tier=tier,
                bound=bound,
            )
        )
        return self

    def ends(self, status: Status = Status.OK) -> "Told":
        """Have the run end."""
        self.events.append(ExecutionFinished(**self._head(), status=status, duration_ns=self.now_ns - self.began_ns))
        return self

    def _head(self) -> "dict[str, Any]":
        self.now_ns += 1_000
        seq = len(self.events) if hasattr(self, "events") else 0
        return {"run_id": self.run_id, "seq": seq, "time_ns": self.now_ns}


def events_of(*runs: Told) -> list[Event]:
    """The events of runs, in the order of their times."""
    return sorted((event for run in runs for event in run.events), key=lambda event: event.time_ns)


def write_ledger(path: Path, events: Iterable[Event], prices: PriceBook | None = None) -> Path:
    """Write events to a ledger, all rolled up."""
    import_events(events, path, prices or PriceBook(), Imported(), lasting=False)
    return path


def write_log(path: Path, events: Iterable[Event]) -> Path:
    """Write events to an event log."""
    with EventLog(path) as log:
        log(tuple(events))
    return path
