"""Budgets and bounds on LangGraph: what is refused does not leave, and what is not reported has an upper end."""

import gc
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import openai
import pytest
from budget_support import Stage, price_of
from chat_scene import ChatScene
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pattern_support import KEY, check_whole
from pydantic import Field, SecretStr
from time_support import passing

from runmeter.engine import (
    Budget,
    BudgetExceeded,
    ExecutionFinished,
    ModelCallStarted,
    Provenance,
    RunInfo,
    Status,
    TokenUsage,
    UnboundedRequest,
    Usage,
    current_execution,
)
from runmeter.patterns import (
    AugmentedLLMPattern,
    EvaluatorOptimizerPattern,
    MeteringHandler,
    OpenAIPatternConfig,
    OrchestratorWorkersConfig,
    OrchestratorWorkersPattern,
    ParallelizationConfig,
    ParallelizationPattern,
    PatternConfig,
    PromptChainingConfig,
    PromptChainingPattern,
    RetiredModel,
    RetryPolicy,
    RoutingPattern,
    Step,
)
from runmeter.patterns.langgraph.metering import open_calls
from runmeter.patterns.langgraph.metering.requests import describe_request, describe_sent, with_limit
from runmeter.simulator import Fault, Prompt, Reply, ScriptedCall, Simulator

PATTERNS = [
    AugmentedLLMPattern,
    PromptChainingPattern,
    RoutingPattern,
    ParallelizationPattern,
    OrchestratorWorkersPattern,
    EvaluatorOptimizerPattern,
]
TEXT = "It is in Berlin, where it waits for the customs officer to come back from a very long lunch."
LONG = Reply(" ".join([TEXT] * 40))
QUESTION = "Where is parcel AB-1?"
PLAN = Reply('{"tasks": [{"title": "a", "instructions": "Do a."}, {"title": "b", "instructions": "Do b."}]}')


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio."""
    return "asyncio"


class Scene(ChatScene):
    """One with patterns, too."""

    def pattern(
        self, kind: Any, *tools: Any, config: Any = OpenAIPatternConfig, options: Any = None, **fields: Any
    ) -> Any:
        fields = {"base_url": self.url, "api_key": KEY, **fields}
        return kind(config(**fields), tools, **{"retry": self.retry(), **(options or {})})


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene.open() as scene:
        yield scene


class Socket:
    """Somebody who listens."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def send_json(self, message: Any) -> None:
        self.texts.append(message.get("text", ""))


def requests_of(stage: Stage) -> list[TokenUsage]:
    return [event for event in stage.events if isinstance(event, TokenUsage)]


def starts_of(stage: Stage) -> list[ModelCallStarted]:
    return [event for event in stage.events if isinstance(event, ModelCallStarted)]


def check(stage: Stage) -> None:
    """Every run's events are whole, and nothing stays reserved."""
    for run_id in {event.run_id for event in stage.events}:
        check_whole([event for event in stage.events if event.run_id == run_id])
    assert all(not status.reserved for status in stage.budgets.status())


async def execute(stage: Stage, pattern: Any, messages: Any = QUESTION) -> Any:
    async with pattern:
        try:
            with stage.run():
                return await pattern.execute(messages)
        finally:
            check(stage)


# Patterns


@pytest.mark.parametrize("kind", PATTERNS)
async def test_what_a_budget_has_no_room_for_does_not_leave_and_ends_the_run(scene: Scene, kind: Any) -> None:
    stage = Stage(Budget(calls=0, name="none"))
    with pytest.raises(BudgetExceeded, match="budget 'none' allows 0 calls"):
        await execute(stage, scene.pattern(kind))
    assert (scene.arrived, requests_of(stage)) == (0, [])
    [end] = [event for event in stage.events if isinstance(event, ExecutionFinished)]
    assert end.status is Status.BUDGET_EXCEEDED


@pytest.mark.parametrize("kind", PATTERNS)
async def test_what_was_used_takes_the_reservations_place(scene: Scene, kind: Any) -> None:
    stage = Stage(Budget(usd="5"), Budget(tokens=10_000_000), Budget(calls=50))
    await execute(stage, scene.pattern(kind, openai_max_tokens=2_000))
    used = scene.simulator.statistics().total
    assert [status.spent for status in stage.budgets.status()] == [price_of(used), used.total_tokens, scene.arrived]
    bounds = {(event.run_id, event.call_id): event.bound for event in starts_of(stage)}
    for event in requests_of(stage):
        bound = bounds[event.run_id, event.call_id]
        assert event.provenance is Provenance.REPORTED
        assert event.usage is not None
        assert bound is not None
        assert event.usage.input_tokens <= bound.input_tokens
        assert event.usage.output_tokens <= bound.output_tokens == 2_000


