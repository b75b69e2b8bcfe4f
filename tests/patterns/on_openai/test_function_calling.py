"""The function calling pattern, over the real client and a server on this machine."""

import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import anyio
import httpx2
import openai
import pytest
from pattern_support import KEY, Run, check_whole
from scene_support import PatternScene
from time_support import passing

from runmeter.engine import ConfigurationError, Engine, ModelCallStarted, Provenance, RunTimeout
from runmeter.engine.testing import Recorder
from runmeter.patterns import (
    OpenAIFunctionCallingConfig,
    OpenAIFunctionCallingPattern,
    OpenAIPatternConfig,
    PatternConfig,
    PatternRegistry,
    ResponseFailed,
    Tool,
)
from runmeter.simulator import Fault, Reply, ScriptedCall, Simulator

FIND = ScriptedCall("find", '{"number": "AB-1"}')


async def find(number: str) -> dict[str, str]:
    """Find a parcel.

    Args:
        number: Its number.
    """
    return {"number": number, "city": "Berlin"}


def weigh(number: str) -> float:
    """Weigh a parcel, in kg."""
    return 2.5


Scene: TypeAlias = PatternScene[OpenAIFunctionCallingPattern]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene(OpenAIFunctionCallingPattern) as scene:
        yield scene


async def test_calls_are_made_and_their_results_used(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(find, weigh) as pattern:
        with run(conversation_id="c1"):
            result = await pattern.execute("Where is parcel AB-1?")
    assert "Berlin" in result.content
    assert (result.turns, result.finish_reason, result.conversation_id) == (2, "stop", "c1")
    assert [call.name for call in result.function_calls] == ["find"]
    assert result.function_calls[0].output == '{"number":"AB-1","city":"Berlin"}'
    assert result.response_id == run.requests[-1].response_id
    assert [(call.name, call.error_type) for call in run.calls] == [("find", None)]
    assert [request.finish_reasons for request in run.requests] == [("tool_calls",), ("stop",)]
    assert run.reported == scene.simulator.statistics().total


async def test_the_result_goes_on_as_history(scene: Scene) -> None:
    async with scene.pattern(find) as pattern:
        first = await pattern.execute("Where is parcel AB-1?")
        history = [{"role": "user", "content": "Where is parcel AB-1?"}, *first.messages]
        second = await pattern.execute([*history, {"role": "user", "content": "Where was that again, please?"}])
    assert json.loads(json.dumps(first.messages)) == list(first.messages)
    assert second.content
    assert len(scene.prompts[-1].items) > len(first.messages)


async def test_the_configuration_arrives(scene: Scene) -> None:
    requests: list[dict[str, Any]] = []
    strict = Tool.from_function(find, strict=True)
    async with scene.pattern(
        strict,
        system_prompt="Be brief.",
        openai_max_tokens=64,
        parallel_tool_calls=False,
        reasoning_effort="low",
        service_tier="flex",
        store=True,
    ) as pattern:
        client = pattern.clients.get()
        create = client.responses.create

        async def spy(**params: Any) -> Any:
            requests.append(params)
            return await create(**params)

        client.responses.create = spy  # type: ignore[method-assign] # to see what is sent
        run = Run()
        with run():
            first = await pattern.execute("Where is AB-1?")
            await pattern.execute("And now?", {"previous_response_id": first.response_id, "instructions": "Be long."})
    sent = requests[0]
    assert sent["model"] == "gpt-6-luna"
    assert sent["instructions"] == "Be brief."
    assert sent["max_output_tokens"] == 64
    assert sent["parallel_tool_calls"] is False
    assert sent["reasoning"] == {"effort": "low"}
    assert sent["service_tier"] == "flex"
    assert sent["store"] is True
    assert sent["tool_choice"] == "auto"
    assert "temperature" not in sent, "this model refuses it"
    assert sent["tools"] == [
        {
            "type": "function",
            "name": "find",
            "description": "Find a parcel.",
            "parameters": {
                "type": "object",
                "properties": {"number": {"type": "string", "description": "Its number."}},
                "required": ["number"],
                "additionalProperties": False,
            },
            "strict": True,
        }
    ]
    assert (requests[-1]["instructions"], requests[-1]["previous_response_id"]) == ("Be long.", first.response_id)
    assert run.of(ModelCallStarted)[-1].previous_response_id == first.response_id
    assert {request.service_tier for request in run.requests} == {"flex"}


async def test_a_temperature_is_sent_to_models_that_take_it(scene: Scene) -> None:
    run = Run()
    with run():
        for model in ("gpt-4.1", "gpt-6-luna"):
            async with scene.pattern(openai_model=model, openai_temperature=0.3) as pattern:
                await pattern.execute("Hello there.")
    assert [started.temperature for started in run.of(ModelCallStarted)] == [0.3, None]


async def test_parallel_calls_run_at_once_and_are_all_answered(scene: Scene) -> None:
    scene.simulator.script(
        Reply(
            tool_calls=(
                ScriptedCall("meet"),
                ScriptedCall("nope"),
                ScriptedCall("meet", "{x"),
                ScriptedCall("fail"),
                ScriptedCall("meet"),
            )
        ),
        Reply("Done."),
    )
    together = 0
    both = anyio.Event()

    async def meet() -> str:
        nonlocal together
        together += 1
        if together == 2:
            both.set()
        await both.wait()
        return "met"

    def fail() -> None:
        raise LookupError("nothing here")

    run = Run()
    async with scene.pattern(meet, fail) as pattern:
        with run():
            result = await pattern.execute("Meet.")
    assert result.content == "Done."
    errors = [call.error_type for call in result.function_calls]
    assert errors == [None, "UnknownTool", "InvalidArguments", "LookupError", None]
    assert sorted(str(call.error_type) for call in run.calls) == sorted(map(str, errors))
    assert run.reported == scene.simulator.statistics().total
    answered = [item["call_id"] for item in result.messages if item["type"] == "function_call_output"]
    assert answered == [call.call_id for call in result.function_calls]


async def test_a_call_that_takes_too_long_is_answered(scene: Scene) -> None:
    begun, release = threading.Event(), threading.Event()
    scene.simulator.script(Reply(tool_calls=(ScriptedCall("stuck"), ScriptedCall("hang"))), Reply("Never mind."))

    def stuck() -> None:
        begun.set()
        release.wait()

    async def hang() -> None:
        begun.set()
        await anyio.sleep_forever()

    try:
        with Run()():
            async with scene.pattern(stuck, hang, tool_timeout=30) as pattern, passing(30, whenever=begun.is_set):
                result = await pattern.execute("Go.")
    finally:
        release.set()
    assert result.content == "Never mind."
    assert [call.error_type for call in result.function_calls] == ["ToolTimeout"] * 2


async def test_the_limit_of_calls_holds_and_the_model_is_told(scene: Scene) -> None:
    scene.simulator.script(Reply(tool_calls=(FIND,) * 2), Reply(tool_calls=(FIND,) * 3))
    run = Run()
    async with scene.pattern(find, max_function_calls=3) as pattern:
        with run():
            result = await pattern.execute("Where is parcel AB-1?")
    assert result.turns == 3
    assert [call.error_type for call in result.function_calls] == [None] * 3 + ["CallLimitReached"] * 2
    assert "limit of 3 function calls" in result.function_calls[-1].output
    assert len(run.calls) == 3, "what is refused is not made"
    assert result.content
    assert scene.prompts[-1].choice == "none", "then tools are switched off"


async def test_no_calls_at_all(scene: Scene) -> None:
    run = Run()
    async with scene.pattern(find, max_function_calls=0) as pattern:
        with run():
            result = await pattern.execute("Where is parcel AB-1?")
    assert (result.turns, result.function_calls, run.calls) == (1, (), [])


async def test_the_limit_of_turns_holds(scene: Scene) -> None:
    calls = Reply(tool_calls=(FIND,))
    scene.simulator.script(*[calls] * 3)
    async with scene.pattern(find, max_iterations=4) as pattern:
        result = await pattern.execute("Where is parcel AB-1?")
    assert result.turns == 4
    assert result.content
    assert scene.prompts[-1].choice == "none"
    scene.simulator.script(*[calls] * 3)
    async with scene.pattern(find, max_iterations=2) as pattern:  # and a model that asks all the same
        result = await pattern.execute("Where is parcel AB-1?")
    assert result.turns == 2
    assert len(result.function_calls) == 2


@pytest.mark.parametrize(
    ("mode", "choices"), [("auto", ["auto", "auto"]), ("none", ["none"]), ("required", ["required", "auto"])]
)
async def test_the_mode_says_whether_functions_are_called(scene: Scene, mode: Any, choices: list[str]) -> None:
    async with scene.pattern(find, function_calling_mode=mode) as pattern:
        result = await pattern.execute("Where is parcel AB-1?")
    assert [prompt.choice for prompt in scene.prompts] == choices
    assert result.content


def test_a_first_function_contradicts_the_mode_that_forbids_calls() -> None:
    with pytest.raises(ConfigurationError, match="first_function"):
        OpenAIFunctionCallingConfig(first_function="find", function_calling_mode="none")


def answered_with(monkeypatch: pytest.MonkeyPatch, pattern: OpenAIFunctionCallingPattern, item: Any) -> None:
    """Have each request answered with one item, as a server would that cares for no rules."""
    answer = {"id": "r", "model": "m", "status": "completed", "output": [item], "usage": None}

    async def respond(_: httpx2.Request) -> httpx2.Response:
        await anyio.lowlevel.checkpoint()  # so that a run without an end can be ended
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=json.dumps(answer))

    transport = httpx2.MockTransport(respond)
    monkeypatch.setattr(pattern.clients.get(), "_client", httpx2.AsyncClient(transport=transport))


