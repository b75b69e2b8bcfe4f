"""Budgets that several processes share: the cap holds for all together, and is there for whoever needs it."""

import pickle
from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from budget_support import request
from fleet_support import Fleet, Member, settle
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from runmeter.engine import Budget, BudgetUnavailable, ConfigurationError, Engine, Usage
from runmeter.engine.budgets import leases
from runmeter.engine.budgets.accounts import SWEEP_AT
from runmeter.engine.budgets.leases import LEASE_NS
from runmeter.engine.budgets.reservation import Reservation

SECOND = 10**9


class FleetMachine(RuleBasedStateMachine):
    """Processes that reserve, settle, stop, die and begin, while time goes on."""

    window: Budget
    cap = 100
    directory: Path
    numbers = count()

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(self.directory / f"{next(self.numbers)}.db", self.window, size=2)
        self.open: list[tuple[Member, Reservation, int]] = []
        self.was_silent = False
        self.past: list[tuple[int, int]] = []
        """What was spent, or may have been: the time at which it was reserved, and how much."""

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.fleet.members if not member.is_stopped]

    def counted(self) -> int:
        """What counts now, of all processes."""
        now = self.fleet.clock.time_ns()
        slots = self.window.slots()
        amounts = [(reservation.made_ns, tokens) for _, reservation, tokens in self.open] + self.past
        return sum(tokens for at_ns, tokens in amounts if slots(at_ns)[1] > now)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), tokens=st.integers(1, 60))
    def reserve(self, data: st.DataObject, tokens: int) -> None:
        member = data.draw(st.sampled_from(self.alive))
        reservation = self.fleet.reserve(member, request(read=tokens, written=0))
        if isinstance(reservation, Reservation):
            self.open.append((member, reservation, tokens))
            return
        # What is refused has no room: of what is spent, reserved, or may have been spent by those that are silent.
        assert reservation.spent + reservation.reserved + tokens > self.cap
        assert self.was_silent or self.counted() + tokens > self.cap

    @precondition(lambda self: self.open)
    @rule(data=st.data(), part=st.sampled_from([0, 0.5, 1]))
    def settle(self, data: st.DataObject, part: float) -> None:
        number = data.draw(st.integers(0, len(self.open) - 1))
        member, reservation, tokens = self.open.pop(number)
        if member.is_stopped:
            self.past.append((reservation.made_ns, tokens))
        else:
            used = int(tokens * part)
            self.past.append((reservation.made_ns, used))
            settle(member, reservation, Usage(input_tokens=used))

    @rule(seconds=st.sampled_from([0.1, 1, 4, 6, 35, 61]))
    def wait(self, seconds: float) -> None:
        while seconds > 0:
            self.fleet.clock.advance(min(seconds, 2))
            self.fleet.tend()
            seconds -= 2

    @rule(seconds=st.sampled_from([3, 6, 61]))
    def stall(self, seconds: float) -> None:
        """Have time go on while no process does anything."""
        self.fleet.clock.advance(seconds)
        self.was_silent = True

    @rule()
    def tend(self) -> None:
        self.fleet.tend()

    @precondition(lambda self: len(self.alive) > 1)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.alive)).die()
        self.was_silent = True

    @precondition(lambda self: len(self.alive) > 1)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.alive))
        for each in [each for each in self.open if each[0] is member]:
            self.open.remove(each)
            settle(member, each[1], Usage(input_tokens=each[2]))
            self.past.append((each[1].made_ns, each[2]))
        member.leave()
        self.fleet.members.remove(member)

    @precondition(lambda self: len(self.fleet.members) < 5)
    @rule()
    def begin(self) -> None:
        self.fleet.add()

    @invariant()
    def never_over_the_cap(self) -> None:
        assert self.counted() <= self.cap

    def teardown(self) -> None:
        self.fleet.close()


WINDOWS = {
    "minute": Budget(tokens=100, every="minute", shared=True),
    "seven seconds": Budget(tokens=100, every=timedelta(seconds=7), shared=True),
    "rolling": Budget(tokens=100, every="minute", window="rolling", shared=True),
    "none": Budget(tokens=100, shared=True),
}