async def test_no_request_uses_more_than_its_bound(scene: Scene) -> None:
    stage = Stage(Budget(tokens=10_000_000))
    scene.simulator.script(Reply(tool_calls=(ScriptedCall("find", '{"number": "AB-1"}'),)), Reply(TEXT))

    async def find(number: str) -> str:
        """Find a parcel."""
        return f"{number} is in Berlin"

    await execute(stage, scene.pattern(AugmentedLLMPattern, find, openai_max_tokens=200, system_prompt="Be brief."))
    bounds = {event.call_id: event.bound for event in starts_of(stage)}
    for event in requests_of(stage):
        bound = bounds[event.call_id]
        assert event.usage is not None
        assert bound is not None
        assert event.usage.input_tokens <= bound.input_tokens < event.usage.input_tokens + 1_000
        assert event.usage.output_tokens <= bound.output_tokens


@pytest.mark.parametrize("limit", [None, 5_000])
@pytest.mark.parametrize("given", [False, True])
async def test_answers_are_shortened_where_the_budget_says_so(scene: Scene, limit: int | None, given: bool) -> None:
    scene.simulator.script(LONG)
    stage = Stage(Budget(tokens=600, when_exceeded="lower"))
    if given:
        model = scene.model(model="gpt-4.1", use_responses_api=False, max_tokens=limit)
        pattern = scene.pattern(AugmentedLLMPattern, options={"model": model})
    else:
        pattern = scene.pattern(AugmentedLLMPattern, openai_max_tokens=limit)
    result = await execute(stage, pattern)
    assert result.finish_reason == "length"
    [started], [event] = starts_of(stage), requests_of(stage)
    assert started.bound is not None
    assert started.bound.total_tokens == 600
    assert started.max_output_tokens == started.bound.output_tokens
    assert event.usage is not None
    assert event.usage.output_tokens == started.max_output_tokens, "the model was told"
    assert stage.status().spent == event.usage.total_tokens <= 600


async def test_streamed_answers_are_shortened_too(scene: Scene) -> None:
    scene.simulator.script(LONG)
    stage = Stage(Budget(tokens=600, when_exceeded="lower"))
    socket = Socket()
    result = await execute(stage, scene.pattern(AugmentedLLMPattern, options={"ws_streaming": socket}))
    assert (result.finish_reason, "".join(socket.texts)) == ("length", result.content)
    assert stage.status().spent <= 600


class _Silent(GenericFakeChatModel):
    """Reports nothing, and takes a limit that it does not know per request."""


class _Limited(GenericFakeChatModel):
    max_tokens: int = 1_000
    model_name: str = "limited"
    seen: list[Any] = Field(default_factory=list)

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(kwargs.get("max_tokens"))
        return super()._generate(*args, **{name: value for name, value in kwargs.items() if name != "max_tokens"})


async def test_any_model_that_has_max_tokens_can_be_limited() -> None:
    model = _Limited(messages=iter([AIMessage("Yes.")]), seen=[])
    stage = Stage(Budget(tokens=400, when_exceeded="lower"))
    await execute(stage, AugmentedLLMPattern(PatternConfig(), model=model))
    [started] = starts_of(stage)
    assert model.seen == [started.max_output_tokens]
    assert 16 < model.seen[0] < 400


@pytest.mark.parametrize(("cap", "error"), [({"tokens": 400}, UnboundedRequest), ({"usd": "1"}, UnboundedRequest)])
async def test_a_model_of_which_nothing_is_known_is_refused_and_named(cap: Any, error: Any) -> None:
    model = _Silent(messages=iter([AIMessage("Yes.")]))
    assert with_limit(model, 100) is None
    stage = Stage(Budget(**cap, when_exceeded="lower"))
    with pytest.raises(error, match="'unknown' has no known upper bound") as caught:
        await execute(stage, AugmentedLLMPattern(PatternConfig(), model=model))
    assert "LangChain does not know the name of this model: _Silent" in caught.value.__notes__
    assert requests_of(stage) == []


