"""The orchestrator pattern: plans good and bad, workers that work, fail and are stopped, and what is made of it."""

import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import openai
import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from pattern_support import KEY, Run, check_whole, find
from scene_support import PatternScene
from telemetry_support import Captured
from time_support import passing

from runmeter.engine import (
    ConfigurationError,
    Delta,
    Engine,
    ExecutionFinished,
    ExecutionStarted,
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
)
from runmeter.patterns.errors import MalformedAnswer
from runmeter.patterns.langgraph.orchestrator_workers import (
    OrchestratorWorkersConfig,
    OrchestratorWorkersPattern,
    Task,
)
from runmeter.patterns.langgraph.routing import RoutingPattern
from runmeter.simulator import Fault, Prompt, Reply, ScriptedCall

TEXT = "All three parcels are in Berlin, where they wait for the customs officer to come back from lunch."


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio."""
    return "asyncio"


def plan(*titles: str) -> Reply:
    return Reply(json.dumps({"tasks": [{"title": title, "instructions": f"Do {title}."} for title in titles]}))


class Scene(PatternScene[OrchestratorWorkersPattern]):
    """One whose model plays planner, workers and synthesis."""

    def __init__(self, kind: type[OrchestratorWorkersPattern]) -> None:
        super().__init__(kind)
        self.plans: deque[Reply] = deque()
        self.work: dict[str, Reply] = {}
        """By title of the task."""
        self.planned: list[Prompt] = []
        self.worked: list[Prompt] = []
        self.answered: list[Prompt] = []

    def improvise(self, prompt: Prompt) -> Reply | None:
        if prompt.json_schema is not None:
            self.planned.append(prompt)
            return self.plans.popleft() if self.plans else None
        if prompt.user_text.startswith("Your task: "):
            self.worked.append(prompt)
            title = prompt.user_text.splitlines()[0].removeprefix("Your task: ")
            return None if prompt.outputs else self.work.get(title, Reply(f"Done {title}."))
        self.answered.append(prompt)
        return Reply(TEXT) if not prompt.tools else None


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene(OrchestratorWorkersPattern) as scene:
        yield scene


def all_whole(events: list[Any]) -> dict[str, Status]:
    """Check the events of every run, children included. Gives how each ended, in the order they began."""
    started = [event for event in events if isinstance(event, ExecutionStarted)]
    ends = {event.run_id: event.status for event in events if isinstance(event, ExecutionFinished)}
    order = list(ends)
    for run in started:
        check_whole([event for event in events if event.run_id == run.run_id])
        if run.parent_run_id is not None:
            assert order.index(run.run_id) < order.index(run.parent_run_id), "no child outlives its parent"
    return {run.run_id: ends[run.run_id] for run in started}


async def test_a_request_is_planned_done_and_put_together(scene: Scene) -> None:
    scene.plans += [plan("one", "two", "three")]
    scene.work["two"] = Reply(tool_calls=(ScriptedCall("find", '{"number": "AB-2"}'),))
    captured = Captured()
    run = Run(tracing=captured.telemetry)
    async with scene.pattern(find, system_prompt="Be brief.", name="desk") as pattern:
        with run() as execution:
            result = await pattern.execute([HumanMessage("Hello."), AIMessage("Hi!"), HumanMessage("Find them.")])
    assert (result.content, result.finish_reason, result.turns, result.plan_problem) == (TEXT, "stop", 6, None)
    assert [each.task for each in result.tasks] == [
        Task(title=title, instructions=f"Do {title}.") for title in ("one", "two", "three")
    ]
    assert [each.output for each in result.tasks][::2] == ["Done one.", "Done three."]
    assert "Berlin" in str(result.tasks[1].output)
    assert [each.finish_reason for each in result.tasks] == ["stop"] * 3
    assert [type(message).__name__ for message in result.messages] == ["AIMessage"]
    assert [call.output for call in result.function_calls] == ['{"number":"AB-2","city":"Berlin"}']
    assert run.reported == scene.simulator.statistics().total

    parent, *children = run.of(ExecutionStarted)
    assert [child.pattern for child in children] == ["desk.worker"] * 3
    assert {child.parent_run_id for child in children} == {execution.run_id}
    assert {child.trace.parent_span_id for child in children} == {parent.trace.span_id}
    assert [call.run_id in {child.run_id for child in children} for call in run.calls] == [True]
    assert sum(request.run_id == execution.run_id for request in run.requests) == 2
    assert set(all_whole(run.events).values()) == {Status.OK}

    told = [prompt.items[0].text for prompt in (*scene.planned, *scene.worked, *scene.answered)]
    assert all(text.startswith("Be brief.\n\n") for text in told)
    assert told[0].endswith("The most there can be: 5")
    assert [item.text for item in scene.worked[0].items[1:4]] == ["Hello.", "Hi!", "Find them."]
    [synthesis] = scene.answered
    assert synthesis.user_text.startswith("What came of the tasks:\n\n## one\n\nDone one.\n\n## two\n\n")
    assert not synthesis.tools


async def test_a_plain_config_and_the_environment_will_do(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", scene.url)
    async with OrchestratorWorkersPattern(PatternConfig()) as pattern:
        result = await pattern.execute("Compare pines, oaks and elms.")
    assert result.content == TEXT
    assert len(result.tasks) > 1


@pytest.mark.parametrize(
    ("plans", "problem", "turns"),
    [
        ([plan()], "empty", 3),
        ([Reply("No plan."), Reply('{"tasks": [1]}')], "malformed", 4),
    ],
)
async def test_without_a_plan_the_model_answers_with_its_tools(
    scene: Scene, plans: list[Reply], problem: str, turns: int
) -> None:
    scene.plans += plans
    run = Run()
    async with scene.pattern(find, system_prompt="Be brief.") as pattern:
        with run():
            result = await pattern.execute("Where is AB-1?")
    assert (result.plan_problem, result.tasks, result.turns) == (problem, (), turns)
    assert "Berlin" in result.content
    assert [call.name for call in result.function_calls] == ["find"]
    assert [item.text for item in scene.answered[0].items] == ["Be brief.", "Where is AB-1?"]
    assert len(run.of(ExecutionStarted)) == 1


async def test_of_a_plan_that_is_too_long_the_rest_is_left_out_and_said(scene: Scene) -> None:
    scene.plans += [plan("one", "two", "three", "four")]
    async with scene.pattern(max_workers=2) as pattern:
        result = await pattern.execute("Find them.")
    assert (result.plan_problem, result.content) == ("too_long", TEXT)
    assert [each.task.title for each in result.tasks] == ["one", "two"]
    assert [task.title for task in result.left_out] == ["three", "four"]
    assert "## four\n\nNot done" in scene.answered[0].user_text
    assert len(scene.worked) == 2


async def test_or_it_fails(scene: Scene) -> None:
    scene.plans += [plan("one", "two", "three")]
    async with scene.pattern(max_workers=2, on_long_plan="fail") as pattern:
        with pytest.raises(MalformedAnswer, match="it has 3 tasks, 2 are allowed"):
            await pattern.execute("Find them.")
    assert not scene.worked


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_so_many_work_at_once_and_no_more(scene: Scene, limit: int) -> None:
    """The last that may begin lets all go on: with fewer at once the run would hang."""
    at_work, most = 0, 0
    full = anyio.Event()

    async def work(messages: Any, context: Any) -> str:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        if at_work == limit:
            full.set()
        await full.wait()
        await anyio.lowlevel.checkpoint()
        at_work -= 1
        return str(context["task"].title)

    scene.plans += [plan(*"abcde")]
    async with scene.pattern(worker=work, max_concurrency=limit) as pattern:
        result = await pattern.execute("Go.")
    assert most == limit
    assert [each.output for each in result.tasks] == [*"abcde"]


async def test_a_failure_stops_the_others_and_is_the_callers(scene: Scene) -> None:
    waiting = anyio.Event()

    async def work(messages: Any, context: Any) -> str:
        if context["task"].title == "bad":
            await waiting.wait()
            raise LookupError("no such thing") from KeyError("x")
        waiting.set()
        await anyio.sleep_forever()
        raise AssertionError

    scene.plans += [plan("bad", "good", "late")]
    run = Run()
    async with scene.pattern(worker=work, max_concurrency=2) as pattern:
        with pytest.raises(LookupError, match="no such thing") as raised, run():
            await pattern.execute("Go.")
    assert isinstance(raised.value.__cause__, KeyError)
    statuses = list(all_whole(run.events).values())
    assert statuses == [Status.ERROR, Status.ERROR, Status.CANCELLED], "the third has not begun"
    assert not scene.answered


async def test_of_several_failures_the_first_comes_out(scene: Scene) -> None:
    together = anyio.Event()

    async def work(messages: Any, context: Any) -> str:
        number = int(context["task"].title)
        if number == 9:
            together.set()
        await together.wait()
        raise LookupError(number)

    scene.plans += [plan(*map(str, range(10)))]
    async with scene.pattern(worker=work, max_workers=10, max_concurrency=10) as pattern:
        with pytest.raises(LookupError, match=r"^0\b"):
            await pattern.execute("Go.")


async def test_a_failed_worker_may_be_skipped(scene: Scene) -> None:
    scene.plans += [plan("one", "two", "three")]

    async def work(messages: list[BaseMessage], context: Mapping[str, Any]) -> str:
        if context["task"].title == "two":
            raise LookupError("no such thing")
        return messages[-1].text

    run = Run()
    async with scene.pattern(worker=work, on_worker_failure="skip") as pattern:
        with run():
            result = await pattern.execute("Find them.")
    one, two, _ = result.tasks
    assert one.output == "Your task: one\n\nDo one."
    assert (two.output, two.error_type, two.error_message) == (None, "LookupError", "no such thing")
    assert "## two\n\nNot done" in scene.answered[0].user_text
    assert "no such thing" not in scene.answered[0].user_text
    assert list(all_whole(run.events).values()) == [Status.OK, Status.OK, Status.ERROR, Status.OK]


@pytest.mark.parametrize("returned", ["\ud800", PatternResult(content="\ud800")])
async def test_text_that_cannot_be_sent_is_cleaned(scene: Scene, returned: Any) -> None:
    async def work(messages: Any, context: Any) -> Any:
        return returned

    scene.plans += [plan("one")]
    async with scene.pattern(worker=work) as pattern:
        assert (await pattern.execute("Go.")).content == TEXT
    assert scene.answered[0].user_text.endswith("## one\n\n?")


async def test_if_all_fail_so_does_the_run(scene: Scene) -> None:
    scene.plans += [plan("one", "two")]

    async def work(messages: Any, context: Any) -> str:
        raise LookupError(context["task"].title)

    async with scene.pattern(worker=work, on_worker_failure="skip", max_concurrency=1) as pattern:
        with pytest.raises(LookupError, match="one"):
            await pattern.execute("Find them.")
    assert not scene.answered


async def test_a_failing_model_fails_the_run_after_its_retries(scene: Scene) -> None:
    async def break_down(messages: Any, context: Any) -> str:
        scene.simulator.inject(Fault("server_error", times=None))
        return "done"

    scene.plans += [plan("one")]
    run = Run()
    async with scene.pattern(worker=break_down) as pattern:
        with pytest.raises(openai.InternalServerError), run():
            await pattern.execute("Go.")
    assert [request.attempt for request in run.requests] == [1, 1, 2, 3]
    all_whole(run.events)


async def test_an_error_that_passes_is_an_attempt_of_the_worker(scene: Scene) -> None:
    scene.plans += [plan("one")]
    scene.simulator.inject(Fault("rate_limit"))
    run = Run()
    async with scene.pattern() as pattern:
        with run():
            await pattern.execute("Go.")
        scene.simulator.inject(Fault("incomplete", times=9))
        result = await pattern.execute("Go.")
    assert [request.attempt for request in run.requests] == [1, 2, 1, 1]
    assert result.plan_problem == "malformed"
    assert result.finish_reason == "length"


async def test_a_pattern_as_worker_is_a_child_run_that_nobody_hears(scene: Scene) -> None:
    scene.plans += [plan("one", "two")]
    scene.work["one"] = Reply(tool_calls=(ScriptedCall("find", '{"number": "AB-2"}'),))
    recorder = Recorder()
    config = OpenAIPatternConfig(base_url=scene.url, api_key=KEY, name="finder")
    async with AugmentedLLMPattern(config, [find]) as finder, scene.pattern(worker=finder) as pattern:
        async with Engine() as engine:
            engine.subscribe(recorder, name="recorder", lane="lossless")
            async with engine.stream(pattern, "Find them.", conversation_id="c1") as stream:
                deltas = [item async for item in stream if isinstance(item, Delta)]
        result = stream.result.value
    assert "".join(delta.text for delta in deltas) == TEXT
    assert {delta.run_id for delta in deltas} == {stream.result.run_id}
    assert (result.turns, [call.name for call in result.function_calls]) == (5, ["find"])
    started = [event for event in recorder.events if isinstance(event, ExecutionStarted)]
    assert [event.pattern for event in started] == ["orchestrator_workers", "finder", "finder"]
    assert [event.conversation_id for event in started] == ["c1", None, None]
    assert set(all_whole(recorder.events).values()) == {Status.OK}


async def test_another_model_may_do_the_tasks(scene: Scene) -> None:
    scene.plans += [plan("one", "two")]
    model = GenericFakeChatModel(messages=iter([AIMessage("Mine.")] * 2))
    run = Run()
    async with scene.pattern(worker_model=model) as pattern:
        with run() as execution:
            result = await pattern.execute("Find them.")
    assert [each.output for each in result.tasks] == ["Mine."] * 2
    assert (result.content, result.turns) == (TEXT, 4)
    assert not scene.worked
    own = [request.run_id == execution.run_id for request in run.requests]
    assert own == [True, False, False, True]


async def test_workers_share_the_limit_of_calls(scene: Scene) -> None:
    scene.plans += [plan(*"abcd")]
    scene.work = {title: Reply(tool_calls=(ScriptedCall("find", '{"number": "1"}'),) * 2) for title in "abcd"}
    run = Run()
    async with scene.pattern(find, max_function_calls=5) as pattern:
        with run():
            result = await pattern.execute("Find them.")
    errors = [call.error_type for call in result.function_calls]
    assert (errors.count(None), errors.count("CallLimitReached")) == (5, len(errors) - 5)
    assert len(run.calls) == 5


class Hanging:
    """A tool that never comes back, and takes its time when it is stopped."""

    count = 0

    async def hang(self) -> None:
        """Never come back."""
        self.count += 1
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("where", ["plan", "work", "tool", "synthesis"])
async def test_a_run_that_times_out_leaves_nothing_open(scene: Scene, where: str) -> None:
    async def work(messages: Any, context: Any) -> str:
        if where == "work":
            await hanging.hang()
        scene.simulator.inject(Fault("latency", seconds=3600))
        return "done"

    hanging, recorder = Hanging(), Recorder()
    scene.plans += [plan("one", "two")]
    scene.work = dict.fromkeys(("one", "two"), Reply(tool_calls=(ScriptedCall("hang"),)))
    if where == "plan":
        scene.simulator.inject(Fault("latency", seconds=3600))
    async with (
        scene.pattern(hanging.hang, worker=None if where == "tool" else work) as pattern,
        Engine() as engine,
        passing(30, whenever=lambda: hanging.count == 2 or scene.simulator.statistics().faults),
    ):
        engine.subscribe(recorder, name="recorder", lane="lossless")
        with pytest.raises(RunTimeout):
            await engine.run(pattern, "Find them.", timeout=30)
    statuses = list(all_whole(recorder.events).values())
    children = {"plan": [], "synthesis": [Status.OK] * 2}.get(where, [Status.CANCELLED] * 2)
    assert statuses == [Status.TIMEOUT, *children]


async def test_nor_does_one_within_another_pattern(scene: Scene) -> None:
    async def work(messages: Any, context: Any) -> None:
        await hanging.hang()

    hanging, recorder = Hanging(), Recorder()
    scene.plans += [Reply('{"reason": "", "route": "code", "confidence": 1}'), plan("one", "two")]
    async with scene.pattern(worker=work) as inner, Engine() as engine:
        config = OpenAIPatternConfig(base_url=scene.url, api_key=KEY)
        async with RoutingPattern(config, handlers={"code": inner}) as outer:
            engine.subscribe(recorder, name="recorder", lane="lossless")
            async with passing(30, whenever=lambda: hanging.count == 2):
                with pytest.raises(RunTimeout):
                    await engine.run(outer, "Mend it.", timeout=30)
    assert list(all_whole(recorder.events).values()) == [Status.TIMEOUT, *[Status.CANCELLED] * 3]


async def test_runs_at_once_do_not_mix(scene: Scene) -> None:
    async def work(messages: list[BaseMessage], context: Mapping[str, Any]) -> str:
        await anyio.lowlevel.checkpoint()
        return f"{context['number']} {messages[-2].text} {current_execution().parent.info.tags['number']}"  # type: ignore[union-attr]  # it has one

    recorder = Recorder()
    scene.plans += [plan("one", "two", "three")] * 8
    results: dict[int, Any] = {}
    async with scene.pattern(worker=work) as pattern, Engine() as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")

        async def one(number: int) -> None:
            ran = await engine.run(pattern, f"Go {number}.", {"number": number}, tags={"number": str(number)})
            results[number] = ran.value

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(one, number)
    for number, result in results.items():
        assert [each.output for each in result.tasks] == [f"{number} Go {number}. {number}"] * 3
        assert result.turns == 2
    assert len(results) == 8


@pytest.mark.parametrize("settings", [{"max_workers": 0}, {"max_concurrency": 0}, {"on_worker_failure": "hide"}])
def test_what_cannot_be_is_said(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        OrchestratorWorkersConfig(**settings)


def test_a_worker_must_be_one() -> None:
    with pytest.raises(ConfigurationError, match="worker must be a pattern or a function"):
        OrchestratorWorkersPattern(PatternConfig(), worker="x")


def test_trio_gets_a_clear_error() -> None:
    async def main() -> None:
        async with OrchestratorWorkersPattern(PatternConfig()) as pattern:
            with pytest.raises(AsyncioRequired):
                await pattern.execute("x")

    anyio.run(main, backend="trio")
