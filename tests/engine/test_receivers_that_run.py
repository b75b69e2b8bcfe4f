"""Runs that a subscriber's receiver makes: they are let in at once, however far behind that subscriber is."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeAlias

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from time_support import until

from runmeter.engine import Engine, Event, ExecutionFinished, ExecutionStarted
from runmeter.engine.testing import Recorder


async def asked(messages: Any, context: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return messages


async def followed_up(messages: Any, context: Any) -> Any:
    return messages


async def run_one(engine: Engine) -> None:
    await engine.run(followed_up, "")


async def stream_one(engine: Engine) -> None:
    async with engine.stream(followed_up, "") as stream:
        async for _ in stream:
            pass


async def map_one(engine: Engine) -> None:
    await engine.map(followed_up, [""])


async def run_one_in_a_task(engine: Engine) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_one, engine)


async def run_one_from_a_thread(engine: Engine) -> None:
    await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(run_one, engine))


FollowUp: TypeAlias = Callable[[Engine], Awaitable[None]]
WAYS: list[FollowUp] = [run_one, stream_one, map_one, run_one_in_a_task, run_one_from_a_thread]


def following_up(engine: Engine, follow_up: FollowUp) -> Callable[[Sequence[Event]], Awaitable[None]]:
    """Make a receiver that makes a run of its own for each of the caller's that begins."""

    async def receive(batch: Sequence[Event]) -> None:
        for event in batch:
            if isinstance(event, ExecutionStarted) and event.pattern == "asked":
                await follow_up(engine)

    return receive


async def ask_twenty(engine: Engine) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(engine.run, asked, number)


def runs_of(recorder: Recorder) -> dict[str, int]:
    started = [event.pattern for event in recorder.events if isinstance(event, ExecutionStarted)]
    assert len(started) == sum(isinstance(event, ExecutionFinished) for event in recorder.events)
    return {name: started.count(name) for name in set(started)}


async def settle(engine: Engine, name: str) -> None:
    """Wait until a subscriber has taken all there is: its runs are then done, too."""
    await until(
        lambda: not any(each.pending for each in engine.statistics().bus.subscribers if each.name == name),
    )


@pytest.mark.parametrize("limit", [None, 1, 3])
@pytest.mark.parametrize("lane", ["lossless", "lossy"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_subscriber_that_makes_runs_waits_neither_for_itself_nor_for_a_turn(
    way: FollowUp, lane: Literal["lossless", "lossy"], limit: int | None
) -> None:
    recorder = Recorder()
    async with Engine(max_concurrent_runs=limit) as engine:
        engine.subscribe(recorder, name="recorder")
        engine.subscribe(
            following_up(engine, way), name="follow-up", lane=lane, capacity=5 if lane == "lossless" else 999
        )
        await ask_twenty(engine)
        await settle(engine, "follow-up")
    assert runs_of(recorder) == {"asked": 20, "followed_up": 20}


async def test_two_engines_whose_subscribers_make_runs_in_each_other_do_not_wait_in_a_circle() -> None:
    recorder = Recorder()
    async with Engine() as one, Engine() as other:

        async def go_on(batch: Sequence[Event]) -> None:
            for event in batch:
                if (
                    isinstance(event, ExecutionStarted)
                    and event.pattern == "followed_up"
                    and event.tags != {"hop": "2"}
                ):
                    await one.run(followed_up, "", tags={"hop": "2"})

        for engine in (one, other):
            engine.subscribe(recorder, name="recorder")
        one.subscribe(following_up(other, run_one), name="to other", lane="lossless", capacity=5)
        other.subscribe(go_on, name="to one", lane="lossless", capacity=5)
        await ask_twenty(one)
        await settle(one, "to other")
        await settle(other, "to one")
        await settle(one, "to other")
    assert runs_of(recorder) == {"asked": 20, "followed_up": 40}


async def test_a_receiver_may_look_at_the_numbers_between_its_runs() -> None:
    seen: list[int] = []
    async with Engine() as engine:

        async def receive(batch: Sequence[Event]) -> None:
            for event in batch:
                if isinstance(event, ExecutionStarted) and event.pattern == "asked":
                    await run_one(engine)
                    seen.append(engine.usage().total.executions)

        engine.subscribe(receive, name="counts", lane="lossless", capacity=1)
        await ask_twenty(engine)
        await settle(engine, "counts")
        assert engine.usage().total.executions == 40
    assert seen == sorted(seen)
    assert seen[-1] == 40


async def test_what_a_receiver_has_left_behind_waits_like_any_other_run() -> None:
    """It is part of no batch any more, so that nobody waits for it."""
    admitted = anyio.Event()
    go_on, begin = anyio.Event(), anyio.Event()
    async with Engine() as engine, anyio.create_task_group() as tasks:

        async def later() -> None:
            await begin.wait()
            await run_one(engine)
            admitted.set()

        async def leave_behind(batch: Sequence[Event]) -> None:
            if not tasks_left:
                tasks_left.append(1)
                tasks.start_soon(later)

        async def hold(batch: Sequence[Event]) -> None:
            await go_on.wait()

        tasks_left: list[int] = []
        first = engine.subscribe(leave_behind, name="leaves behind", lane="lossless")
        await engine.run(asked, "")
        await settle(engine, first.name)
        engine.subscribe(hold, name="slow", lane="lossless", capacity=1)
        await engine.run(asked, "")
        await anyio.wait_all_tasks_blocked()
        begin.set()
        await anyio.wait_all_tasks_blocked()
        assert not admitted.is_set()
        go_on.set()
        await admitted.wait()
