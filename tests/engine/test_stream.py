"""Runs seen while they run."""

import gc
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from runmeter.engine import (
    ConfigurationError,
    Delta,
    Engine,
    Event,
    Execution,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    RunEnded,
    RunStream,
    RunTimeout,
    Status,
    current_execution,
)
from runmeter.engine.testing import Recorder


async def speak(messages: str, context: Any) -> str:
    for word in messages.split():
        await current_execution().delta(word)
    return messages


async def speak_forever(messages: str, context: Any) -> None:
    while True:
        await current_execution().delta("again")


def texts(items: list[Delta | Event]) -> list[str]:
    return [item.text for item in items if isinstance(item, Delta)]


async def until_idle(engine: Engine) -> None:
    while engine.statistics().running:
        await anyio.lowlevel.checkpoint()


async def test_deltas_and_events_come_in_their_order() -> None:
    async def pattern(messages: str, context: Any) -> str:
        with current_execution().function_call("look_up"):
            pass
        assert current_execution().streaming
        return await speak(messages, context)

    async with Engine() as engine:
        stream = engine.stream(pattern, "one two three")
        items = [item async for item in stream]
        assert stream.result.content == "one two three"
        assert {item.run_id for item in items} == {stream.result.run_id}
    assert [type(item) for item in items] == [ExecutionStarted, FunctionCall, Delta, Delta, Delta, ExecutionFinished]
    assert texts(items) == ["one", "two", "three"]


async def test_streamed_runs_are_counted_like_others() -> None:
    recorder = Recorder()
    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        items = [item async for item in engine.stream(speak, "one")]
        assert engine.usage().total.executions == 1
    assert recorder.events == [item for item in items if not isinstance(item, Delta)]


async def test_a_child_s_deltas_and_events_are_seen_too() -> None:
    async def parent(messages: str, context: Any) -> None:
        await engine.run(speak, messages)

    async with Engine() as engine:
        items = [item async for item in engine.stream(parent, "one two")]
    assert texts(items) == ["one", "two"]
    assert len({item.run_id for item in items if isinstance(item, ExecutionStarted)}) == 2


async def test_a_stream_within_a_run_is_its_child() -> None:
    items: list[Delta | Event] = []

    async def parent(messages: str, context: Any) -> None:
        items.extend([item async for item in engine.stream(speak, messages)])

    async with Engine() as engine:
        result = await engine.run(parent, "one two")
    assert isinstance(items[0], ExecutionStarted)
    assert items[0].parent_run_id == result.run_id
    assert texts(items) == ["one", "two"]


async def test_an_ordinary_run_does_not_stream() -> None:
    async def pattern(messages: str, context: Any) -> bool:
        await current_execution().delta("into the void")
        return current_execution().streaming

    async with Engine() as engine:
        assert (await engine.run(pattern, "x")).value is False


async def test_a_slow_listener_holds_the_pattern_back() -> None:
    spoken = 0

    async def count(messages: str, context: Any) -> None:
        nonlocal spoken
        for _ in range(100):
            await current_execution().delta("x")
            spoken += 1

    async with Engine() as engine:
        stream = engine.stream(count, "", buffer=3)
        await anext(stream)
        await anyio.wait_all_tasks_blocked()
        assert spoken == 3
        await anext(stream)
        await anyio.wait_all_tasks_blocked()
        assert spoken == 4
        assert len(texts([item async for item in stream])) == 99


async def test_an_error_comes_after_the_last_item() -> None:
    async def pattern(messages: str, context: Any) -> None:
        await current_execution().delta("half an ans")
        raise LookupError("lost")

    items: list[Delta | Event] = []
    async with Engine() as engine:
        stream = engine.stream(pattern, "")
        with pytest.raises(LookupError, match="lost"):
            async for item in stream:
                items.append(item)  # noqa: PERF401 - those before the error too
        with pytest.raises(RuntimeError, match="no result"):
            _ = stream.result
    assert texts(items) == ["half an ans"]
    assert isinstance(items[-1], ExecutionFinished)


