"""Budgets under stress: no cap is ever passed, nothing stays reserved, and nobody is refused without need."""

import gc
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import copy_context
from datetime import timedelta
from decimal import Decimal
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from budget_support import HOUR, MICRO, FlatPrices, Stage, amounts, price_of, request, use
from campaign_support import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from strategies import NOW

from runmeter.engine import (
    Budget,
    BudgetExceeded,
    Engine,
    ModelCall,
    Notice,
    Provenance,
    RunEnded,
    RunTimeout,
    Status,
    TokenUsage,
    Usage,
    current_execution,
)
from runmeter.engine.budgets.accounts import MAX_ACCOUNTS, OTHER, SWEEP_AT
from runmeter.engine.budgets.reservation import Reservation, Scope
from runmeter.engine.testing import ManualClock, Recorder

# What ends in odd ways


def test_a_run_s_end_leaves_nothing_reserved() -> None:
    """A request whose end was never heard of may have been billed in full; a reservation without one cannot have."""
    stage = Stage(Budget(calls=9, tokens=10_000))
    with stage.run() as run:
        abandoned = run.model_call(request())
        abandoned.__enter__()
        unused = run.reserve(request())
        unused.__enter__()
        assert [status.reserved for status in stage.budgets.status()] == [300, 2]
    assert [(status.spent, status.reserved) for status in stage.budgets.status()] == [amounts(150, 0), amounts(1, 0)]
    abandoned.record(Usage(input_tokens=7))
    abandoned.__exit__(None, None, None)
    unused.__exit__(None, None, None)
    assert [(status.spent, status.reserved) for status in stage.budgets.status()] == [amounts(7, 0), amounts(1, 0)]


def test_an_end_that_was_heard_of_meanwhile_counts() -> None:
    """A thread's request may end just while its run does."""
    stage = Stage(Budget(tokens=1_000))
    with stage.run() as run, run.reserve(request()), run.model_call(request()) as call:
        assert run.scope is not None
        [reservation] = run.scope.reservations
        call.record(Usage(input_tokens=7))
        call.__exit__(None, None, None)
        stage.budgets._put(reservation, [hold.asked for hold in reservation.holds], known=False)
        assert stage.status().spent == 7


@pytest.mark.parametrize("uses", [0, 1])
def test_a_run_that_is_over_spends_no_more(uses: int) -> None:
    """Threads that go on after a timeout are refused before a budget is asked."""
    stage = Stage(Budget(calls=2, per="run"), Budget(calls=5))
    with stage.run() as run:
        for _ in range(uses):
            use(run)
    with pytest.raises(RunEnded):
        use(run)
    with pytest.raises(RunEnded), run.reserve(request()):
        pass
    [status] = stage.budgets.status()
    assert [status.spent, status.reserved, status.refused] == [uses, 0, 0]


@pytest.mark.usefixtures("frozen_heap")
def test_a_reservation_that_only_the_garbage_collector_ends_is_settled() -> None:
    """In the middle of whatever its thread does with the budgets: without waiting for itself, and when that is done."""

    class Collecting(FlatPrices):
        def upper_bound(self, *arguments: Any) -> Decimal | None:
            if self.asked >= 2:  # first for each request, then under the lock, to find what fits
                gc.collect()
            return super().upper_bound(*arguments)

    stage = Stage(Budget(usd="0.000335", when_exceeded="lower"))
    stage.budgets.prices = Collecting()

    def hold() -> Iterator[None]:
        with run.reserve(request()):
            yield

    gc.disable()
    try:
        with stage.run() as run:
            cycle: list[Any] = [hold()]
            next(cycle[0])
            cycle.append(cycle)
            del cycle
            with run.reserve(request(100, 60)) as allowed:
                assert allowed.max_output_tokens == 17, "nothing changed while it was sought"
                assert stage.status().reserved == 134 * MICRO, "and then what had been collected was released"
    finally:
        gc.enable()
    assert stage.status().reserved == 0


@pytest.mark.usefixtures("frozen_heap")
def test_a_run_that_the_garbage_collector_ends_does_not_disturb_the_status() -> None:
    """Wherever in the middle of it that may be."""
    copy_context().run(collect_runs_in_the_middle)  # lest a run stays the current one of the tests to come


def collect_runs_in_the_middle() -> None:
    def hold(stage: Stage) -> Iterator[None]:
        with stage.run() as run, run.model_call(request()):
            yield

    thresholds = gc.get_threshold()
    for allocations in range(1, 40):
        stage = Stage(Budget(calls=100, per="run"))
        gc.disable()
        try:
            for _ in range(3):
                cycle: list[Any] = [hold(stage)]
                next(cycle[0])
                cycle.append(cycle)
            del cycle
            gc.set_threshold(gc.get_count()[0] + allocations)
            gc.enable()
            assert len(stage.budgets.status()) in (0, 3)
        finally:
            gc.set_threshold(*thresholds)
            gc.enable()
            gc.collect()


