"""Requests of LangChain that its handler and its client both see are counted once, and each attempt of the client."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from meter_support import UNAVAILABLE, MeterScene, check_once
from pattern_support import KEY
from pydantic import SecretStr

from runmeter import ModelCallStarted
from runmeter.patterns import MeteringHandler

MODEL = "gpt-6-luna"


@pytest.fixture
def anyio_backend() -> str:
    """LangChain needs asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client try again at once."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)


def model_of(client: Any, **settings: Any) -> ChatOpenAI:
    """A LangChain model that asks by a metered client."""
    return ChatOpenAI(
        model=MODEL,
        api_key=SecretStr(KEY),
        base_url=str(client.base_url),
        root_async_client=client,
        async_client=client.chat.completions,
        stream_usage=True,
        **settings,
    )


async def by_handler(client: Any) -> None:
    """Ask by LangChain, with a handler that meters it."""
    with MeteringHandler() as handler:
        await model_of(client).ainvoke("How deep?", {"callbacks": [handler]})


async def by_handler_streamed(client: Any) -> None:
    with MeteringHandler() as handler:
        async for _ in model_of(client).astream("How deep?", {"callbacks": [handler]}):
            pass


async def by_handler_in_graph(client: Any) -> None:
    model = model_of(client, use_responses_api=True)

    async def ask(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    with MeteringHandler() as handler:
        await graph.compile().ainvoke({"messages": [HumanMessage("How deep?")]}, {"callbacks": [handler]})


async def by_two_handlers(client: Any) -> None:
    with MeteringHandler() as one, MeteringHandler() as other:
        await model_of(client).ainvoke("How deep?", {"callbacks": [one, other]})


async def by_model_alone(client: Any) -> None:
    """Ask by LangChain without a handler."""
    await model_of(client).ainvoke("How deep?")


WAYS: dict[str, Callable[[Any], Awaitable[None]]] = {
    "handler": by_handler,
    "handler, streamed": by_handler_streamed,
    "handler in a graph": by_handler_in_graph,
    "two handlers": by_two_handlers,
    "model alone": by_model_alone,
}


@pytest.mark.parametrize("retried", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["in a run", "in none"])
async def test_each_way_counts_once(way: str, retried: bool, where: str) -> None:
    await check_once(WAYS[way], retried=retried, where=where)


@pytest.mark.filterwarnings("ignore:Unexpected type for token usage")  # LangChain's own, of details that are null
async def test_each_request_of_a_batch_is_its_own() -> None:
    """LangChain begins all calls of a batch in one context, and then sends them side by side."""
    async with MeterScene.open() as scene:
        client = scene.client(max_retries=1)
        scene.simulator.inject(UNAVAILABLE)

        async def pattern(messages: Any, context: Any) -> None:
            with MeteringHandler() as handler:
                asked: Any = [[HumanMessage("How deep?")], [HumanMessage("How salty?")], [HumanMessage("How cold?")]]
                await model_of(client).agenerate(asked, callbacks=[handler])

        await scene.engine.run(pattern, "")
        await client.close()
        await scene.settled()
        assert sorted(event.attempt for event in scene.ends) == [1, 1, 1, 2]
        assert len(scene.of(ModelCallStarted)) == scene.arrived == 4
