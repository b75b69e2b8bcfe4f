"""Orchestrator and workers: a model plans tasks, workers do them at the same time, and the model puts it together."""

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

import anyio
import msgspec
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send

from runmeter.engine import RunInfo, current_execution, error_message

from ..base import PatternResult
from ..config import AtLeastOne, OpenAIPatternConfig, PatternConfig, PatternType
from ..errors import MalformedAnswer
from ..requests.retry import RetryPolicy
from ..text import valid_text
from ..tools.tool import ToolLike
from ..tools.toolbox import refusal_in
from .answers import Answered
from .base import GraphRun, LangGraphBasePattern, check_model, conversation_of, join_texts
from .delegates import DelegateLike, as_delegate, as_result, delegate_to
from .nodes import metered
from .structured import shape_of

PLAN = (
    "Do not answer the user's last message: plan how to. Divide the work into tasks that can be done at the same time, "
    "each by a worker of its own that sees this conversation and its own task, but not the others or what comes of "
    "them. Make as few tasks as the work needs; if it needs no dividing, make none. The most there can be: "
)
WORK = "You do one task of several that the user's request was divided into. Do that task, and nothing else."
SYNTHESISE = (
    "The user's request was divided into tasks, and each was done by a worker. What they found is in the last message. "
    "Answer the request with it. The user sees your answer only, not the tasks. Where a task was not done, say what is "
    "missing for that reason."
)

PlanProblem: TypeAlias = Literal["empty", "too_long", "malformed"]
"""What was wrong with a plan: it had no task, more than there may be, or could not be read, twice."""


@dataclass(frozen=True, kw_only=True)
class OrchestratorWorkersConfig(OpenAIPatternConfig):
    """Settings of the orchestrator pattern. Checked when they are made.

    Raises:
        ConfigurationError: a value has the wrong type or lies outside its range.
    """

    max_workers: AtLeastOne = 5
    """Tasks in a plan; each has a worker of its own."""
    max_concurrency: AtLeastOne = 5
    """Workers at work at once."""
    on_long_plan: Literal["truncate", "fail"] = "truncate"
    """If a plan has more tasks: do the first ones, and say which were left out, or fail."""
    on_worker_failure: Literal["fail", "skip"] = "fail"
    """If a worker fails: stop the others and fail with its error, or go on without it. If all fail, so does the run.
    What a budget refuses always ends the run."""
    planning_instructions: str = PLAN
    """The number of tasks that there may be is put after it."""
    worker_instructions: str = WORK
    synthesis_instructions: str = SYNTHESISE


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task that one worker does."""

    title: str
    instructions: str


class Plan(msgspec.Struct, frozen=True):
    """The tasks that a request is divided into."""

    tasks: tuple[Task, ...]


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one task, or the error it failed with."""

    task: Task
    output: str | None = None
    """What the worker answered; None if it failed."""
    finish_reason: str | None = None
    """Why its answer ended."""
    error_type: str | None = None
    error_message: str | None = None


class OrchestratedResult(PatternResult, frozen=True, kw_only=True):
    """Result of the orchestrator pattern: the answer, and what it was made of."""

    tasks: tuple[TaskResult, ...] = ()
    """In the order of the plan; none where the model answered by itself."""
    left_out: tuple[Task, ...] = ()
    """Tasks that were not done because the plan was too long."""
    plan_problem: PlanProblem | None = None


class _State(TypedDict, total=False):
    messages: list[BaseMessage]
    tasks: tuple[Task, ...]
    left_out: tuple[Task, ...]
    problem: PlanProblem | None
    done: Annotated[list[TaskResult], operator.add]
    answered: Answered


class _Assignment(TypedDict):
    """The messages and the task that a worker is given."""

    messages: list[BaseMessage]
    task: Task


@dataclass(kw_only=True)
class _Run(GraphRun):
    context: Mapping[str, Any]
    places: anyio.CapacityLimiter
    """One for each worker that may be at work."""
    failure: Exception | None = None
    """The first worker's that failed, or what a budget refused later."""
    delegated_turns: int = 0


