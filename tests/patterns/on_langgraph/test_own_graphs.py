"""Graphs of a user's own, awaited in a function: however their run is stopped, nothing of them goes on."""

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from runmeter.engine import Delta, Engine, Event, ExecutionFinished, RunTimeout, await_foreign, current_execution
from runmeter.patterns import MeteringHandler

INPUT: Any = {"messages": [HumanMessage("Where is parcel AB-1?")]}


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio."""
    return "asyncio"


class Nodes:
    """Several nodes that work side by side for ever, each asking a model again and again."""

    def __init__(self, count: int = 3) -> None:
        self.at_work = 0
        self.tidied = 0
        self.requests = 0
        self.all_at_work = anyio.Event()
        self._count = count

    def _model(self) -> GenericFakeChatModel:
        def answers() -> Any:
            while True:
                self.requests += 1
                yield AIMessage("In Lyon.")

        return GenericFakeChatModel(messages=answers())

    async def _work(self, state: MessagesState) -> Any:
        self.at_work += 1
        if self.at_work == self._count:
            self.all_at_work.set()
            await current_execution().delta("all at work")
        model = self._model()
        try:
            while True:
                await model.ainvoke(state["messages"])
                await asyncio.sleep(0.001)
        finally:
            for _ in range(5):
                await asyncio.sleep(0.001)
            self.at_work -= 1
            self.tidied += 1

    def graph(self, **settings: Any) -> Any:
        graph = StateGraph(MessagesState)
        graph.add_node("first", lambda _: {"messages": [AIMessage("begun")]})
        graph.add_edge(START, "first")
        for number in range(self._count):
            graph.add_node(f"node{number}", self._work)
            graph.add_edge("first", f"node{number}")
            graph.add_edge(f"node{number}", END)
        return graph.compile(**settings)

    def pattern(self, **settings: Any) -> Callable[..., Any]:
        graph, config = self.graph(**settings), {"configurable": {"thread_id": "1"}}
        how = {"durability": "exit"} if settings else {}

        async def run_graph(messages: Any, context: Any) -> Any:
            with MeteringHandler() as meter:
                return await graph.ainvoke(INPUT, {**config, "callbacks": [meter]}, **how)

        return run_graph

    async def check(self, events: list[Event]) -> None:
        """Check that all have ended, and that nothing happens any more."""
        assert (self.at_work, self.tidied) == (0, self._count)
        requests, said = self.requests, len(events)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert (self.requests, len(events)) == (requests, said)
        assert isinstance(events[-1], ExecutionFinished)


async def by_timeout(engine: Engine, pattern: Any, nodes: Nodes) -> None:
    with pytest.raises(RunTimeout):
        await engine.run(pattern, "x", timeout=0.1)


async def by_leaving_a_stream(engine: Engine, pattern: Any, nodes: Nodes) -> None:
    async with engine.stream(pattern, "x") as stream:
        async for item in stream:
            if isinstance(item, Delta):
                break


async def by_a_callers_scope(engine: Engine, pattern: Any, nodes: Nodes) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.run, pattern, "x")
        await nodes.all_at_work.wait()
        tasks.cancel_scope.cancel()


async def by_a_callers_deadline(engine: Engine, pattern: Any, nodes: Nodes) -> None:
    with anyio.move_on_after(0.1):
        await engine.run(pattern, "x")


async def by_a_callers_task(engine: Engine, pattern: Any, nodes: Nodes) -> None:
    task = asyncio.ensure_future(engine.run(pattern, "x"))
    await nodes.all_at_work.wait()
    task.cancel()
    await asyncio.wait([task])


async def by_closing(engine: Engine, pattern: Any, nodes: Nodes) -> None:
    task = asyncio.ensure_future(engine.run(pattern, "x"))
    await nodes.all_at_work.wait()
    await engine.__aexit__(None, None, None)
    await asyncio.wait([task])
    task.exception()


async def in_a_child(engine: Engine, pattern: Any, nodes: Nodes) -> None:
    async def outer(messages: Any, context: Any) -> Any:
        return await engine.run(pattern, "x")

    with pytest.raises(RunTimeout):
        await engine.run(outer, "x", timeout=0.1)


async def in_a_scope_of_the_functions_own(engine: Engine, pattern: Any, nodes: Nodes) -> None:
    async def bounded(messages: Any, context: Any) -> Any:
        with anyio.fail_after(60):
            return await pattern(messages, context)

    with pytest.raises(RunTimeout):
        await engine.run(bounded, "x", timeout=0.1)


async def by_a_scope_of_the_functions_own(engine: Engine, pattern: Any, nodes: Nodes) -> None:
    async def bounded(messages: Any, context: Any) -> Any:
        with anyio.move_on_after(0.1):
            return await await_foreign(pattern(messages, context))

    await engine.run(bounded, "x")


WAYS = [
    by_timeout,
    by_leaving_a_stream,
    by_a_callers_scope,
    by_a_callers_deadline,
    by_a_callers_task,
    by_closing,
    in_a_child,
    in_a_scope_of_the_functions_own,
    by_a_scope_of_the_functions_own,
]


@pytest.mark.parametrize("stop", WAYS)
async def test_nothing_of_a_graph_goes_on(stop: Any) -> None:
    nodes, events = Nodes(), list[Event]()
    engine = Engine(drain_timeout=0.2)
    engine.subscribe(events.extend, name="events", lane="lossless")
    await engine.__aenter__()
    try:
        await stop(engine, nodes.pattern(), nodes)
    finally:
        if stop is not by_closing:
            await anyio.wait_all_tasks_blocked()
            await engine.__aexit__(None, None, None)
    assert nodes.all_at_work.is_set()
    await nodes.check(events)


@pytest.mark.parametrize("stop", WAYS)
async def test_its_checkpoint_is_written(stop: Any) -> None:
    nodes, saver = Nodes(), InMemorySaver()
    engine = Engine(drain_timeout=0.2)
    await engine.__aenter__()
    try:
        await stop(engine, nodes.pattern(checkpointer=saver), nodes)
    finally:
        if stop is not by_closing:
            await engine.__aexit__(None, None, None)
    saved = saver.get({"configurable": {"thread_id": "1"}})
    assert saved is not None, "durability 'exit' writes at the end"
    assert [message.content for message in saved["channel_values"]["messages"]] == [
        INPUT["messages"][0].content,
        "begun",
    ]
