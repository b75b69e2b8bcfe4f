"""Span ids and the ambient context: whose child a span is, and that nothing is left behind."""

import contextvars
import random
import re
from collections.abc import AsyncIterator, Generator

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, get_current
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from process_support import output_of, python
from telemetry_support import Captured, captured, ids, no_variables

from runmeter.engine import Engine, Execution, ModelRequest, RunInfo, TraceContext, current_execution
from runmeter.telemetry import configure

__all__ = ["captured", "no_variables"]

LUNA = ModelRequest(provider="openai", model="gpt-6-luna")
REMOTE_TRACE = "0af7651916cd43dd8448eb211c80319c"
REMOTE_SPAN = "b7ad6b7169203331"


def from_remote(flags: str, state: str = "") -> dict[str, str]:
    return {"traceparent": f"00-{REMOTE_TRACE}-{REMOTE_SPAN}-{flags}", "tracestate": state}


def test_spans_nest_as_their_work_does(captured: Captured) -> None:
    with captured.execution() as run:
        with run.model_call(LUNA):
            pass
        with run.assistant_run("clerk") as assistant, run.function_call("find") as tool:
            pass
    assert run.trace is not None
    assert assistant.trace is not None
    assert tool.trace is not None
    assert run.trace.parent_span_id is None
    assert assistant.trace.parent_span_id == run.trace.span_id
    assert tool.trace.parent_span_id == assistant.trace.span_id
    captured.receive()
    assert len({span_id for _, span_id, _ in map(ids, captured.spans)}) == 4
    assert {trace_id for trace_id, _, _ in map(ids, captured.spans)} == {int(run.trace.trace_id, 16)}


def test_an_incoming_trace_goes_on_in_the_run_and_out_of_it(captured: Captured) -> None:
    incoming = TraceContextTextMapPropagator().extract(from_remote("03", "vendor=a1,other=b2"))
    token = attach(incoming)
    outgoing: dict[str, str] = {}
    with captured.execution() as run, run.model_call(LUNA) as call:
        inject(outgoing)
    assert get_current() is incoming
    detach(token)
    assert call.trace is not None
    assert outgoing["traceparent"] == f"00-{REMOTE_TRACE}-{call.trace.span_id}-03"
    assert outgoing["tracestate"] == "vendor=a1,other=b2"
    assert run.trace == TraceContext(
        REMOTE_TRACE, run.trace.span_id if run.trace else "", REMOTE_SPAN, True, True, "vendor=a1,other=b2"
    )
    captured.receive()
    span = captured.span("invoke_agent support")
    assert span.parent is not None
    assert span.parent.is_remote
    assert span.parent.span_id == int(REMOTE_SPAN, 16)
    assert span.context is not None
    assert span.context.trace_state.to_header() == "vendor=a1,other=b2"
    child = captured.span("chat gpt-6-luna")
    assert child.parent is not None
    assert not child.parent.is_remote


def test_an_instrumented_client_nests_below_the_request_it_serves(captured: Captured) -> None:
    tracer = captured.tracer_provider.get_tracer("client")
    with tracer.start_as_current_span("request of the application") as outer:
        with captured.execution() as run, run.model_call(LUNA), tracer.start_as_current_span("POST") as post:
            pass
        assert trace.get_current_span() is outer
    captured.receive()
    spans = {span.name: span for span in captured._exporter.get_finished_spans()}
    chain = ["POST", "chat gpt-6-luna", "invoke_agent support", "request of the application"]
    assert [ids(spans[name])[2] for name in chain] == [*[ids(spans[name])[1] for name in chain[1:]], None]
    assert post.get_span_context().trace_id == outer.get_span_context().trace_id


