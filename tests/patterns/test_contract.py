"""What every pattern keeps, whatever happens to it: complete events, exact counts, nothing left open."""

import asyncio
import random
from functools import partial
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest
from contract_support import CASES, EACH_PATTERN, Watcher, counted_steps, create

from runmeter.engine import Engine, ExecutionFinished, Status
from runmeter.patterns import BasePattern, PatternType
from runmeter.simulator import Fault, Simulator
from runmeter.simulator.faults import FaultKind

QUESTION = "Please add 19 and 23, and say what honey is made of."
FAULTS: tuple[FaultKind, ...] = get_args(FaultKind)


@pytest.fixture(params=EACH_PATTERN, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[PatternType, str]:
    chosen: tuple[PatternType, str] = request.param
    return chosen


@pytest.fixture
def anyio_backend(case: tuple[PatternType, str]) -> str:
    return case[1]


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "honey.md").write_text("Honey is made of nectar, which bees collect from flowers.\n")
    return folder


@pytest.fixture
def pattern(case: tuple[PatternType, str], simulator: Simulator, sources: Path) -> BasePattern:
    return create(case[0], simulator.url, sources)


async def attempt(engine: Engine, pattern: BasePattern, *, stream: bool) -> Status:
    """A run, whatever comes of it but a defect of our own."""
    try:
        if stream:
            async with engine.stream(pattern, QUESTION) as items:
                _ = [item async for item in items]
        else:
            await engine.run(pattern, QUESTION)
    except (AssertionError, TypeError, AttributeError, KeyError, BaseExceptionGroup):
        raise
    except Exception:
        return Status.ERROR
    return Status.OK


async def test_a_run_answers_and_its_count_is_the_simulator_s(pattern: BasePattern, simulator: Simulator) -> None:
    watcher = Watcher()
    async with pattern, watcher.engine() as engine:
        for stream in (False, True):
            assert await attempt(engine, pattern, stream=stream) is Status.OK
    assert watcher.requests
    watcher.check_against(simulator)


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        pytest.param(
            case,
            kind,
            id=f"{case[0]}-{case[1]}-{kind}",
            marks=() if (number + offset) % len(FAULTS) == 0 else pytest.mark.campaign,  # each case, and each fault
        )
        for number, case in enumerate(CASES)
        for offset, kind in enumerate(FAULTS)
    ],
)
async def test_no_failure_breaks_the_count(pattern: BasePattern, simulator: Simulator, kind: FaultKind) -> None:
    watcher = Watcher()
    async with pattern, watcher.engine() as engine:
        for times in (1, None):
            for stream in (False, True):
                simulator.inject(Fault(kind, times=times, seconds=0, after_events=3))
                await attempt(engine, pattern, stream=stream)
                simulator.recover()
        assert await attempt(engine, pattern, stream=False) is Status.OK, "it works again once the failure has passed"
    watcher.check_against(simulator)


@pytest.mark.parametrize("count", [6, pytest.param(20, marks=pytest.mark.campaign)])
async def test_cancelled_at_any_moment_it_leaves_nothing_open(pattern: BasePattern, count: int) -> None:
    """So many moments of a run are tried, from its beginning to its end."""
    watcher = Watcher()
    async with pattern, watcher.engine() as engine:
        with counted_steps() as steps:
            async with anyio.create_task_group() as tasks:  # for a task of its own, whose steps are counted
                tasks.start_soon(partial(attempt, engine, pattern, stream=False))
        before = running_tasks()
        moments = random.Random(7)  # noqa: S311 - any moments will do, but always the same
        for part in range(count):
            moment = round((part + moments.random()) * steps.made / count) + 1
            await cancelled_at(moment, engine, pattern, stream=part % 2 == 1)
            # LangChain tells its handlers of a cancellation in a shielded task, which takes one turn of the loop more.
            await anyio.lowlevel.checkpoint()
            assert running_tasks() == before
        assert await attempt(engine, pattern, stream=False) is Status.OK, "no lock is held any more"
    assert any(event.status is Status.CANCELLED for event in watcher.events if isinstance(event, ExecutionFinished))


async def cancelled_at(moment: int, engine: Engine, pattern: BasePattern, *, stream: bool) -> None:
    """A run that is cancelled before this step."""
    with anyio.CancelScope() as scope, counted_steps(lambda step: scope.cancel() if step == moment else None):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(attempt, engine, pattern, stream=stream))


def running_tasks() -> set[Any]:
    """The tasks of this event loop. In trio none outlives its task group, so there is no need to look."""
    try:
        return set(asyncio.all_tasks())
    except RuntimeError:
        return set()
