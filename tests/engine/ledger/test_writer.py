"""The writer of a ledger: what fails, is slow or makes no sense takes no answer, and no event but that."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from faulty_ledger import BOOK, LUNA, Faults, asking, faulty, folded, open_file, whole_run
from process_support import eventually
from time_support import until

from runmeter.engine import (
    Engine,
    EngineNotRunning,
    Event,
    ExecutionStarted,
    LedgerFull,
    LedgerReader,
    Notice,
    SQLiteLedger,
    SystemClock,
    UsageAggregator,
    current_execution,
)
from runmeter.engine.ledger.writer import Writer

FULL = "its disk is full"


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    with faulty(monkeypatch) as faults:
        yield faults


class Scene:
    """An engine with a ledger, and what its runs say."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.ledger = SQLiteLedger(path, **options)
        self.engine = Engine(ledger=self.ledger, drain_timeout=5)
        self.events: list[Event] = []
        self.engine.subscribe(self.events.extend, name="test", lane="lossless")

    @property
    def begun(self) -> int:
        """How many runs have begun."""
        return self.engine.statistics().running


@pytest.mark.parametrize("commit", ["run", "request"])
async def test_a_commit_that_fails_takes_no_answer(
    tmp_path: Path, faults: Faults, caplog: pytest.LogCaptureFixture, commit: Any
) -> None:
    scene = Scene(tmp_path / "runs.db", commit=commit)
    async with scene.engine as engine:
        assert (await engine.run(asking, "hi")).durable is True
        faults.error = FULL
        with caplog.at_level(logging.WARNING, "runmeter"):
            result = await engine.run(asking, "hi")
        assert result.value == "answer"
        assert result.durable is False
        said = scene.ledger.statistics()
        assert said.failures > 0
        assert said.pending > 0
        assert FULL in (said.last_error or "")
        faults.error = None
        assert (await engine.run(asking, "hi")).durable is True
        live = engine.usage()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [FULL in record.getMessage() for record in warnings] == [True], "each failure is told once"
    notices = [event for event in scene.events if isinstance(event, Notice)]
    assert {event.kind for event in notices} == {"ledger"}
    assert any(event.run_id == result.run_id and FULL in event.message for event in notices)
    said = scene.ledger.statistics()
    assert (said.pending, said.skipped, said.last_error) == (0, 0, None)
    with LedgerReader(tmp_path / "runs.db") as reader:
        assert reader.replay() == folded(scene.events)
        assert reader.replay().cells == live.cells


async def test_new_runs_wait_until_it_takes_events_again(tmp_path: Path, faults: Faults) -> None:
    scene = Scene(tmp_path / "runs.db", commit="run")
    results: list[Any] = []

    async def run() -> None:
        results.append(await scene.engine.run(asking, "hi"))

    async with scene.engine, anyio.create_task_group() as tasks:
        faults.error = FULL
        await run()
        for _ in range(3):
            tasks.start_soon(run)
        failures = scene.ledger.statistics().failures
        await until(lambda: scene.ledger.statistics().failures > failures + 1)
        assert len(results) == 1
        assert scene.begun == 0
        faults.error = None
        await until(lambda: len(results) == 4)
    assert [result.durable for result in results] == [False, True, True, True]
    with LedgerReader(tmp_path / "runs.db") as reader:
        assert list(reader.events([results[0].run_id])) == [e for e in scene.events if e.run_id == results[0].run_id]
        assert len(reader.runs(status=None)) == 4


async def test_new_runs_are_refused_if_told(tmp_path: Path, faults: Faults) -> None:
    scene = Scene(tmp_path / "runs.db", commit="run", on_full="refuse")
    async with scene.engine as engine:
        faults.error = FULL
        await engine.run(asking, "hi")
        with pytest.raises(LedgerFull, match=FULL):
            await engine.run(asking, "hi")
        faults.error = None
        await until(lambda: scene.ledger.is_ready)
        assert (await engine.run(asking, "hi")).durable


async def test_a_store_that_fails_halfway_gets_the_group_again(tmp_path: Path, faults: Faults) -> None:
    scene = Scene(tmp_path / "runs.db", commit="run")
    async with scene.engine as engine:
        faults.error, faults.after = FULL, 2
        assert (await engine.run(asking, "hi")).durable is False
        faults.error = None
        assert (await engine.run(asking, "hi")).durable is True
    with LedgerReader(tmp_path / "runs.db") as reader:
        assert reader.replay() == folded(scene.events)
        assert [(event.run_id, event.seq) for event in reader.events()] == [(e.run_id, e.seq) for e in scene.events]


