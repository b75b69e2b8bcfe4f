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

from runmeter import Budget, BudgetExceeded, Engine, ModelRequest, Usage, carry, current_execution

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


async def test_the_first_request_outside_all_runs_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def pattern(messages: Any, context: Any) -> None:
        for _ in range(3):
            await anyio.to_thread.run_sync(in_thread, ask)

    async with Engine() as engine:
        with caplog.at_level(logging.WARNING, "runmeter"):
            await engine.run(pattern, "x")
        assert len(caplog.records) == 1
        assert "belongs to no run" in caplog.text
        assert "runmeter.carry" in caplog.text
        assert engine.statistics().outside_requests == 1, "the handle outside a run keeps no further count"


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
