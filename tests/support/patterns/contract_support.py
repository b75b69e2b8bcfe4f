"""What the contract tests of all patterns share: one pattern of each kind, an engine that is watched, cancellation."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import trio
from campaign_support import shortly
from pattern_support import KEY, check_whole

from runmeter.engine import (
    Engine,
    Event,
    ExecutionStarted,
    Provenance,
    TokenUsage,
    TraceContext,
    Usage,
    UsageAggregator,
)
from runmeter.patterns import BasePattern, OpenAIPatternConfig, PatternRegistry, PatternType, RetryPolicy
from runmeter.simulator import Simulator

CASES = [
    (kind, loop)
    for kind in PatternType
    for loop in ("asyncio", "trio")
    if loop == "asyncio" or kind.framework == "openai"
]
"""Every pattern on every event loop it can run on."""
_ON_TRIO = [kind for kind in PatternType if kind.framework == "openai"][::2]
EACH_PATTERN = shortly(CASES, lambda case: case[1] == ("trio" if case[0] in _ON_TRIO else "asyncio"))
"""In short every pattern on one of them."""
GENERATING = ("POST /responses", "POST /chat/completions", "POST /embeddings")
"""The requests that models answer."""


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    await anyio.lowlevel.checkpoint()
    return a + b


async def no_sleep(seconds: float) -> None:
    """Wait no time at all."""
    await anyio.lowlevel.checkpoint()


def create(kind: PatternType, url: str, sources: Path, **more: Any) -> BasePattern:
    """A pattern of a kind, with a tool, one retry, and something to read where it can read."""
    needed = PatternRegistry().pattern_class(kind).config_type
    given: dict[str, Any] = {"base_url": url, "api_key": KEY, "max_retries": 1}
    if kind is PatternType.OPENAI_RAG:
        given["sources"] = [str(sources)]
    config = needed.from_data(given)
    assert isinstance(config, OpenAIPatternConfig)
    retry = RetryPolicy(max_retries=1, sleep=no_sleep)
    return PatternRegistry().create_pattern(kind, config, [add], retry=retry, **more)


class Watcher:
    """What an engine did: its events, and the spans it opened and did not close. Stands in for telemetry."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.open_spans: set[int] = set()
        self._spans = 0
        self.usage = UsageAggregator()

    # The telemetry protocol

    def start_span(self, *_: object) -> tuple[TraceContext | None, int]:
        self._spans += 1
        self.open_spans.add(self._spans)
        return None, self._spans

    def end_span(self, token: int) -> None:
        self.open_spans.remove(token)

    def receive(self, events: Sequence[Event]) -> None:
        self.events += events

    async def flush(self, timeout: float) -> None:
        """There is nothing left to send."""

    # What is asked of it

    @asynccontextmanager
    async def engine(self, **settings: Any) -> AsyncIterator[Engine]:
        """An engine that is watched. When it has closed, nothing it did may be left open."""
        async with Engine(usage=self.usage, telemetry=self, **settings) as engine:
            yield engine
        self.check()

    @property
    def requests(self) -> list[TokenUsage]:
        """How each request to a model ended."""
        return [event for event in self.events if isinstance(event, TokenUsage)]

    def check(self) -> None:
        """Check that all is closed: the events of every run are whole, and so are the spans and the statistics."""
        assert self.open_spans == set()
        runs: dict[str, list[Event]] = {}
        for event in self.events:
            runs.setdefault(event.run_id, []).append(event)
        for events in runs.values():
            check_whole(events)
            first = events[0]
            assert isinstance(first, ExecutionStarted)
            assert first.parent_run_id is None or first.parent_run_id in runs
        total = self.usage.snapshot().total
        assert (total.executions, total.in_flight) == (len(runs), 0)
        assert total.requests == len(self.requests)

    def check_against(self, simulator: Simulator) -> None:
        """Check that the simulator saw the requests that were counted, and billed what was reported."""
        billed = simulator.statistics()
        arrived = sum(billed.requests.get(endpoint, 0) for endpoint in GENERATING)
        # One that was cancelled, as a failed branch does with its siblings, may have been on its way.
        cancelled = sum(event.error_type in ("CancelledError", "Cancelled") for event in self.requests)
        errors = [event for event in self.requests if event.error_type][:5]
        assert len(self.requests) - cancelled <= arrived <= len(self.requests), errors
        reported = sum((event.usage or Usage() for event in self.requests if _is_reported(event)), Usage())
        if all(map(_is_reported, self.requests)):
            assert reported == billed.total == self.usage.snapshot().total.usage
        else:
            assert reported.input_tokens <= billed.total.input_tokens
            assert reported.output_tokens <= billed.total.output_tokens


def _is_reported(event: TokenUsage) -> bool:
    return event.provenance is Provenance.REPORTED


@contextmanager
def counted_steps(on_step: Callable[[int], Any] = id) -> Iterator["Steps"]:
    """Count the steps of the tasks that begin from here on, and say the number of each before it is made."""
    steps = Steps(on_step)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        instrument = _Instrument(steps)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield steps
        finally:
            trio.lowlevel.remove_instrument(instrument)
        return

    def counted_task(loop: asyncio.AbstractEventLoop, work: Any, **settings: Any) -> asyncio.Task[Any]:
        return asyncio.Task(_CountedCoroutine(work, steps), loop=loop, **settings)

    factory = loop.get_task_factory()
    loop.set_task_factory(counted_task)
    try:
        yield steps
    finally:
        loop.set_task_factory(factory)


class Steps:
    """What tasks do between one await and the next, counted."""

    def __init__(self, on_step: Callable[[int], Any]) -> None:
        self.made = 0
        self._on_step = on_step

    def step(self) -> None:
        self.made += 1
        self._on_step(self.made)


class _Instrument(trio.abc.Instrument):
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps.step()


class _CountedCoroutine(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are counted, and which is otherwise as it was."""

    def __init__(self, work: Coroutine[Any, Any, Any], steps: Steps) -> None:
        self._work = work
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()

    def send(self, value: Any) -> Any:
        self._steps.step()
        return self._work.send(value)

    def throw(self, *error: Any) -> Any:
        self._steps.step()
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()