def test_a_span_of_the_application_between_ours_is_the_parent(captured: Captured) -> None:
    tracer = captured.tracer_provider.get_tracer("application")
    with captured.execution() as run, tracer.start_as_current_span("between") as between, run.model_call(LUNA) as call:
        pass
    assert call.trace is not None
    assert call.trace.parent_span_id == f"{between.get_span_context().span_id:016x}"
    assert run.trace is not None
    assert call.trace.trace_id == run.trace.trace_id


async def test_without_a_caller_s_trace_the_trace_is_called_as_its_outermost_run(captured: Captured) -> None:
    async def inner(messages: object, context: object) -> str:
        return current_execution().trace_id

    async def outer(messages: object, context: object) -> tuple[str, str]:
        with current_execution().model_call(LUNA):
            child = await engine.run(inner, "")
        return child.trace_id, child.value

    async with Engine(telemetry=captured.telemetry) as engine:
        result = await engine.run(outer, "")
    assert result.trace_id == result.run_id
    assert result.value == (result.run_id, result.run_id)
    assert {trace_id for trace_id, _, _ in map(ids, captured.spans)} == {int(result.run_id, 16)}
    assert len(captured.spans) == 3


async def test_with_a_caller_s_trace_that_is_the_run_s(captured: Captured) -> None:
    async def pattern(messages: object, context: object) -> str:
        return current_execution().trace_id

    token = attach(TraceContextTextMapPropagator().extract(from_remote("01")))
    async with Engine(telemetry=captured.telemetry) as engine:
        result = await engine.run(pattern, "")
    detach(token)
    assert result.trace_id == result.value == REMOTE_TRACE != result.run_id


@pytest.mark.usefixtures("no_variables")
async def test_without_telemetry_the_run_s_id_stands_for_a_trace_s(monkeypatch: pytest.MonkeyPatch) -> None:
    async def inner(messages: object, context: object) -> str:
        return current_execution().trace_id

    async def outer(messages: object, context: object) -> str:
        child = await engine.run(inner, "")
        assert child.trace_id == child.value != child.run_id
        return child.trace_id

    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    for telemetry in (None, configure()):
        async with Engine(telemetry=telemetry) as engine:
            result = await engine.run(outer, "")
        assert result.trace_id == result.value == result.run_id


def test_what_runs_where_the_context_was_lost_stays_in_its_trace(captured: Captured) -> None:
    token = attach(TraceContextTextMapPropagator().extract(from_remote("01", "vendor=a1")))
    run = captured.execution()

    def elsewhere() -> None:
        outgoing: dict[str, str] = {}
        with run.child(run.info) as child, child.model_call(LUNA) as call:
            inject(outgoing)
        with run.function_call("find") as tool:
            pass
        for each, above in ((child, run), (call, child), (tool, run)):
            assert each.trace is not None
            assert above.trace is not None
            assert each.trace.trace_id == REMOTE_TRACE
            assert each.trace.parent_span_id == above.trace.span_id
        assert call.trace is not None
        assert outgoing["traceparent"] == f"00-{REMOTE_TRACE}-{call.trace.span_id}-03"
        assert outgoing["tracestate"] == "vendor=a1"

    with run:
        contextvars.Context().run(elsewhere)
    detach(token)
    captured.receive()
    assert len(captured.spans) == 4


class OwnIds(RandomIdGenerator):
    """A generator of the application, whose trace ids begin with the time, as those of AWS X-Ray do."""

    def generate_trace_id(self) -> int:
        return 0x6000_0000 << 96 | super().generate_trace_id() >> 32


@pytest.mark.usefixtures("no_variables")
async def test_an_application_s_id_generator_makes_the_trace_ids() -> None:
    async def pattern(messages: object, context: object) -> None:
        pass

    provider = TracerProvider(id_generator=OwnIds(), shutdown_on_exit=False)
    async with Engine(telemetry=configure(tracer_provider=provider, metrics_exporter="none")) as engine:
        result = await engine.run(pattern, "")
    assert result.trace_id.startswith("60000000")
    assert result.trace_id != result.run_id


