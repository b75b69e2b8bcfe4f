"""Prompt chaining: steps in order, each asked with what came of those before, with gates between them."""

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, TypedDict

import msgspec
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from runmeter.engine import ConfigurationError

from ..base import PatternResult
from ..config import AtLeastOne, OpenAIPatternConfig, PatternConfig, PatternType
from ..requests.retry import RetryPolicy
from ..text import valid_text
from ..tools.tool import ToolLike
from .answers import Answered, id_of
from .base import GraphRun, LangGraphBasePattern, conversation_of, join_texts
from .nodes import metered
from .steps import FINISH, STOP, Step, check_gate, check_steps

OUTLINE = "Write a short outline of a good answer to the following request. Do not write the answer itself.\n\n{input}"
WRITE = "Answer the following request. Keep to the outline, and do not mention it.\n\n{input}\n\nOutline:\n\n{outline}"
REJECTED = "The output of step {step!r} was not accepted. Mind that now.\n\nReason: {reason}\n\nThe output:\n\n"

DEFAULT_STEPS = (Step(name="outline", prompt=OUTLINE), Step(name="write", prompt=WRITE))


@dataclass(frozen=True, kw_only=True)
class PromptChainingConfig(OpenAIPatternConfig):
    """Settings of the prompt chaining pattern. Checked when they are made.

    Raises:
        ConfigurationError: a value has the wrong type or lies outside its range; steps do not fit together; there are
            more of them than `max_steps`.
    """

    steps: tuple[Step, ...] = DEFAULT_STEPS
    """The chain's steps, in order. The first one begins."""
    max_steps: AtLeastOne = 20
    """Upper bound on the steps of a run, repeated ones counted each time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps)
        if len(self.steps) > self.max_steps:
            raise ConfigurationError(f"max_steps: {self.max_steps} is too few for {len(self.steps)} steps")


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one step of a chain."""

    name: str
    output: str
    passed: bool = True
    """True if its gate let it pass, or it has no gate."""
    reason: str | None = None
    """The reason why its gate did not let it pass."""
    finish_reason: str = "stop"
    """The reason why its answer ended, as in `PatternResult`: an output that ended by `length` is cut off."""


class ChainResult(PatternResult, frozen=True, kw_only=True):
    """Result of the prompt chaining pattern: the last output, and each step's.

    `content` is the last step's output. If the chain was stopped there is no answer: `content` is empty, and
    `finish_reason` is `gate_failed` or `max_steps`. `messages` are those of the step that answered.
    """

    steps: tuple[StepResult, ...] = ()
    """In the order they were taken."""
    stopped_at: str | None = None
    """The step at which the chain was stopped; None if it came to its end."""
    reason: str | None = None
    """Why."""


class _State(TypedDict):
    """The state that the graph's nodes pass on."""

    steps: Annotated[list[StepResult], operator.add]
    """Those that were taken, in order."""


@dataclass(kw_only=True)
class _Run(GraphRun):
    earlier: list[BaseMessage]
    """The conversation before what the user asks now."""
    asked: HumanMessage
    new: list[BaseMessage] = field(default_factory=list)
    """What the last step added."""


