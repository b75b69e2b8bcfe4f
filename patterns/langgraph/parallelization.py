"""Parallelization: several answers at once, to parts of a task or to the same question, and one answer made of them."""

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

import anyio
import msgspec
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send

from runmeter.engine import ConfigurationError, error_message, is_own_failure

from ..base import PatternResult
from ..config import AtLeastOne, Checked, Name, OpenAIPatternConfig, PatternConfig, PatternType
from ..functions import check_function
from ..requests.retry import RetryPolicy
from ..tools.tool import ToolLike
from ..tools.toolbox import refusal_in
from .answers import Answered
from .base import GraphRun, LangGraphBasePattern, conversation_of, join_texts
from .branches import Aggregator, BranchResult, aggregate, concatenate, count_votes, finish_reason_of_all, most_voted
from .metering.usage import finish_reason_of
from .nodes import metered
from .structured import Shape, shape_of

SYNTHESIS = (
    "Below are answers to the request above, written independently of each other. Make one answer of them: keep what "
    "they agree on and what only one of them saw, and settle what they contradict each other in. Do not mention that "
    "there were several."
)
BALLOT = "One vote: the reason for it, in a sentence, and the choice."
CHOOSE = "Choose one of these: "
VOTE_NOW = "Now give your vote."


@dataclass(frozen=True, kw_only=True)
class Section(Checked):
    """A part of a task, with instructions of its own. Every section is given the same messages."""

    name: Name
    instructions: str
    """What its model is told before the messages, after `system_prompt`."""


SECTIONS = (
    Section(name="facts", instructions="Give the facts that matter here, and say how certain they are."),
    Section(name="risks", instructions="Say what can go wrong here, and what is easily overlooked."),
    Section(name="advice", instructions="Say what to do here, step by step."),
)
"""Three ways to look at any question."""


@dataclass(frozen=True, kw_only=True)
class ParallelizationConfig(OpenAIPatternConfig):
    """Settings of the parallelization pattern. Checked when they are made.

    Raises:
        ConfigurationError: a value has the wrong type or lies outside its range, or two of them do not go together.
    """

    mode: Literal["sectioning", "voting"] = "sectioning"
    """Different sections of a task, or several votes on the same question."""
    sections: tuple[Section, ...] = SECTIONS
    """Read in mode `sectioning`."""
    votes: AtLeastOne = 3
    """How often the question is asked in mode `voting`."""
    choices: tuple[Name, ...] = ()
    """What may be voted for. Without it each vote is an answer in the model's own words."""
    max_concurrency: AtLeastOne = 8
    """How many branches work at once in one run."""
    aggregation: Literal["synthesis", "concatenate", "majority"] | None = None
    """The model makes one answer of all; or they are put one after the other; or the choice with the most votes wins.
    By default `majority` if there are choices, else `synthesis`."""
    on_failure: Literal["fail", "skip", "threshold"] = "fail"
    """If a branch fails: `fail` ends the run, and the other branches with it; `skip` goes on as long as one branch
    succeeds; `threshold` as long as `min_successes` of them can. What a budget refuses always ends the run."""
    min_successes: AtLeastOne = 1
    """How many branches must succeed. Read with `threshold`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [section.name for section in self.sections]
        checks = (
            (self.mode == "voting" or names, "sections: there are none"),
            (len(set(names)) == len(names), "sections: each needs a name of its own"),
            (len(set(self.choices)) == len(self.choices) != 1, "choices: there must be several, all different"),
            (self.mode == "voting" or not self.choices, "choices: they are for mode 'voting'"),
            (self.choices or self.aggregation != "majority", "aggregation: 'majority' needs choices"),
            (not self.choices or self.aggregation in (None, "majority"), "aggregation: choices need 'majority'"),
            (
                self.on_failure != "threshold" or self.min_successes <= self.branches,
                f"min_successes: there are only {self.branches} branches",
            ),
        )
        for holds, problem in checks:
            if not holds:
                raise ConfigurationError(f"{type(self).__name__}.{problem}")

    @property
    def branches(self) -> int:
        """The number of branches of a run."""
        return len(self.sections) if self.mode == "sectioning" else self.votes

    @property
    def tolerated(self) -> int:
        """The number of branches that may fail."""
        needed = {"fail": self.branches, "skip": 1, "threshold": self.min_successes}[self.on_failure]
        return self.branches - needed


class ParallelResult(PatternResult, frozen=True, kw_only=True):
    """An answer made of several branches, and these."""

    branches: tuple[BranchResult, ...] = ()
    """All of them, also those that failed, in the order they were given."""
    tally: Mapping[str, int] = {}
    """Votes by choice, in the order of the choices."""
    winner: str | None = None
    """The choice with the most votes; of several, the one that stands first among the choices."""
    tied: tuple[str, ...] = ()
    """The choices that have the most votes, if there are several."""


@dataclass(frozen=True)
class _Branch:
    """The message to a node that starts one branch."""

    name: str
    instructions: str
    messages: list[BaseMessage]


class _State(TypedDict, total=False):
    messages: list[BaseMessage]
    results: Annotated[list[BranchResult], operator.add]
    """LangGraph puts them in the order in which the branches were sent."""
    final: Answered


@dataclass(kw_only=True)
class _Run(GraphRun):
    places: anyio.CapacityLimiter
    """LangGraph's own limit leaves coroutines behind that were never awaited, if the run ends before their turn."""
    errors: list[BaseException] = field(default_factory=list)