@pytest.mark.parametrize("run_id", ["run 1", "0" * 32, "f" * 33, "-" + "1" * 31])
def test_a_run_id_that_cannot_be_a_trace_id_is_none(captured: Captured, run_id: str) -> None:
    runtime = msgspec.structs.replace(captured.runtime(), new_run_id=lambda: run_id)
    with Execution(runtime, RunInfo("support")) as run:
        outgoing: dict[str, str] = {}
        inject(outgoing)
    assert run.run_id == run_id != run.trace_id
    assert re.fullmatch(f"00-{run.trace_id}-[0-9a-f]{{16}}-03", outgoing["traceparent"])
    assert re.fullmatch("[0-9a-f]{32}", run.trace_id)


@pytest.mark.usefixtures("no_variables")
def test_samplers_go_by_the_run_s_id() -> None:
    sampler = TraceIdRatioBased(0.5)
    captured = Captured(sampler)
    for _ in range(50):
        with captured.execution() as run:
            decision = sampler.should_sample(None, int(run.run_id, 16), "").decision
            assert run.trace is not None
            assert run.trace.sampled is (decision is Decision.RECORD_AND_SAMPLE)


async def test_concurrent_runs_do_not_mix(captured: Captured) -> None:
    async def pattern(name: str, context: object) -> None:
        execution = current_execution()
        with execution.model_call(LUNA):
            await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as tools:
            for index in range(3):
                tools.start_soon(tool, f"{name}{index}")

    async def tool(name: str) -> None:
        with current_execution().function_call(name):
            await anyio.lowlevel.checkpoint()

    async with Engine(telemetry=captured.telemetry) as engine:
        async with anyio.create_task_group() as runs:
            for name in "abcde":
                runs.start_soon(engine.run, pattern, name)
        assert trace.get_current_span() is trace.INVALID_SPAN
    spans = captured.spans
    assert len(spans) == 5 * 5
    roots = {ids(span)[1]: span for span in spans if span.parent is None}
    assert len(roots) == 5
    tools = [span for span in spans if span.name.startswith("execute_tool")]
    for trace_id, _, parent in map(ids, tools):
        assert parent is not None
        assert ids(roots[parent])[0] == trace_id
    names = {(ids(span)[2], str((span.attributes or {})["gen_ai.tool.name"])[0]) for span in tools}
    assert len(names) == 5


async def test_a_worker_thread_nests_below_its_run(captured: Captured) -> None:
    def in_thread() -> None:
        with current_execution().function_call("blocking"):
            pass

    async def pattern(messages: object, context: object) -> None:
        await anyio.to_thread.run_sync(in_thread)

    async with Engine(telemetry=captured.telemetry) as engine:
        await engine.run(pattern, "")
    [run] = [span for span in captured.spans if span.parent is None]
    assert ids(captured.span("execute_tool blocking"))[2] == ids(run)[1]


def test_a_span_ended_in_another_context_changes_nothing_and_says_nothing(
    captured: Captured, caplog: pytest.LogCaptureFixture
) -> None:
    def generator() -> Generator[int]:
        with captured.execution() as run, run.function_call("tool"):
            yield 1

    elsewhere = contextvars.copy_context()
    opened = generator()
    elsewhere.run(next, opened)
    inside = elsewhere.run(get_current)
    below = elsewhere.copy()  # like the context of a task started inside the run: it sees the same ambient span
    before = below.run(get_current)
    below.run(opened.close)
    assert below.run(get_current) is before is inside
    assert get_current() == {}
    assert caplog.records == []
    captured.receive()
    assert len(captured.spans) == 2


async def test_a_generator_left_behind_leaves_no_context(captured: Captured, caplog: pytest.LogCaptureFixture) -> None:
    async def generator() -> AsyncIterator[int]:
        with captured.execution():
            yield 1
            yield 2

    left = generator()

    async def open_it() -> None:
        await anext(left)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(open_it)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(left.aclose)  # type: ignore[attr-defined] # an async generator, typed as what callers need
    assert get_current() == {}
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []
    captured.receive()
    assert len(captured.spans) == 1