CALL = {"type": "function_call", "id": "f", "call_id": "c", "name": "weigh", "arguments": '{"number": "AB-1"}'}


@pytest.mark.parametrize(
    ("tools", "settings", "turns", "errors"),
    [
        ((), {"max_iterations": 3}, 3, ["UnknownTool", "UnknownTool", "CallLimitReached"]),
        ((), {"max_function_calls": 1}, 2, ["UnknownTool", "CallLimitReached"]),
        ((weigh,), {"max_iterations": 2}, 2, [None, "CallLimitReached"]),
        ((weigh,), {"function_calling_mode": "none"}, 1, ["CallLimitReached"]),
    ],
)
async def test_calls_that_must_not_be_made_are_not_made_and_have_an_end(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    tools: tuple[Any, ...],
    settings: dict[str, Any],
    turns: int,
    errors: list[str | None],
) -> None:
    run = Run()
    async with scene.pattern(*tools, **settings) as pattern:
        answered_with(monkeypatch, pattern, CALL)
        with run():
            result = await pattern.execute("How heavy is it?")
    assert (result.turns, result.finish_reason) == (turns, "tool_calls")
    assert [call.error_type for call in result.function_calls] == errors
    assert len(run.calls) == sum(error != "CallLimitReached" for error in errors)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"type": "output_text", "text": None}, ""),
        ({"type": "output_text", "text": "a\ud800b"}, "a?b"),
        ({"type": "refusal", "refusal": "No."}, "No."),
    ],
)
async def test_any_answer_has_a_text_that_can_be_sent(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, part: dict[str, Any], text: str
) -> None:
    async with scene.pattern(enable_token_counting=False) as pattern:
        answered_with(monkeypatch, pattern, {"type": "message", "id": "m", "role": "assistant", "content": [part]})
        result = await pattern.execute("Hello")
    assert result.content == text


