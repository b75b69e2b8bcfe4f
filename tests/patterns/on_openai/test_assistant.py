"""The assistant pattern, over the real client and a server on this machine."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import openai
import pytest
from pattern_support import KEY, Run, check_whole, find
from scene_support import PatternScene

from runmeter.engine import (
    JSON,
    AssistantRun,
    ConfigurationError,
    Engine,
    ModelCallStarted,
    Status,
    UsageAggregator,
)
from runmeter.engine.testing import ManualClock, Recorder
from runmeter.patterns import OpenAIPatternConfig, PatternError, PatternRegistry, RetryPolicy
from runmeter.patterns.errors import ConversationLocked, UnknownConversation
from runmeter.patterns.openai.assistant import OpenAIAssistantConfig, OpenAIAssistantPattern
from runmeter.patterns.openai.threads.threads import INTERRUPTED, LockPatience, missing_outputs
from runmeter.simulator import Fault, Reply, ScriptedCall

FIND = ScriptedCall("find", '{"number": "AB-1"}')


class Scene(PatternScene[OpenAIAssistantPattern]):
    async def interrupt(self, pattern: OpenAIAssistantPattern, thread_id: str) -> None:
        """Have a run in a thread end in the middle of its calls. What comes after it is said without any."""
        self.script(Reply(tool_calls=(FIND, ScriptedCall("hang"))), Reply("Here."), Reply("Still here."))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pattern.execute, "Hang.", {"thread_id": thread_id})
            await self.hanging.wait()
            tasks.cancel_scope.cancel()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene(OpenAIAssistantPattern) as scene:
        yield scene


async def test_a_run_without_a_thread_has_one_of_its_own_and_leaves_none(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(find, assistant_id="support", assistant_instructions="Be brief.") as pattern:
        with run():
            result = await pattern.execute("Where is parcel AB-1?")
        with pytest.raises(UnknownConversation, match=r"cannot be gone on with: OpenAI says: .*not found"):
            await pattern.list_items(result.thread_id)
    assert "Berlin" in result.content
    assert (result.turns, result.finish_reason, result.repaired_calls) == (2, "stop", 0)
    assert result.conversation_id == result.thread_id
    [event] = run.of(AssistantRun)
    assert (event.assistant, event.thread_id, event.thread) == ("support", result.thread_id, "created")
    assert (event.steps, event.status) == (2, Status.OK)
    assert [prompt.instructions for prompt in scene.prompts] == ["Be brief."] * 2
    assert run.reported == scene.simulator.statistics().total


async def test_a_thread_is_resumed_with_all_that_was_said(scene: Scene) -> None:
    scene.script(Reply(tool_calls=(FIND,)), Reply("In Berlin."), Reply("With pleasure."))
    run = Run()
    async with scene.pattern(find) as pattern:
        thread_id = await pattern.create_thread({"user": "7"})
        with run():
            first = await pattern.execute("Where is parcel AB-1?", {"thread_id": thread_id})
            second = await pattern.execute("Thanks.", {"thread_id": thread_id, "instructions": "Be kind."})
        items = await pattern.list_items(thread_id)
        newest = await pattern.list_items(thread_id, order="desc", limit=1)
    assert [item["type"] for item in items] == [
        *("message", "function_call", "function_call_output", "message"),
        *("message", "message"),
    ]
    assert newest == items[-1:]
    assert first.thread == second.thread == "resumed"
    assert len(scene.prompts[-1].items) == 5
    assert scene.prompts[-1].instructions == "Be kind."
    assert [event.steps for event in run.of(AssistantRun)] == [2, 1]


async def test_long_threads_are_listed_page_by_page(scene: Scene) -> None:
    async with scene.pattern() as pattern:
        thread_id = await pattern.create_thread()
        client = pattern.clients.get()
        for start in range(0, 240, 20):
            texts = [{"role": "user", "content": str(start + number)} for number in range(20)]
            await client.conversations.items.create(thread_id, items=texts)  # type: ignore[arg-type] # plain dicts
        for limit, pages in ((None, 3), (150, 2), (100, 1), (0, 0)):
            before = scene.count("GET /conversations/{id}/items")
            items = await pattern.list_items(thread_id, limit=limit)
            assert [item["content"][0]["text"] for item in items] == [str(number) for number in range(240)][:limit]
            assert scene.count("GET /conversations/{id}/items") - before == pages


async def test_which_thread_a_run_is_in(scene: Scene) -> None:
    async with scene.pattern() as maker:
        a, b, c = [await maker.create_thread() for _ in range(3)]
        async with scene.pattern(thread_id=b) as configured:
            with Run()(conversation_id=c):
                by_context = await configured.execute("Hello.", {"thread_id": a})
                by_config = await configured.execute("Hello.")
                by_run = await maker.execute("Hello.")
    assert [by_context.thread_id, by_config.thread_id, by_run.thread_id] == [a, b, c]


@pytest.mark.parametrize("persistent", [True, False])
async def test_threads_go_with_their_pattern_unless_persistent(scene: Scene, persistent: bool) -> None:
    async with scene.pattern(persistent_thread=persistent) as pattern:
        made = await pattern.create_thread()
        gone = await pattern.create_thread()
        of_run = (await pattern.execute("Hello.")).thread_id
        await pattern.delete_thread(gone)
    async with scene.pattern() as other:
        for thread_id in (made, of_run):
            if persistent:
                await other.list_items(thread_id)
            else:
                with pytest.raises(UnknownConversation):
                    await other.list_items(thread_id)
        with pytest.raises(UnknownConversation):
            await other.delete_thread(gone)
        with pytest.raises(UnknownConversation):
            await other.execute("Hello.", {"thread_id": gone})


async def test_a_run_that_fails_leaves_no_thread(scene: Scene) -> None:
    run = Run()
    scene.simulator.inject(Fault("insufficient_quota", endpoint="/responses"))
    async with scene.pattern() as pattern:
        with pytest.raises(openai.RateLimitError), run():
            await pattern.execute("Go.")
    assert [event.status for event in run.of(AssistantRun)] == [Status.ERROR]
    assert scene.count("DELETE /conversations/{id}") == 1


async def test_a_run_that_is_cancelled_leaves_no_thread(scene: Scene) -> None:
    recorder = Recorder()
    scene.script(Reply(tool_calls=(ScriptedCall("hang"),)))
    async with scene.pattern(scene.hang) as pattern, Engine() as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.run, pattern, "Go.")
            await scene.hanging.wait()
            tasks.cancel_scope.cancel()
    check_whole(recorder.events)
    [event] = [event for event in recorder.events if isinstance(event, AssistantRun)]
    assert (event.status, event.steps) == (Status.CANCELLED, 1)
    assert scene.count("DELETE /conversations/{id}") == 1


async def test_what_cannot_be_deleted_is_logged_and_costs_no_answer(
    scene: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene.pattern() as pattern:
        scene.simulator.inject(Fault("server_error", times=None, endpoint="/conversations/{id}"))
        assert (await pattern.execute("Hello.")).content
        assert "could not be deleted" in caplog.text
        caplog.clear()
        scene.simulator.recover()
        scene.simulator.inject(Fault("latency", seconds=3600, endpoint="/conversations/{id}"))
        monkeypatch.setattr("runmeter.patterns.openai.threads.threads.CLEANUP_TIMEOUT", 0.1)
        assert (await pattern.execute("Hello.")).content
        assert "1 conversations could not be deleted within 0.1 s" in caplog.text


async def test_runs_of_one_thread_take_turns(scene: Scene) -> None:
    registry = PatternRegistry()
    async with scene.pattern(find) as pattern, Engine(usage=registry.usage) as engine:
        thread_id = await pattern.create_thread()
        asked = [f"Where is parcel AB-{number}?" for number in range(6)]
        results = await engine.map(pattern, asked, concurrency=6, context={"thread_id": thread_id})
        items = await pattern.list_items(thread_id)
    assert [f"AB-{number}" in result.content for number, result in enumerate(results)] == [True] * 6  # type: ignore[union-attr] # none failed
    kinds = [item["type"] for item in items]
    assert kinds == ["message", "function_call", "function_call_output", "message"] * 6
    stats = registry.get_usage_stats("openai_assistant")
    assert stats["openai_metrics"]["assistant_runs"] == 6
    assert stats["openai_metrics"]["total_tokens"] == scene.simulator.statistics().total.total_tokens


async def test_statistics_tell_threads_and_how_long_assistants_ran(scene: Scene) -> None:
    registry, recorder = PatternRegistry(), Recorder()
    async with scene.pattern(find) as pattern:
        async with Engine(usage=registry.usage, clock=ManualClock(step_ns=1_000_000)) as engine:
            engine.subscribe(recorder, name="recorder")
            thread_id = await pattern.create_thread()
            for context in ({"thread_id": thread_id}, {"thread_id": thread_id}, None):
                await engine.run(pattern, "Where is parcel AB-1?", context=context)
            with pytest.raises(UnknownConversation):
                await engine.run(pattern, "Hello.", context={"thread_id": "conv_gone"})
        took = [event.duration_ns for event in recorder.events if isinstance(event, AssistantRun)]
    metrics = registry.get_usage_stats("openai_assistant")["openai_metrics"]
    assert (metrics["assistant_runs"], metrics["threads_created"], metrics["threads_resumed"]) == (4, 1, 3)
    durations = metrics["assistant_run_durations"]
    assert durations["count"] == 4
    assert durations["total_ms"] == pytest.approx(sum(took) / 1e6)
    assert (durations["min_ms"], durations["max_ms"]) == (min(took) / 1e6, max(took) / 1e6)
    assert durations["average_ms"] == pytest.approx(sum(took) / 4e6)
    assert sum(bucket["count"] for bucket in durations["buckets"]) == 4
    replayed = UsageAggregator(registry.usage.prices)
    replayed.fold([JSON.decode(JSON.encode(event)) for event in recorder.events])
    assert replayed.snapshot() == registry.usage.snapshot(), "live equals replay"


async def test_runs_without_a_thread_do_not_wait_and_do_not_mix(scene: Scene) -> None:
    async with scene.pattern(find) as pattern, Engine() as engine:
        results = await engine.map(pattern, [f"Where is parcel AB-{n}?" for n in range(20)], concurrency=10)
    assert all(f"AB-{n}" in result.content for n, result in enumerate(results))  # type: ignore[union-attr] # none failed
    assert max(len(prompt.items) for prompt in scene.prompts) == 3
    assert scene.count("DELETE /conversations/{id}") == 20


async def test_a_run_in_the_thread_of_a_run_is_refused(scene: Scene) -> None:
    async with scene.pattern() as inner:
        thread_id = await inner.create_thread()

        async def ask() -> str:
            return (await inner.execute("Hello.", {"thread_id": thread_id})).content

        scene.script(Reply(tool_calls=(ScriptedCall("ask"),)), Reply("Never mind."))
        async with scene.pattern(ask) as outer:
            result = await outer.execute("Ask.", {"thread_id": thread_id})
    assert result.content == "Never mind."
    assert result.function_calls[0].error_type == "PatternError"


async def test_a_locked_thread_is_waited_for(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(max_retries=0) as pattern:
        thread_id = await pattern.create_thread()
        scene.simulator.inject(Fault("conversation_locked", times=4))
        with run():
            result = await pattern.execute("Hello.", {"thread_id": thread_id})
    assert result.content
    assert [request.error_type for request in run.requests] == ["conversation_locked"] * 4 + [None]
    assert [request.attempt for request in run.requests] == [1, 2, 3, 4, 5]
    assert scene.slept == [0.5, 1.0, 2.0, 4.0]
    assert [event.steps for event in run.of(AssistantRun)] == [1]


async def test_patience_with_a_locked_thread_ends(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(lock_timeout=2.0) as pattern:
        thread_id = await pattern.create_thread()
        scene.simulator.inject(Fault("conversation_locked", times=None))
        with pytest.raises(ConversationLocked, match="for the 2 s") as raised, run():
            await pattern.execute("Hello.", {"thread_id": thread_id})
    assert raised.value.conversation_id == thread_id
    assert scene.slept == [0.5, 1.0, 0.5]
    assert len(run.requests) == 4
    assert [event.error_type for event in run.of(AssistantRun)] == ["conversation_locked"]


async def test_waiting_for_a_lock_takes_no_other_retries(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(max_retries=1, lock_timeout=3.0) as pattern:
        thread_id = await pattern.create_thread()
        scene.simulator.inject(
            Fault("conversation_locked", times=2),
            Fault("rate_limit", endpoint="/responses"),
            Fault("conversation_locked"),
        )
        with run():
            result = await pattern.execute("Hello.", {"thread_id": thread_id})
        scene.simulator.inject(Fault("conversation_locked", times=2), Fault("server_error", times=2))
        with pytest.raises(openai.InternalServerError), run():
            await pattern.execute("Hello.", {"thread_id": thread_id})
    assert result.content
    assert [request.attempt for request in run.requests] == [1, 2, 3, 4, 5, 1, 2, 3, 4]
    assert scene.slept[:2] + scene.slept[3:4] == [0.5, 1.0, 1.5], "what is left of three seconds, whatever came between"


def test_patience_leaves_other_errors_to_the_policy() -> None:
    class Locked(Exception):
        code = "conversation_locked"

    patience = LockPatience(base=RetryPolicy(first_delay=0, random=lambda: 0.0), lock_timeout=0.25)
    assert [patience.delay(Locked(), attempt) for attempt in range(1, 5)] == pytest.approx([0.1, 0.15, None, None])
    assert patience.delay(ConnectionError(), 1) == 0
    assert patience.delay(ConnectionError(), 3) is None
    assert LockPatience(base=RetryPolicy(), lock_timeout=0).delay(Locked(), 1) is None


async def test_an_interrupted_run_is_repaired_by_the_next(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(find, scene.hang) as pattern:
        thread_id = await pattern.create_thread()
        await scene.interrupt(pattern, thread_id)
        with run():
            result = await pattern.execute("Are you there?", {"thread_id": thread_id})
            again = await pattern.execute("And now?", {"thread_id": thread_id})
        items = await pattern.list_items(thread_id)
    assert (result.repaired_calls, again.repaired_calls) == (2, 0)
    told = [item["output"] for item in items if item["type"] == "function_call_output"]
    assert told == [INTERRUPTED] * 2
    assert [item["type"] for item in items[:6]] == [
        *("message", "function_call", "function_call"),
        *("function_call_output", "function_call_output", "message"),
    ]
    assert [event.steps for event in run.of(AssistantRun)] == [1, 1]
    assert [request.error_type for request in run.requests] == ["BadRequestError", None, None]


async def test_a_retry_after_a_cut_stream_repairs_what_that_has_left(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(find, stream_responses=True) as pattern:
        thread_id = await pattern.create_thread()
        scene.script(Reply(tool_calls=(FIND,)), Reply("Here."))
        scene.simulator.inject(Fault("orphaned_calls"))
        with run():
            result = await pattern.execute("Where is parcel AB-1?", {"thread_id": thread_id})
    assert (result.content, result.repaired_calls) == ("Here.", 1)
    assert [request.error_type for request in run.requests] == ["APIConnectionError", "BadRequestError", None]


async def test_a_repair_in_a_thread_of_ones_own_is_told(scene: Scene) -> None:
    async with scene.pattern(find, stream_responses=True) as pattern:
        scene.script(Reply(tool_calls=(FIND,)), Reply("Here."))
        scene.simulator.inject(Fault("orphaned_calls"))
        result = await pattern.execute("Where is parcel AB-1?")
    assert (result.thread, result.repaired_calls) == ("created", 1)


async def test_a_cut_stream_that_left_calls_is_repaired(scene: Scene) -> None:
    async with scene.pattern(find, stream_responses=True, max_retries=0) as pattern:
        thread_id = await pattern.create_thread()
        scene.script(Reply(tool_calls=(FIND,)), Reply("Here."))
        scene.simulator.inject(Fault("orphaned_calls"))
        with pytest.raises(openai.APIConnectionError):
            await pattern.execute("Where is parcel AB-1?", {"thread_id": thread_id})
        result = await pattern.execute("Are you there?", {"thread_id": thread_id})
    assert result.repaired_calls == 1


async def test_outputs_the_user_has_are_not_replaced(scene: Scene) -> None:
    async with scene.pattern(find, scene.hang) as pattern:
        thread_id = await pattern.create_thread()
        await scene.interrupt(pattern, thread_id)
        calls = [item for item in await pattern.list_items(thread_id) if item["type"] == "function_call"]
        output = {"type": "function_call_output", "call_id": calls[0]["call_id"], "output": "Found."}
        result = await pattern.execute([output, {"role": "user", "content": "So?"}], {"thread_id": thread_id})
        items = await pattern.list_items(thread_id)
    assert result.repaired_calls == 1
    assert sorted(item["output"] for item in items if item["type"] == "function_call_output") == [INTERRUPTED, "Found."]


async def test_a_run_that_has_made_calls_is_not_begun_again(scene: Scene) -> None:
    async with scene.pattern() as other:
        thread_id = await other.create_thread()
        made = 0

        async def meddle() -> None:
            nonlocal made
            made += 1
            call: Any = {"type": "function_call", "call_id": "of another process", "name": "find", "arguments": "{}"}
            await other.clients.get().conversations.items.create(thread_id, items=[call])

        async with scene.pattern(meddle) as pattern:
            scene.script(Reply(tool_calls=(ScriptedCall("meddle"),)))
            with pytest.raises(openai.BadRequestError, match="No tool output found"), Run()():
                await pattern.execute("Go.", {"thread_id": thread_id})
    assert made == 1


def test_calls_of_custom_tools_are_repaired_in_their_own_form() -> None:
    thread = [
        {"type": "custom_tool_call", "call_id": "1"},
        {"type": "function_call", "call_id": "2"},
        {"type": "function_call_output", "call_id": "2"},
        {"role": "user", "content": "So?"},
    ]
    assert missing_outputs(thread, []) == [
        {"type": "custom_tool_call_output", "call_id": "1", "output": INTERRUPTED},
    ]


@pytest.mark.parametrize("legacy", ["thread_abc", "asst_abc", "run_abc"])
async def test_legacy_ids_are_named(legacy: str) -> None:
    for field in ("thread_id", "assistant_id"):
        with pytest.raises(ConfigurationError, match=f"{field} '{legacy}' .*Assistants API, which ended on 2026-08-26"):
            OpenAIAssistantConfig(**{field: legacy})  # type: ignore[arg-type] # the fields named are strings
    pattern = OpenAIAssistantPattern(OpenAIPatternConfig(api_key=KEY, base_url="http://127.0.0.1:9"))
    for use in (
        lambda: pattern.execute("Hi.", {"thread_id": legacy}),
        lambda: pattern.list_items(legacy),
        lambda: pattern.delete_thread(legacy),
    ):
        with pytest.raises(ConfigurationError, match="Assistants API"):
            await use()
    with pytest.raises(ConfigurationError, match="conversation_id"), Run()(conversation_id=legacy):
        await pattern.execute("Hi.")
    with pytest.raises(ConfigurationError, match="must be a string that is not empty, not 7"):
        await pattern.execute("Hi.", {"thread_id": 7})


async def test_instructions_that_cannot_be_sent(scene: Scene) -> None:
    async with scene.pattern(system_prompt="Be brief.\udcff") as pattern:
        await pattern.execute("Hello.")
        with pytest.raises(ConfigurationError, match=r"context\['instructions'\] must be a string, not a 'int'"):
            await pattern.execute("Hello.", {"instructions": 5})
    assert [prompt.instructions for prompt in scene.prompts] == ["Be brief.?"]


async def test_a_rate_limit_passes_and_a_retired_request_does_not(scene: Scene) -> None:
    run = Run()
    async with scene.pattern() as pattern:
        thread_id = await pattern.create_thread()
        scene.simulator.inject(Fault("rate_limit", endpoint="/responses"))
        with run():
            assert (await pattern.execute("Hello.", {"thread_id": thread_id})).content
        scene.simulator.inject(Fault("server_error", endpoint="/conversations"))
        assert await pattern.create_thread()
        scene.simulator.inject(Fault("failed", times=9))
        with pytest.raises(PatternError), run():
            await pattern.execute("Hello.", {"thread_id": thread_id})
    assert [request.attempt for request in run.requests] == [1, 2, 1, 2, 3]


async def test_answers_are_streamed(scene: Scene) -> None:
    pieces: list[str] = []

    async def take(text: str) -> None:
        pieces.append(text)

    run = Run(delta=take)
    async with scene.pattern(find) as pattern:
        with run():
            result = await pattern.execute("Where is parcel AB-1?")
    assert "".join(pieces) == result.content
    assert [started.stream for started in run.of(ModelCallStarted)] == [True, True]


async def test_it_is_stored_whatever_the_config_says(scene: Scene) -> None:
    async with scene.pattern(store=False) as pattern:
        result = await pattern.execute("Hello.")
        response = await pattern.clients.get().responses.retrieve(str(result.response_id))
    assert response.to_dict()["store"] is True


def test_it_makes_do_with_a_general_config() -> None:
    pattern = PatternRegistry().create_pattern("openai_assistant", OpenAIPatternConfig(assistant_id="support"))
    assert isinstance(pattern, OpenAIAssistantPattern)
    assert pattern.config.lock_timeout == 30
