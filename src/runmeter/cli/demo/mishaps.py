"""What the demo shows of runs that go wrong: a request tried again, a stream that was cut, a budget that refuses."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rich.console import Console, Group
from rich.text import Text

from runmeter.engine import Budget, Engine, SQLiteLedger
from runmeter.engine.event_log import NAME
from runmeter.patterns import BasePattern, PatternType
from runmeter.simulator import Fault, Simulator
from runmeter.telemetry import OpenTelemetry

from ..command_log import CommandLog
from ..trace_view import trace_tree
from ..views import run_summary
from .run_keeper import RunKeeper

LIMIT = 300
"""Output tokens of an answer: what is not known of one that was cut is known to be no more."""
CAP = Budget(usd="0.0001", tags={"budget": "tiny"}, name="tiny")
"""Less than any of the demo's requests may cost. It applies to no run but the one that it is to refuse."""


class Mishap(NamedTuple):
    """Something that goes wrong, and what is to be seen then."""

    title: str
    pattern: PatternType
    faults: Sequence[Fault] = ()
    tags: Mapping[str, str] = {}


MISHAPS = (
    Mishap(
        "A request that was refused for a moment, and tried again",
        PatternType.OPENAI_FUNCTION_CALLING,
        [Fault("rate_limit", retry_after=0.1)],
    ),
    Mishap(
        "A stream that was cut: its cost lies in an interval",
        PatternType.OPENAI_STREAMING,
        [Fault("latency", seconds=0), Fault("stream_cut", after_events=12)],
    ),
    Mishap(
        "A budget without room: the request did not leave", PatternType.OPENAI_FUNCTION_CALLING, tags={"budget": "tiny"}
    ),
)


async def show_mishaps(
    console: Console,
    make: Callable[[PatternType, int], BasePattern],
    question: str,
    simulator: Simulator,
    telemetry: OpenTelemetry | None,
    events: CommandLog | None,
    ledger: SQLiteLedger | None,
) -> None:
    """Have each happen once, on the simulated API, in an engine of its own; and show its trace and what it used.

    Args:
        console: Where to show it.
        make: Makes a pattern of a type, whose answers have at most so many tokens.
        question: What the patterns are asked.
        simulator: Misbehaves.
        telemetry: Where traces go.
        events: Where events go.
        ledger: Where events are kept.
    """
    keeper = RunKeeper()
    errors: list[Exception | None] = []
    async with Engine(telemetry=telemetry, budgets=[CAP], ledger=ledger) as engine:
        engine.subscribe(keeper, name="trace view", lane="lossless")
        if events is not None:
            engine.subscribe(events, name=NAME, lane="lossless")
        for mishap in MISHAPS:
            simulator.inject(*mishap.faults)
            async with make(mishap.pattern, LIMIT) as pattern:
                errors.append(await _happen(engine, pattern, question, mishap))
    rows = engine.usage().by_tag("mishap")
    for mishap, run, error in zip(MISHAPS, keeper.runs, errors, strict=True):
        summary = run_summary(rows[mishap.title], run.duration_ns, "ok", error, run.trace_id, console.width)
        tree = trace_tree(run.events, run.run_id, console.width)
        console.print(Group("", Text(mishap.title, style="bold"), tree, summary))


async def _happen(engine: Engine, pattern: BasePattern, question: str, mishap: Mishap) -> Exception | None:
    try:
        async with engine.stream(pattern, question, tags={"mishap": mishap.title, **mishap.tags}) as stream:
            async for _ in stream:
                pass
    except Exception as error:  # it is what there is to show
        return error
    return None
