"""The routing pattern: classifications good and bad, and whoever answers."""

import json
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeAlias

import anyio
import openai
import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from pattern_support import KEY, Run, check_whole, find
from scene_support import PatternScene
from time_support import passing

from runmeter.engine import (
    ConfigurationError,
    Delta,
    Engine,
    ExecutionFinished,
    ExecutionStarted,
    ModelCallStarted,
    RunTimeout,
    Status,
    current_execution,
)
from runmeter.engine.testing import Recorder
from runmeter.patterns import (
    AsyncioRequired,
    AugmentedLLMPattern,
    OpenAIPatternConfig,
    PatternConfig,
    PatternResult,
    ResponseFailed,
)
from runmeter.patterns.langgraph.routing import Route, RoutingConfig, RoutingPattern
from runmeter.simulator import Fault, Reply, ScriptedCall

ROUTES = (
    Route(name="Refund", description="Money back.", instructions="Be sorry."),
    Route(name="Parcel", description="Where a parcel is.", instructions="Be exact."),
)
FIND = Reply(tool_calls=(ScriptedCall("find", '{"number": "AB-1"}'),))
TEXT = "It is in Berlin, where it waits for the customs officer to come back from a very long lunch."


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio."""
    return "asyncio"


def said(route: str, confidence: Any = 0.9) -> Reply:
    """A classification."""
    return Reply(json.dumps({"reason": "It says so.", "route": route, "confidence": confidence}))


class Socket:
    """A WebSocket that keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send_json(self, message: Any) -> None:
        self.sent.append(message)


Scene: TypeAlias = PatternScene[RoutingPattern]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene(RoutingPattern, routes=ROUTES) as scene:
        yield scene


def all_whole(run: Run) -> None:
    """Check the events of every run, children included."""
    for started in run.of(ExecutionStarted):
        check_whole([event for event in run.events if event.run_id == started.run_id])


async def test_a_message_is_classified_and_answered_as_its_route_says(scene: Scene) -> None:
    scene.script(said("Parcel"), FIND, Reply(TEXT))
    run = Run()
    async with scene.pattern(find, system_prompt="Be brief.") as pattern:
        with run():
            result = await pattern.execute([HumanMessage("Hello."), AIMessage("Hi!"), HumanMessage("Where is AB-1?")])
    assert (result.route, result.label, result.confidence, result.reason) == ("Parcel", "Parcel", 0.9, "It says so.")
    assert (result.content, result.finish_reason, result.turns, result.fell_back) == (TEXT, "stop", 3, None)
    assert [type(message).__name__ for message in result.messages] == ["AIMessage", "ToolMessage", "AIMessage"]
    assert [call.output for call in result.function_calls] == ['{"number":"AB-1","city":"Berlin"}']
    assert run.reported == scene.simulator.statistics().total
    assert [call.name for call in run.calls] == ["find"]
    assert result.response_id == run.requests[-1].response_id
    classify, answer, _ = scene.prompts
    assert classify.json_schema is not None
    assert classify.json_schema["properties"]["route"]["enum"] == ["Refund", "Parcel", "general"]
    assert "- Parcel: Where a parcel is." in classify.items[0].text
    assert "Be brief." not in classify.items[0].text
    assert not classify.tools
    assert answer.items[0].text == "Be brief.\n\nBe exact."
    assert [item.text for item in classify.items[1:]] == [item.text for item in answer.items[1:]]


