"""Events to spans: what each says, and that the tree they make is well-formed whatever happens."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from decimal import Decimal
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags
from semconv_check import REGISTRY, check_span
from telemetry_support import Captured, captured, ids, no_variables

from runmeter.engine import (
    AssistantRun,
    CostEstimate,
    Engine,
    Event,
    Execution,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    ModelRequest,
    Provenance,
    Retrieval,
    RunInfo,
    RunTimeout,
    Status,
    TokenUsage,
    TraceContext,
    UnknownEvent,
    Usage,
    current_execution,
)
from runmeter.engine.testing import ManualClock
from runmeter.telemetry import semconv

__all__ = ["captured", "no_variables"]

LUNA = ModelRequest(provider="openai", model="gpt-6-luna")
START_NS = 1_800_000_000_000_000_000
SECOND = 1_000_000_000


class ProviderError(Exception):
    """As the openai client's errors carry the API's code."""

    code = "rate_limit_exceeded"


def test_every_name_of_theirs_is_in_the_registry() -> None:
    names = {value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str)}
    theirs = {name for name in names if name.startswith(("gen_ai.", "openai.", "error.", "server."))}
    assert len(theirs) > 30
    assert theirs <= {*REGISTRY.attributes, *REGISTRY.external_attributes}
    assert REGISTRY.commit == semconv.CONVENTIONS_COMMIT
    assert REGISTRY.schema_url == semconv.SCHEMA_URL


@pytest.mark.parametrize(
    ("name", "kind", "attributes", "wrong"),
    [
        ("chat m", SpanKind.CLIENT, {}, "provider.name is required"),
        ("chat m", SpanKind.INTERNAL, {"gen_ai.provider.name": "p"}, "no span type"),
        ("chat", SpanKind.CLIENT, {"gen_ai.provider.name": "p"}, "is not named by"),
        ("chat m", SpanKind.CLIENT, {"gen_ai.provider.name": "p", "gen_ai.usage.cost": 1.0}, "is not defined there"),
        ("chat m", SpanKind.CLIENT, {"gen_ai.provider.name": "p", "gen_ai.tool.name": "t"}, "is not defined there"),
        ("chat m", SpanKind.CLIENT, {"gen_ai.provider.name": "p", "gen_ai.request.top_k": 1.0}, "not int"),
        ("chat m", SpanKind.CLIENT, {"gen_ai.provider.name": "p", "openai.api.type": "responses"}, "not defined"),
        ("chat m", SpanKind.CLIENT, {"gen_ai.provider.name": "p", "error.type": "x"}, "disagree"),
    ],
)
def test_the_check_finds_what_is_wrong(name: str, kind: SpanKind, attributes: dict[str, Any], wrong: str) -> None:
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", **attributes}
    found = check_span(ReadableSpan(name, SpanContext(1, 1, False), attributes=attributes, kind=kind))
    assert wrong in "\n".join(found)


def test_a_request_says_all_the_conventions_have_a_name_for(captured: Captured) -> None:
    clock = ManualClock()
    request = ModelRequest(
        provider="openai",
        model="gpt-6-luna",
        api="responses",
        stream=True,
        service_tier="priority",
        max_output_tokens=500,
        temperature=0.5,
        previous_response_id="resp_0",
        server_address="api.openai.com",
        server_port=443,
    )
    with (
        Execution(captured.runtime(clock), RunInfo("support", conversation_id="conv_1")) as run,
        run.model_call(request, attempt=2) as call,
    ):
        clock.advance(0.25)
        call.first_chunk()
        clock.advance(1)
        call.record(
            Usage(1000, 200, cache_read_tokens=600, reasoning_tokens=50, audio_input_tokens=7, web_searches=2),
            response_id="resp_1",
            response_model="gpt-6-luna-2026-09-01",
            service_tier="default",
            finish_reasons=("stop",),
        )
    captured.receive()
    span = captured.span("chat gpt-6-luna")
    attributes = dict(span.attributes or {})
    cost = attributes.pop("runmeter.cost.usd", None)
    assert cost is None or isinstance(cost, float)
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-6-luna",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 500,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.previous_response.id": "resp_0",
        "gen_ai.conversation.id": "conv_1",
        "gen_ai.response.id": "resp_1",
        "gen_ai.response.model": "gpt-6-luna-2026-09-01",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 200,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.reasoning.output_tokens": 50,
        "gen_ai.usage.audio.input_tokens": 7,
        "openai.api.type": "responses",
        "openai.request.service_tier": "priority",
        "openai.response.service_tier": "default",
        "server.address": "api.openai.com",
        "server.port": 443,
        "runmeter.run.id": run.run_id,
        "runmeter.pattern": "support",
        "runmeter.attempt": 2,
        "runmeter.usage.provenance": "reported",
        "runmeter.usage.web_searches": 2,
    }
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert (span.start_time, span.end_time) == (START_NS, START_NS + round(1.25 * SECOND))


def test_a_plain_request_says_nothing_it_does_not_know(captured: Captured) -> None:
    request = ModelRequest(provider="vllm", model="llama", api="responses", service_tier="flex")
    with captured.execution() as run, run.model_call(request):
        pass
    captured.receive()
    attributes = captured.span("chat llama").attributes or {}
    assert set(attributes) == {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "runmeter.run.id",
        "runmeter.pattern",
        "runmeter.attempt",
        "runmeter.usage.provenance",
    }
    assert attributes["runmeter.usage.provenance"] == "unknown"


def test_the_tier_that_says_nothing_is_not_reported(captured: Captured) -> None:
    request = ModelRequest(provider="openai", model="gpt-6-luna", service_tier="auto")
    with captured.execution() as run, run.model_call(request):
        pass
    captured.receive()
    assert "openai.request.service_tier" not in (captured.span("chat gpt-6-luna").attributes or {})


def test_embeddings_say_what_embeddings_may(captured: Captured) -> None:
    request = ModelRequest(
        provider="openai", model="text-embedding-3-small", operation="embeddings", api="responses", service_tier="flex"
    )
    with captured.execution(conversation_id="conv_1") as run, run.model_call(request) as call:
        call.record(Usage(10), response_id="r", response_model="text-embedding-3-small", service_tier="default")
    captured.receive()
    attributes = captured.span("embeddings text-embedding-3-small").attributes or {}
    assert {name for name in attributes if not name.startswith("runmeter.")} == {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.usage.input_tokens",
    }


def test_a_request_that_failed_has_its_code_and_message(captured: Captured) -> None:
    with captured.execution() as run:
        with suppress(ProviderError), run.model_call(LUNA):
            raise ProviderError("slow down")
        with run.model_call(LUNA, attempt=2) as call:
            call.record(Usage(1, 1))
    captured.receive()
    failed, succeeded = (span for span in captured.spans if span.name == "chat gpt-6-luna")
    assert (failed.attributes or {})["error.type"] == "rate_limit_exceeded"
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "slow down")
    assert "gen_ai.response.finish_reasons" not in (failed.attributes or {})  # no answer had begun
    assert succeeded.status.status_code is StatusCode.UNSET
    assert captured.span("invoke_agent support").status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("cut_by", [ConnectionError("gone"), None])
def test_a_cut_stream_ends_by_error(captured: Captured, cut_by: Exception | None) -> None:
    request = ModelRequest(provider="openai", model="gpt-6-luna", stream=True)
    with captured.execution() as run, suppress(ConnectionError), run.model_call(request) as call:
        call.first_chunk()
        call.record(Usage(10, 5), Provenance.PARTIAL)
        if cut_by is not None:
            raise cut_by
    captured.receive()
    attributes = captured.span("chat gpt-6-luna").attributes or {}
    assert attributes["gen_ai.response.finish_reasons"] == ("error",)
    assert attributes["runmeter.usage.provenance"] == "partial"
    assert attributes["gen_ai.usage.output_tokens"] == 5
    assert "runmeter.cost.usd" not in attributes


def test_a_tool_says_which_and_for_whom(captured: Captured) -> None:
    with captured.execution(conversation_id="conv_1") as run:
        with run.function_call("find_parcel", "call_7"):
            pass
        with suppress(LookupError), run.function_call("find_parcel"):
            raise LookupError("no such parcel")
    captured.receive()
    found, missed = (span for span in captured.spans if span.name == "execute_tool find_parcel")
    assert dict(found.attributes or {}) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "find_parcel",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "call_7",
        "gen_ai.agent.name": "support",
        "gen_ai.conversation.id": "conv_1",
        "runmeter.run.id": run.run_id,
        "runmeter.pattern": "support",
    }
    assert found.kind is SpanKind.INTERNAL
    assert (missed.attributes or {})["error.type"] == "LookupError"
    assert missed.status.description == "no such parcel"


def test_an_assistant_is_an_agent_on_a_conversation(captured: Captured) -> None:
    with captured.execution(name="desk") as run, run.assistant_run("clerk", thread="created") as assistant:
        assistant.thread_id = "conv_9"
        assistant.steps = 3
    captured.receive()
    span = captured.span("invoke_agent clerk")
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "clerk",
        "gen_ai.conversation.id": "conv_9",
        "runmeter.run.id": run.run_id,
        "runmeter.pattern": "desk",
        "runmeter.assistant.status": "ok",
        "runmeter.assistant.steps": 3,
        "runmeter.assistant.thread": "created",
    }
    assert span.kind is SpanKind.INTERNAL


def test_a_retrieval_says_where_and_how_much_and_never_what(captured: Captured) -> None:
    clock = ManualClock()
    with Execution(captured.runtime(clock), RunInfo("support", conversation_id="conv_1")) as run:
        clock.advance(1)
        with run.retrieval("vs_1", requested=5) as search:
            clock.advance(0.5)
            search.record(3, 0.75)
        with suppress(ProviderError), run.retrieval("local"):
            raise ProviderError("slow down")
    captured.receive()
    found, failed = captured.span("retrieval vs_1"), captured.span("retrieval local")
    assert dict(found.attributes or {}) == {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": "vs_1",
        "gen_ai.retrieval.top_k": 5,
        "runmeter.retrieval.documents": 3,
        "runmeter.retrieval.top_score": 0.75,
        "runmeter.run.id": run.run_id,
        "runmeter.pattern": "support",
    }
    assert found.kind is SpanKind.CLIENT
    assert found.status.status_code is StatusCode.UNSET
    assert (found.start_time, found.end_time) == (START_NS + SECOND, START_NS + round(1.5 * SECOND))
    assert ids(found)[2] == ids(captured.span("invoke_agent support"))[1]
    assert dict(failed.attributes or {}) == {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": "local",
        "runmeter.retrieval.documents": 0,
        "runmeter.run.id": run.run_id,
        "runmeter.pattern": "support",
        "error.type": "rate_limit_exceeded",
    }
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "slow down")


def test_a_notice_is_an_event_on_its_run_s_span(captured: Captured) -> None:
    clock = ManualClock()
    with Execution(captured.runtime(clock), RunInfo("support")) as run, run.child(RunInfo("worker")) as child:
        clock.advance(1)
        child.notice("budget", "$10 per tenant [\ud800]", "$8 of $10 spent")
    captured.receive()
    assert len(captured.spans) == 2, "no span of its own"
    assert captured.span("invoke_agent support").events == ()
    [event] = captured.span("invoke_agent worker").events
    assert (event.name, event.timestamp) == ("runmeter.notice", START_NS + SECOND)
    assert dict(event.attributes or {}) == {
        "runmeter.notice.kind": "budget",
        "runmeter.notice.subject": "$10 per tenant [?]",
        "runmeter.notice.message": "$8 of $10 spent",
    }


def test_a_flood_of_notices_is_cut(captured: Captured) -> None:
    with captured.execution() as run:
        for number in range(1_000):
            run.notice("budget", "daily", str(number))
    captured.receive()
    events = captured.span("invoke_agent support").events
    assert len(events) == 128
    assert (events[0].attributes or {})["runmeter.notice.message"] == "0"


def priced(event: TokenUsage) -> CostEstimate:
    """A tenth of a dollar for each token that is reported."""
    if event.usage is None or event.provenance is not Provenance.REPORTED:
        return CostEstimate(high_units=None)
    dollars = Decimal(event.usage.total_tokens) / 10
    return CostEstimate.between(dollars, dollars)


@pytest.mark.usefixtures("no_variables")
def test_a_run_sums_its_own_requests_and_nobody_elses() -> None:
    captured = Captured(price=priced)
    with captured.execution(tags={"tenant": "acme"}, framework="langgraph") as run:
        with run.model_call(LUNA) as call:
            call.record(Usage(100, 10), finish_reasons=("tool_call",))
        helper = RunInfo("helper", operation="invoke_workflow")
        with run.function_call("tool"), run.child(helper) as child, child.model_call(LUNA) as call:
            call.record(Usage(1000, 100))
        with run.model_call(LUNA) as call:
            call.record(Usage(10, 1), finish_reasons=("stop",))
    captured.receive()
    assert dict(captured.span("invoke_agent support").attributes or {}) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "support",
        "gen_ai.usage.input_tokens": 110,
        "gen_ai.usage.output_tokens": 11,
        "gen_ai.response.finish_reasons": ("stop",),
        "runmeter.run.id": run.run_id,
        "runmeter.run.status": "ok",
        "runmeter.run.cost.usd": 12.1,
        "runmeter.run.inference_calls": 2,
        "runmeter.run.tool_calls": 1,
        "runmeter.total.cost.usd": 122.1,
        "runmeter.total.cost.usd_low": 122.1,
        "runmeter.total.cost.usd_high": 122.1,
        "runmeter.total.input_tokens": 1110,
        "runmeter.total.output_tokens": 111,
        "runmeter.total.requests": 3,
        "runmeter.total.tool_calls": 1,
        "runmeter.usage.provenance": "reported",
        "runmeter.pattern": "support",
        "runmeter.framework": "langgraph",
        "runmeter.tag.tenant": "acme",
    }
    workflow = captured.span("invoke_workflow helper").attributes or {}
    assert workflow["gen_ai.workflow.name"] == "helper"
    assert workflow["runmeter.run.parent_id"] == workflow["runmeter.run.root_id"] == run.run_id
    assert workflow["runmeter.tag.tenant"] == "acme"
    assert workflow["runmeter.run.cost.usd"] == 110
    costs = [float(str((span.attributes or {}).get("runmeter.cost.usd", 0))) for span in captured.spans]
    assert sum(costs) == pytest.approx(122.1)  # each dollar once, however runs nest


@pytest.mark.usefixtures("no_variables")
def test_what_one_request_leaves_unknown_the_run_does_not_claim() -> None:
    captured = Captured(price=priced)
    with captured.execution() as run:
        with run.model_call(LUNA) as call:
            call.record(Usage(100, 10))
        with run.model_call(LUNA):
            pass
    captured.receive()
    attributes = captured.span("invoke_agent support").attributes or {}
    assert attributes["runmeter.usage.provenance"] == "unknown"
    assert attributes["gen_ai.usage.input_tokens"] == 100
    assert "runmeter.run.cost.usd" not in attributes
    assert attributes["runmeter.total.cost.usd_low"] == 11
    assert "runmeter.total.cost.usd" not in attributes
    assert "runmeter.total.cost.usd_high" not in attributes
    assert (attributes["runmeter.total.requests"], attributes["runmeter.total.unknown_requests"]) == (2, 1)
    assert attributes["runmeter.total.input_tokens"] == 100


async def test_how_a_run_ended_is_its_spans_status(captured: Captured) -> None:
    async def pattern(messages: Any, context: Any) -> None:
        raise ProviderError("no")

    async def slow(messages: Any, context: Any) -> None:
        await anyio.sleep_forever()

    async with Engine(telemetry=captured.telemetry) as engine:
        with pytest.raises(ProviderError):
            await engine.run(pattern, "")
        with pytest.raises(RunTimeout):
            await engine.run(slow, "", timeout=0.01)
    failed, late = captured.spans
    assert (failed.attributes or {})["runmeter.run.status"] == "error"
    assert (failed.attributes or {})["error.type"] == "rate_limit_exceeded"
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, None)  # of ours, the type
    assert (late.attributes or {})["runmeter.run.status"] == "timeout"
    assert (late.attributes or {})["error.type"] == "RunTimeout"


def test_a_status_that_came_without_an_error_is_the_errors_type(captured: Captured) -> None:
    trace = TraceContext("1" * 32, "2" * 16)
    event = ExecutionFinished(
        run_id="a" * 32, seq=5, time_ns=START_NS, trace=trace, status=Status.BUDGET_EXCEEDED, duration_ns=SECOND
    )
    captured.events.append(event)
    captured.receive()
    [span] = captured.spans
    assert (span.attributes or {})["error.type"] == "budget_exceeded"


def test_a_run_whose_start_was_dropped_has_a_span_without_a_name(captured: Captured) -> None:
    with captured.execution() as run, run.model_call(LUNA) as call:
        call.record(Usage(5, 5))
    assert run.trace is not None
    captured.events = [event for event in captured.events if not isinstance(event, ExecutionStarted)]
    captured.receive()
    span = captured.span("invoke_agent")
    attributes = span.attributes or {}
    assert ids(span)[1] == int(run.trace.span_id, 16)
    assert "runmeter.pattern" not in attributes
    assert "gen_ai.usage.input_tokens" not in attributes  # a sum over what happened to come would be a guess
    assert captured.span("chat gpt-6-luna").parent is not None


def test_a_run_that_lost_an_event_claims_no_sums(captured: Captured) -> None:
    with captured.execution() as run:
        for _ in range(2):
            with run.model_call(LUNA) as call:
                call.record(Usage(5, 5))
    captured.events.remove(next(event for event in captured.events if isinstance(event, TokenUsage)))
    captured.receive()
    attributes = captured.span("invoke_agent support").attributes or {}
    assert attributes["runmeter.pattern"] == "support"
    assert not [name for name in attributes if "usage" in name or "cost" in name or "calls" in name]
    assert not [name for name in captured.measured() if name.endswith("_calls")]


def test_events_without_ids_give_no_span_and_unknown_events_give_nothing(captured: Captured) -> None:
    run_id = "a" * 32
    captured.events += [
        ExecutionStarted(run_id=run_id, seq=0, time_ns=1, pattern="p", framework="f", root_run_id=run_id),
        UnknownEvent(run_id=run_id, seq=1, time_ns=2, kind="handoff", fields={}),
        FunctionCall(run_id=run_id, seq=2, time_ns=3, name="tool", start_ns=2, duration_ns=1),
        ExecutionFinished(run_id=run_id, seq=3, time_ns=4, status=Status.OK, duration_ns=3),
    ]
    captured.receive()
    assert captured.spans == []
    [calls] = captured.measured()["gen_ai.invoke_agent.tool_calls"]
    assert calls.sum == 1
    assert captured.telemetry.statistics().open_runs == 0


@pytest.mark.usefixtures("no_variables")
def test_runs_whose_end_never_comes_do_not_pile_up() -> None:
    captured = Captured(max_open_runs=10)
    for _ in range(100):
        with captured.execution():
            pass
    captured.events = [event for event in captured.events if not isinstance(event, ExecutionFinished)]
    captured.receive()
    statistics = captured.telemetry.statistics()
    assert (statistics.open_runs, statistics.forgotten_runs) == (10, 90)


def test_an_event_that_cannot_be_told_is_counted_and_the_next_one_is_told(
    captured: Captured, caplog: pytest.LogCaptureFixture
) -> None:
    with captured.execution() as run:
        with run.function_call("tool"):
            pass
        with run.function_call("tool"):
            pass
    broken = TraceContext("not hexadecimal", "either")
    captured.telemetry.receive(
        [
            FunctionCall(run_id=run.run_id, seq=9, time_ns=1, trace=broken, name="t", start_ns=1, duration_ns=1)
            for _ in range(3)
        ]
        + list(captured.events)
    )
    assert captured.telemetry.statistics().errors == 3
    assert len(captured.spans) == 3
    assert len(caplog.records) == 1


def test_text_that_is_no_unicode_is_made_encodable(captured: Captured) -> None:
    with suppress(ValueError), captured.execution(tags={"file": "caf\udce9"}):
        raise ValueError("caf\udce9")
    captured.receive()
    [span] = captured.spans
    assert span.status.description == (span.attributes or {})["runmeter.tag.file"] == "caf?"


@pytest.mark.usefixtures("no_variables")
def test_the_sdks_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "20")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "12")
    captured = Captured()
    with captured.execution(tags={f"tag{index}": "x" * 100 for index in range(30)}):
        pass
    captured.receive()
    [span] = captured._exporter.get_finished_spans()
    assert len(span.attributes or {}) == 20
    assert span.dropped_attributes > 10
    assert max(len(value) for value in (span.attributes or {}).values() if isinstance(value, str)) == 12


def test_a_span_says_where_it_comes_from(captured: Captured) -> None:
    with captured.execution():
        pass
    captured.receive()
    [span] = captured.spans
    about = captured.tracer_provider.resource
    assert (span.resource, hash(span.resource)) == (about, hash(about))  # so that spans of others stand beside it
    assert span.instrumentation_scope is not None
    assert (span.instrumentation_scope.name, span.instrumentation_scope.schema_url) == ("runmeter", semconv.SCHEMA_URL)


# Any program


@st.composite
def programs(draw: st.DrawFn, depth: int = 3) -> list[tuple[str, bool, Any]]:
    """What a run does: kind, whether it fails, and what it does inside."""
    kinds = ["model", "tool", "assistant", "retrieval", "child"]
    inner = programs(depth - 1) if depth else st.just([])
    return draw(st.lists(st.tuples(st.sampled_from(kinds), st.booleans(), inner), max_size=3))


def perform(run: Execution, program: list[tuple[str, bool, Any]]) -> None:
    for kind, fails, inner in program:
        with suppress(ProviderError), opened(run, kind) as inside:
            perform(inside, inner)
            if fails:
                raise ProviderError(kind)


@contextmanager
def opened(run: Execution, kind: str) -> Iterator[Execution]:
    if kind == "child":
        with run.child(RunInfo("child", operation="invoke_workflow")) as child:
            yield child
        return
    operations: dict[str, AbstractContextManager[Any]] = {
        "model": run.model_call(LUNA),
        "tool": run.function_call("tool"),
        "assistant": run.assistant_run("clerk"),
        "retrieval": run.retrieval("vs_1", requested=5),
    }
    with operations[kind]:
        yield run


ENDS = (TokenUsage, FunctionCall, AssistantRun, Retrieval, ExecutionFinished)


@given(st.lists(programs(), min_size=1, max_size=3))
def test_the_tree_is_well_formed_whatever_runs_do(work: list[list[tuple[str, bool, Any]]]) -> None:
    captured = Captured()
    for program in work:
        with captured.execution() as run:
            perform(run, program)
    events = list(captured.events)
    captured.receive()
    spans = {ids(span)[1]: span for span in captured.spans}
    assert len(spans) == sum(isinstance(event, ENDS) for event in events)
    assert sum(span.parent is None for span in spans.values()) == len(work)
    assert len({ids(span)[0] for span in spans.values()}) == len(work)
    for span in spans.values():
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
        if span.parent is None:
            continue
        above = spans[span.parent.span_id]
        assert ids(above)[0] == ids(span)[0]
        assert above.start_time is not None
        assert above.end_time is not None
        assert above.start_time <= span.start_time
        assert span.end_time <= above.end_time
    assert captured.telemetry.statistics().open_runs == 0


@given(programs(), st.data())
def test_dropped_events_cost_their_own_spans_only(program: list[tuple[str, bool, Any]], data: st.DataObject) -> None:
    captured = Captured()
    with captured.execution() as run:
        perform(run, program)
    events: list[Event] = list(captured.events)
    kept = [event for event in events if data.draw(st.booleans())]
    captured.events = list(kept)
    captured.receive()
    expected = [event.trace.span_id for event in kept if isinstance(event, ENDS) and event.trace is not None]
    assert sorted(f"{ids(span)[1]:016x}" for span in captured.spans) == sorted(expected)
    finished = [event.run_id for event in kept if isinstance(event, ExecutionFinished)]
    assert_totals_are_whole_or_absent(captured, events, kept)
    assert captured.telemetry.statistics().open_runs == len({event.run_id for event in kept} - set(finished))


def assert_totals_are_whole_or_absent(captured: Captured, events: list[Event], kept: list[Event]) -> None:
    """A run's totals are those of all requests in it and in the runs within it; or they are said to be incomplete."""
    parents = {each.run_id: each.parent_run_id for each in events if isinstance(each, ExecutionStarted)}

    def is_in(event: Event, run_id: object) -> bool:
        at: str | None = event.run_id
        while at is not None and at != run_id:
            at = parents[at]
        return at is not None

    for span in captured.spans:
        attributes = span.attributes or {}
        if "runmeter.run.status" in attributes:
            inside = [event for event in events if is_in(event, attributes["runmeter.run.id"])]
            whole = all(event in kept for event in inside)
            requests = sum(isinstance(event, TokenUsage) for event in inside)
            assert attributes.get("runmeter.total.requests") == (requests if whole else None)
            assert attributes.get("runmeter.total.incomplete") is (None if whole else True)


def test_sampled_is_what_the_span_says(captured: Captured) -> None:
    with captured.execution():
        pass
    captured.receive()
    [span] = captured.spans
    assert span.context is not None
    assert span.context.trace_flags == TraceFlags.SAMPLED
    assert span.context.is_valid


async def test_through_an_engine_with_the_bus_between(captured: Captured) -> None:
    async def pattern(messages: Any, context: Any) -> str:
        execution = current_execution()
        with execution.model_call(LUNA) as call:
            call.record(Usage(100, 10))
        with execution.function_call("tool"):
            pass
        return "done"

    async with Engine(telemetry=captured.telemetry) as engine:
        result = await engine.run(pattern, "question", tags={"tenant": "acme"})
        cost = result.cost.usd
    [run] = [span for span in captured.spans if span.parent is None]
    attributes = run.attributes or {}
    assert attributes["runmeter.tag.tenant"] == "acme"
    assert cost is not None
    assert attributes["runmeter.run.cost.usd"] == float(cost)
    assert len(captured.spans) == 3
