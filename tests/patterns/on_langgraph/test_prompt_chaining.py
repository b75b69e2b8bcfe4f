"""The prompt chaining pattern: a real graph, over real HTTP."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    ResponseFailed,
)
from runmeter.patterns.errors import GateError
from runmeter.patterns.langgraph.prompt_chaining import PromptChainingConfig, PromptChainingPattern, StepResult
from runmeter.patterns.langgraph.steps import Gate, Step
from runmeter.simulator import Fault, Prompt, Reply, ScriptedCall

FIND = ScriptedCall("find", '{"number": "AB-1"}')
DRAFT = Step(name="draft", prompt="Draft: {input}")
POLISH = Step(name="polish", prompt="Polish: {draft}")


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio."""
    return "asyncio"


class Scene(PatternScene[PromptChainingPattern]):
    def improvise(self, prompt: Prompt) -> Reply:
        return Reply(f"<{prompt.user_text}>")

    @asynccontextmanager
    async def chain(self, *steps: Step, tools: Any = (), **settings: Any) -> AsyncIterator[PromptChainingPattern]:
        if steps:
            settings["steps"] = steps
        async with self.pattern(*tools, **settings) as pattern:
            yield pattern

    @property
    def asked(self) -> list[str]:
        """What the model was asked in each request."""
        return [prompt.user_text for prompt in self.prompts]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene(PromptChainingPattern) as scene:
        yield scene


async def test_out_of_the_box_it_outlines_and_writes(scene: Scene) -> None:
    recorder = Recorder()
    scene.script("1. Trees", "Trees are tall.")
    async with scene.chain() as chain, Engine() as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        run = await engine.run(chain, "What are trees?")
        usage = engine.usage().total
    result = run.value
    assert (result.content, result.finish_reason, result.turns) == ("Trees are tall.", "stop", 2)
    assert result.steps == (
        StepResult(name="outline", output="1. Trees"),
        StepResult(name="write", output="Trees are tall."),
    )
    assert (result.stopped_at, result.reason) == (None, None)
    assert [message.text for message in result.messages] == ["Trees are tall."]
    assert result.response_id == run.requests[-1].response_id
    assert scene.asked[0].endswith("What are trees?")
    assert scene.asked[1].endswith("What are trees?\n\nOutline:\n\n1. Trees")
    check_whole(recorder.events)
    assert isinstance(recorder.events[0], ExecutionStarted)
    assert recorder.events[0].operation == "invoke_workflow"
    assert usage.usage == scene.simulator.statistics().total


async def test_a_plain_config_and_the_registry_will_do(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", scene.url)
    for config in (PatternConfig(name="chain"), OpenAIPatternConfig(name="chain")):
        async with PatternRegistry().create_pattern("prompt_chaining", config) as chain:
            result = await chain.execute({"role": "user", "content": "What are trees?"})
        assert [step.name for step in result.steps] == ["outline", "write"]  # type: ignore[attr-defined] # of the base


async def test_templates_say_what_a_step_sees(scene: Scene) -> None:
    steps = (
        Step(name="first", prompt="{{1}} {previous}|{input}"),
        Step(name="second", prompt="{{2}} {previous}|{first}|{input}"),
        Step(name="third", prompt="{{3}} {previous}|{first}|{second}"),
    )
    text = "{input} {0} {first.__class__} }{"
    scene.script("{second}", "{", "}")
    async with scene.chain(*steps) as chain:
        result = await chain.execute(text)
    assert scene.asked == [f"{{1}} {text}|{text}", f"{{2}} {{second}}|{{second}}|{text}", "{3} {|{second}|{"]
    assert result.content == "}"


@given(text=st.text(), output=st.text())
def test_no_text_breaks_a_template(text: str, output: str) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage(output), AIMessage("done")]))
    steps = (Step(name="a", prompt="{input}"), Step(name="b", prompt="{{{a}}}{input}", gate=Gate(must_contain="done")))

    async def main() -> str:
        return (await PromptChainingPattern(PromptChainingConfig(steps=steps), model=model).execute(text)).content

    assert anyio.run(main) == "done"


