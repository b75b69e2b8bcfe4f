"""Engines that close while a metered client's request in no run is under way: its run ends with them, once."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx2
import pytest
from meter_support import ASKED
from openai import AsyncOpenAI, OpenAI
from pattern_support import KEY, check_whole

from runmeter import Engine, Event, ExecutionFinished, Provenance, TokenUsage, meter

MODEL = "gpt-6-luna"
USED = {"prompt_tokens": 40, "completion_tokens": 50, "total_tokens": 90}
ANSWER: dict[str, Any] = {
    "id": "chatcmpl_1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": MODEL,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Deep."}}],
    "usage": USED,
}
CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"%s","choices":'
    b'[{"index":0,"delta":{"content":"deep"},"finish_reason":null}],"usage":null}\n\n'
) % MODEL.encode()
LAST = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"%s","choices":[],"usage":'
    b'{"prompt_tokens":40,"completion_tokens":50,"total_tokens":90}}\n\ndata: [DONE]\n\n'
) % MODEL.encode()
pytestmark = [
    # The client's own streams leave generators behind on trio, metered or not.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class SlowServer:
    """A server that answers only after it is let, by a whole answer, an error, or the rest of a stream.

    Args:
        how: `answer`, `error`, `retried`, `stream` or `lost`.
    """

    def __init__(self, how: str) -> None:
        self.how = how
        self.asked, self.let = anyio.Event(), anyio.Event()

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request."""
        if self.how == "stream":
            headers = {"content-type": "text/event-stream"}
            return httpx2.Response(200, headers=headers, content=self._pieces())
        is_second = self.asked.is_set()
        self.asked.set()
        await self.let.wait()
        if self.how == "lost":
            raise httpx2.ReadError("the line broke")
        if self.how == "error" or (self.how == "retried" and not is_second):
            return httpx2.Response(500, headers={"retry-after-ms": "1"}, json={"error": {"message": "No."}})
        return httpx2.Response(200, json=ANSWER)

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield CHUNK
        self.asked.set()
        await self.let.wait()
        yield CHUNK + LAST


async def ask(client: AsyncOpenAI, how: str) -> None:
    """Ask, and take the answer whichever way it comes."""
    if how == "stream":
        stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        assert len([chunk async for chunk in stream]) == 2, "the caller has all of it"
    elif how in ("error", "lost"):
        with pytest.raises(Exception, match=r"No\.|Connection error"):
            await client.chat.completions.create(model=MODEL, messages=ASKED)
    else:
        assert (await client.chat.completions.create(model=MODEL, messages=ASKED)).usage is not None


@pytest.mark.parametrize("how", ["answer", "error", "lost", "retried", "stream"])
async def test_a_request_under_way_ends_with_its_engine_once(how: str) -> None:
    server = SlowServer(how)
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(server.answer))
    client = meter(AsyncOpenAI(http_client=http, api_key=KEY, max_retries=1 if how == "retried" else 0))
    events: list[Event] = []
    async with anyio.create_task_group() as tasks:
        async with Engine() as engine:
            engine.subscribe(events.extend, name="test", lane="lossless")
            tasks.start_soon(ask, client, how)
            await server.asked.wait()
            await anyio.wait_all_tasks_blocked()
        check_closed(events, engine, how)
        said, total = list(events), engine.usage().total
        server.let.set()
    await client.close()
    assert events == said
    assert engine.usage().total == total, "what came after is counted nowhere"


def check_closed(events: list[Event], engine: Engine, how: str) -> None:
    """Check that the one run has ended, with what is known of its one request."""
    check_whole(events)
    assert sum(isinstance(event, ExecutionFinished) for event in events) == 1
    [end] = [event for event in events if isinstance(event, TokenUsage)]
    assert end.provenance is (Provenance.PARTIAL if how == "stream" else Provenance.UNKNOWN)
    assert end.bound is not None
    assert engine.usage().total.requests == 1


async def test_a_sync_clients_request_under_way_ends_with_its_engine() -> None:
    asked, let = anyio.Event(), anyio.Event()

    def answer(request: httpx2.Request) -> httpx2.Response:
        anyio.from_thread.run_sync(asked.set)
        anyio.from_thread.run(let.wait)
        return httpx2.Response(200, json=ANSWER)

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = meter(OpenAI(http_client=http, api_key=KEY, max_retries=0))
    work = partial(client.chat.completions.create, model=MODEL, messages=ASKED)
    events: list[Event] = []
    async with anyio.create_task_group() as tasks:
        async with Engine() as engine:
            engine.subscribe(events.extend, name="test", lane="lossless")
            tasks.start_soon(anyio.to_thread.run_sync, work)
            await asked.wait()
        check_closed(events, engine, "answer")
        total = engine.usage().total
        let.set()
    client.close()
    assert engine.usage().total == total


async def test_an_attempt_that_has_failed_is_no_request_under_way() -> None:
    """The client waits to try again, and does so when the engine has closed."""
    waits, go_on = anyio.Event(), anyio.Event()
    answers = [httpx2.Response(503, json={"error": {"message": "No."}}), httpx2.Response(200, json=ANSWER)]

    class Waiting(AsyncOpenAI):
        async def _sleep_for_retry(self, **options: Any) -> None:
            waits.set()
            await go_on.wait()

    async def answer(request: httpx2.Request) -> httpx2.Response:
        return answers.pop(0)

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    client = meter(Waiting(http_client=http, api_key=KEY, max_retries=1))
    events: list[Event] = []
    async with anyio.create_task_group() as tasks:
        async with Engine() as engine:
            engine.subscribe(events.extend, name="test", lane="lossless")
            tasks.start_soon(ask, client, "answer")
            await waits.wait()
        check_closed(events, engine, "error")
        total = engine.usage().total
        go_on.set()
    await client.close()
    assert engine.usage().total == total
