"""The conversation pattern, over the real client and a server on this machine."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import openai
import pytest
from pattern_support import Run, find
from scene_support import PatternScene

from runmeter.engine import ConfigurationError, Engine, ModelCallStarted, TokenCounter
from runmeter.patterns import OpenAIPatternConfig, PatternRegistry
from runmeter.patterns.errors import ContextTooLong, UnknownConversation
from runmeter.patterns.openai.conversation import OpenAIConversationConfig, OpenAIConversationPattern
from runmeter.patterns.openai.threads.history import (
    SUMMARY_PREFIX,
    History,
    InMemoryHistoryStore,
)
from runmeter.simulator import Fault, Prompt, Reply, ScriptedCall

MEMORIES = ("local", "response", "conversation")
FIND = ScriptedCall("find", '{"number": "AB-1"}')
MODEL = "gpt-6-luna"


def _text(item: Any) -> str:
    written = msgspec.to_builtins(item)
    content = written.get("content") or written.get("output") or written.get("arguments") or ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


class Scene(PatternScene[OpenAIConversationPattern]):
    def improvise(self, prompt: Prompt) -> Reply:
        return Reply(f"Answer {len(self.prompts)}.")

    def seen(self) -> list[str]:
        """What the model was told last."""
        return [text for text in map(_text, self.prompts[-1].items) if text]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene(OpenAIConversationPattern) as scene:
        yield scene


@pytest.mark.parametrize("memory", MEMORIES)
async def test_what_was_said_is_remembered(scene: Scene, memory: str) -> None:
    scene.script(Reply(tool_calls=(FIND,)), Reply("In Berlin."), Reply("With pleasure."))
    run = Run()
    async with scene.pattern(find, memory=memory, system_prompt="Be brief.") as pattern:
        with run():
            first = await pattern.execute("Where is parcel AB-1?")
            second = await pattern.execute("Thanks.")
    assert (first.content, second.content) == ("In Berlin.", "With pleasure.")
    assert len(scene.prompts[-1].items) == 5
    assert scene.seen()[0] == "Where is parcel AB-1?"
    assert scene.seen()[-2:] == ["In Berlin.", "Thanks."]
    assert scene.prompts[-1].instructions == "Be brief."
    assert first.conversation_id == second.conversation_id == pattern.conversation_id
    assert (second.restarted, second.repaired_calls, second.trimmed_turns, second.summary_error) == (False, 0, 0, None)
    assert (second.thread_id is not None) is (second.context_tokens is None) is (memory == "conversation")
    assert run.reported == scene.simulator.statistics().total
    after = [event.previous_response_id for event in run.of(ModelCallStarted)]
    assert after == ([None, run.requests[0].response_id, first.response_id] if memory == "response" else [None] * 3)


@pytest.mark.parametrize("memory", MEMORIES)
async def test_conversations_do_not_mix_and_their_turns_do_not_cross(scene: Scene, memory: str) -> None:
    async def chat(pattern: OpenAIConversationPattern, engine: Engine, name: str) -> None:
        for number in range(3):
            await engine.run(pattern, f"{name}{number}", conversation_id=name)

    async with scene.pattern(memory=memory) as pattern, Engine() as engine:
        async with anyio.create_task_group() as tasks:
            for name in ("a", "b", "c", "c"):
                tasks.start_soon(chat, pattern, engine, name)
        for name, turns in (("a", 3), ("b", 3), ("c", 6)):
            await engine.run(pattern, "End.", conversation_id=name)
            asked = [text for text in scene.seen() if not text.startswith("Answer")]
            assert len(asked) == turns + 1
            assert {text[0] for text in asked[:-1]} == {name}


async def test_which_conversation_a_run_belongs_to(scene: Scene) -> None:
    async with scene.pattern(thread_id="configured") as pattern:
        with Run()(conversation_id="of the run"):
            results = [
                await pattern.execute("Hi.", {"conversation_id": "told", "thread_id": "other"}),
                await pattern.execute("Hi.", {"thread_id": "other"}),
                await pattern.execute("Hi."),
            ]
        results.append(await pattern.execute("Hi."))
        with pytest.raises(ConfigurationError, match="conversation_id must be a string that is not empty, not 7"):
            await pattern.execute("Hi.", {"thread_id": 7})
    assert [result.conversation_id for result in results] == ["told", "other", "of the run", "configured"]


@pytest.mark.parametrize("memory", ["local", "response"])
@pytest.mark.parametrize("end", ["failure", "cancelled"])
async def test_a_turn_that_ends_badly_leaves_the_history_as_it_was(scene: Scene, memory: str, end: str) -> None:
    async with scene.pattern(scene.hang, memory=memory) as pattern:
        await pattern.execute("One.")
        before = await pattern.store.load(pattern.conversation_id)
        await pattern.store.release(pattern.conversation_id)
        if end == "failure":
            scene.simulator.inject(Fault("insufficient_quota"))
            with pytest.raises(openai.RateLimitError), Run()():
                await pattern.execute("Two.")
        else:
            scene.script(Reply(tool_calls=(ScriptedCall("hang"),)))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pattern.execute, "Two.")
                await scene.hanging.wait()
                tasks.cancel_scope.cancel()
        assert await pattern.store.load(pattern.conversation_id) == before
        await pattern.store.release(pattern.conversation_id)
        await pattern.execute("Three.")
    assert scene.seen() == ["One.", "Answer 1.", "Three."]


async def test_a_cancelled_turn_in_a_thread_is_repaired(scene: Scene) -> None:
    async with scene.pattern(scene.hang, memory="conversation") as pattern:
        scene.script(Reply(tool_calls=(ScriptedCall("hang"),)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pattern.execute, "Two.")
            await scene.hanging.wait()
            tasks.cancel_scope.cancel()
        result = await pattern.execute("Three.")
    assert result.repaired_calls == 1
    assert scene.seen()[0] == "Two."


@pytest.mark.parametrize("memory", ["local", "response"])
async def test_an_answer_cut_off_while_it_was_thought_of_can_be_gone_on_from(scene: Scene, memory: str) -> None:
    async with scene.pattern(memory=memory, openai_max_tokens=16) as pattern:
        scene.script(Reply("It is in Berlin.", reasoning_tokens=100))
        first = await pattern.execute("Where is it?")
        second = await pattern.execute("So?")
    assert (first.finish_reason, [item["type"] for item in first.messages]) == ("length", ["reasoning"])
    assert [item.type for item in scene.prompts[-1].items] == ["message"] * 2
    assert second.restarted is False


async def test_what_becomes_of_a_result_is_not_remembered(scene: Scene) -> None:
    async with scene.pattern() as pattern:
        result = await pattern.execute("One.")
        result.messages[0]["content"].clear()
        await pattern.execute("Two.")
    assert scene.seen() == ["One.", "Answer 1.", "Two."]


# The limit


async def test_the_oldest_turns_are_left_out_whole(scene: Scene) -> None:
    scene.script(Reply(tool_calls=(FIND,)), Reply("In Berlin."))
    system = {"role": "system", "content": "Be kind."}
    async with scene.pattern(find, max_context_tokens=160, system_prompt="Be brief.") as pattern:
        await pattern.execute([system, {"role": "user", "content": "Where is parcel AB-1?"}])
        results = [await pattern.execute(f"{number} " + "word " * 20) for number in range(4)]
        counted = await TokenCounter().count_messages(
            [{"role": item.role, "content": _text(item)} for item in scene.prompts[-1].items],
            MODEL,
            instructions="Be brief.",
            tools=pattern.tool_loop.definitions,
        )
    assert sum(result.trimmed_turns for result in results) > 0
    assert results[-1].context_tokens == counted.tokens <= 160
    assert scene.seen()[0] == "Be kind.", "instructions stay"
    assert not any("Berlin" in text or "AB-1" in text for text in scene.seen())
    assert [item.type for item in scene.prompts[-1].items] == ["message"] * len(scene.prompts[-1].items)
    assert scene.prompts[-1].instructions == "Be brief."


async def test_a_message_that_is_too_long_by_itself_is_refused(scene: Scene) -> None:
    async with scene.pattern(max_context_tokens=50) as pattern:
        await pattern.execute("One.")
        with pytest.raises(ContextTooLong, match="more than the 50 of max_context_tokens"), Run()():
            await pattern.execute("word " * 60)
        result = await pattern.execute("Two.")
    assert result.trimmed_turns == 0
    assert scene.seen() == ["One.", "Answer 1.", "Two."]


async def test_the_oldest_turns_are_summarised(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(
        max_context_tokens=200, context_policy="summarise", summary_tokens=20, summary_model="gpt-6.1-terra"
    ) as pattern:
        with run():
            for number in range(3):
                await pattern.execute(f"{number} {{braces}} " + "word " * 40)
            scene.script(Reply("The user counts."), Reply("I see."))
            result = await pattern.execute("3 " + "word " * 40)
    told = _text(scene.prompts[-2].items[0])
    assert told.startswith("user: 0 {braces} word")
    assert "assistant: Answer 1." in told
    assert "at most 10 words" in str(scene.prompts[-2].instructions)
    assert result.content == "I see."
    assert result.summarised_turns == 3
    assert (result.trimmed_turns, result.summary_error) == (0, None)
    assert result.context_tokens is not None
    assert result.context_tokens < 100
    assert scene.seen()[0] == SUMMARY_PREFIX + "The user counts."
    assert [request.model for request in run.requests] == [MODEL] * 3 + ["gpt-6.1-terra", MODEL]
    assert run.reported == scene.simulator.statistics().total


async def test_a_summary_takes_in_the_one_before(scene: Scene) -> None:
    async with scene.pattern(max_context_tokens=200, context_policy="summarise", summary_tokens=20) as pattern:
        for number in range(9):
            result = await pattern.execute(f"{number} " + "word " * 40)
            if result.summarised_turns:
                break
        scene.prompts.clear()
        while not (await pattern.execute("word " * 40)).summarised_turns:
            scene.prompts.clear()
    assert _text(scene.prompts[0].items[0]).startswith("user: " + SUMMARY_PREFIX)


@pytest.mark.parametrize(
    ("fault", "reply", "why"),
    [
        (Fault("insufficient_quota"), None, "insufficient_quota"),
        (Fault("failed"), None, "server_error"),
        (Fault("incomplete"), None, "MalformedAnswer"),
        (None, Reply("word " * 300), "summary_too_long"),
    ],
)
async def test_without_a_summary_turns_are_left_out(
    scene: Scene, fault: Fault | None, reply: Reply | None, why: str
) -> None:
    async with scene.pattern(
        max_context_tokens=200, context_policy="summarise", summary_tokens=20, max_retries=0
    ) as pattern:
        for number in range(3):
            await pattern.execute(f"{number} " + "word " * 40)
        if fault is not None:
            scene.simulator.inject(fault)
        if reply is not None:
            scene.script(reply)
        result = await pattern.execute("3 " + "word " * 40)
    assert (result.summary_error, result.summarised_turns) == (why, 0)
    assert result.trimmed_turns > 0
    assert scene.seen()[-1].startswith("3 ")


async def test_no_summary_is_paid_for_where_none_can_help(scene: Scene) -> None:
    async with scene.pattern(max_context_tokens=200, context_policy="summarise", summary_tokens=20) as pattern:
        await pattern.execute("One. " + "word " * 40)
        before = scene.simulator.statistics().total
        with pytest.raises(ContextTooLong):
            await pattern.execute("word " * 300)
    assert scene.simulator.statistics().total == before


async def test_deltas_are_of_answers_and_not_of_summaries(scene: Scene) -> None:
    pieces: list[str] = []

    async def take(text: str) -> None:
        pieces.append(text)

    async with scene.pattern(max_context_tokens=200, context_policy="summarise", summary_tokens=20) as pattern:
        for number in range(3):
            await pattern.execute(f"{number} " + "word " * 40)
        scene.script(Reply("The user counts."), Reply("I see."))
        with Run(delta=take)():
            await pattern.execute("3 " + "word " * 40)
    assert "".join(pieces) == "I see."


# What OpenAI keeps


async def test_an_answer_openai_has_no_more_is_gone_on_from_here(scene: Scene) -> None:
    async with scene.pattern(memory="response") as pattern:
        first = await pattern.execute("One.")
        await pattern.clients.get().responses.delete(str(first.response_id))
        second = await pattern.execute("Two.")
        assert scene.seen() == ["One.", "Answer 1.", "Two."]
        third = await pattern.execute("Three.")
    assert [first.restarted, second.restarted, third.restarted] == [False, True, False]
    assert len(scene.prompts[-1].items) == 5


async def test_a_turn_that_has_made_calls_is_not_begun_again(scene: Scene) -> None:
    made = 0

    async def forget_it() -> None:
        nonlocal made
        made += 1
        await pattern.clients.get().responses.delete(str(run.requests[-1].response_id))

    run = Run()
    async with scene.pattern(forget_it, memory="response") as pattern:
        with run():
            await pattern.execute("One.")
            scene.script(Reply(tool_calls=(ScriptedCall("forget_it"),)))
            with pytest.raises(openai.BadRequestError, match="not found"):
                await pattern.execute("Two.")
    assert made == 1


async def test_an_answer_nobody_has_is_a_clear_error(scene: Scene) -> None:
    store = InMemoryHistoryStore()
    await store.save("c1", History(response_id="resp_gone"))
    async with scene.pattern(memory="response", store=store) as pattern:
        with pytest.raises(UnknownConversation, match="does not have answer 'resp_gone', or not any more"):
            await pattern.execute("One.", {"conversation_id": "c1"})


async def test_outputs_openai_was_not_told_are_told_in_the_next_turn(scene: Scene) -> None:
    async with scene.pattern(find, memory="response", max_iterations=1) as pattern:
        scene.script(Reply(tool_calls=(FIND,)))
        first = await pattern.execute("Where is parcel AB-1?")
        second = await pattern.execute("So?")
    assert first.messages[-1]["type"] == "function_call_output"
    assert second.restarted is False
    assert [item.type for item in scene.prompts[-1].items] == [
        *("message", "function_call"),
        *("function_call_output", "message"),
    ]


async def test_a_trimmed_context_is_sent_anew(scene: Scene) -> None:
    async with scene.pattern(memory="response", max_context_tokens=120) as pattern:
        results = [await pattern.execute(f"{number} " + "word " * 40) for number in range(3)]
    assert [result.trimmed_turns for result in results] == [0, 0, 1]
    assert [result.restarted for result in results] == [False] * 3
    assert [text[0] for text in scene.seen()] == ["1", "A", "2"]


@pytest.mark.parametrize("persistent", [True, False])
async def test_threads_go_with_their_pattern_unless_persistent(scene: Scene, persistent: bool) -> None:
    store = InMemoryHistoryStore()
    options: Any = {"memory": "conversation", "persistent_thread": persistent, "store": store}
    async with scene.pattern(**options) as pattern:
        first = await pattern.execute("One.", {"conversation_id": "c1"})
    async with scene.pattern(**options) as pattern:
        if persistent:
            second = await pattern.execute("Two.", {"thread_id": first.thread_id})
            assert second.conversation_id == second.thread_id == first.thread_id
        else:
            with pytest.raises(UnknownConversation):
                await pattern.execute("Two.", {"thread_id": first.thread_id})
        third = await pattern.execute("Three.", {"conversation_id": "c1"})
    assert (third.thread_id == first.thread_id) is persistent
    assert len(scene.prompts[-1].items) == (5 if persistent else 1)


@pytest.mark.parametrize("memory", MEMORIES)
async def test_a_conversation_can_be_forgotten(scene: Scene, memory: str) -> None:
    async with scene.pattern(memory=memory, persistent_thread=True) as pattern:
        first = await pattern.execute("One.")
        await pattern.forget()
        await pattern.forget("never heard of")
        second = await pattern.execute("Two.")
        assert scene.seen() == ["Two."]
        if memory == "conversation":
            assert first.thread_id != second.thread_id
            with pytest.raises(UnknownConversation):
                await pattern.execute("Three.", {"thread_id": first.thread_id})


async def test_a_thread_of_the_callers_own_is_not_deleted(scene: Scene) -> None:
    async with scene.pattern(memory="conversation") as pattern:
        thread_id = (await pattern.clients.get().conversations.create()).id
        await pattern.execute("One.", {"conversation_id": thread_id})
        await pattern.forget(thread_id)
        assert len(await pattern.threads.items(thread_id)) == 2


# Stores


class Slow(InMemoryHistoryStore):
    """Says what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    async def load(self, conversation_id: str) -> History | None:
        self.log.append("load")
        return await super().load(conversation_id)

    async def save(self, conversation_id: str, history: History) -> None:
        assert msgspec.json.decode(msgspec.json.encode(history), type=History) == history
        self.log.append("save")
        await super().save(conversation_id, history)

    async def release(self, conversation_id: str) -> None:
        await anyio.lowlevel.checkpoint()  # where a cancellation would come
        self.log.append("release")
        await super().release(conversation_id)


