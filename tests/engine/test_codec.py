"""Events to bytes and back, and logs from other versions."""

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import reported_runs, run_families, wild_usages

from runmeter.engine import (
    JSON,
    MSGPACK,
    Codec,
    Event,
    ExecutionStarted,
    Notice,
    Provenance,
    Retrieval,
    RunReported,
    Status,
    TokenUsage,
    TraceContext,
    UnknownEvent,
    Usage,
    UsageAggregator,
)
from runmeter.engine.events import KnownEvent

FORMATS = pytest.mark.parametrize(
    ("codec", "encode", "decode"),
    [(JSON, msgspec.json.encode, msgspec.json.decode), (MSGPACK, msgspec.msgpack.encode, msgspec.msgpack.decode)],
    ids=["json", "msgpack"],
)
RUN = "0123456789abcdef0123456789abcdef"


@FORMATS
@given(family=run_families())
def test_round_trip(codec: Codec, encode: Any, decode: Any, family: list[list[Event]]) -> None:
    for event in (event for run in family for event in run):
        assert codec.decode(codec.encode(event)) == event


@FORMATS
@given(event=reported_runs())
def test_round_trip_of_a_reported_run(codec: Codec, encode: Any, decode: Any, event: RunReported) -> None:
    assert codec.decode(codec.encode(event)) == event


@FORMATS
def test_the_least_that_a_reported_run_says(codec: Codec, encode: Any, decode: Any) -> None:
    least = {"type": "run_reported", "run_id": RUN, "seq": 0, "time_ns": 5, "pattern": "p", "framework": "f"}
    least |= {"status": "ok"}
    event = RunReported(run_id=RUN, seq=0, time_ns=5, pattern="p", framework="f", status=Status.OK)
    assert codec.decode(encode(least)) == event
    assert decode(codec.encode(event)) == least


@FORMATS
def test_an_event_of_a_newer_version_is_kept(codec: Codec, encode: Any, decode: Any) -> None:
    newer = {"type": "handoff", "run_id": RUN, "seq": 3, "time_ns": 5, "target": "billing", "depth": [1, {"a": None}]}
    event = codec.decode(encode(newer))
    assert isinstance(event, UnknownEvent)
    assert (event.kind, event.run_id, event.seq, event.time_ns) == ("handoff", RUN, 3, 5)
    assert decode(codec.encode(event)) == newer


@FORMATS
def test_a_field_of_a_newer_version_is_ignored(codec: Codec, encode: Any, decode: Any) -> None:
    newer = {"type": "execution_finished", "run_id": RUN, "seq": 1, "time_ns": 5, "status": "ok", "duration_ns": 2}
    assert codec.decode(encode(newer | {"mood": "good"})) == codec.decode(encode(newer))


@FORMATS
def test_an_event_of_an_older_version_gets_the_defaults(codec: Codec, encode: Any, decode: Any) -> None:
    """The least that was ever written for this kind: the fields without a default."""
    older = {
        "type": "execution_started",
        "run_id": RUN,
        "seq": 0,
        "time_ns": 5,
        "pattern": "p",
        "framework": "f",
        "root_run_id": RUN,
    }
    event = codec.decode(encode(older))
    assert event == ExecutionStarted(run_id=RUN, seq=0, time_ns=5, pattern="p", framework="f", root_run_id=RUN)


@FORMATS
def test_the_least_that_a_retrieval_says(codec: Codec, encode: Any, decode: Any) -> None:
    least = {"type": "retrieval", "run_id": RUN, "seq": 1, "time_ns": 5, "source": "local"}
    least |= {"start_ns": 3, "duration_ns": 2, "documents": 0}
    event = Retrieval(run_id=RUN, seq=1, time_ns=5, source="local", start_ns=3, duration_ns=2, documents=0)
    assert codec.decode(encode(least)) == event
    assert decode(codec.encode(event)) == least


@FORMATS
def test_a_notice_says_what_it_is_about(codec: Codec, encode: Any, decode: Any) -> None:
    written = {"type": "notice", "run_id": RUN, "seq": 1, "time_ns": 5}
    written |= {"kind": "budget", "subject": "daily", "message": "$8 of $10 spent"}
    event = Notice(run_id=RUN, seq=1, time_ns=5, kind="budget", subject="daily", message="$8 of $10 spent")
    assert codec.decode(encode(written)) == event
    assert decode(codec.encode(event)) == written


