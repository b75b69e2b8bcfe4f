"""The engine: running, limits, stopping, and that nobody's numbers get lost."""

import asyncio
import functools
import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from time_support import advance

from runmeter.engine import (
    JSON,
    ConfigurationError,
    Engine,
    EngineNotRunning,
    Event,
    Execution,
    ExecutionFinished,
    ExecutionStarted,
    ModelRequest,
    PriceBook,
    RunAborted,
    RunResult,
    RunTimeout,
    Status,
    StrayCancellation,
    TokenUsage,
    Usage,
    UsageAggregator,
    current_execution,
)
from runmeter.engine.testing import CountingIds, ManualClock, Recorder

LUNA = ModelRequest(provider="openai", model="gpt-6-luna")
USAGE = Usage(input_tokens=1000, output_tokens=100)


async def echo(messages: Any, context: Mapping[str, Any] | None) -> Any:
    return messages


async def call_model(messages: Any, context: Any) -> str:
    with current_execution().model_call(LUNA) as call:
        call.record(USAGE)
    return "answer"


async def forever(messages: Any, context: Any) -> None:
    await anyio.sleep_forever()


async def fail(messages: Any, context: Any) -> None:
    raise LookupError(messages)


class Greeter:
    name = "greeter"
    framework = "plain"
    operation = "invoke_workflow"

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> str:
        return f"hello {messages}"


def finished(recorder: Recorder) -> list[ExecutionFinished]:
    return [event for event in recorder.events if isinstance(event, ExecutionFinished)]


# Running


async def test_an_async_function_runs() -> None:
    recorder = Recorder()
    async with Engine(clock=ManualClock(), new_run_id=CountingIds()) as engine:
        engine.subscribe(recorder, name="recorder")
        result = await engine.run(echo, "hi", tags={"tenant": "acme"}, conversation_id="conv_1")
        assert (result.value, result.content, result.run_id) == ("hi", "hi", f"{1:032x}")
    started = recorder.events[0]
    assert isinstance(started, ExecutionStarted)
    assert (started.pattern, started.framework, started.conversation_id) == ("echo", "python", "conv_1")
    assert started.tags == {"tenant": "acme"}


async def test_a_pattern_object_runs_under_its_own_name() -> None:
    recorder = Recorder()
    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        result = await engine.run(Greeter(), "you")
        assert result.content == "hello you"
    started = recorder.events[0]
    assert isinstance(started, ExecutionStarted)
    assert (started.pattern, started.framework, started.operation) == ("greeter", "plain", "invoke_workflow")


async def test_the_context_is_handed_on() -> None:
    async def read(messages: Any, context: Mapping[str, Any] | None) -> Any:
        return (context or {})["user"]

    async with Engine() as engine:
        assert (await engine.run(read, "", {"user": 7})).value == 7


async def test_the_result_knows_usage_and_cost_of_the_run_and_of_its_children() -> None:
    async def parent(messages: Any, context: Any) -> None:
        await call_model(messages, context)
        await engine.run(call_model, messages)
        await engine.run(call_model, messages)

    async with Engine() as engine:
        result = await engine.run(parent, "x")
        assert result.own_usage == USAGE
        assert result.usage == USAGE + USAGE + USAGE
        one = engine_price(result.requests[0])
        assert result.own_cost.usd == one
        assert result.child_cost.usd == 2 * one
        assert result.cost.usd == 3 * one
        assert engine.usage().total.usage == result.usage


def engine_price(request: TokenUsage) -> Any:
    cost = PriceBook().cost(request).usd
    assert cost is not None
    return cost


async def test_usage_includes_every_run_that_has_returned() -> None:
    async with Engine() as engine:
        for number in range(1, 20):
            await engine.run(call_model, "x")
            assert engine.usage().total.executions == number


