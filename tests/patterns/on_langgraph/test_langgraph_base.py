"""What the LangGraph patterns have in common: how they take messages, models and contexts, and what they say."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from pattern_support import KEY, Run

from runmeter.engine import ConfigurationError, Usage
from runmeter.patterns import (
    EvaluatorOptimizerPattern,
    OpenAIPatternConfig,
    OrchestratorWorkersPattern,
    ParallelizationPattern,
    PatternConfig,
    PromptChainingConfig,
    PromptChainingPattern,
    RoutingPattern,
    Step,
)
from runmeter.patterns.langgraph.answers import text_of
from runmeter.simulator import Simulator

WORKFLOWS = [
    PromptChainingPattern,
    RoutingPattern,
    ParallelizationPattern,
    OrchestratorWorkersPattern,
    EvaluatorOptimizerPattern,
]
ONE_STEP = PromptChainingConfig(steps=(Step(name="answer", prompt="{input}"),))
REFUSAL = "I cannot help with that."


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio."""
    return "asyncio"


@pytest.fixture
def config(simulator: Simulator) -> OpenAIPatternConfig:
    return OpenAIPatternConfig(base_url=simulator.url, api_key=KEY)


async def find(number: str) -> str:
    """Find a parcel."""
    return f"{number} is in Berlin"


@pytest.mark.parametrize("kind", WORKFLOWS)
async def test_calls_that_nobody_answered_do_no_harm(kind: Any, config: OpenAIPatternConfig) -> None:
    """A run that was stopped leaves such a history, and no API takes it."""
    call = {"name": "find", "args": {"number": "1"}, "id": "call_1", "type": "tool_call"}
    messages = [HumanMessage("Where is it?"), AIMessage("", tool_calls=[call]), HumanMessage("Well?")]
    async with kind(config, [find]) as pattern:
        assert (await pattern.execute(messages)).content


class _Outer(TypedDict):
    content: str


@pytest.mark.parametrize("kind", WORKFLOWS)
async def test_in_a_graph_that_remembers_it_leaves_no_trace(kind: Any, config: OpenAIPatternConfig) -> None:
    async with kind(config) as pattern:

        async def node(state: _Outer) -> _Outer:
            return {"content": (await pattern.execute("What is honey?")).content}

        saver = InMemorySaver()
        graph = StateGraph(_Outer)
        graph.add_node("node", node)
        graph.add_edge(START, "node")
        graph.add_edge("node", END)
        ended = await graph.compile(saver).ainvoke({"content": ""}, {"configurable": {"thread_id": "1"}})
    assert ended["content"]
    assert list(saver.storage["1"]) == [""], "the outer graph's checkpoints, and no others"


class _Heard(BaseCallbackHandler):
    """A handler of the application's, as tracers are."""

    run_inline = True

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.heard.append("chain")

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.heard.append("model")


async def test_handlers_of_a_graph_around_it_hear_of_all(config: OpenAIPatternConfig) -> None:
    handler, run = _Heard(), Run()
    async with PromptChainingPattern(replace(ONE_STEP, base_url=config.base_url, api_key=KEY)) as pattern:

        async def node(state: _Outer) -> _Outer:
            return {"content": (await pattern.execute("What is honey?")).content}

        graph = StateGraph(_Outer)
        graph.add_node("node", node)
        graph.add_edge(START, "node")
        graph.add_edge("node", END)
        with run():
            await graph.compile().ainvoke({"content": ""}, {"callbacks": [handler]})
    assert handler.heard == ["chain", "chain", "chain", "chain", "model"]  # two graphs, and a node of each
    assert len(run.requests) == 1


async def test_what_a_tool_asks_is_metered() -> None:
    """Whatever a node calls has the run's handler in its context, as LangChain hands it on."""
    run = Run()
    inner = GenericFakeChatModel(messages=iter([AIMessage("In Berlin.")]))

    async def find(number: str) -> str:
        """Find a parcel."""
        return text_of(await inner.ainvoke(number))

    call = {"name": "find", "args": {"number": "1"}, "id": "call_1", "type": "tool_call"}
    model = _Calling(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("It is in Berlin.")]))
    with run():
        await PromptChainingPattern(ONE_STEP, [find], model=model).execute("Where is parcel 1?")
    assert (len(run.requests), len(run.calls)) == (3, 1)