class ParallelizationPattern(LangGraphBasePattern):
    """Gives several answers at once, and makes one of them.

    The graph sends each branch to a node `branch` of its own, and all results to the node `aggregate`. Branches may use
    the tools; a vote with choices is cast after that. All branches share one `max_function_calls`.

    Of the context it reads `instructions`, in place of `system_prompt`.

    Args:
        config: A `ParallelizationConfig`, or a more general one.
        tools: What the model may call.
        ws_streaming: See `BasePattern`.
        aggregator: Makes one answer of the branches that succeeded, in place of the config's `aggregation`.
        model: Any LangChain chat model; by default OpenAI's, over the Responses API.
        retry: When to try a request again; by default what the config says.

    Raises:
        ConfigurationError: the config is of another kind, a tool, the model or the aggregator is not one, or there are
            two aggregations.
    """

    pattern_type = PatternType.PARALLELIZATION
    operation = "invoke_workflow"
    config_type = ParallelizationConfig
    config: ParallelizationConfig

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        aggregator: Aggregator | None = None,
        model: BaseChatModel | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming, model=model, retry=retry)
        if aggregator is not None and self.config.aggregation is not None:
            raise ConfigurationError("aggregator: it takes the place of the config's aggregation, give one of the two")
        if aggregator is not None:
            check_function("aggregator", aggregator)
        self._aggregator = aggregator
        self._ballot = _ballot(self.config.choices) if self.config.choices else None
        graph = StateGraph(_State, context_schema=_Run)
        graph.add_node("branch", metered(self._branch_node), input_schema=_Branch)
        graph.add_node("aggregate", metered(self._aggregate_node))
        graph.add_conditional_edges(START, self._fan_out, ["branch"])
        graph.add_edge("branch", "aggregate")
        graph.add_edge("aggregate", END)
        self.graph = self._compile(graph)

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> ParallelResult:
        """Answer in several branches at once, and make one answer of them.

        Args:
            messages: A string, OpenAI dicts or LangChain messages. Every branch is given all of them.
            context: `instructions`, if any.

        Raises:
            AsyncioRequired: the event loop is not asyncio's.
            ConfigurationError: a message is not valid, there is no API key, or the aggregator gave no string.
            BudgetExceeded: a budget has no room for a request, whatever `on_failure` says.
            Exception: the first error of a branch, if more failed than may; or the synthesis's or aggregator's.
        """
        self._check_loop()
        state = _State(messages=conversation_of(messages))
        places = anyio.CapacityLimiter(self.config.max_concurrency)
        with self._begin(_Run, context, places=places) as run:
            ended = await self._invoke(self.graph, state, run, steps=3)
        final: Answered = ended["final"]
        branches: list[BranchResult] = ended["results"]
        tally = count_votes(branches, self.config.choices)
        best = most_voted(tally)
        return ParallelResult(
            content=final.text,
            finish_reason=finish_reason_of(final.answer) or finish_reason_of_all(branches),
            messages=tuple(final.new),
            turns=len(run.answers),
            function_calls=tuple(run.results),
            response_id=final.response_id,
            branches=tuple(branches),
            tally=tally,
            winner=best[0] if best else None,
            tied=best if len(best) > 1 else (),
        )

    async def _fan_out(self, state: _State, runtime: Runtime[_Run]) -> list[Send]:
        if self.config.mode == "sectioning":
            parts = [(section.name, section.instructions) for section in self.config.sections]
        else:
            told = CHOOSE + "; ".join(self.config.choices) if self.config.choices else ""
            parts = [(f"vote {number}", told) for number in range(1, self.config.votes + 1)]
        system = runtime.context.instructions
        return [Send("branch", _Branch(name, join_texts(system, told), state["messages"])) for name, told in parts]

    async def _branch_node(self, state: _Branch, runtime: Runtime[_Run]) -> _State:
        run = runtime.context
        async with run.places:
            if self._failure(run):  # while this one waited: it is about to be cancelled
                return {"results": []}
            try:
                result = await self._work(run, state)
            except BaseException as error:
                if not is_own_failure(error):
                    raise
                run.errors.append(error)
                if failure := self._failure(run):
                    raise failure from failure.__cause__  # and not from the last one
                kind, message = type(error).__qualname__, error_message(error)
                result = BranchResult(name=state.name, error_type=kind, error_message=message)
        return {"results": [result]}

    def _failure(self, run: _Run) -> BaseException | None:
        """The error that the run fails with, if it has failed."""
        refused = next(filter(None, map(refusal_in, run.errors)), None)
        return refused or (run.errors[0] if len(run.errors) > self.config.tolerated else None)

    async def _work(self, run: _Run, branch: _Branch) -> BranchResult:
        if self._ballot is not None:
            return await self._vote(run, branch, self._ballot)
        answered = await self._answer(run, branch.messages, instructions=branch.instructions)
        return BranchResult(name=branch.name, output=answered.text, finish_reason=answered.finish_reason)

    async def _vote(self, run: _Run, branch: _Branch, ballot: Shape[Any]) -> BranchResult:
        messages = branch.messages
        if self._definitions and self.config.function_calling_mode != "none":
            answered = await self._answer(run, messages, instructions=branch.instructions)
            messages = [*messages, *answered.new, HumanMessage(VOTE_NOW)]
        vote = await self._ask_for(run, ballot, messages, instructions=branch.instructions)
        return BranchResult(name=branch.name, output=vote.choice, reason=vote.reason)

    async def _aggregate_node(self, state: _State, runtime: Runtime[_Run]) -> _State:
        succeeded = [result for result in state["results"] if result.error_type is None]
        if self._aggregator is not None:
            content = await aggregate(self._aggregator, succeeded)
        elif self.config.choices:
            content = most_voted(count_votes(succeeded, self.config.choices))[0]
        elif self.config.aggregation == "concatenate":
            content = concatenate(succeeded)
        else:
            run = runtime.context
            asked = HumanMessage(f"{SYNTHESIS}\n\n{concatenate(succeeded)}")
            messages = [*state["messages"], asked]
            answer = await self._ask(run, messages, instructions=run.instructions, deliver=True)
            return {"final": Answered(answer, [answer])}
        if content:
            await self.delivery.delta(content)
        answer = AIMessage(content)
        return {"final": Answered(answer, [answer])}


def _ballot(choices: tuple[str, ...]) -> Shape[Any]:
    choice: Any = Annotated[Literal[choices], msgspec.Meta(extra_json_schema={"type": "string"})]
    kind: type[Any] = msgspec.defstruct("Ballot", [("reason", str), ("choice", choice)], namespace={"__doc__": BALLOT})
    return shape_of(kind, "ballot")