async def test_one_aggregator_serves_several_engines() -> None:
    aggregator = UsageAggregator()
    async with Engine(usage=aggregator) as one, Engine(usage=aggregator) as other:
        await one.run(echo, "x")
        await other.run(echo, "x")
        assert one.usage() == other.usage() == aggregator.snapshot()
        assert aggregator.snapshot().total.executions == 2
    assert aggregator.snapshot().total.executions == 2


async def test_a_run_of_another_engine_is_no_child() -> None:
    recorder = Recorder()

    async def outer(messages: Any, context: Any) -> None:
        await other.run(echo, "x")

    async with Engine() as one, Engine() as other:
        other.subscribe(recorder, name="recorder")
        await one.run(outer, "x")
    assert isinstance(recorder.events[0], ExecutionStarted)
    assert recorder.events[0].parent_run_id is None


async def test_errors_come_out_as_they_are_and_are_counted() -> None:
    recorder = Recorder()
    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        with pytest.raises(LookupError, match="nothing here"):
            await engine.run(fail, "nothing here")
    (event,) = finished(recorder)
    assert (event.status, event.error_type) == (Status.ERROR, "LookupError")


async def test_a_timeout_is_an_error_that_names_pattern_and_time() -> None:
    recorder = Recorder()
    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        with pytest.raises(RunTimeout, match=r"'forever' did not finish within its timeout of 0.01 s") as caught:
            await engine.run(forever, "x", timeout=0.01)
        assert isinstance(caught.value, TimeoutError)
    assert finished(recorder)[0].status is Status.TIMEOUT


async def test_a_timeout_of_the_pattern_s_own_is_its_error() -> None:
    async def impatient(messages: Any, context: Any) -> None:
        with anyio.fail_after(0.001):
            await anyio.sleep_forever()

    recorder = Recorder()
    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        with pytest.raises(TimeoutError):
            await engine.run(impatient, "x", timeout=60)
    assert finished(recorder)[0].status is Status.ERROR


async def test_cancellation_from_outside_is_recorded_and_goes_on() -> None:
    recorder = Recorder()
    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.run, forever, "x")
            await anyio.wait_all_tasks_blocked()
            assert engine.statistics().running == 1
            tasks.cancel_scope.cancel()
        assert engine.statistics().running == 0
        assert engine.usage().total.in_flight == 0
    assert finished(recorder)[0].status is Status.CANCELLED


# Limits