@pytest.mark.parametrize("window", WINDOWS)
def test_a_fleet_never_passes_a_cap(window: str, tmp_path: Path) -> None:
    machine = type("Machine", (FleetMachine,), {"window": WINDOWS[window], "directory": tmp_path})
    run_state_machine_as_test(machine, settings=settings(max_examples=8, stateful_step_count=30, deadline=None))


@pytest.mark.campaign
@pytest.mark.parametrize("window", WINDOWS)
def test_a_fleet_never_passes_a_cap_in_many_ways(window: str, tmp_path: Path) -> None:
    machine = type("Machine", (FleetMachine,), {"window": WINDOWS[window], "directory": tmp_path})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=50, deadline=None))


def members(fleet: Fleet) -> tuple[Member, Member]:
    one, other = fleet.members
    return one, other


def test_room_that_another_has_leased_and_does_not_use_is_given_back(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "runs.db", Budget(calls=10, every="day", shared=True))
    one, other = members(fleet)
    settle(one, fleet.reserve(one), Usage())
    [status] = other.budgets.status()
    assert status.available == 10  # it has asked for nothing yet
    for _ in range(9):
        settle(other, fleet.reserve(other), Usage())
    assert fleet.is_refused(other)
    assert fleet.is_refused(one)
    fleet.close()


def test_a_process_that_has_gone_may_have_spent_what_it_leased(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "runs.db", Budget(calls=10, every="day", shared=True))
    one, other = members(fleet)
    fleet.reserve(one)
    leased = 10 - sum(1 for _ in range(10) if not fleet.is_refused(other))
    assert leased == 1  # what one had leased beyond was given back
    fleet.clock.advance(24 * 3_600)
    fleet.reserve(one)
    one.die()
    left = 0
    before = fleet.clock.time_ns()
    while not fleet.is_refused(other):
        left += 1
    assert fleet.clock.time_ns() - before <= LEASE_NS + SECOND  # and is waited for no longer
    assert 5 <= left <= 9
    fleet.clock.advance(24 * 3_600)
    assert not fleet.is_refused(other)
    fleet.close()


def test_one_that_was_silent_comes_back(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "runs.db", Budget(tokens=1_000, every="day", shared=True))
    one, other = members(fleet)
    reservation = fleet.reserve(one, request(read=900, written=0))
    one.is_stopped = True
    assert fleet.is_refused(other, request(read=500, written=0))
    one.is_stopped = False
    settle(one, reservation, Usage(input_tokens=100))
    one.tend()
    fleet.clock.advance(1)  # so long what was told of others is believed
    assert not fleet.is_refused(other, request(read=500, written=0))
    fleet.close()


def test_leases_that_are_not_used_are_given_back_in_time(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "runs.db", Budget(calls=100, every="day", shared=True))
    one, _ = members(fleet)
    settle(one, fleet.reserve(one), Usage())
    assert one.store.connection.execute("SELECT count(*) FROM leases").fetchone()[0] == 1
    for _ in range(6):
        fleet.clock.advance(1)
        fleet.tend()
    assert one.store.connection.execute("SELECT count(*) FROM leases").fetchone()[0] == 0
    assert one.leases.tend() is None  # and nothing is left to do
    assert [each.spent for each in one.budgets.status()] == [1]
    fleet.close()


def test_most_requests_need_no_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(tmp_path / "runs.db", Budget(calls=10_000, every="day", shared=True), size=1)
    [one] = fleet.members
    exchanges: list[int] = []
    exchange = one.table.exchange

    def counted(reports: Any, now_ns: int) -> Any:
        exchanges.append(now_ns)
        return exchange(reports, now_ns)

    monkeypatch.setattr(one.table, "exchange", counted)
    for _ in range(2_000):
        settle(one, fleet.reserve(one), Usage())
        one.tend()
    assert len(exchanges) < 50
    fleet.close()


def test_each_tag_s_value_is_leased_by_itself(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "runs.db", Budget(calls=2, every="day", per="tenant", shared=True))
    one, other = members(fleet)
    for member in (one, other):
        settle(member, fleet.reserve(member, tenant="acme"), Usage())
        settle(member, fleet.reserve(member), Usage())
    assert fleet.is_refused(one, tenant="acme")
    assert fleet.is_refused(other)
    assert not fleet.is_refused(one, tenant="umbrella")
    fleet.close()


