"""What the tests of patterns share: a run whose events land in a list, and a check that they are whole."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from runmeter.engine import (
    Event,
    Execution,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    ModelCallStarted,
    Provenance,
    RunInfo,
    Runtime,
    TokenUsage,
    Tracing,
    Usage,
)

KEY = "sk-not-to-be-seen-anywhere"


class Run:
    """Runs without an engine around them, and what they publish."""

    def __init__(
        self, *, delta: Callable[[str], Awaitable[None]] | None = None, tracing: Tracing | None = None
    ) -> None:
        self.events: list[Event] = []

        async def deliver(_: str, text: str) -> None:
            if delta is not None:
                await delta(text)

        self._runtime = Runtime(None, self.events.append, tracing=tracing, delta=deliver if delta else None)

    @contextmanager
    def __call__(self, **info: Any) -> Iterator[Execution]:
        """A run. However it is left, its events must be whole."""
        execution = Execution(self._runtime, RunInfo("test", **info))
        try:
            with execution:
                yield execution
        finally:
            check_whole([event for event in self.events if event.run_id == execution.run_id])

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if type(event) is kind]

    @property
    def requests(self) -> list[TokenUsage]:
        """How each request to a model ended."""
        return self.of(TokenUsage)

    @property
    def calls(self) -> list[FunctionCall]:
        """How each function call ended."""
        return self.of(FunctionCall)

    @property
    def reported(self) -> Usage:
        """What the API has said that it used."""
        reported = (event.usage for event in self.requests if event.provenance is Provenance.REPORTED)
        return sum((usage for usage in reported if usage is not None), start=Usage())


def check_whole(events: Sequence[Event]) -> None:
    """Check that one run's events are complete and in balance."""
    assert type(events[0]) is ExecutionStarted
    assert type(events[-1]) is ExecutionFinished
    assert sorted(event.seq for event in events) == list(range(len(events)))
    assert events[-1].seq == len(events) - 1, "nothing is said after the end"
    assert sum(type(event) in (ExecutionStarted, ExecutionFinished) for event in events) == 2
    started = [event for event in events if isinstance(event, ModelCallStarted)]
    ended = [event for event in events if isinstance(event, TokenUsage)]
    assert sorted(event.call_id for event in started) == sorted(event.call_id for event in ended)
    for event in ended:
        assert (event.usage is None) is (event.provenance is Provenance.UNKNOWN)
        assert event.duration_ns >= 0
    assert KEY not in repr(events)


async def at_once(_: float) -> None:
    """Do not wait between attempts."""


async def find(number: str) -> dict[str, str]:
    """Find a parcel."""
    return {"number": number, "city": "Berlin"}
