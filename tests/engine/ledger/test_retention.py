"""Retention: what is old, or too much, goes run by run; the statistics of its days stay as they were."""

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from faulty_ledger import BOOK, asking, open_file, whole_run

from runmeter.engine import (
    Budget,
    ConfigurationError,
    Engine,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    LedgerReader,
    ModelCallStarted,
    SQLiteLedger,
    SystemClock,
    TokenUsage,
    Usage,
)
from runmeter.engine.budgets.budgets import Budgets
from runmeter.engine.events import Provenance, Status
from runmeter.engine.ledger import writer
from runmeter.engine.ledger.ledger_file import LedgerFile
from runmeter.engine.ledger.retention import Retention
from runmeter.engine.ledger.roll_up import RollUp
from runmeter.engine.ledger.spending_roll_up import SpendingRollUp

DAY_NS = 86_400 * 10**9
NOW_NS = 20_000 * DAY_NS


class Clock:
    """Stands still."""

    now_ns = NOW_NS

    def time_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns


def request(run_id: str, seq: int, time_ns: int, *, ends: bool = True) -> list[Event]:
    started = ModelCallStarted(
        run_id=run_id, seq=seq, time_ns=time_ns, call_id=seq, attempt=1, provider="openai", operation="chat",
        model="gpt-6-luna", bound=Usage(input_tokens=100, output_tokens=100),
    )  # fmt: skip
    ended = TokenUsage(
        run_id=run_id, seq=seq + 1, time_ns=time_ns + 5, call_id=seq, attempt=1, provider="openai", operation="chat",
        model="gpt-6-luna", provenance=Provenance.REPORTED, usage=Usage(input_tokens=10, output_tokens=2),
        start_ns=time_ns, duration_ns=5,
    )  # fmt: skip
    return [started, ended] if ends else [started]


def tree(number: int, time_ns: int, *, ends: bool = True, asks: bool = True) -> list[Event]:
    """A run with a run within it, which asks a model."""
    outer, inner = f"{number:032x}", f"{number + 10**6:032x}"
    events: list[Event] = [
        ExecutionStarted(
            run_id=outer, seq=0, time_ns=time_ns, pattern="p", framework="f", root_run_id=outer, tags={"tenant": "a"}
        ),
        ExecutionStarted(
            run_id=inner, seq=0, time_ns=time_ns, pattern="q", framework="f", root_run_id=outer, parent_run_id=outer
        ),
        *request(inner, 1, time_ns, ends=asks),
        ExecutionFinished(run_id=inner, seq=3, time_ns=time_ns + 9, status=Status.OK, duration_ns=9),
    ]
    if ends:
        events.append(ExecutionFinished(run_id=outer, seq=1, time_ns=time_ns + 10, status=Status.OK, duration_ns=10))
    return events


def roll_up(store: LedgerFile) -> None:
    while RollUp(store, BOOK)("closing"):
        pass


def let_go(store: LedgerFile, **limits: Any) -> None:
    retention = Retention(store, Clock(), limits.get("keep"), limits.get("max_bytes"))
    while retention("idle"):
        pass


def kept(path: Path) -> set[int]:
    with LedgerReader(path, BOOK) as reader:
        runs = {run.run_id for run in reader.runs()}
        assert {event.run_id for event in reader.events()} <= runs
        return {int(run_id, 16) for run_id in runs if int(run_id, 16) < 10**6}


def days(path: Path) -> Any:
    with LedgerReader(path, BOOK) as reader:
        return reader.days()


