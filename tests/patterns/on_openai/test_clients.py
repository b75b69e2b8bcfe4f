"""Keys, models and event loops: which client a request goes over, and that nobody sees its key."""

import json
import traceback
from typing import Any

import anyio
import httpx2
import openai
import pytest
from answer_support import event_stream, served_by
from langchain_core.language_models import FakeListChatModel
from pattern_support import KEY, Run, at_once

from runmeter.engine import ConfigurationError
from runmeter.patterns import (
    Document,
    EmbeddingRetriever,
    EvaluatorOptimizerConfig,
    EvaluatorOptimizerPattern,
    OpenAIPatternConfig,
    PatternRegistry,
    RetryPolicy,
)
from runmeter.patterns.errors import RetiredModel
from runmeter.patterns.openai.responses.metered import MeteredResponses
from runmeter.patterns.openai_client.clients import Clients
from runmeter.patterns.openai_client.models import takes_temperature
from runmeter.simulator import Fault, Simulator

PARAMS: dict[str, Any] = {"model": "gpt-6-luna", "input": "Where is parcel AB-1?"}


async def test_a_key_that_is_quoted_back_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        key = request.headers["authorization"].removeprefix("Bearer ")
        error = {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key", "type": "x", "seen": [key]}
        return httpx2.Response(401, json={"error": error})

    async def provide() -> str:
        return KEY

    for key in (KEY, provide):
        clients = Clients(key, "http://127.0.0.1:1/v1", timeout=5)
        client = clients.get()
        monkeypatch.setattr(client, "_client", httpx2.AsyncClient(transport=httpx2.MockTransport(refuse)))
        run = Run()
        with pytest.raises(openai.AuthenticationError) as raised, run():
            await MeteredResponses(clients, RetryPolicy(), timeout=5, estimate=False).create(PARAMS)
        await clients.aclose()
        error = raised.value
        assert KEY not in f"{error!r} {error} {error.message} {error.body}"
        assert "Incorrect API key provided: ***" in str(error)
        [request] = run.requests
        assert request.error_type == "invalid_api_key"
        assert request.error_message is not None
        assert "***" in request.error_message


QUOTED = {"code": "invalid_api_key", "message": f"Incorrect API key provided: {KEY}"}
FAILED = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-6-luna",
    "status": "failed",
    "output": [],
    "error": QUOTED,
}
ESCAPED = KEY.replace("-", r"\u002d", 1)
QUOTING = [
    (True, event_stream({"type": "error", "sequence_number": 0, **QUOTED}).replace(KEY.encode(), ESCAPED.encode())),
    (True, event_stream({"type": "error", "sequence_number": 0, **QUOTED})),
    (True, event_stream({"type": "error", "sequence_number": 0, "error": {**QUOTED, "type": "x"}})),
    (True, event_stream({"type": "response.failed", "sequence_number": 0, "response": FAILED})),
    (False, json.dumps(FAILED).encode()),
    (False, json.dumps({"error": QUOTED}).encode()),
]


@pytest.mark.parametrize(("stream", "content"), QUOTING)
@pytest.mark.parametrize(
    ("pattern_type", "anyio_backend"),
    [("openai_function_calling", "asyncio"), ("openai_function_calling", "trio"), ("augmented_llm", "asyncio")],
)
async def test_a_key_that_an_answer_quotes_is_not_passed_on(
    monkeypatch: pytest.MonkeyPatch, pattern_type: str, stream: bool, content: bytes
) -> None:
    kind = "text/event-stream" if stream else "application/json"
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"content-type": kind}, content=content))
    config = OpenAIPatternConfig(api_key=KEY, base_url="http://127.0.0.1:1/v1", max_retries=0, stream_responses=stream)
    pattern: Any = PatternRegistry().create_pattern(pattern_type, config)
    clients: Clients = getattr(pattern, "clients", None) or pattern._clients
    monkeypatch.setattr(clients.get(), "_client", httpx2.AsyncClient(transport=transport))
    seen: list[str] = []

    async def delta(text: str) -> None:
        seen.append(text)

    run = Run(delta=delta if stream else None)
    with pytest.raises(Exception, match=r"Incorrect API key provided: \*\*\*") as raised, run():
        await pattern.execute("x")
    await pattern.aclose()
    assert KEY not in "".join(traceback.format_exception(raised.value))


