"""The engine's door: what callers, models and servers say is cleaned, cut, or refused by name; nothing raises later."""

import math
import time
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import msgspec
import pytest
from campaign_support import examples
from hypothesis import given
from hypothesis import strategies as st

from runmeter.engine import (
    JSON,
    MSGPACK,
    Budget,
    ConfigurationError,
    Engine,
    Event,
    FunctionCall,
    ModelRequest,
    Notice,
    PriceBook,
    Provenance,
    RunInfo,
    SystemClock,
    TokenUsage,
    Usage,
    UsageAggregator,
    current_execution,
)
from runmeter.engine.event_log import NAME, EventLog, read_events
from runmeter.engine.testing import Recorder
from runmeter.engine.validation.checks import ID_LIMIT, MOST, NAME_LIMIT, cut_text, sound_usage
from runmeter.telemetry import configure

HALF = "\ud800"
"""Half a surrogate pair: a `str` may hold it, UTF-8 may not."""
LONG = "x" * 1_000_000
REQUEST = ModelRequest(provider="openai", model="gpt-4.1-mini", max_output_tokens=100, bound=Usage(50, 100))


async def nothing(messages: object, context: object) -> str:
    return "done"


async def events_of(work: Callable[[], object], **options: Any) -> list[Event]:
    """The events of a run that does this work. Reading the statistics and encoding the events must not fail."""
    recorder = Recorder()

    async def pattern(messages: object, context: object) -> None:
        work()

    async with Engine(budgets=[Budget(tokens=10**9), Budget(usd="1000")]) as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        await engine.run(pattern, "", **options)
        statistics = engine.usage()
        assert statistics.uncounted == 0
        assert str(statistics.total.cost)
    for event in recorder.events:
        assert JSON.decode(JSON.encode(event)) == event
        assert MSGPACK.decode(MSGPACK.encode(event)) == event
        assert len(JSON.encode(event)) < 12 * ID_LIMIT
    return recorder.events


def call_of(events: list[Event]) -> TokenUsage:
    (call,) = (event for event in events if isinstance(event, TokenUsage))
    return call


# Counts


@pytest.mark.parametrize(
    ("usage", "right"),
    [
        (Usage(7, 1), Usage(7, 1)),
        (Usage("7", 1), Usage(7, 1)),  # type: ignore[arg-type]
        (Usage(7.0, 1), Usage(7, 1)),  # type: ignore[arg-type]
    ],
)
async def test_another_form_of_a_count_is_taken_for_it(usage: Usage, right: Usage) -> None:
    def work() -> None:
        with current_execution().model_call(REQUEST) as call:
            call.record(usage)

    call = call_of(await events_of(work))
    assert (call.usage, call.provenance) == (right, Provenance.REPORTED)
    assert call.usage is not None
    assert type(call.usage.input_tokens) is int


@pytest.mark.parametrize("wrong", [None, 1.5, -1, "many", True, math.nan, math.inf, 2**64, [1]])
async def test_what_is_no_count_is_left_out_and_said(wrong: Any) -> None:
    elsewhere = msgspec.structs.replace(REQUEST, server_address="10.0.0.1")

    def work() -> None:
        for request in (REQUEST, REQUEST, elsewhere, elsewhere, REQUEST):
            with current_execution().model_call(request) as call:
                call.record(Usage(wrong, 20), response_id="resp_1")

    events = await events_of(work)
    calls = [event for event in events if isinstance(event, TokenUsage)]
    assert len(calls) == 5
    for call in calls:
        assert (call.usage, call.provenance, call.bound) == (Usage(0, 20), Provenance.PARTIAL, Usage(50, 100))
        assert call.response_id == "resp_1"
    notices = [event for event in events if isinstance(event, Notice)]
    assert [(notice.kind, notice.subject) for notice in notices] == [
        ("usage", "gpt-4.1-mini at openai"),
        ("usage", "gpt-4.1-mini at 10.0.0.1"),
    ], "once for each model and server"
    assert all("input_tokens=" in notice.message for notice in notices)


async def test_a_usage_without_any_count_is_unknown() -> None:
    def work() -> None:
        with current_execution().model_call(REQUEST) as call:
            call.record(Usage(None, None))  # type: ignore[arg-type]

    call = call_of(await events_of(work))
    assert (call.usage, call.provenance, call.bound) == (None, Provenance.UNKNOWN, Usage(50, 100))


