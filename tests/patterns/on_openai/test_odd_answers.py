"""Answers of servers that keep half of what the API promises: what they said counts, wherever they said it."""

import json
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from answer_support import event_stream
from pattern_support import KEY, Run

from runmeter.engine import Usage
from runmeter.patterns import OpenAIFunctionCallingPattern, OpenAIPatternConfig
from runmeter.patterns.errors import ResponseFailed
from runmeter.patterns.openai.conversation import OpenAIConversationConfig, OpenAIConversationPattern
from runmeter.patterns.openai.streaming import OpenAIStreamingConfig, OpenAIStreamingPattern

URL = "http://127.0.0.1:1/v1"
USAGE = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Lyon it is.", "annotations": []}],
}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "find", "arguments": '{"number": "AB-1"}'}
EMPTY_MESSAGE = {**MESSAGE, "content": []}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}

Json = dict[str, Any]


async def find(number: str) -> Json:
    """Find a parcel."""
    return {"number": number, "city": "Lyon"}


def response(output: Any, **fields: Any) -> Json:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4.1-mini",
        "status": "completed",
        "output": output,
        "usage": USAGE,
        **fields,
    }


def delta(text: str, item_id: str = "msg_1") -> Json:
    return {"type": "response.output_text.delta", "output_index": 0, "item_id": item_id, "delta": text}


def done(item: Json, index: int = 0) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def added(item: Json, index: int = 0) -> Json:
    return {"type": "response.output_item.added", "output_index": index, "item": {**item, "arguments": ""}}


def arguments(item: Json, end: str = "delta", **fields: Any) -> list[Json]:
    """A call's arguments, in two pieces or as they are at the end."""
    text: str = item["arguments"]
    event = {"type": f"response.function_call_arguments.{end}", "output_index": 0, "item_id": item["id"], **fields}
    if end == "done":
        return [{**event, "arguments": text}]
    return [{**event, "delta": text[:5]}, {**event, "delta": text[5:]}]


def without(name: str, events: Sequence[Json]) -> list[Json]:
    """The same events of a server that leaves this out."""
    return [{key: value for key, value in event.items() if key != name} for event in events]


def stream_of(*events: Json, output: Any = ()) -> httpx2.Response:
    """A stream of these events, with a last one that says this of its output."""
    last = {"type": "response.completed", "response": response(output if output is None else list(output))}
    numbered = [{**event, "sequence_number": number} for number, event in enumerate([*events, last])]
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=event_stream(*numbered))


class Server:
    """Answers each request with the next of some responses, and keeps what it was sent."""

    def __init__(self, *responses: httpx2.Response) -> None:
        self._responses = list(responses)
        self.requests: list[Json] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(json.loads(request.content))
        return self._responses.pop(0)

    def answer(self, monkeypatch: pytest.MonkeyPatch, pattern: Any) -> None:
        """Answer a pattern's requests."""
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self))
        monkeypatch.setattr(pattern.clients.get(), "_client", client)


def message(text: str, message_id: str) -> Json:
    return {**MESSAGE, "id": message_id, "content": [{"type": "output_text", "text": text, "annotations": []}]}