async def test_what_the_model_says_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    message = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": KEY}]}
    answer = {**FAILED, "status": "completed", "error": None, "output": [message]}
    content = event_stream({"type": "response.completed", "sequence_number": 0, "response": answer})
    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=5)
    served_by(monkeypatch, clients, content)
    with Run()():
        response = await MeteredResponses(clients, RetryPolicy(), timeout=5, estimate=False).create(PARAMS, stream=True)
    await clients.aclose()
    assert response.output_text == KEY


async def test_a_key_that_cannot_be_sent_is_refused_wherever_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    async def provide() -> str:
        return f"{KEY}\n"

    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY: a key has"):
        Clients(None, None, timeout=5).get()
    clients = Clients(provide, "http://127.0.0.1:1/v1", timeout=5)
    with pytest.raises(ConfigurationError, match="api_key function returned: a key has") as raised, Run()():
        await MeteredResponses(clients, RetryPolicy(), timeout=5, estimate=False).create(PARAMS)
    await clients.aclose()
    assert KEY not in "".join(traceback.format_exception(raised.value))


def test_clients_of_event_loops_that_ended_are_forgotten() -> None:
    clients = Clients(KEY, "http://127.0.0.1:9/v1", timeout=5)

    async def use() -> None:
        clients.get()

    for _ in range(3):
        for backend in ("asyncio", "trio"):
            anyio.run(use, backend=backend)
    assert len(clients._clients) == 1


async def test_a_function_that_gets_a_key_must_be_async() -> None:
    provide: Any = lambda: KEY  # noqa: E731 - as short as users write it
    clients = Clients(provide, "http://127.0.0.1:1/v1", timeout=5)
    with pytest.raises(ConfigurationError, match="must be async"), Run()():
        await MeteredResponses(clients, RetryPolicy(), timeout=5, estimate=False).create(PARAMS)
    await clients.aclose()


async def test_a_key_that_was_followed_by_another_is_hidden_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=5)
    client = clients.get()

    def refuse(request: httpx2.Request) -> httpx2.Response:
        client.api_key = "sk-the-next-key"  # as another request's does, while this one is under way
        key = request.headers["authorization"].removeprefix("Bearer ")
        return httpx2.Response(401, json={"error": {"message": f"Incorrect API key provided: {key}"}})

    monkeypatch.setattr(client, "_client", httpx2.AsyncClient(transport=httpx2.MockTransport(refuse)))
    with pytest.raises(openai.AuthenticationError) as raised, Run()():
        await MeteredResponses(clients, RetryPolicy(), timeout=5, estimate=False).create(PARAMS)
    await clients.aclose()
    assert KEY not in f"{raised.value!r} {raised.value.body}"


async def test_a_key_may_come_from_the_environment_or_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)
    clients = Clients(None, None, timeout=5)
    with pytest.raises(ConfigurationError, match="set OPENAI_API_KEY"):
        clients.get()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    client = clients.get()
    assert client is clients.get()
    assert (client.api_key, str(client.base_url), client.max_retries) == (KEY, "http://127.0.0.1:9/v1/", 0)
    await clients.aclose()
    assert client.is_closed()
    assert clients.get() is not client
    await clients.aclose()


def test_each_event_loop_has_a_client_of_its_own() -> None:
    clients = Clients(KEY, "http://127.0.0.1:9/v1", timeout=5)

    async def use() -> object:
        client = clients.get()
        await clients.aclose()
        return client

    one, other = (anyio.run(use, backend=backend) for backend in ("asyncio", "trio"))
    assert one is not other


@pytest.mark.parametrize(
    ("model", "effort", "takes"),
    [
        ("gpt-6-luna", None, False),
        ("gpt-6-luna", "none", True),
        ("gpt-5.6-terra", None, False),
        ("o4-mini", None, False),
        ("gpt-10-x", None, False),
        ("gpt-4.1", None, True),
        ("gpt-4o-mini", None, True),
        ("gpt-5-chat-latest", None, True),
        ("llama-3.3", None, True),
        ("ft:gpt-5.6-luna:acme::x", None, False),
        ("openai/gpt-6-luna", None, False),
        ("ft:gpt-4o-mini:acme:o3-like:x", None, True),
    ],
)
def test_only_some_models_take_a_temperature(model: str, effort: str | None, takes: bool) -> None:
    assert takes_temperature(model, effort) is takes


