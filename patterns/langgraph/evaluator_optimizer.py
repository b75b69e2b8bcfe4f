"""Evaluator and optimizer: an answer is judged, and improved, until it is accepted or the attempts are used up."""

import operator
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias, TypedDict

import msgspec
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command
from msgspec import Meta

from runmeter.engine import ConfigurationError

from ..base import PatternResult
from ..config import AtLeastOne, Name, OpenAIPatternConfig, PatternConfig, PatternType
from ..errors import MalformedAnswer
from ..functions import call_function, check_function
from ..requests.retry import RetryPolicy
from ..text import valid_text
from ..tools.tool import ToolLike
from .answers import Answered
from .base import GraphRun, LangGraphBasePattern, check_model, conversation_of
from .nodes import metered
from .structured import shape_of

CRITERIA = "The answer does all that was asked, is correct and clear, and says nothing that is beside the point."
EVALUATE = "You judge answers that somebody else gave. Be strict and fair. You do not answer requests yourself."
JUDGE = "Judge the following answer to the request above.\n\nCriteria:\n\n{criteria}\n\nThe answer:\n\n{answer}"
IMPROVE = "Your answer was not accepted yet. Give a better one: it takes the other's place, so it must be complete."

Score: TypeAlias = Annotated[float, Meta(ge=0, le=1)]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement of an answer.

    Raises:
        ValueError: the score lies outside its range.
    """

    # First what is wrong, then the marks: a model writes them in this order, and should have thought by then.
    feedback: Annotated[str, Meta(description="What is to be improved, and how; empty if nothing is.")]
    score: Annotated[float, Meta(ge=0, le=1, description="How well the answer meets the criteria, from 0 to 1.")]
    passed: Annotated[bool, Meta(description="Whether the answer meets the criteria.")]

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise ValueError(f"a verdict's score is between 0 and 1, not {self.score}")


Evaluator: TypeAlias = Callable[[str], Verdict | Awaitable[Verdict]]
"""A function, sync or async, that judges the text of an answer."""

_VERDICT = shape_of(Verdict, "verdict")


@dataclass(frozen=True, kw_only=True)
class EvaluatorOptimizerConfig(OpenAIPatternConfig):
    """Settings of the evaluator-optimizer pattern. Checked when they are made.

    Raises:
        ConfigurationError: a value has the wrong type or lies outside its range.
    """

    criteria: Name = CRITERIA
    """What the model that evaluates judges an answer by."""
    max_attempts: AtLeastOne = 3
    """Answers at most, the first one counted."""
    pass_score: Score | None = None
    """The score, from 0 to 1, that an answer must reach to be accepted, besides having passed."""
    evaluator_instructions: str = EVALUATE
    """What the model that evaluates is told before all messages. It is not told the system prompt."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, and the verdict on it."""

    text: str
    verdict: Verdict | None
    """None if the evaluation failed."""


class OptimizedResult(PatternResult, frozen=True, kw_only=True):
    """Result of the evaluator-optimizer pattern: the best answer, and all attempts.

    `content`, `finish_reason`, `response_id` and `messages` are those of the chosen attempt.
    """

    attempts: tuple[Attempt, ...] = ()
    """In order."""
    accepted: bool = False
    """Whether the chosen attempt was accepted."""
    best: int = 0
    """The index of the chosen attempt: the accepted one, or else that with the best score, the latest of equals."""
    evaluation_error: str | None = None
    """Why the last attempt could not be judged, which ended the run."""


class _State(TypedDict):
    """The state that the graph's nodes pass on."""

    messages: Annotated[list[BaseMessage], operator.add]
    """The conversation, with all answers so far and what was said of them."""


@dataclass(kw_only=True)
class _Run(GraphRun):
    asked: list[BaseMessage]
    """The conversation as it was given."""
    evaluation_error: str | None = None
    drafts: list[Answered] = field(default_factory=list)
    """The answers that were judged, or are about to be. Here and not in the graph's state: each part of that costs a
    step some 10 µs."""
    attempts: list[Attempt] = field(default_factory=list)
    """What came of each of them."""


