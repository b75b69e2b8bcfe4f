"""Test doubles for code that uses the engine: time that stands still, ids that count, a subscriber that remembers."""

from collections.abc import Sequence
from itertools import count

from .events import Event


class ManualClock:
    """A clock that moves only when told to.

    Args:
        time_ns: Where both readings begin, in nanoseconds.
        step_ns: How far each reading moves it: 0 stands still.
    """

    def __init__(self, time_ns: int = 1_800_000_000_000_000_000, step_ns: int = 0) -> None:
        self._now = time_ns
        self._step = step_ns

    def advance(self, seconds: float) -> None:
        """Move the clock forward by so many seconds."""
        self._now += round(seconds * 1e9)

    def time_ns(self) -> int:
        """Read nanoseconds since the Unix epoch."""
        self._now += self._step
        return self._now

    def monotonic_ns(self) -> int:
        """Read nanoseconds, of the same clock: a manual one never goes back."""
        self._now += self._step
        return self._now


class CountingIds:
    """A source of run ids 1, 2, 3 …, as 32 hexadecimal digits."""

    def __init__(self) -> None:
        self._count = count(1)

    def __call__(self) -> str:
        """Make the next run id."""
        return f"{next(self._count):032x}"


class Recorder:
    """A subscriber that keeps every event: `engine.subscribe(recorder, name="recorder")`."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, events: Sequence[Event]) -> None:
        """Keep a batch of events."""
        self.events.extend(events)

    def of(self, run_id: str) -> list[Event]:
        """Select the events of one run, in order."""
        return [event for event in self.events if event.run_id == run_id]
