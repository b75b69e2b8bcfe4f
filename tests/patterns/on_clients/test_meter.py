"""`meter`: which run a metered client's requests belong to, what budgets refuse, and what must never reach a caller."""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from meter_support import ASKED, MeterScene
from openai import AsyncAzureOpenAI, AsyncOpenAI, OpenAI
from pattern_support import KEY

import runmeter
from runmeter import (
    Budget,
    BudgetExceeded,
    ConfigurationError,
    Engine,
    ExecutionStarted,
    ModelCallStarted,
    Provenance,
    UnboundedRequest,
    Usage,
    current_execution,
    meter,
    outside_requests,
    unmeter,
)
from runmeter.simulator import Fault, Simulator

MODEL = "gpt-6-luna"
pytestmark = [
    # The client's own streams leave generators behind on trio, metered or not.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def ask(client: Any, **more: Any) -> Any:
    return client.responses.create(model=MODEL, input=ASKED, **more)


async def test_it_is_the_same_client_and_its_answers_are_its_own() -> None:
    async with MeterScene.open() as scene:
        plain = AsyncOpenAI(**scene.settings())
        assert meter(plain) is plain
        assert type(plain) is AsyncOpenAI
        answer = await ask(plain)
        assert type(answer).__module__.startswith("openai.types")
        stream = await plain.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        chunks = [chunk async for chunk in stream]
        assert all(chunk.choices for chunk in chunks), "the chunk with usage was not asked for"
        asked_for: Any = {"stream": True, "stream_options": {"include_usage": True}}
        with_usage: Any = await plain.chat.completions.create(model=MODEL, messages=ASKED, **asked_for)
        last = [chunk async for chunk in with_usage][-1]
        assert last.usage is not None
        await plain.close()
        await scene.settled()
        assert [event.provenance for event in scene.ends] == [Provenance.REPORTED] * 3


async def test_metering_twice_counts_once_and_unmetering_ends_it() -> None:
    async with MeterScene.open() as scene:
        client = meter(meter(scene.client()))
        await ask(client)
        copied = client.with_options(timeout=30)
        await ask(copied.copy(max_retries=1))
        assert unmeter(client) is client
        await ask(client)
        await ask(copied)
        await client.close()
        await scene.settled()
        assert scene.runs == [("openai.responses", "ok")] * 2
        assert scene.arrived == 4


@pytest.mark.parametrize("wrong", [None, "client", httpx2.Client, OpenAI])
def test_what_is_no_client_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"openai\.AsyncOpenAI"):
        meter(wrong)
    with pytest.raises(ConfigurationError, match=r"openai\.AsyncOpenAI"):
        unmeter(wrong)


async def test_tags_are_those_of_the_block() -> None:
    async with MeterScene.open() as scene:
        client = scene.client()

        async def pattern(messages: Any, context: Any) -> None:
            with runmeter.tags(tenant="inner"):
                await ask(client)

        with runmeter.tags(tenant="acme", team="blue"):
            await ask(client)
            with runmeter.tags(team="red"):
                await ask(client)
            await scene.engine.run(pattern, "")
            await scene.engine.run(pattern, "", tags={"tenant": "given"})
        await ask(client)
        await client.close()
        await scene.settled()
        tags = [dict(event.tags) for event in scene.of(ExecutionStarted)]
        assert tags == [
            {"tenant": "acme", "team": "blue"},
            {"tenant": "acme", "team": "red"},
            {"tenant": "acme", "team": "blue"},
            {"tenant": "given"},
            {},
        ]
    with pytest.raises(ConfigurationError):
        runmeter.tags(tenant=1).__enter__()  # type: ignore[arg-type] # that is what is refused


async def test_a_request_after_its_run_is_a_run_of_its_own() -> None:
    async with MeterScene.open() as scene:
        client = scene.client()
        over = anyio.Event()

        async def later() -> None:
            await over.wait()
            assert current_execution().is_metered
            await ask(client)

        async with anyio.create_task_group() as tasks:

            async def pattern(messages: Any, context: Any) -> None:
                tasks.start_soon(later)
                await ask(client)

            # The task is the group's, but has the run's context.
            await scene.engine.run(pattern, "")
            over.set()
        await client.close()
        await scene.settled()
        assert [name for name, _ in scene.runs] == [pattern.__qualname__, "openai.responses"]


