"""The model below every framework: an in-memory HTTP transport that answers the `openai` client at once.

No network and no server, so that what is measured is the framework's and the client's own work alone. The answers have
the shape of the real API's, JSON or SSE, and are prepared bytes: only their ids change. (The real API also echoes the
request's instructions and tools in the response; the stub does not.) Events of a stream arrive one by one, as they do
from a server, and each request lets other tasks of the loop go on once before it is answered, so that runs that are
started together are in flight together.

It decides by what it is asked: a tool that it knows (`CALLS`) is called unless the request carries a tool's output;
everything else gets `ANSWER`.

Works with openai from 1.x to 3.54 (2026-11), whose HTTP library is httpx, from 3.x httpx2. Needs nothing else.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from importlib import import_module
from itertools import count
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

MODEL = "gpt-6-luna"
ANSWER = (
    "Honey is made of sugars and water that bees gather as nectar from flowers and then dry in the comb, mostly of "
    "fructose and glucose, with a little sucrose, acids, minerals, enzymes and pollen, which give each kind "
    "its own colour and taste."
)
"""What the model says, whoever asks and whether streamed or not."""
PIECES = tuple(re.findall(r"\s?\w+|[^\w\s]", ANSWER))
"""The answer as the deltas of a stream."""

# What peers say to it, so that all say the same.
QUESTION = "What is honey made of?"
WEATHER_QUESTION = "What is the weather in Paris?"
WEATHER = "Sunny"
"""What the tool `get_weather(city: str)` returns."""
WEATHER_TOOL = "Tell the weather in a city."
"""The tool's description."""
STEPS = (
    "Step 1: Name what honey is made of.",
    "Step 2: Put this in simpler words. {answer}",
    "Step 3: Make a headline of this. {answer}",
)
"""Prompts of the chain: `{answer}` is the one before."""
PARTS = tuple(f"Part {number}: Describe this part of a hive." for number in range(1, 9))
"""Prompts of the fan-out."""
BILLING_QUESTION = "Why was I charged twice?"
TRIAGE = "Hand the user over to the agent who can help."
"""Instructions of the agent `triage`, which may hand over to `billing`."""
BILLING = "Answer questions about bills."
"""Instructions of the agent `billing`."""

CALLS = {
    "get_weather": json.dumps({"city": "Paris"}),
    "transfer_to_billing": "{}",
    "handoff": json.dumps({"to_agent": "billing", "reason": "It is about a bill."}),
}
"""The tools it calls, and with which arguments."""
HANDOFFS = frozenset({"transfer_to_billing", "handoff"})
"""Of these, those that hand over to another agent, by the names that frameworks give them."""

Item: TypeAlias = dict[str, Any]
"""An object of JSON."""

_SERIAL = "0123456789abcdef"
"""Stands for what makes the ids of an answer its own."""
_MARK = _SERIAL.encode()
_HANDOFF_CALL = "call_handoff_"
_CREATED = 1_790_000_000
_INPUT_TOKENS, _CALL_TOKENS = 40, 16
_KEPT_REQUESTS = 10_000


class Stub:
    """A model in memory."""

    def __init__(self) -> None:
        self._asked = deque[_Request](maxlen=_KEPT_REQUESTS)
        self._serials = count(1)
        self._answers: dict[tuple[str | None, str], _Answer] = {}

    def client(self, **settings: Any) -> Any:
        """A new `openai.AsyncOpenAI` that asks this model, and does not retry."""
        from openai import AsyncOpenAI

        return AsyncOpenAI(**{**self.settings(), "max_retries": 0, "http_client": self.http_client(), **settings})

    @staticmethod
    def settings() -> dict[str, Any]:
        """What any client needs besides the HTTP client: `api_key` and `base_url`."""
        return {"api_key": "sk-stub", "base_url": "http://stub.invalid/v1"}

    def http_client(self, library: str | None = None) -> Any:
        """A new `AsyncClient` over `transport()`, made as openai makes its own (redirects followed)."""
        module = http_library(library)
        return module.AsyncClient(transport=self.transport(library), follow_redirects=True, trust_env=False)

    def transport(self, library: str | None = None) -> Any:
        """The transport alone, of the named HTTP library (`httpx` or `httpx2`), by default of the one openai uses."""
        module = http_library(library)

        async def answer(request: Any) -> Any:
            await asyncio.sleep(0)
            return self._answer(module, request)

        return module.MockTransport(answer)

    def asked(self) -> list[dict[str, Any]]:
        """What it was asked since the last time, in order, and without what differs between frameworks for no matter.

        `input` is the last text that the request carries from the user or a tool (what a hand-off's own call returns
        is not that), `tools` the sorted names of the tools it offers (a hand-off's is always `transfer_to_billing`),
        `stream` whether the answer is to be streamed. The last 10,000 requests are kept.
        """
        requests, self._asked = self._asked, deque(maxlen=_KEPT_REQUESTS)
        return [
            {
                "input": request.text,
                "tools": sorted("transfer_to_billing" if name in HANDOFFS else name for name in request.tools),
                "stream": request.stream,
            }
            for request in requests
        ]

    def _answer(self, module: ModuleType, http_request: Any) -> Any:
        path = http_request.url.path
        read = _READERS.get(path)
        if read is None:
            return module.Response(404, json={"error": {"message": f"The stub has no {path}.", "type": "stub"}})
        request = read(json.loads(http_request.content))
        self._asked.append(request)
        answer = self._prepared(request.call(), path)
        serial = b"%016x" % next(self._serials)
        headers = {"x-request-id": f"req_{serial.decode()}", "openai-processing-ms": "1"}
        if not request.stream:
            headers["content-type"] = "application/json"
            return module.Response(200, headers=headers, content=answer.json.replace(_MARK, serial))
        headers["content-type"] = "text/event-stream; charset=utf-8"
        events = answer.events_with_usage if request.include_usage else answer.events
        return module.Response(200, headers=headers, content=_one_by_one(events, serial))

    def _prepared(self, call: str | None, path: str) -> "_Answer":
        answer = self._answers.get((call, path))
        if answer is None:
            answer = self._answers[call, path] = _WRITERS[path](call)
        return answer