@pytest.mark.parametrize(
    "arguments", [(None,), ({"input_tokens": 1},), ("7",), (Usage(1, 1), "told"), (Usage(1, 1), Provenance.UNKNOWN)]
)
async def test_what_is_no_usage_or_no_provenance_is_refused_by_name(arguments: Any) -> None:
    def work() -> None:
        with current_execution().model_call(REQUEST) as call:
            with pytest.raises(ConfigurationError, match=r"Usage|provenance"):
                call.record(*arguments)
            call.record(Usage(1, 2), "reported")  # type: ignore[arg-type]

    assert call_of(await events_of(work)).provenance is Provenance.REPORTED


@given(st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), st.booleans()), max_size=13))
@examples(200)
def test_a_sound_usage_has_counts_alone(values: list[Any]) -> None:
    sound, wrong = sound_usage(Usage(*values))
    counts = [] if sound is None else [getattr(sound, name) for name in Usage.__struct_fields__]
    assert all(type(count) is int and 0 <= count <= MOST for count in counts)
    if sound is not None:
        assert sound_usage(sound) == (sound, ())
    assert sound is not None or wrong


def test_tokens_and_cost_are_added_together_or_not_at_all() -> None:
    aggregator = UsageAggregator()
    common: dict[str, Any] = {
        "provider": "openai",
        "operation": "chat",
        "model": "gpt-4.1-mini",
        "start_ns": 1,
        "duration_ns": 1,
    }

    def request(seq: int, usage: Usage) -> TokenUsage:
        return TokenUsage(
            run_id="1", seq=seq, time_ns=1, call_id=seq, provenance=Provenance.REPORTED, usage=usage, **common
        )

    aggregator.fold([request(0, Usage("7", 1)), request(1, Usage(10, 1))])  # type: ignore[arg-type]
    statistics = aggregator.snapshot()
    assert statistics.uncounted == 1
    assert (statistics.total.usage, statistics.total.requests) == (Usage(10, 1), 1)


# Texts


class Unsayable:
    def __str__(self) -> str:
        raise RuntimeError("it has no words")


@pytest.mark.parametrize("odd", [HALF + "a", LONG, f"{HALF}{LONG}", 5, b"bytes", ["x"], Unsayable()], ids=type)
async def test_names_and_ids_from_outside_fit_into_events(odd: Any, tmp_path: Path) -> None:
    def work() -> None:
        run = current_execution()
        with run.model_call(REQUEST) as call:
            call.record(
                Usage(1, 1), response_id=odd, response_model=odd, service_tier=odd, finish_reasons=(odd, "stop")
            )
        with run.function_call(odd, odd) as tool:
            tool.fail(odd, odd)
        with run.assistant_run(odd, odd, odd) as assistant:
            assistant.steps = odd
            assistant.thread_id = odd
        with run.retrieval(odd, requested=odd) as retrieval:
            retrieval.record(1)
        run.notice(odd, odd, odd)

    events = await events_of(work)
    assert len(events) == 8
    with EventLog(tmp_path / "events.jsonl") as log:
        log(events)
        assert log.skipped == 0
    assert list(read_events(tmp_path / "events.jsonl", lambda *_: pytest.fail("damaged"))) == events


async def test_a_callers_texts_fit_into_events_and_logs(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        async with Engine() as engine:
            engine.subscribe(log, name=NAME, lane="lossless")
            await engine.run(nothing, "", tags={HALF: LONG, LONG: HALF}, conversation_id=HALF + LONG)
        assert log.skipped == 0


async def test_two_long_names_stay_two() -> None:
    def work() -> None:
        for end in "ab":
            with current_execution().function_call(LONG + end):
                pass

    first, second = (event.name for event in await events_of(work) if isinstance(event, FunctionCall))
    assert first != second
    assert len(first) == len(second) == NAME_LIMIT
    assert first.startswith("xxx")
    assert "…" in first


@given(st.text(alphabet=st.characters(), max_size=40), st.integers(min_value=12, max_value=30))
def test_a_cut_text_is_short_valid_and_the_same_when_cut_again(text: str, limit: int) -> None:
    cut = cut_text(text, limit)
    assert len(cut) <= limit
    assert cut.encode().decode() == cut
    assert cut_text(cut, limit) == cut


# Arguments


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timeout": math.nan}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"timeout": 0}, "timeout must be positive"),
        ({"tags": ["tenant"]}, "tags"),
        ({"tags": {"tenant": 5}}, "tag"),
        ({"tags": {5: "acme"}}, "tag"),
        ({"tags": "acme"}, "tags"),
        ({"conversation_id": 5}, "conversation_id"),
    ],
)
async def test_arguments_of_a_run_are_refused_by_name(options: Any, named: str) -> None:
    async with Engine() as engine:
        with pytest.raises(ConfigurationError, match=named):
            await engine.run(nothing, "", **options)
        with pytest.raises(ConfigurationError, match=named):
            engine.stream(nothing, "", **options)
        if "conversation_id" not in options:
            with pytest.raises(ConfigurationError, match=named):
                await engine.map(nothing, ["", ""], **options)
        assert engine.usage().total.executions == 0


