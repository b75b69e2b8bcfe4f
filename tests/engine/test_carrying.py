"""Functions that take their run along into executors that would lose it, and what is told where nothing does."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pattern_support import check_whole

from runmeter import (
    Budget,
    BudgetExceeded,
    Engine,
    ModelCallStarted,
    ModelRequest,
    Status,
    Usage,
    carry,
    current_execution,
)
from runmeter.engine.testing import Recorder
from runmeter.patterns import OpenAIFunctionCallingPattern, OpenAIPatternConfig
from runmeter.simulator import Simulator

REQUEST = ModelRequest(provider="openai", model="gpt-4.1-mini")
colour: ContextVar[str] = ContextVar("colour", default="none")


def ask() -> str:
    """Ask a model, in whatever run this is."""
    with current_execution().model_call(REQUEST) as call:
        call.record(Usage(10, 2))
    return colour.get()


async def ask_async(text: str = "") -> str:
    """Do the same on an event loop."""
    await anyio.lowlevel.checkpoint()
    return text + ask()


def in_thread(function: Callable[[], Any]) -> Any:
    """Call a function in a thread that has no context of ours."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


async def test_a_function_takes_run_and_tags_along() -> None:
    async def pattern(messages: Any, context: Any) -> list[str]:
        colour.set("red")
        asking = carry(ask)
        colour.set("blue")
        return [await anyio.to_thread.run_sync(in_thread, asking) for _ in range(2)]

    async with Engine() as engine:
        result = await engine.run(pattern, "x", tags={"tenant": "acme"})
        assert result.value == ["red", "red"], "the context is the one in which it was carried"
        assert result.usage == Usage(20, 4)
        assert engine.usage().by_tag("tenant")["acme"].requests == 2
        assert engine.statistics().outside_requests == 0


async def test_it_may_be_called_by_several_threads_at_once() -> None:
    async def pattern(messages: Any, context: Any) -> None:
        asking = carry(ask)

        def all_at_once() -> None:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: asking(), range(40)))

        await anyio.to_thread.run_sync(all_at_once)

    async with Engine() as engine:
        assert len((await engine.run(pattern, "x")).requests) == 40


async def test_an_async_function_is_carried_to_another_event_loop(anyio_backend_name: str) -> None:
    async def pattern(messages: Any, context: Any) -> str:
        colour.set("red")
        asking = carry(ask_async)
        return await anyio.to_thread.run_sync(in_thread, lambda: anyio.run(asking, "so "))

    async with Engine() as engine:
        result = await engine.run(pattern, "x")
        assert (result.value, result.usage) == ("so red", Usage(10, 2))


async def test_what_it_was_awaited_in_is_as_before() -> None:
    async def fails() -> None:
        raise OSError(colour.get())

    colour.set("red")
    carried = carry(fails)
    colour.set("blue")
    with pytest.raises(OSError, match="red"):
        await carried()
    assert colour.get() == "blue"
    assert carried.__name__ == "fails"


async def test_a_budget_holds_in_an_executor() -> None:
    async def pattern(messages: Any, context: Any) -> list[bool]:
        refused = []
        for _ in range(3):
            try:
                await anyio.to_thread.run_sync(in_thread, carry(ask))
            except BudgetExceeded:
                refused.append(True)
            else:
                refused.append(False)
        return refused

    async with Engine(budgets=[Budget(calls=1)]) as engine:
        assert (await engine.run(pattern, "x")).value == [False, True, True]


async def ask_without_context(times: int = 3) -> None:
    for _ in range(times):
        await anyio.to_thread.run_sync(in_thread, ask)


async def pattern_that_loses_its_context(messages: Any, context: Any) -> None:
    await ask_without_context()


async def test_each_request_outside_all_runs_is_counted_and_the_first_told(caplog: pytest.LogCaptureFixture) -> None:
    async with Engine() as engine:
        with caplog.at_level(logging.WARNING, "runmeter"):
            result = await engine.run(pattern_that_loses_its_context, "x", tags={"tenant": "acme"})
        assert len(caplog.records) == 1
        assert "belongs to no run" in caplog.text
        assert "runmeter.carry" in caplog.text
        assert engine.statistics().outside_requests == 3
        outside = engine.usage().by_pattern()["outside"]
        assert (outside.executions, outside.requests, outside.usage) == (3, 3, Usage(30, 6))
        assert result.requests == ()
        assert engine.usage().by_tag("tenant")["acme"].requests == 0, "no tenant is guessed"