async def test_a_plain_config_and_the_environment_will_do(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", scene.url)
    async with RoutingPattern(PatternConfig()) as pattern:
        result = await pattern.execute("Could you mend this code for me?")
    assert (result.route, result.fell_back) == ("code", None)
    assert result.content


@pytest.mark.parametrize("label", ["parcel", " PARCEL\n", "Parcel"])
async def test_case_and_spaces_of_a_label_do_not_matter(scene: Scene, label: str) -> None:
    scene.script(said(label))
    async with scene.pattern() as pattern:
        result = await pattern.execute("Where is AB-1?")
    assert (result.route, result.label, result.fell_back) == ("Parcel", label, None)


@pytest.mark.parametrize(
    ("replies", "label", "why"),
    [
        ([said("Weather")], "Weather", "unknown_label"),
        ([said("")], "", "unknown_label"),
        ([said("Refund", 0.49)], "Refund", "low_confidence"),
        ([said("Refund", 90), Reply("I would say refund.")], None, "malformed"),
        ([Reply("{"), Reply('{"route": "Refund"}')], None, "malformed"),
    ],
)
async def test_a_bad_classification_takes_the_default_route(
    scene: Scene, replies: list[Reply], label: str | None, why: str
) -> None:
    scene.script(*replies, Reply(TEXT))
    async with scene.pattern(default_route="parcel ") as pattern:
        result = await pattern.execute("Where is AB-1?")
    assert (result.route, result.label, result.fell_back, result.content) == ("Parcel", label, why, TEXT)
    assert result.turns == len(replies) + 1
    assert scene.prompts[-1].items[0].text == "Be exact."


async def test_a_malformed_classification_has_a_second_try(scene: Scene) -> None:
    scene.script(Reply("Refund, I think."), said("Refund"))
    async with scene.pattern() as pattern:
        result = await pattern.execute("I want my money.")
    assert (result.route, result.fell_back, result.turns) == ("Refund", None, 3)


async def test_the_default_route_may_be_chosen_and_needs_no_confidence(scene: Scene) -> None:
    scene.script(said("general", 0.1))
    async with scene.pattern(min_confidence=1.0) as pattern:
        result = await pattern.execute("Hello!")
    assert (result.route, result.fell_back) == ("general", None)


async def test_a_pattern_as_handler_is_a_child_run(scene: Scene) -> None:
    scene.script(said("Parcel"), FIND, Reply(TEXT))
    run = Run()
    finder = AugmentedLLMPattern(OpenAIPatternConfig(base_url=scene.url, api_key=KEY, name="finder"), [find])
    async with finder, scene.pattern(handlers={"parcel": finder}) as pattern:
        with run(conversation_id="c1") as execution:
            result = await pattern.execute("Where is AB-1?")
    assert (result.content, result.turns, result.route, result.conversation_id) == (TEXT, 3, "Parcel", "c1")
    assert [call.name for call in result.function_calls] == ["find"]
    assert result.messages == result.handled.messages
    [_, child] = run.of(ExecutionStarted)
    assert (child.pattern, child.parent_run_id, child.conversation_id) == ("finder", execution.run_id, "c1")
    assert [event.run_id for event in run.of(ModelCallStarted)] == [execution.run_id, child.run_id, child.run_id]
    assert run.reported == scene.simulator.statistics().total
    all_whole(run)


@pytest.mark.parametrize(
    ("value", "content"), [("Done.", "Done."), (7, "7"), (None, ""), (PatternResult(content="x", turns=4), "x")]
)
@pytest.mark.parametrize("threaded", [False, True])
async def test_a_function_as_handler(scene: Scene, value: Any, content: str, threaded: bool) -> None:
    seen: list[Any] = []

    def sync(messages: list[BaseMessage], context: Mapping[str, Any]) -> Any:
        seen.extend([messages[-1].text, context["customer"], current_execution().info.pattern, threading.get_ident()])
        return value

    async def asynchronous(messages: list[BaseMessage], context: Mapping[str, Any]) -> Any:
        return sync(messages, context)

    scene.script(said("Refund"))
    run = Run()
    handler = sync if threaded else asynchronous
    async with scene.pattern(handlers={"Refund": handler}) as pattern:
        with run():
            result = await pattern.execute("Money!", {"customer": "Ada"})
    assert seen[:2] == ["Money!", "Ada"]
    assert seen[2] == handler.__qualname__, "it is a run of its own"
    assert (seen[3] != threading.get_ident()) is threaded
    assert (result.content, result.handled) == (content, value)
    assert result.turns == (5 if isinstance(value, PatternResult) else 1)
    all_whole(run)


async def test_an_error_of_a_handler_is_the_callers(scene: Scene) -> None:
    async def fail(messages: Any, context: Any) -> str:
        raise LookupError("no such customer")

    scene.script(said("Refund"))
    run = Run()
    async with scene.pattern(handlers={"Refund": fail}) as pattern:
        with pytest.raises(LookupError, match="no such customer"), run():
            await pattern.execute("Money!")
    assert [event.status for event in run.of(ExecutionFinished)] == [Status.ERROR, Status.ERROR]
    all_whole(run)


@pytest.mark.parametrize("handler", ["model", "pattern", "function", "talker"])
async def test_only_the_answer_is_handed_out_as_this_runs(scene: Scene, handler: str) -> None:
    async def function(messages: Any, context: Any) -> str:
        return TEXT

    async def talker(messages: Any, context: Any) -> str:
        for word in TEXT.split(" "):
            await current_execution().delta(f" {word}" if word != "It" else word)
        return TEXT

    socket = Socket()
    scene.script(said("Parcel"), Reply(TEXT))
    async with AugmentedLLMPattern(OpenAIPatternConfig(base_url=scene.url, api_key=KEY)) as sub, Engine() as engine:
        options: dict[str, Any] = {"pattern": sub, "function": function, "talker": talker}
        handlers = {"Parcel": options[handler]} if handler in options else {}
        async with (
            scene.pattern(handlers=handlers, ws_streaming=socket) as pattern,
            engine.stream(pattern, "Where is AB-1?") as stream,
        ):
            deltas = [item async for item in stream if isinstance(item, Delta)]
    assert "".join(delta.text for delta in deltas) == TEXT
    assert {delta.run_id for delta in deltas} == {stream.result.run_id}
    assert [message["text"] for message in socket.sent] == [delta.text for delta in deltas]
    assert {message["run_id"] for message in socket.sent} == {stream.result.run_id}
    assert (len(deltas) == 1) is (handler == "function")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"routes": [{"name": "a"}, {"name": " A"}]}, "two routes a"),
        ({"default_route": "Nowhere"}, "no route 'Nowhere'"),
        ({"routes": []}, "nothing to choose"),
        ({"routes": [{"name": "a"}], "default_route": "a"}, "nothing to choose"),
        ({"min_confidence": 2}, "min_confidence"),
        ({"routes": [{"name": " "}]}, "Route.name"),
    ],
)
def test_what_cannot_be_is_said(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        RoutingConfig(**settings)


def test_a_config_is_made_of_plain_data() -> None:
    config = RoutingConfig(routes=[{"name": "a", "description": "b"}, {"name": "general"}])  # type: ignore[arg-type]  # as TOML has it
    assert config.routes == (Route(name="a", description="b"), Route(name="general"))
    assert list(config.by_label) == ["a", "general"]


async def pieces(messages: Any, context: Any) -> AsyncIterator[str]:
    yield "A piece."


@pytest.mark.parametrize(
    "handlers",
    [{"Weather": find}, {"Refund": "not callable"}, {"Refund": AugmentedLLMPattern}, {"Refund": pieces}, [find]],
)
def test_a_handler_must_be_one_and_have_a_route(handlers: Any) -> None:
    with pytest.raises(ConfigurationError, match="handlers"):
        RoutingPattern(RoutingConfig(routes=ROUTES, api_key=KEY), handlers=handlers)


async def test_attempts_are_events_and_final_errors_the_callers(scene: Scene) -> None:
    run = Run()
    async with scene.pattern() as pattern:
        scene.simulator.inject(Fault("rate_limit"), Fault("server_error"))
        scene.script(said("Refund"))
        with run():
            await pattern.execute("Money!")
        assert [request.attempt for request in run.requests] == [1, 2, 3, 1]
        scene.simulator.inject(Fault("server_error", times=9))
        with pytest.raises(openai.InternalServerError), run():
            await pattern.execute("Money!")
    assert len(run.requests) == 7


async def test_a_stream_that_breaks_off_after_it_was_heard_is_an_error(scene: Scene) -> None:
    heard: list[str] = []

    async def delta(text: str) -> None:
        heard.append(text)

    scene.script(said("Refund"), Reply(TEXT))
    scene.simulator.inject(Fault("stream_end", after_events=8))
    run = Run(delta=delta)
    async with scene.pattern() as pattern:
        with pytest.raises(ResponseFailed), run():
            await pattern.execute("Money!")
    assert TEXT.startswith("".join(heard))
    assert [bool(request.error_type) for request in run.requests] == [False, True]


async def test_limits_of_calls_and_answers_hold(scene: Scene) -> None:
    scene.script(said("Parcel"), *[FIND] * 2, Reply(TEXT))
    async with scene.pattern(find, max_function_calls=1) as pattern:
        result = await pattern.execute("Where is AB-1?")
    assert [call.error_type for call in result.function_calls] == [None, "CallLimitReached"]
    assert not scene.prompts[2].tools
    scene.replies.clear()
    scene.script(said("Parcel"), *[FIND] * 9)
    async with scene.pattern(find, max_iterations=2) as pattern:
        result = await pattern.execute("Where is AB-1?")
    assert result.turns == 3


@pytest.mark.parametrize("where", ["classify", "answer", "handler"])
async def test_a_run_that_times_out_leaves_nothing_open(scene: Scene, where: str) -> None:
    async def hang(*_: Any) -> None:
        begun.set()
        await anyio.sleep_forever()

    async def hang_tool() -> None:
        """Never come back."""
        await hang()

    begun, recorder = anyio.Event(), Recorder()
    scene.script(said("Parcel"))
    if where == "classify":
        scene.simulator.inject(Fault("latency", seconds=3600))
    tools = [hang_tool] if where == "answer" else []
    scene.script(Reply(tool_calls=(ScriptedCall("hang_tool"),)))
    handlers = {"Parcel": hang} if where == "handler" else {}
    async with (
        scene.pattern(*tools, handlers=handlers) as pattern,
        Engine() as engine,
        passing(30, whenever=lambda: begun.is_set() or scene.simulator.statistics().faults),
    ):
        engine.subscribe(recorder, name="recorder", lane="lossless")
        with pytest.raises(RunTimeout):
            await engine.run(pattern, "Where is AB-1?", timeout=30)
    runs = {event.run_id for event in recorder.events}
    assert len(runs) == (2 if where == "handler" else 1)
    for run_id in runs:
        check_whole([event for event in recorder.events if event.run_id == run_id])


async def test_runs_at_once_do_not_mix(scene: Scene) -> None:
    async def echo(messages: list[BaseMessage], context: Any) -> str:
        return f"{context['number']}: {messages[-1].text}"

    async with scene.pattern(handlers=dict.fromkeys(("Refund", "Parcel"), echo), min_confidence=0.0) as pattern:
        results: dict[int, Any] = {}

        async def one(number: int) -> None:
            text = f"Is it a {'refund' if number % 2 else 'parcel'}, number {number}?"
            results[number] = await pattern.execute(text, {"number": number})

        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(one, number)
    for number, result in results.items():
        assert result.route == ("Refund" if number % 2 else "Parcel")
        assert result.content.startswith(f"{number}: ")
        assert result.turns == 1


async def test_a_model_that_cannot_be_held_to_a_shape_will_do() -> None:
    answer = 'I think so: {"reason": "It is.", "route": "refund ", "confidence": 1}'
    model = GenericFakeChatModel(messages=iter([AIMessage(answer), AIMessage("Sorry.")]))
    async with RoutingPattern(RoutingConfig(routes=ROUTES), model=model) as pattern:
        result = await pattern.execute("Money!")
    assert (result.route, result.label, result.content) == ("Refund", "refund ", "Sorry.")


def test_trio_gets_a_clear_error() -> None:
    async def main() -> None:
        async with RoutingPattern(PatternConfig()) as pattern:
            with pytest.raises(AsyncioRequired):
                await pattern.execute("x")

    anyio.run(main, backend="trio")