async def test_no_more_runs_at_once_than_allowed_and_children_do_not_count() -> None:
    running = most = 0

    async def count(messages: Any, context: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        await engine.run(echo, "child")
        running -= 1

    async with Engine(max_concurrent_runs=3) as engine, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(engine.run, count, "x")
    assert most == 3


async def test_waiting_for_a_turn_is_no_part_of_the_timeout() -> None:
    async with Engine(max_concurrent_runs=1) as engine, anyio.create_task_group() as tasks:
        release = anyio.Event()

        async def hold(messages: Any, context: Any) -> None:
            await release.wait()

        async def patient() -> None:
            assert (await engine.run(echo, "x", timeout=30)).value == "x"

        tasks.start_soon(engine.run, hold, "x")
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(patient)
        await anyio.wait_all_tasks_blocked()
        await advance(60)
        release.set()


async def test_a_slow_lossless_subscriber_holds_back_new_runs_and_no_running_one() -> None:
    release, second = anyio.Event(), anyio.Event()

    async def ledger(_: Sequence[Event]) -> None:
        await release.wait()

    async def chatty(messages: Any, context: Any) -> None:
        for _ in range(10):
            await call_model(messages, context)
        await engine.run(echo, "a child is not held back")

    async def newcomer() -> None:
        await engine.run(echo, "x")
        second.set()

    async with Engine() as engine, anyio.create_task_group() as tasks:
        engine.subscribe(ledger, name="ledger", lane="lossless", capacity=5)
        await engine.run(chatty, "x")
        tasks.start_soon(newcomer)
        await anyio.wait_all_tasks_blocked()
        assert not second.is_set()
        release.set()
        await second.wait()


async def test_many_empty_runs_without_a_pause_keep_no_backlog() -> None:
    """An empty pattern never yields to the event loop; admission does it for the subscribers' sake."""
    async with Engine() as engine:
        for _ in range(12_000):
            await engine.run(echo, "x")
        assert engine.statistics().bus.retained <= 11_000
        assert engine.usage().total.executions == 12_000


# Many


async def test_map_keeps_the_order_and_tells_progress() -> None:
    told: list[tuple[int, int | None]] = []
    async with Engine() as engine:
        results = await engine.map(echo, range(25), concurrency=4, progress=lambda *done: told.append(done))
    assert [result.value for result in results if isinstance(result, RunResult)] == list(range(25))
    assert told == [(done, 25) for done in range(1, 26)]


async def test_map_takes_inputs_as_it_goes() -> None:
    taken: list[int] = []
    started: list[int] = []

    def inputs() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            assert len(taken) <= len(started) + 2
            yield number

    async def note(messages: int, context: Any) -> None:
        started.append(messages)

    async with Engine() as engine:
        assert len(await engine.map(note, inputs(), concurrency=2)) == 10


async def odd_fails(messages: int, context: Any) -> int:
    if messages % 2:
        raise LookupError(messages)
    return messages


async def test_map_collects_errors_when_asked() -> None:
    async with Engine() as engine:
        outcomes = await engine.map(odd_fails, range(4), on_error="collect")
    assert [type(outcome).__name__ for outcome in outcomes] == ["RunResult", "LookupError"] * 2


async def test_map_stops_at_the_first_error() -> None:
    async with Engine() as engine:
        with pytest.raises(LookupError):
            await engine.map(odd_fails, range(1000), concurrency=3)
        assert engine.usage().total.executions < 20
        assert engine.usage().total.in_flight == 0


async def test_map_of_nothing_is_nothing() -> None:
    async with Engine() as engine:
        assert await engine.map(echo, []) == []


# Wrong use


async def test_an_engine_that_has_not_started_says_so() -> None:
    with pytest.raises(EngineNotRunning, match=r"has not started.*async with Engine\(\)"):
        await Engine().run(echo, "x")


async def test_an_engine_that_has_closed_says_so() -> None:
    async with Engine() as engine:
        pass
    with pytest.raises(EngineNotRunning, match="has closed"):
        await engine.run(echo, "x")
    with pytest.raises(EngineNotRunning, match="has closed"):
        async for _ in engine.stream(echo, "x"):
            pass
    with pytest.raises(EngineNotRunning, match="has closed"):
        async with engine:
            pass


@pytest.mark.parametrize("pattern", [None, "text", 3, Greeter])
async def test_what_is_no_pattern_is_refused(pattern: Any) -> None:
    async with Engine() as engine:
        with pytest.raises(ConfigurationError, match="cannot run"):
            await engine.run(pattern, "x")


async def test_a_function_that_is_not_async_is_refused() -> None:
    async with Engine() as engine:
        with pytest.raises(ConfigurationError, match="is not async"):
            await engine.run(lambda *arguments: arguments, "x")  # type: ignore[arg-type] # on purpose


async def test_a_partial_and_a_callable_object_run() -> None:
    async def add(number: int, messages: int, context: Any) -> int:
        return number + messages

    class Doubler:
        async def __call__(self, messages: int, context: Any) -> int:
            return 2 * messages

    recorder = Recorder()
    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        assert (await engine.run(functools.partial(add, 1), 2)).value == 3
        assert (await engine.run(Doubler(), 2)).value == 4
    names = [event.pattern for event in recorder.events if isinstance(event, ExecutionStarted)]
    assert names == ["partial", "Doubler"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout": 0}, "timeout must be positive"),
        ({"timeout": -1}, "timeout must be positive"),
        ({"tags": {"tenant": 3}}, "a tag is a string with a name"),
        ({"tags": {3: "x"}}, "a tag is a string with a name"),
    ],
)
async def test_bad_arguments_of_a_run_are_refused(arguments: dict[str, Any], message: str) -> None:
    async with Engine() as engine:
        with pytest.raises(ConfigurationError, match=message):
            await engine.run(echo, "x", **arguments)
        assert engine.usage().total.executions == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_concurrent_runs": 0},
        {"drain_timeout": -1},
        {"usage": UsageAggregator(), "prices": PriceBook()},
    ],
)
def test_bad_engines_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Engine(**arguments)