DELTAS = [delta("Lyon"), delta(" it is.")]
SAID: list[tuple[Sequence[Json], Any]] = [
    ([*DELTAS, done(MESSAGE)], []),
    ([*DELTAS, done(MESSAGE)], None),
    ([done(MESSAGE)], []),
    (DELTAS, []),
    ([*DELTAS, done(MESSAGE)], [EMPTY_MESSAGE]),
    ([*DELTAS, done(EMPTY_MESSAGE)], [EMPTY_MESSAGE]),
    ([done(THOUGHT), done(MESSAGE, 1)], [THOUGHT]),
    ([*DELTAS, done(MESSAGE)], [MESSAGE]),
    ([*DELTAS, done({**MESSAGE, "content": "Lyon it is."})], [{**MESSAGE, "content": "Lyon it is."}]),
    ([*DELTAS, done(THOUGHT), done(MESSAGE, 1)], [THOUGHT]),
    ([*without("item_id", DELTAS), done(THOUGHT), done(MESSAGE, 1)], [THOUGHT]),
    ([*without("output_index", DELTAS), done(THOUGHT), done(MESSAGE, 1)], [THOUGHT]),
    ([*without("item_id", without("output_index", DELTAS)), done(THOUGHT), done(MESSAGE, 1)], [THOUGHT]),
    ([done(THOUGHT), *DELTAS], [THOUGHT]),
    ([done(THOUGHT), *DELTAS, done(MESSAGE)], []),
    (without("output_index", [done(THOUGHT), *DELTAS, done(MESSAGE)]), []),
    ([delta("Lyon", "a"), delta(" it is.", "b"), done({**MESSAGE, "id": "c"})], []),
    ([delta("Lyon", "a"), delta(" it is.", "b"), done({**MESSAGE, "id": "c"}, 1)], []),
    ([*DELTAS, done(MESSAGE), done(MESSAGE)], []),
    ([done(message("Lyon", "msg_1")), done(message(" it is.", "msg_2"))], []),
    ([*DELTAS, done(message("Lyon", "msg_2"), 1), done(message(" it is.", "msg_3"), 2)], []),
    ([added(MESSAGE), *DELTAS, {"type": "response.output_item.done", "output_index": 0, "item": None}], []),
]
"""What is said on the way, and the output of the last event."""


@pytest.mark.parametrize(("events", "output"), SAID)
async def test_what_was_said_on_the_way_is_the_answer_where_the_last_event_says_nothing(
    monkeypatch: pytest.MonkeyPatch, events: Sequence[Json], output: Any
) -> None:
    server = Server(stream_of(*events, output=output))
    run = Run()
    async with OpenAIStreamingPattern(OpenAIStreamingConfig(base_url=URL, api_key=KEY)) as pattern:
        server.answer(monkeypatch, pattern)
        with run():
            result = await pattern.execute("Where?")
    assert (result.content, result.finish_reason) == ("Lyon it is.", "stop")
    assert run.reported == Usage(100, 20)


CALLED: list[Sequence[Json]] = [
    [done(CALL)],
    without("output_index", [done(CALL)]),
    [done(CALL), done(CALL)],
    [added(CALL), *without("item_id", arguments(CALL, "done"))],
    [added(CALL), *arguments(CALL)],
    [added(CALL), *without("item_id", without("output_index", arguments(CALL)))],
    [added(CALL), *arguments(CALL), *arguments(CALL, "done"), done(CALL)],
    [added(CALL), *arguments(CALL), done({**CALL, "arguments": ""})],
    [added(CALL), *arguments(CALL, item_id="a"), *arguments(CALL, "done", item_id="b"), done({**CALL, "id": "c"})],
    [done(THOUGHT), added(CALL), *arguments(CALL)],
]


@pytest.mark.parametrize("events", CALLED)
@pytest.mark.parametrize("output", [[], [{**CALL, "arguments": ""}]])
async def test_a_call_that_is_streamed_is_made(
    monkeypatch: pytest.MonkeyPatch, events: Sequence[Json], output: list[Json]
) -> None:
    server = Server(stream_of(*events, output=output), stream_of(done(MESSAGE)))
    config = OpenAIPatternConfig(base_url=URL, api_key=KEY, stream_responses=True)
    run = Run()
    async with OpenAIFunctionCallingPattern(config, [find]) as pattern:
        server.answer(monkeypatch, pattern)
        with run():
            result = await pattern.execute("Where is AB-1?")
    assert result.content == "Lyon it is."
    assert [(call.name, call.error_type) for call in run.calls] == [("find", None)]
    sent = server.requests[1]["input"]
    assert [item["call_id"] for item in sent if "call_id" in item] == ["call_1", "call_1"]


OTHER = {**CALL, "id": "fc_2", "call_id": "call_2", "arguments": '{"number": "AB-2"}'}
BOTH: list[Sequence[Json]] = [
    [done(CALL), done(OTHER)],
    [added(CALL), added(OTHER), done(CALL), done(OTHER)],
    [added(CALL), added(OTHER), *arguments(CALL, "done"), *arguments(OTHER, "done")],
    [added(CALL), *arguments(CALL), added(OTHER), *arguments(OTHER)],
    [added(CALL), *arguments(CALL), *arguments(CALL, "done"), added(OTHER), *arguments(OTHER), done(CALL), done(OTHER)],
    [added(CALL), *arguments(CALL), done(OTHER)],
    [
        added(CALL),
        added(OTHER),
        *arguments(CALL),
        *arguments(CALL, "done"),
        *arguments(OTHER),
        *arguments(OTHER, "done"),
    ],
]
"""Two calls at one index."""
MIXED = [
    added(CALL),
    added(OTHER),
    *(piece for two in zip(arguments(CALL), arguments(OTHER), strict=True) for piece in two),
]


