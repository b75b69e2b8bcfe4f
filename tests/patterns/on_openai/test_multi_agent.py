"""Several agents on one conversation, over the real client and a server on this machine."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import openai
import pytest
from pattern_support import KEY, check_whole
from scene_support import PatternScene
from time_support import passing

from runmeter.engine import (
    ConfigurationError,
    Delta,
    Engine,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    ModelCallStarted,
    Provenance,
    RunTimeout,
    Status,
    TokenUsage,
    Usage,
)
from runmeter.engine.testing import Recorder
from runmeter.patterns import OpenAIPatternConfig, PatternRegistry, ResponseFailed
from runmeter.patterns.openai.agents import Agent, Handoff
from runmeter.patterns.openai.multi_agent import MultiAgentResult, OpenAIMultiAgentConfig, OpenAIMultiAgentPattern
from runmeter.simulator import Fault, Prompt, Reply, ScriptedCall

FRONT = Agent(name="front", description="Greets.", instructions="You greet.")
BILLING = Agent(name="billing", description="Knows bills.", instructions="You know bills.")
PARCELS = Agent(name="parcels", description="Knows parcels.", instructions="You know parcels.", model="gpt-6.1-terra")
AGENTS = (FRONT, BILLING, PARCELS)
QUESTION = "Where is parcel AB-1?"
FIND = ScriptedCall("find", '{"number": "AB-1"}')


def to(agent: str, why: str = "it fits") -> ScriptedCall:
    return ScriptedCall(f"transfer_to_{agent}", json.dumps({"reason": why}))


def ask(agent: str, task: str = "Look.") -> ScriptedCall:
    return ScriptedCall(f"ask_{agent}", json.dumps({"task": task}))


def find(number: str) -> str:
    """Find a parcel."""
    return f"Parcel {number} is in Berlin."


def pay(amount: float) -> str:
    """Pay a bill."""
    return f"Paid {amount}."


class Scene(PatternScene[OpenAIMultiAgentPattern]):
    """One with an engine."""

    def __init__(self, kind: type[OpenAIMultiAgentPattern], **defaults: Any) -> None:
        super().__init__(kind, **defaults)
        self.registry = PatternRegistry()
        self.recorder = Recorder()
        self.by_agent: Callable[[Prompt], Reply | None] = lambda _: None

    def improvise(self, prompt: Prompt) -> Reply | None:
        return self.by_agent(prompt)

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """An engine whose events must be whole in the end."""
        async with Engine(usage=self.registry.usage) as engine:
            engine.subscribe(self.recorder, name="recorder", lane="lossless")
            yield engine
        for run_id in {event.run_id for event in self.recorder.events}:
            check_whole(self.recorder.of(run_id))

    async def run(self, *tools: Any, context: Any = None, **settings: Any) -> MultiAgentResult:
        """Ask the question, once; what was billed is what was counted."""
        async with self.pattern(*tools, **settings) as pattern, self.engine() as engine:
            result: MultiAgentResult = (await engine.run(pattern, QUESTION, context, conversation_id="c1")).value
        requests = self.events(TokenUsage)
        reported = (each.usage for each in requests if each.provenance is Provenance.REPORTED)
        assert sum(reported, start=Usage()) == self.simulator.statistics().total
        return result

    def events(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.recorder.events if type(event) is kind]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene(OpenAIMultiAgentPattern, agents=AGENTS) as scene:
        yield scene


def offered(prompt: Prompt) -> list[str]:
    return [tool.name for tool in prompt.tools]


async def test_an_agent_hands_over_and_the_next_goes_on(scene: Scene) -> None:
    replies = iter([Reply(tool_calls=(to("parcels", "a parcel"),)), Reply(tool_calls=(FIND,)), Reply("In Berlin.")])
    scene.by_agent = lambda _: next(replies)
    result = await scene.run(find, system_prompt="Be brief.")
    assert (result.content, result.agent, result.path) == ("In Berlin.", "parcels", ("front", "parcels"))
    assert result.handoffs == (Handoff("front", "parcels", "a parcel"),)
    assert (result.turns, result.limit_reached, result.conversation_id) == (3, None, "c1")
    assert [call.name for call in result.function_calls] == ["transfer_to_parcels", "find"]
    assert [call.name for call in scene.events(FunctionCall)] == ["transfer_to_parcels", "find"]
    kinds = [item["type"] for item in result.messages]
    assert kinds == ["function_call", "function_call_output"] * 2 + ["message"]
    first, second, third = scene.prompts
    assert offered(first) == ["find", "transfer_to_billing", "transfer_to_parcels"]
    assert offered(second) == ["find", "transfer_to_front", "transfer_to_billing"]
    assert str(first.instructions).startswith("Be brief.\n\nYou greet.\n\nYou are one of several agents")
    assert "You know parcels." in str(second.instructions)
    assert [item.type for item in third.items] == ["message", *kinds[:4]], "it sees all that was said"
    assert [event.model for event in scene.events(ModelCallStarted)] == ["gpt-6-luna"] + ["gpt-6.1-terra"] * 2


async def test_each_agent_is_a_child_run(scene: Scene) -> None:
    replies = iter([Reply(tool_calls=(to("parcels"),)), Reply("In Berlin.")])
    scene.by_agent = lambda _: next(replies)
    await scene.run()
    root, *children = scene.events(ExecutionStarted)
    assert (root.pattern, root.operation) == ("openai_multi_agent", "invoke_workflow")
    assert [child.pattern for child in children] == ["openai_multi_agent.front", "openai_multi_agent.parcels"]
    for child in children:
        assert (child.parent_run_id, child.root_run_id) == (root.run_id, root.run_id)
        assert (child.operation, child.framework, child.conversation_id) == ("invoke_agent", "openai", "c1")
    assert [event.run_id for event in scene.events(TokenUsage)] == [child.run_id for child in children]
    stats = scene.registry.get_usage_stats("openai_multi_agent.parcels")
    assert stats["total_executions"] == 1


async def test_out_of_the_box_there_are_two_agents(scene: Scene) -> None:
    config = OpenAIPatternConfig(base_url=scene.simulator.url, api_key=KEY)
    async with OpenAIMultiAgentPattern(config) as pattern:
        result = await pattern.execute(
            [{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Why?"}]
        )
    assert result.content
    assert (result.agent, result.path) == ("expert", ("assistant", "expert"))
    assert [item.text for item in scene.prompts[-1].items[:2]] == ["Hello!", "Why?"]
    assert offered(scene.prompts[-1]) == []


def test_configs_are_made_from_plain_data_and_checked() -> None:
    config = OpenAIMultiAgentConfig(agents=[{"name": "a", "handoffs": ["b"]}, {"name": "b", "tools": []}])  # type: ignore[arg-type] # as in TOML
    assert config.agents == (Agent(name="a", handoffs=("b",)), Agent(name="b", tools=()))
    for name in ("", "über", "a b", "x" * 53):
        with pytest.raises(ConfigurationError, match="name"):
            Agent(name=name)
    for agents, why in (
        ((), "one at least"),
        ((FRONT, FRONT), "two of the name 'front'"),
        ((Agent(name="a", handoffs=("nobody",)),), "hands over to 'nobody'"),
        ((Agent(name="a", handoffs=("a",)),), "not another agent"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            OpenAIMultiAgentConfig(agents=agents)


@pytest.mark.parametrize(
    ("agents", "options", "why"),
    [
        ((Agent(name="a", tools=("look",)),), {}, "may call 'look', but there is no such tool"),
        (AGENTS, {"agent_tools": {"nobody": [pay]}}, "no agent 'nobody'"),
        (AGENTS, {"agent_tools": {"billing": [find]}}, "two tools 'find'"),
        (AGENTS, {"agent_tools": {"front": [{"name": "transfer_to_billing", "handler": pay}]}}, "two tools"),
    ],
)
def test_tools_that_do_not_fit_are_refused(agents: Any, options: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        OpenAIMultiAgentPattern(OpenAIMultiAgentConfig(agents=agents, api_key=KEY), [find], **options)


async def test_each_agent_has_its_own_tools(scene: Scene) -> None:
    replies = iter(
        [Reply(tool_calls=(to("b"),)), Reply(tool_calls=(ScriptedCall("pay", '{"amount": 2}'),)), Reply("Done.")]
    )
    scene.by_agent = lambda _: next(replies)
    agents = (Agent(name="a", tools=("find",)), Agent(name="b", tools=(), handoffs=()))
    result = await scene.run(find, agents=agents, agent_tools={"b": [pay]})
    assert [offered(prompt) for prompt in scene.prompts] == [["find", "transfer_to_b"], ["pay"], ["pay"]]
    assert result.function_calls[-1].output == "Paid 2.0."


async def test_of_two_handoffs_at_once_the_first_counts(scene: Scene) -> None:
    replies = iter([Reply(tool_calls=(FIND, to("billing"), to("parcels"))), Reply("Your bill is paid.")])
    scene.by_agent = lambda _: next(replies)
    result = await scene.run(find)
    assert result.path == ("front", "billing")
    assert [call.error_type for call in result.function_calls] == [None, None, "AlreadyHandedOver"]
    assert "handed over to another agent" in result.function_calls[2].output
    failed = [call for call in scene.events(FunctionCall) if call.error_type]
    assert [call.name for call in failed] == ["transfer_to_parcels"]


async def test_a_run_may_begin_with_another_agent_and_know_shared_values(scene: Scene) -> None:
    scene.by_agent = lambda _: Reply("Hello.")
    shared = {"customer": "Ada {0}", "parcels": ["AB-1"]}
    context = {"agent": "billing", "shared": shared, "instructions": "Be long."}
    result = await scene.run(context=context, system_prompt="Be brief.")
    assert (result.agent, result.path) == ("billing", ("billing",))
    said = str(scene.prompts[0].instructions)
    assert said.startswith("Be long.\n\nYou know bills.")
    assert said.endswith('What is known to all agents:\n- customer: Ada {0}\n- parcels: ["AB-1"]')
    for wrong, why in (({"agent": "nobody"}, "no agent 'nobody'"), ({"shared": "x"}, "must be a mapping")):
        async with scene.pattern() as pattern:
            with pytest.raises(ConfigurationError, match=why):
                await pattern.execute(QUESTION, wrong)


def back_and_forth(prompt: Prompt) -> Reply:
    """Hand over to the one who has just handed over, as long as that is possible."""
    other = "billing" if "You greet." in str(prompt.instructions) else "front"
    return Reply(tool_calls=(to(other),)) if f"transfer_to_{other}" in offered(prompt) else Reply("So be it.")


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_a_loop_is_noticed_and_ended(scene: Scene, most: int) -> None:
    scene.by_agent = back_and_forth
    result = await scene.run(find, max_repeats=most)
    assert (result.content, result.limit_reached) == ("So be it.", "max_repeats")
    assert result.path == ("front", "billing", "front", "billing", "front")[: most + 2]
    assert offered(scene.prompts[-1]) == ["find"], "other tools it has still"
    assert "Nobody else can take over" in str(scene.prompts[-1].instructions)


async def test_two_that_work_between_handoffs_are_in_no_loop(scene: Scene) -> None:
    def work_then_hand_over(prompt: Prompt) -> Reply:
        mine = [item.name for item in prompt.items if item.type == "function_call"]
        return back_and_forth(prompt) if mine and mine[-1] == "find" else Reply(tool_calls=(FIND,))

    scene.by_agent = work_then_hand_over
    result = await scene.run(find, max_handoffs=5, max_function_calls=20)
    assert (result.limit_reached, len(result.handoffs)) == ("max_handoffs", 5)
    assert result.turns == 6 * 2


@pytest.mark.parametrize("most", [0, 1])
async def test_handoffs_are_limited(scene: Scene, most: int) -> None:
    scene.by_agent = back_and_forth
    result = await scene.run(max_handoffs=most)
    assert (len(result.handoffs), result.limit_reached, result.content) == (most, "max_handoffs", "So be it.")


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_turns_are_limited_over_all_agents(scene: Scene, most: int) -> None:
    def always_calls(prompt: Prompt) -> Reply:
        return back_and_forth(prompt) if prompt.allowed else Reply("Enough.")

    scene.by_agent = always_calls
    result = await scene.run(max_turns=most)
    assert (result.turns, result.content, result.limit_reached) == (most, "Enough.", "max_turns")
    assert len(result.handoffs) == most - 1
    assert scene.prompts[-1].choice == "none"


async def test_a_model_that_calls_in_its_last_turn_all_the_same_is_refused(scene: Scene) -> None:
    scene.by_agent = lambda _: Reply("Wait.", tool_calls=(to("parcels"),))
    result = await scene.run(max_turns=1)
    assert (result.turns, result.agent, result.handoffs) == (1, "front", ())
    assert [call.error_type for call in result.function_calls] == ["CallLimitReached"]


async def test_function_calls_are_limited_over_all_agents(scene: Scene) -> None:
    def calls(prompt: Prompt) -> Reply:
        if not prompt.allowed:
            return Reply("Enough.")
        return Reply(tool_calls=(FIND, to("parcels")) if "You greet." in str(prompt.instructions) else (FIND,))

    scene.by_agent = calls
    result = await scene.run(find, max_function_calls=3)
    assert [call.error_type for call in result.function_calls] == [None] * 3
    assert (result.content, result.agent) == ("Enough.", "parcels")


async def test_only_the_run_s_first_answer_must_call_a_function(scene: Scene) -> None:
    replies = iter([Reply(tool_calls=(to("parcels"),)), Reply("In Berlin.")])
    scene.by_agent = lambda _: next(replies)
    await scene.run(find, function_calling_mode="required")
    assert [prompt.choice for prompt in scene.prompts] == ["required", "auto"]


# A manager


def managed(prompt: Prompt) -> Reply:
    """The manager asks both others at once and says what they say; they say what they know."""
    if "You greet." not in str(prompt.instructions):
        return Reply(f"{'Bill' if 'bills' in str(prompt.instructions) else 'Parcel'}: {prompt.user_text}")
    if prompt.outputs:
        return Reply(" + ".join(output.text for output in prompt.outputs))
    return Reply("Let me ask.", tool_calls=(ask("billing", "Is it paid?"), ask("parcels", "Where is it?")))


async def test_a_manager_asks_several_at_once(scene: Scene) -> None:
    scene.by_agent = managed
    result = await scene.run(find, coordination="manager", context={"shared": {"customer": "Ada"}})
    assert result.content == "Bill: Is it paid? + Parcel: Where is it?"
    assert (result.agent, result.turns, result.handoffs, result.limit_reached) == ("front", 4, (), None)
    assert result.path[0] == "front"
    assert sorted(result.path[1:]) == ["billing", "parcels"]
    assert sorted(call.name for call in result.function_calls) == ["ask_billing", "ask_parcels"]
    manager, *workers, _ = scene.prompts
    assert offered(manager) == ["find", "ask_billing", "ask_parcels"]
    assert [offered(worker) for worker in workers] == [["find"]] * 2
    assert all([item.text for item in worker.items] == [worker.user_text] for worker in workers)
    assert all("- customer: Ada" in str(prompt.instructions) for prompt in scene.prompts)
    root, front, *others = scene.events(ExecutionStarted)
    assert (front.parent_run_id, {other.parent_run_id for other in others}) == (root.run_id, {front.run_id})


async def test_a_task_that_fails_is_the_manager_s_to_know(scene: Scene) -> None:
    def one_fails(prompt: Prompt) -> Reply:
        if "You greet." in str(prompt.instructions) and not prompt.outputs:
            scene.simulator.inject(Fault("failed"))
        return managed(prompt)

    scene.by_agent = one_fails
    result = await scene.run(coordination="manager", max_retries=0)
    assert result.content.count("Error: ResponseFailed") == 1
    assert result.content.count("?") == 1, "the other one answered"
    assert sorted(str(call.error_type) for call in result.function_calls) == ["None", "ResponseFailed"]
    ends = [event.status for event in scene.events(ExecutionFinished)]
    assert (ends.count(Status.ERROR), ends.count(Status.OK)) == (1, 3)


async def test_the_calls_of_a_task_that_fails_later_are_calls_of_the_run(scene: Scene) -> None:
    def fails_after_a_call(prompt: Prompt) -> Reply:
        if "You greet." in str(prompt.instructions):
            return Reply("Sorry.") if prompt.outputs else Reply(tool_calls=(ask("billing"),))
        if not prompt.outputs:
            scene.simulator.inject(Fault("failed"))  # for its next request
        return Reply(tool_calls=(FIND,))

    scene.by_agent = fails_after_a_call
    result = await scene.run(find, coordination="manager", max_retries=0)
    calls = [(call.name, call.error_type) for call in result.function_calls]
    assert calls == [("find", None), ("ask_billing", "ResponseFailed")]
    assert [event.name for event in scene.events(FunctionCall)] == ["find", "ask_billing"]


async def test_workers_leave_the_manager_its_last_turn(scene: Scene) -> None:
    scene.by_agent = managed
    result = await scene.run(coordination="manager", max_turns=3)
    assert (result.turns, result.limit_reached) == (3, "max_turns")
    errors = sorted(str(call.error_type) for call in result.function_calls)
    assert errors == ["None", "TurnLimitReached"]
    assert "the limit of 3 answers is reached" in result.content


async def test_a_worker_may_take_longer_than_a_function(scene: Scene) -> None:
    scene.by_agent = managed
    scene.simulator.inject(Fault("latency", seconds=0.1, times=None))
    result = await scene.run(coordination="manager", tool_timeout=0.01)
    assert [call.error_type for call in result.function_calls] == [None, None]


# Deltas


async def deltas(scene: Scene, **settings: Any) -> tuple[list[Delta], MultiAgentResult]:
    async with (
        scene.pattern(find, **settings) as pattern,
        scene.engine() as engine,
        engine.stream(pattern, QUESTION) as stream,
    ):
        pieces = [item async for item in stream if isinstance(item, Delta)]
        return pieces, stream.result.value


@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-4.1"])
async def test_only_the_answer_is_handed_out(scene: Scene, model: str) -> None:
    answer = "It is in Berlin, where it waits for the customs officer."
    replies = iter([Reply("Wait.", tool_calls=(to("billing"),)), Reply("Oh.", tool_calls=(FIND,)), Reply(answer)])
    scene.by_agent = lambda _: next(replies)
    pieces, result = await deltas(scene, agents=(FRONT, BILLING), openai_model=model)
    assert "".join(piece.text for piece in pieces) == result.content == answer
    assert (len(pieces) > 1) is (model == "gpt-6-luna"), "older models do not mark their final answers"
    [run_id] = {piece.run_id for piece in pieces}
    [child] = [event for event in scene.events(ExecutionStarted) if event.run_id == run_id]
    assert child.pattern == "openai_multi_agent.billing"


async def test_what_others_tell_the_manager_is_not_handed_out(scene: Scene) -> None:
    scene.by_agent = managed
    pieces, result = await deltas(scene, coordination="manager")
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == result.content


async def test_a_socket_hears_the_answer(scene: Scene) -> None:
    heard: list[dict[str, Any]] = []

    class Socket:
        async def send_json(self, message: dict[str, Any]) -> None:
            heard.append(message)

    scene.by_agent = managed
    result = await scene.run(coordination="manager", ws_streaming=Socket())
    assert "".join(message["text"] for message in heard) == result.content


# When things go wrong


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("insufficient_quota"), openai.RateLimitError),
        (Fault("failed", times=9), ResponseFailed),
        (Fault("server_error", times=9), openai.InternalServerError),
        (Fault("stream_cut", times=9), openai.APIConnectionError),
    ],
)
async def test_a_failure_is_the_caller_s(scene: Scene, fault: Fault, error: type[Exception]) -> None:
    scene.simulator.inject(fault)
    async with scene.pattern(stream_responses=True) as pattern:
        with pytest.raises(error):
            async with scene.engine() as engine:
                await engine.run(pattern, QUESTION)
    assert [event.status for event in scene.events(ExecutionFinished)] == [Status.ERROR] * 2


async def test_an_incomplete_answer_is_the_answer(scene: Scene) -> None:
    scene.by_agent = lambda _: Reply("Half of this is lost on the way.", tool_calls=(to("parcels"),))
    scene.simulator.inject(Fault("incomplete"))
    result = await scene.run()
    assert (result.finish_reason, result.agent, result.handoffs) == ("length", "front", ())
    assert {call.error_type for call in result.function_calls} <= {"AnswerCutOff"}


async def test_what_passes_is_tried_again(scene: Scene) -> None:
    replies = iter([Reply(tool_calls=(to("parcels"),)), Reply("In Berlin.")])
    scene.by_agent = lambda _: next(replies)
    scene.simulator.inject(Fault("rate_limit"), Fault("server_error"))
    result = await scene.run()
    assert (result.content, result.turns) == ("In Berlin.", 2)
    assert [event.attempt for event in scene.events(TokenUsage)] == [1, 2, 3, 1]


async def test_a_run_that_times_out_leaves_nothing_open(scene: Scene) -> None:
    hanging = anyio.Event()

    async def hang() -> None:
        hanging.set()
        await anyio.sleep_forever()

    def hangs(prompt: Prompt) -> Reply:
        if "You greet." in str(prompt.instructions):
            return Reply(tool_calls=(ask("billing"), ask("parcels")))
        return Reply(tool_calls=(ScriptedCall("hang"),))

    scene.by_agent = hangs
    async with (
        scene.pattern(hang, coordination="manager") as pattern,
        scene.engine() as engine,
        passing(30, whenever=hanging.is_set),
    ):
        with pytest.raises(RunTimeout):
            await engine.run(pattern, QUESTION, timeout=30)
    assert hanging.is_set()
    assert len(scene.events(ExecutionStarted)) == len(scene.events(ExecutionFinished)) == 4


async def test_runs_at_once_do_not_mix(scene: Scene) -> None:
    def hand_over_once(prompt: Prompt) -> Reply:
        if "You greet." in str(prompt.instructions):
            return Reply(tool_calls=(to("parcels", prompt.user_text),))
        return Reply(f"Found {prompt.user_text}")

    scene.by_agent = hand_over_once
    async with scene.pattern() as pattern, scene.engine() as engine:
        results = await engine.map(pattern, [f"AB-{number}" for number in range(30)], concurrency=10)
    for number, result in enumerate(results):
        value = result.value  # type: ignore[union-attr] # none failed
        assert value.content == f"Found AB-{number}"
        assert value.handoffs == (Handoff("front", "parcels", f"AB-{number}"),)
    total = scene.registry.usage.snapshot().total
    assert total.usage == scene.simulator.statistics().total


@pytest.mark.parametrize("written", ["", " ", "null", "[]", '""', "{}"])
async def test_a_handoff_needs_no_arguments(scene: Scene, written: str) -> None:
    replies = iter([Reply(tool_calls=(ScriptedCall("transfer_to_parcels", written),)), Reply("In Berlin.")])
    scene.by_agent = lambda _: next(replies)
    result = await scene.run()
    assert (result.content, result.handoffs) == ("In Berlin.", (Handoff("front", "parcels", ""),))
