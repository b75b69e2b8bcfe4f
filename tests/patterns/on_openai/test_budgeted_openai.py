"""Budgets around the OpenAI patterns: what they refuse never leaves, and no cap is passed whatever happens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import anyio
import msgspec
import openai
import pytest
from budget_support import MICRO, Stage, price_of
from pattern_support import KEY, Run, at_once
from time_support import advance

from runmeter.engine import (
    Budget,
    BudgetExceeded,
    Engine,
    Event,
    ExecutionFinished,
    ModelCallStarted,
    PriceBook,
    Provenance,
    Status,
    TokenUsage,
    UnboundedRequest,
    Usage,
    run_child,
)
from runmeter.engine.testing import Recorder
from runmeter.patterns import (
    OpenAIFunctionCallingPattern,
    OpenAIPatternConfig,
    OpenAIRAGPattern,
    ResponseFailed,
    RetryPolicy,
)
from runmeter.patterns.openai.agents import Agent
from runmeter.patterns.openai.embeddings import EmbeddingRetriever, MeteredEmbeddings
from runmeter.patterns.openai.multi_agent import OpenAIMultiAgentConfig, OpenAIMultiAgentPattern
from runmeter.patterns.openai.responses.metered import MeteredResponses
from runmeter.patterns.openai.responses.requests import Requests
from runmeter.patterns.openai_client.clients import Clients
from runmeter.patterns.requests.bounds import Sent
from runmeter.patterns.retrieval.ingestion import Document
from runmeter.simulator import Fault, Reply, ScriptedCall, Simulator

PARAMS: dict[str, Any] = {"model": "gpt-6-luna", "input": "Where is parcel AB-1?", "max_output_tokens": 100}
TEXT = "It is in Berlin, where it waits for the customs officer to come back from a very long lunch. " * 3


class Service:
    """The simulator, and metered requests to it."""

    def __init__(self, simulator: Simulator, clients: Clients) -> None:
        self.simulator = simulator
        self.clients = clients

    def responses(self, *, timeout: float = 30) -> MeteredResponses:
        return MeteredResponses(self.clients, RetryPolicy(sleep=at_once), timeout=timeout, estimate=True)

    def embeddings(self) -> MeteredEmbeddings:
        return MeteredEmbeddings(Requests(self.clients, RetryPolicy(sleep=at_once), 30))

    @property
    def arrived(self) -> int:
        return sum(self.simulator.statistics().requests.values())

    @asynccontextmanager
    async def pattern(self, *tools: Any, **settings: Any) -> AsyncIterator[OpenAIFunctionCallingPattern]:
        config = OpenAIPatternConfig(base_url=self.simulator.url, api_key=KEY, **settings)
        async with OpenAIFunctionCallingPattern(config, tools, retry=RetryPolicy(sleep=at_once)) as pattern:
            yield pattern


@pytest.fixture
async def service(simulator: Simulator) -> AsyncIterator[Service]:
    clients = Clients(KEY, simulator.url, timeout=30)
    yield Service(simulator, clients)
    await clients.aclose()


def of(stage: Stage, kind: type[Event]) -> list[Any]:
    return [event for event in stage.events if type(event) is kind]


# One request


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_budget_refuses_does_not_leave_and_is_not_tried_again(service: Service, stream: bool) -> None:
    stage = Stage(Budget(usd="0.0002"))
    with pytest.raises(BudgetExceeded) as refused, stage.run():
        await service.responses().create(PARAMS, stream=stream)
    assert refused.value.asked > 200 * MICRO
    assert service.arrived == 0
    assert stage.status().refused == 1, "once"
    assert stage.status().spent == stage.status().reserved == 0
    assert not of(stage, ModelCallStarted)
    assert of(stage, ExecutionFinished)[0].status is Status.BUDGET_EXCEEDED


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_billed_takes_the_place_of_what_was_reserved(service: Service, stream: bool) -> None:
    stage = Stage(Budget(usd="1"), Budget(tokens=10_000))
    with stage.run():
        await service.responses().create(PARAMS, stream=stream)
    spent, tokens = (status.spent for status in stage.budgets.status())
    billed = service.simulator.statistics().total
    assert spent == price_of(billed)
    assert tokens == billed.total_tokens
    [started] = of(stage, ModelCallStarted)
    assert started.bound.output_tokens == 100
    assert started.bound.input_tokens >= billed.input_tokens


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", [None, 5_000])
async def test_an_answer_may_be_made_shorter_in_place_of_a_refusal(
    service: Service, stream: bool, asked: int | None
) -> None:
    service.simulator.script(Reply(TEXT))
    stage = Stage(Budget(tokens=130, when_exceeded="lower"))
    params = {name: value for name, value in PARAMS.items() if name != "max_output_tokens"}
    if asked is not None:
        params["max_output_tokens"] = asked
    with stage.run():
        response = await service.responses().create(params, stream=stream)
    assert response.status == "incomplete"
    [started] = of(stage, ModelCallStarted)
    assert 16 <= started.max_output_tokens == started.bound.output_tokens < 130
    assert started.bound.total_tokens == 130, "all that there was room for"
    assert response.max_output_tokens == started.max_output_tokens
    assert stage.status().spent == service.simulator.statistics().total.total_tokens <= 130


async def test_each_attempt_is_reserved_anew_and_what_nobody_knows_counts_in_full(service: Service) -> None:
    service.simulator.inject(Fault("server_error", times=9))
    bound = await Sent(model=PARAMS["model"], messages=PARAMS["input"], max_output_tokens=100).bound()
    assert bound is not None
    stage = Stage(Budget(tokens=2 * bound.total_tokens))
    with pytest.raises(BudgetExceeded), stage.run():
        await service.responses().create(PARAMS)
    assert service.arrived == 2, "the third attempt had no room"
    assert stage.status().spent == 2 * bound.total_tokens
    assert [event.bound for event in of(stage, TokenUsage)] == [bound, bound]


async def test_what_was_refused_by_the_api_costs_nothing(service: Service) -> None:
    service.simulator.inject(Fault("rate_limit"), Fault("rate_limit"))
    stage = Stage(Budget(tokens=250))
    with stage.run():
        await service.responses().create(PARAMS)
    assert service.arrived == 3
    assert stage.status().spent == service.simulator.statistics().total.total_tokens


@pytest.mark.parametrize("how", ["timeout", "cut", "cancelled"])
async def test_an_answer_that_was_cut_counts_as_all_that_it_may_have_used(service: Service, how: str) -> None:
    service.simulator.script(Reply(TEXT))
    if how == "cut":
        service.simulator.inject(Fault("stream_cut", after_events=8))
    else:
        service.simulator.inject(Fault("latency", seconds=0, between_chunks=0.02))
    scope = anyio.CancelScope()
    stage = Stage(Budget(tokens=350))

    async def delta(_: str, __: str) -> None:
        if how == "cancelled":
            scope.cancel()
        elif how == "timeout":
            await advance(30)

    execution = stage.run()
    execution.runtime = msgspec.structs.replace(execution.runtime, delta=delta)
    with scope:
        try:
            with execution:
                await service.responses().create(PARAMS, stream=True)
        except (ResponseFailed, openai.APIError):
            pass
    [usage] = of(stage, TokenUsage)
    assert usage.provenance is not Provenance.REPORTED
    assert stage.status().spent == usage.bound.total_tokens
    assert service.simulator.statistics().total.total_tokens <= stage.status().spent
    assert stage.status().reserved == 0


async def test_what_has_no_bound_is_refused_where_a_budget_needs_one(service: Service) -> None:
    search = {**PARAMS, "tools": [{"type": "web_search"}]}
    with pytest.raises(UnboundedRequest), Stage(Budget(usd="100")).run():
        await service.responses().create(search)
    assert service.arrived == 0
    with Stage(Budget(usd="100")).run():
        await service.responses().create({**search, "max_tool_calls": 2})
    with Stage(Budget(calls=1)).run():
        await service.responses().create(search)
    assert service.arrived == 2


async def test_the_config_limits_the_tools_that_openai_runs(service: Service) -> None:
    stage = Stage(Budget(usd="100"))
    async with service.pattern(assistant_tools=({"type": "web_search"},), max_tool_calls=2) as pattern:
        with stage.run():
            await pattern.execute("Hi")
    [started] = of(stage, ModelCallStarted)
    assert started.bound.web_searches == 2


async def test_no_bound_is_worked_out_where_nobody_needs_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sent] = []
    worked_out = Sent.bound_here

    def watch(sent: Sent) -> Usage | None:
        asked.append(sent)
        return worked_out(sent)

    monkeypatch.setattr(Sent, "bound_here", watch)
    run = Run()
    with run():
        await service.responses().create(PARAMS)
        assert not asked
        service.simulator.inject(Fault("drop"))
        await service.responses().create(PARAMS)
    assert len(asked) == 1, "for the one that nobody answered"
    assert [bool(request.bound) for request in run.requests] == [False, True, False]
    service.simulator.inject(Fault("drop"))
    await service.responses().create(PARAMS)
    assert len(asked) == 1, "outside an engine nobody measures"


async def test_many_at_once_never_pass_the_cap(service: Service) -> None:
    stage = Stage(Budget(tokens=2_000))
    refused = 0

    async def ask(number: int) -> None:
        nonlocal refused
        try:
            with stage.run():
                await service.responses().create({**PARAMS, "input": f"Where is {number}?"}, stream=number % 2 == 0)
        except (BudgetExceeded, openai.APIError, ResponseFailed) as error:
            refused += isinstance(error, BudgetExceeded)

    service.simulator.inject(Fault("server_error", times=4), Fault("stream_end", times=3, after_events=7))
    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(ask, number)
    assert 0 < refused < 60
    status = stage.status()
    assert status.reserved == 0
    assert service.simulator.statistics().total.total_tokens <= status.spent <= status.cap


# Embeddings


async def test_embeddings_are_reserved_and_settled_too(service: Service) -> None:
    stage = Stage(Budget(tokens=60))
    with stage.run():
        await service.embeddings().embed(["Bees visit flowers."])
        billed = service.simulator.statistics().total.total_tokens
        assert stage.status().spent == billed > 0
        with pytest.raises(BudgetExceeded):
            await service.embeddings().embed(["Bees visit flowers to collect nectar."] * 20)
    assert service.simulator.statistics().total.total_tokens == billed
    assert stage.status().refused == 1


async def test_an_embedding_that_nobody_answered_counts_in_full(service: Service) -> None:
    service.simulator.inject(Fault("drop", times=9))
    stage = Stage(Budget(tokens=1_000))
    with pytest.raises(openai.APIError), stage.run():
        await service.embeddings().embed(["Bees visit flowers."])
    used = of(stage, TokenUsage)
    assert len(used) == 3
    assert {event.provenance for event in used} == {Provenance.UNKNOWN}
    assert stage.status().spent == 3 * used[0].bound.input_tokens > 0


async def test_a_search_that_is_refused_ends_the_run(service: Service) -> None:
    config = OpenAIPatternConfig(base_url=service.simulator.url, api_key=KEY)
    retriever = EmbeddingRetriever(config)
    await retriever.add([Document(source="a.md", text="Bees visit flowers.")])
    before = service.arrived
    async with OpenAIRAGPattern(config, retriever=retriever) as pattern:
        with pytest.raises(BudgetExceeded), Stage(Budget(calls=0)).run():
            await pattern.execute("What do bees visit?")
    await retriever.aclose()
    assert service.arrived == before


# Runs within runs


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("how", ["directly", "as a child", "in a task group"])
async def test_a_tool_whose_model_is_refused_ends_the_run_and_is_not_for_the_model_to_judge(
    service: Service, calls: int, how: str
) -> None:
    async with service.pattern() as inner:

        async def look(number: str) -> str:
            """Look for a parcel."""
            if how == "in a task group":
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(inner.execute, number)
                return ""
            return str(await run_child(inner, number) if how == "as a child" else await inner.execute(number))

        service.simulator.script(Reply(tool_calls=(ScriptedCall("look", '{"number": "AB-1"}'),) * calls))
        stage = Stage(Budget(calls=1))
        async with service.pattern(look) as pattern:
            with pytest.raises(BudgetExceeded), stage.run():
                await pattern.execute("Where is parcel AB-1?")
    assert service.arrived == 1
    assert {event.status for event in of(stage, ExecutionFinished)} <= {Status.BUDGET_EXCEEDED, Status.CANCELLED}
    assert of(stage, ExecutionFinished)[-1].status is Status.BUDGET_EXCEEDED


async def test_an_agent_that_is_refused_ends_the_run_of_the_one_that_manages(service: Service) -> None:
    agents = (Agent(name="boss", instructions="You manage."), Agent(name="hand", instructions="You work."))
    config = OpenAIMultiAgentConfig(base_url=service.simulator.url, api_key=KEY, agents=agents, coordination="manager")
    service.simulator.script(Reply(tool_calls=(ScriptedCall("ask_hand", '{"task": "Look."}'),)))
    recorder = Recorder()
    async with OpenAIMultiAgentPattern(config) as pattern, Engine(budgets=[Budget(calls=1)]) as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        with pytest.raises(BudgetExceeded):
            await engine.run(pattern, "Where is it?")
    assert service.arrived == 1
    ended = [event.status for event in recorder.events if isinstance(event, ExecutionFinished)]
    assert set(ended) == {Status.BUDGET_EXCEEDED}


async def test_real_prices_hold_as_well(service: Service) -> None:
    service.simulator.inject(Fault("drop", times=1))
    recorder = Recorder()
    async with service.pattern(openai_max_tokens=200) as pattern, Engine(budgets=[Budget(usd="0.05")]) as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        await engine.run(pattern, "Where is parcel AB-1?")
        [status] = engine.budgets()
    book = PriceBook()
    costs = [book.cost(event) for event in recorder.events if isinstance(event, TokenUsage)]
    assert len(costs) == 2
    assert status.spent == sum((cost.high for cost in costs if cost.high is not None), Decimal(0)) > 0
    assert all(cost.high is not None for cost in costs)
    assert status.reserved == 0