class OrchestratorWorkersPattern(LangGraphBasePattern):
    """A model plans tasks, each is done by a worker, and the model answers with what they found.

    The graph: `plan` asks for a plan and sends each of its tasks to a `work` node of its own; these run at the same
    time, and `synthesise` follows the last. Each worker is a child run, and uses the tools; all of them share the run's
    limit of function calls. If the plan is empty or cannot be read, `answer` has the model answer by itself, with the
    tools. Only the answer is handed out in pieces, not the plan or the workers' parts. The synthesis uses no tools.

    Of the context it reads `instructions`, in place of `system_prompt`: the planner, the workers and the synthesis get
    them all, before their own. A `worker` gets the context but for `conversation_id`, with the `Task` under `task`.

    Args:
        config: An `OrchestratorWorkersConfig`, or a more general one.
        tools: What the workers may call, and the model where it answers by itself.
        ws_streaming: See `BasePattern`.
        worker: Does the tasks in place of the model: a pattern, or a function `(messages, context)`, sync or async.
            Its messages are the conversation, and then the task. A pattern has limits of its own.
        worker_model: The chat model that does the tasks, if it is not the one that plans and puts together.
        model: Any LangChain chat model; by default OpenAI's, over the Responses API.
        retry: When to try a request again; by default what the config says.

    Raises:
        ConfigurationError: the config is of another kind, or a tool, a model or the worker is not one.
    """

    pattern_type = PatternType.ORCHESTRATOR_WORKERS
    operation = "invoke_workflow"
    config_type = OrchestratorWorkersConfig
    config: OrchestratorWorkersConfig

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        worker: DelegateLike = None,
        worker_model: BaseChatModel | None = None,
        model: BaseChatModel | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming, model=model, retry=retry)
        self._worker = None if worker is None else as_delegate("worker", worker)
        if worker_model is not None:
            check_model("worker_model", worker_model)
        self._worker_model = worker_model
        self._plan = shape_of(Plan, "plan")
        graph = StateGraph(_State, context_schema=_Run)
        graph.add_node("plan", metered(self._plan_node))
        graph.add_node("work", metered(self._work_node))
        graph.add_node("answer", metered(self._answer_node))
        graph.add_node("synthesise", metered(self._synthesise_node))
        graph.add_edge(START, "plan")
        graph.add_conditional_edges("plan", _fan_out, ["work", "answer"])
        graph.add_edge("work", "synthesise")
        graph.add_edge("synthesise", END)
        graph.add_edge("answer", END)
        self.graph = self._compile(graph)

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> OrchestratedResult:
        """Plan tasks, have workers do them, and answer with what they found.

        Args:
            messages: A string, OpenAI dicts or LangChain messages.
            context: What the run is told beyond its messages: see the class.

        Raises:
            AsyncioRequired: the event loop is not asyncio's.
            ConfigurationError: a message is not valid, or there is no API key.
            MalformedAnswer: the plan is too long, and the config says to fail.
            ResponseFailed: an answer was not complete in time, or its stream was cut.
            BudgetExceeded: a budget has no room for a request, whatever `on_worker_failure` says.
            Exception: whatever the model raises, or the first worker that failed.
        """
        self._check_loop()
        state = _State(messages=conversation_of(messages))
        places = anyio.CapacityLimiter(self.config.max_concurrency)
        with self._begin(_Run, context, context=context or {}, places=places) as run:
            ended = await self._invoke(self.graph, state, run, steps=5)
        return _result(ended, run)

    async def _plan_node(self, state: _State, runtime: Runtime[_Run]) -> _State:
        most = self.config.max_workers
        instructions = join_texts(runtime.context.instructions, f"{self.config.planning_instructions}{most}")
        try:
            plan = await self._ask_for(runtime.context, self._plan, state["messages"], instructions=instructions)
        except MalformedAnswer:
            return {"tasks": (), "problem": "malformed"}
        if not plan.tasks:
            return {"tasks": (), "problem": "empty"}
        if len(plan.tasks) <= most:
            return {"tasks": plan.tasks}
        if self.config.on_long_plan == "fail":
            why = f"it has {len(plan.tasks)} tasks, {most} are allowed"
            raise MalformedAnswer(self._plan.name, why, msgspec.json.encode(plan).decode())
        return {"tasks": plan.tasks[:most], "left_out": plan.tasks[most:], "problem": "too_long"}

    async def _work_node(self, state: _Assignment, runtime: Runtime[_Run]) -> _State:
        run, task = runtime.context, state["task"]
        fails = self.config.on_worker_failure == "fail"
        async with run.places:
            if run.failure is not None and (fails or refusal_in(run.failure) is not None):
                # The place is one that a failure made free: nothing new begins.
                return {"done": []}
            try:
                result = await self._do(run, task, [*state["messages"], HumanMessage(_assign(task))])
            except Exception as error:
                refused = refusal_in(error)
                if refused is not None:
                    run.failure = refused
                    raise refused from refused.__cause__
                if run.failure is None:
                    run.failure = error
                    if fails:
                        raise
                result = TaskResult(task=task, error_type=type(error).__qualname__, error_message=error_message(error))
        return {"done": [result]}

    async def _do(self, run: _Run, task: Task, messages: list[BaseMessage]) -> TaskResult:
        """Do one task, as a child run."""
        if self._worker is not None:
            context = {name: value for name, value in run.context.items() if name != "conversation_id"}
            result = as_result(await delegate_to(self._worker, messages, {**context, "task": task}))
            run.results += result.function_calls
            run.delegated_turns += result.turns
            return TaskResult(task=task, output=result.content, finish_reason=result.finish_reason)
        instructions = join_texts(run.instructions, self.config.worker_instructions)
        with current_execution().child(RunInfo(f"{self.name}.worker", self.framework)):
            answered = await self._answer(run, messages, instructions=instructions, model=self._worker_model)
        return TaskResult(task=task, output=answered.text, finish_reason=answered.finish_reason)

    async def _answer_node(self, state: _State, runtime: Runtime[_Run]) -> _State:
        run = runtime.context
        answered = await self._answer(run, state["messages"], instructions=run.instructions, deliver=True)
        return {"answered": answered}

    async def _synthesise_node(self, state: _State, runtime: Runtime[_Run]) -> _State:
        run = runtime.context
        if run.failure is not None and all(result.output is None for result in state["done"]):
            raise run.failure
        found = HumanMessage(_report(state["done"], state.get("left_out", ())))
        instructions = join_texts(run.instructions, self.config.synthesis_instructions)
        answer = await self._ask(run, [*state["messages"], found], instructions=instructions, deliver=True)
        return {"answered": Answered(answer, [answer])}


