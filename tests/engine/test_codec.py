"""Events to bytes and back, and logs from other versions."""

from typing import Any

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
    UnknownEvent,
    Usage,
)

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
        {"type": "execution_finished", "run_id": RUN, "seq": 1, "time_ns": 1, "status": "fine", "duration_ns": 1},
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