def test_a_value_that_waits_for_its_lease_keeps_its_account_however_many_come(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "runs.db", Budget(calls=2, every="day", per="tenant", shared=True), size=1)
    [one] = fleet.members
    asks = []
    for number in (*range(2 * SWEEP_AT), 0):  # idle ones are looked for meanwhile
        scope = one.budgets.scope("support", {"tenant": str(number)}, "1" * 32, None)
        found = one.budgets.attempt(scope, request(), lambda _, __: None, set(), may_lower=False)
        assert not isinstance(found, Reservation)
        one.leases.ask(ask := leases.Ask(found, lambda: None))
        asks.append(ask)
    one.tend()
    assert all(not ask.open and not ask.outcome() for ask in asks)
    assert asks[-1].amounts.keys() == asks[0].amounts.keys()
    fleet.close()


def test_amounts_are_exact_whatever_others_do(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "runs.db", Budget(usd="0.0006", every="day", shared=True))
    one, other = members(fleet)
    for member in (one, other, one):
        settle(member, fleet.reserve(member), Usage(input_tokens=100, output_tokens=50))  # 200 micro-dollars
    assert fleet.is_refused(one)
    assert fleet.is_refused(other)
    fleet.tend()
    assert [each.spent for each in other.budgets.status()] == [Decimal("0.0006")]
    fleet.close()


def test_what_cannot_be_shared_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r'ledger="runs\.db"'):
        Engine(budgets=[Budget(calls=1, shared=True)])
    with pytest.raises(ConfigurationError, match='per="run"'):
        Budget(calls=1, per="run", shared=True)
    with pytest.raises(ConfigurationError, match="True or False"):
        Budget(calls=1, shared="yes")  # type: ignore[arg-type]
    alike = [Budget(calls=1, every="day", shared=True), Budget(usd="1", every="day", shared=True)]
    with pytest.raises(ConfigurationError, match="give them names"):
        Engine(budgets=alike, ledger=tmp_path / "runs.db")
    engine = Engine(budgets=alike[:1], ledger=tmp_path / "runs.db")
    assert engine.budgets()[0].cap == 1


def test_a_ledger_that_fails_lets_no_request_pass(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "runs.db", Budget(calls=10, every="day", shared=True), size=1)
    [one] = fleet.members
    fleet.path.rename(tmp_path / "moved.db")
    failed = fleet.reserve(one)
    assert isinstance(failed, BudgetUnavailable)
    assert "was moved" in str(failed)
    assert pickle.loads(pickle.dumps(failed)).reason == failed.reason  # noqa: S301 - our own
    (tmp_path / "moved.db").rename(fleet.path)
    assert not fleet.is_refused(one)
    fleet.close()
    assert isinstance(fleet.reserve(one), BudgetUnavailable)


def test_a_store_that_raises_what_it_should_not_refuses_and_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet(tmp_path / "runs.db", Budget(calls=10, every="day", shared=True), size=1)
    [one] = fleet.members

    def fail(reports: Any, now_ns: int) -> Any:
        raise ValueError("no such thing")

    with monkeypatch.context() as patched:
        patched.setattr(one.table, "exchange", fail)
        failed = fleet.reserve(one)
    assert isinstance(failed, BudgetUnavailable)
    assert "ValueError" in str(failed)
    assert "leases failed" in caplog.text
    assert not fleet.is_refused(one)
    fleet.close()


def test_a_ledger_that_never_answers_is_waited_for_no_longer_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LIMIT", 0.0)
    fleet = Fleet(tmp_path / "runs.db", Budget(calls=10, every="day", shared=True), size=1)
    [one] = fleet.members
    scope = one.budgets.scope("support", {}, "1" * 32, None)
    with pytest.raises(BudgetUnavailable, match="not answered within"):
        one.budgets.reserve(scope, request(), lambda _, __: None, may_lower=False)
    assert not fleet.is_refused(one)
    fleet.close()
