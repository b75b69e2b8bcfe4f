"""Answers that are none, or not in the API's form: the caller gets what came, and what it used is told as not known."""

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from typing import Any

import httpx2
import pytest
from meter_support import ASKED, MeterScene
from openai import APIStatusError, AsyncOpenAI, OpenAI, OpenAIError
from pattern_support import KEY

from runmeter import Provenance, meter

pytestmark = [
    # The client's own streams leave generators behind on trio, metered or not.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MODEL = "gpt-6-luna"
PAGE = b"<html>Please sign in.</html>"
BODIES: dict[str, bytes] = {
    "page": PAGE,
    "nothing": b"",
    "cut JSON": b'{"id": "resp_1", "usage": {"input_tok',
    "array": b"[1, 2]",
    "null": b"null",
    "not text": b"\xff\xfe{}",
    "nested": b"[" * 100_000,
}
ODD: list[Any] = [5, "x", [], [5], ["x"], {}, {"a": 5}, None, True, 1e300]
"""Values in the place of others."""
APIS: dict[str, Callable[[Any], Any]] = {
    "responses": lambda client: client.responses.with_raw_response.create(model=MODEL, input=ASKED),
    "chat": lambda client: client.chat.completions.with_raw_response.create(model=MODEL, messages=ASKED),
    "embeddings": lambda client: client.embeddings.with_raw_response.create(model=MODEL, input=["sea"]),
    "background": lambda client: client.responses.with_raw_response.create(model=MODEL, input=ASKED, background=True),
}
WHOLE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": MODEL,
    "service_tier": "default",
    "error": None,
    "incomplete_details": None,
    "tool_usage": {},
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Deep."}]}],
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Deep."}}],
    "data": [{"embedding": [0.5], "index": 0}],
    "usage": {"input_tokens": 4, "output_tokens": 2, "prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
}


def client_of(answers: Callable[[httpx2.Request], httpx2.Response]) -> AsyncOpenAI:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answers))
    return meter(AsyncOpenAI(http_client=http, api_key=KEY, max_retries=0))