async def test_the_current_engine_counts_else_the_installed_one_else_the_only_one() -> None:
    async with Simulator() as url:
        client = meter(AsyncOpenAI(base_url=url, api_key=KEY))

        def elsewhere() -> None:
            sync = meter(OpenAI(base_url=url, api_key=KEY))
            ask(sync)
            sync.close()

        async def counted(*engines: Engine) -> list[int]:
            return [engine.usage().total.requests for engine in engines]

        def in_thread() -> None:
            thread = threading.Thread(target=elsewhere)  # which has no context of its caller's
            thread.start()
            thread.join()

        async with Engine() as first:
            await anyio.to_thread.run_sync(in_thread)
            assert await counted(first) == [1]
            async with Engine() as second:
                await ask(client)
                assert await counted(first, second) == [1, 1]
                before = outside_requests()
                await anyio.to_thread.run_sync(in_thread)
                assert await counted(first, second) == [1, 1], "of two none is guessed"
                assert outside_requests() == before + 1
                runmeter.install(first)
                await anyio.to_thread.run_sync(in_thread)
                assert await counted(first, second) == [2, 1]
                runmeter.install(None)
            await ask(client)
            assert await counted(first, second) == [3, 1]
        await client.close()


async def test_without_an_engine_a_request_leaves_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with Simulator() as url:
        client = meter(AsyncOpenAI(base_url=url, api_key=KEY))
        before = outside_requests()
        async with Engine() as engine:  # after which the first request is told anew
            pass
        assert (await ask(client)).output_text
        assert (await ask(client)).output_text
        stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        assert [chunk async for chunk in stream]
        await client.close()
        assert outside_requests() == before + 3
        assert engine.usage().total.requests == 0
    told = [record for record in caplog.records if "belongs to no run" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("where", ["in a run", "in none"])
def test_in_a_forked_child_a_request_leaves_unharmed(where: str) -> None:
    async def main() -> None:
        async with Simulator() as url, Engine(budgets=[Budget(calls=100)]) as engine:

            async def fork(messages: Any, context: Any) -> None:
                before = outside_requests()
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        client = meter(OpenAI(base_url=url, api_key=KEY))
                        code = 0 if ask(client).output_text and outside_requests() == before + 1 else 2
                    finally:
                        os._exit(code)
                status = await anyio.to_thread.run_sync(os.waitpid, child, 0)
                assert os.waitstatus_to_exitcode(status[1]) == 0

            if where == "in a run":
                await engine.run(fork, "")
            else:
                await fork("", None)
            assert engine.usage().total.requests == 0

    asyncio.run(main())


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("where", ["in a run", "in none"])
async def test_a_budget_refuses_before_the_request_leaves(is_async: bool, where: str) -> None:
    budgets = [Budget(calls=1, every="day")]
    async with MeterScene.open(budgets=budgets) as scene:
        client: Any = scene.client(max_retries=2) if is_async else scene.sync_client(max_retries=2)

        async def work(messages: Any = None, context: Any = None) -> None:
            if is_async:
                await ask(client, max_output_tokens=100)
            else:
                await anyio.to_thread.run_sync(partial(ask, client, max_output_tokens=100))

        run: Callable[[], Any] = work if where == "in none" else partial(scene.engine.run, work, "")
        await run()
        with pytest.raises(BudgetExceeded):
            await run()
        await (client.close() if is_async else anyio.to_thread.run_sync(client.close))
        await scene.settled()
        assert [status for _, status in scene.runs] == ["ok", "budget_exceeded"]
        assert scene.arrived == 1
        assert scene.engine.budgets()[0].refused == 1
        assert scene.engine.budgets()[0].reserved == 0


async def test_each_attempt_needs_room() -> None:
    async with MeterScene.open(budgets=[Budget(calls=1, every="day")]) as scene:
        client = scene.client(max_retries=2)
        scene.simulator.inject(Fault("rate_limit", retry_after=0.001))
        with pytest.raises(BudgetExceeded):
            await ask(client, max_output_tokens=100)
        await client.close()
        await scene.settled()
        assert scene.arrived == 1
        assert scene.runs == [("openai.responses", "budget_exceeded")]


@pytest.mark.parametrize("api", ["responses", "chat", "chat, by its old limit"])
async def test_a_budget_makes_answers_shorter(api: str) -> None:
    budgets = [Budget(tokens=400, every="day", when_exceeded="lower")]
    answer = "In its deepest trench the sea is eleven kilometres deep. " * 60
    async with MeterScene.open(answer, budgets=budgets) as scene:
        client = scene.client()
        if api == "responses":
            assert (await ask(client, max_output_tokens=1_000)).status == "incomplete"
        else:
            is_old = "old" in api
            limit: Any = {"max_tokens" if is_old else "max_completion_tokens": 1_000}
            model = "gpt-4.1-mini" if is_old else MODEL
            completion = await client.chat.completions.create(model=model, messages=ASKED, **limit)
            assert completion.choices[0].finish_reason == "length"
        await client.close()
        status = scene.engine.budgets()[0]
        assert 100 < status.spent <= status.cap == Decimal(400)
        assert status.reserved == 0


@pytest.mark.parametrize("where", ["in a run", "in none"])
async def test_no_request_waits_for_the_room_that_a_stream_beside_it_holds(where: str) -> None:
    async with MeterScene.open(budgets=[Budget(calls=1, every="day", when_reserved="wait")]) as scene:
        client = scene.client()

        async def work(messages: Any = None, context: Any = None) -> None:
            stream = await ask(client, max_output_tokens=100, stream=True)
            with pytest.raises(BudgetExceeded):
                await ask(client, max_output_tokens=100)
            await stream.close()

        await (work() if where == "in none" else scene.engine.run(work, ""))
        await client.close()
        assert scene.engine.budgets()[0].reserved == 0


async def test_what_has_no_bound_a_budget_refuses_by_name() -> None:
    async with MeterScene.open(budgets=[Budget(tokens=1_000_000)]) as scene:
        client = scene.client()
        with pytest.raises(UnboundedRequest):
            await ask(client, tools=[{"type": "code_interpreter", "container": {"type": "auto"}}])
        await client.close()
        assert scene.arrived == 0


async def test_no_failure_of_the_metering_reaches_a_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from runmeter.patterns.openai_client.metering import answers, exchange, hooks, streams
    from runmeter.patterns.openai_client.metering.trouble import trouble

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a mistake of ours")

    before = trouble.count
    monkeypatch.setattr(trouble, "count", 0)
    broken: list[tuple[Any, str]] = [
        (hooks, "SentRequest"),
        (hooks, "find_exchange"),
        (exchange, "record_answer"),
        (exchange, "failure_of"),
        (exchange.MeteredExchange, "begin"),
        (exchange, "ResponseReading"),
        (streams.StreamReading, "read"),
        (streams.StreamReading, "end"),
        (answers, "read_usage"),
    ]
    async with Simulator() as url, Engine():
        client = meter(AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0))
        for owner, name in broken:
            with monkeypatch.context() as patched:
                patched.setattr(owner, name, fail)
                assert (await ask(client)).output_text
                stream = await ask(client, stream=True)
                events = [event.type async for event in stream]
                assert events[-1] == "response.completed"
                chat = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
                assert all([chunk.choices async for chunk in chat])
        await client.close()
    assert trouble.count >= len(broken) - 1  # a failure's type is read of failures alone
    assert [record.levelno for record in caplog.records if "metering it failed" in record.getMessage()] == [
        logging.ERROR
    ]
    assert before >= 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("stream", [False, True])