def test_a_required_call_needs_a_tool() -> None:
    with pytest.raises(ConfigurationError, match="there are no tools"):
        OpenAIFunctionCallingPattern(OpenAIPatternConfig(function_calling_mode="required"))
    with pytest.raises(ValueError, match="OpenAIPatternConfig"):
        OpenAIFunctionCallingPattern(PatternConfig())


async def test_calls_of_an_answer_that_was_cut_off_are_not_made(scene: Scene) -> None:
    long = ScriptedCall("find", json.dumps({"number": "AB-1 " * 100}))
    scene.simulator.script(Reply(tool_calls=(FIND, long)))
    run = Run()
    async with scene.pattern(find, openai_max_tokens=40) as pattern:
        with run():
            result = await pattern.execute("Where is it?")
    assert (result.finish_reason, result.turns) == ("length", 1)
    assert {call.error_type for call in result.function_calls} == {"AnswerCutOff"}
    assert run.calls == []
    assert run.reported == scene.simulator.statistics().total


async def test_reasoning_goes_along(scene: Scene) -> None:
    async with scene.pattern(find, reasoning_effort="low") as pattern:
        result = await pattern.execute("Where is parcel AB-1?")
    kinds = [item["type"] for item in result.messages]
    assert kinds == ["reasoning", "function_call", "function_call_output", "reasoning", "message"]
    assert result.messages[0]["encrypted_content"]


