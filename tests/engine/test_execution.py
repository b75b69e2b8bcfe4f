"""The handle of a run: what it emits, and when."""

import threading
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import anyio
import pytest

from runmeter.engine.codec import MSGPACK
from runmeter.engine.errors import BudgetExceeded, RunTimeout
from runmeter.engine.events import (
    AssistantRun,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    ModelCallStarted,
    Notice,
    Provenance,
    Retrieval,
    Status,
    TokenUsage,
    TraceContext,
    Usage,
)
from runmeter.engine.request import ModelRequest
from runmeter.engine.runs.current import current_execution
from runmeter.engine.runs.execution import Execution
from runmeter.engine.runtime import RunInfo, Runtime
from runmeter.engine.testing import CountingIds, ManualClock

OVER = BudgetExceeded("daily", None, "calls", Decimal(1), Decimal(1), Decimal(0), Decimal(1))
LUNA = ModelRequest(provider="openai", model="gpt-6-luna", api="responses", max_output_tokens=50)


class Stage:
    """A run without an engine: what it publishes lands in a list."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.clock = ManualClock()
        self.runtime = Runtime(self, self.events.append, self.clock, CountingIds())

    def execution(self, pattern: str = "demo") -> Execution:
        return Execution(self.runtime, RunInfo(pattern, tags={"tenant": "acme"}))


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_run_starts_and_finishes(stage: Stage) -> None:
    with stage.execution() as execution:
        assert current_execution() is execution
        stage.clock.advance(2)
    assert current_execution() is not execution
    started, finished = stage.events
    assert isinstance(started, ExecutionStarted)
    assert isinstance(finished, ExecutionFinished)
    assert (started.seq, finished.seq) == (0, 1)
    assert started.run_id == started.root_run_id == finished.run_id == f"{1:032x}"
    assert started.tags == {"tenant": "acme"}
    assert finished.status is Status.OK
    assert finished.duration_ns == finished.time_ns - started.time_ns == 2_000_000_000


class _Stop(BaseException):
    """Stands for the event loops' cancellation."""


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (ValueError("bad"), Status.ERROR, "ValueError"),
        (_Stop("now"), Status.CANCELLED, "_Stop"),
        (KeyboardInterrupt(), Status.CANCELLED, "KeyboardInterrupt"),
        (ExceptionGroup("one", [KeyError("k")]), Status.ERROR, "KeyError"),
        (ExceptionGroup("two", [KeyError("k"), OSError()]), Status.ERROR, "ExceptionGroup"),
        (RunTimeout("demo", f"{1:032x}", 3), Status.TIMEOUT, "RunTimeout"),
        (RunTimeout("other", f"{9:032x}", 3), Status.ERROR, "RunTimeout"),
        (OVER, Status.BUDGET_EXCEEDED, "BudgetExceeded"),
        (ExceptionGroup("one", [OVER]), Status.BUDGET_EXCEEDED, "BudgetExceeded"),
        (ExceptionGroup("nested", [OVER, ExceptionGroup("", [OVER])]), Status.BUDGET_EXCEEDED, "ExceptionGroup"),
        (ExceptionGroup("mixed", [OVER, KeyError("k")]), Status.ERROR, "ExceptionGroup"),
    ],
)
def test_a_run_that_fails_says_how(stage: Stage, error: BaseException, status: Status, name: str) -> None:
    with pytest.raises(type(error)), stage.execution():
        raise error
    finished = stage.events[-1]
    assert isinstance(finished, ExecutionFinished)
    assert (finished.status, finished.error_type) == (status, name)
    assert finished.error_message == (str(error) or None)


def test_the_provider_s_code_names_the_error(stage: Stage) -> None:
    class RateLimitError(Exception):
        code = "rate_limit_exceeded"

    with suppress(RateLimitError), stage.execution():
        raise RateLimitError("x" * 10_000)
    finished = stage.events[-1]
    assert isinstance(finished, ExecutionFinished)
    assert finished.error_type == "rate_limit_exceeded"
    assert finished.error_message == "x" * 499 + "…"