def test_baggage_stays_in_the_ambient_context(captured: Captured) -> None:
    token = attach(baggage.set_baggage("user", "u1"))
    with captured.execution():
        assert baggage.get_baggage("user") == "u1"
    detach(token)


class CountingSampler(Sampler):
    """Samples every second trace, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def should_sample(self, *args: object, **more: object) -> SamplingResult:
        self.asked += 1
        return (ALWAYS_ON if self.asked % 2 else ALWAYS_OFF).should_sample(None, 0, "")

    def get_description(self) -> str:
        return "every second"


@pytest.mark.usefixtures("no_variables")
def test_the_sampler_is_asked_once_for_a_run_with_all_that_is_in_it() -> None:
    sampler = CountingSampler()
    captured = Captured(sampler)
    for _ in range(4):
        with captured.execution() as run, run.model_call(LUNA) as call, run.child(run.info) as child:
            assert run.trace is not None
            assert call.trace is not None
            assert child.trace is not None
            assert run.trace.sampled == call.trace.sampled == child.trace.sampled
            assert trace.get_current_span().get_span_context().trace_flags.sampled == run.trace.sampled
    assert sampler.asked == 4
    captured.receive()
    assert len(captured.spans) == 2 * 3
    assert sum(point.count for point in captured.measured()["gen_ai.invoke_agent.duration"]) == 8  # of all runs


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize(("flags", "sampler", "spans"), [("01", ALWAYS_OFF, 1), ("00", ALWAYS_ON, 0)])
def test_the_caller_decides_with_a_parent_based_sampler(flags: str, sampler: Sampler, spans: int) -> None:
    captured = Captured(ParentBased(sampler))
    token = attach(TraceContextTextMapPropagator().extract(from_remote(flags)))
    with captured.execution():
        outgoing: dict[str, str] = {}
        inject(outgoing)
    detach(token)
    assert outgoing["traceparent"].endswith(f"-{flags}")
    captured.receive()
    assert len(captured.spans) == spans


@pytest.mark.usefixtures("no_variables")
def test_a_ratio_samples_that_share_of_traces_whole() -> None:
    captured = Captured(TraceIdRatioBased(0.25))
    for _ in range(400):
        with captured.execution() as run, run.function_call("tool"):
            pass
    captured.receive()
    spans = captured.spans
    assert 2 * 50 < len(spans) < 2 * 150  # 100 ± 50: more than five standard deviations
    assert len({ids(span)[0] for span in spans}) * 2 == len(spans)


@pytest.mark.usefixtures("no_variables")
def test_ids_do_not_depend_on_the_seed_of_user_code() -> None:
    captured = Captured()
    seen = set()
    for _ in range(2):
        random.seed(0)
        with captured.execution() as run:
            assert run.trace is not None
            seen |= {run.trace.trace_id, run.trace.span_id}
    assert len(seen) == 4


def test_ids_differ_after_a_fork() -> None:
    script = """
import os
from runmeter.telemetry import configure
telemetry = configure(traces_exporter="none", metrics_exporter="none")
child = os.fork()
trace, _ = telemetry.start_span()
os.write(1, f"{trace.trace_id} {trace.span_id}\\n".encode())
if child:
    os.waitpid(child, 0)
"""
    assert len(set(output_of(python(script, "-W", "ignore")).split())) == 4


@pytest.mark.usefixtures("no_variables")
def test_disabled_telemetry_leaves_the_ambient_context_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry = configure()
    token = attach(TraceContextTextMapPropagator().extract(from_remote("01")))
    before = get_current()
    trace_context, ending = telemetry.start_span()
    assert trace_context is None
    assert get_current() is before
    telemetry.end_span(ending)
    detach(token)
    telemetry.receive([])
    assert telemetry.statistics().spans == 0