def http_library(name: str | None = None) -> ModuleType:
    """The named HTTP library, by default the one that the installed openai derives its default client from."""
    if name is None:
        from openai import DefaultAsyncHttpxClient

        bases = [kind for kind in DefaultAsyncHttpxClient.__mro__ if kind.__name__ == "AsyncClient"]
        name = bases[0].__module__.partition(".")[0]
    return import_module(name)


async def _one_by_one(events: Sequence[bytes], serial: bytes) -> AsyncIterator[bytes]:
    for event in events:
        yield event.replace(_MARK, serial)


# --- What it is asked ---


class _Request(NamedTuple):
    text: str
    tools: tuple[str, ...]
    stream: bool
    include_usage: bool
    has_output: bool

    def call(self) -> str | None:
        """The tool to call, if any."""
        return None if self.has_output else next((name for name in self.tools if name in CALLS), None)


def _read_response(body: dict[str, Any]) -> _Request:
    given = body.get("input") or ""
    items: list[Item] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    outputs = [item for item in items if item.get("type") == "function_call_output"]
    said = [
        item["output"] if "output" in item else item["content"]
        for item in items
        if item.get("role") == "user"
        or (item.get("type") == "function_call_output" and not item["call_id"].startswith(_HANDOFF_CALL))
    ]
    tools = tuple(tool["name"] for tool in body.get("tools") or () if tool["type"] == "function")
    return _Request(_text(said[-1]) if said else "", tools, bool(body.get("stream")), True, bool(outputs))


def _read_chat(body: dict[str, Any]) -> _Request:
    messages: list[Item] = body["messages"]
    outputs = [message for message in messages if message["role"] == "tool"]
    said = [
        message["content"]
        for message in messages
        if message["role"] == "user"
        or (message["role"] == "tool" and not message["tool_call_id"].startswith(_HANDOFF_CALL))
    ]
    tools = tuple(tool["function"]["name"] for tool in body.get("tools") or ())
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    return _Request(_text(said[-1]) if said else "", tools, bool(body.get("stream")), usage, bool(outputs))


def _text(content: str | list[Item]) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


_READERS = {"/v1/responses": _read_response, "/v1/chat/completions": _read_chat}


# --- What it answers ---


class _Answer(NamedTuple):
    json: bytes
    events: tuple[bytes, ...]
    events_with_usage: tuple[bytes, ...]


def _call_id(name: str) -> str:
    return (_HANDOFF_CALL if name in HANDOFFS else "call_") + _SERIAL


def _output_tokens(call: str | None) -> int:
    return len(PIECES) if call is None else _CALL_TOKENS


def _write_response(call: str | None) -> _Answer:
    """Source: openai 3.54.0, `types/responses/` (2026-11); order of events: openai-openapi, 2026-08."""
    item = _message_item() if call is None else _call_item(call)
    draft = _response_object("in_progress", [], None)
    final = _response_object("completed", [item], _output_tokens(call))
    inner = _message_events(item) if call is None else _call_events(item)
    events: list[Item] = [
        {"type": "response.created", "response": draft},
        {"type": "response.in_progress", "response": draft},
        *inner,
        {"type": "response.completed", "response": final},
    ]
    encoded = tuple(
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), _encode({**event, "sequence_number": number}))
        for number, event in enumerate(events)
    )
    return _Answer(_encode(final), encoded, encoded)


_UNSET = (
    *("conversation", "error", "incomplete_details", "instructions", "max_output_tokens", "max_tool_calls"),
    *("previous_response_id", "prompt_cache_key", "prompt_cache_options", "safety_identifier", "user"),
)


