"""Engines that share budgets by a ledger, as the workers of a server do: on both event loops, with threads."""

import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from budget_support import FlatPrices, request

from runmeter.engine import Budget, BudgetExceeded, Engine, RunInfo, Usage, current_execution
from runmeter.engine.testing import ManualClock

CAP = 20


def engine_on(path: Path, *budgets: Budget, clock: ManualClock | None = None) -> Engine:
    return Engine(prices=FlatPrices(), budgets=budgets, ledger=path / "runs.db", clock=clock)


async def ahead(messages: Any, context: Any) -> None:
    """Reserves room before its request, as the patterns do."""
    execution = current_execution()
    async with execution.reserve(request()) as asked:
        await anyio.lowlevel.checkpoint()
        with execution.model_call(asked) as call:
            call.record(Usage(input_tokens=1))


async def awaiting(messages: Any, context: Any) -> None:
    """Has its call lease what it needs."""
    async with current_execution().model_call(request()) as call:
        await anyio.lowlevel.checkpoint()
        call.record(Usage(input_tokens=1))


async def blocking(messages: Any, context: Any) -> None:
    """Blocks its thread where it has to lease."""
    with current_execution().model_call(request()) as call:
        call.record(Usage(input_tokens=1))


@pytest.mark.parametrize("pattern", [ahead, awaiting, blocking])
async def test_all_of_a_cap_is_spent_and_no_more(pattern: Any, tmp_path: Path) -> None:
    budget = Budget(calls=CAP, every="day", shared=True)
    done = [0, 0]
    refused = [0, 0]

    async def run(number: int, engine: Engine) -> None:
        try:
            await engine.run(pattern, "hi")
            done[number] += 1
        except BudgetExceeded:
            refused[number] += 1

    async with engine_on(tmp_path, budget) as one, engine_on(tmp_path, budget) as other:
        async with anyio.create_task_group() as tasks:
            for number in range(2 * CAP):
                tasks.start_soon(run, number % 2, (one, other)[number % 2])
        assert sum(done) == CAP
        assert sum(refused) == CAP
    async with engine_on(tmp_path, budget) as later:
        await run(0, later)
        assert sum(done) == CAP
        [status] = later.budgets()
        assert status.spent == CAP
        assert status.reserved == 0


async def test_one_waits_for_what_another_process_has_reserved(tmp_path: Path) -> None:
    budget = Budget(calls=1, every="day", shared=True, when_reserved="wait")
    order: list[str] = []
    holds, may_end = anyio.Event(), anyio.Event()

    async def first(messages: Any, context: Any) -> None:
        async with current_execution().reserve(request()):
            holds.set()
            await may_end.wait()
            order.append("released")

    async def second(messages: Any, context: Any) -> None:
        async with current_execution().reserve(request()):
            order.append("reserved")

    async with (
        engine_on(tmp_path, budget) as one,
        engine_on(tmp_path, budget) as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(one.run, first, "hi")
        await holds.wait()
        tasks.start_soon(other.run, second, "hi")
        while other.budgets()[0].waiting == 0:
            await anyio.lowlevel.checkpoint()
        may_end.set()
    assert order == ["released", "reserved"]


async def test_an_answer_is_made_shorter_for_what_others_have_spent(tmp_path: Path) -> None:
    budget = Budget(tokens=100, every="day", shared=True, when_exceeded="lower")

    async def ask(messages: Any, context: Any) -> int | None:
        async with current_execution().reserve(request(read=10, written=60)) as asked:
            with current_execution().model_call(asked) as call:
                call.record(asked.bound or Usage())
            return asked.max_output_tokens

    async with engine_on(tmp_path, budget) as one, engine_on(tmp_path, budget) as other:
        assert (await one.run(ask, "hi")).value == 60
        assert (await other.run(ask, "hi")).value == 20
        with pytest.raises(BudgetExceeded):
            await one.run(ask, "hi")


async def test_what_was_spent_before_a_budget_was_shared_counts(tmp_path: Path) -> None:
    clock = ManualClock()
    async with engine_on(tmp_path, Budget(calls=9, every="day"), clock=clock) as engine:
        await engine.run(blocking, "hi")
    shared = Budget(calls=2, every="day", shared=True)
    async with engine_on(tmp_path, shared, clock=clock) as engine:
        await engine.run(blocking, "hi")
        with pytest.raises(BudgetExceeded, match="2 calls spent"):
            await engine.run(blocking, "hi")
        clock.advance(24 * 3_600)
        await engine.run(blocking, "hi")


async def test_runs_within_runs_and_other_budgets_go_on_as_ever(tmp_path: Path) -> None:
    budgets = Budget(calls=4, pattern="inner", every="hour", shared=True), Budget(calls=3, per="run", name="run")

    async def outer(messages: Any, context: Any) -> None:
        with current_execution().child(RunInfo("inner")):
            await awaiting(messages, context)
            await awaiting(messages, context)
        await awaiting(messages, context)

    async with engine_on(tmp_path, *budgets) as engine:
        for _ in range(2):
            await engine.run(outer, "hi")
        with pytest.raises(BudgetExceeded) as refused:
            await engine.run(outer, "hi")
        assert refused.value.budget == budgets[0].label
        with pytest.raises(BudgetExceeded):
            await engine.run(ahead_thrice, "hi")


async def ahead_thrice(messages: Any, context: Any) -> None:
    for _ in range(4):
        await ahead(messages, context)


async def test_threads_of_an_engine_lease_at_once(tmp_path: Path) -> None:
    budget = Budget(calls=CAP, every="day", shared=True)
    done: list[int] = []

    async def work(messages: Any, context: Any) -> None:
        execution = current_execution()

        def ask() -> None:
            try:
                with execution.model_call(request()) as call:
                    call.record(Usage(input_tokens=1))
                done.append(threading.get_ident())
            except BudgetExceeded:
                pass

        async with anyio.create_task_group() as tasks:
            for _ in range(2 * CAP):
                tasks.start_soon(anyio.to_thread.run_sync, ask)

    async with engine_on(tmp_path, budget) as engine:
        await engine.run(work, "hi")
        assert len(done) == CAP


async def test_usage_of_all_processes_is_summed_up(tmp_path: Path) -> None:
    async with engine_on(tmp_path) as one, engine_on(tmp_path) as other:
        await one.run(blocking, "hi")
        await other.run(blocking, "hi")
        assert one.usage().total.requests == 1
        fleet = await anyio.to_thread.run_sync(lambda: one.usage(fleet=True))
        assert fleet.total.requests >= 1
        await other.run(blocking, "hi")
    async with engine_on(tmp_path) as later:
        fleet = await anyio.to_thread.run_sync(lambda: later.usage(fleet=True))
        assert fleet == one.usage() + other.usage()
        assert later.usage().total.requests == 0
