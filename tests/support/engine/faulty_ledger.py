"""A ledger whose commits a test holds up or lets fail, on a real file."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runmeter.engine import (
    Event,
    ExecutionFinished,
    ExecutionStarted,
    LedgerError,
    ModelRequest,
    PriceBook,
    SystemClock,
    Usage,
    UsageAggregator,
    UsageStatistics,
    current_execution,
)
from runmeter.engine.events import Status
from runmeter.engine.ledger import sqlite, writer
from runmeter.engine.ledger.ledger_file import LedgerFile

LUNA = ModelRequest(provider="openai", model="gpt-6-luna")
BOOK = PriceBook()


class Faults:
    """What happens to the commits of the ledgers that a test opens."""

    def __init__(self) -> None:
        self.error: str | None = None
        """With what they fail."""
        self.after = 0
        """How many events of a group are written all the same, before it fails."""
        self.groups: list[int] = []
        """How many events each try had."""
        self._go = threading.Event()
        self._go.set()
        self.held_up = threading.Event()
        """Some commit is held up."""

    def hold(self) -> None:
        """Hold up the commits from now on."""
        self.held_up.clear()
        self._go.clear()

    def release(self) -> None:
        """Let them go on."""
        self._go.set()

    def meet(self, store: LedgerFile, events: Sequence[Event], append: Callable[[Sequence[Event]], int]) -> int:
        """Do to a group what is to happen to it."""
        self.groups.append(len(events))
        if not self._go.is_set():
            self.held_up.set()
            self._go.wait()
        if self.error is not None:
            if self.after:
                append(events[: self.after])
            raise LedgerError(f"the ledger {store.path} cannot be written: {self.error}")
        return append(events)


@contextmanager
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """Have ledgers open files that fail when told; they try again soon."""
    faults = Faults()

    class FaultyFile(LedgerFile):
        def append(self, events: Sequence[Event]) -> int:
            return faults.meet(self, events, super().append)

    monkeypatch.setattr(sqlite, "LedgerFile", FaultyFile)
    monkeypatch.setattr(writer, "FIRST_RETRY", 0.001)
    monkeypatch.setattr(writer, "LAST_RETRY", 0.001)
    try:
        yield faults
    finally:
        faults.error = None
        faults.release()


async def asking(messages: Any, context: Any) -> str:
    """Ask a model that answers at once."""
    async with current_execution().model_call(LUNA) as call:
        call.record(Usage(input_tokens=100, output_tokens=5))
    return "answer"


def folded(events: Sequence[Event]) -> UsageStatistics:
    """What the live engine would say of events."""
    aggregator = UsageAggregator(BOOK, max_keys=10_000)
    aggregator.fold(events)
    return aggregator.snapshot()


def whole_run(number: int, *, time_ns: int = 10**18, tags: dict[str, str] | None = None) -> list[Event]:
    """A run that has ended well, without requests."""
    run_id = f"{number:032x}"
    start = ExecutionStarted(
        run_id=run_id, seq=0, time_ns=time_ns, pattern="p", framework="f", root_run_id=run_id, tags=tags or {}
    )
    return [start, ExecutionFinished(run_id=run_id, seq=1, time_ns=time_ns + 1, status=Status.OK, duration_ns=1)]


def open_file(path: Path) -> LedgerFile:
    """Open a ledger's file for writing."""
    return LedgerFile(path, SystemClock())