async def test_a_timeout_comes_out() -> None:
    async with Engine() as engine:
        with pytest.raises(RunTimeout):
            async for _ in engine.stream(speak_until_blocked, "", timeout=0.01):
                pass


async def speak_until_blocked(messages: str, context: Any) -> None:
    await anyio.sleep_forever()


async def test_leaving_by_async_with_ends_the_run() -> None:
    recorder = Recorder()
    async with Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        async with engine.stream(speak_forever, "") as stream:
            async for item in stream:
                if isinstance(item, Delta):
                    break
        assert engine.statistics().running == 0
    finished = recorder.events[-1]
    assert isinstance(finished, ExecutionFinished)
    assert finished.status is Status.CANCELLED


async def test_closing_from_another_task_ends_the_run() -> None:
    async with Engine() as engine:
        stream = engine.stream(speak_forever, "")
        await anext(stream)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.aclose)
        assert engine.statistics().running == 0
        assert engine.usage().total.by_status == {Status.CANCELLED: 1}


async def test_breaking_out_and_forgetting_the_stream_ends_the_run() -> None:
    async with Engine() as engine:
        async for item in engine.stream(speak_forever, ""):
            if isinstance(item, Delta):
                break
        del item
        gc.collect()
        await until_idle(engine)


async def test_a_generator_around_a_stream_closed_elsewhere_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def words() -> AsyncIterator[str]:
        async with engine.stream(speak_forever, "") as stream:
            async for item in stream:
                if isinstance(item, Delta):
                    yield item.text

    async with Engine() as engine:
        generator = words()
        assert await anext(generator) == "again"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(generator.aclose)  # type: ignore[attr-defined] # a generator has it
        assert engine.statistics().running == 0
        outside = current_execution()
        assert outside.run_id == "0" * 32
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_stream_never_listened_to_never_starts() -> None:
    async with Engine() as engine:
        stream = engine.stream(speak, "one")
        await stream.aclose()
        assert engine.usage().total.executions == 0


async def test_closing_the_engine_ends_a_stream_that_nobody_reads() -> None:
    async with Engine(drain_timeout=0.01) as engine:
        stream = engine.stream(speak_forever, "")
        await anext(stream)
    assert engine.usage().total.by_status == {Status.CANCELLED: 1}


async def test_a_buffer_must_hold_something() -> None:
    async with Engine() as engine:
        with pytest.raises(ConfigurationError, match="buffer"):
            engine.stream(speak, "", buffer=0)


async def test_a_closed_stream_has_nothing_more() -> None:
    async with Engine() as engine:
        stream = engine.stream(speak_forever, "", buffer=1)
        await anext(stream)
        await stream.aclose()
        assert len(texts([item async for item in stream])) <= 2


async def test_a_stream_closed_from_within_its_run_waits_for_nobody() -> None:
    streams: list[RunStream] = []

    async def closes_itself(messages: str, context: Any) -> None:
        await streams[0].aclose()
        await anyio.sleep_forever()

    async with Engine() as engine:
        streams.append(engine.stream(closes_itself, ""))
        assert [item async for item in streams[0]]
        assert engine.statistics().running == 0


async def test_deltas_after_the_end_go_nowhere_and_wait_for_nobody() -> None:
    executions: list[Execution] = []

    async def remember(messages: str, context: Any) -> None:
        executions.append(current_execution())

    async with Engine() as engine:
        stream = engine.stream(remember, "", buffer=1)
        _ = [item async for item in stream]
        for _ in range(3):
            with pytest.raises(RunEnded):
                await executions[0].delta("late")
        assert [item async for item in stream] == []


async def test_a_pattern_that_raises_the_end_of_an_iteration_has_failed() -> None:
    async def ends(messages: Any, context: Any) -> None:
        raise StopAsyncIteration

    async with Engine() as engine:
        with pytest.raises(RuntimeError, match="StopAsyncIteration"):
            async for _ in engine.stream(ends, ""):
                pass
