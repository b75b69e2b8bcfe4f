"""Turns: one run at a time in a conversation."""

import gc
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from runmeter.patterns import PatternError
from runmeter.patterns.requests import turns
from runmeter.patterns.requests.loop_lock import LoopLock
from runmeter.patterns.requests.turns import turn


async def test_turns_come_one_after_the_other_in_order() -> None:
    order: list[int] = []
    inside = 0

    async def take(number: int) -> None:
        nonlocal inside
        async with turn("c1", scope="s"):
            inside += 1
            assert inside == 1
            order.append(number)
            await anyio.wait_all_tasks_blocked()
            inside -= 1

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(take, number)
            await anyio.lowlevel.checkpoint()
    assert order == [0, 1, 2, 3, 4]


async def test_other_conversations_and_scopes_do_not_wait() -> None:
    async with turn("c1", scope="s"), turn("c2", scope="s"), turn("c1", scope="t"):
        assert len(turns._locks) == 3


async def test_nothing_is_left_of_turns_that_are_over() -> None:
    for number in range(100):
        async with turn(f"c{number}", scope="s"):
            pass
    with pytest.raises(LookupError):
        async with turn("failed", scope="s"):
            raise LookupError
    gc.collect()
    assert len(turns._locks) == 0


async def test_a_turn_within_itself_is_refused() -> None:
    async with turn("c1", scope="s"):
        with pytest.raises(PatternError, match="cannot be part of another run of it"):
            async with turn("c1", scope="s"):
                pass
    async with turn("c1", scope="s"):
        pass


async def test_a_task_that_outlives_its_turn_may_have_one_of_its_own() -> None:
    over = anyio.Event()
    had: list[str] = []

    async def later() -> None:
        await over.wait()
        async with turn("c1", scope="s"):
            had.append("c1")

    async with anyio.create_task_group() as tasks:
        async with turn("c1", scope="s"):
            tasks.start_soon(later)
        over.set()
    assert had == ["c1"]


async def test_who_stops_waiting_leaves_the_others_their_turn() -> None:
    had: list[str] = []
    impatient = anyio.CancelScope()
    release = anyio.Event()

    async def hold() -> None:
        async with turn("c1", scope="s"):
            await release.wait()

    async def wait(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            async with turn("c1", scope="s"):
                had.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(wait, "impatient", impatient)
        tasks.start_soon(wait, "patient", anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        impatient.cancel()
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert had == ["patient"]


BACKENDS = (("asyncio", "asyncio"), ("trio", "asyncio"), ("asyncio", "trio"))


@pytest.mark.parametrize(("mine", "other"), BACKENDS)
def test_other_event_loops_do_not_wait(mine: str, other: str) -> None:
    async def inner() -> str:
        async with turn("c1", scope="s"):
            return "had it"

    async def outer() -> str:
        async with turn("c1", scope="s"):
            with ThreadPoolExecutor(1) as threads:  # which know nothing of this turn
                return threads.submit(partial(anyio.run, inner, backend=other)).result()

    assert anyio.run(outer, backend=mine) == "had it"


@pytest.mark.parametrize(("mine", "other"), BACKENDS)
def test_a_turn_within_itself_is_refused_in_another_event_loop_too(mine: str, other: str) -> None:
    async def inner() -> None:
        async with turn("c1", scope="s"):
            pass

    async def outer() -> None:
        async with turn("c1", scope="s"):
            with pytest.raises(PatternError, match="cannot be part of another run of it"):
                await anyio.to_thread.run_sync(partial(anyio.run, inner, backend=other))

    anyio.run(outer, backend=mine)


async def test_an_event_loop_keeps_no_locks_of_what_is_gone() -> None:
    kept = LoopLock()
    async with kept:
        pass
    before = _locks_alive()
    for _ in range(50):
        async with LoopLock():
            pass
    gc.collect()
    assert _locks_alive() <= before


def _locks_alive() -> int:
    return sum(isinstance(each, anyio.Lock) for each in gc.get_objects())
