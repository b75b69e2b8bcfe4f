import random
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any, cast

import msgspec
import pytest
from campaign_support import examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import NOW, event_streams, interleavings, reported_runs, run_families, runs

from runmeter.engine.events import (
    AssistantRun,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    Notice,
    Provenance,
    Retrieval,
    RunReported,
    Status,
    TokenUsage,
    UnknownEvent,
    Usage,
)
from runmeter.engine.prices.cost_estimate import CostEstimate
from runmeter.engine.prices.price_book import PriceBook
from runmeter.engine.usage.aggregator import RECENT_RUNS, UsageAggregator
from runmeter.engine.usage.cell import MAX_NAMES, REPORTED, UNKNOWN
from runmeter.engine.usage.row import UsageRow, sum_rows
from runmeter.engine.usage.statistics import OTHER, UsageStatistics

BOOK = PriceBook()


def folded(*batches: Iterable[Event], max_keys: int = 2_000) -> UsageStatistics:
    aggregator = UsageAggregator(BOOK, max_keys)
    for batch in batches:
        aggregator.fold(list(batch))
    return aggregator.snapshot()


def event(kind: type[Any], run_id: str, seq: int, given: dict[str, Any], **usual: Any) -> Any:
    """An event of a kind, with the usual fields but for those given."""
    return kind(**{"run_id": run_id, "seq": seq, "time_ns": NOW, **usual, **given})


def start(run_id: str, pattern: str = "routing", seq: int = 0, **fields: Any) -> Event:
    usual = {"pattern": pattern, "framework": "openai", "root_run_id": run_id}
    return cast("Event", event(ExecutionStarted, run_id, seq, fields, **usual))


def finish(run_id: str, seq: int = 1, **fields: Any) -> Event:
    return cast("Event", event(ExecutionFinished, run_id, seq, fields, status=Status.OK, duration_ns=10**9))


def spent(run_id: str, seq: int = 1, **fields: Any) -> TokenUsage:
    usual = {
        "call_id": seq,
        "provider": "openai",
        "operation": "chat",
        "model": "gpt-6-luna",
        "provenance": Provenance.REPORTED,
        "usage": Usage(1000, 100),
        "start_ns": NOW,
        "duration_ns": 10**8,
    }
    return cast("TokenUsage", event(TokenUsage, run_id, seq, fields, **usual))


def called(run_id: str, seq: int = 1, **fields: Any) -> Event:
    return cast("Event", event(FunctionCall, run_id, seq, fields, name="refund", start_ns=NOW, duration_ns=10**6))


def searched(run_id: str, seq: int = 1, **fields: Any) -> Event:
    usual = {"source": "local", "start_ns": NOW, "duration_ns": 10**7, "documents": 3}
    return cast("Event", event(Retrieval, run_id, seq, fields, **usual))


# The law: every run, request and token counts once, whatever it is grouped by and however runs nest.


Group = Callable[[ExecutionStarted, Event], Hashable]
NOWHERE = object()


def expected(events: list[Event], group: Group) -> dict[Any, dict[str, Any]]:
    """Sums over events, done the slow and obvious way."""
    starts = {event.run_id: event for event in events if isinstance(event, ExecutionStarted)}
    sums: dict[Any, dict[str, Any]] = {}
    for event in events:
        place = sums.setdefault(group(starts[event.run_id], event), told(UsageRow()))
        if isinstance(event, ExecutionStarted):
            place["executions"] += 1
        elif isinstance(event, ExecutionFinished):
            place["finished"] += 1
            place["run_ns"] += event.duration_ns
            place["errors"] += event.error_type is not None and event.status is not Status.CANCELLED
        elif isinstance(event, FunctionCall):
            place["function_calls"] += 1
            place["function_errors"] += event.error_type is not None
        elif isinstance(event, AssistantRun):
            place["assistant_runs"] += 1
            place["threads"] += Counter([event.thread] if event.thread else [])
            place["assistant_ns"] += event.duration_ns
        elif isinstance(event, Retrieval):
            place["retrievals"] += Counter([event.source])
            place["retrieval_errors"] += event.error_type is not None
            place["empty_retrievals"] += event.error_type is None and event.documents == 0
            place["documents"] += event.documents
            place["retrieval_ns"] += event.duration_ns
        elif isinstance(event, Notice):
            place["notices"] += Counter([event.kind])
        elif isinstance(event, TokenUsage):
            place["requests"] += 1
            place["request_errors"] += event.error_type is not None
            place["usage"] += event.usage or Usage()
            place["cost"] += BOOK.cost(event)
            place["model_ns"] += event.duration_ns
            place["chunks"] += event.first_chunk_ns is not None
    sums.pop(NOWHERE, None)
    return sums