async def test_a_retired_model_is_named_before_a_request_leaves() -> None:
    clients = Clients(KEY, "https://api.openai.com/v1", timeout=5)
    run = Run()
    with pytest.raises(RetiredModel) as raised, run():
        await MeteredResponses(clients, RetryPolicy(), timeout=5, estimate=False).create(
            {**PARAMS, "model": "gpt-4-1106-preview"}
        )
    await clients.aclose()
    assert str(raised.value) == "model 'gpt-4-1106-preview' was shut down on 2026-10-23; use 'gpt-5.6-sol' instead"
    assert run.requests == []


# A function that gets the key

FRAMEWORKS = pytest.mark.parametrize(
    ("pattern_type", "anyio_backend"),
    [("openai_function_calling", "asyncio"), ("openai_function_calling", "trio"), ("augmented_llm", "asyncio")],
)


def pattern_with(key: Any, pattern_type: str, **config: Any) -> Any:
    settings = OpenAIPatternConfig(api_key=key, **{"base_url": "http://127.0.0.1:1/v1", **config})
    return PatternRegistry().create_pattern(pattern_type, settings, retry=RetryPolicy(max_retries=2, sleep=at_once))


@FRAMEWORKS
async def test_a_key_is_asked_for_once_a_request(simulator: Simulator, pattern_type: str) -> None:
    keys = iter(f"sk-key-{number}" for number in range(9))
    sent: list[str] = []

    async def provide() -> str:
        return next(keys)

    async def look(request: httpx2.Request) -> None:
        sent.append(request.headers["authorization"])

    pattern = pattern_with(provide, pattern_type, base_url=simulator.url)
    clients: Clients = getattr(pattern, "clients", None) or pattern._clients
    clients.get()._client.event_hooks["request"].append(look)
    simulator.inject(Fault("rate_limit", retry_after=0.0))
    run = Run()
    with run():
        await pattern.execute("Hello")
        await pattern.execute("Hello")
    await pattern.aclose()
    assert sent == ["Bearer sk-key-0", "Bearer sk-key-1", "Bearer sk-key-2"]
    assert [request.attempt for request in run.requests] == [1, 2, 1]


@FRAMEWORKS
@pytest.mark.parametrize(("error", "times"), [(ConnectionError("no route"), 3), (PermissionError("sealed"), 1)])
async def test_without_a_key_nothing_has_left_and_nothing_is_billed(
    pattern_type: str, error: Exception, times: int
) -> None:
    asked = 0

    async def provide() -> str:
        nonlocal asked
        asked += 1
        raise error

    pattern, run = pattern_with(provide, pattern_type), Run()
    with pytest.raises(type(error)) as raised, run():
        await pattern.execute("Hello")
    await pattern.aclose()
    assert raised.value is error
    assert asked == times, "tried again where it may pass"
    assert run.requests == []
    assert len(run.events) == 2


@FRAMEWORKS
async def test_a_key_may_take_no_longer_than_a_request(pattern_type: str) -> None:
    pattern, run = pattern_with(anyio.sleep_forever, pattern_type, request_timeout=0.01), Run()
    with pytest.raises(TimeoutError, match=r"the api_key function has returned no key within 0\.01 s"), run():
        await pattern.execute("Hello")
    await pattern.aclose()
    assert run.requests == []


@FRAMEWORKS
async def test_a_run_may_be_cancelled_while_it_waits_for_its_key(pattern_type: str) -> None:
    run = Run()
    with anyio.CancelScope() as scope:

        async def provide() -> str:
            scope.cancel()
            await anyio.sleep_forever()
            return KEY

        with run():
            await pattern_with(provide, pattern_type).execute("Hello")
    assert scope.cancelled_caught
    assert run.requests == []


async def test_embeddings_without_a_key_have_not_left() -> None:
    async def provide() -> str:
        raise PermissionError("sealed")

    config, run = OpenAIPatternConfig(api_key=provide, base_url="http://127.0.0.1:1/v1"), Run()
    retriever = EmbeddingRetriever(config)
    with pytest.raises(PermissionError), run():
        await retriever.add([Document(source="sea.md", text="The sea is salty.")])
    await retriever.aclose()
    assert run.requests == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_key_is_for_the_patterns_own_model(simulator: Simulator) -> None:
    asked = 0

    async def provide() -> str:
        nonlocal asked
        asked += 1
        return KEY

    config = EvaluatorOptimizerConfig(api_key=provide, base_url=simulator.url)
    judge = FakeListChatModel(responses=['{"passed": true, "score": 1.0, "feedback": ""}'])
    async with EvaluatorOptimizerPattern(config, evaluator_model=judge) as pattern:
        assert (await pattern.execute("Why is the sea salty?")).accepted
    assert asked == 1
