"""Servers that have not all of OpenAI's APIs: the error says which is missing, and what to do."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
import pytest
from pattern_support import KEY, Run

from runmeter.engine import Engine, TokenUsage
from runmeter.engine.testing import Recorder
from runmeter.patterns import (
    AugmentedLLMPattern,
    OpenAIAssistantPattern,
    OpenAIFunctionCallingPattern,
    OpenAIPatternConfig,
    OpenAIStreamingPattern,
)

URL = "http://127.0.0.1:11434/v1"
MODEL = "llama4"


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio."""
    return "asyncio"


NOT_THERE: dict[str, Any] = {
    "Ollama": "404 page not found",
    "vLLM, LiteLLM": {"detail": "Not Found"},
    "llama.cpp": {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}},
    "LM Studio": {"error": "Unexpected endpoint or method. (POST /v1/responses)"},
    "Azure": {"error": {"code": "404", "message": "Resource not found"}},
    "nothing but nulls": {
        "error": {"message": "Not found", "type": "invalid_request_error", "param": None, "code": None}
    },
    "an empty body": "",
    "a web page": "<html><body>Not Found</body></html>",
}
SOMETHING_ELSE: dict[str, Any] = {
    "OpenAI": {"error": {"message": f"The model `{MODEL}` does not exist", "param": None, "code": "model_not_found"}},
    "Ollama": {"error": {"message": f'model "{MODEL}" not found, try pulling it first', "type": "api_error"}},
    "vLLM": {"error": {"message": "The model does not exist.", "type": "NotFoundError", "param": "model", "code": 404}},
}


def answered(pattern: Any, body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all of a pattern's requests answered with 404."""
    content = {"text": body} if isinstance(body, str) else {"json": body}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(404, **content))
    clients = pattern._clients if isinstance(pattern, AugmentedLLMPattern) else pattern.clients
    monkeypatch.setattr(clients.get(), "_client", httpx2.AsyncClient(transport=transport))


def config(**settings: Any) -> OpenAIPatternConfig:
    return OpenAIPatternConfig(**{"openai_model": MODEL, "base_url": URL, "api_key": KEY, **settings})


PATTERNS: list[Any] = [OpenAIFunctionCallingPattern, OpenAIStreamingPattern, AugmentedLLMPattern]


@pytest.mark.parametrize("server", NOT_THERE)
@pytest.mark.parametrize("kind", PATTERNS)
async def test_a_server_without_responses_is_said_to_have_none(
    monkeypatch: pytest.MonkeyPatch, kind: Any, server: str
) -> None:
    recorder = Recorder()
    async with kind(config()) as pattern, Engine() as engine:
        engine.subscribe(recorder, name="recorder")
        answered(pattern, NOT_THERE[server], monkeypatch)
        with pytest.raises(openai.NotFoundError) as raised:
            await engine.run(pattern, "Hello.")
        assert engine.usage().total.cost.usd == 0, "a refused request used nothing"
    said = str(raised.value)
    assert "the server at 127.0.0.1:11434 has no Responses API" in said
    assert "use_responses_api=False" in said
    [ended] = [event for event in recorder.events if isinstance(event, TokenUsage)]
    assert "has no Responses API" in (ended.error_message or "")


@pytest.mark.parametrize("server", SOMETHING_ELSE)
@pytest.mark.parametrize("kind", PATTERNS)
async def test_a_model_that_is_not_there_is_another_matter(
    monkeypatch: pytest.MonkeyPatch, kind: Any, server: str
) -> None:
    async with kind(config()) as pattern:
        answered(pattern, SOMETHING_ELSE[server], monkeypatch)
        with pytest.raises(openai.NotFoundError) as raised, Run()():
            await pattern.execute("Hello.")
    assert "has no" not in str(raised.value)


async def test_openais_own_server_has_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async with OpenAIFunctionCallingPattern(config(base_url="https://api.openai.com/v1")) as pattern:
        answered(pattern, {"error": {"message": "Not found"}}, monkeypatch)
        with pytest.raises(openai.NotFoundError) as raised, Run()():
            await pattern.execute("Hello.")
    assert "has no" not in str(raised.value)


Ask = Callable[[Any], Awaitable[Any]]
OTHERS: dict[str, tuple[Ask, str]] = {
    "conversations": (lambda client: client.conversations.create(), "Conversations API"),
    "embeddings": (lambda client: client.embeddings.create(model=MODEL, input="x"), "Embeddings API"),
    "vector stores": (lambda client: client.vector_stores.create(name="x"), "Vector Stores API"),
    "files": (lambda client: client.files.create(file=b"x", purpose="assistants"), "Files API"),
    "counting": (lambda client: client.responses.input_tokens.count(model=MODEL, input="x"), "API that counts"),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_so_are_other_apis(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ask, api = OTHERS[name]
    async with OpenAIFunctionCallingPattern(config()) as pattern:
        answered(pattern, "404 page not found", monkeypatch)
        with pytest.raises(openai.NotFoundError, match=f"has no {api}"):
            await ask(pattern.clients.get())
        with pytest.raises(openai.NotFoundError) as raised:
            await pattern.clients.get().responses.retrieve("resp_1")
        assert "has no" not in str(raised.value), "what is gone may be there no more"


async def test_a_thread_needs_conversations(monkeypatch: pytest.MonkeyPatch) -> None:
    async with OpenAIAssistantPattern(config(persistent_thread=True)) as pattern:
        answered(pattern, {"detail": "Not Found"}, monkeypatch)
        with pytest.raises(openai.NotFoundError, match="has no Conversations API"), Run()():
            await pattern.execute("Hello.")
