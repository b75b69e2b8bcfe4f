"""Requests to the Responses API: what each used, and how that is known, however it ended."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import openai
import pytest
from answer_support import event_stream, served_by
from openai.types.responses import Response
from pattern_support import KEY, Run, at_once
from time_support import passing, until

from runmeter.engine import ModelCallStarted, ModelRequest, Provenance, Usage
from runmeter.patterns import ResponseFailed, RetryPolicy
from runmeter.patterns.openai.responses.metered import MeteredResponses
from runmeter.patterns.openai.responses.usage import record_response
from runmeter.patterns.openai_client.clients import Clients
from runmeter.patterns.requests.finish import finish_reason_of
from runmeter.patterns.requests.usage import Reading, read_usage
from runmeter.simulator import Fault, Reply, Simulator

PARAMS: dict[str, Any] = {"model": "gpt-6-luna", "input": "Where is parcel AB-1? It was due on Monday, and it is late."}
TEXT = "It is in Berlin, where it waits for the customs officer to come back from a very long lunch."


class Service:
    """The simulator, and metered requests to it."""

    def __init__(self, simulator: Simulator, clients: Clients) -> None:
        self.simulator = simulator
        self.clients = clients

    def metered(self, *, retries: int = 2, timeout: float = 30, estimate: bool = True) -> MeteredResponses:
        policy = RetryPolicy(max_retries=retries, sleep=at_once)
        return MeteredResponses(self.clients, policy, timeout=timeout, estimate=estimate)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    simulator = Simulator()
    async with simulator as url:
        clients = Clients(KEY, url, timeout=30)
        yield Service(simulator, clients)
        await clients.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_usage_is_what_was_billed(service: Service, stream: bool) -> None:
    run = Run()
    long = "The parcel is late. " * 400
    with run():
        for text in (long, long + "Why?"):
            params = {**PARAMS, "input": text, "reasoning": {"effort": "low"}, "service_tier": "priority"}
            response = await service.metered().create(params, stream=stream)
    billed = service.simulator.statistics().total
    assert run.reported == billed
    assert billed.cache_read_tokens > 0
    assert billed.cache_write_tokens > 0
    assert billed.reasoning_tokens > 0
    last = run.requests[-1]
    assert (last.response_id, last.response_model) == (response.id, "gpt-6-luna")
    assert last.service_tier == "priority"
    assert last.finish_reasons == ("stop",)
    assert last.error_type is None
    assert (last.first_chunk_ns is not None) is stream
    started = run.of(ModelCallStarted)[-1]
    assert (started.stream, started.api, started.service_tier) == (stream, "responses", "priority")
    assert (started.server_address, started.server_port) == ("127.0.0.1", service.clients.get().base_url.port)


async def test_caches_for_twelve_hours_are_told_apart(service: Service) -> None:
    run = Run()
    with run():
        await service.metered().create(
            {**PARAMS, "input": "The parcel is late. " * 400, "prompt_cache_options": {"ttl": "12h"}}
        )
    assert run.reported.cache_write_12h_tokens == run.reported.cache_write_tokens > 0
    assert run.reported == service.simulator.statistics().total


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_cut_off_is_an_answer(service: Service, stream: bool) -> None:
    service.simulator.script(Reply(TEXT))
    run = Run()
    with run():
        response = await service.metered().create({**PARAMS, "max_output_tokens": 16}, stream=stream)
    assert response.status == "incomplete"
    assert run.requests[0].finish_reasons == ("length",)
    assert run.reported == service.simulator.statistics().total


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "attempts", "error", "provenance"),
    [
        (Fault("rate_limit", times=9), 3, "rate_limit_exceeded", Provenance.REPORTED),
        (Fault("insufficient_quota", times=9), 1, "insufficient_quota", Provenance.REPORTED),
        (Fault("server_error", times=9), 3, "InternalServerError", Provenance.UNKNOWN),
        (Fault("unavailable", times=9), 3, "InternalServerError", Provenance.UNKNOWN),
        (Fault("drop", times=9), 3, "APIConnectionError", Provenance.UNKNOWN),
        (Fault("failed", times=9, after_events=0), 3, "server_error", Provenance.UNKNOWN),
    ],
)
async def test_every_attempt_is_an_event_of_its_own(
    service: Service, fault: Fault, attempts: int, error: str, provenance: Provenance, stream: bool
) -> None:
    service.simulator.inject(fault)
    run = Run()
    with pytest.raises((openai.APIError, ResponseFailed)), run():
        await service.metered().create(PARAMS, stream=stream)
    assert [request.attempt for request in run.requests] == list(range(1, attempts + 1))
    for request in run.requests:
        assert request.error_type == error
        assert request.provenance is provenance
        assert request.usage == (Usage() if provenance is Provenance.REPORTED else None)
    assert service.simulator.statistics().total == Usage()


async def test_what_passes_is_not_seen_by_the_caller(service: Service) -> None:
    service.simulator.inject(Fault("server_error"), Fault("rate_limit"))
    run = Run()
    with run():
        response = await service.metered().create(PARAMS)
    assert response.status == "completed"
    assert [request.error_type for request in run.requests] == ["InternalServerError", "rate_limit_exceeded", None]
    assert run.reported == service.simulator.statistics().total


CUTS = [
    ("stream_end", "stream_cut"),
    ("stream_cut", "APIConnectionError"),
    ("stream_error", "server_error"),
    ("stream_error_nested", "server_error"),
    ("failed", "server_error"),
]


@pytest.mark.parametrize(("kind", "error"), CUTS)
async def test_a_stream_that_breaks_off_used_what_came_unless_the_api_says_it_failed(
    service: Service, kind: Any, error: str
) -> None:
    service.simulator.script(*[Reply(TEXT)] * 2)
    service.simulator.inject(Fault(kind, after_events=7))
    run = Run()
    with run():
        response = await service.metered().create(PARAMS, stream=True)
    assert response.output_text == TEXT, "nobody had seen a piece of it, so it was tried again"
    cut, whole = run.requests
    assert cut.error_type == error
    assert cut.provenance is (Provenance.PARTIAL if kind in ("stream_end", "stream_cut") else Provenance.UNKNOWN)
    if cut.usage is not None:
        assert 0 < cut.usage.output_tokens <= whole.usage.output_tokens  # type: ignore[union-attr] # it was reported
    assert cut.finish_reasons == ("error",)
    assert cut.response_id
    assert whole.provenance is Provenance.REPORTED


@pytest.mark.parametrize(("kind", "error"), CUTS)
async def test_a_stream_that_breaks_off_before_anything_came_is_unknown(
    service: Service, kind: Any, error: str
) -> None:
    service.simulator.inject(Fault(kind, after_events=2))
    run = Run()
    with pytest.raises((openai.APIError, ResponseFailed)), run():
        await service.metered(retries=0).create(PARAMS, stream=True)
    [request] = run.requests
    assert (request.provenance, request.error_type) == (Provenance.UNKNOWN, error)


@pytest.mark.parametrize(("kind", "error"), CUTS)
async def test_what_was_handed_out_is_not_repeated(service: Service, kind: Any, error: str) -> None:
    seen: list[str] = []

    async def delta(text: str) -> None:
        seen.append(text)

    service.simulator.script(Reply(TEXT))
    service.simulator.inject(Fault(kind, after_events=7))
    run = Run(delta=delta)
    with pytest.raises((openai.APIError, ResponseFailed)), run():
        await service.metered().create(PARAMS, stream=True)
    assert [request.error_type for request in run.requests] == [error]
    assert "".join(seen)
    assert TEXT.startswith("".join(seen))


async def test_deltas_join_to_the_text(service: Service) -> None:
    seen: list[str] = []

    async def delta(text: str) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(text)

    service.simulator.script(Reply(TEXT))
    run = Run(delta=delta)
    with run():
        response = await service.metered().create(PARAMS, stream=True)
    assert "".join(seen) == response.output_text == TEXT
    assert len(seen) > 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_attempt_that_takes_too_long_is_tried_again(service: Service, stream: bool) -> None:
    service.simulator.inject(Fault("latency", seconds=3600))
    run = Run()
    async with passing(30, whenever=lambda: service.simulator.statistics().faults):
        with run():
            response = await service.metered(timeout=30).create(PARAMS, stream=stream)
    assert response.status == "completed"
    late, whole = run.requests
    assert (late.error_type, late.provenance) == ("request_timeout", Provenance.UNKNOWN)
    assert whole.error_type is None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_request_has_an_end(service: Service, stream: bool) -> None:
    service.simulator.script(Reply(TEXT))
    service.simulator.inject(Fault("latency", seconds=0 if stream else 3600, between_chunks=0.01))
    scope = anyio.CancelScope()

    async def delta(_: str) -> None:
        scope.cancel()

    async def cancel_once_it_has_arrived() -> None:
        await until(lambda: service.simulator.statistics().requests)
        scope.cancel()

    run = Run(delta=delta)
    with scope, run():
        async with anyio.create_task_group() as tasks:
            if not stream:
                tasks.start_soon(cancel_once_it_has_arrived)
            await service.metered().create(PARAMS, stream=stream)
    [request] = run.requests
    assert request.error_type in ("CancelledError", "Cancelled")
    assert request.provenance is (Provenance.PARTIAL if stream else Provenance.UNKNOWN)


async def test_whoever_stops_listening_leaves_nothing_open(service: Service) -> None:
    async def delta(text: str) -> None:
        raise EOFError(text)

    service.simulator.script(Reply(TEXT))
    run = Run(delta=delta)
    with pytest.raises(EOFError), run():
        await service.metered().create(PARAMS, stream=True)
    [request] = run.requests
    assert (request.error_type, request.provenance) == ("EOFError", Provenance.PARTIAL)


COMPLETED: dict[str, Any] = {
    "type": "response.completed",
    "sequence_number": 0,
    "response": {
        "id": "resp_1",
        "object": "response",
        "model": "gpt-6-luna",
        "status": "completed",
        "output": [],
        "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
    },
}


@pytest.mark.parametrize("end", ["lost", "cancelled"])
async def test_once_the_answer_is_complete_its_usage_is_known_whatever_comes(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    complete = anyio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"event: response.completed\ndata: " + json.dumps(COMPLETED).encode() + b"\n\n"
        complete.set()
        if end == "lost":
            raise httpx2.ReadError("gone")
        await anyio.sleep_forever()

    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=5)
    served_by(monkeypatch, clients, chunks())
    metered = MeteredResponses(clients, RetryPolicy(max_retries=0), timeout=5, estimate=False)
    run = Run()
    with anyio.CancelScope() as scope, run():
        async with anyio.create_task_group() as tasks:

            async def cancel_when_complete() -> None:
                await complete.wait()
                scope.cancel()

            if end == "cancelled":
                tasks.start_soon(cancel_when_complete)
            response = await metered.create(PARAMS, stream=True)
            assert response.id == "resp_1"
    await clients.aclose()
    [request] = run.requests
    assert (request.provenance, request.usage) == (Provenance.REPORTED, Usage(3, 2))
    assert request.response_id == "resp_1"
    assert bool(request.error_type) is (end == "cancelled")


# What the API may leave out


def response_of(**fields: Any) -> Response:
    return Response.construct(None, **{"id": "resp_1", "model": "m", "status": "completed", "output": [], **fields})


def usage_of(response: Response) -> Usage | None:
    return read_usage(response).usage


def test_every_part_of_the_usage_may_be_missing() -> None:
    assert usage_of(response_of()) is None
    for usage in ({}, {"input_tokens": 3}, {"input_tokens": None, "output_tokens": None}):
        assert usage_of(response_of(usage=usage)) is None, "what is not reported is not nothing"
    assert usage_of(response_of(usage={"input_tokens": 3, "input_tokens_details": None, "output_tokens": 2})) == Usage(
        3, 2
    )


@pytest.mark.parametrize("total", [{"cache_write_tokens": 7}, {}])
def test_cache_writes_are_what_they_are_for_both_lifetimes(total: dict[str, int]) -> None:
    lifetimes = {"cache_write_tokens_details": {"ttl_30m_tokens": 4, "ttl_12h_tokens": 3}}
    usage = {"input_tokens": 10, "output_tokens": 2, "input_tokens_details": {**total, **lifetimes}}
    assert usage_of(response_of(usage=usage)) == Usage(10, 2, cache_write_tokens=7, cache_write_12h_tokens=3)


@pytest.mark.parametrize(
    ("images", "provenance"),
    [
        ({"input_tokens": 9, "output_tokens": 700}, Provenance.PARTIAL),
        ({"input_tokens": 0, "output_tokens": 0}, Provenance.REPORTED),
        (None, Provenance.REPORTED),
    ],
)
def test_what_another_model_used_for_images_makes_the_rest_a_lower_bound(
    images: dict[str, int] | None, provenance: Provenance
) -> None:
    run = Run()
    tool_usage = {"image_gen": images, "web_search": {"num_requests": 0}}
    response = response_of(usage={"input_tokens": 3, "output_tokens": 2}, tool_usage=tool_usage)
    with run() as execution, execution.model_call(ModelRequest(provider="openai", model="m")) as call:
        record_response(call, response)
    [request] = run.requests
    assert (request.provenance, request.usage) == (provenance, Usage(3, 2))


def test_searches_are_counted() -> None:
    output = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "web_search_call", "id": "ws_2", "status": "completed", "action": {"type": "open_page", "url": "x"}},
        {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": []},
    ]
    usage = usage_of(response_of(usage={"input_tokens": 1, "output_tokens": 1}, output=output))
    assert usage is not None
    assert (usage.web_searches, usage.file_searches) == (1, 1)
    counted = {"web_search": {"num_requests": 5}, "image_gen": {"input_tokens": 0}}
    usage = usage_of(response_of(usage={"input_tokens": 1, "output_tokens": 1}, output=output, tool_usage=counted))
    assert usage is not None
    assert usage.web_searches == 5, "what the API counted counts"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "stop"),
        ({"output": [{"type": "function_call", "name": "f", "arguments": "", "call_id": "c"}]}, "tool_calls"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete"}, "length"),
        ({"status": "failed"}, "error"),
    ],
)
def test_why_an_answer_ended(fields: dict[str, Any], reason: str) -> None:
    assert finish_reason_of(response_of(**fields)) == reason


@pytest.mark.parametrize(
    ("estimate", "more", "provenance"),
    [
        (True, {}, Provenance.ESTIMATED),
        (False, {}, Provenance.UNKNOWN),
        (True, {"previous_response_id": "resp_0"}, Provenance.UNKNOWN),
    ],
)
async def test_what_is_not_reported_may_be_counted_here(
    service: Service, monkeypatch: pytest.MonkeyPatch, estimate: bool, more: dict[str, str], provenance: Provenance
) -> None:
    run = Run()
    with run():
        if more:
            first = await service.metered().create({**PARAMS, "store": True})
            more = {"previous_response_id": first.id}
        monkeypatch.setattr("runmeter.patterns.openai.responses.usage.read_usage", lambda _: Reading())
        response = await service.metered(estimate=estimate).create({**PARAMS, **more})
    last = run.requests[-1]
    assert last.provenance is provenance
    assert last.response_id == response.id
    if provenance is Provenance.ESTIMATED:
        assert last.usage == service.simulator.statistics().total, "the simulator counts by the same rules"


# What servers send in place of an answer


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({"error": {"code": "model_not_loaded", "message": "Load it first."}}, "Load it first"),
        ({"error": "Load it first."}, "Load it first"),
        ({"choices": []}, "not a response of the Responses API"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_no_answer_is_said_in_the_servers_words(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], complaint: str, stream: bool
) -> None:
    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=5)
    response = httpx2.Response(200, json=answer)
    monkeypatch.setattr(
        clients.get(), "_client", httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: response))
    )
    with pytest.raises(ResponseFailed, match=complaint), Run()():
        await MeteredResponses(clients, RetryPolicy(), timeout=5, estimate=False).create(PARAMS, stream=stream)
    await clients.aclose()


@pytest.mark.parametrize("output", [None, [{"type": "message", "id": "m", "role": "assistant", "content": None}]])
@pytest.mark.parametrize("stream", [False, True])
async def test_null_in_place_of_a_list_is_an_empty_one(
    monkeypatch: pytest.MonkeyPatch, stream: bool, output: list[Any] | None
) -> None:
    answer: dict[str, Any] = {**COMPLETED["response"], "output": output}
    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=5)
    if stream:
        event = {"type": "response.completed", "sequence_number": 0, "response": answer}
        served_by(monkeypatch, clients, event_stream(event))
    else:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=answer))
        monkeypatch.setattr(clients.get(), "_client", httpx2.AsyncClient(transport=transport))
    with Run()():
        response = await MeteredResponses(clients, RetryPolicy(), timeout=5, estimate=True).create(
            PARAMS, stream=stream
        )
    await clients.aclose()
    assert response.output_text == ""


@pytest.mark.parametrize("retries", [0, 1])
async def test_a_request_of_a_client_closed_before_it_left_goes_over_a_new_one(service: Service, retries: int) -> None:
    await service.clients.get().close()
    closed = service.clients.get()

    async def close_first(options: Any) -> Any:
        await closed.close()
        return options

    closed._prepare_options = close_first  # type: ignore[method-assign] # the last that is awaited before sending
    run = Run()
    if retries:
        with run():
            response = await service.metered(retries=retries).create(PARAMS)
        assert response.status == "completed"
    else:
        with pytest.raises(ResponseFailed, match="aclose"), run():
            await service.metered(retries=retries).create(PARAMS)
    first = run.requests[0]
    assert (first.error_type, first.provenance, first.usage) == ("client_closed", Provenance.REPORTED, Usage())
    assert len(run.requests) == 1 + retries


def delta_of(text: str | None) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": 0, "sequence_number": 0, "delta": text}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"type": "error", "error": "out of memory"}, "out of memory"),
        ({"type": "error", "message": "out of memory"}, "out of memory"),
        ({"error": {"code": ["odd"], "message": "out of memory"}}, "out of memory"),
        ({"error": "out of memory"}, "out of memory"),
    ],
)
async def test_an_error_in_a_stream_is_said_whatever_its_shape(
    monkeypatch: pytest.MonkeyPatch, data: dict[str, Any], complaint: str
) -> None:
    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=5)
    served_by(monkeypatch, clients, f"data: {json.dumps(data)}\n\n".encode())
    policy = RetryPolicy(max_retries=1, sleep=at_once)
    with pytest.raises(ResponseFailed, match=complaint), Run()():
        await MeteredResponses(clients, policy, timeout=5, estimate=False).create(PARAMS, stream=True)
    await clients.aclose()


@pytest.mark.parametrize(
    ("kind", "deltas", "usage"),
    [
        ("output_text", ["It", "", None, " is"], Usage(0, 2)),
        ("refusal", ["No"], Usage(0, 1)),
        ("function_call_arguments", ["{", "}"], Usage(0, 2)),
        ("custom_tool_call_input", ["a"], Usage(0, 1)),
        ("reasoning_text", ["Hm"], Usage(0, 1)),
        ("reasoning_summary_text", ["I thought hard."], None),
        ("output_text", [""], None),
    ],
)
async def test_of_a_cut_stream_counts_what_is_certain(
    monkeypatch: pytest.MonkeyPatch, kind: str, deltas: list[str | None], usage: Usage | None
) -> None:
    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=5)
    events = [{**delta_of(delta), "type": f"response.{kind}.delta"} for delta in deltas]
    served_by(monkeypatch, clients, event_stream(*events))
    run = Run()
    with pytest.raises(ResponseFailed), run():
        await MeteredResponses(clients, RetryPolicy(max_retries=0), timeout=5, estimate=True).create(
            PARAMS, stream=True
        )
    await clients.aclose()
    [request] = run.requests
    assert request.usage == usage
    assert request.provenance is (Provenance.UNKNOWN if usage is None else Provenance.PARTIAL)
    assert request.bound is not None


async def test_an_answer_that_is_complete_stays_so_whatever_is_said_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=5)
    late = {"type": "error", "code": "server_error", "message": "too late", "sequence_number": 1}
    served_by(monkeypatch, clients, event_stream(delta_of(None), COMPLETED, late))
    run = Run()
    with run():
        await MeteredResponses(clients, RetryPolicy(), timeout=5, estimate=False).create(PARAMS, stream=True)
    await clients.aclose()
    assert [(request.error_type, request.usage) for request in run.requests] == [(None, Usage(3, 2))]


async def test_a_stream_that_stays_open_after_its_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield event_stream(COMPLETED)
        await anyio.sleep_forever()

    monkeypatch.setattr("runmeter.patterns.openai.responses.stream._CLOSE_GRACE", 0.05)
    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=60)
    served_by(monkeypatch, clients, chunks())
    run = Run()
    with run():
        await MeteredResponses(clients, RetryPolicy(), timeout=60, estimate=False).create(PARAMS, stream=True)
    await clients.aclose()
    assert [(request.error_type, request.usage) for request in run.requests] == [(None, Usage(3, 2))]


# A server that does not stream, though it is asked to


def message(text: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": content, **fields}


async def test_an_answer_that_comes_at_once_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    async def delta(text: str) -> None:
        heard.append(text)

    output = [message("Let me see.", phase="commentary"), message("In Berlin."), message("")]
    answer = httpx2.Response(200, json={**COMPLETED["response"], "output": output})
    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=5)
    transport = httpx2.MockTransport(lambda _: answer)
    monkeypatch.setattr(clients.get(), "_client", httpx2.AsyncClient(transport=transport))
    run = Run(delta=delta)
    with run():
        response = await MeteredResponses(clients, RetryPolicy(), timeout=5, estimate=False).create(PARAMS, stream=True)
    await clients.aclose()
    assert response.output_text == "Let me see.In Berlin."
    assert heard == ["In Berlin."]
    [request] = run.requests
    assert (request.provenance, request.usage, request.first_chunk_ns) == (Provenance.REPORTED, Usage(3, 2), None)
    assert answer.is_closed


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (httpx2.ReadError("gone"), openai.APIConnectionError),
        (httpx2.ReadTimeout("late"), openai.APITimeoutError),
        (None, ResponseFailed),
    ],
)
async def test_an_answer_that_comes_at_once_may_break_off(
    monkeypatch: pytest.MonkeyPatch, end: Exception | None, error: type[Exception]
) -> None:
    attempts: list[httpx2.Response] = []

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"id": "resp_1", '
        if end is not None:
            raise end

    def respond(request: httpx2.Request) -> httpx2.Response:
        attempts.append(httpx2.Response(200, headers={"content-type": "application/json"}, content=chunks()))
        return attempts[-1]

    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=5)
    transport = httpx2.MockTransport(respond)
    monkeypatch.setattr(clients.get(), "_client", httpx2.AsyncClient(transport=transport))
    run = Run()
    with pytest.raises(error), run():
        policy = RetryPolicy(max_retries=1, sleep=at_once)
        await MeteredResponses(clients, policy, timeout=5, estimate=False).create(PARAMS, stream=True)
    await clients.aclose()
    assert len(attempts) == (1 if end is None else 2), "a lost connection may pass"
    assert all(attempt.is_closed for attempt in attempts)
    assert {request.provenance for request in run.requests} == {Provenance.UNKNOWN}
