"""Streams of real patterns that are left in the middle of an answer: runs and engines end, and nothing stays behind."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest
from contract_support import EACH_PATTERN, Watcher, create
from graphs import graph_of
from virtual_time import VirtualTime

from runmeter.engine import Delta, Engine, Status, current_execution
from runmeter.engine.concurrency.cancellation import CANCEL_AGAIN, CANCELLATIONS, await_foreign
from runmeter.patterns import PatternType
from runmeter.simulator import Simulator

QUESTION = "Tell me a long story about " + "bees and wasps and " * 40


@pytest.fixture
def anyio_backend(case: tuple[PatternType, str]) -> str:
    return case[1]


@pytest.mark.parametrize("buffer", [1, 16])
@pytest.mark.parametrize("case", EACH_PATTERN, ids=str)
async def test_a_stream_that_is_left_amid_a_burst_of_chunks_closes(
    case: tuple[PatternType, str], buffer: int, simulator: Simulator, tmp_path: Path
) -> None:
    """langchain-openai reads chunks by `asyncio.wait_for`, which loses a cancellation in Python 3.11."""
    (tmp_path / "bees.md").write_text("Bees make honey. " * 20)
    watcher = Watcher()
    async with create(case[0], simulator.url, tmp_path) as pattern, watcher.engine() as engine:
        stream = engine.stream(pattern, QUESTION, buffer=buffer)
        async for item in stream:
            if isinstance(item, Delta):
                break
        await stream.aclose()
        assert engine.statistics().running == 0
    ended = watcher.usage.snapshot().total.by_status
    assert set(ended) <= {Status.CANCELLED, Status.OK}, "an answer in one piece may be complete before it is left"


class TestGraphs:
    """What LangGraph and its models do with a cancellation, in virtual time."""

    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        return VirtualTime("asyncio").backend

    async def test_a_node_that_loses_its_cancellation_ends_by_the_next(self) -> None:
        async def node(state: Any) -> None:
            await wait_for_in_python_3_11()
            await anyio.sleep_forever()

        with anyio.move_on_after(1) as scope:
            await await_foreign(graph_of(node).ainvoke({"text": ""}))
        assert scope.cancelled_caught
        assert anyio.current_time() == pytest.approx(1 + CANCEL_AGAIN, abs=0.5)

    async def test_a_node_that_loses_its_cancellation_ends_with_its_next_piece(self) -> None:
        async def node(state: Any) -> None:
            await wait_for_in_python_3_11()
            while True:
                await current_execution().delta("again")

        async def pattern(messages: Any, context: Any) -> None:
            await current_execution().delta("begun")
            await await_foreign(graph_of(node).ainvoke({"text": ""}))

        async with Engine() as engine:
            stream = engine.stream(pattern, "", buffer=1)
            async for item in stream:
                if isinstance(item, Delta):
                    break
            start = anyio.current_time()
            await stream.aclose()
            assert anyio.current_time() - start < CANCEL_AGAIN / 2
            assert engine.usage().total.by_status == {Status.CANCELLED: 1}

    async def test_a_graph_that_will_not_end_is_left_behind(self, caplog: pytest.LogCaptureFixture) -> None:
        released = False

        async def stubborn() -> None:
            while not released:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    pass

        with anyio.move_on_after(1) as scope:
            await await_foreign(stubborn())
        assert scope.cancelled_caught
        assert anyio.current_time() == pytest.approx(1 + CANCELLATIONS * CANCEL_AGAIN, abs=0.5)
        assert "left behind" in caplog.text
        released = True


async def wait_for_in_python_3_11() -> None:
    """Lose a cancellation as `asyncio.wait_for` does there when what it waits for is done just then."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        pass