def test_what_is_older_goes_and_its_days_stay(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = open_file(path)
    store.append([event for n in range(300) for event in tree(n, NOW_NS - (300 - n) * DAY_NS // 10)])
    before, size = days(path), sum(1 for _ in store.connection.execute("SELECT * FROM events"))
    let_go(store, keep=timedelta(days=10))
    assert len(kept(path)) == 300, "nothing goes that no day has counted"
    roll_up(store)
    let_go(store, keep=timedelta(days=10))
    assert kept(path) == set(range(200, 300))
    assert days(path) == before
    assert store.connection.execute("SELECT count(*) FROM events").fetchone()[0] == size / 3
    assert store.connection.execute("PRAGMA freelist_count").fetchone()[0] == 0, "its pages are given back"
    last = store.connection.execute("SELECT max(id) FROM events").fetchone()[0]
    let_go(store, keep=timedelta(microseconds=1))
    assert kept(path) == set()
    store.append(tree(1000, NOW_NS))
    assert store.connection.execute("SELECT min(id) FROM events").fetchone()[0] > last, "no number comes twice"
    roll_up(store)
    assert sum(day.cell.row.executions for day in days(path)) == 602
    store.close()


def test_what_goes_on_or_never_ended_stays(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = open_file(path)
    store.append(tree(1, NOW_NS - 90 * DAY_NS, ends=False))
    store.append(tree(2, NOW_NS - 90 * DAY_NS, asks=False))  # it may have been billed
    store.append(tree(3, NOW_NS - 90 * DAY_NS))
    roll_up(store)
    late = ExecutionFinished(
        run_id=f"{4:032x}", seq=1, time_ns=NOW_NS, status=Status.OK, duration_ns=80 * DAY_NS
    )  # a run of 80 days
    store.append([whole_run(4, time_ns=NOW_NS - 80 * DAY_NS)[0], late])
    roll_up(store)
    let_go(store, keep=timedelta(days=30))
    assert kept(path) == {1, 2, 4}
    with LedgerReader(path, BOOK) as reader:
        assert len(reader.unended_requests()) == 1
    store.close()


def test_what_a_budget_has_not_counted_stays(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = open_file(path)
    budget = Budget(calls=10_000, every="month")
    spending = SpendingRollUp(store, BOOK)
    start_ns = NOW_NS - 2 * DAY_NS
    spending.restore([budget], NOW_NS)
    store.append([event for number in range(20) for event in tree(number, start_ns + number)])
    roll_up(store)
    let_go(store, keep=timedelta(days=1))
    assert len(kept(path)) == 20, "the days have counted it, the budget has not"
    [before] = spending.restore([budget], NOW_NS)  # which counts it
    let_go(store, keep=timedelta(days=1))
    assert not kept(path)
    assert spending.restore([budget], NOW_NS) == [before]
    assert Budgets([budget], BOOK, Clock()) is not None
    store.close()


def test_what_is_too_much_goes_oldest_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "runs.db"
    store = open_file(path)
    for start in range(0, 1_500, 500):
        store.append([event for n in range(start, start + 500) for event in tree(n, NOW_NS - DAY_NS + n * 10**9)])
    store.append(tree(5_000, NOW_NS - 10))
    roll_up(store)
    before = days(path)
    let_go(store, max_bytes=2**20)
    left = kept(path)
    assert left
    assert len(left) < 1_400
    assert max(left) == 5_000
    assert sorted(left)[:-1] == list(range(min(left), 1_500))
    assert days(path) == before
    pages, size = (store.connection.execute(f"PRAGMA {each}").fetchone()[0] for each in ("page_count", "page_size"))
    assert pages * size <= 2**20
    assert not caplog.records
    store.append([event for n in range(6_000, 8_000) for event in tree(n, NOW_NS - 10)])
    roll_up(store)
    let_go(store, max_bytes=2**20)
    assert kept(path) == {5_000, *range(6_000, 8_000)}, "what has only just ended may have more to say"
    assert "is larger than max_bytes" in caplog.text
    store.close()


def test_several_processes_write_and_let_go(tmp_path: Path) -> None:
    """One that remembers the number of a run that another lets go of writes no event without a run."""
    path, chance = tmp_path / "runs.db", random.Random(1)  # noqa: S311
    one, other = open_file(path), open_file(path)
    for number in range(20):
        events = tree(number, NOW_NS - 2 * DAY_NS)
        cut = chance.randrange(1, len(events))
        one.append(events[:cut])
        let_go(other, keep=timedelta(days=1))
        one.append(events[cut:])
        roll_up(chance.choice([one, other]))
        let_go(other, keep=timedelta(days=1))
    assert not kept(path)
    one.append([ExecutionFinished(run_id=f"{1:032x}", seq=9, time_ns=NOW_NS, status=Status.OK, duration_ns=1)])
    roll_up(other)
    orphans = one.connection.execute("SELECT count(*) FROM events WHERE run NOT IN (SELECT id FROM runs)")
    assert orphans.fetchone() == (0,)
    assert sum(day.cell.row.executions for day in days(path)) == 40
    one.close()
    other.close()


async def test_an_engine_s_ledger_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CHORES_AT_END", 3600)
    path = tmp_path / "runs.db"
    store = LedgerFile(path, SystemClock())
    store.append(tree(1, DAY_NS))
    store.close()
    async with Engine(ledger=SQLiteLedger(path, keep=timedelta(days=365)), drain_timeout=3600):
        pass
    assert not kept(path)
    assert days(path)[0].cell.row.executions == 1


def test_limits_that_make_no_sense() -> None:
    for wrong in (
        {"keep": timedelta(0)}, {"keep": 90}, {"max_bytes": 1000}, {"max_bytes": 1e9}, {"max_bytes": True},
    ):  # fmt: skip
        limits: Any = wrong
        with pytest.raises(ConfigurationError, match=next(iter(limits))):
            SQLiteLedger("runs.db", **limits)


async def test_an_age_that_no_run_has_keeps_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Engine(ledger=SQLiteLedger(tmp_path / "runs.db", keep=timedelta.max)) as engine:
        await engine.run(asking, "hello")
    assert not caplog.records
    with LedgerReader(tmp_path / "runs.db") as reader:
        assert len(reader.runs()) == 1


def test_what_was_looked_at_before_it_was_counted_goes_at_the_end(tmp_path: Path) -> None:
    store = open_file(tmp_path / "runs.db")
    store.append(tree(1, DAY_NS))
    retention = Retention(store, Clock(), timedelta(days=365), None)
    assert retention("idle")
    assert kept(store.path)
    roll_up(store)
    while retention("closing"):
        pass
    store.close()
    assert not kept(store.path)