async def test_outside_all_runs_budgets_without_tags_hold() -> None:
    recorder = Recorder()
    budgets = [Budget(calls=2, name="all"), Budget(calls=0, tags={"tenant": "acme"}, name="acme")]
    async with Engine(budgets=budgets) as engine:
        engine.subscribe(recorder, name="recorder")
        with pytest.raises(BudgetExceeded, match="all"):
            await engine.run(pattern_that_loses_its_context, "x", tags={"tenant": "acme"})
        assert engine.statistics().outside_requests == 3
        assert engine.usage().by_pattern()["outside"].requests == 2
        assert engine.budgets()[0].refused == 1
    sent = [event for event in recorder.events if isinstance(event, ModelCallStarted)]
    assert len(sent) == 2, "the third did not leave"
    for run_id in {event.run_id for event in sent}:
        check_whole(recorder.of(run_id))


@pytest.mark.parametrize("room", [True, False])
async def test_a_reservation_outside_all_runs_is_that_of_its_request(room: bool) -> None:
    request = ModelRequest(provider="openai", model="gpt-4.1-mini", max_output_tokens=10, bound=Usage(50, 10))

    async def reserved() -> None:
        run = current_execution()
        assert run.budgeted
        async with run.reserve(request) as allowed, anyio.create_task_group():
            assert engine.budgets()[0].reserved == 60
            with run.model_call(allowed) as call:
                assert call.is_metered
                call.record(Usage(10, 2))
        with run.reserve(request) as allowed, run.model_call(allowed) as call:
            call.record(Usage(10, 2))

    async with Engine(budgets=[Budget(tokens=100 if room else 10)]) as engine:
        if room:
            await anyio.to_thread.run_sync(in_thread, lambda: anyio.run(reserved))
        else:
            with pytest.raises(BudgetExceeded):
                await anyio.to_thread.run_sync(in_thread, lambda: anyio.run(reserved))
        [status] = engine.budgets()
        assert [status.spent, status.reserved, status.refused] == ([24, 0, 0] if room else [0, 0, 1])
        outside = engine.usage().by_pattern()["outside"]
        assert (outside.requests, outside.in_flight) == (2 if room else 0, 0)
        assert not current_execution().is_metered


async def test_a_request_outside_that_fails_ends_its_run(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        with pytest.raises(OSError, match="gone"), current_execution().model_call(REQUEST):
            raise OSError("gone")

    async with Engine() as engine:
        await anyio.to_thread.run_sync(in_thread, fails)
        assert engine.usage().by_pattern()["outside"].by_status == {Status.ERROR: 1}


async def test_among_several_engines_none_is_guessed_and_each_request_is_counted() -> None:
    async with Engine(budgets=[Budget(calls=0)]) as one, Engine() as other:
        await ask_without_context()
        for engine in (one, other):
            assert engine.usage().total.requests == 0
            assert engine.statistics().outside_requests == 3


async def test_a_pattern_that_is_executed_in_no_run_is_outside(simulator: Simulator) -> None:
    config = OpenAIPatternConfig(base_url=simulator.url, api_key="sk-1", openai_max_tokens=50)
    async with OpenAIFunctionCallingPattern(config) as pattern, Engine(budgets=[Budget(usd="0.01")]) as engine:
        assert (await pattern.execute("Hello there.")).content
        assert engine.statistics().outside_requests == 1
        total = engine.usage().by_pattern()["outside"]
        assert total.usage == simulator.statistics().total
        [status] = engine.budgets()
        assert status.spent == total.cost.usd


async def test_without_an_engine_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with Engine():
        pass
    with caplog.at_level(logging.WARNING, "runmeter"):
        await anyio.to_thread.run_sync(in_thread, ask)
    assert not caplog.records


def test_asyncio_executors_are_the_case_in_point() -> None:
    async def pattern(messages: Any, context: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(None, carry(ask))

    async def main() -> int:
        async with Engine() as engine:
            return len((await engine.run(pattern, "x")).requests)

    assert asyncio.run(main()) == 1
