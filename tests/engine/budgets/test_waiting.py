"""Requests that wait for what is only reserved: in their turn, for nothing that is spent, and never for ever."""

import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import copy_context
from decimal import Decimal
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import TaskGroup
from budget_support import HOUR, FlatPrices, Stage, amounts, price_of, request, use
from campaign_support import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from runmeter.engine import (
    Budget,
    BudgetExceeded,
    ConfigurationError,
    Engine,
    Execution,
    RunTimeout,
    UnboundedRequest,
    Usage,
    current_execution,
)
from runmeter.engine.budgets import reserving
from runmeter.engine.budgets.reservation import Reservation, Scope
from runmeter.engine.budgets.waiting_line import Waiter
from runmeter.engine.concurrency.loop import LoopThread
from runmeter.engine.testing import ManualClock


def patient(**fields: Any) -> Budget:
    return Budget(**{"when_reserved": "wait", **fields})


class Asked:
    """A request in a task of its own: how far it is, and the way to have it end."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.scope = anyio.CancelScope()
        self.admitted = anyio.Event()
        self.end = anyio.Event()
        self.done = anyio.Event()
        self.allowed = 0
        self.refusal: BudgetExceeded | None = None

    async def run(self, run: Execution, tokens: int, used: int | None = None, written: int = 0) -> None:
        asked = request(tokens - written, written)
        with self.scope:
            try:
                async with run.reserve(asked) as allowed:
                    self.log.append(self.name)
                    self.allowed = allowed.max_output_tokens or 0
                    self.admitted.set()
                    with run.model_call(allowed) as call:
                        await self.end.wait()
                        call.record(Usage(input_tokens=tokens if used is None else used))
            except BudgetExceeded as refusal:
                self.refusal = refusal
        self.done.set()


class Scene:
    """A stage with requests that wait on it."""

    def __init__(self, tasks: TaskGroup, *budgets: Budget) -> None:
        self.stage = Stage(*budgets)
        self.tasks = tasks
        self.log: list[str] = []
        self.runs: dict[str, Execution] = {}

    async def ask(
        self, name: str, tokens: int, used: int | None = None, *, written: int = 0, tenant: str = "a"
    ) -> Asked:
        """Ask, and see how far that comes by itself."""
        run = self.runs.setdefault(tenant, self.stage.run(tenant=tenant))
        asked = Asked(name, self.log)
        self.tasks.start_soon(partial(asked.run, run, tokens, used, written))
        await anyio.wait_all_tasks_blocked()
        return asked

    async def end(self, asked: Asked) -> None:
        asked.end.set()
        await asked.done.wait()
        await anyio.wait_all_tasks_blocked()


@asynccontextmanager
async def scene(*budgets: Budget) -> AsyncIterator[Scene]:
    async with anyio.create_task_group() as tasks:
        scene = Scene(tasks, *budgets)
        yield scene
    assert not any(status.reserved or status.waiting for status in scene.stage.budgets.status())


async def test_what_is_only_reserved_is_waited_for() -> None:
    async with scene(patient(tokens=100)) as on:
        first = await on.ask("first", 70, used=20)
        second = await on.ask("second", 60)
        assert not second.admitted.is_set()
        status = on.stage.status()
        assert (int(status.reserved), status.waiting, status.refused) == (70, 1, 0)
        assert str(status).endswith(": 0 tokens of 100 tokens spent, 70 tokens reserved, 0 refused, 1 waiting")
        await on.end(first)
        assert second.admitted.is_set()
        assert on.stage.status().waiting == 0
        await on.end(second)
        assert on.stage.status().spent == 80


async def test_what_is_spent_is_not_waited_for() -> None:
    async with scene(patient(tokens=100)) as on:
        await on.end(first := await on.ask("first", 70))
        second = await on.ask("second", 40)
        assert second.refusal is not None
        assert second.refusal.spent == 70
        assert second.refusal.ways_out == ()
        assert first.refusal is None


async def test_who_waits_is_refused_once_what_was_reserved_is_spent() -> None:
    async with scene(patient(tokens=100)) as on:
        first, second = await on.ask("first", 70, used=65), await on.ask("second", 40)
        third = await on.ask("third", 30)
        assert third.admitted.is_set() is second.admitted.is_set() is False
        await on.end(first)
        assert second.refusal is not None
        assert (second.refusal.spent, second.refusal.reserved) == amounts(65, 0)
        assert third.admitted.is_set()
        third.end.set()


async def test_who_is_behind_is_refused_in_its_turn() -> None:
    async with scene(patient(tokens=100)) as on:
        first, second = await on.ask("first", 40), await on.ask("second", 50)
        behind = [await on.ask(f"behind {number}", 60) for number in range(3)]
        await on.end(first)
        assert not any(each.refusal for each in behind), "there may be room for them yet"
        await on.end(second)
        assert all(each.refusal for each in behind)


async def test_first_come_first_served() -> None:
    async with scene(patient(tokens=100)) as on:
        first = await on.ask("first", 90, used=0)
        large = await on.ask("large", 80, used=0)
        small = [await on.ask(f"small {number}", 10, used=0) for number in range(3)]
        assert on.log == ["first"], "there is room for the small ones: they would keep the large one waiting for ever"
        await on.end(first)
        assert set(on.log) == {"first", "large", "small 0", "small 1"}, "trio shuffles tasks that go on at once"
        await on.end(large)
        assert on.log[-1] == "small 2"
        for each in small:
            await on.end(each)


async def test_who_waits_holds_up_others_only_where_it_lacks_room() -> None:
    budgets = patient(tokens=50, per="tenant", name="tenant's"), patient(tokens=1_000, name="all")
    async with scene(*budgets) as on:
        first, second = await on.ask("a", 40), await on.ask("a again", 40)
        other = await on.ask("b", 40, tenant="b")
        assert on.log == ["a", "b"]
        waiting = {(status.budget, status.scope): status.waiting for status in on.stage.budgets.status()}
        assert waiting == {("tenant's", "a"): 1, ("tenant's", "b"): 0, ("all", None): 0}
        for each in (first, second, other):
            each.end.set()


async def test_who_lacked_room_in_two_holds_up_nobody_where_it_lacks_it_no_more() -> None:
    budgets = patient(tokens=50, per="tenant", name="tenant's"), patient(tokens=100, name="all")
    async with scene(*budgets) as on:
        own, others = await on.ask("own", 40, used=0), await on.ask("others", 50, used=0, tenant="b")
        ahead = await on.ask("ahead", 45, used=0)  # no room in either
        behind = await on.ask("behind", 45, used=0)
        await on.end(others)
        passing = await on.ask("passing", 50, used=0, tenant="c")
        assert on.log == ["own", "others", "passing"]
        await on.end(own)
        assert on.log[-1] == "ahead"
        for each in (ahead, behind, passing):
            each.end.set()


async def test_who_is_cancelled_while_it_waits_leaves_the_line() -> None:
    async with scene(patient(tokens=100)) as on:
        first = await on.ask("first", 60, used=0)
        second, third = await on.ask("second", 100, used=0), await on.ask("third", 40, used=0)
        second.scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert on.log == ["first", "third"]
        for each in (first, third):
            each.end.set()


async def test_who_is_cancelled_as_it_is_admitted_gives_its_room_to_the_next() -> None:
    async with scene(patient(tokens=100)) as on:
        first = on.stage.run().reserve(request(100, 0))
        copy_context().run(first.__enter__)
        second, third = await on.ask("second", 100, used=0), await on.ask("third", 100, used=0)
        first.__exit__(None, None, None)
        assert on.stage.status().reserved == 100, "its room is the second's, which does not know of it yet"
        second.scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert third.admitted.is_set()
        third.end.set()


async def test_the_end_of_a_window_makes_room() -> None:
    async with scene(patient(tokens=100, every="hour")) as on:
        on.stage.clock.advance((HOUR - on.stage.clock.time_ns() % HOUR) / 1e9 - 0.002)
        first, second = await on.ask("first", 60), await on.ask("second", 60)
        assert on.log == ["first"]
        on.stage.clock.advance(1)
        await second.admitted.wait()
        for each in (first, second):
            each.end.set()


@pytest.mark.parametrize("way", ["reserve", "model_call"])
def test_code_that_cannot_wait_is_refused_and_told_what_would_help(way: str) -> None:
    stage = Stage(patient(tokens=100))
    with stage.run() as run, run.reserve(request(60, 0)):
        block = getattr(stage.run(), way)(request(50, 0))
        with pytest.raises(BudgetExceeded, match="60 tokens reserved leave no room"):
            block.__enter__()


@pytest.mark.parametrize("way", ["reserve", "model_call"])
async def test_a_request_inside_another_does_not_wait_for_it(way: str) -> None:
    """It might be what it waits for, and would never end."""
    stage = Stage(patient(tokens=100))
    with stage.run() as run, getattr(run, way)(request(60, 0)):
        with pytest.raises(BudgetExceeded), stage.run() as other:
            async with other.reserve(request(50, 0)):
                pass
        async with run.reserve(request(40, 0)):
            assert stage.status().reserved == 100
    with stage.run() as run:
        async with run.reserve(request(40, 0)):
            assert stage.status().reserved == 40
            async with run.reserve(request(0, 0)):
                pass


async def test_after_a_request_has_ended_the_next_may_wait_again() -> None:
    async with scene(patient(tokens=100)) as on:
        first = await on.ask("first", 60, used=0)
        with on.stage.run() as run:

            async def ask_twice() -> None:
                async with run.reserve(request(10, 0)) as allowed:
                    use(run, allowed, Usage())
                    async with run.reserve(request(60, 0)):  # the one around it has ended, though its block has not
                        on.log.append("again")

            on.tasks.start_soon(ask_twice)
            await anyio.wait_all_tasks_blocked()
            assert on.log == ["first"]
            await on.end(first)
            assert on.log == ["first", "again"]


async def test_an_answer_is_made_shorter_for_what_is_spent_and_not_for_what_is_reserved() -> None:
    async with scene(patient(tokens=100, when_exceeded="lower")) as on:
        first = await on.ask("first", 70, used=20)
        second = await on.ask("second", 90, used=0, written=80)
        assert not second.admitted.is_set()
        await on.end(first)
        assert second.allowed == 70
        await on.end(second)


async def test_a_budget_that_does_not_wait_refuses_though_another_would() -> None:
    async with scene(patient(tokens=100), Budget(calls=1)) as on:
        first, second = await on.ask("first", 60), await on.ask("second", 60)
        assert second.refusal is not None
        assert second.refusal.kind == "calls"
        await on.end(first)


async def test_a_request_of_which_nobody_knows_the_most_is_refused_at_once() -> None:
    with Stage(patient(tokens=100)).run() as run, pytest.raises(UnboundedRequest):
        async with run.reserve(request(written=None)):
            pass


def test_what_is_no_way_to_wait_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"expected one of \('refuse', 'wait'\), not 'queue'"):
        Budget(calls=1, when_reserved="queue")  # type: ignore[arg-type] # what it is about


async def test_a_price_that_cannot_be_computed_is_its_own_requests_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = patient(usd="0.0001", when_exceeded="lower")
    async with scene(budget) as on:
        first = await on.ask("first", 100, used=100)
        failing, later = on.stage.run(), on.stage.run()
        raised: list[Exception] = []

        async def fail() -> None:
            try:
                async with failing.reserve(request(10, 45, model="odd")):
                    pass
            except LookupError as error:
                raised.append(error)

        on.tasks.start_soon(fail)
        await anyio.wait_all_tasks_blocked()
        asked = Asked("later", on.log)
        on.tasks.start_soon(partial(asked.run, later, 0))

        def upper_bound(_: object, model: str, *rest: Any) -> Decimal:
            if model == "odd":
                raise LookupError("no price")
            return price_of(rest[1])

        monkeypatch.setattr(on.stage.prices, "upper_bound", upper_bound)
        await anyio.wait_all_tasks_blocked()
        await on.end(first)  # which leaves no room for the one, so that a shorter answer is priced
        assert [str(error) for error in raised] == ["no price"]
        assert asked.admitted.is_set()
        asked.end.set()


async def test_a_request_that_ends_in_a_thread_lets_the_next_in() -> None:
    async with scene(patient(tokens=100)) as on:
        run = on.stage.run()
        reserved = run.reserve(request(100, 0))
        await anyio.to_thread.run_sync(reserved.__enter__)
        waiting = await on.ask("waiting", 100)
        thread = threading.Thread(target=reserved.__exit__, args=(None, None, None))
        thread.start()
        await waiting.admitted.wait()
        thread.join()
        await on.end(waiting)


async def test_requests_of_two_event_loops_wait_for_each_other(anyio_backend_name: str) -> None:
    stage = Stage(patient(tokens=100))
    order: list[str] = []

    async def elsewhere() -> None:
        with stage.run() as run:
            async with run.reserve(request(60, 0)):
                order.append("elsewhere")
            started.set()
            async with run.reserve(request(70, 0)):
                order.append("elsewhere again")

    started = threading.Event()
    with stage.run() as run:
        async with run.reserve(request(10, 0)), anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, partial(anyio.run, elsewhere, backend=anyio_backend_name))
            await anyio.to_thread.run_sync(started.wait)
        async with run.reserve(request(60, 0)):
            order.append("here")
    assert order == ["elsewhere", "elsewhere again", "here"]


async def test_a_run_s_time_goes_on_while_it_waits() -> None:
    async def ask(messages: Any, context: Any) -> None:
        async with current_execution().reserve(request()):
            await anyio.sleep_forever()

    async with Engine(prices=FlatPrices(), budgets=[patient(calls=1)]) as engine:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.run, ask, "")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RunTimeout):
                await engine.run(ask, "", timeout=0.001)
            tasks.cancel_scope.cancel()
        [status] = engine.budgets()
        assert status.waiting == 0 == status.reserved


async def test_a_loop_that_is_gone_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waited in it is not there any more to give its room back."""

    class Gone(LoopThread):
        def run(self, function: Callable[[], object]) -> None:
            raise RuntimeError("the loop has closed")

    async with scene(patient(tokens=100)) as on:
        first = await on.ask("first", 60, used=0)
        monkeypatch.setattr(reserving, "LoopThread", Gone)
        second = await on.ask("second", 60)
        await on.end(first)
        assert on.stage.status().reserved == 0
        second.scope.cancel()


