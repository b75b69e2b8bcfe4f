"""The augmented LLM pattern: a real graph, over real HTTP."""

import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import anyio
import openai
import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from pattern_support import KEY, Run, check_whole, find
from pydantic import Field
from scene_support import PatternScene
from telemetry_support import Captured
from time_support import passing

from runmeter.engine import ConfigurationError, Engine, ModelCallStarted, Provenance, Retrieval, RunTimeout
from runmeter.engine.testing import Recorder
from runmeter.patterns import (
    AsyncioRequired,
    AugmentedLLMPattern,
    MeteringHandler,
    OpenAIPatternConfig,
    PatternConfig,
    PatternRegistry,
    ResponseFailed,
)
from runmeter.patterns.errors import RetiredModel
from runmeter.patterns.langgraph.augmented_llm import CONTEXT, NOTHING_FOUND, AugmentedLLMConfig
from runmeter.patterns.retrieval.retriever import Passage
from runmeter.simulator import Fault, Reply, ScriptedCall, Simulator

FIND = ScriptedCall("find", '{"number": "AB-1"}')
TEXT = "It is in Berlin, where it waits for the customs officer to come back from a very long lunch."


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio."""
    return "asyncio"


Scene: TypeAlias = PatternScene[AugmentedLLMPattern]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene(AugmentedLLMPattern) as scene:
        yield scene


async def test_it_answers_with_tools(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(find, system_prompt="Be brief.") as pattern:
        with run():
            result = await pattern.execute("Where is parcel AB-1?")
    assert "Berlin" in result.content
    assert (result.turns, result.finish_reason) == (2, "stop")
    assert [type(message).__name__ for message in result.messages] == ["AIMessage", "ToolMessage", "AIMessage"]
    assert [call.output for call in result.function_calls] == ['{"number":"AB-1","city":"Berlin"}']
    assert [(call.name, call.error_type) for call in run.calls] == [("find", None)]
    assert run.reported == scene.simulator.statistics().total
    assert [request.finish_reasons for request in run.requests] == [("tool_calls",), ("stop",)]
    assert result.response_id == run.requests[-1].response_id
    [first, _] = run.of(ModelCallStarted)
    assert (first.model, first.api, first.stream, first.temperature) == ("gpt-6-luna", "responses", False, None)
    assert "Be brief." in repr(scene.prompts[0])


async def test_a_plain_config_and_the_environment_will_do(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", scene.url)
    async with AugmentedLLMPattern(PatternConfig(), [find]) as pattern:
        result = await pattern.execute({"role": "user", "content": "Where is parcel AB-1?"})
    assert "Berlin" in result.content


async def test_it_remembers_a_conversation_and_only_that(scene: Scene) -> None:
    async with scene.pattern() as pattern, Engine() as engine:
        await engine.run(pattern, "My parcel is AB-77.", conversation_id="c1")
        result = await engine.run(pattern, "Where is it?", conversation_id="c1")
        assert len(scene.prompts[-1].items) == 3
        assert result.value.conversation_id == "c1"
        await engine.run(pattern, "Where is it?", conversation_id="c2")
        assert len(scene.prompts[-1].items) == 1
        await engine.run(pattern, "Where is it?", {"conversation_id": "c1"})
        assert len(scene.prompts[-1].items) == 5
        await engine.run(pattern, "Where is it?")
        assert len(scene.prompts[-1].items) == 1


async def test_any_checkpointer_keeps_it_beyond_the_pattern(scene: Scene) -> None:
    saver = InMemorySaver()
    for turn in range(3):
        async with scene.pattern(find, checkpointer=saver, name="support") as pattern:
            await pattern.execute(f"Question {turn} on parcel AB-{turn}?", {"conversation_id": "c1"})
    state = await pattern.remembering_graph.aget_state({"configurable": {"thread_id": "c1"}})
    assert [type(message).__name__ for message in state.values["messages"]] == [
        "HumanMessage",
        "AIMessage",
        "ToolMessage",
        "AIMessage",
    ] * 3


@pytest.mark.parametrize("durability", ["exit", "sync"])
async def test_a_conversation_survives_a_run_that_broke_off(scene: Scene, durability: str) -> None:
    begun = anyio.Event()

    async def look() -> str:
        if begun.is_set():
            return "found"
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError

    scene.simulator.script(Reply(tool_calls=(ScriptedCall("look"),)))
    async with scene.pattern(look, durability=durability) as pattern:

        async def work() -> None:
            await pattern.execute("Go.", {"conversation_id": "c1"})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await begun.wait()
            tasks.cancel_scope.cancel()
        result = await pattern.execute("Are you there?", {"conversation_id": "c1"})
    assert result.content, "no API takes a history with an open call"


async def test_runs_of_one_conversation_take_turns(scene: Scene) -> None:
    async with scene.pattern(find) as pattern, Engine() as engine:
        async with anyio.create_task_group() as tasks:
            for turn in range(5):
                tasks.start_soon(lambda n: engine.run(pattern, f"Where is AB-{n}?", conversation_id="c1"), turn)
        state = await pattern.remembering_graph.aget_state({"configurable": {"thread_id": "c1"}})
    messages = state.values["messages"]
    assert sorted(message.text for message in messages if message.type == "human") == [
        f"Where is AB-{n}?" for n in range(5)
    ]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"] * 5


async def test_those_of_different_conversations_do_not_wait(scene: Scene) -> None:
    waiting = anyio.Semaphore(0)
    both = anyio.Event()

    async def meet() -> None:
        waiting.release()
        await both.wait()

    scene.simulator.script(*[Reply(tool_calls=(ScriptedCall("meet"),))] * 2)
    async with scene.pattern(meet) as pattern, anyio.create_task_group() as tasks:
        for name in ("c1", "c2"):
            tasks.start_soon(pattern.execute, "Go.", {"conversation_id": name})
        await waiting.acquire()
        await waiting.acquire()
        both.set()


async def test_a_run_does_not_wait_for_itself(scene: Scene) -> None:
    async def again() -> str:
        return (await pattern.execute("And now?", {"conversation_id": "c1"})).content

    scene.simulator.script(Reply(tool_calls=(ScriptedCall("again"),)))
    async with scene.pattern(again) as pattern:
        result = await pattern.execute("Go.", {"conversation_id": "c1"})
        assert [call.error_type for call in result.function_calls] == ["PatternError"]
        assert (await pattern.execute("Still there?", {"conversation_id": "c1"})).content


async def test_after_a_failure_the_same_message_is_not_remembered_twice(scene: Scene) -> None:
    scene.simulator.inject(Fault("insufficient_quota"))
    message = HumanMessage("Where is it?", id="m1")
    async with scene.pattern() as pattern:
        with pytest.raises(openai.RateLimitError):
            await pattern.execute(message, {"conversation_id": "c1"})
        await pattern.execute(message, {"conversation_id": "c1"})
        state = await pattern.remembering_graph.aget_state({"configurable": {"thread_id": "c1"}})
    assert [message.type for message in state.values["messages"]] == ["human", "ai"]


async def test_a_message_said_twice_is_remembered_twice(scene: Scene) -> None:
    message = HumanMessage("Go on.")
    async with scene.pattern() as pattern:
        for _ in range(2):
            await pattern.execute(message, {"conversation_id": "c1"})
    assert [item.type for item in scene.prompts[-1].items] == ["message"] * 3
    assert message.id is None, "it is its owner's"


async def test_answers_of_one_id_are_remembered_each() -> None:
    model = GenericFakeChatModel(messages=iter(AIMessage(text, id="same") for text in "abc"))
    async with AugmentedLLMPattern(PatternConfig(), model=model) as pattern:
        for text in "123":
            await pattern.execute(text, {"conversation_id": "c1"})
        state = await pattern.remembering_graph.aget_state({"configurable": {"thread_id": "c1"}})
    assert [message.text for message in state.values["messages"]] == ["1", "a", "2", "b", "3", "c"]


@pytest.mark.parametrize("durability", ["exit", "async", "sync"])
async def test_memory_grows_with_what_was_said_alone(scene: Scene, durability: str) -> None:
    kept: list[int] = []
    async with scene.pattern(find, durability=durability) as pattern:
        saver: Any = pattern.remembering_graph.checkpointer
        for _ in range(4):
            await pattern.execute("Where is parcel AB-1?", {"conversation_id": "c1"})
            scene.simulator.inject(Fault("insufficient_quota"))
            with pytest.raises(openai.RateLimitError):
                await pattern.execute("Still there?", {"conversation_id": "c1"})
            kept.append(len(saver.storage["c1"][""]) + len(saver.blobs) + len(saver.writes))
        await pattern.execute("So?", {"conversation_id": "c1"})
    assert max(kept) == kept[0] < 10
    assert len([item for item in scene.prompts[-1].items if item.type == "message"]) == 13, "nothing is lost"


@pytest.mark.parametrize(
    ("context", "named"),
    [
        ({"conversation_id": 7}, "conversation_id must be a string that is not empty, not 7"),
        ({"conversation_id": ""}, "conversation_id must be a string"),
        ({"instructions": 5}, "context\\['instructions'\\] must be a string"),
    ],
)
async def test_a_context_that_makes_no_sense_is_refused(scene: Scene, context: dict[str, Any], named: str) -> None:
    async with scene.pattern() as pattern:
        with pytest.raises(ConfigurationError, match=named):
            await pattern.execute("Hello.", context)
    assert scene.prompts == []


@pytest.mark.parametrize(
    "message",
    ["Where is \ud800?", {"role": "user", "content": "\ud800"}, HumanMessage([{"type": "text", "text": "\ud800"}])],
)
async def test_text_that_cannot_be_sent_is_cleaned(scene: Scene, message: Any) -> None:
    arguments = '{"number": "AB \\ud83d é"}'
    scene.simulator.script(Reply(tool_calls=(ScriptedCall("search", arguments),)))
    seen: list[str] = []

    async def search(number: str) -> str:
        seen.append(number)
        return "nothing"

    run = Run()
    async with scene.pattern(search, system_prompt="Be brief.\udcff") as pattern:
        for text in (message, "And now?"):
            with run():
                result = await pattern.execute(text, {"conversation_id": "c1"})
                assert result.content
    assert seen[0] == "AB ? é"
    assert run.reported == scene.simulator.statistics().total


async def test_a_number_of_any_size_is_an_argument(scene: Scene) -> None:
    scene.simulator.script(Reply(tool_calls=(ScriptedCall("weigh", '{"grams": 100000000000000000000000}'),)))

    async def weigh(grams: float) -> str:
        return f"{grams:g} g"

    async with scene.pattern(weigh) as pattern:
        result = await pattern.execute("Weigh it.")
    assert [call.output for call in result.function_calls] == ["1e+23 g"]


async def test_instructions_are_not_part_of_the_memory(scene: Scene) -> None:
    async with scene.pattern(system_prompt="Be brief.") as pattern:
        await pattern.execute("One?", {"conversation_id": "c1"})
        await pattern.execute("Two?", {"conversation_id": "c1", "instructions": "Be long."})
        state = await pattern.remembering_graph.aget_state({"configurable": {"thread_id": "c1"}})
    assert [message.type for message in state.values["messages"]] == ["human", "ai", "human", "ai"]
    assert "Be long." in repr(scene.prompts[-1])
    assert "Be brief." not in repr(scene.prompts[-1])


async def test_every_call_is_answered(scene: Scene) -> None:
    begun, release = threading.Event(), threading.Event()
    calls = (
        FIND,
        ScriptedCall("nope"),
        ScriptedCall("find", "{x"),
        ScriptedCall("fail"),
        ScriptedCall("stuck"),
        ScriptedCall("find", '{"number": 1}'),
    )
    scene.simulator.script(Reply(tool_calls=calls), Reply("Done."))

    def fail() -> None:
        raise LookupError("nothing here")

    def stuck() -> None:
        begun.set()
        release.wait()

    run = Run()
    try:
        with run():
            async with (
                scene.pattern(find, fail, stuck, tool_timeout=30) as pattern,
                passing(30, whenever=lambda: begun.is_set() and len(run.calls) == len(calls) - 1),
            ):
                result = await pattern.execute("Go.")
    finally:
        release.set()
    assert result.content == "Done."
    told = {message.tool_call_id: message for message in result.messages if isinstance(message, ToolMessage)}
    errors = {told[call.call_id].content: call.error_type for call in result.function_calls}
    assert sorted(map(str, errors.values())) == [
        "InvalidArguments",
        "InvalidArguments",
        "LookupError",
        "None",
        "ToolTimeout",
        "UnknownTool",
    ]
    assert sum(message.status == "error" for message in told.values()) == 5
    assert len(run.calls) == 6


async def test_limits_hold(scene: Scene) -> None:
    calls = Reply(tool_calls=(FIND,) * 2)
    run = Run()
    scene.simulator.script(*[calls] * 2)
    async with scene.pattern(find, max_function_calls=3) as pattern:
        with run():
            result = await pattern.execute("Where is parcel AB-1?")
    assert [call.error_type for call in result.function_calls] == [None] * 3 + ["CallLimitReached"]
    assert len(run.calls) == 3
    assert (result.turns, bool(result.content)) == (3, True)
    assert not scene.prompts[-1].tools, "the last answer is without tools"
    scene.simulator.script(*[calls] * 9)
    async with scene.pattern(find, max_iterations=3) as pattern:
        result = await pattern.execute("Where is parcel AB-1?")
    assert result.turns == 3, "even where the model asks for more"


@pytest.mark.parametrize(
    ("mode", "choices"), [("auto", ["auto", "auto"]), ("none", ["auto"]), ("required", ["required", "auto"])]
)
async def test_the_mode_says_whether_tools_are_called(scene: Scene, mode: Any, choices: list[str]) -> None:
    async with scene.pattern(find, function_calling_mode=mode, parallel_tool_calls=False) as pattern:
        result = await pattern.execute("Where is parcel AB-1?")
    assert [prompt.choice for prompt in scene.prompts] == choices
    assert bool(result.function_calls) is (mode != "none")


async def test_calls_of_an_answer_that_was_cut_off_are_not_made(scene: Scene) -> None:
    long = ScriptedCall("find", '{"number": "' + "AB-1 " * 100 + '"}')
    scene.simulator.script(Reply(tool_calls=(FIND, long)))
    run = Run()
    async with scene.pattern(find, openai_max_tokens=40) as pattern:
        with run():
            result = await pattern.execute("Where is it?")
    assert (result.finish_reason, result.turns) == ("length", 1)
    assert {call.error_type for call in result.function_calls} == {"AnswerCutOff"}
    assert run.calls == []


async def test_an_answer_cut_off_while_it_was_thought_of_can_be_gone_on_from(scene: Scene) -> None:
    scene.simulator.script(Reply("It is in Berlin.", reasoning_tokens=100))
    async with scene.pattern(openai_max_tokens=16) as pattern:
        result = await pattern.execute("Where is it?", {"conversation_id": "c1"})
        await pattern.execute("So?", {"conversation_id": "c1"})
    assert (result.content, result.finish_reason) == ("", "length")
    assert [item.type for item in scene.prompts[-1].items] == ["message"] * 2


async def test_deltas_are_streamed_when_somebody_listens(scene: Scene) -> None:
    registry = PatternRegistry()
    recorder = Recorder()
    scene.simulator.script(Reply(tool_calls=(FIND,)), Reply(TEXT))
    async with scene.pattern(find) as pattern, Engine(usage=registry.usage) as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        async with engine.stream(pattern, "Where is parcel AB-1?") as stream:
            texts = [item.text async for item in stream if hasattr(item, "text")]
        stats = registry.get_usage_stats("augmented_llm")
    assert "".join(texts) == TEXT
    assert len(texts) > 1
    started = [event for event in recorder.events if isinstance(event, ModelCallStarted)]
    assert [event.stream for event in started] == [True, True]
    assert stats["openai_metrics"]["total_tokens"] == scene.simulator.statistics().total.total_tokens


async def test_attempts_are_events(scene: Scene) -> None:
    scene.simulator.inject(Fault("server_error"), Fault("rate_limit"))
    captured = Captured()
    run = Run(tracing=captured.telemetry)
    async with scene.pattern() as pattern:
        with run():
            await pattern.execute("Hello there.")
    assert [(request.attempt, request.error_type, request.provenance) for request in run.requests] == [
        (1, "OpenAIAPIError", Provenance.UNKNOWN),
        (2, "rate_limit_exceeded", Provenance.REPORTED),
        (3, None, Provenance.REPORTED),
    ]
    assert run.reported == scene.simulator.statistics().total
    parents = {request.trace.parent_span_id for request in run.requests if request.trace}
    assert len(parents) == 1, "attempts stand side by side"


@pytest.mark.parametrize(
    ("fault", "error", "attempts"),
    [
        (Fault("insufficient_quota", times=9), openai.RateLimitError, 1),
        (Fault("server_error", times=9), openai.InternalServerError, 3),
        (Fault("drop", times=9), openai.APIConnectionError, 3),
        (Fault("failed", times=9), ResponseFailed, 3),
        (Fault("latency", times=9, seconds=3600), ResponseFailed, 3),
    ],
)
async def test_errors_are_the_callers_in_the_end(
    scene: Scene, fault: Fault, error: type[Exception], attempts: int
) -> None:
    scene.simulator.inject(fault)
    run = Run()
    is_late = fault.kind == "latency"
    async with (
        scene.pattern(request_timeout=30) as pattern,
        passing(30, whenever=lambda: is_late and scene.simulator.statistics().faults),
    ):
        with pytest.raises(error), run():
            await pattern.execute("Hello there.")
    assert len(run.requests) == attempts
    if is_late:
        assert {request.error_type for request in run.requests} == {"request_timeout"}


@pytest.mark.parametrize("kind", ["stream_cut", "stream_end", "stream_error", "stream_error_nested"])
@pytest.mark.parametrize("heard", [False, True])
async def test_a_stream_that_breaks_off_is_repeated_if_nobody_heard_it(scene: Scene, kind: Any, heard: bool) -> None:
    seen: list[str] = []

    async def delta(text: str) -> None:
        seen.append(text)

    scene.simulator.script(Reply(TEXT))
    scene.simulator.inject(Fault(kind, after_events=8 if heard else 2))
    run = Run(delta=delta)
    async with scene.pattern() as pattern:
        if heard:
            with pytest.raises((openai.APIError, ResponseFailed)), run():
                await pattern.execute("Where is it?")
            assert all(request.error_type for request in run.requests)
            assert TEXT.startswith("".join(seen))
        else:
            with run():
                result = await pattern.execute("Where is it?")
            assert "".join(seen) == result.content
            cut, whole = run.requests
            assert cut.error_type
            assert whole.error_type is None


@pytest.mark.parametrize("where", ["request", "stream", "tool", "thread"])
async def test_a_run_that_times_out_leaves_nothing_open(scene: Scene, where: str) -> None:
    begun, release = threading.Event(), threading.Event()
    recorder = Recorder()

    async def hang() -> None:
        begun.set()
        await anyio.sleep_forever()

    def stuck() -> None:
        begun.set()
        release.wait()

    if where in ("request", "stream"):
        scene.simulator.inject(Fault("latency", seconds=3600 if where == "request" else 0, between_chunks=3600))
    else:
        scene.simulator.script(Reply(tool_calls=(ScriptedCall("hang" if where == "tool" else "stuck"),)))
    try:
        async with (
            scene.pattern(hang, stuck) as pattern,
            Engine() as engine,
            passing(30, whenever=lambda: begun.is_set() or scene.simulator.statistics().faults),
        ):
            engine.subscribe(recorder, name="recorder", lane="lossless")
            with pytest.raises(RunTimeout):
                if where == "stream":
                    async with engine.stream(pattern, "Go.", timeout=30) as stream:
                        async for _ in stream:
                            pass
                else:
                    await engine.run(pattern, "Go.", timeout=30)
    finally:
        release.set()
    check_whole(recorder.events)


async def test_any_chat_model_will_do() -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("one two three"), AIMessage("four five")]))
    seen: list[str] = []

    async def delta(text: str) -> None:
        seen.append(text)

    async with AugmentedLLMPattern(PatternConfig(), model=model) as pattern:
        assert pattern.model is model
        run = Run()
        with run():
            assert (await pattern.execute("x")).content == "one two three"
        with (run := Run(delta=delta))():
            assert (await pattern.execute([HumanMessage("x")])).content == "four five"
    assert "".join(seen) == "four five"
    assert [request.provenance for request in run.requests] == [Provenance.ESTIMATED], "it reports nothing"


async def test_langchain_tools_are_counted_once(scene: Scene) -> None:
    inner = GenericFakeChatModel(messages=iter([AIMessage("Berlin")] * 9))

    @tool
    async def find(number: str) -> str:
        """Find a parcel by asking another model."""
        return str((await inner.ainvoke(number)).text)

    @tool
    async def weigh(number: str) -> str:
        """Weigh a parcel by calling another tool."""
        return str(await find.ainvoke({"number": number}))

    scene.simulator.script(Reply(tool_calls=(FIND, ScriptedCall("weigh", '{"number": "AB-1"}'))), Reply("Done."))
    captured = Captured()
    run = Run(tracing=captured.telemetry)
    async with scene.pattern(find, weigh) as pattern:
        with run():
            await pattern.execute("Where is it?")
    assert sorted(call.name for call in run.calls) == ["find", "find", "weigh"]
    assert [request.model for request in run.requests].count("unknown") == 2
    [weighing] = [call.trace for call in run.calls if call.name == "weigh"]
    assert weighing is not None
    nested = [call for call in run.calls if call.trace and call.trace.parent_span_id == weighing.span_id]
    assert [call.name for call in nested] == ["find"]


async def test_a_pattern_that_is_a_tool_of_another_is_metered_once(scene: Scene) -> None:
    async def ask_expert(question: str) -> str:
        """Ask the expert."""
        result = await engine.run(expert, question)
        return str(result.value.content)

    recorder = Recorder()
    scene.simulator.script(Reply(tool_calls=(ScriptedCall("ask_expert", '{"question": "Is a pine a tree?"}'),)))
    async with (
        scene.pattern(name="expert") as expert,
        scene.pattern(ask_expert, name="clerk") as clerk,
        Engine() as engine,
    ):
        engine.subscribe(recorder, name="recorder", lane="lossless")
        await engine.run(clerk, "Ask the expert about pines.")
        usage = engine.usage()
    assert usage.total.usage == scene.simulator.statistics().total
    assert {name: sum(total.requests_by_provenance.values()) for name, total in usage.by_pattern().items()} == {
        "clerk": 2,
        "expert": 1,
    }
    check_each_whole(recorder)


@pytest.mark.parametrize("timeout", [None, 30])
async def test_so_is_one_in_a_metered_graph(scene: Scene, timeout: float | None) -> None:
    recorder = Recorder()
    if timeout:
        scene.simulator.inject(Fault("latency", seconds=3600))

    async def ask(state: MessagesState) -> MessagesState:
        try:
            await engine.run(pattern, "Where is it?", timeout=timeout)
        except RunTimeout:
            assert timeout
        return state

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    compiled = graph.compile()

    async def work(message: Any, context: Any) -> None:
        with MeteringHandler() as meter:
            await compiled.ainvoke({"messages": [HumanMessage(message)]}, {"callbacks": [meter]})

    async with (
        scene.pattern() as pattern,
        Engine() as engine,
        passing(30, whenever=lambda: scene.simulator.statistics().faults),
    ):
        engine.subscribe(recorder, name="recorder", lane="lossless")
        await engine.run(work, "Go.")
        usage = engine.usage().total
    assert sum(usage.requests_by_provenance.values()) == 1
    if timeout is None:
        assert usage.usage == scene.simulator.statistics().total
    check_each_whole(recorder)


def check_each_whole(recorder: Recorder) -> None:
    """Check each run's events."""
    for run_id in {event.run_id for event in recorder.events}:
        check_whole([event for event in recorder.events if event.run_id == run_id])


