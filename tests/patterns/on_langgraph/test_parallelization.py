"""The parallelization pattern: branches at once, and one answer of them, over real HTTP."""

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import openai
import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from pattern_support import KEY, Run, check_whole
from scene_support import PatternScene
from time_support import passing

from runmeter.engine import ConfigurationError, Engine, ModelCallStarted, RunTimeout
from runmeter.engine.testing import Recorder
from runmeter.patterns import AsyncioRequired, OpenAIPatternConfig, PatternConfig, ResponseFailed
from runmeter.patterns.errors import MalformedAnswer
from runmeter.patterns.langgraph.branches import BranchResult
from runmeter.patterns.langgraph.parallelization import (
    SYNTHESIS,
    ParallelizationConfig,
    ParallelizationPattern,
    Section,
)
from runmeter.simulator import Fault, Prompt, Reply, ScriptedCall

QUESTION = "Should we plant a pine?"
PARTS = [{"name": name, "instructions": f"You are {name}."} for name in ("soil", "sun", "rain")]


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio."""
    return "asyncio"


async def find(number: str) -> str:
    """Find a parcel."""
    return f"{number} is in Berlin"


class Scene(PatternScene[ParallelizationPattern]):
    """One whose answers are scripted by branch."""

    def __init__(self, kind: type[ParallelizationPattern]) -> None:
        super().__init__(kind)
        self.says: dict[str, Reply] = {}
        """By a part of the instructions or of the last message."""

    def improvise(self, prompt: Prompt) -> Reply | None:
        said = f"{prompt.instructions} {prompt.items[0].text} {prompt.user_text}"
        return next((reply for part, reply in self.says.items() if part in said), None)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene(ParallelizationPattern) as scene:
        yield scene


def each_says(scene: Scene) -> None:
    scene.says = {f"You are {name}.": Reply(f"{name} says yes.") for name in ("soil", "sun", "rain")}
    scene.says[SYNTHESIS] = Reply("All in all: plant it, and water it well in its first summer.")


async def test_sections_are_worked_on_and_become_one_answer(scene: Scene) -> None:
    each_says(scene)
    run = Run()
    async with scene.pattern(sections=PARTS, system_prompt="Be brief.") as pattern:
        with run():
            result = await pattern.execute(QUESTION)
    assert result.content == "All in all: plant it, and water it well in its first summer."
    assert (result.turns, result.finish_reason) == (4, "stop")
    assert [message.text for message in result.messages] == [result.content]
    assert result.branches == tuple(
        BranchResult(name=name, output=f"{name} says yes.") for name in ("soil", "sun", "rain")
    )
    assert (result.tally, result.winner, result.tied) == ({}, None, ())
    assert result.response_id == run.requests[-1].response_id
    assert run.reported == scene.simulator.statistics().total
    assert [request.error_type for request in run.requests] == [None] * 4
    for prompt in scene.prompts:
        assert "Be brief." in f"{prompt.instructions} {prompt.items[0].text}"
        assert any(item.text == QUESTION for item in prompt.items)
    assert "## soil\n\nsoil says yes.\n\n## sun\n\nsun says yes." in scene.prompts[-1].user_text


async def test_it_does_something_out_of_the_box(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", scene.url)
    for config in (PatternConfig(), OpenAIPatternConfig()):
        async with ParallelizationPattern(config) as pattern:
            result = await pattern.execute([{"role": "user", "content": QUESTION}])
        assert [branch.name for branch in result.branches] == ["facts", "risks", "advice"]
        assert result.content
        assert result.turns == 4


async def test_an_earlier_conversation_reaches_every_branch(scene: Scene) -> None:
    talk = [("user", "I have a garden."), ("assistant", "How nice."), ("user", QUESTION)]
    async with scene.pattern() as pattern:
        await pattern.execute([{"role": role, "content": text} for role, text in talk])
    for prompt in scene.prompts:
        texts = [item.text for item in prompt.items if item.role != "system"]
        assert texts[:3] == [text for _, text in talk]


async def test_the_context_may_instruct(scene: Scene) -> None:
    async with scene.pattern(system_prompt="Be brief.") as pattern:
        await pattern.execute(QUESTION, {"instructions": "Be long."})
    assert all("Be long." in repr(prompt) and "Be brief." not in repr(prompt) for prompt in scene.prompts)


async def test_order_is_that_of_the_sections_however_many(scene: Scene) -> None:
    sections = [Section(name=f"part {n}", instructions=f"Part {n}!") for n in range(25)]
    scene.says = {section.instructions: Reply(section.name) for section in sections}
    async with scene.pattern(sections=sections, aggregation="concatenate") as pattern:
        result = await pattern.execute(QUESTION)
    assert [branch.output for branch in result.branches] == [section.name for section in sections]
    assert result.content.startswith("## part 0\n\npart 0\n\n## part 1\n\npart 1\n\n## part 2")
    assert result.turns == 25


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (2, 2), (8, 4)])
async def test_only_so_many_work_at_once(scene: Scene, limit: int, most: int) -> None:
    at_work: list[int] = [0, 0]
    full = anyio.Event()

    async def look() -> str:
        at_work[0] += 1
        at_work[1] = max(at_work)
        if at_work[0] == most:
            full.set()
        await full.wait()
        at_work[0] -= 1
        return "seen"

    async with scene.pattern(
        look, mode="voting", votes=4, aggregation="concatenate", max_concurrency=limit, function_calling_mode="required"
    ) as pattern:
        result = await pattern.execute(QUESTION)
    assert len(result.branches) == 4
    assert at_work == [0, most]


def ballots(*choices: str) -> list[Reply]:
    return [Reply(f'{{"reason": "It is {choice}.", "choice": "{choice}"}}') for choice in choices]


async def test_the_majority_wins(scene: Scene) -> None:
    scene.simulator.script(*ballots("spam", "ham", "spam"))
    run = Run()
    async with scene.pattern(mode="voting", choices=["ham", "spam", "unsure"]) as pattern:
        with run():
            result = await pattern.execute("Win a boat!")
    assert (result.content, result.winner, result.tied) == ("spam", "spam", ())
    assert result.tally == {"ham": 1, "spam": 2, "unsure": 0}
    assert list(result.tally) == ["ham", "spam", "unsure"]
    assert sorted(branch.output for branch in result.branches) == ["ham", "spam", "spam"]
    assert [branch.name for branch in result.branches] == ["vote 1", "vote 2", "vote 3"]
    assert {branch.reason for branch in result.branches} == {"It is spam.", "It is ham."}
    assert [message.text for message in result.messages] == ["spam"]
    assert result.turns == 3
    assert run.reported == scene.simulator.statistics().total


async def test_the_choices_are_the_schema(scene: Scene) -> None:
    async with scene.pattern(mode="voting", votes=5, choices=["ham", "spam"]) as pattern:
        result = await pattern.execute("Win a boat!")
    schemas = [prompt.json_schema for prompt in scene.prompts]
    assert [schema and schema["properties"]["choice"] for schema in schemas] == [
        {"type": "string", "enum": ["ham", "spam"]}
    ] * 5
    assert sum(result.tally.values()) == 5
    assert result.winner in ("ham", "spam")


async def test_a_tie_is_broken_by_the_order_of_the_choices_and_said(scene: Scene) -> None:
    scene.simulator.script(*ballots("c", "b", "c", "b", "a"))
    async with scene.pattern(mode="voting", votes=5, choices=("a", "b", "c")) as pattern:
        result = await pattern.execute(QUESTION)
    assert (result.content, result.winner, result.tied) == ("b", "b", ("b", "c"))


async def test_votes_in_own_words_are_combined(scene: Scene) -> None:
    scene.says = {SYNTHESIS: Reply("Yes, plant it."), QUESTION: Reply("Yes.")}
    async with scene.pattern(mode="voting", votes=2) as pattern:
        result = await pattern.execute(QUESTION)
    assert (result.content, result.turns, result.winner) == ("Yes, plant it.", 3, None)


async def test_a_vote_that_is_none_is_asked_for_again(scene: Scene) -> None:
    scene.simulator.script(*ballots("boat"), *ballots("ham"))
    async with scene.pattern(mode="voting", votes=1, choices=["ham", "spam"]) as pattern:
        result = await pattern.execute("Win a boat!")
        assert (result.winner, result.turns) == ("ham", 2)
        scene.simulator.script(*ballots("boat", "boat"))
        with pytest.raises(MalformedAnswer, match="ballot"):
            await pattern.execute("Win a boat!")


async def shout(branches: Sequence[BranchResult]) -> str:
    return " ".join(branch.output.upper() for branch in branches)


@pytest.mark.parametrize("aggregator", [shout, lambda branches: " ".join(each.output.upper() for each in branches)])
async def test_a_function_may_combine(scene: Scene, aggregator: Callable[..., Any]) -> None:
    each_says(scene)
    async with scene.pattern(sections=PARTS, aggregator=aggregator) as pattern:
        result = await pattern.execute(QUESTION)
    assert result.content == "SOIL SAYS YES. SUN SAYS YES. RAIN SAYS YES."
    assert result.turns == 3


async def test_what_it_raises_or_gives_is_checked(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(aggregator=lambda branches: branches[9]) as pattern:
        with pytest.raises(IndexError), run():
            await pattern.execute(QUESTION)
    async with scene.pattern(aggregator=len) as pattern:
        with pytest.raises(ConfigurationError, match="the aggregator gave a 'int', not a string"):
            await pattern.execute(QUESTION)


@pytest.mark.parametrize("aggregator", ["concatenate", str])
def test_an_aggregator_must_be_a_function(aggregator: Any) -> None:
    with pytest.raises(ConfigurationError, match="aggregator must be a function"):
        ParallelizationPattern(PatternConfig(), aggregator=aggregator)


async def test_one_that_blocks_holds_nobody_up(scene: Scene) -> None:
    threads: list[int] = []

    def note(branches: Sequence[BranchResult]) -> str:
        threads.append(threading.get_ident())
        return "done"

    async with scene.pattern(aggregator=note) as pattern:
        assert (await pattern.execute(QUESTION)).content == "done"
    assert threads != [threading.get_ident()]


async def test_branches_have_the_tools_and_share_the_allowance(scene: Scene) -> None:
    call = Reply(tool_calls=(ScriptedCall("find", '{"number": "AB-1"}'),) * 2)
    scene.simulator.script(call, call)
    run = Run()
    async with scene.pattern(find, sections=PARTS[:2], max_function_calls=3) as pattern:
        with run():
            result = await pattern.execute("Where is it?")
    outcomes = sorted((call.error_type or "made") for call in result.function_calls)
    assert outcomes == ["CallLimitReached", "made", "made", "made"]
    assert len(run.calls) == 3
    assert all("Berlin" in branch.output for branch in result.branches)
    assert not scene.prompts[-1].tools, "the synthesis has all it needs"
    assert run.reported == scene.simulator.statistics().total


async def test_iterations_are_counted_by_branch(scene: Scene) -> None:
    async with scene.pattern(find, sections=PARTS[:2], max_iterations=1) as pattern:
        result = await pattern.execute("Where is parcel AB-1?")
    assert (result.turns, result.function_calls) == (3, ())


async def test_voters_use_tools_before_they_vote(scene: Scene) -> None:
    async with scene.pattern(find, mode="voting", votes=1, choices=["yes", "no"]) as pattern:
        result = await pattern.execute("Where is parcel AB-1?")
        assert [call.name for call in result.function_calls] == ["find"]
        assert (result.turns, sum(result.tally.values())) == (3, 1)
        assert any("is in Berlin" in item.text for item in scene.prompts[-1].items)
        assert scene.prompts[-1].json_schema is not None
    async with scene.pattern(
        find, mode="voting", votes=1, choices=["yes", "no"], function_calling_mode="none"
    ) as pattern:
        assert (await pattern.execute("Where is parcel AB-1?")).turns == 1


QUOTA = Fault("insufficient_quota")


async def test_a_passing_error_is_tried_again(scene: Scene) -> None:
    each_says(scene)
    scene.simulator.inject(Fault("rate_limit"), Fault("server_error"))
    run = Run()
    async with scene.pattern(sections=PARTS) as pattern:
        with run():
            result = await pattern.execute(QUESTION)
    assert len(result.branches) == 3
    assert sorted(request.attempt for request in run.requests) in ([1, 1, 1, 1, 2, 2], [1, 1, 1, 1, 2, 3])
    assert run.reported == scene.simulator.statistics().total


async def test_the_first_failure_ends_the_others(scene: Scene) -> None:
    begun = anyio.Event()
    cancelled: list[str] = []

    async def hang() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append("hang")

    async def fail_then() -> str:
        await begun.wait()
        scene.simulator.inject(QUOTA)
        return "now"

    scene.says = {
        f"You are {name}.": Reply(tool_calls=(ScriptedCall(tool),))
        for name, tool in (("soil", "hang"), ("sun", "fail_then"))
    }
    run = Run()
    async with scene.pattern(hang, fail_then, sections=PARTS, max_concurrency=2) as pattern:
        with pytest.raises(openai.RateLimitError), run():
            await pattern.execute(QUESTION)
    assert cancelled == ["hang"]
    assert "insufficient_quota" in [request.error_type for request in run.requests]
    assert len(run.of(ModelCallStarted)) == 3, "the third branch has not begun"


@pytest.mark.parametrize(
    ("settings", "failures", "raises"),
    [
        ({"on_failure": "fail"}, 1, True),
        ({"on_failure": "skip"}, 2, False),
        ({"on_failure": "skip"}, 3, True),
        ({"on_failure": "threshold", "min_successes": 2}, 1, False),
        ({"on_failure": "threshold", "min_successes": 2}, 2, True),
        ({"on_failure": "threshold", "min_successes": 3}, 1, True),
    ],
)
async def test_the_policy_says_how_many_may_fail(
    scene: Scene, settings: dict[str, Any], failures: int, raises: bool
) -> None:
    each_says(scene)
    scene.simulator.inject(Fault("insufficient_quota", times=failures))
    run = Run()
    async with scene.pattern(sections=PARTS, max_concurrency=1, **settings) as pattern:
        if raises:
            with pytest.raises(openai.RateLimitError), run():
                await pattern.execute(QUESTION)
            assert len(run.requests) == failures, "then no further branch begins"
            return
        with run():
            result = await pattern.execute(QUESTION)
    failed, succeeded = result.branches[:failures], result.branches[failures:]
    assert {branch.error_type for branch in failed} == {"OpenAIRateLimitError"}
    assert all("quota" in (branch.error_message or "") and not branch.output for branch in failed)
    assert [branch.output for branch in succeeded] == ["soil says yes.", "sun says yes.", "rain says yes."][failures:]
    assert "soil" not in scene.prompts[-1].user_text
    assert result.content.startswith("All in all")
    assert run.reported == scene.simulator.statistics().total


async def test_votes_that_fail_do_not_count(scene: Scene) -> None:
    scene.simulator.script(*ballots("ham", "spam", "spam"))
    scene.simulator.inject(QUOTA)
    async with scene.pattern(mode="voting", votes=4, choices=["ham", "spam"], on_failure="skip") as pattern:
        result = await pattern.execute("Win a boat!")
    assert (result.tally, result.winner) == ({"ham": 1, "spam": 2}, "spam")
    assert sum(branch.error_type is not None for branch in result.branches) == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("server_error", times=None), openai.InternalServerError),
        (Fault("drop", times=None), openai.APIConnectionError),
        (Fault("failed", times=None), ResponseFailed),
    ],
)
async def test_errors_are_the_callers_in_the_end(scene: Scene, fault: Fault, error: type[Exception]) -> None:
    scene.simulator.inject(fault)
    run = Run()
    async with scene.pattern(on_failure="skip", max_retries=1) as pattern:
        with pytest.raises(error), run():
            await pattern.execute(QUESTION)
    assert all(request.error_type for request in run.requests)


@pytest.mark.parametrize("kind", ["stream_cut", "stream_end"])
async def test_a_synthesis_that_breaks_off_is_an_error_once_it_was_heard(scene: Scene, kind: Any) -> None:
    each_says(scene)
    scene.simulator.inject(Fault(kind, after_events=8))
    socket = Socket()
    run = Run()
    async with scene.pattern(sections=PARTS, ws_streaming=socket, on_failure="skip", max_retries=0) as pattern:
        with pytest.raises((openai.APIError, ResponseFailed)), run():
            await pattern.execute(QUESTION)
    assert "All in all: plant it, and water it well in its first summer.".startswith("".join(socket.texts))
    assert socket.texts
    assert [bool(request.error_type) for request in run.requests] == [False] * 3 + [True]


async def test_an_answer_that_was_cut_off_is_said(scene: Scene) -> None:
    each_says(scene)
    scene.simulator.inject(Fault("incomplete"))
    async with scene.pattern(sections=PARTS, aggregation="concatenate") as pattern:
        result = await pattern.execute(QUESTION)
    assert result.finish_reason == "length"
    assert sorted(branch.finish_reason for branch in result.branches) == ["length", "stop", "stop"]


class Socket:
    """What deltas are sent to."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def send_json(self, message: dict[str, Any]) -> None:
        self.texts.append(message["text"])


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        ({}, None),
        ({"aggregation": "concatenate"}, 1),
        ({"aggregator": shout}, 1),
        ({"mode": "voting", "choices": ("yes", "no")}, 1),
    ],
)
async def test_only_the_answer_is_delivered(scene: Scene, settings: dict[str, Any], pieces: int | None) -> None:
    each_says(scene)
    socket = Socket()
    run = Run()
    async with scene.pattern(sections=PARTS, ws_streaming=socket, **settings) as pattern:
        with run():
            result = await pattern.execute(QUESTION)
    assert "".join(socket.texts) == result.content
    assert len(socket.texts) == pieces if pieces else len(socket.texts) > 1
    assert [event.stream for event in run.of(ModelCallStarted)] == [False] * 3 + [True] * (pieces is None)


