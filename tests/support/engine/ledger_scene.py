"""A ledger to read: twelve days of an app on the simulator, with the same times, ids and answers each time."""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import anyio
from msgspec.structs import replace
from openai import APIError
from scene_support import SimulatorScene

from runmeter.engine import (
    Budget,
    CostEstimate,
    Engine,
    Event,
    ExecutionStarted,
    ModelCallStarted,
    ModelRequest,
    PriceBook,
    RunmeterError,
    TokenUsage,
    Usage,
    current_execution,
)
from runmeter.engine.ledger.sqlite import SQLiteLedger
from runmeter.engine.testing import CountingIds, ManualClock, Recorder
from runmeter.patterns import (
    BasePattern,
    OpenAIConversationPattern,
    OpenAIFunctionCallingPattern,
    OpenAIStreamingPattern,
    PatternError,
)
from runmeter.simulator import Fault

START = datetime(2026, 11, 2, 7, tzinfo=UTC)
DAYS = 12
MARKUP = "<b>x</b>"
"""A tag's value that must never become an element."""
TENANTS = ("acme", "globex", MARKUP, "initech")
PRIVATE = "house-model"
"""A model without a published price."""
BUDGETS = (
    Budget(usd="0.0001", tags={"plan": "free"}, name="free plan"),
    Budget(calls=3, pattern="openai_function_calling", per="tenant", every="day", name="a tenant's day"),
)


class WorkingClock(ManualClock):
    """A clock that each reading moves by a different while; by the same whiles each time that it is made."""

    def __init__(self) -> None:
        super().__init__(int(START.timestamp()) * 10**9)
        self._whiles = random.Random(7)  # noqa: S311 - times that look like an app's

    def time_ns(self) -> int:
        self._step = self._whiles.randrange(1_000_000, 220_000_000)
        return super().time_ns()

    monotonic_ns = time_ns


def find_parcel(number: int) -> str:
    """Find a parcel by its number."""
    if number % 3 == 0:
        raise LookupError(f"there is no parcel {number}")
    return f"parcel {number} is in Lyon"


async def summarize(messages: Any, context: Any) -> str:
    """Ask a model of one's own, that has no published price, twice in a run within this one."""
    for tokens in (900, 1_400):
        with current_execution().model_call(ModelRequest(provider="house", model=PRIVATE)) as call:
            call.record(Usage(input_tokens=tokens, output_tokens=tokens // 4))
    return "a summary"


@cache
def example_events() -> Sequence[Event]:
    """Make the events of the app. Its process was killed in the middle of the last request."""
    recorder = Recorder()
    anyio.run(_work, recorder)
    events = [
        replace(event, server_port=443) if isinstance(event, ModelCallStarted) else event for event in recorder.events
    ]
    starts = [number for number, event in enumerate(events) if isinstance(event, ModelCallStarted)]
    return events[: starts[-1] + 1]


def write_ledger(path: Path, events: Sequence[Event]) -> Path:
    """Write events into a ledger, which its writer then leaves."""
    ledger = SQLiteLedger(path)
    ledger.open(PriceBook(), ManualClock(events[-1].time_ns if events else 0))
    for start in range(0, len(events), 500):
        ledger.put(events[start : start + 500])
    ledger.close(60)
    return path


def day_of(time_ns: int) -> str:
    """The UTC day of a time in nanoseconds since the Unix epoch."""
    return datetime.fromtimestamp(time_ns // 10**9, UTC).date().isoformat()


def costs_by(group_of: Callable[[TokenUsage, ExecutionStarted], str]) -> Mapping[tuple[str, str], CostEstimate]:
    """What the events cost by day and group, reckoned one by one."""
    prices = PriceBook()
    runs = {event.run_id: event for event in example_events() if isinstance(event, ExecutionStarted)}
    costs: defaultdict[tuple[str, str], CostEstimate] = defaultdict(CostEstimate)
    for event in example_events():
        if isinstance(event, TokenUsage):
            costs[day_of(event.start_ns), group_of(event, runs[event.run_id])] += prices.cost(event)
    return costs


SPLITS: Mapping[str, Callable[[TokenUsage, ExecutionStarted], str]] = {
    "cost-0": lambda event, _: event.model,
    "cost-1": lambda _, run: run.pattern,
    "cost-2": lambda _, run: run.tags.get("plan", "(none)"),
    "cost-3": lambda _, run: run.tags["tenant"],
}
"""The charts of costs, and what makes the groups of each."""


def doubts_by_day() -> Mapping[str, Decimal]:
    """What requests may cost beyond what is certain, up to their bounds, by day: those of the last one included."""
    doubts: defaultdict[str, Decimal] = defaultdict(Decimal)
    for (day, _), cost in costs_by(lambda event, _: f"{event.run_id} {event.call_id}").items():
        if cost.high is not None and cost.high != cost.low:
            doubts[day] += cost.high - cost.low
    last = example_events()[-1]
    assert isinstance(last, ModelCallStarted)
    assert last.bound is not None
    bound = PriceBook().upper_bound(last.provider, last.model, None, last.bound, last.time_ns)
    assert bound is not None
    doubts[day_of(last.time_ns)] += bound
    return doubts


async def _work(recorder: Recorder) -> None:
    clock = WorkingClock()
    async with SimulatorScene() as scene:
        engine = Engine(clock=clock, new_run_id=CountingIds(), budgets=BUDGETS, assume_tier="default")
        patterns = _patterns(scene)
        async with engine:
            engine.subscribe(recorder, name="recorder", lane="lossless")
            for day in range(DAYS):
                for number in range(4 + day % 3):
                    await _run(engine, scene, patterns, day, number)
                    clock.advance(5_000)
                clock.advance(START.timestamp() + (day + 1) * 86_400 - clock.time_ns() / 1e9)
        for pattern in patterns:
            await pattern.aclose()


def _patterns(scene: SimulatorScene) -> Sequence[BasePattern]:
    common: dict[str, Any] = {"openai_max_tokens": 300, "system_prompt": "You work for a parcel service. " * 200}
    luna, mini = ({**common, "openai_model": model} for model in ("gpt-6-luna", "gpt-4.1-mini"))
    return (
        OpenAIFunctionCallingPattern(scene.config(**luna), [find_parcel], retry=scene.retry()),
        OpenAIStreamingPattern(scene.config(**mini), retry=scene.retry(0)),
        OpenAIConversationPattern(scene.config(**mini), retry=scene.retry()),
    )


async def _run(engine: Engine, scene: SimulatorScene, patterns: Sequence[BasePattern], day: int, number: int) -> None:
    kind = (day + number) % 4
    tags = {"tenant": TENANTS[(day * 3 + number) % len(TENANTS)]}
    if (day, number) in ((3, 1), (8, 2)):
        tags["plan"] = "free"
    faults = {(2, 0): "rate_limit", (5, 1): "server_error", (6, 0): "unavailable", (9, 3): "rate_limit"}
    cut = kind == 1 and day % 3 == 0
    if (day, number) in faults:
        scene.simulator.inject(Fault(faults[day, number], retry_after=0.1))  # type: ignore[arg-type]
    elif cut:
        scene.simulator.inject(Fault("stream_cut", after_events=12))
    with suppress(RunmeterError, PatternError, APIError):  # what fails is in the events
        if kind == 3 and number % 2:
            await engine.run(summarize, "All about parcels", tags=tags)
        else:
            await engine.run(patterns[kind % 3], f"Where is parcel {day * 7 + number}?", tags=tags)