# Closing


async def test_closing_waits_for_runs_of_other_tasks() -> None:
    release = anyio.Event()
    values: list[Any] = []

    async def wait(messages: Any, context: Any) -> str:
        await release.wait()
        await engine.run(echo, "a child may still start")
        return "done"

    async def caller() -> None:
        values.append((await engine.run(wait, "x")).value)

    async with anyio.create_task_group() as tasks:
        async with Engine() as engine:
            tasks.start_soon(caller)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(release_later, release)
        assert engine.usage().total.by_status[Status.OK] == 2
    assert values == ["done"]


async def release_later(release: anyio.Event) -> None:
    await anyio.wait_all_tasks_blocked()
    release.set()


async def test_closing_stops_what_does_not_end_in_time() -> None:
    errors: list[BaseException] = []

    async def caller() -> None:
        try:
            await engine.run(forever, "x", timeout=60)
        except RunAborted as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks, Engine(drain_timeout=0.01) as engine:
        tasks.start_soon(caller)
        await anyio.wait_all_tasks_blocked()
    assert "the engine closed" in str(errors[0])
    assert engine.usage().total.by_status[Status.CANCELLED] == 1


async def test_an_error_of_the_body_closes_at_once_and_comes_out_as_it_is() -> None:
    async def caller() -> None:
        with pytest.raises(RunAborted):
            await engine.run(forever, "x")

    async with anyio.create_task_group() as tasks:
        with pytest.raises(ZeroDivisionError):
            async with Engine(drain_timeout=3600) as engine:
                tasks.start_soon(caller)
                await anyio.wait_all_tasks_blocked()
                raise ZeroDivisionError
    assert engine.usage().total.in_flight == 0


async def test_cancelling_the_body_closes_and_delivers_what_was_counted() -> None:
    recorder = Recorder()
    with anyio.CancelScope() as scope:
        async with Engine() as engine:
            engine.subscribe(recorder, name="recorder")
            await engine.run(call_model, "x")
            scope.cancel()
            await anyio.sleep_forever()
    assert len(finished(recorder)) == 1
    assert engine.usage().total.executions == 1


async def test_usage_can_be_read_from_another_thread_while_runs_go_on() -> None:
    counts: list[int] = []

    async with Engine() as engine:

        def read() -> None:
            counts.extend(engine.usage().total.executions for _ in range(50))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, read)
            for _ in range(500):
                await engine.run(call_model, "x")
                await anyio.lowlevel.checkpoint()
        assert engine.usage().total.executions == 500
        assert engine.usage().total.usage.input_tokens == 500 * USAGE.input_tokens
    assert counts == sorted(counts)


async def test_a_synchronous_tool_in_a_thread_belongs_to_its_run() -> None:
    recorder = Recorder()

    def tool() -> None:
        with current_execution().function_call("tool"):
            pass

    async def pattern(messages: Any, context: Any) -> None:
        await anyio.to_thread.run_sync(tool)

    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        result = await engine.run(pattern, "x")
    assert [type(event).__name__ for event in recorder.of(result.run_id)] == [
        "ExecutionStarted",
        "FunctionCall",
        "ExecutionFinished",
    ]