async def test_budgets_of_calls_hold_for_any_model() -> None:
    model = _Silent(messages=iter([AIMessage("Yes."), AIMessage("No.")]))
    stage = Stage(Budget(calls=1))
    async with AugmentedLLMPattern(PatternConfig(), model=model) as pattern:
        with stage.run():
            assert (await pattern.execute(QUESTION)).content == "Yes."
        with pytest.raises(BudgetExceeded), stage.run():
            await pattern.execute(QUESTION)
    check(stage)


# Attempts


async def test_each_attempt_counts_and_a_refusal_is_not_tried_again(scene: Scene) -> None:
    scene.simulator.inject(Fault("server_error"), Fault("rate_limit"))
    stage = Stage(Budget(calls=2))
    with pytest.raises(BudgetExceeded):
        await execute(stage, scene.pattern(AugmentedLLMPattern))
    assert (scene.arrived, int(stage.status().spent), stage.status().refused) == (2, 2, 1)
    assert [event.attempt for event in requests_of(stage)] == [1, 2]


async def test_attempts_are_settled_one_by_one(scene: Scene) -> None:
    scene.simulator.inject(Fault("server_error"), Fault("rate_limit"))
    stage = Stage(Budget(tokens=1_000_000))
    await execute(stage, scene.pattern(AugmentedLLMPattern, openai_max_tokens=500))
    unknown, refused, answered = requests_of(stage)
    assert (unknown.provenance, refused.usage) == (Provenance.UNKNOWN, Usage())
    assert unknown.bound is not None
    assert answered.usage is not None
    assert stage.status().spent == unknown.bound.total_tokens + answered.usage.total_tokens


# A budget is no failure of a branch


def judge(prompt: Prompt) -> Reply | None:
    return PLAN if prompt.json_schema is not None else None


@pytest.mark.parametrize(
    ("kind", "config", "fields"),
    [
        (ParallelizationPattern, ParallelizationConfig, {"on_failure": "skip"}),
        (ParallelizationPattern, ParallelizationConfig, {"on_failure": "threshold", "min_successes": 1}),
        (OrchestratorWorkersPattern, OrchestratorWorkersConfig, {"on_worker_failure": "skip"}),
    ],
)
async def test_no_policy_goes_on_without_the_money(kind: Any, config: Any, fields: Any) -> None:
    async with Simulator(script=judge) as url:
        stage = Stage(Budget(calls=2))
        pattern = kind(config(base_url=url, api_key=KEY, **fields))
        with pytest.raises(BudgetExceeded):
            await execute(stage, pattern)
    assert stage.status().spent == 2
    assert stage.status().refused == 1, "the others were not even tried"


async def test_a_failure_before_does_not_hide_the_refusal(scene: Scene) -> None:
    scene.simulator.inject(*[Fault("insufficient_quota")])
    stage = Stage(Budget(calls=1))
    pattern = scene.pattern(ParallelizationPattern, config=ParallelizationConfig, on_failure="skip", max_concurrency=1)
    with pytest.raises(BudgetExceeded):
        await execute(stage, pattern)
    assert scene.arrived == 1


async def test_a_workers_group_of_errors_ends_the_run_with_the_refusal() -> None:
    async def work(messages: Any, context: Any) -> str:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_below)
        return ""

    async def ask_below() -> None:
        model = FakeListChatModel(responses=["x"])
        with MeteringHandler() as meter:
            await model.ainvoke("x", {"callbacks": [meter]})

    async with Simulator(script=judge) as url:
        config = OrchestratorWorkersConfig(base_url=url, api_key=KEY, on_worker_failure="skip")
        stage = Stage(Budget(calls=1))
        with pytest.raises(BudgetExceeded):
            await execute(stage, OrchestratorWorkersPattern(config, worker=work))


async def test_a_gate_that_is_refused_is_no_gate_that_failed(scene: Scene) -> None:
    async def gate(output: str) -> bool:
        model = FakeListChatModel(responses=["x"])
        with MeteringHandler() as meter:
            await model.ainvoke(output, {"callbacks": [meter]})
        return True

    steps = (Step(name="one", prompt="{input}", gate=gate), Step(name="two", prompt="{previous}"))
    stage = Stage(Budget(calls=1))
    with pytest.raises(BudgetExceeded):
        await execute(stage, scene.pattern(PromptChainingPattern, config=PromptChainingConfig, steps=steps))


