"""LangGraph in anyio's cancel scopes: nothing of it may be left behind."""

import asyncio

import anyio
import pytest
from graphs import State, graph_of

from runmeter.engine import await_foreign


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_node_that_tidies_up_has_done_so_when_its_run_is_over() -> None:
    started = anyio.Event()
    tidied = []

    async def node(state: State) -> State:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            tidied.append(state["text"])
        return state

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(await_foreign, graph_of(node).ainvoke({"text": "all"}))
        await started.wait()
        tasks.cancel_scope.cancel()
    assert tidied == ["all"]


async def test_results_and_errors_come_through() -> None:
    async def upper(state: State) -> State:
        return {"text": state["text"].upper()}

    assert await await_foreign(graph_of(upper).ainvoke({"text": "all"})) == {"text": "ALL"}

    async def broken(state: State) -> State:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await await_foreign(graph_of(broken).ainvoke({"text": "all"}))


async def test_an_error_while_being_cancelled_does_not_replace_the_cancellation() -> None:
    async def fails() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise OSError("broken")

    with anyio.move_on_after(0) as scope:
        await await_foreign(fails())
    assert scope.cancelled_caught