async def test_finished_runs_leave_nothing_behind() -> None:
    class Answer:
        pass

    async def answer(messages: Any, context: Any) -> Answer:
        await engine.run(echo, "child")
        return Answer()

    async with Engine() as engine:
        for _ in range(10):
            await engine.run(answer, "x")
        engine.usage()
        gc.collect()
        assert not [thing for thing in gc.get_objects() if isinstance(thing, Answer)]


# What must not go wrong


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_strays_in_is_the_pattern_s_error() -> None:
    async def stray(messages: Any, context: Any) -> Any:
        if messages == 3:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        return messages

    async with Engine() as engine:
        with pytest.raises(StrayCancellation, match="cancelled elsewhere"):
            await engine.run(stray, 3)
        with pytest.raises(StrayCancellation):
            async for _ in engine.stream(stray, 3):
                pass
        outcomes = await engine.map(stray, range(10), concurrency=2, on_error="collect")
        assert [type(outcome) is RunResult for outcome in outcomes] == [n != 3 for n in range(10)]
        assert engine.usage().total.by_status[Status.ERROR] == 3


async def test_a_task_that_outlives_its_run_begins_anew() -> None:
    recorder = Recorder()
    wake, results = anyio.Event(), list[Any]()

    async def worker() -> None:
        await wake.wait()
        results.append(await engine.run(echo, "from the worker"))

    async def starts_worker(messages: Any, context: Any) -> None:
        tasks.start_soon(worker)

    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        async with anyio.create_task_group() as tasks:
            await engine.run(starts_worker, "x", tags={"tenant": "acme"})
            wake.set()
    started = next(e for e in recorder.of(results[0].run_id) if isinstance(e, ExecutionStarted))
    assert started.parent_run_id is None
    assert started.tags == {}


class Unspeakable(Exception):
    @property
    def code(self) -> str:
        raise AttributeError("no code")

    def __str__(self) -> str:
        raise RuntimeError("no words")


async def test_an_exception_that_cannot_be_described_loses_nothing() -> None:
    recorder = Recorder()

    async def unspeakable(messages: Any, context: Any) -> None:
        with current_execution().model_call(LUNA):
            raise Unspeakable

    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        with pytest.raises(Unspeakable):
            await engine.run(unspeakable, "x")
        assert engine.usage().total.in_flight == 0
        assert engine.usage().total.requests == 1
    assert finished(recorder)[0].error_type == "Unspeakable"


async def test_a_file_name_that_is_no_text_can_still_be_encoded() -> None:
    async def opens(messages: Any, context: Any) -> None:
        raise FileNotFoundError("caf\udce9.txt")

    recorder = Recorder()
    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        with pytest.raises(FileNotFoundError):
            await engine.run(opens, "x")
    assert JSON.decode(JSON.encode(finished(recorder)[0])) == finished(recorder)[0]


async def test_queued_runs_obey_back_pressure_too() -> None:
    release = anyio.Event()

    async def ledger(_: Sequence[Event]) -> None:
        await release.wait()

    async with Engine(max_concurrent_runs=1) as engine, anyio.create_task_group() as tasks:
        engine.subscribe(ledger, name="ledger", lane="lossless", capacity=10)
        for _ in range(100):
            tasks.start_soon(engine.run, echo, "x")
        await anyio.wait_all_tasks_blocked()
        assert engine.usage().total.executions < 10
        release.set()


async def test_a_run_that_will_not_stop_is_counted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runmeter.engine.engine.ABORT_GRACE", 0.01)
    release, errors = anyio.Event(), list[BaseException]()

    async def stubborn(messages: Any, context: Any) -> None:
        with anyio.CancelScope(shield=True):
            await release.wait()
            await call_model(messages, context)
        await anyio.lowlevel.checkpoint()

    async def caller() -> None:
        try:
            await engine.run(stubborn, "x")
        except RunAborted as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        async with Engine(drain_timeout=0.01) as engine:
            tasks.start_soon(caller)
            await anyio.wait_all_tasks_blocked()
        assert engine.usage().total.in_flight == 1
        release.set()
    assert len(errors) == 1
    assert engine.usage().total.in_flight == 0
    assert engine.usage().total.usage == USAGE