async def test_instructions_are_the_runs_and_the_steps(scene: Scene) -> None:
    steps = (DRAFT, Step(name="polish", prompt="Polish: {previous}", instructions="Use rhymes."))
    async with scene.chain(*steps, system_prompt="Be brief.") as chain:
        await chain.execute("x")
        await chain.execute("x", {"instructions": "Be long."})
    told = [prompt.items[0].text for prompt in scene.prompts]
    assert told == ["Be brief.", "Be brief.\n\nUse rhymes.", "Be long.", "Be long.\n\nUse rhymes."]


async def test_every_step_sees_what_was_said_before(scene: Scene) -> None:
    earlier = [SystemMessage("Be kind."), HumanMessage("Hello!"), AIMessage("Hi.")]
    async with scene.chain(DRAFT, POLISH) as chain:
        await chain.execute([*earlier, {"role": "user", "content": "Trees?"}])
        await chain.execute([*earlier])
    items = [[item.text for item in prompt.items] for prompt in scene.prompts]
    said = ["Be kind.", "Hello!", "Hi."]
    assert items[:2] == [[*said, "Draft: Trees?"], [*said, "Polish: <Draft: Trees?>"]]
    assert items[2] == [*said, "Draft: Hello!"], "nothing is taken away where somebody else spoke last"


async def test_every_step_sees_the_users_images() -> None:
    seen: list[Any] = []

    class Model(GenericFakeChatModel):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(messages[-1].content)
            return super()._generate(messages, *args, **kwargs)

    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}
    model = Model(messages=iter([AIMessage("a cat"), AIMessage("A cat.")]))
    await PromptChainingPattern(PromptChainingConfig(steps=(DRAFT, POLISH)), model=model).execute(message)
    assert seen == [
        [{"type": "text", "text": "Draft: What is it?"}, image],
        [{"type": "text", "text": "Polish: a cat"}, image],
    ]


async def says(value: Any) -> Any:
    """A gate's answer that must be awaited."""
    return value


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        (lambda _: True, None),
        (lambda _: None, None),
        (lambda _: False, "the gate did not say why"),
        (lambda _: "", "the gate did not say why"),
        (lambda text: f"no {text}", "no bad\ntext"),
        (lambda _: says(None), None),
        (lambda _: says("no"), "no"),
        (says, "bad\ntext"),
        (Gate(must_match=r"^bad.text$"), None),
        (Gate(must_match=r"\d"), r"it does not match '\\d'"),
        (Gate(must_contain=("bad", "good", "Text")), "it does not contain 'good'; it does not contain 'Text'"),
        ({"max_chars": 8, "must_contain": "bad"}, None),
        ({"max_chars": 7}, "it has 8 characters, 7 are allowed"),
    ],
)
async def test_a_gate_passes_or_says_why_not(scene: Scene, gate: Any, reason: str | None) -> None:
    scene.script("bad\ntext", "better")
    run = Run()
    async with scene.chain(Step(name="draft", prompt="{input}", gate=gate), POLISH) as chain:
        with run():
            result = await chain.execute("Go.")
    assert result.steps[0] == StepResult(name="draft", output="bad\ntext", passed=reason is None, reason=reason)
    if reason is None:
        assert (result.content, result.finish_reason, result.turns) == ("better", "stop", 2)
    else:
        assert (result.content, result.finish_reason, result.turns) == ("", "gate_failed", 1)
        assert (result.stopped_at, result.reason, result.messages) == ("draft", reason, ())
        assert result.response_id == run.requests[0].response_id
    assert run.reported == scene.simulator.statistics().total


async def test_a_step_tries_again_and_knows_why(scene: Scene) -> None:
    scene.script("outline", "too {long}", "short")
    write = Step(name="write", prompt="Write: {previous}", gate=Gate(max_chars=5), on_failure="write")
    async with scene.chain(DRAFT, write) as chain:
        result = await chain.execute("Go.")
    assert (result.content, [step.passed for step in result.steps]) == ("short", [True, False, True])
    assert scene.asked[1] == "Write: outline"
    assert scene.asked[2].startswith("Write: outline\n\n")
    assert "'write'" in scene.asked[2]
    assert "it has 10 characters, 5 are allowed" in scene.asked[2]
    assert scene.asked[2].endswith("too {long}")


