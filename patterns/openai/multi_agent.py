"""Several agents on one conversation: they hand it over to each other, or one of them manages the others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from runmeter.engine import ConfigurationError, RunInfo, current_execution

from ..base import PatternResult
from ..config import AtLeastOne, Count, OpenAIPatternConfig, PatternConfig, PatternType
from ..context import instructions_of
from ..messages import Item, to_items
from ..requests.retry import RetryPolicy
from ..tools.outputs import render
from ..tools.tool import Tool, ToolLike
from ..tools.toolbox import FunctionResult, Toolbox
from .agents import ASK, TRANSFER, Agent, Handoff, HandoffToolbox, TurnAllowance, ask_tool, check_agents, reason_of
from .base import OpenAIBasePattern
from .responses.tool_loop import LoopOutcome, ToolLoop, given

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Limit: TypeAlias = Literal["max_turns", "max_handoffs", "max_repeats"]

ONE_OF_SEVERAL = (
    "You are one of several agents who share this conversation with a user. Where another one fits better, hand over "
    "to it; the user need not know. Your name is "
)
NOBODY_ELSE = "Nobody else can take over any more: answer the user yourself."
MANAGER = "You may give tasks to other agents. They know nothing but the task. The user sees only what you say."
SHARED = "What is known to all agents:"

DEFAULT_AGENTS = (
    Agent(
        name="assistant",
        description="Talks to the user.",
        instructions="Answer what is simple yourself. Leave what needs careful work to the expert.",
    ),
    Agent(
        name="expert",
        description="Works out what is difficult.",
        instructions="Work it out step by step, check the result, then answer in full.",
        handoffs=(),
    ),
)


@dataclass(frozen=True, kw_only=True)
class OpenAIMultiAgentConfig(OpenAIPatternConfig):
    """Settings of several agents, beyond those of every OpenAI pattern. `system_prompt` is for all of them."""

    agents: tuple[Agent, ...] = DEFAULT_AGENTS
    """The first begins, or manages."""
    coordination: Literal["handoff", "manager"] = "handoff"
    """Whether agents hand the conversation over to each other, or one gives tasks to the others."""
    max_turns: AtLeastOne = 30
    """The model's answers in one run, of all agents together. In the last one tools are switched off."""
    max_handoffs: Count = 10
    """Handoffs in one run. They count as function calls too. After that no agent can hand over any more."""
    max_repeats: AtLeastOne = 2
    """How often in a row two agents may hand back to each other and do nothing else. After that it is a loop:
    whose turn it is cannot hand over any more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_agents(self.agents)


class MultiAgentResult(PatternResult, frozen=True, kw_only=True):
    """Result of several agents. `messages` are what was added to the conversation with the user."""

    agent: str
    """Who answered. As `agent` in the next run's context it begins there."""
    path: tuple[str, ...]
    """Who worked, in the order they began."""
    handoffs: tuple[Handoff, ...] = ()
    limit_reached: Limit | None = None
    """The limit that kept agents from handing over or from going on; `max_repeats` says they went round in a loop."""


@dataclass
class _Run:
    """The state that the agents of one run share."""

    messages: list[Item]
    common: str | None
    """Instructions for all."""
    shared: str
    allowance: TurnAllowance
    items: list[Item] = field(default_factory=list)
    """What they added to the conversation."""
    path: list[str] = field(default_factory=list)
    handoffs: list[Handoff] = field(default_factory=list)
    function_calls: list[FunctionResult] = field(default_factory=list)
    repeats: int = 0
    """Handoffs back and forth in a row with nothing else between them."""
    limit_reached: Limit | None = None

    def hand_over(self, handoff: Handoff, *, worked: bool) -> None:
        """Note a handoff, and whether its source had done anything else."""
        last = self.handoffs[-1] if self.handoffs else None
        back = last is not None and (last.source, last.target) == (handoff.target, handoff.source)
        self.repeats = self.repeats + 1 if back and not worked else 0
        self.handoffs.append(handoff)