async def test_telemetry_that_cannot_be_flushed_keeps_nobody_from_closing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def start_span(self, *_: object) -> tuple[None, None]:
            return None, None

        def end_span(self, token: object) -> None:
            pass

        def receive(self, events: Sequence[Event]) -> None:
            pass

        async def flush(self, timeout: float) -> None:
            raise OSError("no disk")

    async with Engine(telemetry=Broken()) as engine:
        await engine.run(echo, "x")
    assert "telemetry could not be flushed" in caplog.text
    with pytest.raises(EngineNotRunning, match="has closed"):
        await engine.run(echo, "x")


async def test_an_engine_that_runs_already_says_so() -> None:
    async with Engine() as engine:
        with pytest.raises(EngineNotRunning, match="is running already"):
            async with engine:
                pass


async def test_an_engine_of_another_thread_s_loop_says_so() -> None:
    def elsewhere() -> None:
        with pytest.raises(EngineNotRunning, match="in another thread"):
            anyio.run(engine.run, echo, "x")

    async with Engine() as engine:
        await anyio.to_thread.run_sync(elsewhere)


async def test_an_async_generator_is_told_what_to_do_instead() -> None:
    async def generator(messages: Any, context: Any) -> Any:
        yield messages

    async with Engine() as engine:
        with pytest.raises(ConfigurationError, match=r"async generator.*delta"):
            await engine.run(generator, "x")


async def test_what_map_is_given_raises_as_it_is() -> None:
    def inputs() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    def progress(*_: object) -> None:
        raise OSError("no screen")

    async with Engine() as engine:
        with pytest.raises(LookupError, match="no more"):
            await engine.map(echo, inputs(), on_error="collect")
        with pytest.raises(OSError, match="no screen"):
            await engine.map(echo, range(10), progress=progress)


async def test_unknown_usage_is_told_from_none() -> None:
    async def unanswered(messages: Any, context: Any) -> None:
        with current_execution().model_call(LUNA):
            pass

    async with Engine() as engine:
        assert (await engine.run(echo, "x")).unknown_requests == 0
        result = await engine.run(unanswered, "x")
    assert result.unknown_requests == 1
    assert result.cost.usd is None


async def test_a_tier_that_was_asked_for_and_not_answered_is_not_the_standard_one() -> None:
    async def hurried(messages: Any, context: Any) -> None:
        with current_execution().model_call(
            ModelRequest(provider="openai", model="gpt-6-luna", service_tier="priority")
        ) as call:
            call.record(USAGE)

    async with Engine(clock=ManualClock(1_795_305_600_000_000_000)) as engine:
        cost = (await engine.run(hurried, "x")).cost.usd
        standard = (await engine.run(call_model, "x")).cost.usd
    assert cost is not None
    assert standard is not None
    assert cost == 2 * standard


async def test_a_parent_keeps_its_children_s_numbers_and_not_the_children() -> None:
    async def parent(messages: Any, context: Any) -> None:
        for _ in range(10):
            await engine.run(call_model, "x")
        gc.collect()
        others = [t for t in gc.get_objects() if isinstance(t, Execution) and t.info.pattern == "call_model"]
        assert not others

    async with Engine() as engine:
        assert len((await engine.run(parent, "x")).child_requests) == 10


@pytest.mark.parametrize("inner", ["asyncio", "trio"])
async def test_a_child_may_run_in_another_threads_loop_of_either_kind(inner: str) -> None:
    async def child(messages: object, context: object) -> str:
        return "child"

    async with Engine() as engine:

        async def parent(messages: object, context: object) -> str:
            async def go() -> str:
                return str((await engine.run(child, "")).content)

            return await anyio.to_thread.run_sync(lambda: anyio.run(go, backend=inner))

        assert (await engine.run(parent, "")).content == "child"
        assert engine.usage().total.executions == 2