def told(row: UsageRow) -> dict[str, Any]:
    return {
        "executions": row.executions,
        "finished": sum(row.by_status.values()),
        "run_ns": row.run_latency.sum,
        "errors": sum(row.errors_by_type.values()),
        "function_calls": row.function_calls,
        "function_errors": sum(row.function_errors_by_type.values()),
        "assistant_runs": row.assistant_runs,
        "threads": Counter(created=row.threads_created, resumed=row.threads_resumed),
        "assistant_ns": row.assistant_latency.sum,
        "retrievals": Counter(row.retrievals_by_source),
        "retrieval_errors": sum(row.retrieval_errors_by_type.values()),
        "empty_retrievals": row.empty_retrievals,
        "documents": row.documents_found,
        "retrieval_ns": row.retrieval_latency.sum,
        "notices": Counter(row.notices_by_kind),
        "requests": row.requests,
        "request_errors": sum(row.request_errors_by_type.values()),
        "usage": row.usage,
        "cost": row.cost,
        "model_ns": row.model_latency.sum,
        "chunks": row.first_chunk_latency.count,
    }


def told_by(rows: dict[Any, UsageRow]) -> dict[Any, dict[str, Any]]:
    return {key: told(row) for key, row in rows.items()}


@given(event_streams())
def test_everything_counts_once_in_every_grouping(events: list[Event]) -> None:
    statistics = folded(events)
    assert {"all": told(statistics.total)} == expected(events, lambda *_: "all")
    assert told_by(statistics.by_pattern()) == expected(events, lambda run, _: run.pattern)
    assert told_by(statistics.by_framework()) == expected(events, lambda run, _: run.framework)
    assert told_by(statistics.by_tag("tenant")) == expected(events, lambda run, _: run.tags.get("tenant"))
    assert told_by(statistics.by_tag("no such tag")) == expected(events, lambda *_: None)
    assert told_by(statistics.by_model()) == expected(
        events, lambda _, event: event.model if isinstance(event, TokenUsage) else NOWHERE
    )


@given(event_streams())
def test_all_groupings_add_up_to_the_same(events: list[Event]) -> None:
    statistics = folded(events)
    assert_groupings_agree(statistics)
    models = sum_rows(statistics.by_model().values())
    assert (models.requests, models.usage) == (statistics.total.requests, statistics.total.usage)
    assert models.cost == statistics.total.cost


def assert_groupings_agree(statistics: UsageStatistics) -> None:
    groupings: list[dict[Any, UsageRow]] = [statistics.by_pattern(), statistics.by_framework()]
    groupings += [statistics.by_tag("tenant")]
    for rows in groupings:
        assert sum_rows(rows.values()) == statistics.total


def test_a_child_run_counts_in_its_own_pattern_only() -> None:
    statistics = folded(
        [
            start("parent", "orchestrator_workers", tags={"tenant": "acme"}),
            spent("parent"),
            start("child", "routing", parent_run_id="parent", root_run_id="parent", tags={"tenant": "acme"}),
            spent("child", usage=Usage(7, 3)),
            finish("child", 2),
            finish("parent", 2),
        ]
    )
    assert {name: row.usage for name, row in statistics.by_pattern().items()} == {
        "orchestrator_workers": Usage(1000, 100),
        "routing": Usage(7, 3),
    }
    assert statistics.by_tag("tenant")["acme"].usage == statistics.total.usage == Usage(1007, 103)