async def test_runs_that_end_at_once_share_a_commit(tmp_path: Path, faults: Faults) -> None:
    scene = Scene(tmp_path / "runs.db", commit="run")
    results: list[Any] = []

    async def run() -> None:
        results.append(await scene.engine.run(asking, "hi"))

    async with scene.engine, anyio.create_task_group() as tasks:
        faults.hold()
        tasks.start_soon(run)
        await until(faults.held_up.is_set)
        for _ in range(20):
            tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        assert not results
        commits = scene.ledger.statistics().commits
        faults.release()
        await until(lambda: len(results) == 21)
        assert scene.ledger.statistics().commits == commits + 2
    assert all(result.durable for result in results)


async def test_cancelled_while_waiting(tmp_path: Path, faults: Faults) -> None:
    """Neither what waits for a commit nor what waits to begin leaves anything behind."""
    scene = Scene(tmp_path / "runs.db", commit="run")
    async with scene.engine as engine:
        faults.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.run, asking, "hi")
            await until(faults.held_up.is_set)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert scene.begun == 0
        faults.error = FULL
        faults.release()
        await until(lambda: not scene.ledger.is_ready)
        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(engine.run, asking, "hi")
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        writer = scene.ledger._writer
        assert writer is not None
        assert len(writer._held_back) <= 1
        faults.error = None
        assert (await engine.run(asking, "hi")).durable
        assert not writer._waiting
    with LedgerReader(tmp_path / "runs.db") as reader:
        assert reader.replay() == folded(scene.events)


