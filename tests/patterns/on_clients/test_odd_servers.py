"""Streams of other servers than OpenAI's: a metered client's caller gets what a bare one's gets, and it is counted."""

import gzip
import json
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import httpx2
import pytest
from meter_support import ASKED, MeterScene
from openai import APIConnectionError, AsyncOpenAI, OpenAI
from pattern_support import KEY

from runmeter import Provenance, Usage, meter

pytestmark = [
    # The client's own streams leave generators behind on trio, metered or not.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MODEL = "gpt-6-luna"
USED = {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43}
KEEP_ALIVE = 'data: {"type":"keepalive"}\n\n'
ASKED_USAGE: Any = {"stream_options": {"include_usage": True}}
PACKED: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "Identity": bytes}


def events(asked: Any, *, line: str = "\n", apart: str = ": ", first: str = "", used: Any = None) -> bytes:
    """Write a stream of Chat Completions; its usage if that is asked for, in a chunk with `used` besides."""
    chunk = {"id": "c_1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    deltas: list[Any] = [{"content": text} for text in ("one ", "two ", 'th"r": ee\n\n')]
    chunks = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (asked.get("stream_options") or {}).get("include_usage"):
        chunks.append({**chunk, **({"choices": []} if used is None else used), "usage": USED})
    texts = [*(json.dumps(each, separators=(",", apart)) for each in chunks), "[DONE]"]
    return (first + "".join(f"data: {text}{line}{line}" for text in texts)).encode()


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


Answer = Callable[[Any], tuple[Sequence[bytes], dict[str, str]]]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Run a server that answers in the pieces it is told; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            pieces, headers = answer(asked)
            self.send_response(200)
            for name, value in {"content-type": "text/event-stream", "transfer-encoding": "chunked", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


async def hear(client: AsyncOpenAI, **options: Any) -> list[str]:
    stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True, **options)
    return [chunk.to_json() async for chunk in stream]


def hear_here(client: OpenAI, **options: Any) -> list[str]:
    stream = client.chat.completions.create(model=MODEL, messages=ASKED, stream=True, **options)
    return [chunk.to_json() for chunk in stream]


def settings(url: str, http: Any) -> dict[str, Any]:
    return {"base_url": url, "api_key": KEY, "http_client": http, "max_retries": 0}


async def check(answer: Answer, make: Callable[[], Any] = httpx2.AsyncClient, **options: Any) -> None:
    """Check that both clients hear the same, and that it is counted as a whole."""
    with serving(answer) as url:
        async with MeterScene.open() as scene:
            bare = AsyncOpenAI(**settings(url, make()))
            client = meter(AsyncOpenAI(**settings(url, make())))
            expected = await hear(bare, **options)
            assert len(expected) >= 4
            assert await hear(client, **options) == expected
            await bare.close()
            await client.close()
            await scene.settled()
            check_counted(scene)


def check_counted(scene: MeterScene) -> None:
    [end] = scene.ends
    assert (end.provenance, end.usage) == (Provenance.REPORTED, Usage(40, 3))
    assert (end.response_id, end.response_model, end.finish_reasons) == ("c_1", MODEL, ("stop",))
    assert end.error_type is None
    assert [status for _, status in scene.runs] == ["ok"]


@pytest.mark.parametrize("options", [{}, ASKED_USAGE], ids=["silent", "asks"])
@pytest.mark.parametrize("size", [1, 13, 100_000])
@pytest.mark.parametrize("encoding", PACKED)
async def test_an_encoding_that_was_not_asked_for_is_undone(encoding: str, size: int, options: Any) -> None:
    await check(lambda asked: (cut(PACKED[encoding](events(asked)), size), {"content-encoding": encoding}), **options)


@pytest.mark.parametrize("options", [{}, ASKED_USAGE], ids=["silent", "asks"])
@pytest.mark.parametrize("size", [7, 100_000])
@pytest.mark.parametrize(
    "style",
    [
        *({"line": line} for line in ("\r", "\r\n", "\n")),
        *({"apart": apart} for apart in (":", " : ", " :")),
        *({"used": used} for used in ({"choices": None}, {})),
    ],
    ids=str,
)
async def test_each_way_to_write_a_stream_is_read(style: Any, size: int, options: Any) -> None:
    await check(lambda asked: (cut(events(asked, **style), size), {}), **options)


@pytest.mark.parametrize("options", [{}, ASKED_USAGE], ids=["silent", "asks"])
@pytest.mark.parametrize("apart", [":", ": "])
@pytest.mark.parametrize("first", [": ping\n\n", KEEP_ALIVE, "\n\n", ": ping\n\n" + KEEP_ALIVE])
async def test_a_stream_may_begin_with_what_is_not_of_the_answer(first: str, apart: str, options: Any) -> None:
    await check(lambda asked: ([first.encode(), *cut(events(asked, apart=apart), 40)], {}), **options)


@pytest.mark.parametrize("options", [{}, ASKED_USAGE], ids=["silent", "asks"])
@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", ""])
@pytest.mark.parametrize("size", [13, 100_000])
async def test_a_stream_need_not_say_that_it_is_one(kind: str, size: int, options: Any) -> None:
    await check(lambda asked: (cut(events(asked), size), {"content-type": kind}), **options)


PAGE = json.dumps({"id": "c_1", "model": MODEL, "choices": [], "usage": USED}, indent=1).replace("\n", "\n\n")


@pytest.mark.parametrize("options", [{}, ASKED_USAGE], ids=["silent", "asks"])
@pytest.mark.parametrize("page", [PAGE, "\n " + PAGE, "\n\n<p>\n\nBusy</p>\n\n"])
@pytest.mark.parametrize("size", [1, 9, 100_000])
async def test_what_is_no_stream_though_one_was_asked_for_is_passed_on_in_order(
    page: str, size: int, options: Any
) -> None:
    with serving(lambda _: (cut(page.encode(), size), {})) as url:
        async with MeterScene.open() as scene, meter(AsyncOpenAI(**settings(url, None))) as client:
            ask = client.chat.completions.with_streaming_response.create
            async with ask(model=MODEL, messages=ASKED, stream=True, **options) as response:
                assert await response.text() == page
            await scene.settled()
            [end] = scene.ends
            assert (end.usage, scene.notices) == ((Usage(40, 3), []) if "id" in page else (None, ["unreadable_answer"]))


async def test_what_comes_after_the_end_is_not_of_the_answer() -> None:
    more = events(ASKED_USAGE).replace(b'"prompt_tokens": 40', b'"prompt_tokens": 99')
    await check(lambda asked: ([events(asked) + more], {}), **ASKED_USAGE)


BROKEN = gzip.compress(events({}))[:40] + b"\x00\xff" * 40


@pytest.mark.parametrize("options", [{}, ASKED_USAGE], ids=["silent", "asks"])
async def test_an_encoding_that_is_broken_fails_as_it_does_without_us(options: Any) -> None:
    with serving(lambda _: ([BROKEN], {"content-encoding": "gzip"})) as url:
        async with MeterScene.open() as scene:
            async with AsyncOpenAI(**settings(url, None)) as bare, meter(AsyncOpenAI(**settings(url, None))) as client:
                for each in (bare, client):
                    with pytest.raises(APIConnectionError):
                        await hear(each, **options)
            await scene.settled()
            [end] = scene.ends
            assert (end.provenance, end.error_type) == (Provenance.UNKNOWN, "APIConnectionError")


async def test_whoever_reads_what_is_encoded_need_not_know_that_it_is_broken() -> None:
    with serving(lambda _: ([BROKEN], {"content-encoding": "gzip"})) as url:
        async with MeterScene.open() as scene, meter(AsyncOpenAI(**settings(url, None))) as client:
            ask = client.chat.completions.with_streaming_response.create
            async with ask(model=MODEL, messages=ASKED, stream=True, **ASKED_USAGE) as response:
                assert b"".join([data async for data in response.http_response.aiter_raw()]) == BROKEN
            await scene.settled()
            [end] = scene.ends
            assert (end.provenance, end.error_type) == (Provenance.UNKNOWN, "APIConnectionError")


@pytest.mark.parametrize("options", [{}, ASKED_USAGE], ids=["silent", "asks"])
@pytest.mark.parametrize("encoding", PACKED)
async def test_the_older_http_library_is_served_as_well(encoding: str, options: Any) -> None:
    def answer(asked: Any) -> tuple[Sequence[bytes], dict[str, str]]:
        return cut(PACKED[encoding](events(asked)), 13), {"content-encoding": encoding}

    await check(answer, httpx.AsyncClient, **options)
    with serving(answer) as url:
        async with MeterScene.open() as scene:
            client = meter(OpenAI(**settings(url, httpx.Client())))
            with OpenAI(**settings(url, httpx.Client())) as bare:
                expected = hear_here(bare, **options)
            assert hear_here(client, **options) == expected
            client.close()
            await scene.settled()
            check_counted(scene)


@pytest.mark.parametrize("options", [{}, ASKED_USAGE], ids=["silent", "asks"])
@pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)
async def test_an_answer_that_was_read_before_its_caller_is_as_the_caller_asked(library: Any, options: Any) -> None:
    async def read(response: Any) -> None:
        await response.aread()
        assert response.text

    def make() -> Any:
        return library.AsyncClient(event_hooks={"response": [read]})

    await check(lambda asked: (cut(gzip.compress(events(asked)), 13), {"content-encoding": "gzip"}), make, **options)


async def test_an_answer_that_a_transport_makes_up_is_as_the_caller_asked() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        head = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=head, content=events(json.loads(request.content)))

    async with MeterScene.open() as scene:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        client = meter(AsyncOpenAI(**settings("https://api.openai.com/v1", http)))
        assert len(await hear(client)) == 4
        await client.close()
        await scene.settled()
        check_counted(scene)