class PromptChainingPattern(LangGraphBasePattern):
    """Steps in order, each with a prompt made of the user's text and of what came of the steps before.

    The graph has a node for each step. Each step sees the conversation before the user's last message, and its own
    prompt in that message's place, with the images and files in it; of the other steps it sees what its template says.
    It may call tools. A gate decides whether the chain goes on, stops, or goes elsewhere; see `Step`.

    Only the answer is delivered. Where a gate has still to judge it, it is delivered whole, once it has passed.
    Of the context it reads `instructions`, in place of `system_prompt`.

    Args:
        config: A `PromptChainingConfig`; a more general one has the default steps, an outline and the answer.
        tools: What the model may call, in each step.
        ws_streaming: See `BasePattern`.
        model: Any LangChain chat model; by default OpenAI's, over the Responses API.
        retry: When to try a request again; by default what the config says.

    Raises:
        ConfigurationError: the config is of another kind, or one of `tools` is not a tool.
    """

    pattern_type = PatternType.PROMPT_CHAINING
    operation = "invoke_workflow"
    config_type = PromptChainingConfig
    config: PromptChainingConfig

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        model: BaseChatModel | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming, model=model, retry=retry)
        steps = self.config.steps
        following = [*(step.name for step in steps[1:]), FINISH]
        self._then = {step.name: step.then or then for step, then in zip(steps, following, strict=True)}
        self._on_failure = {step.name: step.on_failure for step in steps}
        graph = StateGraph(_State, context_schema=_Run)
        straight = all(step.gate is None and step.then is None for step in steps)
        for step in steps:
            graph.add_node(step.name, metered(partial(self._take, step)))
            then = self._then[step.name]
            if straight:  # a decision after each step would cost as much as a step
                graph.add_edge(step.name, END if then == FINISH else then)
            else:
                targets = {then, step.on_failure} - {FINISH, STOP}
                graph.add_conditional_edges(step.name, self._next, [*sorted(targets), END])
        graph.add_edge(START, steps[0].name)
        self.graph = self._compile(graph)

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> ChainResult:
        """Take the steps of the chain, one after the other.

        Args:
            messages: A string, OpenAI dicts or LangChain messages.
            context: `instructions`, optional.

        Raises:
            AsyncioRequired: the event loop is not asyncio's.
            ConfigurationError: a message is not valid, or there is no API key.
            GateError: a gate raised an error; the message names the step.
            ResponseFailed: an answer was not complete in time, or its stream was cut.
            Exception: whatever the model raises, for the last time.
        """
        self._check_loop()
        earlier, asked = _split(conversation_of(messages))
        with self._begin(_Run, context, earlier=earlier, asked=asked) as run:
            state = await self._invoke(self.graph, _State(steps=[]), run, steps=self.config.max_steps + 1)
        return self._result(run, state["steps"])

    def _result(self, run: _Run, taken: list[StepResult]) -> ChainResult:
        last = taken[-1]
        target = self._target(last)
        finished = target == FINISH
        reason = last.reason
        if target not in (FINISH, STOP):
            limit = f"the limit of {self.config.max_steps} steps is reached"
            reason = f"{limit}; {reason}" if reason else limit
        return ChainResult(
            content=last.output if finished else "",
            finish_reason=last.finish_reason if finished else "gate_failed" if target == STOP else "max_steps",
            messages=tuple(run.new) if finished else (),
            turns=len(run.answers),
            function_calls=tuple(run.results),
            response_id=id_of(run.answers[-1]),
            steps=tuple(taken),
            stopped_at=None if finished else last.name,
            reason=reason,
        )

    async def _take(self, step: Step, state: _State, runtime: Runtime[_Run]) -> _State:
        """Take one step of the chain: the node of the graph for it."""
        run, finishes = runtime.context, self._then[step.name] == FINISH
        answered = await self._answer(
            run,
            [*run.earlier, _in_place_of(run.asked, self._prompt(step, run, state["steps"]))],
            instructions=join_texts(run.instructions, step.instructions),
            deliver=finishes and step.gate is None,
        )
        run.new = answered.new
        reason = await check_gate(step, answered.text)
        if finishes and step.gate is not None and reason is None and answered.text:
            await self.delivery.delta(answered.text)
        return {"steps": [_result_of(step, answered, reason)]}

    def _prompt(self, step: Step, run: _Run, taken: list[StepResult]) -> str:
        """Fill in a step's prompt; after a failure also what was not accepted, and why."""
        asked = str(run.asked.text)
        outputs = {result.name: result.output for result in taken}
        names = [each.name for each in self.config.steps]
        before = names[: names.index(step.name)]
        previous = next((outputs[name] for name in reversed(before) if name in outputs), asked)
        values = {name: outputs.get(name, "") for name in before}
        prompt = step.prompt.format_map({**values, "input": asked, "previous": previous})
        if taken and not taken[-1].passed:
            failed = taken[-1]
            prompt = f"{prompt}\n\n{REJECTED.format(step=failed.name, reason=failed.reason)}{failed.output}"
        return valid_text(prompt)

    async def _next(self, state: _State) -> str:
        """Name the edge after a step."""
        target = self._target(state["steps"][-1])
        return END if target in (FINISH, STOP) or len(state["steps"]) >= self.config.max_steps else target

    def _target(self, taken: StepResult) -> str:
        """Name the chain's next target: a step, `FINISH` or `STOP`."""
        return (self._then if taken.passed else self._on_failure)[taken.name]


def _result_of(step: Step, answered: Answered, reason: str | None) -> StepResult:
    return StepResult(
        name=step.name,
        output=answered.text,
        passed=reason is None,
        reason=reason,
        finish_reason=answered.finish_reason,
    )


def _split(messages: list[BaseMessage]) -> tuple[list[BaseMessage], HumanMessage]:
    """Divide messages into what was said before, and what the user asks now, if the user spoke last."""
    last = messages[-1]
    if isinstance(last, HumanMessage):
        return messages[:-1], last
    users = (message for message in reversed(messages) if isinstance(message, HumanMessage))
    return messages, HumanMessage(str(next(users, HumanMessage("")).text))


def _in_place_of(asked: HumanMessage, prompt: str) -> HumanMessage:
    """Give the user's message another text: images and files stay."""
    content = asked.content if isinstance(asked.content, list) else []
    others = [part for part in content if isinstance(part, dict) and part.get("type") != "text"]
    return HumanMessage([{"type": "text", "text": prompt}, *others] if others else prompt)