async def test_an_agent_that_is_a_tool_ends_the_run_it_is_refused_in(scene: Scene) -> None:
    scene.simulator.script(Reply(tool_calls=(ScriptedCall("research", '{"question": "Why?"}'),)))

    async def research(question: str) -> str:
        """Ask another agent."""
        async with scene.pattern(AugmentedLLMPattern) as agent:
            with current_execution().child(RunInfo("agent")):
                return str((await agent.execute(question)).content)

    stage = Stage(Budget(calls=0, pattern="agent"), Budget(calls=9))
    with pytest.raises(BudgetExceeded, match="pattern agent"):
        await execute(stage, scene.pattern(AugmentedLLMPattern, research))
    assert scene.arrived == 1


async def test_openais_own_tools_need_a_limit(scene: Scene) -> None:
    tools = ({"type": "web_search"},)
    stage = Stage(Budget(usd="100"))
    with pytest.raises(UnboundedRequest):
        await execute(stage, scene.pattern(AugmentedLLMPattern, assistant_tools=tools))
    pattern = scene.pattern(AugmentedLLMPattern, assistant_tools=tools, max_tool_calls=2, openai_max_tokens=100)
    await execute(stage, pattern)
    [started] = starts_of(stage)
    assert started.bound is not None
    assert (started.bound.web_searches, started.bound.output_tokens) == (2, 100)


# The handler alone


def graph_of(node: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph.compile()


async def ainvoke(model: Any, config: Any) -> None:
    await model.ainvoke("x", config)


async def invoke(model: Any, config: Any) -> None:
    model.invoke("x", config)


async def astream(model: Any, config: Any) -> None:
    async for _ in model.astream("x", config):
        raise AssertionError


async def stream(model: Any, config: Any) -> None:
    for _ in model.stream("x", config):
        raise AssertionError


async def abatch(model: Any, config: Any) -> None:
    await model.abatch(["x", "y"], config)


async def batch(model: Any, config: Any) -> None:
    model.batch(["x", "y"], config)


async def in_a_graph(model: Any, config: Any) -> None:
    async def node(state: MessagesState) -> MessagesState:
        return {"messages": [await model.ainvoke(state["messages"])]}

    await graph_of(node).ainvoke({"messages": [HumanMessage("x")]}, config)


async def in_a_sync_graph(model: Any, config: Any) -> None:
    def node(state: MessagesState) -> MessagesState:
        return {"messages": [model.invoke(state["messages"])]}

    graph_of(node).invoke({"messages": [HumanMessage("x")]}, config)


async def with_retry(model: Any, config: Any) -> None:
    await model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).ainvoke("x", config)


WAYS = [ainvoke, invoke, astream, stream, abatch, batch, in_a_graph, in_a_sync_graph, with_retry]


@pytest.mark.parametrize("way", WAYS)
async def test_the_handler_stops_what_is_refused(scene: Scene, way: Callable[..., Any]) -> None:
    stage = Stage(Budget(usd="0.000001"))
    with pytest.raises(BudgetExceeded), stage.run(), MeteringHandler() as meter:
        await way(scene.model(max_tokens=100), {"callbacks": [meter]})
    assert (scene.arrived, requests_of(stage)) == (0, [])
    assert not any(value for value in vars(meter).values() if isinstance(value, dict))
    check(stage)