# Merging


@given(run_families(), st.data())
def test_parts_folded_apart_add_up_to_all_folded_in_one(families: list[list[Event]], data: st.DataObject) -> None:
    whole = folded(data.draw(interleavings(families)))
    parts: list[list[Event]] = [[], [], []]
    for run in families:
        parts[data.draw(st.integers(0, 2))].extend(run)
    assert folded(parts[0]) + folded(parts[1]) + folded(parts[2]) == whole


@given(event_streams(), event_streams(), event_streams())
@examples(50)
def test_statistics_and_rows_add_up_in_any_order(a: list[Event], b: list[Event], c: list[Event]) -> None:
    x, y, z = folded(a), folded(b), folded(c)
    assert x + y == y + x
    assert (x + y) + z == x + (y + z)
    assert x + UsageStatistics() == x == UsageStatistics() + x
    assert x.total + y.total == y.total + x.total == (x + y).total
    assert x.total + UsageRow() == x.total


@given(event_streams())
def test_statistics_can_be_sent_to_another_process(events: list[Event]) -> None:
    statistics = folded(events)
    as_json = msgspec.json.decode(msgspec.json.encode(statistics), type=UsageStatistics)
    as_msgpack = msgspec.msgpack.decode(msgspec.msgpack.encode(statistics), type=UsageStatistics)
    assert as_json == as_msgpack == statistics
    assert as_json + as_msgpack == statistics + statistics
    assert str(as_json) == str(statistics)


# Duplicates, disorder, stragglers, strays


@given(event_streams(), st.data())
def test_duplicates_change_nothing(events: list[Event], data: st.DataObject) -> None:
    doubled = list(events)
    for event in data.draw(st.lists(st.sampled_from(events), max_size=20)):
        first = next(place for place, other in enumerate(doubled) if other is event)
        doubled.insert(data.draw(st.integers(first + 1, len(doubled))), event)
    assert folded(doubled) == folded(events)
    assert folded(events, events) == folded(events)


@given(run_families(), st.data())
def test_events_of_a_run_may_overtake_each_other(families: list[list[Event]], data: st.DataObject) -> None:
    disordered = [[run[0], *data.draw(st.permutations(run[1:] + run[1:]))] for run in families]
    assert folded(data.draw(interleavings(disordered))) == folded(*families)


def test_the_order_of_tags_does_not_matter() -> None:
    statistics = folded([start("a", tags={"x": "1", "y": "2"}), start("b", tags={"y": "2", "x": "1"})])
    assert len(statistics.cells) == 1


def test_a_straggler_of_a_finished_run_counts_where_it_belongs() -> None:
    statistics = folded([start("run"), finish("run", 2), spent("run", 1)], [spent("run", 3)])
    assert list(statistics.by_pattern()) == ["routing"]
    assert statistics.total.usage == Usage(2000, 200)
    assert statistics.total.in_flight == 0


def test_duplicates_of_a_run_finished_a_while_ago_are_dropped() -> None:
    run = [start("run"), spent("run"), finish("run", 2)]
    others = [event for n in range(RECENT_RUNS - 1) for event in (start(f"other{n}"), finish(f"other{n}"))]
    assert folded(run, others, run) == folded(run, others)


def test_a_run_that_was_never_seen_starting_is_unknown() -> None:
    statistics = folded([spent("stray", 5), called("stray", 6), finish("stray", 7, status=Status.ERROR)])
    row = statistics.by_pattern()[UNKNOWN]
    assert statistics.total == row
    assert (row.executions, row.failures, row.in_flight, row.requests, row.function_calls) == (1, 1, 0, 1, 1)
    assert set(statistics.by_framework()) == {UNKNOWN}
    assert set(statistics.by_tag("tenant")) == {None}


