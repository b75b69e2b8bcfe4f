"""The patterns on LangGraph and bare graphs of the same shape, over a chat model that answers at once."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add
from typing import Annotated, Any, TypedDict

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Command, Send

QUESTION = "What is honey made of?"


class Instant(BaseChatModel):
    """Answers at once: with what the question's structure wants, else with a sentence."""

    asked: int = 0
    """How often."""

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
        self.asked += 1
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
class Shape:
    """The shape of a pattern's graph: nodes in a row, each as many times side by side."""

    widths: Sequence[int]
    deciding: int | None = None
    """The node that decides where to go on."""
    state: type = State

    @property
    def nodes(self) -> int:
        """How often the model is asked."""
        return sum(self.widths)


SHAPES = {
    "augmented_llm": Shape((1,), deciding=0, state=Conversation),
    "prompt_chaining": Shape((1, 1)),
    "routing": Shape((1, 1), deciding=0),
    "parallelization": Shape((3, 1)),
    "orchestrator_workers": Shape((1, 4, 1)),
    "evaluator_optimizer": Shape((1, 1), deciding=1),
}


def bare_graph(model: BaseChatModel, shape: Shape) -> Any:
    """The same nodes, each of which asks the model once, and the same edges."""
    graph = StateGraph(shape.state)
    names = [f"node{number}" for number in range(len(shape.widths))]
    goals = [*names[1:], END]
    for number, (name, goal) in enumerate(zip(names, goals, strict=True)):
        if number == shape.deciding:
            graph.add_node(name, _deciding_node(model, goal), destinations=("other", goal))
            graph.add_node("other", _node(model))
        else:
            graph.add_node(name, _node(model))
    if shape.deciding != len(names) - 1:
        graph.add_edge(names[-1], END)
    for number, (source, target, width) in enumerate(zip([START, *names], names, shape.widths, strict=False)):
        if width == 1 and number - 1 != shape.deciding:
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
