"""What do the LangGraph patterns add to bare graphs? Run: .venv/bin/python benchmarks/langgraph_patterns.py

Each pattern runs in an engine, with events and statistics, over a chat model that answers at once. Beside it
runs a bare LangGraph graph with the same nodes and the same number of questions to the same model, and nothing else.
The difference is CPU time per node, the median over interleaved rounds. It contains all that a pattern does in its
nodes: the tool loop, retries and deadlines of each question, reading structured answers, child runs of workers.
"""

import asyncio
import gc
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import add
from typing import Annotated, Any, TypedDict

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Command, Send

from runmeter.engine import Engine
from runmeter.patterns import (
    AugmentedLLMPattern,
    BasePattern,
    EvaluatorOptimizerPattern,
    OrchestratorWorkersPattern,
    ParallelizationPattern,
    PatternConfig,
    PromptChainingPattern,
    RoutingPattern,
)
from runmeter.telemetry import configure

ROUNDS = 15
RUNS = 40
QUESTION = "What is honey made of?"


class Instant(BaseChatModel):
    """Answers at once: with what the question's structure wants, else with a sentence."""

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = "".join(str(message.content) for message in messages)
        for shape, answer in STRUCTURED.items():
            if shape in text:
                return _result(answer)
        return _result("Honey is made of nectar.")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)


STRUCTURED = {
    '"confidence"': '{"reason": "It asks.", "route": "question", "confidence": 0.9}',
    '"tasks"': json.dumps({"tasks": [{"title": "t", "instructions": "i"}] * 4}),
    '"feedback"': '{"feedback": "Good.", "score": 0.9, "passed": true}',
}
"""Answers, by a field that only their schema has."""


def _result(text: str) -> ChatResult:
    usage: Any = {"input_tokens": 10, "output_tokens": 10, "total_tokens": 20}
    return ChatResult(generations=[ChatGeneration(message=AIMessage(text, usage_metadata=usage))])


class State(TypedDict):
    messages: Annotated[list[BaseMessage], add]


class Conversation(TypedDict):
    messages: Annotated[list[BaseMessage], add_messages]


@dataclass(frozen=True)
class Case:
    """A pattern, and the shape of its graph: nodes in a row, each as many times side by side."""

    pattern: type[BasePattern]
    widths: Sequence[int]
    deciding: int | None = None
    """The node that decides where to go on."""
    state: type = State

    @property
    def nodes(self) -> int:
        return sum(self.widths)


CASES = (
    Case(AugmentedLLMPattern, (1,), deciding=0, state=Conversation),
    Case(PromptChainingPattern, (1, 1)),
    Case(RoutingPattern, (1, 1), deciding=0),
    Case(ParallelizationPattern, (3, 1)),
    Case(OrchestratorWorkersPattern, (1, 4, 1)),
    Case(EvaluatorOptimizerPattern, (1, 1), deciding=1),
)


def bare_graph(model: BaseChatModel, case: Case) -> Any:
    """The same nodes, each of which asks the model once, and the same edges."""
    graph = StateGraph(case.state)
    names = [f"node{number}" for number in range(len(case.widths))]
    goals = [*names[1:], END]
    for number, (name, goal) in enumerate(zip(names, goals, strict=True)):
        if number == case.deciding:
            graph.add_node(name, _deciding_node(model, goal), destinations=("other", goal))
            graph.add_node("other", _node(model))
        else:
            graph.add_node(name, _node(model))
    if case.deciding != len(names) - 1:
        graph.add_edge(names[-1], END)
    for number, (source, target, width) in enumerate(zip([START, *names], names, case.widths, strict=False)):
        if width == 1 and number - 1 != case.deciding:
            graph.add_edge(source, target)
        elif width == 1:
            continue
        else:
            graph.add_conditional_edges(source, _fan_out(target, width), [target])
    return graph.compile()


def _node(model: BaseChatModel) -> Any:
    async def node(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return node


def _deciding_node(model: BaseChatModel, goal: str) -> Any:
    async def node(state: Any) -> Command[str]:
        return Command(update={"messages": [await model.ainvoke(state["messages"])]}, goto=goal)

    return node


def _fan_out(target: str, width: int) -> Callable[[State], list[Send]]:
    return lambda state: [Send(target, {"messages": state["messages"][:1]}) for _ in range(width)]


async def cpu_ms(run: Callable[[], Awaitable[Any]]) -> float:
    """CPU time of a run in ms."""
    gc.collect()
    start = time.process_time_ns()
    for _ in range(RUNS):
        await run()
    return (time.process_time_ns() - start) / RUNS / 1e6


async def measure(case: Case, engine: Engine) -> str:
    model = Instant()
    pattern = case.pattern(PatternConfig(), model=model)  # type: ignore[call-arg] # as all patterns on LangGraph take it
    graph = bare_graph(model, case)
    result = await engine.run(pattern, QUESTION)
    assert len(result.requests + result.child_requests) == case.nodes, "as many questions as nodes"
    begin: State = {"messages": [HumanMessage(QUESTION)]}
    added, ratios, bare = [], [], []
    for _ in range(ROUNDS):
        alone = await cpu_ms(lambda: graph.ainvoke(begin))
        metered = await cpu_ms(lambda: engine.run(pattern, QUESTION))
        bare.append(alone / case.nodes)
        added.append((metered - alone) / case.nodes)
        ratios.append(metered / alone)
    low, high = sorted(added)[ROUNDS // 5], sorted(added)[-ROUNDS // 5]
    return (
        f"{pattern.name:22} {case.nodes:5} {statistics.median(bare):10.2f} {statistics.median(added):+11.2f}"
        f"   ({low:+.2f} to {high:+.2f}) {statistics.median(ratios):8.2f}"
    )


async def main() -> None:
    telemetry = configure(traces_exporter="none", metrics_exporter="none")
    for title, sinks in (("statistics", None), ("statistics, spans and metrics", telemetry)):
        print(f"with {title}\n{'pattern':22} nodes  bare ms/node  added ms/node  (middle 3/5)   ratio")
        async with Engine(telemetry=sinks) as engine:
            for case in CASES:
                print(await measure(case, engine), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