def test_a_run_whose_start_comes_late_is_counted_once() -> None:
    statistics = folded([spent("late", 1), start("late"), finish("late", 2)])
    assert statistics.by_pattern()[UNKNOWN].executions == 0
    assert statistics.by_pattern()[UNKNOWN].requests == 1
    assert statistics.by_pattern()["routing"].executions == 1
    assert statistics.total.in_flight == 0
    # A start that comes after the end comes too late: the run has been counted.
    statistics = folded([finish("late", 2), start("late")])
    assert (statistics.total.executions, statistics.total.in_flight) == (1, 0)


def test_a_run_whose_start_comes_late_is_not_forgotten_while_it_goes_on() -> None:
    aggregator = UsageAggregator(BOOK)
    aggregator.fold([called("late", 1), start("late")])
    for number in range(2 * RECENT_RUNS):
        aggregator.fold([start(f"{number}"), finish(f"{number}")])
    aggregator.fold([called("late", 1), called("late", 2), finish("late", 3)])
    total = aggregator.snapshot().total
    assert (total.function_calls, total.in_flight) == (2, 0)


def test_a_second_end_or_start_changes_nothing() -> None:
    once = folded([start("run"), finish("run", 1)])
    assert folded([start("run"), finish("run", 1), finish("run", 2), start("run", seq=3)]) == once
    assert folded([start("run"), start("run", seq=2), finish("run", 1)]) == once


def test_an_unknown_event_is_seen_and_not_counted() -> None:
    unknown = UnknownEvent(run_id="run", seq=1, time_ns=NOW, kind="handoff", fields={"type": "handoff"})
    statistics = folded([start("run"), unknown, spent("run", 1), finish("run", 2)])
    assert statistics.total.requests == 0
    assert statistics.total.executions == 1


# Bounds


def test_further_tags_share_a_row_of_their_pattern_and_model() -> None:
    events = [
        event
        for number in range(500)
        for event in (start(f"{number}", tags={"user": f"{number}"}), spent(f"{number}"), finish(f"{number}", 2))
    ]
    statistics = folded(events, [start("plain"), spent("plain")], max_keys=40)
    assert len(statistics.cells) <= 40
    assert statistics.total.executions == 501
    assert statistics.total.usage == Usage(501_000, 50_100)
    assert statistics.by_pattern()["routing"] == statistics.total
    assert statistics.by_model()["gpt-6-luna"].requests == 501
    users = statistics.by_tag("user")
    assert users["0"].usage == users["9"].usage == Usage(1000, 100)
    assert users[None].executions == 1, "what has no tag is not lost among those that lost theirs"
    assert sum(row.executions for row in users.values()) == 501


@pytest.mark.parametrize("exploding", ["pattern", "framework", "model"])
def test_further_patterns_and_models_share_one_row(exploding: str) -> None:
    events: list[Event] = []
    for number in range(500):
        run_id = f"{number}"
        name: dict[str, Any] = {exploding: f"{exploding}-{number}"}
        if exploding == "model":
            events += [start(run_id, tags={"tenant": "acme"}), spent(run_id, **name), finish(run_id, 2)]
        else:
            events += [start(run_id, **{"tags": {"tenant": "acme"}, **name}), spent(run_id), finish(run_id, 2)]
    statistics = folded(events, max_keys=40)
    assert len(statistics.cells) <= 40
    assert statistics.total.executions == 500
    assert statistics.total.usage == Usage(500_000, 50_000)
    rows: dict[Any, UsageRow] = getattr(statistics, f"by_{exploding}")()
    assert rows[OTHER].requests > 400
    assert rows[f"{exploding}-0"].requests == 1