async def test_what_a_tool_asks_in_a_thread_without_a_context_is_metered() -> None:
    """Where it is handed LangChain's callbacks: they know what the thread does not."""
    run, inner = Run(), GenericFakeChatModel(messages=iter([AIMessage("In Berlin.")]))

    async def find(number: str) -> str:
        """Find a parcel."""
        config: Any = {"callbacks": ensure_config()["callbacks"]}
        with ThreadPoolExecutor() as threads:
            return text_of(await asyncio.wrap_future(threads.submit(inner.invoke, number, config)))

    model = _Calling(messages=iter([_call("find", number="1"), AIMessage("It is in Berlin.")]))
    with run():
        await PromptChainingPattern(ONE_STEP, [find], model=model).execute("Where is parcel 1?")
    assert len(run.requests) == 3


async def test_a_request_that_outlives_the_tool_that_made_it_is_metered_to_its_end() -> None:
    run, asked, started = Run(), asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    class Slow(GenericFakeChatModel):
        async def _agenerate(self, *arguments: Any, **settings: Any) -> Any:
            started.set()
            await asked.wait()
            return await super()._agenerate(*arguments, **settings)

    used: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    inner = Slow(messages=iter([AIMessage("Berlin", usage_metadata=used)]))

    @tool
    async def begin() -> str:
        """Begin."""
        tasks.append(asyncio.create_task(inner.ainvoke("Where?")))
        await started.wait()
        return "begun"

    @tool
    async def collect() -> str:
        """Collect."""
        asked.set()
        return text_of(await tasks[0])

    said = [_call("begin"), _call("collect"), AIMessage("It is in Berlin.")]
    with run():
        pattern = PromptChainingPattern(ONE_STEP, [begin, collect], model=_Calling(messages=iter(said)))
        await pattern.execute("Where is parcel 1?")
    assert run.reported == Usage(10, 5)
    assert not [event for event in run.requests if event.error_type]


def _call(name: str, **arguments: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": name, "type": "tool_call"}])


class _Calling(GenericFakeChatModel):
    """Says that it calls tools."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


@pytest.mark.parametrize("kind", WORKFLOWS)
async def test_instructions_that_are_no_text_are_named(kind: Any, config: OpenAIPatternConfig) -> None:
    run = Run()
    async with kind(config) as pattern:
        with pytest.raises(ConfigurationError, match=r"context\['instructions'\] must be a string, not a 'int'"), run():
            await pattern.execute("What is honey?", {"instructions": 5})
    assert not run.requests


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *((kind, "model") for kind in WORKFLOWS),
        (OrchestratorWorkersPattern, "worker_model"),
        (EvaluatorOptimizerPattern, "evaluator_model"),
    ],
)
@pytest.mark.parametrize("model", ["gpt-6-luna", GenericFakeChatModel])
def test_a_model_that_is_none_is_named(kind: Any, option: str, model: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option} must be a LangChain chat model"):
        kind(PatternConfig(), **{option: model})


async def test_a_model_without_tools_is_told_from_one_with() -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("Yes.")]))
    assert (await PromptChainingPattern(ONE_STEP, model=model).execute("Well?")).content == "Yes."
    with pytest.raises(ConfigurationError, match="a GenericFakeChatModel cannot call tools"):
        await PromptChainingPattern(ONE_STEP, [find], model=model).execute("Well?")


class _Refusing(GenericFakeChatModel):
    """Refuses, as ChatOpenAI does over the Responses API."""

    async def _astream(self, *_: Any, **__: Any) -> Any:
        block = {"type": "refusal", "refusal": REFUSAL, "index": 0}
        yield ChatGenerationChunk(message=AIMessageChunk(content=[block]))


async def test_a_refusal_is_an_answer() -> None:
    refusal = AIMessage([{"type": "refusal", "refusal": REFUSAL}])
    model = _Refusing(messages=iter([refusal]))
    deltas: list[str] = []

    async def listen(text: str) -> None:
        deltas.append(text)

    pattern = PromptChainingPattern(ONE_STEP, model=model)
    assert (await pattern.execute("Well?")).content == REFUSAL
    with Run(delta=listen)():
        result = await pattern.execute("Well?")
    assert result.content == REFUSAL == "".join(deltas)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (AIMessage("", additional_kwargs={"refusal": REFUSAL}), REFUSAL),
        (AIMessage("", additional_kwargs={"refusal": None}), ""),
        (AIMessage(["Yes", {"type": "text", "text": "!"}]), "Yes!"),
        (AIMessage([{"type": "reasoning", "summary": []}]), ""),
    ],
)
def test_what_a_message_says(message: AIMessage, text: str) -> None:
    assert text_of(message) == text