def _response_object(status: str, output: list[Item], output_tokens: int | None) -> Item:
    return {
        "id": f"resp_{_SERIAL}",
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "completed_at": None if output_tokens is None else _CREATED,
        **dict.fromkeys(_UNSET),
        "background": False,
        "metadata": {},
        "model": MODEL,
        "output": output,
        "parallel_tool_calls": True,
        "reasoning": {"effort": "none", "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None if output_tokens is None else _response_usage(output_tokens),
    }


def _response_usage(output_tokens: int) -> Item:
    return {
        "input_tokens": _INPUT_TOKENS,
        "input_tokens_details": {
            "cached_tokens": 0,
            "cache_write_tokens": 0,
            "cache_write_tokens_details": {"ttl_30m_tokens": 0, "ttl_12h_tokens": 0},
        },
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": _INPUT_TOKENS + output_tokens,
    }


def _message_item() -> Item:
    content = [{"type": "output_text", "text": ANSWER, "annotations": [], "logprobs": []}]
    return {
        "type": "message",
        "id": f"msg_{_SERIAL}",
        "status": "completed",
        "role": "assistant",
        "phase": "final_answer",
        "content": content,
    }


def _call_item(name: str) -> Item:
    return {
        "type": "function_call",
        "id": f"fc_{_SERIAL}",
        "call_id": _call_id(name),
        "name": name,
        "arguments": CALLS[name],
        "status": "completed",
    }


def _message_events(item: Item) -> Iterator[Item]:
    where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    part = item["content"][0]
    draft = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": draft}
    yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
    for piece in PIECES:
        yield {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **where, "text": ANSWER, "logprobs": []}
    yield {"type": "response.content_part.done", **where, "part": part}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}


def _call_events(item: Item) -> Iterator[Item]:
    where = {"item_id": item["id"], "output_index": 0}
    arguments = item["arguments"]
    draft = {**item, "status": "in_progress", "arguments": ""}
    yield {"type": "response.output_item.added", "output_index": 0, "item": draft}
    for piece in _halves(arguments):
        yield {"type": "response.function_call_arguments.delta", **where, "delta": piece}
    yield {"type": "response.function_call_arguments.done", **where, "name": item["name"], "arguments": arguments}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}


def _write_chat(call: str | None) -> _Answer:
    """Source: openai 3.54.0, `types/chat/` (2026-11)."""
    usage = _chat_usage(_output_tokens(call))
    finish = "stop" if call is None else "tool_calls"
    message: Item = {"role": "assistant", "content": ANSWER, "refusal": None, "annotations": []}
    if call is not None:
        message |= {"content": None, "tool_calls": [_chat_call(call, CALLS[call])]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    plain = {**_chat_object("chat.completion"), "choices": [choice], "usage": usage}
    deltas = [*(_text_deltas() if call is None else _chat_call_deltas(call)), {}]
    chunks = [
        {
            **_chat_object("chat.completion.chunk"),
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None if delta else finish}],
        }
        for delta in deltas
    ]
    last = {**_chat_object("chat.completion.chunk"), "choices": [], "usage": usage}
    with_usage = [*({**chunk, "usage": None} for chunk in chunks), last]
    return _Answer(_encode(plain), _chat_events(chunks), _chat_events(with_usage))


def _chat_object(kind: str) -> Item:
    return {
        "id": f"chatcmpl-{_SERIAL}",
        "object": kind,
        "created": _CREATED,
        "model": MODEL,
        "service_tier": "default",
        "system_fingerprint": None,
    }


_COMPLETION_DETAILS = ("reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens")


def _chat_usage(output_tokens: int) -> Item:
    return {
        "prompt_tokens": _INPUT_TOKENS,
        "completion_tokens": output_tokens,
        "total_tokens": _INPUT_TOKENS + output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": dict.fromkeys(_COMPLETION_DETAILS, 0),
    }


def _chat_call(name: str, arguments: str) -> Item:
    return {"id": _call_id(name), "type": "function", "function": {"name": name, "arguments": arguments}}


def _text_deltas() -> Iterator[Item]:
    yield {"role": "assistant", "content": "", "refusal": None}
    for piece in PIECES:
        yield {"content": piece}


def _chat_call_deltas(name: str) -> Iterator[Item]:
    first = {"index": 0, **_chat_call(name, "")}
    yield {"role": "assistant", "content": None, "refusal": None, "tool_calls": [first]}
    for piece in _halves(CALLS[name]):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _halves(text: str) -> tuple[str, str]:
    middle = len(text) // 2
    return text[:middle], text[middle:]


def _chat_events(chunks: Iterable[Item]) -> tuple[bytes, ...]:
    return (*(b"data: %s\n\n" % _encode(chunk) for chunk in chunks), b"data: [DONE]\n\n")


def _encode(value: Item) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


_WRITERS = {"/v1/responses": _write_response, "/v1/chat/completions": _write_chat}
