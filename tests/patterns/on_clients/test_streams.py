"""Streams of a metered client: however they are left, and however the network cuts their bytes."""

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import anyio
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from meter_support import ASKED, MeterScene
from openai import APIConnectionError, AsyncOpenAI
from pattern_support import KEY, Run

from runmeter import ModelRequest, Provenance, Usage, meter
from runmeter.patterns.openai_client.metering.bodies import BodyReading
from runmeter.patterns.openai_client.metering.exchange import MeteredExchange
from runmeter.patterns.openai_client.metering.sent import SentRequest

pytestmark = [
    # The client's own streams leave generators behind on trio, metered or not.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MODEL = "gpt-6-luna"
ANSWER = "In its deepest trench the sea is eleven kilometres deep. " * 10


async def dropped_unread(stream: Any) -> None:
    """Forget it before anything was read."""


async def dropped_midway(stream: Any) -> None:
    async for _ in stream:
        break


async def closed_midway(stream: Any) -> None:
    async for event in stream:
        if str(getattr(event, "type", "")).endswith("delta") or getattr(event, "choices", None):
            break
    await stream.close()


async def closed_unread(stream: Any) -> None:
    await stream.close()


async def cancelled(stream: Any) -> None:
    with anyio.CancelScope() as scope:
        async for _ in stream:
            scope.cancel()
            await anyio.sleep_forever()


async def closed_twice(stream: Any) -> None:
    await stream.close()
    await stream.close()


WAYS: Sequence[Callable[[Any], Awaitable[None]]] = (
    dropped_unread,
    dropped_midway,
    closed_midway,
    closed_unread,
    cancelled,
    closed_twice,
)


@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize("api", ["responses", "chat"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_that_is_left_ends_once_whichever_way(
    way: Callable[[Any], Awaitable[None]], api: str, anyio_backend: str
) -> None:
    async with MeterScene.open(ANSWER) as scene:
        client = scene.client()
        if api == "responses":
            stream: Any = await client.responses.create(model=MODEL, input=ASKED, stream=True)
        else:
            stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        await way(stream)
        del stream
        for _ in range(3):  # the client's generators are closed by the event loop, one after the other
            gc.collect()
            await anyio.wait_all_tasks_blocked()
        await client.close()
        await scene.settled()
        [end] = scene.ends
        assert end.provenance in (Provenance.PARTIAL, Provenance.UNKNOWN)
        assert end.bound is not None
        assert [status for _, status in scene.runs] == ["cancelled"]


async def test_a_streaming_response_is_read_by_lines_or_not_at_all() -> None:
    async with MeterScene.open() as scene:
        client = scene.client()
        ask = client.responses.with_streaming_response.create
        async with ask(model=MODEL, input=ASKED) as response:
            assert [line async for line in response.iter_lines()]
        async with ask(model=MODEL, input=ASKED, stream=True) as response:
            assert [line async for line in response.iter_lines()]
        async with ask(model=MODEL, input=ASKED) as response:
            pass
        await client.close()
        await scene.settled()
        assert [end.provenance for end in scene.ends] == [Provenance.REPORTED, Provenance.REPORTED, Provenance.UNKNOWN]


def chunk(choices: str, usage: str = "null") -> str:
    return f'{{"id":"c_1","object":"chat.completion.chunk","model":"{MODEL}","choices":[{choices}],"usage":{usage}}}'


SAID = ["", 'Deep \\"usage\\":{ and', " data: [DONE] \\n\\n", " é ☃", ' {\\"error\\":1}']
EVENTS = [
    *[chunk(f'{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}') for text in SAID],
    chunk('{"index":0,"delta":{},"finish_reason":"stop"}'),
]
USED = chunk("", '{"prompt_tokens":40,"completion_tokens":50,"total_tokens":90}')


@given(
    cuts=st.lists(st.integers(0, 2_000)),
    hides=st.booleans(),
    line=st.sampled_from(["\n", "\r\n"]),
    spaced=st.booleans(),
    ends_well=st.booleans(),
    pings=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["\n\n", "\r\n\r\n", "\n\r\n"])), max_size=3),
)
def test_however_the_bytes_are_cut_the_same_is_read_and_passed_on(
    cuts: list[int], hides: bool, line: str, spaced: bool, ends_well: bool, pings: list[tuple[int, str]]
) -> None:
    """A proxy's comments may have line breaks of another kind than the server's events."""

    def body_of(events: Sequence[str]) -> bytes:
        texts = [f"data: {event}{line}{line}" for event in (*events, "[DONE]")]
        for place, blank in pings:
            texts[min(place, len(EVENTS) - 1)] += f": ping{blank}"
        text = "".join(texts)
        text = text.replace('":', '": ') if spaced else text
        return (text if ends_well else text.rstrip()).encode()

    body = body_of([*EVENTS, USED])
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    run = Run()
    with run() as execution:
        content = b'{"model":"%s","messages":[],"stream":true}' % MODEL.encode()
        sent = SentRequest("chat_completions", httpx2.Request("POST", "http://x/v1", content=content), {}, {})
        sent.adds_usage = hides
        exchange = MeteredExchange(sent, execution)
        exchange.begin(ModelRequest(provider="openai", model=MODEL))
        reading = BodyReading(exchange, httpx2.Response(200, headers={"content-type": "text/event-stream"}))
        passed = b""
        for start, end in pairwise(places):
            data = body[start:end]
            if reading.may_wait:
                reading.keep(data)
                passed += data
            else:
                passed += reading.take(data)
        passed += reading.finish()
    [end_event] = run.requests
    assert end_event.usage == Usage(40, 50)
    assert end_event.finish_reasons == ("stop",)
    assert (end_event.response_id, end_event.response_model) == ("c_1", MODEL)
    assert end_event.error_type is None
    assert passed == (body_of(EVENTS) if hides else body)