async def test_an_earlier_step_is_told_of_a_later_ones_failure_once(scene: Scene) -> None:
    scene.script("plan 1", "bad", "plan 2", "good")
    write = Step(name="write", prompt="Write: {draft}", gate=Gate(must_contain="good"), on_failure="draft")
    async with scene.chain(DRAFT, write) as chain:
        result = await chain.execute("Go.")
    assert result.content == "good"
    assert scene.asked[2].startswith("Draft: Go.\n\n")
    assert scene.asked[2].endswith("bad")
    assert scene.asked[3] == "Write: plan 2", "only the step the chain went back to hears of it"


async def test_a_chain_branches_forward(scene: Scene) -> None:
    steps = (
        Step(name="judge", prompt="Easy? {input}", gate=Gate(must_match="yes"), on_failure="think"),
        Step(name="answer", prompt="Answer: {input}", then="finish"),
        Step(name="think", prompt="Think: {input}{answer}"),
        Step(name="explain", prompt="Explain: {previous}|{answer}"),
    )
    async with scene.chain(*steps) as chain:
        scene.script("yes", "4")
        easy = await chain.execute("2+2")
        scene.script("no", "hard thoughts", "42")
        hard = await chain.execute("6*7")
    assert (easy.content, [step.name for step in easy.steps]) == ("4", ["judge", "answer"])
    assert (hard.content, [step.name for step in hard.steps]) == ("42", ["judge", "think", "explain"])
    assert hard.stopped_at is None
    assert scene.asked[-1] == "Explain: hard thoughts|", "a step that was passed over has no output"


@pytest.mark.parametrize("cause", ["gate", "loop"])
async def test_the_steps_are_limited(scene: Scene, cause: str) -> None:
    run = Run()
    if cause == "gate":
        step = Step(name="again", prompt="{input}", gate=lambda _: "never", on_failure="again")
    else:
        step = Step(name="again", prompt="{input}", then="again")
    async with scene.chain(step, max_steps=30) as chain:
        with run():
            result = await chain.execute("Go.")
    assert (result.content, result.finish_reason, len(result.steps)) == ("", "max_steps", 30)
    assert result.stopped_at == "again"
    assert result.reason == "the limit of 30 steps is reached" + ("; never" if cause == "gate" else "")
    assert len(run.requests) == 30


async def test_a_limit_that_is_just_enough_stops_nothing(scene: Scene) -> None:
    async with scene.chain(DRAFT, POLISH, max_steps=2) as chain:
        assert (await chain.execute("Go.")).finish_reason == "stop"


async def cancelled(_: str) -> None:
    """Wait for something that somebody else has cancelled."""
    task = asyncio.ensure_future(anyio.sleep_forever())
    task.cancel()
    await task


def broken(_: str) -> None:
    raise LookupError("nothing there")


@pytest.mark.parametrize(
    ("gate", "why"),
    [(broken, "LookupError: nothing there"), (cancelled, "CancelledError"), (lambda _: 1, "not 1"), (len, "not 4")],
)
async def test_a_gate_that_breaks_is_the_runs_error(scene: Scene, gate: Any, why: str) -> None:
    scene.script("text", "text")
    run = Run()
    async with scene.chain(DRAFT, Step(name="polish", prompt="x", gate=gate)) as chain:
        with pytest.raises(GateError, match=rf"^the gate of step 'polish' failed: .*{why}") as raised, run():
            await chain.execute("Go.")
    assert raised.value.step == "polish"
    assert len(run.requests) == 2