@given(st.lists(st.tuples(*[st.sampled_from("abcdefgh")] * 4), max_size=60), st.integers(8, 40))
def test_there_are_never_more_rows_than_allowed_and_nothing_is_lost(names: list[tuple[str, ...]], keys: int) -> None:
    events: list[Event] = [start("first"), finish("first")]
    for number, (pattern, framework, model, tenant) in enumerate(names):
        tags = {} if tenant == "a" else {"tenant": tenant}
        events += [start(f"{number}", pattern, framework=framework, tags=tags), spent(f"{number}", model=model)]
        events += [called(f"{number}", 2), searched(f"{number}", 3), finish(f"{number}", 4)]
    statistics = folded(events, max_keys=keys)
    assert len(statistics.cells) <= keys
    assert told(statistics.total) == told(folded(events).total)
    assert_groupings_agree(statistics)


@pytest.mark.parametrize("max_keys", [-1, 0, 7])
def test_too_few_rows_are_an_error(max_keys: int) -> None:
    with pytest.raises(ValueError, match="at least 8"):
        UsageAggregator(max_keys=max_keys)


def test_further_names_and_error_types_are_counted_together() -> None:
    events: list[Event] = [start("run")]
    for turn, number in enumerate([*range(2 * MAX_NAMES), 0]):
        seq, error = 3 * turn + 1, f"E{number}"
        events += [called("run", seq, name=f"f{number}", error_type=error)]
        events += [spent("run", seq + 1, error_type=error)]
        events += [searched("run", seq + 2, source=f"vs_{number}", error_type=error)]
    row = folded(events).total
    for counts in (
        row.function_calls_by_name,
        row.function_errors_by_type,
        row.request_errors_by_type,
        row.retrievals_by_source,
        row.retrieval_errors_by_type,
    ):
        assert len(counts) == MAX_NAMES + 1
        assert counts[OTHER] == MAX_NAMES
        assert sum(counts.values()) == 2 * MAX_NAMES + 1
        assert max(counts.values()) == MAX_NAMES
        assert 2 in counts.values(), "a name that is known goes on being told apart"


def fold_runs(aggregator: UsageAggregator, number: int) -> None:
    for n in range(number):
        run_id = f"{random.getrandbits(128):032x}"
        aggregator.fold([start(run_id, tags={"user": f"{n}"}), spent(run_id, 1), called(run_id, 2), finish(run_id, 3)])
        aggregator.fold([called(f"stray {run_id}", 4)])


def test_memory_does_not_grow_with_the_number_of_runs() -> None:
    aggregator = UsageAggregator(BOOK, max_keys=100)
    fold_runs(aggregator, RECENT_RUNS + 1_000)
    tracemalloc.start()
    try:
        fold_runs(aggregator, RECENT_RUNS)  # until all that is remembered is traced
        before, _ = tracemalloc.get_traced_memory()
        fold_runs(aggregator, 2 * RECENT_RUNS)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after < 1.02 * before
    assert len(aggregator._runs) <= RECENT_RUNS


def test_memory_does_not_grow_with_the_number_of_models() -> None:
    aggregator = UsageAggregator(BOOK, max_keys=20)
    aggregator.fold([start("run")])
    aggregator.fold([spent("run", number, model=f"model-{number}") for number in range(1, 500)])
    assert sum(len(cell.models) for cell in aggregator._cells.values()) <= 20
    assert aggregator.snapshot().total.requests == 499


def test_a_run_with_a_lost_event_takes_no_more_memory_the_longer_it_is() -> None:
    aggregator = UsageAggregator(BOOK)
    aggregator.fold([start("run")])
    aggregator.fold([called("run", seq) for seq in range(2, 10_000)])  # 1 never came
    assert aggregator._runs["run"].ahead == [(2, 10_000)]
    assert aggregator.snapshot().total.function_calls == 10_000 - 2
    aggregator.fold([called("run", seq) for seq in range(2, 10_000)])
    assert aggregator.snapshot().total.function_calls == 10_000 - 2


