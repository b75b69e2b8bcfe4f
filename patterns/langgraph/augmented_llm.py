"""Augmented LLM: a model with tools and memory, as a LangGraph graph."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict
from weakref import WeakValueDictionary

import anyio
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.runtime import Runtime

from runmeter.engine import current_execution

from ..base import PatternResult
from ..config import PatternConfig, PatternType
from ..errors import PatternError
from ..retry import RetryPolicy
from ..tools import CallAllowance, ToolLike
from .base import LangGraphBasePattern, Run, ToolChoice, is_complete
from .callbacks import MeteringHandler
from .messages import answer_open_calls, calls_of, to_langchain
from .usage import finish_reason_of

_turns_held: ContextVar[tuple[anyio.Lock, ...]] = ContextVar("runmeter_turns_held", default=())
"""Those of the runs that this code is part of."""


class _State(TypedDict):
    """What the graph remembers between runs of a conversation."""

    messages: Annotated[list[BaseMessage], add_messages]


@dataclass
class _Run(Run):
    instructions: str | None = None
    choice: ToolChoice = "auto"
    """What the last answer could do with tools."""
    over: bool = False
    new: list[BaseMessage] = field(default_factory=list)


class AugmentedLLMPattern(LangGraphBasePattern):
    """A model that answers with the help of tools, and remembers conversations.

    The graph has two nodes: `model` asks, `tools` makes the calls it wants and goes back. Every call is answered: one
    that fails, or that a limit forbids, with an error the model can read. When a limit is reached, the model is asked
    for a last answer without tools.

    A run with a conversation id (`engine.run(..., conversation_id=...)`, or `conversation_id` in its context) goes on
    where that conversation's last run ended. Without one nothing is remembered, and the caller sends the history.
    Runs of one conversation take turns, in this pattern and event loop; other patterns, loops and processes that share
    its checkpointer do not wait. A run that fails leaves what it was told in the conversation: to have it there once,
    try again with a LangChain message of the same `id`.
    Of the context it also reads `instructions`, in place of `system_prompt`.

    Args:
        config: A `PatternConfig`. An `OpenAIPatternConfig` describes the default model as well.
        tools: What the model may call.
        ws_streaming: See `BasePattern`.
        model: Any LangChain chat model; by default OpenAI's, over the Responses API.
        checkpointer: Where conversations are kept: any of LangGraph's; by default in memory, without limit.
        durability: When they are: at the end of each run, or also after each step (`async`, `sync`).
        retry: When to try a request again; by default what the config says.

    Raises:
        ConfigurationError: the config is of another kind, or a tool is none.
    """

    pattern_type = PatternType.AUGMENTED_LLM

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        model: BaseChatModel | None = None,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
        durability: Literal["exit", "async", "sync"] = "exit",
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming, model=model, retry=retry)
        self._durability = durability
        self._turns: WeakValueDictionary[tuple[int, str], anyio.Lock] = WeakValueDictionary()
        graph = StateGraph(_State, context_schema=_Run)
        graph.add_node("model", self._model_node)
        graph.add_node("tools", self._tools_node)
        graph.add_edge(START, "model")
        graph.add_conditional_edges("model", _after_model, ["tools", END])
        graph.add_conditional_edges("tools", _after_tools, ["model", END])
        # Two of one kind: what nobody will go on with is not worth a checkpoint.
        self.graph = graph.compile(name=self.name)
        self.remembering_graph = graph.compile(checkpointer or InMemorySaver(), name=self.name)

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> PatternResult:
        """Answer.

        Args:
            messages: A string, OpenAI dicts or LangChain messages.
            context: `conversation_id` and `instructions`, each optional.

        Raises:
            AsyncioRequired: the event loop is not asyncio's.
            ConfigurationError: something is no message, or there is no API key.
            PatternError: it is part of a run of the same conversation.
            ResponseFailed: an answer was not complete in time, or its stream was cut.
            Exception: whatever the model raises, for the last time.
        """
        self._check_loop()
        context = context or {}
        conversation = context.get("conversation_id") or current_execution().info.conversation_id
        state = _State(messages=to_langchain(messages))
        async with self._turn(conversation) if conversation is not None else nullcontext():
            run = await self._run_graph(state, context, conversation)
        last = run.answers[-1]
        return PatternResult(
            content=str(last.text),
            finish_reason=finish_reason_of(last) or "stop",
            messages=tuple(run.new),
            turns=len(run.answers),
            function_calls=tuple(run.results),
            response_id=last.response_metadata.get("id"),
            conversation_id=conversation,
        )

    async def _run_graph(self, state: _State, context: Mapping[str, Any], conversation: str | None) -> _Run:
        with MeteringHandler() as meter:
            instructions = context.get("instructions", self.config.system_prompt)
            run = _Run(meter, CallAllowance(self.config.max_function_calls), instructions=instructions)
            # Each turn is two steps; the limits of this pattern come first.
            config: Any = {"callbacks": [meter], "recursion_limit": 2 * self.config.max_iterations + 1}
            if conversation is None:
                await self.graph.ainvoke(state, config, context=run)
            else:
                config["configurable"] = {"thread_id": conversation}
                await self.remembering_graph.ainvoke(state, config, context=run, durability=self._durability)
        return run

    @asynccontextmanager
    async def _turn(self, conversation: str) -> AsyncIterator[None]:
        """Have a conversation to oneself: a run reads it at its start, and writes it at its end."""
        turn = self._turns.setdefault((id(asyncio.get_running_loop()), conversation), anyio.Lock())
        outer = _turns_held.get()
        if turn in outer:  # it would wait for itself
            raise PatternError(f"a run of conversation {conversation!r} cannot be part of another run of it")
        async with turn:
            token = _turns_held.set((*outer, turn))
            try:
                yield
            finally:
                _turns_held.reset(token)

    async def _model_node(self, state: _State, runtime: Runtime[_Run]) -> _State:
        run = runtime.context
        run.choice = self._tool_choice(len(run.answers) + 1, run.allowance)
        messages = list(answer_open_calls(state["messages"]))
        answer = await self._ask(run, messages, choice=run.choice, instructions=run.instructions, deliver=True)
        run.new.append(answer)
        return {"messages": [answer]}

    async def _tools_node(self, state: _State, runtime: Runtime[_Run]) -> _State:
        run = runtime.context
        answer = run.answers[-1]
        told = await self._make_calls(run, answer)
        run.over = run.choice == "none" or not is_complete(answer)
        run.new += told
        return {"messages": [*told]}


def _after_model(state: _State, runtime: Runtime[_Run]) -> Literal["tools", "__end__"]:  # noqa: ARG001 - LangGraph gives both
    return "tools" if calls_of(runtime.context.answers[-1]) else "__end__"


def _after_tools(state: _State, runtime: Runtime[_Run]) -> Literal["model", "__end__"]:  # noqa: ARG001 - LangGraph gives both
    return "__end__" if runtime.context.over else "model"