async def test_closing_sends_waiting_runs_away(
    tmp_path: Path, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(tmp_path / "runs.db", commit="run")
    refused: list[EngineNotRunning] = []

    async def run() -> None:
        try:
            await scene.engine.run(asking, "hi")
        except EngineNotRunning as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        async with scene.engine as engine:
            faults.error = FULL
            await engine.run(asking, "hi")
            tasks.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            assert not refused
        await until(lambda: refused)
    assert "has closed" in str(refused[0])
    pending = scene.ledger.statistics().pending
    assert pending == len(scene.events) > 0
    [lost] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert f"lacks its last {pending} events" in lost
    assert FULL in lost


async def test_a_run_that_outlives_its_engine_still_ends(tmp_path: Path, faults: Faults) -> None:
    scene = Scene(tmp_path / "runs.db", commit="request")
    scene.engine._drain_timeout = 0
    gate = anyio.Event()
    ended: list[Any] = []

    async def stubborn(messages: Any, context: Any) -> str:
        execution = current_execution()
        with anyio.CancelScope(shield=True):
            await gate.wait()
            async with execution.model_call(LUNA):
                pass
            with execution.model_call(LUNA):
                pass
        return "late"

    async def run() -> None:
        ended.append(await scene.engine.run(stubborn, "hi"))

    async with anyio.create_task_group() as tasks:
        async with scene.engine:
            tasks.start_soon(run)
            await until(lambda: scene.begun)
        gate.set()
        await until(lambda: ended)
    assert (ended[0].value, ended[0].durable) == ("late", False)


def test_an_event_without_a_form_is_skipped_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events = [event for number in range(500) for event in whole_run(number)]
    run_id = "f" * 32
    odd = [
        ExecutionStarted(run_id=run_id, seq=seq, time_ns=time_ns, pattern=pattern, framework="f", root_run_id=run_id)
        for seq, time_ns, pattern in ((0, 2**70, "p"), (1, 1, "\ud800"), (2, 2**63, "p"))
    ]
    store = open_file(tmp_path / "runs.db")
    writer = Writer(store, window=3600)
    writer.put([*events[:400], odd[0], *events[400:], *odd[1:]])
    writer.start()
    told = threading.Event()
    outcome: list[bool] = []

    def tell(durable: bool) -> None:
        outcome.append(durable)
        told.set()

    writer.sync(tell)
    told.wait()
    assert outcome == [True], "all that can be kept is"
    assert writer.close(60)
    said = writer.statistics()
    assert (said.received, said.durable, said.skipped, said.pending) == (1_003, 1_000, 3, 0)
    assert said.failures == 0
    assert len([record for record in caplog.records if "cannot keep event" in record.getMessage()]) == 1
    with LedgerReader(tmp_path / "runs.db") as reader:
        assert list(reader.events()) == events


def test_a_group_is_committed_once_its_first_event_is_as_old_as_the_window(
    tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, now = 0, 100.0

    def read() -> float:
        nonlocal looks
        looks += 1
        return now

    monkeypatch.setattr("runmeter.engine.ledger.writer.monotonic", read)
    ledger = SQLiteLedger(tmp_path / "runs.db", window=0.01)
    ledger.open(BOOK, SystemClock())
    ledger.put(whole_run(1))
    now = 100.0099
    ledger.put(whole_run(2))
    seen = looks
    eventually(lambda: looks > seen + 3)
    assert not faults.groups
    now = 100.0101
    eventually(lambda: ledger.statistics().durable == 4)
    assert faults.groups == [4]
    ledger.close(60)


def test_closing_waits_no_longer_than_told(tmp_path: Path, faults: Faults, caplog: pytest.LogCaptureFixture) -> None:
    ledger = SQLiteLedger(tmp_path / "runs.db", window=0)
    ledger.open(BOOK, SystemClock())
    faults.hold()
    ledger.put(whole_run(1))
    outcome: list[bool] = []
    ledger.sync(outcome.append)
    faults.held_up.wait()
    ledger.close(0)
    assert outcome == [False], "who waits for a store that hangs is let go"
    assert "lacks its last 2 events" in caplog.text
    ledger.sync(outcome.append)
    assert outcome == [False, False]
    assert not ledger.is_ready
    assert ledger._writer is not None
    faults.release()
    ledger._writer._thread.join()
    assert ledger.statistics().pending == 0


def test_the_thread_outlives_what_its_callers_and_chores_raise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def chore(load: Any) -> bool:
        raise ZeroDivisionError

    writer = Writer(open_file(tmp_path / "runs.db"), 0, chore)
    writer.start()
    for number in range(3):
        told = threading.Event()
        writer.put(whole_run(number))
        writer.sync(lambda _, told=told: (told.set(), 1 / 0))  # type: ignore[misc] # a lambda's default
        told.wait()
    assert writer.close(60)
    assert writer.statistics().durable == 6
    assert caplog.text.count("a chore failed") == 1


async def test_several_engines_share_a_file_and_an_aggregator(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    aggregator = UsageAggregator()
    async with (
        Engine(ledger=SQLiteLedger(path, commit="run"), usage=aggregator) as one,
        Engine(ledger=SQLiteLedger(path, commit="run"), usage=aggregator) as other,
    ):
        for engine in (one, other, one):
            assert (await engine.run(asking, "hi")).durable
        live = aggregator.snapshot()
    with LedgerReader(path) as reader:
        assert reader.replay().cells == live.cells
        assert live.total.executions == 3


async def test_a_ledger_serves_one_engine_at_a_time(tmp_path: Path) -> None:
    ledger = SQLiteLedger(tmp_path / "runs.db")
    with pytest.raises(EngineNotRunning, match="opens with the engine"):
        ledger.statistics()
    for _ in range(2):
        async with Engine(ledger=ledger) as engine:
            await engine.run(asking, "hi")
            with pytest.raises(EngineNotRunning, match="used by another engine"):
                async with Engine(ledger=ledger):
                    pass
    with LedgerReader(ledger.path) as reader:
        assert len(reader.runs()) == 2


def test_engines_of_several_event_loops_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    together = threading.Barrier(4)

    async def work() -> None:
        async with Engine(ledger=SQLiteLedger(path, commit="run")) as engine:
            await anyio.to_thread.run_sync(together.wait)
            for _ in range(10):
                assert (await engine.run(asking, "hi")).durable

    threads = [
        threading.Thread(target=anyio.run, args=(work,), kwargs={"backend": backend})
        for backend in ("asyncio", "trio") * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with LedgerReader(path) as reader:
        assert reader.replay().total.executions == 40
        assert not reader.unended_runs()


async def test_a_window_may_be_longer_than_threads_can_wait(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "runs.db", window=float("inf"))
    async with scene.engine as engine:
        await engine.run(asking, "hello")
    assert (scene.ledger.lost, scene.ledger.statistics().durable) == (0, len(scene.events))
