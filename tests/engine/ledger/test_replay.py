"""The ledger says what the live engine said: replay, days and files that several hands write."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from campaign_support import examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import event_streams

from runmeter.engine import (
    CostEstimate,
    Engine,
    Event,
    LedgerReader,
    ModelRequest,
    Notice,
    PriceBook,
    RunInfo,
    RunReported,
    SQLiteLedger,
    Status,
    SystemClock,
    TokenUsage,
    Usage,
    UsageAggregator,
    UsageStatistics,
    current_execution,
)
from runmeter.engine.ledger.ledger_file import LedgerFile
from runmeter.engine.ledger.roll_up import RollUp
from runmeter.engine.usage.statistics import statistics_of

BOOK = PriceBook()
LUNA = ModelRequest(provider="openai", model="gpt-6-luna")


def folded(events: Sequence[Event]) -> UsageStatistics:
    aggregator = UsageAggregator(BOOK, max_keys=10_000)
    aggregator.fold(events)
    return aggregator.snapshot()


def summed(reader: LedgerReader) -> UsageStatistics:
    """The sum of all days, as statistics."""
    total = UsageStatistics()
    for day in reader.days():
        total += statistics_of([(day.cell.key, day.cell.row)], 0, 0)
    return total


@examples(25)
@given(events=event_streams(), data=st.data())
def test_days_and_replay_add_up_to_the_live_statistics(
    events: list[Event], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "runs.db"
    store = LedgerFile(path, SystemClock())
    rest = list(events)
    while rest:
        group, rest = rest[: (size := data.draw(st.integers(1, len(rest))))], rest[size:]
        store.append(group)
        if data.draw(st.booleans()):
            RollUp(store, BOOK)("closing")
    live = folded(events)
    with LedgerReader(path, BOOK) as reader:
        assert reader.replay() == live
        before = summed(reader)
        assert before.cells == live.cells
    while RollUp(store, BOOK)("closing"):
        pass
    with LedgerReader(path, BOOK) as reader:
        assert summed(reader) == before
    store.close()


@given(events=event_streams())
@examples(10)
def test_what_is_written_twice_counts_once(events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("ledger") / "runs.db"
    one, other = LedgerFile(path, SystemClock()), LedgerFile(path, SystemClock())
    one.append(events)
    other.append(events)
    with LedgerReader(path, BOOK) as reader:
        assert summed(reader).cells == folded(events).cells
    one.close()
    other.close()


async def agent(messages: Any, context: Any) -> str:
    execution = current_execution()
    with execution.child(RunInfo("helper")) as helper, helper.model_call(LUNA) as call:
        call.record(Usage(input_tokens=1_000, output_tokens=50))
    with execution.model_call(LUNA) as call:
        call.record(Usage(input_tokens=100, output_tokens=5))
    return "answer"


@pytest.mark.parametrize("commit", ["group", "run", "request"])
async def test_an_engine_s_runs_outlive_it(tmp_path: Path, commit: Any) -> None:
    path = tmp_path / "runs.db"
    for _ in range(2):
        async with Engine(ledger=SQLiteLedger(path, commit=commit)) as engine:
            result = await engine.run(agent, "hi", tags={"tenant": "acme"})
            assert result.durable is (None if commit == "group" else True)
            if commit != "group":
                with LedgerReader(path) as reader:
                    assert result.run_id in {run.run_id for run in reader.runs()}
            live = engine.usage()
    with LedgerReader(path) as reader:
        assert summed(reader).cells == (live + live).cells or summed(reader).total.cost == (live + live).total.cost
        [run] = reader.runs(pattern="agent", limit=1)
        assert run.run_id == result.run_id
        assert run.status == "ok"
        assert dict(run.tags) == {"tenant": "acme"}
        assert [each.pattern for each in reader.tree(run.run_id)] == ["agent", "helper"]
        assert not reader.unended_runs()
        today = datetime.now(UTC).date()
        [outer] = [day for day in reader.days(today) if day.cell.pattern == "agent" and day.cell.model is None]
        assert outer.inclusive.cost == (live + live).total.cost
        assert run.cost_high == pytest.approx(float(result.cost.high or 0))


@pytest.mark.parametrize("waits", [True, False])
async def test_a_request_is_on_disk_before_it_leaves(tmp_path: Path, *, waits: bool) -> None:
    path = tmp_path / "runs.db"

    async def ask(messages: Any, context: Any) -> int:
        call = current_execution().model_call(LUNA)
        if waits:
            async with call:
                return len(reader.unended_requests())
        with call:
            return len(reader.unended_requests())

    async with Engine(ledger=SQLiteLedger(path, commit="request")) as engine:
        with LedgerReader(path) as reader:
            assert (await engine.run(ask, "hi")).value == 1
            assert not reader.unended_requests()


def test_an_event_that_cannot_be_counted_keeps_no_other_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(PriceBook):
        def cost(self, event: TokenUsage) -> CostEstimate:
            raise ValueError(event.model)

    path = tmp_path / "runs.db"
    run_id = "a" * 32
    reported = RunReported(
        run_id=run_id, seq=0, time_ns=1, pattern="p", framework="f", status=Status.OK, model="m", usage=Usage(1, 1)
    )
    notice = Notice(run_id=run_id, seq=1, time_ns=2, kind="k", subject="s", message="m")
    store = LedgerFile(path, SystemClock())
    store.append([reported, notice])
    assert not RollUp(store, Broken())("closing"), "it is not tried for ever"
    store.close()
    aggregator = UsageAggregator(Broken())
    aggregator.fold([reported, notice])
    with LedgerReader(path, Broken()) as reader:
        [day] = reader.days()
        assert day.cell.row == aggregator.snapshot().total
    assert caplog.text.count("is in no day") == 1
