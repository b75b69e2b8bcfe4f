"""Answers that say of themselves that they failed: one error, and one policy of retries, in both frameworks."""

import json
from typing import Any

import httpx2
import pytest
from answer_support import event_stream
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_openai import ChatOpenAI
from pattern_support import KEY, Run, at_once
from pydantic import SecretStr
from scene_support import PatternScene

from runmeter.engine import Provenance, Usage
from runmeter.patterns import (
    AugmentedLLMPattern,
    MeteringHandler,
    OpenAIFunctionCallingPattern,
    OpenAIPatternConfig,
    PatternConfig,
    ResponseFailed,
    RetryPolicy,
)
from runmeter.simulator import Fault

FRAMEWORKS: list[Any] = [OpenAIFunctionCallingPattern, AugmentedLLMPattern]
Json = dict[str, Any]
URL = "http://127.0.0.1:1/v1"


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio."""
    return "asyncio"


def listening(streamed: bool) -> Run:
    async def listen(_: str) -> None:
        pass

    return Run(delta=listen if streamed else None)


@pytest.mark.parametrize("kind", FRAMEWORKS)
@pytest.mark.parametrize(
    ("fault", "streamed"),
    [
        (Fault("failed", after_events=3), False),
        (Fault("failed", after_events=3), True),
        (Fault("failed", after_events=0), True),
        (Fault("stream_error", after_events=3), True),
        (Fault("stream_error_nested", after_events=3), True),
        (Fault("stream_end", after_events=3), True),
    ],
    ids=str,
)
async def test_what_failed_is_tried_again_and_named_alike(kind: Any, fault: Fault, streamed: bool) -> None:
    code = "stream_cut" if fault.kind == "stream_end" else "server_error"
    scene: PatternScene[Any] = PatternScene(kind)
    async with scene:
        async with scene.pattern(max_retries=2) as pattern:
            scene.simulator.inject(fault)
            run = listening(streamed)
            with run():
                assert (await pattern.execute("Where is it?")).content
            assert [request.error_type for request in run.requests] == [code, None]
            assert scene.slept == [0.5]
        async with scene.pattern(max_retries=2) as pattern:
            scene.simulator.inject(Fault(fault.kind, times=None, after_events=fault.after_events))
            run = listening(streamed)
            with pytest.raises(ResponseFailed) as raised, run():
                await pattern.execute("Where is it?")
    assert raised.value.code == code
    assert [(request.error_type, request.finish_reasons) for request in run.requests] == [(code, ("error",))] * 3
    assert all(request.provenance is Provenance.UNKNOWN for request in run.requests)
    assert scene.slept == [0.5, 0.5, 1.0]


USAGE = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
PART = {"type": "output_text", "text": "Lyon.", "annotations": []}
MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [PART]}
"""Of the second answer."""


def response(**fields: Any) -> Json:
    answer: Json = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-4.1-mini", "output": []}
    return {**answer, "tools": [], "parallel_tool_calls": True, "error": None, **fields}


def failed(error: Any, **fields: Any) -> Json:
    return response(status="failed", error=error, **fields)


WHOLE = response(status="completed", output=[MESSAGE], usage=USAGE)
BEGUN = {"type": "response.created", "sequence_number": 0, "response": response(status="in_progress")}


def said(event: Json) -> list[Json]:
    return [BEGUN, {"sequence_number": 1, **event}]


def last(answer: Json, kind: str = "failed") -> list[Json]:
    return said({"type": f"response.{kind}", "response": answer})


SERVER_ERROR = {"code": "server_error", "message": "Oh no."}
FAILURES: dict[str, tuple[Any, str, str, int, Usage | None]] = {
    "at once": (failed(SERVER_ERROR), "server_error", "Oh no.", 2, None),
    "at once, and billed": (failed(SERVER_ERROR, usage=USAGE), "server_error", "Oh no.", 2, Usage(100, 20)),
    "at once, final": (failed({"code": "invalid_prompt", "message": "No."}), "invalid_prompt", "No.", 1, None),
    "streamed": (last(failed(SERVER_ERROR)), "server_error", "Oh no.", 2, None),
    "streamed, and billed": (last(failed(SERVER_ERROR, usage=USAGE)), "server_error", "Oh no.", 2, Usage(100, 20)),
    "streamed, final": (last(failed({"code": "invalid_prompt", "message": "No."})), "invalid_prompt", "No.", 1, None),
    "streamed, without a word": (
        *(last(failed(None)), "response_failed", "the answer ended with status 'failed'", 1, None),
    ),
    "flat event": (said({"type": "error", **SERVER_ERROR, "param": None}), "server_error", "Oh no.", 2, None),
    "flat event, final": (
        said({"type": "error", "code": "bad", "message": "No.", "param": None}),
        "bad",
        "No.",
        1,
        None,
    ),
    "flat event without a code": (
        *(said({"type": "error", "code": None, "message": "Busy.", "param": None}), "error", "Busy.", 1, None),
    ),
    "nested event": (said({"type": "error", "error": SERVER_ERROR}), "server_error", "Oh no.", 2, None),
    "nested event, by its type": (
        *(said({"type": "error", "error": {"type": "server_error", "code": None, "message": "Oh no."}}),),
        *("server_error", "Oh no.", 2, None),
    ),
    "a gateway's status": (said({"type": "error", "error": {"code": 502, "message": "Bad."}}), "502", "Bad.", 2, None),
    "a gateway's refusal": (said({"type": "error", "error": {"code": 400, "message": "Bad."}}), "400", "Bad.", 1, None),
}


def server_of(*answers: Any) -> httpx2.AsyncClient:
    """Connect to a server that gives these answers in turn: those that are lists of events as streams."""
    waiting = list(answers)

    def answer(request: httpx2.Request) -> httpx2.Response:
        body = waiting.pop(0)
        if body is WHOLE and json.loads(request.content).get("stream"):
            delta = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "item_id": "msg_1"}
            body = [{**delta, "delta": "Lyon."}, *last(WHOLE, "completed")]
        if isinstance(body, list):
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=event_stream(*body))
        return httpx2.Response(200, json=body)

    return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))


def clients_of(pattern: Any) -> Any:
    return pattern._clients if isinstance(pattern, AugmentedLLMPattern) else pattern.clients


def chat_model(http: httpx2.AsyncClient, **settings: Any) -> ChatOpenAI:
    settings = {"model": "gpt-4.1-mini", "api_key": SecretStr(KEY), "base_url": URL, "max_retries": 0, **settings}
    return ChatOpenAI(http_async_client=http, **settings)


@pytest.mark.parametrize("kind", FRAMEWORKS)
@pytest.mark.parametrize("name", FAILURES)
async def test_however_a_server_says_so(monkeypatch: pytest.MonkeyPatch, kind: Any, name: str) -> None:
    answer, code, message, attempts, usage = FAILURES[name]
    config = OpenAIPatternConfig(openai_model="gpt-4.1-mini", base_url=URL, api_key=KEY)
    run = listening(isinstance(answer, list))
    async with kind(config, retry=RetryPolicy(max_retries=1, sleep=at_once)) as pattern:
        monkeypatch.setattr(clients_of(pattern).get(), "_client", server_of(answer, WHOLE))
        if attempts == 1:
            with pytest.raises(ResponseFailed, match=message) as raised, run():
                await pattern.execute("Where is it?")
            assert raised.value.code == code
        else:
            with run():
                assert (await pattern.execute("Where is it?")).content == "Lyon."
    first = run.requests[0]
    assert len(run.requests) == attempts
    assert (first.error_type, first.error_message, first.finish_reasons) == (code, message, ("error",))
    assert first.usage == usage


@pytest.mark.parametrize(
    ("error", "code"),
    [({"code": "server_error", "message": "Oh no."}, "server_error"), ({"code": 503, "message": "Busy."}, "503")],
)
async def test_chat_completions_that_say_so_with_status_200(error: Json, code: str) -> None:
    whole = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Lyon."}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }
    model, run = chat_model(server_of({"error": error}, whole)), Run()
    async with AugmentedLLMPattern(PatternConfig(), model=model, retry=RetryPolicy(sleep=at_once)) as pattern:
        with run():
            assert (await pattern.execute("Where is it?")).content == "Lyon."
    assert [request.error_type for request in run.requests] == [code, None]


class Odd(GenericFakeChatModel):
    """A model of a user's own, with errors of its own."""

    error: Any

    async def _agenerate(self, *_: Any, **__: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [ValueError("server_error: no"), ValueError(), ValueError(7), KeyError("code")])
async def test_errors_of_a_models_own_stay_what_they_are(error: Exception) -> None:
    model = Odd(messages=iter(()), error=error)
    run = Run()
    async with AugmentedLLMPattern(PatternConfig(), model=model) as pattern:
        with pytest.raises(type(error)) as raised, run():
            await pattern.execute("Where is it?")
    assert raised.value is error
    assert [request.error_type for request in run.requests] == [type(error).__name__]


async def test_a_graph_of_ones_own_gets_langchains_error_and_the_events_the_apis() -> None:
    model = chat_model(server_of(FAILURES["streamed, and billed"][0]), use_responses_api=True)
    run = Run()
    with pytest.raises(ValueError, match="Oh no"), run(), MeteringHandler() as meter:
        _ = [chunk async for chunk in model.astream("Where is it?", {"callbacks": [meter]})]
    [request] = run.requests
    assert (request.error_type, request.usage, request.response_id) == ("server_error", Usage(100, 20), "resp_1")