# Under stress


class Crowd:
    """Tasks that ask in their turn, and fail, are cancelled and time out at random."""

    CAP = Decimal("0.02")

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - a test's
        self.clock = ManualClock()
        self.outcomes: list[str] = []

    def happens(self, probability: float) -> bool:
        return self.chance.random() < probability

    async def dawdle(self, most: int = 3) -> None:
        for _ in range(self.chance.randint(0, most)):
            await anyio.lowlevel.checkpoint()

    async def ask(self, messages: Any, context: Any) -> None:
        execution = current_execution()
        asked = request(self.chance.randint(0, 500), self.chance.randint(0, 250))
        assert asked.bound is not None
        async with execution.reserve(asked) as allowed:
            await self.dawdle()
            if self.happens(0.1):
                return  # it changed its mind
            with execution.model_call(allowed) as call:
                await self.dawdle()
                if self.happens(0.1):
                    raise LookupError("no answer")
                call.record(Usage(input_tokens=self.chance.randint(0, asked.bound.input_tokens) // 20))

    async def task(self, engine: Engine, tasks: TaskGroup) -> None:
        await self.dawdle(5)
        if self.happens(0.01):
            self.clock.advance(900)
        with anyio.CancelScope() as scope:
            if self.happens(0.2):
                tasks.start_soon(self.cancel, scope)
            try:
                await engine.run(self.ask, "", timeout=1e-9 if self.happens(0.1) else None)
                self.outcomes.append("ok")
            except BudgetExceeded as error:
                self.outcomes.append("refused")
                assert error.spent + error.asked > error.cap, "refused for what is only reserved"  # noqa: PT017 - one of many ends
            except (LookupError, RunTimeout) as error:
                self.outcomes.append(type(error).__name__)
        if scope.cancelled_caught:
            self.outcomes.append("cancelled")
        for status in engine.budgets():
            assert status.spent + status.reserved <= status.cap

    async def cancel(self, scope: anyio.CancelScope) -> None:
        await self.dawdle(8)
        scope.cancel()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.campaign) for seed in range(1, 6))])
