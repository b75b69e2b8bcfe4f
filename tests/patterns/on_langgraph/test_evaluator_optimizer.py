"""The evaluator-optimizer pattern: a real graph, over real HTTP."""

import json
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import openai
import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from pattern_support import KEY, Run, check_whole, find
from scene_support import PatternScene
from time_support import passing

from runmeter.engine import ConfigurationError, Engine, ExecutionStarted, ModelCallStarted, RunResult, RunTimeout
from runmeter.engine.testing import Recorder
from runmeter.patterns import (
    AsyncioRequired,
    OpenAIPatternConfig,
    PatternConfig,
    PatternRegistry,
)
from runmeter.patterns.langgraph.evaluator_optimizer import (
    CRITERIA,
    EVALUATE,
    Attempt,
    EvaluatorOptimizerConfig,
    EvaluatorOptimizerPattern,
    Verdict,
)
from runmeter.simulator import Fault, Prompt, Reply, ScriptedCall, Simulator

FIND = ScriptedCall("find", '{"number": "AB-1"}')


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio."""
    return "asyncio"


def fails(score: float, feedback: str = "Longer.") -> Verdict:
    return Verdict(passed=False, score=score, feedback=feedback)


def passes(score: float = 1.0) -> Verdict:
    return Verdict(passed=True, score=score, feedback="")


class Scene(PatternScene[EvaluatorOptimizerPattern]):
    """One whose model says its verdicts apart from its answers."""

    def __init__(self, kind: type[EvaluatorOptimizerPattern]) -> None:
        super().__init__(kind)
        self._verdicts: deque[str] = deque()

    def reply(self, prompt: Prompt) -> Reply | None:
        if prompt.json_schema is None:
            return super().reply(prompt)
        return Reply(self._verdicts.popleft()) if self._verdicts else None

    def improvise(self, prompt: Prompt) -> Reply:
        return Reply(f"Answer {len(self.answering)}.")

    @property
    def answering(self) -> list[Prompt]:
        """The requests for answers."""
        return [prompt for prompt in self.prompts if prompt.json_schema is None]

    @property
    def judging(self) -> list[Prompt]:
        """The requests for verdicts."""
        return [prompt for prompt in self.prompts if prompt.json_schema is not None]

    def judge(self, *verdicts: Verdict | str) -> None:
        """What the model says next when it is to judge."""
        self._verdicts.extend(
            each if isinstance(each, str) else msgspec.json.encode(each).decode() for each in verdicts
        )


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene(EvaluatorOptimizerPattern) as scene:
        yield scene


async def test_it_improves_an_answer_until_it_is_accepted(scene: Scene) -> None:
    recorder = Recorder()
    scene.script("Tall.", "Tall plants.")
    scene.judge(fails(0.4, "Say what they {are}."), passes(0.9))
    async with scene.pattern(system_prompt="Be brief.") as pattern, Engine() as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        run = await engine.run(pattern, "What are trees?")
        usage = engine.usage().total
    result = run.value
    assert (result.content, result.finish_reason, result.turns) == ("Tall plants.", "stop", 4)
    assert (result.accepted, result.best, result.evaluation_error) == (True, 1, None)
    assert result.attempts == (
        Attempt(text="Tall.", verdict=fails(0.4, "Say what they {are}.")),
        Attempt(text="Tall plants.", verdict=passes(0.9)),
    )
    assert [message.text for message in result.messages] == ["Tall plants."]
    assert result.response_id == run.requests[2].response_id
    said = [item.text for item in scene.answering[1].items]
    assert said[:3] == ["Be brief.", "What are trees?", "Tall."]
    assert said[3].endswith("Say what they {are}.")
    check_whole(recorder.events)
    assert isinstance(recorder.events[0], ExecutionStarted)
    assert recorder.events[0].operation == "invoke_workflow"
    assert usage.usage == scene.simulator.statistics().total


async def test_the_model_judges_by_the_criteria(scene: Scene) -> None:
    earlier = [SystemMessage("Be kind."), HumanMessage("Hello!"), AIMessage("Hi.")]
    scene.script("An {answer}", "Another")
    scene.judge(passes(), passes())
    async with scene.pattern(system_prompt="Secret.") as pattern:
        await pattern.execute([*earlier, {"role": "user", "content": "Trees?"}])
    async with scene.pattern(criteria="It {rhymes}.", evaluator_instructions="Judge mildly.") as pattern:
        await pattern.execute("Trees?", {"instructions": "Answer at length."})
    first, second = scene.judging
    assert [item.text for item in first.items[:-1]] == [EVALUATE, "Be kind.", "Hello!", "Hi.", "Trees?"]
    assert CRITERIA in first.user_text
    assert first.user_text.endswith("An {answer}")
    assert [item.text for item in second.items[:-1]] == ["Judge mildly.", "Trees?"]
    assert "It {rhymes}." in second.user_text
    assert [item.text for item in scene.answering[1].items] == ["Answer at length.", "Trees?"]


async def test_the_simulators_own_verdicts_can_be_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", scene.url)
    for config in (PatternConfig(name="best"), OpenAIPatternConfig(name="best")):
        async with PatternRegistry().create_pattern("evaluator_optimizer", config) as pattern:
            result: Any = await pattern.execute("What are trees?")
        assert 1 <= len(result.attempts) <= 3
        assert all(isinstance(attempt.verdict, Verdict) for attempt in result.attempts)
        assert result.content == result.attempts[result.best].text


@pytest.mark.parametrize(
    ("scores", "best"), [((0.2, 0.9, 0.5), 1), ((0.5, 0.5, 0.1), 1), ((0.3, 0.3, 0.3), 2), ((0.0,), 0)]
)
async def test_at_the_limit_the_best_attempt_is_kept(scene: Scene, scores: tuple[float, ...], best: int) -> None:
    run = Run()
    scene.judge(*map(fails, scores))
    async with scene.pattern(max_attempts=len(scores)) as pattern:
        with run():
            result = await pattern.execute("Go.")
    assert [attempt.verdict for attempt in result.attempts] == list(map(fails, scores))
    assert (result.accepted, result.best, result.content) == (False, best, f"Answer {best + 1}.")
    assert [message.text for message in result.messages] == [result.content]
    assert result.response_id == run.requests[2 * best].response_id
    assert run.reported == scene.simulator.statistics().total
    last = [item.text for item in scene.answering[-1].items if item.role == "assistant"]
    assert last == [f"Answer {n + 1}." for n in range(len(scores) - 1)], "it sees all its earlier attempts"


@pytest.mark.parametrize("limit", [1, 30])
async def test_as_many_attempts_are_made_as_are_allowed(scene: Scene, limit: int) -> None:
    async with scene.pattern(max_attempts=limit, evaluator=lambda _: fails(0)) as pattern:
        assert len((await pattern.execute("Go.")).attempts) == limit


@pytest.mark.parametrize(
    ("verdict", "accepted"),
    [(passes(0.8), True), (passes(0.79), False), (Verdict(passed=False, score=1, feedback=""), False)],
)
async def test_a_score_may_be_asked_for_besides(scene: Scene, verdict: Verdict, accepted: bool) -> None:
    async with scene.pattern(pass_score=0.8, max_attempts=1, evaluator=lambda _: verdict) as pattern:
        assert (await pattern.execute("Go.")).accepted is accepted


async def test_without_feedback_it_just_tries_again(scene: Scene) -> None:
    async with scene.pattern(evaluator=lambda _: fails(0, ""), max_attempts=2) as pattern:
        await pattern.execute("Go.")
    assert "Feedback" not in scene.answering[1].user_text
    assert scene.answering[1].user_text


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_may_judge(scene: Scene, is_async: bool) -> None:
    seen: list[str] = []

    def judge(text: str) -> Verdict:
        seen.append(text)
        return passes() if "2" in text else fails(0.1)

    async def judge_later(text: str) -> Verdict:
        return judge(text)

    run = Run()
    async with scene.pattern(evaluator=judge_later if is_async else judge) as pattern:
        with run():
            result = await pattern.execute("Go.")
    assert seen == ["Answer 1.", "Answer 2."]
    assert (result.accepted, result.best, result.turns) == (True, 1, 2)
    assert len(run.requests) == 2


async def test_another_model_may_judge(scene: Scene) -> None:
    judge = GenericFakeChatModel(
        messages=iter(["no JSON", f"Well: {json.dumps({'passed': True, 'score': 1, 'feedback': 'Good.'})}"])
    )
    run = Run()
    async with scene.pattern(evaluator_model=judge) as pattern:
        with run():
            result = await pattern.execute("Go.")
    assert [attempt.verdict for attempt in result.attempts] == [Verdict(passed=True, score=1, feedback="Good.")]
    assert (result.accepted, result.turns) == (True, 3)
    assert scene.judging == []
    assert [request.model for request in run.of(ModelCallStarted)] == ["gpt-6-luna", "unknown", "unknown"]


@pytest.mark.parametrize("verdict", ["", "{", '{"passed": true}', '{"passed": true, "score": 7, "feedback": ""}'])
async def test_a_verdict_that_cannot_be_read_is_asked_for_once_more(scene: Scene, verdict: str) -> None:
    scene.judge(verdict, passes())
    async with scene.pattern() as pattern:
        result = await pattern.execute("Go.")
    assert (result.accepted, result.turns, result.evaluation_error) == (True, 3, None)


async def test_a_run_that_cannot_be_judged_ends_with_the_best_so_far(scene: Scene) -> None:
    run = Run()
    scene.judge(fails(0.0), "?", "?")
    async with scene.pattern() as pattern:
        with run():
            result = await pattern.execute("Go.")
        scene.judge("?", "?")
        with run():
            unjudged = await pattern.execute("Go.")
    assert [attempt.verdict for attempt in result.attempts] == [fails(0.0), None]
    assert (result.accepted, result.best, result.content) == (False, 0, "Answer 1.")
    assert result.evaluation_error == "the answer is not a 'verdict': there is no JSON object in it"
    assert (unjudged.accepted, unjudged.best, unjudged.content) == (False, 0, "Answer 3.")
    assert unjudged.evaluation_error
    assert run.reported == scene.simulator.statistics().total


def broken(_: str) -> Verdict:
    raise LookupError("nothing there")


@pytest.mark.parametrize(
    ("evaluator", "error"),
    [
        (broken, LookupError),
        (lambda _: True, ConfigurationError),
        (lambda _: Verdict(passed=True, score=7, feedback=""), ValueError),
    ],
)
async def test_an_evaluator_that_breaks_is_the_runs_error(scene: Scene, evaluator: Any, error: Any) -> None:
    run = Run()
    async with scene.pattern(evaluator=evaluator) as pattern:
        with pytest.raises(error), run():
            await pattern.execute("Go.")
    assert len(run.requests) == 1


@pytest.mark.parametrize(
    "options", [{"evaluator": 7}, {"evaluator": Verdict}, {"evaluator": broken, "evaluator_model": object()}]
)
def test_options_that_do_not_fit_are_said_at_once(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="evaluator"):
        EvaluatorOptimizerPattern(EvaluatorOptimizerConfig(), **options)


@pytest.mark.parametrize(
    "settings",
    [
        {"criteria": ""},
        {"max_attempts": 0},
        {"pass_score": 1.1},
        {"pass_score": -0.1},
        {"evaluator_instructions": None},
    ],
)
def test_values_that_do_not_fit_are_named(settings: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        EvaluatorOptimizerConfig(**settings)


async def test_tools_help_to_answer_within_one_allowance(scene: Scene) -> None:
    calls = Reply(tool_calls=(FIND, FIND))
    scene.script(calls, "Somewhere.", calls, "Berlin.")
    scene.judge(fails(0.1), passes())
    run = Run()
    async with scene.pattern(find, max_function_calls=3) as pattern:
        with run():
            result = await pattern.execute("Where is it?")
    assert (result.content, result.turns) == ("Berlin.", 6)
    assert [call.error_type for call in result.function_calls] == [None, None, None, "CallLimitReached"]
    assert [type(message).__name__ for message in result.messages] == ["AIMessage", *["ToolMessage"] * 2, "AIMessage"]
    assert not any(prompt.tools for prompt in scene.judging)
    assert len(scene.answering[2].items) == 7, "the second attempt sees what the first one's tools said"
    assert run.reported == scene.simulator.statistics().total


async def test_only_the_chosen_text_is_delivered_and_whole(scene: Scene) -> None:
    seen: list[str] = []

    async def delta(text: str) -> None:
        seen.append(text)

    scene.judge(fails(0.5), fails(0.7), fails(0.1))
    run = Run(delta=delta)
    async with scene.pattern() as pattern:
        with run():
            await pattern.execute("Go.")
    assert seen == ["Answer 2."]
    assert not any(event.stream for event in run.of(ModelCallStarted))


async def test_a_socket_gets_it_too(scene: Scene) -> None:
    sent: list[Any] = []

    class Socket:
        async def send_json(self, message: Any) -> None:
            sent.append(message)

    config = EvaluatorOptimizerConfig(base_url=scene.url, api_key=KEY)
    async with EvaluatorOptimizerPattern(config, ws_streaming=Socket(), evaluator=lambda _: passes()) as pattern:
        await pattern.execute("Go.")
    assert [message["text"] for message in sent] == ["Answer 1."]


async def test_what_may_pass_is_tried_again(scene: Scene) -> None:
    scene.simulator.inject(Fault("rate_limit"), Fault("server_error"))
    scene.judge(passes())
    run = Run()
    async with scene.pattern() as pattern:
        with run():
            result = await pattern.execute("Go.")
    assert [request.attempt for request in run.requests] == [1, 2, 3, 1]
    assert (result.accepted, result.turns) == (True, 2)
    assert run.reported == scene.simulator.statistics().total


@pytest.mark.parametrize(
    ("kind", "error", "requests"),
    [("server_error", openai.InternalServerError, 3), ("insufficient_quota", openai.RateLimitError, 1)],
)
async def test_errors_are_the_callers_in_the_end(scene: Scene, kind: Any, error: Any, requests: int) -> None:
    scene.simulator.inject(Fault(kind, times=None))
    run = Run()
    async with scene.pattern() as pattern:
        with pytest.raises(error), run():
            await pattern.execute("Go.")
    assert len(run.requests) == requests


async def test_an_answer_that_is_cut_off_says_so(scene: Scene) -> None:
    scene.script("A very long answer that will not come to its end.")
    scene.simulator.inject(Fault("incomplete"))
    async with scene.pattern(evaluator=lambda _: passes()) as pattern:
        result = await pattern.execute("Go.")
    assert (result.finish_reason, result.accepted) == ("length", True)


@pytest.mark.parametrize("where", ["request", "evaluator", "thread"])
async def test_a_run_that_times_out_leaves_nothing_open(scene: Scene, where: str) -> None:
    begun, release = threading.Event(), threading.Event()
    recorder = Recorder()

    async def hang(_: str) -> Verdict:
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError

    def stuck(_: str) -> Verdict:
        begun.set()
        release.wait()
        return passes()

    if where == "request":
        scene.simulator.inject(Fault("latency", seconds=3600))
    try:
        async with (
            scene.pattern(evaluator=stuck if where == "thread" else hang) as pattern,
            Engine() as engine,
            passing(30, whenever=lambda: begun.is_set() or scene.simulator.statistics().faults),
        ):
            engine.subscribe(recorder, name="recorder", lane="lossless")
            with pytest.raises(RunTimeout):
                await engine.run(pattern, "Go.", timeout=30)
    finally:
        release.set()
    check_whole(recorder.events)


async def test_runs_at_once_do_not_mix() -> None:
    def reply(prompt: Prompt) -> Reply:
        question = next(item.text for item in prompt.items if item.role == "user")
        attempt = sum(item.role == "assistant" for item in prompt.items) + 1
        return Reply(f"{question} attempt {attempt}")

    def judge(text: str) -> Verdict:
        return passes() if text.endswith("2") else fails(0.5)

    simulator = Simulator(script=reply)
    async with simulator as url, Engine() as engine:
        config = EvaluatorOptimizerConfig(base_url=url, api_key=KEY)
        async with EvaluatorOptimizerPattern(config, evaluator=judge) as pattern:
            results = await engine.map(pattern, [f"parcel {n}" for n in range(30)], concurrency=10)
        usage = engine.usage().total
    for n, result in enumerate(results):
        assert isinstance(result, RunResult)
        assert [attempt.text for attempt in result.value.attempts] == [f"parcel {n} attempt {k}" for k in (1, 2)]
    assert usage.usage == simulator.statistics().total


def test_trio_gets_a_clear_error() -> None:
    async def main() -> None:
        async with EvaluatorOptimizerPattern(PatternConfig(name="best")) as pattern:
            with pytest.raises(AsyncioRequired, match="'best'"):
                await pattern.execute("x")

    anyio.run(main, backend="trio")