def test_events_that_come_after_thousands_of_later_ones_count() -> None:
    """As of threads that publish faster than the one before them is folded."""
    aggregator = UsageAggregator(BOOK)
    aggregator.fold([start("run")])
    for numbers in (range(5_001, 6_030), range(1, 5_001), range(1, 6_030)):
        aggregator.fold([called("run", seq) for seq in numbers])
    assert aggregator.snapshot().total.function_calls == 6_029
    assert aggregator._runs["run"].ahead is None


# Reading


def test_a_snapshot_first_takes_what_its_sources_have_pending() -> None:
    aggregator = UsageAggregator(BOOK)
    pending: list[Event] = [start("run")]

    def catch_up() -> None:
        aggregator.fold(pending)
        pending.clear()

    aggregator.follow(catch_up)
    assert aggregator.snapshot().total.executions == 1
    pending.append(finish("run"))
    assert aggregator.snapshot().total.in_flight == 0
    aggregator.unfollow(catch_up)
    aggregator.unfollow(catch_up)
    pending.append(start("another"))
    assert aggregator.snapshot().total.executions == 1


def test_a_snapshot_does_not_change() -> None:
    aggregator = UsageAggregator(BOOK)
    aggregator.fold([start("run"), spent("run"), called("run", 2)])
    before = aggregator.snapshot()
    encoded = msgspec.json.encode(before)
    aggregator.fold([called("run", 3), spent("run", 4), finish("run", 5)])
    assert msgspec.json.encode(before) == encoded
    assert aggregator.snapshot() != before


@given(runs())
def test_a_run_in_flight_is_counted_as_such(run: list[Event]) -> None:
    finished = isinstance(run[-1], ExecutionFinished)
    row = folded(run).total
    assert row.executions == 1
    assert row.in_flight == (0 if finished else 1)
    assert row.successes + row.failures + row.cancelled + row.in_flight == 1


@pytest.mark.parametrize("status", Status)
def test_only_what_went_wrong_is_a_failure(status: Status) -> None:
    error = None if status is Status.OK else "SomeError"
    row = folded([start("run"), finish("run", 1, status=status, error_type=error)]).total
    failed = status in (Status.ERROR, Status.TIMEOUT, Status.BUDGET_EXCEEDED)
    assert (row.failures, row.cancelled) == (int(failed), int(status is Status.CANCELLED))
    assert row.errors_by_type == ({"SomeError": 1} if failed else {})


def test_what_a_row_says() -> None:
    events: list[Event] = [start("a"), spent("a", first_chunk_ns=2 * 10**7), called("a", 2), finish("a", 3)]
    events += [
        start("b"),
        spent("b", 1, provenance=Provenance.UNKNOWN, usage=None, error_type="TimeoutError"),
        spent("b", 2, provenance=Provenance.ESTIMATED, usage=Usage(5, 5)),
        AssistantRun(
            run_id="b",
            seq=3,
            time_ns=NOW,
            assistant="support",
            start_ns=NOW,
            duration_ns=10**8,
            status=Status.ERROR,
            thread_id="conv_1",
            thread="created",
        ),
        finish("b", 4, status=Status.TIMEOUT, error_type="RunTimeout", duration_ns=3 * 10**9),
        start("c"),
    ]
    row = folded(events).total
    assert (row.executions, row.successes, row.failures, row.in_flight) == (3, 1, 1, 1)
    assert row.by_status == {Status.OK: 1, Status.TIMEOUT: 1}
    assert row.errors_by_type == {"RunTimeout": 1}
    assert row.function_calls_by_name == {"refund": 1}
    assert (row.assistant_runs, row.threads_created, row.threads_resumed) == (1, 1, 0)
    assert (row.assistant_latency.count, row.assistant_latency.sum) == (1, 10**8)
    assert row.requests_by_provenance == {kind: 1 for kind in Provenance if kind is not Provenance.PARTIAL}
    assert row.usage_by_provenance == {Provenance.REPORTED: Usage(1000, 100), Provenance.ESTIMATED: Usage(5, 5)}
    assert row.usage == Usage(1005, 105)
    assert row.request_errors_by_type == {"TimeoutError": 1}
    assert row.cost == CostEstimate.between(BOOK.cost(spent("a")).low, None)
    assert row.p50 == 10**9
    assert row.p99 == 3 * 10**9
    assert row.first_chunk_latency.count == 1
    assert row.model_latency.count == 3