def test_a_model_call_emits_two_events(stage: Stage) -> None:
    usage = Usage(input_tokens=10, output_tokens=5)
    with stage.execution() as execution, execution.model_call(LUNA, attempt=2) as call:
        stage.clock.advance(1)
        call.first_chunk()
        stage.clock.advance(1)
        call.first_chunk()
        call.record(usage, response_id="resp_1", response_model="gpt-6-luna-2026", finish_reasons=("stop",))
    _, started, ended, _ = stage.events
    assert isinstance(started, ModelCallStarted)
    assert isinstance(ended, TokenUsage)
    assert started.call_id == ended.call_id == started.seq
    assert (started.attempt, started.api, started.max_output_tokens) == (2, "responses", 50)
    assert (ended.usage, ended.provenance, ended.attempt) == (usage, Provenance.REPORTED, 2)
    assert (ended.response_id, ended.finish_reasons) == ("resp_1", ("stop",))
    assert (ended.start_ns, ended.duration_ns, ended.first_chunk_ns) == (started.time_ns, 2_000_000_000, 1_000_000_000)
    assert execution.requests == [ended]


def test_a_model_call_that_never_answers_is_unknown(stage: Stage) -> None:
    with suppress(OSError), stage.execution() as execution, execution.model_call(LUNA):
        raise OSError("gone")
    ended = stage.events[2]
    assert isinstance(ended, TokenUsage)
    assert (ended.usage, ended.provenance, ended.error_type) == (None, Provenance.UNKNOWN, "OSError")


@pytest.mark.parametrize(
    ("requested", "answered", "served"),
    [
        (None, None, None),
        ("flex", None, "flex"),
        ("auto", None, None),
        ("auto", "auto", None),
        (None, "auto", None),
        ("auto", "priority", "priority"),
        ("flex", "default", "default"),
    ],
)
def test_the_tier_is_the_one_that_served(
    stage: Stage, requested: str | None, answered: str | None, served: str | None
) -> None:
    request = ModelRequest(provider="openai", model="gpt-6-luna", service_tier=requested)
    with stage.execution() as execution, execution.model_call(request) as call:
        call.record(Usage(1, 1), service_tier=answered)
    (usage,) = (event for event in stage.events if isinstance(event, TokenUsage))
    assert usage.service_tier == served


def test_a_stream_that_is_cut_keeps_what_was_recorded(stage: Stage) -> None:
    with suppress(OSError), stage.execution() as execution, execution.model_call(LUNA) as call:
        call.record(Usage(input_tokens=10), Provenance.PARTIAL, response_id="resp_1")
        raise OSError("cut")
    ended = stage.events[2]
    assert isinstance(ended, TokenUsage)
    assert (ended.provenance, ended.usage, ended.error_type) == (Provenance.PARTIAL, Usage(input_tokens=10), "OSError")


def test_a_notice_is_one_event(stage: Stage) -> None:
    with stage.execution() as execution:
        execution.notice("model_retirement", "gpt-5-mini", "it retires on 2026-12-11")
    _, notice, _ = stage.events
    assert isinstance(notice, Notice)
    assert (notice.seq, notice.run_id, notice.time_ns) == (1, execution.run_id, stage.clock.time_ns())
    assert (notice.kind, notice.subject, notice.message) == (
        "model_retirement",
        "gpt-5-mini",
        "it retires on 2026-12-11",
    )


