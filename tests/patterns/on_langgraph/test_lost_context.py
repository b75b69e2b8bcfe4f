"""Graphs and models in threads that have lost their caller's context: whose the requests are, and who pays."""

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from runmeter import Budget, BudgetExceeded, Engine, Status, Usage, carry, current_execution
from runmeter.patterns import MeteringHandler

INPUT: Any = {"messages": [HumanMessage("Where is parcel AB-1?")]}


@pytest.fixture
def anyio_backend() -> str:
    """LangChain needs asyncio."""
    return "asyncio"


def used(read: int, written: int) -> Any:
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}


def answers() -> Iterator[AIMessage]:
    """A call of a tool, and an answer, again and again."""
    while True:
        call = {"name": "find", "args": {"number": "AB-1"}, "id": "call_1", "type": "tool_call"}
        yield AIMessage("", tool_calls=[call], usage_metadata=used(10, 2))
        yield AIMessage("In Lyon.", usage_metadata=used(20, 3))


@tool
def find(number: str) -> str:
    """Find a parcel."""
    return "Lyon"


def tool_graph() -> Any:
    """A graph that asks, calls the tool, and asks again."""
    model = GenericFakeChatModel(messages=answers())

    def ask(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    for name, node in (("ask", ask), ("tools", ToolNode([find])), ("again", ask)):
        graph.add_node(name, node)
    for edge in ((START, "ask"), ("ask", "tools"), ("tools", "again"), ("again", END)):
        graph.add_edge(*edge)
    return graph.compile()


async def in_executor(function: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function)


async def in_pool(function: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.wrap_future(pool.submit(function))


@pytest.mark.parametrize("elsewhere", [in_executor, in_pool])
@pytest.mark.parametrize("what", ["graph", "model"])
async def test_the_run_that_entered_the_handler_is_found(elsewhere: Any, what: str) -> None:
    async def pattern(messages: Any, context: Any) -> None:
        with MeteringHandler() as meter:
            config: Any = {"callbacks": [meter]}
            asked: Any = tool_graph() if what == "graph" else GenericFakeChatModel(messages=answers())
            await elsewhere(lambda: asked.invoke(INPUT if what == "graph" else "Where?", config))
            assert meter.outside_requests == 0

    async with Engine() as engine:
        result = await engine.run(pattern, "x", tags={"tenant": "acme"})
        row = engine.usage().by_tag("tenant")["acme"]
        assert result.usage == (Usage(30, 5) if what == "graph" else Usage(10, 2))
        assert row.function_calls == (1 if what == "graph" else 0)
        assert engine.statistics().outside_requests == 0


async def test_a_budget_holds_there() -> None:
    model = GenericFakeChatModel(messages=answers())

    async def pattern(messages: Any, context: Any) -> list[bool]:
        left = []
        with MeteringHandler() as meter:
            for _ in range(3):
                try:
                    await in_executor(lambda: model.invoke("Where?", {"callbacks": [meter]}))
                except BudgetExceeded:
                    left.append(False)
                else:
                    left.append(True)
        return left

    async with Engine(budgets=[Budget(calls=1)]) as engine:
        assert (await engine.run(pattern, "x")).value == [True, False, False]
        assert engine.budgets()[0].refused == 2


async def test_among_several_runs_none_is_guessed(caplog: pytest.LogCaptureFixture) -> None:
    """One handler for all: whose the request is cannot be told, and another tenant must not pay for it."""
    shared = MeteringHandler()
    model = GenericFakeChatModel(messages=answers())
    both = asyncio.Barrier(2)

    async def pattern(messages: Any, context: Any) -> None:
        with shared:
            await both.wait()
            if messages == "asks":
                await in_executor(lambda: model.invoke("Where?", {"callbacks": [shared]}))
                await in_executor(lambda: model.invoke("Where?", {"callbacks": [shared]}))
                await model.ainvoke("Where?", {"callbacks": [shared]})
            await both.wait()

    budgets = [Budget(calls=2, per="tenant", every="day"), Budget(calls=3)]
    async with Engine(budgets=budgets) as engine, asyncio.TaskGroup() as tasks:
        for tenant, does in (("acme", "asks"), ("umbrella", "waits")):
            tasks.create_task(engine.run(pattern, does, tags={"tenant": tenant}))
    usage = engine.usage()
    assert {tenant: row.requests for tenant, row in usage.by_tag("tenant").items()} == {
        "acme": 1,
        "umbrella": 0,
        None: 2,
    }
    assert usage.by_pattern()["outside"].usage == Usage(30, 5)
    assert shared.outside_requests == engine.statistics().outside_requests == 2
    assert [record.levelno for record in caplog.records if "belongs to no run" in record.getMessage()] == [
        logging.WARNING
    ]


async def test_outside_all_runs_a_budget_without_tags_holds() -> None:
    model = GenericFakeChatModel(messages=answers())
    meter = MeteringHandler()
    async with Engine(budgets=[Budget(calls=1)]) as engine:
        await model.ainvoke("Where?", {"callbacks": [meter]})
        with pytest.raises(BudgetExceeded):
            await model.ainvoke("Where?", {"callbacks": [meter]})
        assert engine.usage().by_pattern()["outside"].by_status == {Status.OK: 1, Status.BUDGET_EXCEEDED: 1}
    assert vars(meter)["_calls"] == {}
    assert not current_execution().is_metered


async def test_with_several_engines_none_is_guessed() -> None:
    model = GenericFakeChatModel(messages=answers())
    meter = MeteringHandler()
    async with Engine() as one, Engine() as other:
        await model.ainvoke("Where?", {"callbacks": [meter]})
        for engine in (one, other):
            assert engine.usage().total.requests == 0
            assert engine.statistics().outside_requests == 1
    assert meter.outside_requests == 1


async def test_a_handler_whose_run_is_over_belongs_to_none() -> None:
    """It was entered, and the run has ended without leaving its block."""
    model = GenericFakeChatModel(messages=answers())
    meter = MeteringHandler()

    async def pattern(messages: Any, context: Any) -> None:
        meter.__enter__()

    async with Engine() as engine:
        await engine.run(pattern, "x", tags={"tenant": "acme"})
        await in_executor(lambda: model.invoke("Where?", {"callbacks": [meter]}))
        assert engine.usage().by_tag("tenant")["acme"].requests == 0
    assert meter.outside_requests == 1


async def test_leaving_one_block_of_a_shared_handler_leaves_the_others_alone() -> None:
    shared = MeteringHandler()
    asked, left = asyncio.Event(), asyncio.Event()

    class Slow(GenericFakeChatModel):
        async def _agenerate(self, *args: Any, **named: Any) -> Any:
            asked.set()
            await left.wait()
            return await super()._agenerate(*args, **named)

    model = Slow(messages=answers())

    async def asks(messages: Any, context: Any) -> None:
        with shared:
            await model.ainvoke("Where?", {"callbacks": [shared]})

    async def leaves(messages: Any, context: Any) -> None:
        with shared:
            await asked.wait()
        left.set()

    async with Engine() as engine:
        async with asyncio.TaskGroup() as tasks:
            one = tasks.create_task(engine.run(asks, "x"))
            tasks.create_task(engine.run(leaves, "x"))
        assert one.result().usage == Usage(10, 2)
        assert engine.usage().total.request_errors_by_type == {}


async def test_a_function_that_is_carried_has_its_run_among_several() -> None:
    shared = MeteringHandler()
    model = GenericFakeChatModel(messages=answers())
    both = asyncio.Barrier(2)

    def ask() -> Any:
        return model.invoke("Where?", {"callbacks": [shared]})

    async def pattern(messages: Any, context: Any) -> None:
        with shared:
            await both.wait()
            await in_executor(carry(ask))
            await both.wait()

    async with Engine() as engine, asyncio.TaskGroup() as tasks:
        for tenant in ("acme", "umbrella"):
            tasks.create_task(engine.run(pattern, "x", tags={"tenant": tenant}))
    assert {tenant: row.requests for tenant, row in engine.usage().by_tag("tenant").items()} == {
        "acme": 1,
        "umbrella": 1,
    }