@pytest.mark.parametrize("at_the_end", [False, True])
async def test_a_run_that_times_out_leaves_nothing_open(scene: Scene, at_the_end: bool) -> None:
    begun = anyio.Event()
    recorder = Recorder()

    async def hang() -> None:
        begun.set()
        await anyio.sleep_forever()

    async def wait(_: Any) -> str:
        begun.set()
        await anyio.sleep_forever()
        raise AssertionError

    scene.says = {} if at_the_end else {"You are s": Reply(tool_calls=(ScriptedCall("hang"),))}
    tools = () if at_the_end else (hang,)
    async with (
        scene.pattern(*tools, sections=PARTS, max_concurrency=2, aggregator=wait) as pattern,
        Engine() as engine,
        passing(30, whenever=begun.is_set),
    ):
        engine.subscribe(recorder, name="recorder", lane="lossless")
        with pytest.raises(RunTimeout):
            await engine.run(pattern, QUESTION, timeout=30)
    check_whole(recorder.events)


async def test_runs_of_one_instance_do_not_mix(scene: Scene) -> None:
    async with scene.pattern(find, aggregation="concatenate") as pattern, Engine() as engine:
        results = await engine.map(pattern, [f"Where is parcel AB-{n}?" for n in range(12)], concurrency=12)
        usage = engine.usage().total
    for number, result in enumerate(results):
        assert [f"AB-{number} is in Berlin" in branch.output for branch in result.value.branches] == [True] * 3  # type: ignore[union-attr] # none failed
    assert usage.usage == scene.simulator.statistics().total


