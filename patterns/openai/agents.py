"""Agents that work together: who they are, and what they may call, each other included."""

import math
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from runmeter.engine import ConfigurationError

from ..config import Checked, Name
from ..errors import AlreadyHandedOver, TurnLimitReached
from ..tools.schema import arguments_from_schema
from ..tools.tool import Tool
from ..tools.toolbox import CallAllowance, FunctionRequest, FunctionResult, Toolbox

TRANSFER = "transfer_to_"
ASK = "ask_"
_LONGEST_NAME = 64 - len(TRANSFER)
"""Characters, so that the functions named after an agent have no more than the API takes."""

_HANDOFF = arguments_from_schema(
    {
        "properties": {"reason": {"type": "string", "description": "Why, in a few words."}},
        "additionalProperties": False,
    }
)
_TASK = {
    "type": "object",
    "properties": {
        "task": {"type": "string", "description": "What to do, with all that needs to be known: it sees nothing else."}
    },
    "required": ["task"],
    "additionalProperties": False,
}


@dataclass(frozen=True, kw_only=True)
class Agent(Checked):
    """One of several agents. Checked when it is made.

    Raises:
        ConfigurationError: a value has the wrong type, or the name is not one that a function could have.
    """

    name: Name
    """Letters, digits, _ and -; 52 at most."""
    description: str = ""
    """What it is good at: told to the agents that may hand over to it or ask it."""
    instructions: str = ""
    model: Name | None = None
    """By default the config's."""
    tools: tuple[Name, ...] | None = None
    """Which of the pattern's tools it may call, by name; None stands for all."""
    handoffs: tuple[Name, ...] | None = None
    """The agents it may hand over to, or ask if it manages; None stands for all others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(f"[a-zA-Z0-9_-]{{1,{_LONGEST_NAME}}}", self.name):
            raise ConfigurationError(
                f"Agent.name: {self.name!r} must have 1 to {_LONGEST_NAME} letters, digits, _ and -: functions are "
                "named after it"
            )


class Handoff(msgspec.Struct, frozen=True):
    """A handoff of one agent to another."""

    source: str
    target: str
    reason: str = ""


@dataclass
class TurnAllowance(CallAllowance):
    """The function calls that a run may make, and the model's answers that it may take."""

    max_turns: int = 1
    turns: int = 0

    @property
    def left(self) -> int:
        """The number of calls that may still be made: none if no answer can follow them."""
        return super().left if self.turns < self.max_turns else 0

    def take_turn(self, reserved: int) -> None:
        """Take an answer, but not one of those reserved for other agents.

        Raises:
            TurnLimitReached: there is none left.
        """
        if self.turns + reserved >= self.max_turns:
            raise TurnLimitReached(self.max_turns)
        self.turns += 1


def check_agents(agents: Sequence[Agent]) -> None:
    """Check that agents fit together.

    Raises:
        ConfigurationError: there is none, two have one name, or one hands over to itself or to an unknown one.
    """
    names = [agent.name for agent in agents]
    if not names:
        raise ConfigurationError("agents: there must be one at least")
    for agent in agents:
        if names.count(agent.name) > 1:
            raise ConfigurationError(f"agents: there are two of the name {agent.name!r}")
        for other in agent.handoffs or ():
            if other not in names or other == agent.name:
                raise ConfigurationError(f"agents: {agent.name!r} hands over to {other!r}, which is not another agent")


class HandoffToolbox(Toolbox):
    """The tools of an agent that may hand over. Of several handoffs in one answer the first is made.

    Args:
        tools: What else it may call.
        targets: Whom it may hand over to.
        timeout: Seconds a call may take where its tool does not say.
        parallel: Whether the calls of one answer run at once.
    """

    def __init__(
        self, tools: Iterable[Tool], targets: Iterable[Agent], *, timeout: float | None, parallel: bool
    ) -> None:
        self._targets = {TRANSFER + agent.name: agent for agent in targets}
        handoffs = [
            Tool(
                name,
                _describe(f"Hand the conversation over to the agent {agent.name!r}.", agent),
                _HANDOFF,
                self._hand_over,
            )
            for name, agent in self._targets.items()
        ]
        super().__init__([*tools, *handoffs], timeout=timeout, parallel=parallel)
        self._first: str | None = None
        self.results: list[FunctionResult] = []
        """All calls that it has answered."""

    @property
    def handoffs(self) -> Collection[str]:
        """The names of the functions that hand over."""
        return self._targets.keys()

    def target_of(self, calls: Iterable[FunctionResult]) -> tuple[Agent, FunctionResult] | None:
        """Find the agent these calls handed over to, and the call that did; None if there is none."""
        made = (call for call in calls if call.name in self._targets and call.error_type is None)
        return next(((self._targets[call.name], call) for call in made), None)

    async def answer(
        self, requests: Sequence[FunctionRequest], allowance: CallAllowance, *, complete: bool = True
    ) -> list[FunctionResult]:
        """Answer function calls, handoffs among them; see `Toolbox.answer`."""
        self._first = next((request.call_id for request in requests if request.name in self._targets), None)
        results = await super().answer(requests, allowance, complete=complete)
        self.results += results
        return results

    async def _hand_over(self, _: Mapping[str, Any], call_id: str) -> str:
        if call_id != self._first:
            raise AlreadyHandedOver
        return "Handed over."


def reason_of(call: FunctionResult) -> str:
    """Read why an agent has handed over, in its own words."""
    return str(_HANDOFF.read(call.arguments).get("reason", ""))


def ask_tool(agent: Agent, ask: Callable[[Agent, str], Awaitable[str]]) -> Tool:
    """Make a tool of an agent, for the one that manages."""

    async def call(arguments: Mapping[str, Any], _: str) -> str:
        return await ask(agent, arguments["task"])

    description = _describe(f"Give the agent {agent.name!r} a task and get its answer.", agent)
    # An agent's requests and calls have limits of their own: the one for a function's time is not meant for it.
    return Tool(ASK + agent.name, description, arguments_from_schema(_TASK), call, timeout=math.inf)


def _describe(what: str, agent: Agent) -> str:
    return f"{what} {agent.description}".strip()
