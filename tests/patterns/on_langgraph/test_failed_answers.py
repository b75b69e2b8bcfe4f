"""Structured answers that were paid for and cannot be read: they failed, and used what they say."""

import json
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from langchain_openai import ChatOpenAI
from pattern_support import KEY, Run
from pydantic import BaseModel, SecretStr

from runmeter.engine import Provenance, Usage
from runmeter.patterns import MeteringHandler, Route, RoutingConfig, RoutingPattern


@pytest.fixture
def anyio_backend() -> str:
    """LangChain needs asyncio."""
    return "asyncio"


class City(BaseModel):
    a: int


def chat(content: str, reason: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4.1-mini-2025-04-14",
        "choices": [
            {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": content, "refusal": None}}
        ],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 40},
        },
    }


def responses(content: str, status: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": content, "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": [part]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4.1-mini-2025-04-14",
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "output": [message],
        "usage": {
            "input_tokens": 100,
            "output_tokens": 20,
            "total_tokens": 120,
            "input_tokens_details": {"cached_tokens": 40},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }


def model_of(*bodies: dict[str, Any], **settings: Any) -> ChatOpenAI:
    """A model whose server answers with these bodies."""
    waiting = list(bodies)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=waiting.pop(0)))
    return ChatOpenAI(
        model="gpt-4.1-mini",
        api_key=SecretStr(KEY),
        base_url="http://127.0.0.1:1/v1",
        max_retries=0,
        http_async_client=httpx2.AsyncClient(transport=transport),
        **settings,
    )


BAD = [
    (chat('{"a":', "length"), False),
    (chat('{"a":', "stop"), False),
    (chat('{"b": 1}', "stop"), False),
    (chat("", "content_filter"), False),
    (responses('{"a":', "incomplete"), True),
    (responses('{"a":', "completed"), True),
]


@pytest.mark.parametrize(("body", "over_responses"), BAD)
async def test_a_structured_answer_that_cannot_be_parsed_used_what_it_says(
    body: dict[str, Any], over_responses: bool
) -> None:
    model = model_of(body, use_responses_api=over_responses).with_structured_output(City)
    run = Run()
    with run(), MeteringHandler() as meter, suppress(Exception):  # what is raised differs: that is not the point
        await model.ainvoke("Where?", {"callbacks": [meter]})
    [request] = run.requests
    assert (request.usage, request.provenance) == (Usage(100, 20, cache_read_tokens=40), Provenance.REPORTED)
    assert request.response_id == body["id"]
    assert request.response_model == "gpt-4.1-mini-2025-04-14"


async def execute(pattern: RoutingPattern, run: Run) -> Any:
    with run():
        return await pattern.execute("Where is parcel AB-1?")


async def test_a_route_that_is_cut_is_asked_for_once_more() -> None:
    cut = chat('{"route": "del', "length")
    good = chat(json.dumps({"route": "delivery", "confidence": 1.0, "reason": "parcel"}), "stop")
    model = model_of(cut, good, chat("In Lyon.", "stop"))
    routes = (Route(name="delivery", description="Where a parcel is."), Route(name="other", description="All else."))
    run = Run()
    async with RoutingPattern(RoutingConfig(routes=routes), model=model) as pattern:
        result = await execute(pattern, run)
    assert (result.route, result.content) == ("delivery", "In Lyon.")
    assert [request.usage for request in run.requests] == [Usage(100, 20, cache_read_tokens=40)] * 3
    assert [bool(request.error_type) for request in run.requests] == [True, False, False]