def test_idle_ledgers_go() -> None:
    stage = Stage(Budget(calls=1, per="tenant", every="minute"))
    for number in range(SWEEP_AT * 10):
        stage.clock.advance(10)
        with stage.run(tenant=str(number)) as run:
            use(run)
        assert len(stage.budgets.status()) <= SWEEP_AT


def test_too_many_tenants_share_a_cap_until_it_is_idle(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert MAX_ACCOUNTS > 100
    monkeypatch.setattr("runmeter.engine.budgets.accounts.MAX_ACCOUNTS", 100)
    stage = Stage(Budget(calls=3, per="tenant", every="minute"))
    for number in range(103):
        with stage.run(tenant=str(number)) as run:
            use(run)
    assert stage.status(OTHER).spent == 3
    assert "share one cap" in caplog.text
    with stage.run(tenant="one more") as run, pytest.raises(BudgetExceeded):
        use(run)
    stage.clock.advance(60)
    with stage.run(tenant="one more") as run:
        use(run)
    assert stage.status("one more").spent == 1


def test_a_tenant_called_like_the_shared_ledger_shares_nothing() -> None:
    stage = Stage(Budget(calls=1, per="tenant"))
    for tenant in (OTHER, "acme"):
        with stage.run(tenant=tenant) as run:
            use(run)


# In an engine


async def test_an_engine_keeps_its_budgets() -> None:
    async def ask(messages: Any, context: Any) -> str:
        use(current_execution())
        return "answer"

    async def fan_out(messages: Any, context: Any) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(engine.run, ask, "")

    recorder = Recorder()
    budget = Budget(usd="0.0009", every="hour", name="hourly")
    async with Engine(prices=FlatPrices(), budgets=[budget], clock=ManualClock()) as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        assert (await engine.run(ask, "")).cost.usd == 200 * MICRO
        with pytest.raises(BaseExceptionGroup):
            await engine.run(fan_out, "")
        [status] = engine.budgets()
        assert (status.budget, status.spent, status.reserved) == ("hourly", *amounts(800 * MICRO, 0))
        assert status.refused == 1
        total = engine.usage().total
        assert total.notices_by_kind == {"budget": 1}
        assert total.cost.usd == status.spent
        by_pattern = engine.usage().by_pattern()
    [name] = [name for name in by_pattern if "fan_out" in name]
    assert by_pattern[name].by_status == {Status.BUDGET_EXCEEDED: 1}
    assert sum(isinstance(event, Notice) for event in recorder.events) == 1
    assert Engine().budgets() == ()


async def test_what_is_reserved_and_spent_is_what_the_price_book_says() -> None:
    bound = Usage(input_tokens=300_000, output_tokens=1_000)  # where prices for long prompts are due
    used = Usage(input_tokens=300_000, output_tokens=400, cache_read_tokens=100_000)

    async def ask(messages: Any, context: Any) -> Decimal:
        with current_execution().model_call(request(model="gpt-6-luna", bound=bound)) as call:
            [status] = engine.budgets()
            call.record(used)
        return status.reserved

    async with Engine(budgets=[Budget(usd="100")], clock=ManualClock(NOW)) as engine:
        result = await engine.run(ask, "")
        [status] = engine.budgets()
        assert status.spent == result.cost.usd
        assert 0 < status.spent < result.value
        assert result.value == result.prices.upper_bound("openai", "gpt-6-luna", None, bound, NOW)


class Crowd:
    """Tasks that make requests, and fail, are cancelled and time out at random.

    It keeps a tally of its own of what is held or spent, and checks every admission and every refusal by it.
    """

    CAP = Decimal("0.02")

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - a test's
        self.clock = ManualClock()
        self.sums: dict[int, Decimal] = {}
        """What is held or spent, by hour."""
        self.outcomes: list[str] = []

    @property
    def hour(self) -> int:
        return self.clock.time_ns() // HOUR

    def tally(self) -> Decimal:
        return self.sums.get(self.hour, Decimal(0))

    def happens(self, probability: float) -> bool:
        return self.chance.random() < probability

    async def dawdle(self, most: int = 3) -> None:
        for _ in range(self.chance.randint(0, most)):
            await anyio.lowlevel.checkpoint()

    async def ask(self, messages: Any, context: Any) -> None:
        await self.dawdle()
        asked = request(self.chance.randint(0, 200), self.chance.randint(0, 100))
        assert asked.bound is not None
        most, room = price_of(asked.bound), self.CAP - self.tally()
        execution = current_execution()
        with ExitStack() as stack:
            try:
                if self.happens(0.5):
                    stack.enter_context(execution.reserve(asked))
                    if self.happens(0.2):
                        return  # it changed its mind
                call = stack.enter_context(execution.model_call(asked))
            except BudgetExceeded:
                assert most > room, "refused, though the cap allowed it"
                raise
            assert most <= room, "the cap is passed"
            await self.be_answered(call, asked.bound)

    async def be_answered(self, call: ModelCall, bound: Usage) -> None:
        hour, most = self.hour, price_of(bound)
        self.sums[hour] = self.tally() + most
        await self.dawdle()
        if self.happens(0.2):
            raise LookupError("no answer")
        used = Usage(
            input_tokens=self.chance.randint(0, bound.input_tokens),
            output_tokens=self.chance.randint(0, bound.output_tokens),
        )
        call.record(used)
        self.sums[hour] += price_of(used) - most
        if self.happens(0.1):
            raise LookupError("too late to matter")

    async def task(self, engine: Engine, tasks: TaskGroup) -> None:
        await self.dawdle(5)
        if self.happens(0.01):
            self.clock.advance(900)
        with anyio.CancelScope() as scope:
            if self.happens(0.2):
                tasks.start_soon(self.cancel, scope)
            try:
                await engine.run(self.ask, "", timeout=1e-9 if self.happens(0.2) else None)
                self.outcomes.append("ok")
            except (LookupError, RunTimeout, BudgetExceeded) as error:
                self.outcomes.append(type(error).__name__)
        if scope.cancelled_caught:
            self.outcomes.append("cancelled")
        [status] = engine.budgets()
        assert status.spent + status.reserved == self.tally() <= self.CAP

    async def cancel(self, scope: anyio.CancelScope) -> None:
        await self.dawdle(8)
        scope.cancel()


@pytest.mark.parametrize("seed", range(3))
async def test_a_thousand_tasks_on_one_budget(seed: int) -> None:
    crowd = Crowd(seed)
    budget = Budget(usd=crowd.CAP, every="hour")
    async with Engine(prices=FlatPrices(), budgets=[budget], clock=crowd.clock) as engine:
        async with anyio.create_task_group() as tasks:
            for _ in range(1_000):
                tasks.start_soon(crowd.task, engine, tasks)
        [status] = engine.budgets()
        assert status.reserved == 0
        assert status.spent == crowd.tally()
        assert max(crowd.sums.values()) <= crowd.CAP
        total = engine.usage().total
    assert total.by_status[Status.BUDGET_EXCEEDED] == crowd.outcomes.count("BudgetExceeded")
    assert len(crowd.outcomes) == 1_000
    for outcome in ("ok", "LookupError", "RunTimeout", "BudgetExceeded", "cancelled"):
        assert crowd.outcomes.count(outcome) > 20, outcome


def test_threads_share_a_budget() -> None:
    stage = Stage(Budget(calls=500, tokens=10**9), Budget(calls=10**9, per="tenant"))
    refused: list[BudgetExceeded] = []

    def work(number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - a test's
        with stage.run(tenant=str(number % 3)) as run:
            for _ in range(100):
                try:
                    with run.reserve(request()):
                        if chance.random() < 0.8:
                            use(run, usage=Usage(input_tokens=1))
                except BudgetExceeded as error:
                    refused.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_kind = {status.kind: status for status in stage.budgets.status() if status.scope is None}
    assert by_kind["calls"].spent == 500 == by_kind["tokens"].spent
    assert by_kind["calls"].refused == len(refused)
    assert all(error.spent + error.reserved == 500 for error in refused)
    assert sum(status.spent for status in stage.budgets.status() if status.scope) == 500
    assert not any(status.reserved for status in stage.budgets.status())


# Against a model


class _Entry:
    """A reservation, as the model sees it."""

    def __init__(self, reservation: Reservation, tenant: str, time_ns: int, amount: int) -> None:
        self.reservation = reservation
        self.tenant = tenant
        self.time_ns = time_ns
        self.amount = amount
        self.open = True


class BudgetMachine(RuleBasedStateMachine):
    """One tenant's fixed window and everybody's rolling one, both over tokens, against a plain list of entries."""

    FIXED, ROLLING = 50, 80
    LENGTH = 600 * 10**9
    STEP = LENGTH // 60

    def __init__(self) -> None:
        super().__init__()
        every = timedelta(minutes=10)
        self.stage = Stage(
            Budget(tokens=self.FIXED, per="tenant", every=every, name="fixed"),
            Budget(tokens=self.ROLLING, every=every, window="rolling", name="rolling"),
        )
        self.scopes: dict[str, Scope] = {
            tenant: self.stage.budgets.scope("p", {"tenant": tenant}, tenant, None) for tenant in ("a", "b")
        }
        self.entries: list[_Entry] = []

    @property
    def now(self) -> int:
        return self.stage.clock.time_ns()

    def total(self, counts: Callable[[_Entry], bool]) -> int:
        return sum(entry.amount for entry in self.entries if counts(entry))

    def in_fixed(self, tenant: str) -> int:
        hour = self.now // self.LENGTH
        return self.total(lambda entry: entry.tenant == tenant and entry.time_ns // self.LENGTH == hour)

    @rule(tenant=st.sampled_from("ab"), read=st.integers(0, 60))
    def reserve(self, tenant: str, read: int) -> None:
        fixed = self.in_fixed(tenant) + read
        at_least = self.total(lambda entry: entry.time_ns > self.now - self.LENGTH) + read
        at_most = self.total(lambda entry: entry.time_ns > self.now - self.LENGTH - self.STEP) + read
        try:
            reservation = self.stage.budgets.reserve(
                self.scopes[tenant], request(read, 0), lambda *_: None, may_lower=False
            )
        except BudgetExceeded as error:
            assert fixed > self.FIXED or at_most > self.ROLLING
            assert error.spent + error.reserved + error.asked > error.cap  # noqa: PT017 - either outcome may be right
        else:
            assert fixed <= self.FIXED
            assert at_least <= self.ROLLING
            self.entries.append(_Entry(reservation, tenant, self.now, read))

    def pick(self, data: st.DataObject) -> _Entry:
        return data.draw(st.sampled_from([entry for entry in self.entries if entry.open]))

    @precondition(lambda self: any(entry.open for entry in self.entries))
    @rule(data=st.data(), provenance=st.sampled_from(Provenance))
    def settle(self, data: st.DataObject, provenance: Provenance) -> None:
        entry = self.pick(data)
        used = data.draw(st.integers(0, entry.amount))
        entry.open = False
        self.stage.budgets.take(entry.reservation)
        self.stage.budgets.settle(entry.reservation, ended(provenance, used))
        if provenance is Provenance.REPORTED:
            entry.amount = used

    @precondition(lambda self: any(entry.open for entry in self.entries))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        entry = self.pick(data)
        entry.open = False
        entry.amount = 0
        self.stage.budgets.release(entry.reservation)

    @rule(tenant=st.sampled_from("ab"))
    def finish_the_run(self, tenant: str) -> None:
        self.stage.budgets.finish(self.scopes[tenant])
        for entry in self.entries:
            if entry.tenant == tenant and entry.open:
                entry.open, entry.amount = False, 0

    @rule(seconds=st.integers(1, 700))
    def wait(self, seconds: int) -> None:
        self.stage.clock.advance(seconds)

    @rule(seconds=st.integers(1, 100_000), data=st.data())
    def glimpse(self, seconds: int, data: st.DataObject) -> None:
        """The clock reads ahead for a moment, in which somebody looks, and something may end."""
        self.stage.clock.advance(seconds)
        self.stage.budgets.status()
        self.reserve("a", 0)
        if any(entry.open for entry in self.entries):
            self.settle(data, Provenance.REPORTED)
        self.stage.clock.advance(-seconds)
        for entry in self.entries:
            entry.time_ns = min(entry.time_ns, self.now)

    @invariant()
    def the_fixed_sums_are_the_model_s(self) -> None:
        for status in self.stage.budgets.status():
            if status.scope is not None:
                assert status.spent + status.reserved == self.in_fixed(status.scope)
                assert status.window_end_ns in {None, (self.now // self.LENGTH + 1) * self.LENGTH}
            assert status.spent + status.reserved <= status.cap

    @invariant()
    def no_period_holds_more_than_the_rolling_cap(self) -> None:
        for first in self.entries:
            end = first.time_ns + self.LENGTH
            assert self.total(lambda entry: first.time_ns <= entry.time_ns < end) <= self.ROLLING  # noqa: B023 - called at once

    @invariant()
    def only_what_is_open_is_reserved(self) -> None:
        if not any(entry.open for entry in self.entries):
            assert not any(status.reserved for status in self.stage.budgets.status())


def ended(provenance: Provenance, tokens: int) -> TokenUsage:
    return TokenUsage(
        run_id="1" * 32,
        seq=1,
        time_ns=0,
        call_id=1,
        provider="openai",
        operation="chat",
        model="gpt-6-luna",
        provenance=provenance,
        usage=None if provenance is Provenance.UNKNOWN else Usage(input_tokens=tokens),
        start_ns=0,
        duration_ns=0,
    )


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = settings(examples(150), stateful_step_count=40)