async def _fan_out(state: _State) -> list[Send] | Literal["answer"]:
    messages = state["messages"]
    return [Send("work", _Assignment(messages=messages, task=task)) for task in state["tasks"]] or "answer"


def _assign(task: Task) -> str:
    return f"Your task: {task.title}\n\n{task.instructions}"


def _report(done: Iterable[TaskResult], left_out: Iterable[Task]) -> str:
    """Report what the workers found, and what they did not."""
    parts = [f"## {each.task.title}\n\n{each.output}" for each in done if each.output is not None]
    parts += [f"## {each.task.title}\n\nNot done: the worker failed." for each in done if each.output is None]
    parts += [f"## {task.title}\n\nNot done: there were too many tasks." for task in left_out]
    return valid_text("\n\n".join(["What came of the tasks:", *parts]))


def _result(state: Mapping[str, Any], run: _Run) -> OrchestratedResult:
    answered: Answered = state["answered"]
    return OrchestratedResult(
        content=answered.text,
        finish_reason=answered.finish_reason,
        messages=tuple(answered.new),
        turns=len(run.answers) + run.delegated_turns,
        function_calls=tuple(run.results),
        response_id=answered.response_id,
        tasks=tuple(state.get("done", ())),
        left_out=state.get("left_out", ()),
        plan_problem=state.get("problem"),
    )