@pytest.mark.parametrize(
    "events",
    [
        *BOTH,
        *(without("output_index", events) for events in BOTH),
        *(without("item_id", events) for events in BOTH),
        *(without("item_id", without("output_index", events)) for events in BOTH),
        [added(CALL), added(OTHER), *arguments(CALL), *arguments(OTHER)],
        MIXED,
        without("output_index", MIXED),
    ],
)
async def test_each_call_that_is_streamed_is_made_though_they_share_an_index(
    monkeypatch: pytest.MonkeyPatch, events: Sequence[Json]
) -> None:
    server = Server(stream_of(*events), stream_of(done(MESSAGE)))
    config = OpenAIPatternConfig(base_url=URL, api_key=KEY, stream_responses=True)
    async with OpenAIFunctionCallingPattern(config, [find]) as pattern:
        server.answer(monkeypatch, pattern)
        with Run()():
            result = await pattern.execute("Where are AB-1 and AB-2?")
    assert result.content == "Lyon it is."
    sent = [item for item in server.requests[1]["input"] if item.get("type") == "function_call_output"]
    assert [(item["call_id"], json.loads(item["output"])["number"]) for item in sent] == [
        ("call_1", "AB-1"),
        ("call_2", "AB-2"),
    ]


@pytest.mark.parametrize(
    "output",
    [
        "text",
        5,
        {"a": 1},
        [None],
        ["text"],
        [{}],
        [MESSAGE, None],
        *([{**MESSAGE, "content": odd}] for odd in (5, [None])),
    ],
)
@pytest.mark.parametrize("form", ["plain", "whole", "streamed"])
async def test_an_answer_whose_items_are_none_is_an_error_and_what_it_used_is_known(
    monkeypatch: pytest.MonkeyPatch, output: Any, form: str
) -> None:
    if form == "streamed":
        last = {"type": "response.completed", "response": response(output), "sequence_number": 2}
        events = event_stream({"type": "response.reasoning_text.delta", "delta": "Hm", "sequence_number": 1}, last)
        server = Server(httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=events))
    else:
        server = Server(httpx2.Response(200, json=response(output)))
    config = OpenAIPatternConfig(base_url=URL, api_key=KEY, stream_responses=form != "plain")
    run = Run()
    async with OpenAIFunctionCallingPattern(config, [find]) as pattern:
        server.answer(monkeypatch, pattern)
        with pytest.raises(ResponseFailed, match="the server's answer is none") as failed, run():
            await pattern.execute("Where?")
    assert failed.value.code == "invalid_response"
    assert run.reported == Usage(100, 20)


async def test_a_conversation_keeps_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(stream_of(*DELTAS), stream_of(*DELTAS, done(THOUGHT), done(MESSAGE, 1), output=[THOUGHT]))
    config = OpenAIConversationConfig(base_url=URL, api_key=KEY, stream_responses=True)
    async with OpenAIConversationPattern(config) as pattern:
        server.answer(monkeypatch, pattern)
        with Run()(conversation_id="c"):
            await pattern.execute("Where?")
        with Run()(conversation_id="c"):
            assert (await pattern.execute("Really?")).content == "Lyon it is."
    assert "Lyon it is." in json.dumps(server.requests[1]["input"])


