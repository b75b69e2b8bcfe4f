"""Budgets begin with what the ledger says was spent in the windows that are open: to the digit what the engine said."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from budget_support import FlatPrices, request
from hypothesis import given, settings
from hypothesis import strategies as st

from runmeter.engine import (
    Budget,
    BudgetExceeded,
    BudgetStatus,
    CostEstimate,
    Engine,
    Provenance,
    RunInfo,
    SQLiteLedger,
    TokenUsage,
    Usage,
    current_execution,
)
from runmeter.engine.ledger.ledger_file import LedgerFile
from runmeter.engine.testing import ManualClock

BUDGETS = (
    Budget(usd="1", tokens=10**6, calls=500, every="day", name="day"),
    Budget(usd="1", every="hour", window="rolling", per="tenant", name="hour"),
    Budget(tokens=10**6, every=timedelta(minutes=7), pattern="outer", name="outer"),
    Budget(calls=500, every="minute", tags={"tenant": "acme"}, name="acme"),
    Budget(usd="1", every="month", per="team", pattern="inner", name="inner"),
    Budget(usd="1", calls=500, per="run", name="run"),
    Budget(usd="1", name="as long as the engine"),
)
Spent = Mapping[tuple[str, str | None, str], tuple[Decimal, int | None]]


class Step(msgspec.Struct, frozen=True):
    """A run with one within it, each with a request."""

    wait: float
    """Seconds before it."""
    between: float
    """Seconds between the reservation and the request."""
    tags: Mapping[str, str]
    inner_tags: Mapping[str, str]
    answered_by: str | None
    usage: Usage | None
    provenance: Provenance


steps = st.builds(
    Step,
    wait=st.sampled_from([0, 1, 59, 600, 3_000, 80_000]),
    between=st.sampled_from([0, 0, 61, 4_000]),
    tags=st.dictionaries(st.sampled_from(["tenant", "team"]), st.sampled_from(["acme", "umbrella", ""])),
    inner_tags=st.dictionaries(st.just("tenant"), st.sampled_from(["acme", "umbrella"])),
    answered_by=st.sampled_from([None, None, "house-model"]),
    usage=st.none()
    | st.builds(Usage, input_tokens=st.integers(0, 100), output_tokens=st.integers(0, 50))
    | st.builds(Usage, input_tokens=st.integers(0, 10), cache_read_tokens=st.integers(11, 20)),
    provenance=st.sampled_from([Provenance.REPORTED, Provenance.PARTIAL, Provenance.ESTIMATED]),
)


def open_spending(status: Sequence[BudgetStatus], *, lasting: bool = True) -> Spent:
    """What was spent that still counts, and until when: of those that outlive their engine."""
    return {
        (each.budget, each.scope, each.kind): (each.spent + each.reserved, each.window_end_ns)
        for each in status
        if (each.spent or each.reserved) and not (lasting and each.budget in ("run", "as long as the engine"))
    }


class Prices(FlatPrices):
    """Flat ones, and none for a request that another model answered."""

    def cost(self, event: TokenUsage) -> CostEstimate:
        return super().cost(event) if event.response_model is None else CostEstimate(high_units=None, unpriced=1)


def engine_on(path: Path, clock: ManualClock, budgets: Sequence[Budget] = BUDGETS, **promise: Any) -> Engine:
    return Engine(prices=Prices(), budgets=budgets, ledger=SQLiteLedger(path, **promise), clock=clock)


async def ask(step: Step, clock: ManualClock) -> None:
    execution = current_execution()
    async with execution.reserve(request()) as asked:
        clock.advance(step.between)
        with execution.model_call(asked) as call:
            if step.usage is not None:
                call.record(step.usage, step.provenance, response_model=step.answered_by)


class Outer:
    """A run with one within it, that makes a request each."""

    name = "outer"

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    async def execute(self, messages: Any, context: Any = None) -> None:
        await ask(messages, self._clock)
        with current_execution().child(RunInfo("inner", tags=messages.inner_tags)):
            await ask(messages, self._clock)


@settings(max_examples=15)
@given(days=st.lists(st.lists(steps, max_size=4), min_size=2, max_size=4))
def test_an_engine_goes_on_where_the_last_one_ended(
    days: list[list[Step]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, clock = tmp_path_factory.mktemp("ledger") / "runs.db", ManualClock()

    async def live(work: Sequence[Step], expected: Spent) -> Spent:
        async with engine_on(path, clock) as engine:
            assert open_spending(engine.budgets()) == expected
            for step in work:
                clock.advance(step.wait)
                await engine.run(Outer(clock), step, tags=step.tags)
            return open_spending(engine.budgets())

    spent: Spent = {}
    for work in days:
        spent = anyio.run(live, work, spent)
    assert anyio.run(live, (), spent) == spent


async def test_a_cap_that_is_used_up_stays_so_over_a_restart(tmp_path: Path) -> None:
    path, clock = tmp_path / "runs.db", ManualClock()
    budgets = [Budget(calls=2, every="day", warn_at=0.5)]

    async def once(messages: Any, context: Any) -> None:
        with current_execution().model_call(request()) as call:
            call.record(Usage(input_tokens=1))

    for expected_notices in (1, 0):
        async with engine_on(path, clock, budgets) as engine:
            await engine.run(once, "hi")
            assert engine.usage().total.notices == expected_notices  # the same window is told of once
    async with engine_on(path, clock, budgets) as engine:
        with pytest.raises(BudgetExceeded, match="2 calls: 2 calls spent"):
            await engine.run(once, "hi")
        clock.advance(24 * 3_600)
        await engine.run(once, "hi")
    raised = [Budget(calls=3, every="day", warn_at=None)]  # and is still the same budget
    async with engine_on(path, clock, raised) as engine:
        assert [each.spent for each in engine.budgets()] == [1]


async def test_requests_of_a_process_that_has_gone_count_in_full(tmp_path: Path) -> None:
    path, left, clock = tmp_path / "runs.db", tmp_path / "left.db", ManualClock()

    async def die(messages: Any, context: Any) -> None:
        execution = current_execution()
        with execution.model_call(request()) as call:
            call.record(Usage(input_tokens=1))
        async with execution.model_call(request(read=10, written=20)):
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(left)) as copy:
                source.backup(copy)  # as a kill would leave it
            spent.update(open_spending(engine.budgets()))

    spent: dict[Any, Any] = {}
    async with engine_on(path, clock, commit="request") as engine:
        await engine.run(die, "hi", tags={"tenant": "acme"})
    lasting = {key: value for key, value in spent.items() if key[0] not in ("run", "as long as the engine")}
    async with engine_on(left, clock) as engine:
        restored = {(each.budget, each.scope, each.kind): each.spent for each in engine.budgets() if each.spent}
        assert restored == {key: amount for key, (amount, _) in lasting.items()}
        assert restored["day", None, "tokens"] == 1 + 30


async def test_a_new_budget_is_folded_from_what_is_kept(tmp_path: Path) -> None:
    path, clock = tmp_path / "runs.db", ManualClock()

    async def once(messages: Any, context: Any) -> None:
        with current_execution().model_call(request()) as call:
            call.record(Usage(input_tokens=7))

    async with engine_on(path, clock, [Budget(calls=9, every="day")]) as engine:
        await engine.run(once, "hi", tags={"tenant": "acme"})
        clock.advance(7_200)
        await engine.run(once, "hi", tags={"tenant": "acme"})
        await engine.run(once, "hi", tags={"tenant": "umbrella"})
    added = [Budget(tokens=99, every="hour", per="tenant"), Budget(calls=9, every="day")]
    for _ in range(2):
        async with engine_on(path, clock, added) as engine:
            found = [(each.scope, each.kind, each.spent) for each in engine.budgets()]
            assert sorted(found, key=str) == [
                ("acme", "tokens", Decimal(7)),
                ("umbrella", "tokens", Decimal(7)),
                (None, "calls", Decimal(3)),
            ]


async def test_a_rolling_window_lets_go_of_what_was_restored(tmp_path: Path) -> None:
    path, clock = tmp_path / "runs.db", ManualClock()
    budgets = [Budget(calls=2, every="hour", window="rolling")]

    async def once(messages: Any, context: Any) -> None:
        with current_execution().model_call(request()) as call:
            call.record(Usage(input_tokens=7))

    async with engine_on(path, clock, budgets) as engine:
        await engine.run(once, "hi")
        clock.advance(1_800)
        await engine.run(once, "hi")
    async with engine_on(path, clock, budgets) as engine:
        assert [each.spent for each in engine.budgets()] == [2]
        clock.advance(1_900)
        assert [each.spent for each in engine.budgets()] == [1]
        await engine.run(once, "hi")
        with pytest.raises(BudgetExceeded):
            await engine.run(once, "hi")


def test_sums_that_count_no_more_do_not_pile_up(tmp_path: Path) -> None:
    path, clock = tmp_path / "runs.db", ManualClock()

    async def day() -> None:
        async def once(messages: Any, context: Any) -> None:
            with current_execution().model_call(request()) as call:
                call.record(Usage(input_tokens=7))

        async with engine_on(path, clock, [Budget(calls=2, every="minute")]) as engine:
            await engine.run(once, "hi")

    for _ in range(5):
        anyio.run(day)
        clock.advance(2 * 24 * 3_600)
    store = LedgerFile(path, clock)
    assert store.connection.execute("SELECT count(*) FROM budget_spending").fetchone()[0] <= 2
    store.close()