class EvaluatorOptimizerPattern(LangGraphBasePattern):
    """A model answers, the answer is judged, and the model improves it, until it is accepted or the attempts are used
    up.

    The graph has two nodes: `generate` answers, with the help of tools, and sees its earlier attempts and what was said
    of them; `evaluate` judges, and goes back or ends. The model that evaluates sees the conversation and the answer's
    text, but neither tools nor the system prompt. If its verdict cannot be read, also when it tries once more, the run
    ends with the best attempt so far, not accepted, and says why in `evaluation_error`.

    What will be the answer is known only at the end: it is delivered whole.
    Of the context it reads `instructions`, in place of `system_prompt`.

    Args:
        config: An `EvaluatorOptimizerConfig`; a more general one has the defaults.
        tools: What the model that answers may call.
        ws_streaming: See `BasePattern`.
        model: Any LangChain chat model; by default OpenAI's, over the Responses API.
        evaluator: Judges the text of an answer in place of a model; a sync one in a worker thread.
        evaluator_model: The chat model that judges; by default the one that answers.
        retry: When to try a request again; by default what the config says.

    Raises:
        ConfigurationError: the config is of another kind, a tool or a model is not one, the evaluator cannot be called,
            or there is an `evaluator_model` besides.
    """

    pattern_type = PatternType.EVALUATOR_OPTIMIZER
    operation = "invoke_workflow"
    config_type = EvaluatorOptimizerConfig
    config: EvaluatorOptimizerConfig

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        model: BaseChatModel | None = None,
        evaluator: Evaluator | None = None,
        evaluator_model: BaseChatModel | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming, model=model, retry=retry)
        if evaluator is not None and evaluator_model is not None:
            raise ConfigurationError("give evaluator or evaluator_model, not both")
        if evaluator is not None:
            check_function("evaluator", evaluator)
        if evaluator_model is not None:
            check_model("evaluator_model", evaluator_model)
        self._evaluator = evaluator
        self._evaluator_model = evaluator_model
        graph = StateGraph(_State, context_schema=_Run)
        graph.add_node("generate", metered(self._generate))
        graph.add_node("evaluate", metered(self._evaluate), destinations=("generate", END))
        graph.add_edge(START, "generate")
        graph.add_edge("generate", "evaluate")
        self.graph = self._compile(graph)

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> OptimizedResult:
        """Answer, have the answer judged and improved, and return the best one.

        Args:
            messages: A string, OpenAI dicts or LangChain messages.
            context: `instructions`, optional.

        Raises:
            AsyncioRequired: the event loop is not asyncio's.
            ConfigurationError: a message is not valid, there is no API key, or the evaluator gave no `Verdict`.
            ResponseFailed: an answer was not complete in time, or its stream was cut.
            Exception: whatever a model raises, for the last time, or the evaluator.
        """
        self._check_loop()
        asked = conversation_of(messages)
        with self._begin(_Run, context, asked=asked) as run:
            await self._invoke(self.graph, _State(messages=asked), run, steps=2 * self.config.max_attempts + 1)
        result = self._result(run)
        if result.content:
            await self.delivery.delta(result.content)
        return result

    def _result(self, run: _Run) -> OptimizedResult:
        attempts = run.attempts
        accepted = self._accepts(attempts[-1])
        best = len(attempts) - 1 if accepted else max(range(len(attempts)), key=lambda n: (_score(attempts[n]), n))
        chosen = run.drafts[best]
        return OptimizedResult(
            content=chosen.text,
            finish_reason=chosen.finish_reason,
            messages=tuple(chosen.new),
            turns=len(run.answers),
            function_calls=tuple(run.results),
            response_id=chosen.response_id,
            attempts=tuple(attempts),
            accepted=accepted,
            best=best,
            evaluation_error=run.evaluation_error,
        )

    async def _generate(self, state: _State, runtime: Runtime[_Run]) -> dict[str, Any]:
        run = runtime.context
        feedback = [_feedback(attempt) for attempt in run.attempts[-1:]]
        answered = await self._answer(run, [*state["messages"], *feedback], instructions=run.instructions)
        run.drafts.append(answered)
        return {"messages": [*feedback, *answered.new]}

    async def _evaluate(self, state: _State, runtime: Runtime[_Run]) -> Command[str]:
        run = runtime.context
        text = run.drafts[-1].text
        verdict: Verdict | None = None
        try:
            verdict = await self._judge(run, text)
        except MalformedAnswer as error:
            run.evaluation_error = str(error)
        attempt = Attempt(text=text, verdict=verdict)
        run.attempts.append(attempt)
        over = verdict is None or self._accepts(attempt) or len(run.attempts) == self.config.max_attempts
        return Command(goto=END if over else "generate")

    async def _judge(self, run: _Run, text: str) -> Verdict:
        if self._evaluator is None:
            question = HumanMessage(valid_text(JUDGE.format(criteria=self.config.criteria, answer=text)))
            return await self._ask_for(
                run,
                _VERDICT,
                [*run.asked, question],
                instructions=self.config.evaluator_instructions,
                model=self._evaluator_model,
            )
        verdict = await call_function(self._evaluator, text)
        if not isinstance(verdict, Verdict):
            raise ConfigurationError(f"an evaluator must give a Verdict, not {verdict!r}")
        return verdict

    def _accepts(self, attempt: Attempt) -> bool:
        verdict = attempt.verdict
        return verdict is not None and verdict.passed and verdict.score >= (self.config.pass_score or 0)


def _score(attempt: Attempt) -> float:
    """Rate an attempt by its score; one that was not judged is below all that were."""
    return -1 if attempt.verdict is None else attempt.verdict.score


def _feedback(attempt: Attempt) -> HumanMessage:
    feedback = attempt.verdict.feedback if attempt.verdict is not None else ""
    return HumanMessage(valid_text(f"{IMPROVE}\n\nFeedback:\n\n{feedback}" if feedback else IMPROVE))