async def test_a_message_whose_content_is_a_string_has_that_text(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = response([{**MESSAGE, "content": "Lyon it is."}])
    server = Server(httpx2.Response(200, json=answer), httpx2.Response(200, json=answer))
    config = OpenAIPatternConfig(base_url=URL, api_key=KEY)
    async with OpenAIFunctionCallingPattern(config) as pattern:
        server.answer(monkeypatch, pattern)
        with Run()():
            result = await pattern.execute("Where?")
    assert result.content == "Lyon it is."
    assert "Lyon it is." in json.dumps(result.messages)


SAME = {**CALL, "arguments": '{"number": "AB-2"}'}
UNNAMED = {name: value for name, value in CALL.items() if name != "call_id"}


@pytest.mark.parametrize(
    ("output", "ids"),
    [
        ([CALL, SAME], ["call_1", "call_1_2"]),
        ([UNNAMED, {**SAME, "call_id": ""}], ["call_1", "call_2"]),
        ([{**CALL, "call_id": "x" * 65}, {**SAME, "call_id": None}], ["x" * 56 + "_2", "call_1"]),
        ([CALL, {**SAME, "call_id": "call_2"}], ["call_1", "call_2"]),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_each_call_has_an_id_of_its_own(
    monkeypatch: pytest.MonkeyPatch, output: list[Json], ids: list[str], streamed: bool
) -> None:
    again = [{**CALL, "call_id": "call_1"}]
    answers = [output, again, [MESSAGE]]
    if streamed:
        server = Server(*(stream_of(output=each) for each in answers))
    else:
        server = Server(*(httpx2.Response(200, json=response(each)) for each in answers))
    config = OpenAIPatternConfig(base_url=URL, api_key=KEY, stream_responses=streamed)
    run = Run()
    async with OpenAIFunctionCallingPattern(config, [find]) as pattern:
        server.answer(monkeypatch, pattern)
        with run():
            result = await pattern.execute("Where are AB-1 and AB-2?")
    sent = server.requests[2]["input"]
    later = "call_1_2" if "call_1" in ids and "call_1_2" not in ids else "call_1_3"
    made = [item["call_id"] for item in sent if item.get("type") == "function_call"]
    told = [item["call_id"] for item in sent if item.get("type") == "function_call_output"]
    assert made == told == [*ids, later]
    outputs = [json.loads(item["output"])["number"] for item in sent if item.get("type") == "function_call_output"]
    assert outputs == ["AB-1", "AB-2", "AB-1"]
    assert {call.call_id for call in run.calls} == set(made)
    assert [call.call_id for call in result.function_calls] == made
    assert [item for item in result.messages if "call_id" in item] == [item for item in sent if "call_id" in item]


def with_broken_text(kind: str, said: Json) -> httpx2.Response:
    """An answer as bytes, at once or as a stream: half a surrogate pair is written as JSON allows it."""
    if kind == "at once":
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=json.dumps(said).encode())
    events = [done(item, number) for number, item in enumerate(said["output"])]
    events.append({"type": "response.completed", "response": said})
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=event_stream(*numbered))


@pytest.mark.parametrize("kind", ["at once", "stream"])
@pytest.mark.parametrize("pattern_kind", [OpenAIFunctionCallingPattern, OpenAIConversationPattern])
async def test_ids_and_names_that_are_broken_text_are_sent_back_as_text(
    monkeypatch: pytest.MonkeyPatch, kind: str, pattern_kind: Any
) -> None:
    half = "\ud800"
    calls = [{**CALL, "id": f"fc{half}", "call_id": f"call{half}{number}"} for number in "12"]
    calls.append({**CALL, "id": half, "call_id": half, "name": f"find{half}", "arguments": f'{{"number": "{half}"}}'})
    answers = [with_broken_text(kind, response(calls, id=f"resp{half}1", model=f"gpt{half}"))]
    answers.append(with_broken_text(kind, response([{**MESSAGE, "id": half}], id=f"resp{half}2")))
    server = Server(*answers)
    config_kind = OpenAIConversationConfig if pattern_kind is OpenAIConversationPattern else OpenAIPatternConfig
    config = config_kind(base_url=URL, api_key=KEY, stream_responses=kind == "stream")
    run = Run()
    async with pattern_kind(config, tools=[find]) as pattern:
        server.answer(monkeypatch, pattern)
        with run():
            result = await pattern.execute("Where is parcel AB-1?")
    assert result.content == "Lyon it is."
    sent = [item for item in server.requests[1]["input"] if item.get("type") == "function_call"]
    told = [item["call_id"] for item in server.requests[1]["input"] if item.get("type") == "function_call_output"]
    assert [item["call_id"] for item in sent][-len(told) :] == told, "each output is told of its own call"
    assert len(set(told)) == 3
    json.dumps(result.response_id).encode()
    assert str(result.response_id).isascii()