async def test_next_to_other_handlers_it_refuses_too(scene: Scene) -> None:
    """LangChain then leaves coroutines of the others behind, of which Python complains."""
    stage = Stage(Budget(calls=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(BudgetExceeded), stage.run(), MeteringHandler() as meter:
            async for _ in scene.model().astream_events("x", {"callbacks": [meter]}, version="v2"):
                pass
        gc.collect()
    assert scene.arrived == 0
    check(stage)


@pytest.mark.parametrize("way", [ainvoke, invoke, abatch, in_a_graph, in_a_sync_graph])
async def test_the_handler_reserves_and_settles(scene: Scene, way: Callable[..., Any]) -> None:
    stage = Stage(Budget(usd="1"), Budget(calls=5))
    with stage.run(), MeteringHandler() as meter:
        await way(scene.model(max_tokens=100), {"callbacks": [meter]})
    used = scene.simulator.statistics().total
    assert [status.spent for status in stage.budgets.status()] == [price_of(used), scene.arrived]
    check(stage)


@pytest.mark.parametrize("sync", [False, True])
async def test_of_a_batch_that_is_refused_nothing_was_used(scene: Scene, sync: bool) -> None:
    stage = Stage(Budget(calls=1))
    model = scene.model()
    prompts: list[list[BaseMessage]] = [[HumanMessage("x")], [HumanMessage("y")]]
    with pytest.raises(BudgetExceeded), stage.run(), MeteringHandler() as meter:
        if sync:
            model.generate(prompts, callbacks=[meter])
        else:
            await model.agenerate(prompts, callbacks=[meter])
    assert scene.arrived == 0
    [event] = requests_of(stage)
    assert (event.usage, event.error_type) == (Usage(), "batch_refused")
    check(stage)


async def test_a_model_in_a_sync_tools_thread_is_refused_too(scene: Scene) -> None:
    model = scene.model()

    @tool
    def weigh(number: str) -> str:
        """Weigh a parcel by asking a model."""
        return str(model.invoke(number).text)

    called = AIMessage("", tool_calls=[{"name": "weigh", "args": {"number": "1"}, "id": "call_1"}])
    stage = Stage(Budget(calls=0))
    with pytest.raises(BudgetExceeded), stage.run(), MeteringHandler() as meter:
        node = ToolNode([weigh], handle_tool_errors=False)
        await graph_of(node).ainvoke({"messages": [called]}, {"callbacks": [meter]})
    assert scene.arrived == 0
    check(stage)


@pytest.mark.parametrize("way", [ainvoke, invoke])
@pytest.mark.parametrize("budgets", [(), (Budget(calls=5),)])
async def test_an_error_of_the_handlers_own_does_not_break_the_users_run(
    scene: Scene, way: Any, budgets: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise LookupError("ours")

    monkeypatch.setattr(open_calls, "read_answer", broken)
    stage = Stage(*budgets)
    with stage.run(), MeteringHandler() as meter:
        await way(scene.model(), {"callbacks": [meter]})
    assert scene.arrived == 1
    assert "LookupError" in caplog.text
    check(stage)


async def test_what_cannot_be_described_is_not_let_through(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise LookupError("ours")

    monkeypatch.setattr(open_calls, "describe_sent", broken)
    stage = Stage(Budget(tokens=1_000))
    with pytest.raises((BudgetExceeded, UnboundedRequest)), stage.run(), MeteringHandler() as meter:
        await scene.model().ainvoke("x", {"callbacks": [meter]})
    assert scene.arrived == 0


async def test_without_budgets_nothing_is_counted_beforehand(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(open_calls, "describe_sent", never)
    stage = Stage()
    await execute(stage, scene.pattern(AugmentedLLMPattern))
    assert [event.provenance for event in requests_of(stage)] == [Provenance.REPORTED]


# The upper end of what was not reported


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("fault", ["server_error", "drop", "stream_cut"])
async def test_what_is_not_known_has_a_bound(scene: Scene, bare: bool, fault: Any) -> None:
    scene.simulator.script(Reply(TEXT))
    scene.simulator.inject(Fault(fault, after_events=8 if fault == "stream_cut" else 0))
    stage = Stage()
    with pytest.raises(openai.APIError):
        if bare:
            model = scene.model(max_tokens=300, streaming=fault == "stream_cut")
            with stage.run(), MeteringHandler() as meter:
                await model.ainvoke(QUESTION, {"callbacks": [meter]})
        else:
            options = {"ws_streaming": Socket() if fault == "stream_cut" else None, "retry": RetryPolicy(max_retries=0)}
            await execute(stage, scene.pattern(AugmentedLLMPattern, openai_max_tokens=300, options=options))
    [event] = requests_of(stage)
    assert event.provenance is (Provenance.PARTIAL if fault == "stream_cut" else Provenance.UNKNOWN)
    assert event.bound is not None
    assert event.bound.output_tokens == 300
    assert 10 < event.bound.input_tokens < 200
    assert stage.prices.cost(event).high == price_of(event.bound)
    check(stage)


@pytest.mark.parametrize("budgets", [(), (Budget(usd="1"),)])
async def test_so_has_what_was_cancelled(scene: Scene, budgets: Any) -> None:
    scene.simulator.inject(Fault("latency", seconds=3600))
    stage = Stage(*budgets)
    async with scene.pattern(AugmentedLLMPattern, openai_max_tokens=300) as pattern:
        with stage.run(), anyio.move_on_after(30) as scope:
            async with passing(30, whenever=lambda: scene.simulator.statistics().faults):
                await pattern.execute(QUESTION)
    assert scope.cancelled_caught
    [event] = requests_of(stage)
    assert (event.provenance, event.error_type) == (Provenance.UNKNOWN, "CancelledError")
    assert event.bound is not None
    assert [status.spent for status in stage.budgets.status()] == [price_of(event.bound)] * len(budgets)
    check(stage)


@pytest.mark.parametrize(
    ("params", "messages", "inputs"),
    [
        ({"previous_response_id": "resp_1"}, [HumanMessage("x")], None),
        ({"extra_body": {"conversation": "conv_1"}}, [HumanMessage("x")], None),
        ({"tools": [object()]}, [HumanMessage("x")], None),
        ({}, [HumanMessage("x")], 200),
        ({}, "x", 200),
        ({}, [AIMessage([{"type": "reasoning", "summary": [], "encrypted_content": "A" * 5_000}])], 6_000),
        ({}, [AIMessage("", additional_kwargs={"reasoning": {"summary": "why " * 2_000}})], 9_000),
        ({}, [HumanMessage([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}])], None),
    ],
)
def test_bounds_hold_all_that_is_sent(params: Any, messages: Any, inputs: int | None) -> None:
    params = {"model": "gpt-6-luna", "max_tokens": 50, **params}
    request = describe_request(None, params, {"ls_provider": "openai"}, operation="chat", stream=False)
    bound = describe_sent(request, None, params, messages).bound_here()
    assert bound is not None
    assert bound.output_tokens == 50
    if inputs is None:
        assert bound.input_tokens > 100_000, "the model's context"
    else:
        assert inputs / 3 < bound.input_tokens < inputs


def test_the_longest_of_several_limits_counts_and_all_are_lowered() -> None:
    model = ChatOpenAI(model="gpt-6-luna", api_key=SecretStr(KEY), max_completion_tokens=900)
    limited: Any = with_limit(model.bind(max_tokens=700, max_output_tokens=800), 100)
    assert limited.kwargs == dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens"), 100)
    params = model._get_invocation_params(max_tokens=700)
    assert describe_request(None, params, {}, operation="chat", stream=False).max_output_tokens == 900


# Estimates


@pytest.mark.parametrize("counted", [True, False])
async def test_answers_without_usage_are_estimated(counted: bool) -> None:
    class _Plain(GenericFakeChatModel):
        model_name: str = "gpt-4o"

    model = _Plain(messages=iter([AIMessage("one two three")]))
    stage = Stage()
    config = OpenAIPatternConfig(enable_token_counting=counted)
    await execute(stage, AugmentedLLMPattern(config, model=model), "one two three four")
    [event] = requests_of(stage)
    if counted:
        assert event.provenance is Provenance.ESTIMATED
        assert event.usage == Usage(input_tokens=11, output_tokens=3)
    else:
        assert (event.provenance, event.usage) == (Provenance.UNKNOWN, None)


async def test_the_handler_estimates_as_the_patterns_do() -> None:
    stage = Stage()
    with stage.run(), MeteringHandler() as meter:
        await FakeListChatModel(responses=["one"]).ainvoke("x", {"callbacks": [meter]})
    assert [event.provenance for event in requests_of(stage)] == [Provenance.ESTIMATED]


async def test_an_outer_graphs_handler_does_not_lose_what_is_finished_later() -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("one"), AIMessage("two")]))
    pattern = AugmentedLLMPattern(PatternConfig(), model=model)

    async def node(state: MessagesState) -> MessagesState:
        return {"messages": [AIMessage((await pattern.execute("x")).content)]}

    stage = Stage()
    with stage.run():
        outer = MeteringHandler()
        await graph_of(node).ainvoke({"messages": [HumanMessage("x")]}, {"callbacks": [outer]})
    assert [event.provenance for event in requests_of(stage)] == [Provenance.ESTIMATED]
    assert not any(value for value in vars(outer).values() if isinstance(value, dict))
    check(stage)


# Models that are shut down


@pytest.mark.parametrize("kind", PATTERNS)
async def test_the_api_says_when_the_default_model_is_shut_down(scene: Scene, kind: Any) -> None:
    stage = Stage()  # its clock stands at a time after this model's shutdown, of which the table does not speak here
    with pytest.raises(RetiredModel, match="gpt-4o"):
        await execute(stage, scene.pattern(kind, openai_model="gpt-4o", check_shutdown_date=True))
    assert scene.simulator.statistics().requests["GET /models/{id}"] == 1
    assert (await execute(stage, scene.pattern(kind, openai_model="gpt-4o"))).content


async def test_a_given_model_is_not_asked_about(scene: Scene) -> None:
    pattern = scene.pattern(AugmentedLLMPattern, check_shutdown_date=True, options={"model": scene.model()})
    await execute(Stage(), pattern)
    assert "GET /models/{id}" not in scene.simulator.statistics().requests