STEP = {"name": "a", "prompt": "x"}


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([], "at least"),
        ([STEP, STEP], "two of the name 'a'"),
        (
            [{**STEP, "prompt": "{b}"}, {**STEP, "name": "b"}],
            r"prompt of 'a': 'b' is unknown, there are input, previous",
        ),
        ([{**STEP, "prompt": "{a}"}], "prompt of 'a'"),
        ([{**STEP, "prompt": "{input.text}"}], "prompt of 'a'"),
        ([{**STEP, "prompt": "{}"}], "prompt of 'a'"),
        ([{**STEP, "prompt": "{input!r}"}], "prompt of 'a'"),
        ([{**STEP, "prompt": "{input:>{input}}"}], "prompt of 'a'"),
        ([{**STEP, "prompt": '{"json": 1'}], "prompt of 'a': .*doubled"),
        ([{**STEP, "prompt": ""}], "prompt"),
        ([{**STEP, "name": "a b"}], "name"),
        ([{**STEP, "name": "previous"}], "'previous' is reserved"),
        ([{**STEP, "gate": 7}], "gate of 'a'"),
        ([{**STEP, "gate": Gate}], "gate of 'a'"),
        ([{**STEP, "gate": {}}], "must_match, must_contain or max_chars"),
        ([{**STEP, "gate": {"must_mach": "x"}}], "must_match"),
        ([{**STEP, "gate": {"must_match": "("}}], "must_match"),
        ([{**STEP, "gate": {"max_chars": 0}}], "max_chars"),
        ([{**STEP, "gate": len, "on_failure": "b"}], "on_failure of 'a': 'b' is unknown, there are stop, a"),
        ([{**STEP, "on_failure": "a"}], "without a gate"),
        ([{**STEP, "then": "b"}], "then of 'a'"),
        ([{**STEP, "name": f"s{n}"} for n in range(21)], "max_steps: 20 is too few for 21"),
    ],
)
def test_what_does_not_fit_is_said_at_once(steps: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        PromptChainingConfig(steps=steps)


def test_plain_data_makes_a_chain() -> None:
    data = {**STEP, "gate": {"must_contain": "x"}, "on_failure": "a", "instructions": "Be brief."}
    config = PromptChainingConfig(steps=[data, {"name": "b", "prompt": "{a}"}])  # type: ignore[arg-type] # from TOML
    assert config.steps == (
        Step(name="a", prompt="x", gate=Gate(must_contain="x"), on_failure="a", instructions="Be brief."),
        Step(name="b", prompt="{a}"),
    )


async def test_any_step_calls_tools_within_one_allowance(scene: Scene) -> None:
    calls = Reply(tool_calls=(FIND, FIND))
    scene.script(calls, "found", calls, "Berlin")
    run = Run()
    async with scene.chain(DRAFT, POLISH, tools=[find], max_function_calls=3) as chain:
        with run():
            result = await chain.execute("Where is it?")
    assert (result.content, result.turns) == ("Berlin", 4)
    assert [call.error_type for call in result.function_calls] == [None, None, None, "CallLimitReached"]
    assert [type(message).__name__ for message in result.messages] == ["AIMessage", *["ToolMessage"] * 2, "AIMessage"]
    assert [step.output for step in result.steps] == ["found", "Berlin"]
    assert not scene.prompts[-1].tools
    assert run.reported == scene.simulator.statistics().total


TEXT = "It is in Berlin, where it waits for the customs officer to come back from a very long lunch."


class Heard:
    """A run that somebody listens to."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.run = Run(delta=self._take)

    async def _take(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize("gate", [None, Gate(must_contain="Berlin")])
async def test_only_the_answer_is_delivered(scene: Scene, gate: Gate | None) -> None:
    heard = Heard()
    scene.script("a draft", TEXT)
    async with scene.chain(DRAFT, Step(name="polish", prompt="{draft}", gate=gate)) as chain:
        with heard.run():
            result = await chain.execute("Go.")
    assert result.content == "".join(heard.texts) == TEXT
    assert (len(heard.texts) == 1) is (gate is not None), "whole, once it has passed"
    assert [event.stream for event in heard.run.of(ModelCallStarted)] == [False, gate is None]


async def test_what_is_not_the_answer_is_not_delivered(scene: Scene) -> None:
    heard = Heard()
    scene.script("a draft", "Munich", TEXT, "a draft", "Munich", "Bonn")
    polish = Step(name="polish", prompt="{draft}", gate=Gate(must_contain="Berlin"), on_failure="polish")
    async with scene.chain(DRAFT, polish, max_steps=3) as chain:
        with heard.run():
            await chain.execute("Go.")
        assert heard.texts == [TEXT]
        with heard.run():
            assert (await chain.execute("Go.")).finish_reason == "max_steps"
    assert heard.texts == [TEXT]


async def test_what_may_pass_is_tried_again(scene: Scene) -> None:
    scene.simulator.inject(Fault("rate_limit"), Fault("server_error"))
    run = Run()
    async with scene.chain(DRAFT, POLISH) as chain:
        with run():
            result = await chain.execute("Go.")
    assert [request.attempt for request in run.requests] == [1, 2, 3, 1]
    assert (result.content, result.turns) == ("<Polish: <Draft: Go.>>", 2)
    assert run.reported == scene.simulator.statistics().total


@pytest.mark.parametrize(
    ("kind", "error", "requests"),
    [("server_error", openai.InternalServerError, 3), ("insufficient_quota", openai.RateLimitError, 1)],
)
async def test_errors_are_the_callers_in_the_end(scene: Scene, kind: Any, error: Any, requests: int) -> None:
    scene.simulator.inject(Fault(kind, times=None))
    run = Run()
    async with scene.chain() as chain:
        with pytest.raises(error), run():
            await chain.execute("Go.")
    assert len(run.requests) == requests


async def test_a_stream_that_breaks_off_is_an_error(scene: Scene) -> None:
    heard = Heard()
    scene.script("a draft", TEXT)
    scene.simulator.inject(Fault("stream_cut", after_events=8))
    async with scene.chain(DRAFT, POLISH) as chain:
        with pytest.raises((openai.APIError, ResponseFailed)), heard.run():
            await chain.execute("Go.")
    assert heard.texts
    assert TEXT.startswith("".join(heard.texts))


async def test_an_output_that_is_cut_off_says_so(scene: Scene) -> None:
    scene.simulator.inject(Fault("incomplete"))
    async with scene.chain(DRAFT, POLISH) as chain:
        result = await chain.execute("Tell me all about trees and their roots, please.")
        assert [step.finish_reason for step in result.steps] == ["length", "stop"]
        assert result.finish_reason == "stop"


@pytest.mark.parametrize("where", ["request", "gate", "thread"])
async def test_a_run_that_times_out_leaves_nothing_open(scene: Scene, where: str) -> None:
    begun, release = threading.Event(), threading.Event()
    recorder = Recorder()

    async def hang(_: str) -> None:
        begun.set()
        await anyio.sleep_forever()

    def stuck(_: str) -> None:
        begun.set()
        release.wait()

    if where == "request":
        scene.simulator.inject(Fault("latency", seconds=3600))
    step = Step(name="draft", prompt="x", gate=stuck if where == "thread" else hang)
    try:
        async with (
            scene.chain(step) as chain,
            Engine() as engine,
            passing(30, whenever=lambda: begun.is_set() or scene.simulator.statistics().faults),
        ):
            engine.subscribe(recorder, name="recorder", lane="lossless")
            with pytest.raises(RunTimeout):
                await engine.run(chain, "Go.", timeout=30)
    finally:
        release.set()
    check_whole(recorder.events)


async def test_runs_at_once_do_not_mix(scene: Scene) -> None:
    failed: set[str] = set()

    def gate(output: str) -> bool:
        """Let each pass the second time."""
        number = output[1:13]
        known = number in failed
        failed.add(number)
        return known

    polish = Step(name="polish", prompt="{input} {draft}", gate=gate, on_failure="draft")
    async with scene.chain(DRAFT, polish) as chain, Engine() as engine:
        results = await engine.map(chain, [f"parcel AB-{n:02}" for n in range(30)], concurrency=10)
        usage = engine.usage().total
    for n, result in enumerate(results):
        assert isinstance(result, RunResult)
        chained = result.value
        assert len(chained.steps) == 4
        assert chained.content.count(f"AB-{n:02}") == chained.content.count("AB-") == 4
    assert usage.usage == scene.simulator.statistics().total


def test_trio_gets_a_clear_error() -> None:
    async def main() -> None:
        async with PromptChainingPattern(PatternConfig(name="chain")) as chain:
            with pytest.raises(AsyncioRequired, match="'chain'"):
                await chain.execute("x")

    anyio.run(main, backend="trio")