async def test_several_choices_and_usage_in_every_chunk_are_understood() -> None:
    async def answer(request: httpx2.Request) -> httpx2.Response:
        async def body() -> AsyncIterator[bytes]:
            for number in range(1, 4):
                usage = f'{{"prompt_tokens":40,"completion_tokens":{number},"total_tokens":{40 + number}}}'
                for index in (0, 1):
                    reason = '"stop"' if number == 3 else "null"
                    choice = f'{{"index":{index},"delta":{{"content":"x"}},"finish_reason":{reason}}}'
                    yield f"data: {chunk(choice, usage)}\n\n".encode()
            yield b"data: [DONE]\n\n"

        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body())

    async with MeterScene.open() as scene:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        client = meter(AsyncOpenAI(base_url="https://api.openai.com/v1", api_key=KEY, http_client=http))
        stream = await client.chat.completions.create(model=MODEL, messages=ASKED, n=2, stream=True)
        assert len([each async for each in stream]) == 6, "chunks with choices are the caller's"
        await client.close()
        await scene.settled()
        [end] = scene.ends
        assert (end.usage, end.finish_reasons) == (Usage(40, 3), ("stop", "stop"))


def data(event: str) -> bytes:
    return f"data: {event}\n\n".encode()


CUT: dict[str, list[bytes]] = {
    "chat": [data(chunk('{"index":0,"delta":{"content":"data: [DONE]"},"finish_reason":null}'))],
    "responses": [
        data('{"type":"response.created","response":{"id":"r_1","model":"gpt-6-luna"}}'),
        b"event: response.output_text.delta\n" + data('{"type":"response.output_text.delta","delta":".delta"}'),
    ],
}
"""Streams that are cut, of answers about streams."""


@pytest.mark.parametrize("api", CUT)
async def test_what_a_model_says_of_streams_is_no_sign_of_its_own(api: str) -> None:
    async def answer(request: httpx2.Request) -> httpx2.Response:
        async def body() -> AsyncIterator[bytes]:
            for event in CUT[api]:
                yield event
            raise httpx2.ReadError("cut")

        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body())

    async with MeterScene.open() as scene:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        client = meter(AsyncOpenAI(base_url="https://api.openai.com/v1", api_key=KEY, http_client=http))
        with pytest.raises(APIConnectionError):
            if api == "chat":
                async for _ in await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True):
                    pass
            else:
                async for _ in await client.responses.create(model=MODEL, input=ASKED, stream=True):
                    pass
        await client.close()
        await scene.settled()
        [end] = scene.ends
        assert (end.provenance, end.usage) == (Provenance.PARTIAL, Usage(0, 1))
        assert (end.error_type, end.finish_reasons) == ("APIConnectionError", ("error",))