def test_what_a_row_says_of_retrievals() -> None:
    events = [start("run"), searched("run", 1), searched("run", 2, source="vs_1", documents=0, duration_ns=10**9)]
    events += [searched("run", 3, source="vs_1", documents=0, error_type="TimeoutError"), finish("run", 4)]
    statistics = folded(events)
    row = statistics.total
    assert row.retrievals_by_source == {"local": 1, "vs_1": 2}
    assert row.retrieval_errors_by_type == {"TimeoutError": 1}
    assert (row.retrievals, row.documents_found, row.empty_retrievals) == (3, 3, 1), "to fail is not to find nothing"
    assert (row.retrieval_latency.count, row.retrieval_latency.max) == (3, 10**9)
    assert str(statistics).endswith("\nretrievals: 3 (1 found nothing, 1 failed); documents found: 3")


def test_statistics_print_what_assistants_did() -> None:
    worked = [("created", 3 * 10**9), ("resumed", 2 * 10**9), ("resumed", 10**9)]
    events = [start("run")]
    for seq, (thread, duration_ns) in enumerate(worked, start=1):
        fields = {"thread": thread, "duration_ns": duration_ns, "start_ns": NOW, "status": Status.OK}
        events.append(event(AssistantRun, "run", seq, fields, assistant="support"))
    assert str(folded(events)).endswith("\nassistant runs: 3, p50 2 s; threads: 1 created, 2 resumed")


def test_a_row_of_an_older_version_has_defaults_for_what_is_new() -> None:
    older = b'{"executions": 2, "by_status": {"ok": 2}, "assistant_runs": 1, "cost": {"low": "1", "high": "1"}}'
    row = msgspec.json.decode(older, type=UsageRow)
    assert (row.assistant_runs, row.assistant_latency.count, row.assistant_latency.mean) == (1, 0, None)
    assert (row + folded([start("run")]).total).executions == 3


# Runs reported by hand


@given(st.lists(reported_runs(), max_size=5, unique_by=lambda event: event.run_id), st.data())
def test_each_reported_run_counts_once_by_what_is_known_of_it(told: list[RunReported], data: st.DataObject) -> None:
    split = data.draw(st.integers(0, len(told)))
    statistics = folded(told, told)
    assert folded(told[:split]) + folded(told[split:]) == statistics
    assert_groupings_agree(statistics)
    row, used = statistics.total, [event for event in told if event.usage is not None]
    assert (row.executions, row.in_flight) == (len(told), 0)
    assert row.successes == sum(event.status is Status.OK for event in told)
    assert row.usage == sum((event.usage for event in used if event.usage), start=Usage())
    assert row.requests == len(used)
    assert row.function_calls == sum(event.function_calls for event in told)
    assert row.assistant_runs == sum(event.assistant_runs for event in told)
    assert row.run_latency.count == sum(event.duration_ns is not None for event in told)
    alone = [event.duration_ns for event in told if event.assistant_runs == 1 and event.duration_ns is not None]
    assert (row.assistant_latency.count, row.assistant_latency.sum) == (len(alone), sum(alone))
    assert row.model_latency.count == row.function_latency.count == 0, "their times are not known"


def reported(run_id: str, **fields: Any) -> RunReported:
    usual = {"pattern": "routing", "framework": "openai", "status": Status.OK, "model": "gpt-6-luna"}
    return cast("RunReported", event(RunReported, run_id, 0, fields, **usual))