async def test_a_store_is_told_of_each_turn_once(scene: Scene) -> None:
    store = Slow()
    async with scene.pattern(scene.hang, store=store) as pattern:
        await pattern.execute("One.")
        scene.script(Reply(tool_calls=(ScriptedCall("hang"),)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pattern.execute, "Two.")
            await scene.hanging.wait()
            tasks.cancel_scope.cancel()
    assert store.log == ["load", "save", "release", "load", "release"]


# Configurations


def test_configurations_that_make_no_sense_are_refused() -> None:
    for settings, complaint in (
        ({"memory": "conversation", "max_context_tokens": 1000}, "max_context_tokens is not for memory"),
        ({"memory": "conversation", "context_policy": "summarise"}, "context_policy is not for memory"),
        ({"memory": "conversation", "thread_id": "run_1"}, "Assistants API"),
        ({"context_policy": "summarise", "max_context_tokens": 2000}, "less than half of max_context_tokens, 2000"),
        ({"memory": "cloud"}, "memory"),
    ):
        with pytest.raises(ConfigurationError, match=complaint):
            OpenAIConversationConfig(**settings)
    no_store: Any = {}
    with pytest.raises(ConfigurationError, match="'dict' is not a history store: it has no load, save, release, del"):
        OpenAIConversationPattern(OpenAIConversationConfig(), store=no_store)
    assert OpenAIConversationConfig(thread_id="run_1").thread_id == "run_1", "the caller's own"


def test_it_makes_do_with_a_general_config() -> None:
    pattern = PatternRegistry().create_pattern("openai_conversation", OpenAIPatternConfig())
    assert isinstance(pattern, OpenAIConversationPattern)
    assert (pattern.config.memory, pattern.config.context_limit) == ("local", 128_000)