async def test_encodings_are_undone(encoding: str, stream: bool) -> None:
    import gzip
    import zlib

    async with MeterScene.open() as scene:

        async def pass_on(request: httpx2.Request) -> httpx2.Response:
            request.headers["accept-encoding"] = "identity"
            async with httpx2.AsyncClient(trust_env=False) as http:
                answer = await http.send(request)
            body = answer.content
            encoded = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
            headers = {"content-type": answer.headers["content-type"], "content-encoding": encoding}
            if stream:
                return httpx2.Response(answer.status_code, headers=headers, content=in_pieces(encoded))
            return httpx2.Response(answer.status_code, headers=headers, content=encoded)

        http = httpx2.AsyncClient(transport=httpx2.MockTransport(pass_on))
        client = scene.client(http_client=http)
        answer = await ask(client, stream=stream)
        if stream:
            assert [event async for event in answer]
        await client.close()
        await scene.settled()
        assert [event.provenance for event in scene.ends] == [Provenance.REPORTED]
        assert scene.ends[0].usage == sum(scene.billed.values(), Usage())


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100):
        yield body[start : start + 100]


async def test_a_server_that_takes_no_stream_options_is_not_asked_again() -> None:
    async with MeterScene.open() as scene:
        bodies: list[bytes] = []

        async def refuse(request: httpx2.Request) -> httpx2.Response:
            bodies.append(request.content)
            if b"stream_options" in request.content:
                return httpx2.Response(400, json={"error": {"message": "Unknown parameter: 'stream_options'."}})
            async with httpx2.AsyncClient(trust_env=False) as http:
                answer = await http.send(request)
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=answer.content)

        client = scene.client(http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(refuse)))
        for _ in range(2):
            stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
            assert [chunk async for chunk in stream]
        await client.close()
        await scene.settled()
        assert [b"stream_options" in body for body in bodies] == [True, False, False]
        assert [event.provenance for event in scene.ends] == [Provenance.PARTIAL] * 2
        assert scene.notices == ["unreported_usage"]


