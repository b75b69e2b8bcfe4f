"""What the tests of usage share: a server that answers with any shape of it, and every way there is to ask it."""

import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, TypeAlias

import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from runmeter.engine import Engine, Tokenizer, Usage
from runmeter.patterns import (
    AugmentedLLMPattern,
    MeteringHandler,
    OpenAIFunctionCallingPattern,
    OpenAIPatternConfig,
    OpenAIStreamingPattern,
    PatternConfig,
)

MODEL = "gpt-4.1-mini"
"""USD 0.40, 0.10 (cached) and 1.60 a million tokens."""
TEXT = "Lyon it is."
PIECES = ("Lyon", " it", " is.")


class Shape(NamedTuple):
    """What a server says of one request for `TEXT`, and what is right."""

    read: Any
    written: Any
    total: Any = None
    cached: Any = None
    reasoning: Any = None
    usage: Usage | None = None
    """None: nothing was reported."""
    low: str | None = None
    """USD; None where it is estimated."""
    high: str | None = None
    """Where it is another amount."""
    conflict: str | None = None
    """A field that the contradiction names."""
    repeated: bool = False
    """In streams of Chat Completions it comes as running totals, with each chunk."""
    finish: bool = True
    """Whether a plain answer says why it ended."""
    bare: bool = False
    """In streams of Chat Completions there is no usage at all."""

    def said(self, read: str, written: str) -> dict[str, Any]:
        """The usage, by an API's names."""
        said = {f"{read}_tokens": self.read, f"{written}_tokens": self.written, "total_tokens": self.total}
        if self.cached is not None:
            said[f"{read}_tokens_details"] = {"cached_tokens": self.cached}
        if self.reasoning is not None:
            said[f"{written}_tokens_details"] = {"reasoning_tokens": self.reasoning}
        return {name: value for name, value in said.items() if value is not None or name != "total_tokens"}


class Server:
    """Answers requests to the Responses API and Chat Completions, with one shape of usage."""

    def __init__(self) -> None:
        self.shape = Shape(100, 20, 120)
        self.requests = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.requests += 1
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                make = server.response if self.path.endswith("/responses") else server.completion
                stream = bool(body.get("stream"))
                kind, content = "text/event-stream" if stream else "application/json", make(stream)
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def response(self, stream: bool) -> bytes:
        part = {"type": "output_text", "text": TEXT, "annotations": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        answer: dict[str, Any] = {"id": "resp_1", "object": "response", "created_at": 1, "model": MODEL}
        answer |= {"status": "completed" if self.shape.finish else None, "output": [item], "error": None}
        answer |= {"usage": self.shape.said("input", "output"), "tools": [], "parallel_tool_calls": True}
        if not stream:
            return json.dumps(answer).encode()
        begun = {**answer, "status": "in_progress", "output": [], "usage": None}
        events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        events += [{"type": "response.output_text.delta", "delta": piece, **place} for piece in PIECES]
        events += [{"type": "response.completed", "response": {**answer, "status": "completed"}}]
        numbered = ({**event, "sequence_number": number} for number, event in enumerate(events))
        return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in numbered)

    def completion(self, stream: bool) -> bytes:
        usage, answer = self.shape.said("prompt", "completion"), {"id": "chatcmpl-1", "created": 1, "model": MODEL}
        if not stream:
            reason = "stop" if self.shape.finish else None
            choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": reason}
            return json.dumps({**answer, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        deltas: list[tuple[Any, ...]] = [(piece, None) for piece in PIECES] + [("", "stop")]
        chunks: list[dict[str, Any]] = []
        for number, (piece, reason) in enumerate(deltas):
            sofar = {**usage, "completion_tokens": min(number * 7, 20)} if self.shape.repeated else None
            choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": reason}]
            chunks.append({"choices": choices, "usage": sofar})
        if not self.shape.bare:
            chunks.append({"choices": [], "usage": usage})
        lines = (json.dumps({**answer, "object": "chat.completion.chunk", **chunk}) for chunk in chunks)
        return "".join(f"data: {line}\n\n" for line in (*lines, "[DONE]")).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    Tokenizer(MODEL).count_text("The vocabulary is in memory, so that there is time for a bound.")
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


Ask: TypeAlias = Callable[[Engine, str, Any], Awaitable[Any]]


def chat_model(url: str, http: Any, **settings: Any) -> ChatOpenAI:
    key = SecretStr("sk-1")
    return ChatOpenAI(model=MODEL, base_url=url, api_key=key, max_retries=0, http_async_client=http, **settings)


def openai_pattern(kind: Any) -> Ask:
    async def ask(engine: Engine, url: str, http: Any) -> Any:
        config = OpenAIPatternConfig(openai_model=MODEL, base_url=url, api_key="sk-1", openai_max_tokens=100)
        async with kind(config) as pattern:
            return await engine.run(pattern, "Where is it?")

    return ask


def graph_pattern(**settings: Any) -> Ask:
    async def ask(engine: Engine, url: str, http: Any) -> Any:
        model = chat_model(url, http, max_completion_tokens=100, **settings)
        async with AugmentedLLMPattern(PatternConfig(), model=model) as pattern:
            return await engine.run(pattern, "Where is it?")

    return ask


def handler(*, streams: bool = False, **settings: Any) -> Ask:
    async def ask(engine: Engine, url: str, http: Any) -> Any:
        async def run(messages: Any, context: Any) -> str:
            model = chat_model(url, http, max_completion_tokens=100, **settings)
            with MeteringHandler() as meter:
                if streams:
                    chunks = [chunk async for chunk in model.astream("Where is it?", {"callbacks": [meter]})]
                    return "".join(str(chunk.text) for chunk in chunks)
                return str((await model.ainvoke("Where is it?", {"callbacks": [meter]})).text)

        return await engine.run(run, "")

    return ask


CHAT, RESPONSES = {"use_responses_api": False}, {"use_responses_api": True}
WAYS: dict[str, Ask] = {
    "responses": openai_pattern(OpenAIFunctionCallingPattern),
    "responses, streamed": openai_pattern(OpenAIStreamingPattern),
    "chat, graph": graph_pattern(**CHAT),
    "chat, graph, streamed": graph_pattern(**CHAT, streaming=True, stream_usage=True),
    "responses, graph": graph_pattern(**RESPONSES),
    "chat, handler": handler(**CHAT),
    "chat, handler, streamed": handler(**CHAT, streams=True, stream_usage=True),
    "responses, handler": handler(**RESPONSES),
    "responses, handler, streamed": handler(**RESPONSES, streams=True),
}