@pytest.fixture(autouse=True)
def nothing_told(caplog: pytest.LogCaptureFixture) -> Any:
    """Check that no error is logged: none is ours."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("api", APIS)
async def test_what_is_no_answer_has_an_unknown_usage_and_a_notice(api: str) -> None:
    async with MeterScene.open() as scene:
        came = [(body, kind) for body in BODIES.values() for kind in ("application/json", "text/html")]
        answers = [httpx2.Response(200, headers={"content-type": kind}, content=body) for body, kind in came]
        client = client_of(lambda _: answers.pop(0))
        for body, _ in came:
            answer = await APIS[api](client)
            assert answer.http_response.content == body
        await client.close()
        await scene.settled()
        assert [(end.provenance, end.usage) for end in scene.ends] == [(Provenance.UNKNOWN, None)] * len(came)
        assert all(end.bound is not None for end in scene.ends)
        assert scene.notices == ["unreadable_answer"], "once a model and server"
        assert {status for _, status in scene.runs} == {"ok"}, "its caller has it"


@pytest.mark.parametrize("body", BODIES)
async def test_a_page_in_the_place_of_a_background_answer_says_nothing_of_it(body: str) -> None:
    queued = {"id": "resp_1", "object": "response", "status": "queued", "model": MODEL, "output": []}
    bodies = [json.dumps(queued).encode(), BODIES[body], json.dumps(WHOLE).encode()]
    async with MeterScene.open() as scene:
        client = client_of(lambda _: httpx2.Response(200, content=bodies.pop(0)))
        await client.responses.with_raw_response.create(model=MODEL, input=ASKED, background=True)
        await client.responses.with_raw_response.retrieve("resp_1")
        await scene.settled()
        assert scene.ends == [], "it is waited for still"
        await client.responses.with_raw_response.retrieve("resp_1")
        await client.close()
        await scene.settled()
        [end] = scene.ends
        assert end.provenance is Provenance.REPORTED


@pytest.mark.parametrize("api", APIS)
async def test_an_odd_value_anywhere_is_no_failure_of_ours(api: str) -> None:
    async with MeterScene.open() as scene:
        answers = [httpx2.Response(200, json={**WHOLE, field: odd}) for field in WHOLE for odd in ODD]
        count = len(answers)
        client = client_of(lambda _: answers.pop())
        for _ in range(count):
            await APIS[api](client)
        await client.close()
        await scene.settled()
        assert len(scene.ends) == count
        reported = sum(event.provenance is Provenance.REPORTED for event in scene.ends)
        assert reported >= count - 5 * len(ODD), "five fields are of what was used"


async def test_an_odd_value_in_a_stream_is_no_failure_of_ours() -> None:
    chunk = {"id": "c", "model": MODEL, "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}

    def answers(request: httpx2.Request) -> httpx2.Response:
        said = [chunk, {**chunk, "usage": usage, field: odd}, {**chunk, "choices": [odd], "usage": usage}]
        content = "".join(f"data: {json.dumps(each)}\n\n" for each in said) + "data: [DONE]\n\n"
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=content.encode())

    fields = "id", "model", "choices", "usage", "service_tier", "error"
    async with MeterScene.open() as scene:
        client = client_of(answers)
        for field, odd in product(fields, ODD):  # noqa: B007 - which `answers` sees
            with suppress(OpenAIError, TypeError, AttributeError):  # the client's own
                async for _ in await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True):
                    pass
        await client.close()
        await scene.settled()
        assert len(scene.ends) == len(fields) * len(ODD)


REFUSED: dict[str, tuple[int, Any, str]] = {
    "named": (429, {"error": {"code": "insufficient_quota", "message": "No more."}}, "insufficient_quota"),
    "page": (403, PAGE, "PermissionDeniedError"),
    "busy": (500, {"error": {"message": "Busy."}}, "InternalServerError"),
}


def refusal(how: str) -> httpx2.Response:
    status, said, _ = REFUSED[how]
    return httpx2.Response(status, content=said) if isinstance(said, bytes) else httpx2.Response(status, json=said)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", REFUSED)
async def test_a_client_that_shares_a_metered_ones_connections_fails_as_it_does(how: str, stream: bool) -> None:
    async with MeterScene.open() as scene:
        client = client_of(lambda _: refusal(how))
        sharing = AsyncOpenAI(http_client=client._client, api_key=KEY, max_retries=0)
        for each in (client, sharing):
            with pytest.raises(APIStatusError):
                await each.chat.completions.create(model=MODEL, messages=ASKED, stream=stream)
        await client.close()
        await scene.settled()
        assert scene.runs == [("openai.chat", "error")] * 2
        assert [event.error_type for event in scene.ends] == [REFUSED[how][2]] * 2


@pytest.mark.parametrize("is_followed", [True, False])
async def test_a_stream_that_ends_in_an_error_is_a_run_that_failed(is_followed: bool) -> None:
    error = {"error": {"code": "server_error", "message": "The model fell over."}}
    chunk = {"id": "c", "model": MODEL, "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
    content = "".join(f"data: {json.dumps(each)}\n\n" for each in (chunk, error)).encode()
    async with MeterScene.open() as scene:
        headers = {"content-type": "text/event-stream"}
        client = client_of(lambda _: httpx2.Response(200, headers=headers, content=content))
        asked = client if is_followed else AsyncOpenAI(http_client=client._client, api_key=KEY, max_retries=0)
        with pytest.raises(OpenAIError, match="fell over"):
            async for _ in await asked.chat.completions.create(model=MODEL, messages=ASKED, stream=True):
                pass
        await client.close()
        await scene.settled()
        assert scene.runs == [("openai.chat", "error")]
        [end] = scene.ends
        assert (end.error_type, end.error_message) == ("server_error", "The model fell over.")


def test_a_sync_client_gets_a_page_as_it_came() -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, content=PAGE)))
    with meter(OpenAI(http_client=http, api_key=KEY, max_retries=0)) as client:
        answer: Any = client.chat.completions.create(model=MODEL, messages=ASKED)
        assert answer == PAGE.decode()