AZURE = [
    "https://mine.openai.azure.com",
    "https://mine.services.ai.azure.com",
    "https://mine.cognitiveservices.azure.com",
]
ADDRESSES: list[tuple[dict[str, Any], str]] = [
    ({"base_url": "https://api.openai.com/v1"}, "openai"),
    ({"base_url": "https://eu.api.openai.com/v1"}, "openai"),
    ({"base_url": "http://localhost:11434/v1"}, "localhost:11434"),
    ({"base_url": "https://openrouter.ai/api/v1"}, "openrouter.ai"),
    ({"base_url": "https://api.openai.com.example.com/v1"}, "api.openai.com.example.com"),
    *[({"base_url": f"{azure}/openai/v1"}, "azure.ai.openai") for azure in AZURE],
]


@pytest.mark.parametrize(("settings", "provider"), ADDRESSES)
async def test_whose_prices_are_meant_is_told_by_the_host(settings: dict[str, Any], provider: str) -> None:
    async with MeterScene.open() as scene:
        client = scene.client(**settings, http_client=elsewhere(scene))
        await ask(client)
        await client.close()
        await scene.settled()
        [end] = scene.ends
        assert end.provider == provider
        cost = scene.engine.usage().total.cost
        assert (cost.usd is not None) == (provider in ("openai", "azure.ai.openai"))


async def test_whose_prices_are_meant_may_be_said() -> None:
    async with MeterScene.open() as scene:
        client = scene.client(base_url="http://gateway:4000", http_client=elsewhere(scene))
        meter(client, provider="openai", models={"fast": MODEL})
        await client.responses.create(model="fast", input=ASKED)
        await client.close()
        await scene.settled()
        [end] = scene.ends
        assert (end.provider, end.model) == ("openai", MODEL)
        assert scene.engine.usage().total.cost.usd is not None


@pytest.mark.parametrize("how", ["by the answer", "by name"])
async def test_a_deployment_of_azures_has_its_models_price(how: str) -> None:
    async with MeterScene.open() as scene:
        client = AsyncAzureOpenAI(
            azure_endpoint="https://mine.openai.azure.com",
            azure_deployment="fast" if how == "by the answer" else None,
            api_version="2025-04-01-preview",
            api_key=KEY,
            http_client=elsewhere(scene, {"fast": MODEL}),
        )
        meter(client, models={} if how == "by the answer" else {"fast": MODEL})
        await client.chat.completions.create(model="fast", messages=ASKED)
        await client.close()
        await scene.settled()
        [end] = scene.ends
        assert end.model == ("fast" if how == "by the answer" else MODEL)
        assert (end.provider, end.response_model) == ("azure.ai.openai", MODEL)
        assert [event.server_address for event in scene.of(ModelCallStarted)] == ["mine.openai.azure.com"]
        assert scene.engine.usage().total.cost.usd is not None


def elsewhere(scene: MeterScene, models: dict[str, str] | None = None) -> httpx2.AsyncClient:
    """An HTTP client for which the simulator is at every address, and knows other names of models."""

    async def pass_on(request: httpx2.Request) -> httpx2.Response:
        content = request.content
        for name, model in (models or {"fast": MODEL}).items():
            content = content.replace(f'"{name}"'.encode(), f'"{model}"'.encode())
        path = request.url.path[request.url.path.rfind("/chat/") :] if "/chat/" in request.url.path else "/responses"
        async with httpx2.AsyncClient(trust_env=False) as http:
            headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
            answer = await http.post(scene.simulator.url + path, headers=headers, content=content)
        return httpx2.Response(answer.status_code, headers={"content-type": "application/json"}, content=answer.content)

    return httpx2.AsyncClient(transport=httpx2.MockTransport(pass_on))