async def test_deltas_are_streamed_when_somebody_listens(scene: Scene) -> None:
    registry = PatternRegistry()
    recorder = Recorder()
    async with scene.pattern(find, stream_responses=False) as pattern, Engine(usage=registry.usage) as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        async with engine.stream(pattern, "Where is parcel AB-1?") as stream:
            texts = [item.text async for item in stream if hasattr(item, "text")]
        result = await engine.run(pattern, "Where is parcel AB-1?")
        stats = registry.get_usage_stats("openai_function_calling")
    assert "".join(texts) == result.content
    started = [event for event in recorder.events if isinstance(event, ModelCallStarted)]
    assert [event.stream for event in started] == [True, True, False, False]
    billed = scene.simulator.statistics().total
    assert stats["openai_metrics"]["total_tokens"] == billed.total_tokens
    assert stats["total_executions"] == 2


async def test_answers_are_streamed_for_their_times_alone(scene: Scene) -> None:
    run = Run()
    async with scene.pattern() as pattern:
        with run():
            await pattern.execute("Hello there.")
    assert run.requests[0].first_chunk_ns is not None


async def test_attempts_are_events_and_errors_are_the_callers(scene: Scene) -> None:
    scene.simulator.inject(Fault("server_error"), Fault("insufficient_quota"))
    run = Run()
    async with scene.pattern(find) as pattern:
        with pytest.raises(openai.RateLimitError), run():
            await pattern.execute("Where is parcel AB-1?")
    assert [(request.attempt, request.error_type) for request in run.requests] == [
        (1, "InternalServerError"),
        (2, "insufficient_quota"),
    ]
    scene.simulator.inject(Fault("failed", times=9))
    async with scene.pattern(find) as pattern:
        with pytest.raises(ResponseFailed) as raised:
            await pattern.execute("Where is parcel AB-1?")
    assert raised.value.code == "server_error"


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
    async with scene.pattern(hang, stuck, stream_responses=where == "stream") as pattern:
        try:
            async with (
                Engine() as engine,
                passing(30, whenever=lambda: begun.is_set() or scene.simulator.statistics().faults),
            ):
                engine.subscribe(recorder, name="recorder", lane="lossless")
                with pytest.raises(RunTimeout):
                    await engine.run(pattern, "Go.", timeout=30)
        finally:
            release.set()
    check_whole(recorder.events)


async def test_many_runs_at_once_share_one_client(scene: Scene) -> None:
    registry = PatternRegistry()
    async with scene.pattern(find, weigh) as pattern, Engine(usage=registry.usage) as engine:
        results = await engine.map(pattern, [f"Where is parcel AB-{n}?" for n in range(60)], concurrency=20)
    assert all(f"AB-{n}" in result.content for n, result in enumerate(results))  # type: ignore[union-attr] # none failed
    total = registry.usage.snapshot().total
    billed = scene.simulator.statistics()
    assert total.usage == billed.total
    assert total.function_calls == billed.tool_calls
    assert total.requests_by_provenance == {Provenance.REPORTED: billed.requests["POST /responses"]}


async def test_the_key_is_seen_nowhere(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    recorder = Recorder()
    scene.simulator.inject(Fault("insufficient_quota"))
    async with scene.pattern(find) as pattern:
        async with Engine() as engine:
            engine.subscribe(recorder, name="recorder", lane="lossless")
            with pytest.raises(openai.RateLimitError) as raised:
                await engine.run(pattern, "Where is parcel AB-1?")
            result = await engine.run(pattern, "Where is parcel AB-1?")
        assert KEY not in f"{pattern!r} {pattern.config!r} {pattern.clients!r}"
    assert KEY not in repr((recorder.events, result, raised.value)) + str(raised.value)
    assert KEY not in caplog.text


async def test_without_an_engine_it_works_all_the_same(scene: Scene) -> None:
    async with scene.pattern(find) as pattern:
        result = await pattern.execute([{"role": "user", "content": "Where is parcel AB-1?"}])
    assert "Berlin" in result.content
    assert result.conversation_id is None


def test_one_pattern_serves_many_event_loops() -> None:
    def once(pattern: OpenAIFunctionCallingPattern, backend: str) -> str:
        async def main() -> str:
            result = await pattern.execute("Where is parcel AB-1?")
            await pattern.aclose()
            return result.content

        return anyio.run(main, backend=backend)

    async def with_simulator(use: Callable[[str], list[str]]) -> list[str]:
        async with Simulator() as url:
            return await anyio.to_thread.run_sync(use, url)

    def use(url: str) -> list[str]:
        pattern = OpenAIFunctionCallingPattern(OpenAIPatternConfig(base_url=url, api_key=KEY), [find])
        return [once(pattern, backend) for backend in ("asyncio", "trio", "asyncio")]

    contents = anyio.run(with_simulator, use)
    assert len(contents) == 3
    assert all("Berlin" in content for content in contents)