def test_a_reported_run_costs_what_its_tokens_do() -> None:
    whole = folded([reported("a", usage=Usage(1000, 100), function_calls=3)])
    assert whole.total.cost == BOOK.cost(spent("a"))
    assert whole.by_model()["gpt-6-luna"].usage == Usage(1000, 100)
    assert whole.total.function_calls_by_name == {REPORTED: 3}
    part = folded([reported("a", usage=Usage(1000), provenance=Provenance.PARTIAL)])
    assert part.total.cost.usd is None
    assert part.total.cost.high is None


def test_a_reported_run_that_cannot_be_priced_counts_not_at_all(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(PriceBook):
        def cost(self, event: TokenUsage) -> CostEstimate:
            raise ValueError(event.model)

    aggregator = UsageAggregator(Broken())
    aggregator.fold([reported("a", usage=Usage(1000, 100), function_calls=3)])
    statistics = aggregator.snapshot()
    assert (statistics.total, statistics.uncounted) == (UsageRow(), 1)
    [record] = caplog.records
    said = "event 0 of run a, a RunReported, could not be counted; more of them are only added up"
    assert record.getMessage() == said


def test_what_a_row_says_of_notices() -> None:
    def notice(seq: int, kind: str) -> Event:
        return cast("Event", event(Notice, "run", seq, {"kind": kind}, subject="daily", message="it nears its end"))

    statistics = folded([start("run"), notice(1, "budget"), notice(2, "model_retirement"), notice(3, "budget")])
    assert statistics.total.notices_by_kind == {"budget": 2, "model_retirement": 1}
    assert statistics.total.notices == 3
    assert str(statistics).endswith("\nnotices: 2 budget, 1 model_retirement")


def test_a_model_is_named_as_requested() -> None:
    statistics = folded([start("run"), spent("run", response_model="gpt-6-luna-2026-09-22")])
    assert list(statistics.by_model()) == ["gpt-6-luna"]


def test_statistics_print_as_a_table() -> None:
    statistics = folded(
        [start("a", "routing"), spent("a"), called("a", 2), finish("a", 3, duration_ns=1_234_567_890)],
        [start("b", "openai_rag"), spent("b", provenance=Provenance.UNKNOWN, usage=None)],
        [finish("b", 2, status=Status.CANCELLED, duration_ns=12_345_678)],
    )
    assert str(statistics).splitlines() == [
        "pattern     runs  failures      p50      p95  tokens in  cached  tokens out  tool calls         cost",
        "openai_rag     1         0  12.3 ms  12.3 ms          0       0           0           0      unknown",
        "routing        1         0   1.23 s   1.23 s      1,000       0         100           1    $0.000150",
        "total          2         0  12.3 ms   1.23 s      1,000       0         100           1  ≥ $0.000150",
        "cancelled, and no failures: 1 (of 2 runs)",
        "usage not reported by the API: 1 unknown (of 2 requests)",
    ]


def test_no_statistics_print_as_an_empty_table() -> None:
    lines = str(folded([])).splitlines()
    assert len(lines) == 2
    assert lines[1].split() == ["total", "0", "0", "-", "-", "0", "0", "0", "0", "$0.00"]


# Threads


def test_threads_may_fold_and_read_at_once() -> None:
    aggregator = UsageAggregator(BOOK)
    barrier = threading.Barrier(5)
    reads: list[int] = []

    def fold(name: str) -> None:
        barrier.wait()
        for number in range(300):
            run_id = f"{name}{number}"
            aggregator.fold([start(run_id), spent(run_id), finish(run_id, 2)])

    def read() -> None:
        barrier.wait()
        while not reads or reads[-1] < 1200:
            row = aggregator.snapshot().total
            assert row.in_flight == 0, "a batch is counted whole or not at all"
            assert row.requests == row.executions
            reads.append(row.executions)

    folding = [threading.Thread(target=fold, args=(name,)) for name in "abcd"]
    reading = threading.Thread(target=read)
    for thread in (*folding, reading):
        thread.start()
    for thread in (*folding, reading):
        thread.join()
    assert reads == sorted(reads)
    assert aggregator.snapshot().total.usage == Usage(1_200_000, 120_000)