def test_a_function_call_emits_one_event(stage: Stage) -> None:
    with stage.execution() as execution:
        with execution.function_call("find_parcel", "call_1"):
            stage.clock.advance(3)
        with suppress(KeyError), execution.function_call("find_parcel"):
            raise KeyError("nothing")
        with execution.function_call("find_parcel") as call:
            call.fail("invalid_arguments", "no such parameter")
    _, fine, raised, failed, _ = stage.events
    assert isinstance(fine, FunctionCall)
    assert (fine.name, fine.call_id, fine.duration_ns, fine.error_type) == (
        "find_parcel",
        "call_1",
        3_000_000_000,
        None,
    )
    assert isinstance(raised, FunctionCall)
    assert raised.error_type == "KeyError"
    assert isinstance(failed, FunctionCall)
    assert (failed.error_type, failed.error_message) == ("invalid_arguments", "no such parameter")


def test_an_assistant_run_emits_one_event(stage: Stage) -> None:
    with stage.execution() as execution, execution.assistant_run("support", thread="created") as assistant:
        assistant.thread_id = "conv_1"
        assistant.steps += 1
    event = stage.events[1]
    assert isinstance(event, AssistantRun)
    assert (event.assistant, event.thread_id, event.thread, event.steps) == ("support", "conv_1", "created", 1)
    assert event.status is Status.OK


def test_an_assistant_run_that_fails_without_raising_is_an_error(stage: Stage) -> None:
    with stage.execution() as execution, execution.assistant_run("support") as assistant:
        assistant.fail("incomplete")
    event = stage.events[1]
    assert isinstance(event, AssistantRun)
    assert (event.status, event.error_type) == (Status.ERROR, "incomplete")


class _Numpys:
    """Stands for numpy's numbers, which no codec takes."""

    def __int__(self) -> int:
        return 3

    def __float__(self) -> float:
        return 0.875


def test_a_retrieval_emits_one_event(stage: Stage) -> None:
    number: Any = _Numpys()
    with stage.execution() as execution:
        with execution.retrieval("vs_1", requested=5) as search:
            stage.clock.advance(2)
            search.record(1)
            search.record(number, number)
        with execution.retrieval("local"):
            pass
        with suppress(OSError), execution.retrieval("local") as search:
            search.record(1, 0.5)
            raise OSError("gone")
        with execution.retrieval("local") as search:
            search.fail("not_ready", "no index yet")
    started, found, nothing, raised, failed, _ = stage.events
    assert found == Retrieval(
        run_id=execution.run_id,
        seq=1,
        time_ns=started.time_ns + 2 * 10**9,
        source="vs_1",
        start_ns=started.time_ns,
        duration_ns=2 * 10**9,
        documents=3,
        top_score=0.875,
        requested=5,
    )
    assert MSGPACK.decode(MSGPACK.encode(found)) == found
    assert isinstance(nothing, Retrieval)
    assert (nothing.documents, nothing.top_score, nothing.requested, nothing.error_type) == (0, None, None, None)
    assert isinstance(raised, Retrieval)
    assert (raised.documents, raised.error_type, raised.error_message) == (1, "OSError", "gone")
    assert isinstance(failed, Retrieval)
    assert (failed.error_type, failed.error_message) == ("not_ready", "no index yet")


def test_a_child_is_a_run_of_its_own(stage: Stage) -> None:
    with (
        stage.execution() as parent,
        parent.child(RunInfo("worker")) as child,
        child.child(RunInfo("helper", tags={"tenant": "other"})) as grandchild,
    ):
        assert current_execution() is grandchild
    started = {event.run_id: event for event in stage.events if isinstance(event, ExecutionStarted)}
    assert started[child.run_id].parent_run_id == parent.run_id
    assert started[child.run_id].tags == {"tenant": "acme"}, "inherited"
    assert started[grandchild.run_id].tags == {"tenant": "other"}
    assert {event.root_run_id for event in started.values()} == {parent.run_id}


async def test_concurrent_tasks_keep_their_own_run(stage: Stage) -> None:
    async def work(name: str) -> None:
        with stage.execution(name) as execution:
            await anyio.wait_all_tasks_blocked() if name == "a" else await anyio.lowlevel.checkpoint()
            assert current_execution() is execution

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work, "a")
        tasks.start_soon(work, "b")