@pytest.mark.parametrize("wrong", [2.5, math.nan, 0, -1, "3", None, True])
async def test_numbers_of_things_are_whole(wrong: Any) -> None:
    async with Engine() as engine:
        with pytest.raises(ConfigurationError, match="concurrency"):
            await engine.map(nothing, [""], concurrency=wrong)
        with pytest.raises(ConfigurationError, match="buffer"):
            engine.stream(nothing, "", buffer=wrong)
        with pytest.raises(ConfigurationError, match="capacity"):
            engine.subscribe(lambda _: None, name="x", capacity=wrong)
    if wrong is not None:
        with pytest.raises(ConfigurationError, match="max_concurrent_runs"):
            Engine(max_concurrent_runs=wrong)


async def test_other_arguments_of_an_engine_are_refused_by_name() -> None:
    for wrong in (math.nan, -1, "30", None):
        with pytest.raises(ConfigurationError, match="drain_timeout"):
            Engine(drain_timeout=wrong)  # type: ignore[arg-type]
    async with Engine() as engine:
        with pytest.raises(ConfigurationError, match="inputs"):
            await engine.map(nothing, 5)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="subscriber"):
            engine.subscribe("print", name="x")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="unsubscribe"):
            engine.unsubscribe(None)  # type: ignore[arg-type]


class _Halfway:
    """A clock that tells one of two times."""

    def time_ns(self) -> int:
        return 0


WRONG: dict[str, list[Any]] = {
    "usage": [5, {}, UsageAggregator, "x", 0],
    "prices": [5, "prices.toml", PriceBook, {}, 0],
    "telemetry": [5, "http://collector", object(), configure, 0],
    "budgets": [5, 0, {}, Budget(usd=1), [5], (budget for budget in [Budget(usd=1)]), "x"],
    "ledger": [5, object(), 0],
    "max_concurrent_runs": ["3", [], 0.5],
    "assume_tier": [5, "", [], 0],
    "drain_timeout": ["30", None, []],
    "clock": [5, SystemClock, time.time, object(), _Halfway(), 0],
    "new_run_id": [5, "0" * 32, None, object()],
    "error_messages": [5, None, [], {}, "all"],
}


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_of_a_wrong_type_is_refused_by_name_whichever_it_is(name: str) -> None:
    assert set(WRONG) == set(signature(Engine).parameters)
    for wrong in WRONG[name]:
        with pytest.raises(ConfigurationError, match=name):
            Engine(**{name: wrong})


def test_the_engines_parts_refuse_what_they_cannot_use() -> None:
    wrong: Any
    for wrong in (5, 0, {}, b"x"):
        with pytest.raises(ConfigurationError, match="price file"):
            PriceBook(wrong)
        with pytest.raises(ConfigurationError, match="prices"):
            UsageAggregator(wrong)
    for wrong in ("8", 7, None, 8.5):
        with pytest.raises(ConfigurationError, match="max_keys"):
            UsageAggregator(max_keys=wrong)


def test_requests_and_runs_made_by_hand_are_sound() -> None:
    request = ModelRequest(
        provider="openai",
        model=LONG,
        service_tier=HALF,
        max_output_tokens="7",  # type: ignore[arg-type]
        temperature="warm",  # type: ignore[arg-type]
        server_port=-1,
        bound=Usage(None, 1),  # type: ignore[arg-type]
    )
    assert len(request.model) == NAME_LIMIT
    assert request.service_tier == "?"
    assert (request.max_output_tokens, request.temperature, request.server_port, request.bound) == (7, None, None, None)
    with pytest.raises(ConfigurationError, match="model"):
        ModelRequest(provider="openai", model=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="operation"):
        RunInfo("support", operation="guess")  # type: ignore[arg-type]
    assert len(RunInfo(LONG).pattern) == NAME_LIMIT