async def test_any_chat_model_votes() -> None:
    votes = ['{"reason": "", "choice": "b"}', 'I say {"reason": "", "choice": "a"}.', '{"reason": "", "choice": "b"}']
    model = GenericFakeChatModel(messages=iter(map(AIMessage, votes)))
    config = ParallelizationConfig(mode="voting", choices=("a", "b"))
    async with ParallelizationPattern(config, model=model) as pattern:
        result = await pattern.execute(QUESTION)
    assert (result.winner, result.tally) == ("b", {"a": 1, "b": 2})


def test_trio_gets_a_clear_error() -> None:
    async def main() -> None:
        async with ParallelizationPattern(PatternConfig()) as pattern:
            with pytest.raises(AsyncioRequired, match="'parallelization' is built on LangGraph"):
                await pattern.execute("x")

    anyio.run(main, backend="trio")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"mode": "both"}, "mode: .*'both'"),
        ({"sections": []}, "sections: there are none"),
        ({"sections": [{"name": "a", "instructions": "x"}] * 2}, "sections: each needs a name of its own"),
        ({"sections": [{"name": "a"}]}, "Section missing .*'instructions'"),
        ({"sections": [{"name": "", "instructions": "x"}]}, "Section.name: .*length >= 1"),
        ({"mode": "voting", "votes": 0}, "votes: .*>= 1"),
        ({"mode": "voting", "choices": ["a"]}, "choices: there must be several"),
        ({"mode": "voting", "choices": ["a", "a"]}, "choices: there must be several"),
        ({"choices": ["a", "b"]}, "choices: they are for mode 'voting'"),
        ({"aggregation": "majority"}, "aggregation: 'majority' needs choices"),
        ({"mode": "voting", "choices": ["a", "b"], "aggregation": "synthesis"}, "aggregation: choices need"),
        ({"on_failure": "threshold", "min_successes": 4}, "min_successes: there are only 3 branches"),
        ({"max_concurrency": 0}, "max_concurrency: .*>= 1"),
    ],
)
def test_what_does_not_go_together_is_named(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        ParallelizationConfig(**settings)


def test_there_is_one_aggregation() -> None:
    with pytest.raises(ConfigurationError, match="give one of the two"):
        ParallelizationPattern(ParallelizationConfig(aggregation="synthesis"), aggregator=shout)