async def test_a_run_left_in_another_context_still_finishes(stage: Stage) -> None:
    """As when a generator is closed by another task than the one that began it."""
    execution = stage.execution()

    async def enter() -> None:
        execution.__enter__()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(enter)
    execution.__exit__(None, None, None)
    assert isinstance(stage.events[-1], ExecutionFinished)


def test_sequence_numbers_are_unique_across_threads(stage: Stage) -> None:
    with stage.execution() as execution:

        def work() -> None:
            for _ in range(500):
                with execution.function_call("tool"):
                    pass

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(event.seq for event in stage.events) == list(range(4 * 500 + 2))


def test_outside_an_engine_nothing_happens() -> None:
    execution = current_execution()
    with execution.model_call(LUNA) as call:
        call.first_chunk()
        call.record(Usage(input_tokens=1), response_id="resp_1")
        call.finish_reasons = ("stop",)
    with execution.model_call(LUNA) as other:
        assert (other.usage, other.response_id, other.finish_reasons) == (None, None, ())
    assert not execution.is_metered
    assert not call.is_metered
    with execution.function_call("tool") as tool:
        tool.fail("error", "in words")
    assert (tool.error_type, tool.error_message) == (None, None)
    with execution.retrieval("local", requested=3) as search:
        search.record(2, 0.5)
    with execution.assistant_run("assistant"), execution.child(RunInfo("child")) as child:
        assert child is execution
    assert not execution.requests
    assert not execution.child_requests
    assert not execution.streaming


@pytest.mark.parametrize("operation", ["model_call", "function_call", "assistant_run", "retrieval"])
def test_outside_an_engine_errors_pass_through(operation: str) -> None:
    execution = current_execution()
    opened: dict[str, Callable[[], object]] = {
        "model_call": lambda: execution.model_call(LUNA),
        "function_call": lambda: execution.function_call("tool"),
        "assistant_run": lambda: execution.assistant_run("assistant"),
        "retrieval": lambda: execution.retrieval("local"),
    }
    with pytest.raises(ZeroDivisionError), opened[operation]():  # type: ignore[attr-defined] # each is a context manager
        raise ZeroDivisionError


class StackTracing:
    """Tracing whose spans are numbered, and whose ambient span is a stack."""

    def __init__(self) -> None:
        self.stack = ["0"]
        self.count = 0

    def start_span(self, *_: object) -> tuple[TraceContext, object]:
        self.count += 1
        self.stack.append(str(self.count))
        return TraceContext("t", self.stack[-1], self.stack[-2]), len(self.stack)

    def end_span(self, token: object) -> None:
        assert token == len(self.stack)
        self.stack.pop()


def test_every_operation_gets_a_span_below_the_one_around_it() -> None:
    events: list[Event] = []
    tracing = StackTracing()
    runtime = Runtime(None, events.append, ManualClock(), CountingIds(), tracing)
    with (
        Execution(runtime, RunInfo("parent")) as parent,
        parent.assistant_run("a") as assistant,
        parent.child(RunInfo("child")) as child,
        child.retrieval("local") as search,
        child.model_call(LUNA),
    ):
        pass
    assert tracing.stack == ["0"]
    parents = {
        (type(event).__name__, event.run_id): event.trace.parent_span_id for event in events if event.trace is not None
    }
    assert parent.trace is not None
    assert assistant.trace is not None
    assert child.trace is not None
    assert search.trace is not None
    assert parents["ExecutionStarted", parent.run_id] == "0"
    assert parents["AssistantRun", parent.run_id] == parent.trace.span_id
    assert parents["ExecutionStarted", child.run_id] == assistant.trace.span_id
    assert parents["Retrieval", child.run_id] == child.trace.span_id
    assert parents["ModelCallStarted", child.run_id] == parents["TokenUsage", child.run_id] == search.trace.span_id