SEA = Passage(text="The sea is 3,688 m deep on average.", source="sea.md", score=0.8)
BEES = Passage(text="Bees visit flowers.", score=0.3)


async def library(query: str) -> list[Passage]:
    """What tests search in."""
    return [SEA, BEES] if "sea" in query else []


async def test_passages_are_retrieved_and_the_answer_names_them(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(retriever=library) as pattern:
        with run():
            result = await pattern.execute("How deep is the sea?")
    assert result.passages == (SEA, BEES)
    assert result.content == "The sea is 3,688 m deep on average [1]."
    [told] = scene.prompts[0].items
    assert told.text == f"{CONTEXT}\n\n[1] (sea.md) {SEA.text}\n\n[2] {BEES.text}\n\nQuestion: How deep is the sea?"
    [retrieval] = run.of(Retrieval)
    assert (retrieval.source, retrieval.documents, retrieval.top_score) == ("library", 2, 0.8)
    assert (retrieval.requested, retrieval.error_type) == (5, None)
    assert retrieval.seq < run.of(ModelCallStarted)[0].seq
    assert run.reported == scene.simulator.statistics().total


async def test_passages_are_not_remembered(scene: Scene) -> None:
    async with scene.pattern(retriever=library) as pattern:
        await pattern.execute("How deep is the sea?", {"conversation_id": "c1"})
        result = await pattern.execute("And how salty is the sea?", {"conversation_id": "c1"})
        state = await pattern.remembering_graph.aget_state({"configurable": {"thread_id": "c1"}})
    remembered = state.values["messages"]
    assert [message.text for message in remembered if message.type == "human"] == [
        "How deep is the sea?",
        "And how salty is the sea?",
    ]
    assert len(remembered) == 4
    first, _, last = scene.prompts[-1].items
    assert first.text == "How deep is the sea?"
    assert last.text.startswith(CONTEXT)
    assert [message.type for message in result.messages] == ["ai"]


async def test_passages_stay_while_tools_are_called(scene: Scene) -> None:
    async with scene.pattern(find, retriever=library, max_iterations=3) as pattern:
        scene.simulator.script(*[Reply(tool_calls=(FIND,))] * 2)
        result = await pattern.execute("How deep is the sea?")
    assert (result.turns, len(result.function_calls)) == (3, 2), "retrieval takes no turn"
    items = scene.prompts[-1].items
    assert [item.type for item in items] == ["message"] + ["function_call", "function_call_output"] * 2
    assert items[0].text.startswith(CONTEXT)


async def test_nothing_found_is_told(scene: Scene) -> None:
    async with scene.pattern(retriever=library) as pattern:
        result = await pattern.execute("What do bees do?")
    assert result.passages == ()
    assert [item.text for item in scene.prompts[0].items] == [f"{NOTHING_FOUND}\n\nQuestion: What do bees do?"]


async def test_a_question_of_several_parts_keeps_them(scene: Scene) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    async with scene.pattern(retriever=library) as pattern:
        await pattern.execute(HumanMessage([{"type": "text", "text": "How deep is the sea?"}, image]))
    content: Any = scene.prompts[0].items[0].content
    assert [part.type for part in content] == ["input_text", "input_text", "input_image"]
    assert content[0].text.startswith(CONTEXT)
    assert content[1].text == "How deep is the sea?"


@pytest.mark.parametrize(
    ("settings", "found"), [({"passages": 1}, (SEA,)), ({"min_score": 0.5}, (SEA,)), ({"min_score": 0.9}, ())]
)
async def test_how_much_is_retrieved_is_configured(scene: Scene, settings: dict[str, Any], found: Any) -> None:
    async with scene.pattern(retriever=library, **settings) as pattern:
        assert (await pattern.execute("How deep is the sea?")).passages == found


async def test_where_nothing_is_asked_nothing_is_searched(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(retriever=library) as pattern:
        with run():
            await pattern.execute([{"role": "assistant", "content": "Hello."}])
            image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
            await pattern.execute(HumanMessage([image]))
    assert run.of(Retrieval) == []
    assert [len(prompt.items) for prompt in scene.prompts] == [1, 1]


async def test_a_retriever_that_fails_ends_the_run(scene: Scene) -> None:
    def broken(query: str) -> list[str]:
        raise LookupError("the index is gone")

    run = Run()
    async with scene.pattern(retriever=broken) as pattern:
        with pytest.raises(LookupError, match="the index is gone"), run():
            await pattern.execute("How deep is the sea?")
    [retrieval] = run.of(Retrieval)
    assert (retrieval.source, retrieval.error_type, retrieval.documents) == ("broken", "LookupError", 0)
    assert run.of(ModelCallStarted) == []


async def test_a_retriever_may_be_cancelled(scene: Scene) -> None:
    begun = anyio.Event()

    async def slow(query: str) -> list[str]:
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError

    recorder = Recorder()
    async with scene.pattern(retriever=slow) as pattern, Engine() as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        async with passing(30, whenever=begun.is_set):
            with pytest.raises(RunTimeout):
                await engine.run(pattern, "How deep is the sea?", timeout=30)
    check_whole(recorder.events)
    assert [event.error_type for event in recorder.events if isinstance(event, Retrieval)] == ["CancelledError"]


async def test_passages_of_runs_at_once_do_not_mix(scene: Scene) -> None:
    async def by_number(query: str) -> list[str]:
        return [f"Passage for {query}"]

    async with scene.pattern(retriever=by_number) as pattern, Engine() as engine:
        results = await engine.map(pattern, [f"question {n}" for n in range(20)], concurrency=20)
    for number, result in enumerate(results):
        [passage] = result.value.passages  # type: ignore[union-attr] # none failed
        assert passage.text == f"Passage for question {number}"


async def test_what_is_no_retriever_or_checkpointer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is not a retriever"):
        AugmentedLLMPattern(PatternConfig(), retriever="library")
    nothing: Any = "memory"
    with pytest.raises(ConfigurationError, match="checkpointer must be one of LangGraph's, not 'memory'"):
        AugmentedLLMPattern(PatternConfig(), checkpointer=nothing)
    with pytest.raises(ConfigurationError, match="durability"):
        AugmentedLLMConfig(durability="never")  # type: ignore[arg-type] # that is the point


async def test_many_runs_at_once(scene: Scene) -> None:
    registry = PatternRegistry()
    async with scene.pattern(find) as pattern, Engine(usage=registry.usage) as engine:
        results = await engine.map(pattern, [f"Where is parcel AB-{n}?" for n in range(60)], concurrency=20)
    assert all(f"AB-{n}" in result.content for n, result in enumerate(results))  # type: ignore[union-attr] # none failed
    billed = scene.simulator.statistics()
    total = registry.usage.snapshot().total
    assert (total.usage, total.function_calls) == (billed.total, billed.tool_calls)
    assert total.requests_by_provenance == {Provenance.REPORTED: billed.requests["POST /responses"]}


async def test_the_key_is_seen_nowhere(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    recorder = Recorder()
    scene.simulator.inject(Fault("insufficient_quota"))
    async with scene.pattern(find) as pattern, Engine() as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        with pytest.raises(openai.RateLimitError) as raised:
            await engine.run(pattern, "Where is parcel AB-1?")
        result = await engine.run(pattern, "Where is parcel AB-1?")
        assert KEY not in f"{pattern!r} {pattern.config!r} {pattern.model!r}"
    assert KEY not in repr((recorder.events, result, raised.value)) + str(raised.value)
    assert KEY not in caplog.text


async def test_a_retired_model_is_named() -> None:
    config = OpenAIPatternConfig(openai_model="gpt-4", api_key=KEY, base_url="https://api.openai.com/v1")
    async with AugmentedLLMPattern(config) as pattern:
        with pytest.raises(RetiredModel, match=r"gpt-5\.6-sol"):
            await pattern.execute("x")


def test_trio_gets_a_clear_error() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with Engine() as engine, AugmentedLLMPattern(PatternConfig(name="support")) as pattern:
            engine.subscribe(recorder, name="recorder", lane="lossless")
            with pytest.raises(AsyncioRequired, match="'support' is built on LangGraph, which needs asyncio"):
                await engine.run(pattern, "x")

    anyio.run(main, backend="trio")
    check_whole(recorder.events)


def test_one_pattern_serves_many_event_loops() -> None:
    def use(url: str) -> list[str]:
        pattern = AugmentedLLMPattern(OpenAIPatternConfig(base_url=url, api_key=KEY), [find])

        async def once() -> str:
            result = await pattern.execute("Where is parcel AB-1?", {"conversation_id": "c1"})
            await pattern.aclose()
            return result.content

        return [anyio.run(once) for _ in range(3)]

    async def main() -> list[str]:
        async with Simulator() as url:
            return await anyio.to_thread.run_sync(use, url)

    assert all("Berlin" in content for content in anyio.run(main))


def test_each_event_loop_gets_its_own_model() -> None:
    pattern = AugmentedLLMPattern(OpenAIPatternConfig(base_url="http://127.0.0.1:1/v1", api_key=KEY))

    async def use() -> None:
        client = pattern._clients.get()
        for _ in range(300):
            model: Any = pattern.model
            assert model.root_async_client is client, "another loop's"
        await pattern.aclose()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(anyio.run, use) for _ in range(2)]:
                done.result()
    finally:
        sys.setswitchinterval(interval)


class _Repeating(GenericFakeChatModel):
    """Gives all its calls one id, as some servers do."""

    told: list[list[BaseMessage]] = Field(default_factory=list)

    def bind_tools(self, tools: Any, **settings: Any) -> Any:
        return self

    def _generate(self, messages: Any, *arguments: Any, **named: Any) -> Any:
        self.told.append(list(messages))
        return super()._generate(messages, *arguments, **named)


@pytest.mark.parametrize("call_id", ["c", None, ""])
async def test_each_call_has_an_id_of_its_own(call_id: str | None) -> None:
    def look(n: int) -> int:
        return n

    calls = [tool_call(name="look", args={"n": n}, id=call_id) for n in range(3)]
    answers = [AIMessage("", tool_calls=calls[:2]), AIMessage("", tool_calls=calls[2:]), AIMessage("Done.")]
    model = _Repeating(messages=iter(answers))
    run = Run()
    async with AugmentedLLMPattern(OpenAIPatternConfig(), [look], model=model) as pattern:
        with run():
            result = await pattern.execute("Look.")
    last = model.told[-1]
    made = [each["id"] for message in last if isinstance(message, AIMessage) for each in message.tool_calls]
    told = [(message.tool_call_id, message.content) for message in last if isinstance(message, ToolMessage)]
    assert made == (["c", "c_2", "c_3"] if call_id else ["call_1", "call_2", "call_3"])
    assert told == list(zip(made, "012", strict=True))
    assert {call.call_id for call in run.calls} == set(made)
    assert [call.call_id for call in result.function_calls] == made