@FORMATS
@pytest.mark.parametrize(
    "broken",
    [
        {"type": "execution_finished", "run_id": RUN},
        {"type": "execution_finished", "run_id": RUN, "seq": "x", "time_ns": 1, "status": "ok", "duration_ns": 1},
        {"type": "execution_finished", "run_id": RUN, "seq": 1.5, "time_ns": 1, "status": "ok", "duration_ns": 1},
        {"type": "retrieval", "run_id": RUN, "seq": 1, "time_ns": 1, "start_ns": 1, "duration_ns": 1, "documents": 1},
        {"type": "notice", "run_id": RUN, "seq": 1, "time_ns": 1, "kind": "budget", "subject": "daily"},
        {"type": "handoff", "run_id": RUN},
        {"type": "handoff", "run_id": 3, "seq": 1, "time_ns": 1},
        {"type": 7, "run_id": RUN, "seq": 1, "time_ns": 1},
        {},
        [1, 2],
        "text",
    ],
)
def test_what_is_no_event_is_refused(codec: Codec, encode: Any, decode: Any, broken: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        codec.decode(encode(broken))


FINISHED = {"type": "execution_finished", "run_id": RUN, "seq": 1, "time_ns": 5, "status": "ok", "duration_ns": 2}
REQUESTED = {"type": "token_usage", "run_id": RUN, "seq": 1, "time_ns": 5, "call_id": 1, "provider": "openai"}
REQUESTED |= {"operation": "chat", "model": "m", "provenance": "reported", "start_ns": 1, "duration_ns": 2}
REQUESTED |= {"usage": {"input_tokens": 100}}


@FORMATS
@pytest.mark.parametrize(
    "newer",
    [
        FINISHED | {"status": "suspended"},
        FINISHED | {"duration_ns": 2.0},
        FINISHED | {"duration_ns": None},
        FINISHED | {"seq": 1.0, "time_ns": 5.0},
        FINISHED | {"error_type": {"code": 5}},
        REQUESTED | {"provenance": "audited"},
        REQUESTED | {"attempt": None},
        REQUESTED | {"usage": {"input_tokens": 1.0}},
        REQUESTED | {"usage": {"input_tokens": None}},
        REQUESTED | {"usage": {"input_tokens": 1, "video_tokens": 7}},
    ],
)
def test_a_value_of_a_newer_version_is_kept_and_counted(codec: Codec, encode: Any, decode: Any, newer: Any) -> None:
    event = codec.decode(encode(newer))
    assert isinstance(event, UnknownEvent)
    assert (event.kind, event.run_id, event.seq, event.time_ns) == (newer["type"], RUN, 1, 5)
    assert type(event.seq) is type(event.time_ns) is int
    assert codec.encode(event) == encode(newer)
    aggregator = UsageAggregator()
    aggregator.fold([event])
    statistics = aggregator.snapshot()
    assert (statistics.unknown_events, statistics.uncounted) == (1, 0)
    assert "newer version" in str(statistics)
    assert (statistics + statistics).unknown_events == 2


GOLDEN = Path(__file__).parents[1] / "support" / "data" / "events-1"
"""What this version writes: each kind of event with all of its fields, and with those alone that have no default; in
JSON (`.jsonl`) and in msgpack (`.hex`); and the defaults. They never change: what is added gets files of its own."""


def test_the_bytes_of_each_kind_of_event_stay_as_they_are() -> None:
    as_json = GOLDEN.with_suffix(".jsonl").read_bytes().splitlines()
    as_msgpack = [bytes.fromhex(line) for line in GOLDEN.with_suffix(".hex").read_text().splitlines()]
    events = [JSON.decode(line) for line in as_json]
    assert {type(event) for event in events} == set(get_args(KnownEvent))
    assert [JSON.encode(event) for event in events] == as_json
    assert [MSGPACK.encode(event) for event in events] == as_msgpack
    assert [MSGPACK.decode(line) for line in as_msgpack] == events


def test_no_default_changes() -> None:
    pinned = json.loads(GOLDEN.with_suffix(".json").read_text())
    for kind in (*get_args(KnownEvent), Usage, TraceContext):
        least = {field.name: field for field in msgspec.structs.fields(kind) if not field.required}
        defaults = {
            name: field.default_factory() if callable(field.default_factory) else field.default
            for name, field in least.items()
        }
        for name, value in pinned[kind.__name__].items():
            assert json.loads(msgspec.json.encode(defaults[name])) == value, (kind, name)


@FORMATS
def test_what_nests_too_deep_is_refused_as_documented(codec: Codec, encode: Any, decode: Any) -> None:
    deep = b"[" * 100_000 if codec is JSON else b"\x91" * 100_000
    with pytest.raises(msgspec.DecodeError):
        codec.decode(deep)


@FORMATS
@given(data=st.binary(max_size=40))
def test_rubbish_never_raises_anything_else(codec: Codec, encode: Any, decode: Any, data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        codec.decode(data)


def test_json_is_readable_and_says_only_what_is_known() -> None:
    event = TokenUsage(
        run_id=RUN,
        seq=2,
        time_ns=7,
        call_id=1,
        provider="openai",
        operation="chat",
        model="gpt-6-luna",
        provenance=Provenance.REPORTED,
        usage=Usage(input_tokens=10, output_tokens=5),
        start_ns=3,
        duration_ns=4,
    )
    assert msgspec.json.decode(JSON.encode(event)) == {
        "type": "token_usage",
        "run_id": RUN,
        "seq": 2,
        "time_ns": 7,
        "call_id": 1,
        "provider": "openai",
        "operation": "chat",
        "model": "gpt-6-luna",
        "provenance": "reported",
        "usage": {"input_tokens": 10, "output_tokens": 5},
        "start_ns": 3,
        "duration_ns": 4,
    }


@given(wild_usages, wild_usages)
def test_adding_usage_adds_every_field(one: Usage, other: Usage) -> None:
    total = msgspec.structs.asdict(one + other)
    assert total == {
        name: msgspec.structs.asdict(one)[name] + msgspec.structs.asdict(other)[name]
        for name in Usage.__struct_fields__
    }
    assert one + Usage() == one
