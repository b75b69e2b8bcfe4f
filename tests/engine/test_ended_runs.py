"""What outlives its run: a thread or a task that a timeout did not stop does nothing more in the run's name."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import anyio
import anyio.to_thread
import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from runmeter.engine import (
    Budget,
    Engine,
    ExecutionFinished,
    ModelRequest,
    RunEnded,
    RunInfo,
    RunTimeout,
    Usage,
    carry,
    current_execution,
)
from runmeter.engine.testing import Recorder
from runmeter.patterns import MeteringHandler, OpenAIFunctionCallingPattern, OpenAIPatternConfig
from runmeter.simulator import Simulator

REQUEST = ModelRequest(provider="openai", model="gpt-4.1-mini", max_output_tokens=10, bound=Usage(10, 10))
left: list[str] = []
"""What was done after all."""


def model_call() -> None:
    with current_execution().model_call(REQUEST):
        left.append("a request")


def reserve() -> None:
    with current_execution().reserve(REQUEST):
        left.append("a reservation")


def function_call() -> None:
    with current_execution().function_call("send"):
        left.append("a call")


def retrieval() -> None:
    with current_execution().retrieval("local"):
        left.append("a search")


def assistant_run() -> None:
    with current_execution().assistant_run("Ann"):
        left.append("an assistant")


def child() -> None:
    with current_execution().child(RunInfo("child")):
        left.append("a child")


def grandchild() -> None:
    with current_execution().child(RunInfo("child")) as run, run.model_call(REQUEST):
        left.append("a child's request")


def langchain_model() -> None:
    class Model(GenericFakeChatModel):
        def _generate(self, *args: Any, **named: Any) -> Any:
            left.append("LangChain's request")
            return super()._generate(*args, **named)

    Model(messages=iter([AIMessage("x")])).invoke("Where?", {"callbacks": [MeteringHandler()]})


def langchain_tool() -> None:
    @tool
    def send(to: str) -> str:
        """Send it."""
        left.append("LangChain's tool")
        return to

    send.invoke({"to": "Ann"}, {"callbacks": [MeteringHandler()]})


STEPS = [
    model_call,
    reserve,
    function_call,
    retrieval,
    assistant_run,
    child,
    grandchild,
    langchain_model,
    langchain_tool,
]


@pytest.fixture(autouse=True)
def nothing_has_left() -> None:
    left.clear()


@pytest.mark.parametrize("how", ["the context", "carry"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_thread_that_its_run_has_left_behind_does_nothing_more(step: Callable[[], None], how: str) -> None:
    recorder, go_on = Recorder(), threading.Event()
    ended: list[Future[None]] = []

    def work(step: Callable[[], None]) -> None:
        go_on.wait()
        step()

    async def times_out(messages: Any, context: Any) -> None:
        if how == "carry":
            ended.append(pool.submit(carry(work), step))
        else:
            ended.append(pool.submit(copy_context().run, work, step))
        await anyio.sleep_forever()

    with ThreadPoolExecutor(1) as pool:
        async with Engine(budgets=[Budget(calls=5), Budget(usd="1")]) as engine:
            engine.subscribe(recorder, name="recorder")
            with pytest.raises(RunTimeout):
                await engine.run(times_out, "", timeout=0.001)
            go_on.set()
            error = await anyio.to_thread.run_sync(ended[0].exception)
            assert isinstance(error, RunEnded)
            assert "has ended" in str(error)
            assert all(status.spent == status.reserved == 0 for status in engine.budgets())
            assert engine.usage().total.requests == 0
            assert engine.statistics().outside_requests == 0
    assert left == []
    assert isinstance(recorder.events[-1], ExecutionFinished)
    assert len(recorder.events) == 2


async def test_a_pattern_that_goes_on_in_a_task_sends_nothing(simulator: Simulator) -> None:
    go_on, errors = anyio.Event(), list[BaseException]()
    config = OpenAIPatternConfig(base_url=simulator.url, api_key="sk-1")

    async def later(pattern: OpenAIFunctionCallingPattern) -> None:
        await go_on.wait()
        try:
            await pattern.execute("Hello there.")
        except RunEnded as error:
            errors.append(error)

    async def leaves_a_task(messages: Any, context: Any) -> None:
        tasks.start_soon(later, pattern)

    async with (
        OpenAIFunctionCallingPattern(config) as pattern,
        Engine() as engine,
        anyio.create_task_group() as tasks,
    ):
        await engine.run(leaves_a_task, "")
        go_on.set()
    assert len(errors) == 1
    assert simulator.statistics().requests == {}


async def test_what_had_left_by_then_is_counted() -> None:
    """It may be billed, so that its end is told, late as it is."""
    recorder, go_on, begun = Recorder(), threading.Event(), threading.Event()
    ended: list[Future[None]] = []

    def work() -> None:
        with current_execution().model_call(REQUEST) as call:
            begun.set()
            go_on.wait()
            call.record(Usage(7, 3))

    async def times_out(messages: Any, context: Any) -> None:
        ended.append(pool.submit(carry(work)))
        await anyio.to_thread.run_sync(begun.wait)
        await anyio.sleep_forever()

    with ThreadPoolExecutor(1) as pool:
        async with Engine(budgets=[Budget(tokens=1_000)]) as engine:
            engine.subscribe(recorder, name="recorder")
            with anyio.move_on_after(60) as scope:

                async def stop() -> None:
                    await anyio.to_thread.run_sync(begun.wait)
                    scope.cancel()

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(stop)
                    tasks.start_soon(engine.run, times_out, "")
            go_on.set()
            await anyio.to_thread.run_sync(ended[0].result)
            assert engine.usage().total.usage == Usage(7, 3)
            [status] = engine.budgets()
            assert status.spent == 10