class OpenAIMultiAgentPattern(OpenAIBasePattern):
    """Several agents, each with its own instructions, tools and model, answer one user.

    With handoffs, the first agent begins. An agent hands over by calling `transfer_to_<agent>`, and that one goes on
    with the conversation, of which all see everything. Of several handoffs in one answer the first is made. With a
    manager, the first agent can call `ask_<agent>` with a task, for several at once too; the others see their task
    alone, and what they answer, or why they failed, is the call's output.

    Each agent's work is a child run called `<pattern>.<agent>`. Handoffs and tasks are function calls.

    Only the answer is handed out as deltas, as it comes. What an agent says that can hand over may turn out to come
    before a handoff: if its model does not mark what it says as its final answer, that is held back, and handed out in
    one piece when it is complete. Other agents, and a manager, are heard before their function calls too, unless the
    model marks that as commentary. Each delta has the `run_id` of the agent's run.

    Of the context of a run it reads `agent`, the name of who begins or manages; `shared`, a mapping of values that all
    agents are told with their instructions; and `instructions`, for all agents in place of `system_prompt`.

    Args:
        config: An `OpenAIPatternConfig`, or an `OpenAIMultiAgentConfig`.
        tools: What agents may call; each says which.
        ws_streaming: See `BasePattern`.
        retry: When to try a request again; by default what the config says.
        client: The client to ask with, such as `AsyncAzureOpenAI(...)` or one with proxies, certificates or headers of
            its own; by default one that the config describes. The pattern does not close it.
        agent_tools: What single agents may call besides, by the agent's name.

    Raises:
        ConfigurationError: the config is of another kind, a tool is not one, there are two tools of one name, or an
            agent or tool is named that there is not.
    """

    pattern_type = PatternType.OPENAI_MULTI_AGENT
    operation = "invoke_workflow"
    config_type = OpenAIMultiAgentConfig
    config: OpenAIMultiAgentConfig

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        retry: RetryPolicy | None = None,
        client: "AsyncOpenAI | None" = None,
        agent_tools: Mapping[str, Iterable[ToolLike]] | None = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming, retry=retry, client=client)
        config = self.config
        self._agents = {agent.name: agent for agent in config.agents}
        own = agent_tools or {}
        for name in own.keys() - self._agents.keys():
            raise ConfigurationError(f"agent_tools: there is no agent {name!r}")
        self._tools = {name: self._tools_of(agent, own.get(name)) for name, agent in self._agents.items()}
        self._configs = {
            name: replace(config, openai_model=agent.model or config.openai_model)
            for name, agent in self._agents.items()
        }

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> MultiAgentResult:
        """Have the agents answer messages, one of them first.

        Args:
            messages: A string, OpenAI dicts or LangChain messages.
            context: `agent`, `shared` and `instructions`, each optional.

        Raises:
            ConfigurationError: a message is not valid, the agent does not exist, `shared` is not a mapping, or there is
                no API key.
            RetiredModel: an agent's model has been shut down.
            ResponseFailed: an answer ended in an error, or did not end.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        context = context or {}
        name = context.get("agent") or self.config.agents[0].name
        if name not in self._agents:
            raise ConfigurationError(f"there is no agent {name!r}; the agents are: {', '.join(self._agents)}")
        run = _Run(
            to_items(messages),
            instructions_of(context, self.config.system_prompt),
            _describe_shared(context.get("shared")),
            TurnAllowance(self.config.max_function_calls, max_turns=self.config.max_turns),
        )
        work = self._manage if self.config.coordination == "manager" else self._hand_round
        agent, outcome = await work(run, self._agents[name])
        out_of_turns = run.allowance.turns >= self.config.max_turns
        return outcome.as_result(
            MultiAgentResult,
            messages=tuple(run.items),
            turns=run.allowance.turns,
            function_calls=tuple(run.function_calls),
            agent=agent.name,
            path=tuple(run.path),
            handoffs=tuple(run.handoffs),
            limit_reached=run.limit_reached or ("max_turns" if out_of_turns else None),
        )

    async def _hand_round(self, run: _Run, agent: Agent) -> tuple[Agent, LoopOutcome]:
        """Have one agent after the other work, until one answers and does not hand over."""
        while True:
            targets = self._targets(run, agent)
            toolbox = self._toolbox(agent, targets)
            alone = NOBODY_ELSE if run.limit_reached else ""
            note = f"{ONE_OF_SEVERAL}{agent.name}." if targets else alone
            outcome = await self._work(run, agent, [*run.messages, *run.items], toolbox, note=note)
            run.items += outcome.items
            handed = toolbox.target_of(outcome.function_calls)
            if handed is None:
                return agent, outcome
            target, call = handed
            worked = any(each.name not in toolbox.handoffs for each in outcome.function_calls)
            run.hand_over(Handoff(agent.name, target.name, reason_of(call)), worked=worked)
            agent = target

    async def _manage(self, run: _Run, manager: Agent) -> tuple[Agent, LoopOutcome]:
        """Have the manager answer, and the others do what it asks of them."""
        note = MANAGER if self._colleagues(manager) else ""
        outcome = await self._work(run, manager, run.messages, self._manager_toolbox(run, manager), note=note)
        run.items += outcome.items
        return manager, outcome

    async def _work(
        self,
        run: _Run,
        agent: Agent,
        history: Sequence[Item],
        toolbox: HandoffToolbox,
        *,
        note: str = "",
        task: bool = False,
    ) -> LoopOutcome:
        """Have one agent work, in a run of its own.

        Args:
            run: What it shares with the others.
            agent: Who.
            history: What it is told.
            toolbox: What it may call.
            note: What it is told about the others.
            task: Whether it works for a manager, who still needs an answer of the model after that.
        """
        config, parent = self._configs[agent.name], current_execution().info
        instructions = "\n\n".join(filter(None, (run.common, agent.instructions, note, run.shared))) or None
        # Only the run's first answer must call a function: else the agents could never come to an end.
        choice = "auto" if run.path and config.function_calling_mode == "required" else None
        run.path.append(agent.name)
        loop = ToolLoop(config, toolbox, self.responses, self.delivery)
        held = bool(toolbox.handoffs)
        with current_execution().child(
            RunInfo(f"{self.name}.{agent.name}", self.framework, "invoke_agent", parent.conversation_id)
        ):
            try:
                outcome = await loop.run(
                    history,
                    allowance=run.allowance,
                    params=given(instructions=instructions),
                    first_choice=choice,
                    stop_after=toolbox.handoffs,
                    on_turn=lambda: run.allowance.take_turn(reserved=1 if task else 0),
                    deliver=False if task else "final" if held else True,
                )
            finally:  # also of an agent that fails at its task
                run.function_calls += toolbox.results
            if held and not _is_marked(outcome) and toolbox.target_of(outcome.function_calls) is None:
                await self.delivery.delta(outcome.text)
        return outcome

    def _targets(self, run: _Run, agent: Agent) -> Sequence[Agent]:
        """The agents that an agent may hand over to now."""
        colleagues = self._colleagues(agent)
        if colleagues and run.repeats >= self.config.max_repeats:
            run.limit_reached = "max_repeats"
        elif colleagues and len(run.handoffs) >= self.config.max_handoffs:
            run.limit_reached = "max_handoffs"
        else:
            return colleagues
        return ()

    def _colleagues(self, agent: Agent) -> list[Agent]:
        names = self._agents if agent.handoffs is None else agent.handoffs
        return [self._agents[name] for name in names if name != agent.name]

    def _tools_of(self, agent: Agent, own: Iterable[ToolLike] | None) -> list[Tool]:
        named = {tool.name: tool for tool in self.toolbox}
        names = named if agent.tools is None else agent.tools
        for name in names:
            if name not in named:
                raise ConfigurationError(f"agent {agent.name!r} may call {name!r}, but there is no such tool")
        tools = [*(named[name] for name in names), *Toolbox(own)]
        prefix = ASK if self.config.coordination == "manager" else TRANSFER
        taken = [*(tool.name for tool in tools), *(prefix + other.name for other in self._colleagues(agent))]
        for name in taken:
            if taken.count(name) > 1:
                raise ConfigurationError(f"agent {agent.name!r} has two tools {name!r}")
        return tools

    def _toolbox(self, agent: Agent, targets: Iterable[Agent] = (), more: Iterable[Tool] = ()) -> HandoffToolbox:
        config, tools = self.config, [*self._tools[agent.name], *more]
        return HandoffToolbox(tools, targets, timeout=config.tool_timeout, parallel=config.parallel_tool_calls)

    def _manager_toolbox(self, run: _Run, manager: Agent) -> HandoffToolbox:
        async def ask(agent: Agent, task: str) -> str:
            told = [{"role": "user", "content": task}]
            return (await self._work(run, agent, told, self._toolbox(agent), task=True)).text

        return self._toolbox(manager, more=[ask_tool(agent, ask) for agent in self._colleagues(manager)])


def _is_marked(outcome: LoopOutcome) -> bool:
    """Tell whether the model marks its answer as the final one, so that it was handed out as it came."""
    return any(getattr(item, "phase", None) == "final_answer" for item in outcome.response.output)


def _describe_shared(shared: Any) -> str:
    """Write the values that all agents know in words."""
    if not shared:
        return ""
    if not isinstance(shared, Mapping):
        raise ConfigurationError(f"context['shared'] must be a mapping of names to values, not {type(shared).__name__}")
    return "\n".join((SHARED, *(f"- {name}: {render(value)}" for name, value in shared.items())))