async def test_a_thousand_tasks_in_line(seed: int) -> None:
    """That it ends shows that none of them waits for ever."""
    crowd = Crowd(seed)
    budget = patient(usd=crowd.CAP, every="hour")
    async with Engine(prices=FlatPrices(), budgets=[budget], clock=crowd.clock) as engine:
        async with anyio.create_task_group() as tasks:
            for _ in range(1_000):
                tasks.start_soon(crowd.task, engine, tasks)
        assert not any(status.reserved or status.waiting for status in engine.budgets())
    assert len(crowd.outcomes) == 1_000
    for outcome in ("ok", "LookupError", "RunTimeout", "refused", "cancelled"):
        assert crowd.outcomes.count(outcome) > 10, outcome


# Against a model


class _Entry:
    """A request, as the model sees it."""

    def __init__(self, waiter: Waiter, tenant: str, amount: int) -> None:
        self.waiter = waiter
        self.tenant = tenant
        self.amount = amount
        self.spent = 0
        self.counted = False
        """Whether the model has seen that it was admitted."""
        self.over = False

    @property
    def reservation(self) -> Reservation:
        assert isinstance(self.waiter.outcome, Reservation)
        return self.waiter.outcome

    @property
    def waits(self) -> bool:
        return self.waiter.outcome is None and not self.over

    @property
    def holds(self) -> bool:
        return isinstance(self.waiter.outcome, Reservation) and not self.over


class LineMachine(RuleBasedStateMachine):
    """Tenants' budgets and everybody's, in both of which one waits, against plain sums."""

    OWN, ALL = 50, 80

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(patient(tokens=self.OWN, per="tenant"), patient(tokens=self.ALL))
        self.scopes: dict[str, Scope] = {
            tenant: self.stage.budgets.scope("p", {"tenant": tenant}, tenant, None) for tenant in "abc"
        }
        self.entries: list[_Entry] = []
        self.woken: list[int] = []

    def sums(self, which: Callable[[_Entry], bool]) -> tuple[int, int]:
        """What is spent and what is reserved."""
        entries = [each for each in self.entries if which(each)]
        return sum(each.spent for each in entries), sum(each.amount for each in entries if each.holds)

    def accounts(self, tenant: str) -> dict[str, tuple[int, int, int]]:
        """Cap, spent and reserved of each account of a tenant's."""
        return {
            tenant: (self.OWN, *self.sums(lambda each: each.tenant == tenant)),
            "all": (self.ALL, *self.sums(lambda _: True)),
        }

    @rule(tenant=st.sampled_from("abc"), read=st.integers(0, 60))
    def join(self, tenant: str, read: int) -> None:
        number = len(self.entries)
        wake = partial(self.woken.append, number)
        waiter = self.stage.budgets.line_up(
            self.scopes[tenant], request(read, 0), lambda *_: None, wake, may_lower=False
        )
        self.entries.append(_Entry(waiter, tenant, read))

    def pick(self, data: st.DataObject, which: Callable[[_Entry], bool]) -> _Entry:
        return data.draw(st.sampled_from([each for each in self.entries if which(each)]))

    @precondition(lambda self: any(each.holds for each in self.entries))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        entry = self.pick(data, lambda each: each.holds)
        used = data.draw(st.integers(0, entry.amount))
        entry.spent, entry.over = used, True
        self.stage.budgets.take(entry.reservation)
        self.stage.budgets._put(entry.reservation, amounts(used, used), known=True)

    @precondition(lambda self: any(each.holds for each in self.entries))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        entry = self.pick(data, lambda each: each.holds)
        entry.over = True
        self.stage.budgets.release(entry.reservation)

    @precondition(lambda self: any(not each.over for each in self.entries))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """It is cancelled: while it waits, or as it is admitted."""
        entry = self.pick(data, lambda each: not each.over)
        entry.over = True
        self.stage.budgets.leave(entry.waiter)

    @invariant()
    def no_cap_is_passed(self) -> None:
        for tenant in "abc":
            for cap, spent, reserved in self.accounts(tenant).values():
                assert spent + reserved <= cap
        for status in self.stage.budgets.status():
            cap, spent, reserved = self.accounts(status.scope or "a")[status.scope or "all"]
            assert (status.spent, status.reserved) == amounts(spent, reserved)

    @invariant()
    def who_waits_lacks_room_and_only_room_that_is_reserved(self) -> None:
        taken: set[str] = set()
        for entry in self.entries:
            if entry.waits:
                accounts = self.accounts(entry.tenant)
                lacking = {name for name, (cap, *held) in accounts.items() if sum(held) + entry.amount > cap}
                short = lacking | (taken & accounts.keys())
                assert short, "there is room for it, and nobody is before it"
                awaited = [
                    spent for name, (cap, spent, _) in accounts.items() if name in short and spent + entry.amount <= cap
                ]
                assert awaited or short & taken, "nothing can help it, and it is its turn"
                taken |= short

    @invariant()
    def who_was_refused_could_never_have_had_room(self) -> None:
        for entry in self.entries:
            if isinstance(entry.waiter.outcome, BudgetExceeded):
                error = entry.waiter.outcome
                assert error.spent + error.asked > error.cap

    @invariant()
    def each_is_woken_once(self) -> None:
        ended = [number for number, each in enumerate(self.entries) if each.waiter.outcome is not None]
        assert sorted(self.woken) == ended

    def teardown(self) -> None:
        while holding := [each for each in self.entries if each.holds]:
            holding[0].over = True
            self.stage.budgets.release(holding[0].reservation)
        assert not any(each.waits for each in self.entries), "once all is released, nobody waits"
        assert not any(status.reserved or status.waiting for status in self.stage.budgets.status())


TestLineMachine = LineMachine.TestCase
TestLineMachine.settings = settings(examples(50), stateful_step_count=30)


@pytest.mark.campaign
def test_the_line_holds_for_long() -> None:
    run_state_machine_as_test(LineMachine, settings=settings(max_examples=1_000, stateful_step_count=50, deadline=None))
