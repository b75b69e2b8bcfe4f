"""The simulator misbehaving on command, seen through the real client."""

from typing import Any

import anyio
import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from simulator_support import connect
from time_support import passing

from runmeter.simulator import Fault, Reply, Simulator

MODEL = "gpt-6-luna"


async def ask(client: AsyncOpenAI, api: str = "responses", **settings: Any) -> Any:
    if api == "responses":
        return await client.responses.create(model=MODEL, input="The sky is grey today.", **settings)
    messages: list[Any] = [{"role": "user", "content": "The sky is grey today."}]
    return await client.chat.completions.create(model=MODEL, messages=messages, **settings)


async def read(stream: Any) -> tuple[list[Any], Exception | None]:
    """A stream's events, and the error it ended with."""
    events = []
    try:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - what came before an error matters
    except openai.APIError as error:
        return events, error
    return events, None


# --- Errors instead of an answer ---


@pytest.mark.parametrize(
    ("kind", "error", "code"),
    [
        ("rate_limit", openai.RateLimitError, "rate_limit_exceeded"),
        ("insufficient_quota", openai.RateLimitError, "insufficient_quota"),
        ("server_error", openai.InternalServerError, None),
        ("unavailable", openai.InternalServerError, None),
        ("context_length", openai.BadRequestError, "context_length_exceeded"),
        ("wrong_key", openai.AuthenticationError, "invalid_api_key"),
        ("drop", openai.APIConnectionError, None),
    ],
)
async def test_errors_are_the_clients_own_and_cost_nothing(
    simulator: Simulator, client: AsyncOpenAI, kind: Any, error: type[openai.APIError], code: str | None
) -> None:
    simulator.inject(Fault(kind, times=4))
    for api in ("responses", "chat"):
        for stream in (False, True):
            with pytest.raises(error) as caught:
                await ask(client, api, stream=stream)
            assert caught.value.code == code
    statistics = simulator.statistics()
    assert (statistics.faults, dict(statistics.usage), statistics.tool_calls) == (4, {}, 0)
    await ask(client)  # four times was asked for, four times it was
    assert simulator.statistics().usage[MODEL].output_tokens > 0


async def test_status_codes_and_retry_after(simulator: Simulator) -> None:
    faults: list[tuple[Any, int]] = [
        ("rate_limit", 429),
        ("insufficient_quota", 429),
        ("server_error", 500),
        ("unavailable", 503),
    ]
    simulator.inject(*(Fault(kind, retry_after=1.2) for kind, _ in faults))
    async with httpx2.AsyncClient(headers={"authorization": "Bearer sk"}) as http:
        answers = [await http.get(f"{simulator.url}/models") for _ in faults]
    assert [answer.status_code for answer in answers] == [status for _, status in faults]
    assert answers[0].headers["retry-after"] == "2"
    assert answers[0].headers["retry-after-ms"] == "1200"
    assert "retry-after" not in answers[1].headers


async def test_the_client_retries_a_rate_limit_after_the_time_told(simulator: Simulator) -> None:
    simulator.inject(Fault("rate_limit", times=2, retry_after=0.01))
    async with connect(simulator.url, max_retries=2) as client:
        assert (await ask(client)).status == "completed"
    assert simulator.statistics().requests == {"POST /responses": 3}
    assert simulator.statistics().faults == 2


# --- Latency ---


async def test_latency_is_before_the_answer_and_before_each_event(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("latency", seconds=0.1))
    started = anyio.current_time()
    await ask(client)
    assert anyio.current_time() - started >= 0.1

    simulator.inject(Fault("latency", seconds=0, between_chunks=0.01))
    started = anyio.current_time()
    events, error = await read(await ask(client, stream=True))
    assert error is None
    assert anyio.current_time() - started >= 0.01 * len(events)
    assert simulator.statistics().faults == 2


async def test_a_plain_answer_nobody_waited_for_is_billed_in_full(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("latency", seconds=3600))
    async with passing(30, whenever=lambda: len(simulator.statistics().usage)):
        with pytest.raises(openai.APITimeoutError):
            await ask(client, timeout=30)
    lost = simulator.statistics().usage[MODEL]
    await ask(client)
    assert simulator.statistics().usage[MODEL] == lost + lost


async def test_latency_and_an_answers_fault_may_meet(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("incomplete"), Fault("latency", seconds=0.05))
    started = anyio.current_time()
    assert (await ask(client)).status == "incomplete"
    assert anyio.current_time() - started >= 0.05
    assert simulator.statistics().faults == 1  # one request was hit


# --- Streams that end badly ---


async def test_a_stream_that_just_ends(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.script(Reply("word " * 100))
    simulator.inject(Fault("stream_end", after_events=6))
    events, error = await read(await ask(client, stream=True))
    assert error is None
    assert [event.type for event in events][-2:] == ["response.output_text.delta"] * 2
    assert len(events) == 6
    usage = simulator.statistics().usage[MODEL]
    assert usage.output_tokens == 8  # two deltas
    retrieved = await client.responses.retrieve(events[0].response.id)
    assert retrieved.status == "cancelled"
    assert retrieved.usage is not None
    assert retrieved.usage.output_tokens == 8


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_a_stream_whose_connection_breaks(simulator: Simulator, client: AsyncOpenAI, api: str) -> None:
    simulator.script(Reply("word " * 100))
    simulator.inject(Fault("stream_cut", after_events=6))
    events, error = await read(await ask(client, api, stream=True))
    assert isinstance(error, openai.APIConnectionError)
    assert len(events) == 6
    assert 0 < simulator.statistics().usage[MODEL].output_tokens < 100


async def test_a_flat_error_event_is_an_event(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("stream_error", after_events=2))
    events, error = await read(await ask(client, stream=True))
    assert error is None
    assert [event.type for event in events] == ["response.created", "response.in_progress", "error"]
    assert (events[2].code, events[2].sequence_number) == ("server_error", 2)
    assert simulator.statistics().usage == {}
    assert (await client.responses.retrieve(events[0].response.id)).status == "failed"


# openai 3.54 leaves a generator open when it raises in the middle of a stream, and trio says so.
ASYNCIO_ONLY = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@ASYNCIO_ONLY
async def test_a_nested_error_event_is_raised(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("stream_error_nested", after_events=2))
    events, error = await read(await ask(client, stream=True))
    assert type(error) is openai.APIError
    assert error.code == "server_error"
    assert len(events) == 2
    assert simulator.statistics().usage == {}


@ASYNCIO_ONLY
@pytest.mark.parametrize("kind", ["stream_error", "stream_error_nested"])
async def test_chat_completions_know_nested_errors_only(simulator: Simulator, client: AsyncOpenAI, kind: Any) -> None:
    simulator.inject(Fault(kind))
    events, error = await read(await ask(client, "chat", stream=True))
    assert type(error) is openai.APIError
    assert len(events) == 3
    assert simulator.statistics().usage == {}


async def test_the_last_event_never_passes(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("stream_end", after_events=1_000))
    events, _ = await read(await ask(client, stream=True))
    assert events[-1].type == "response.output_item.done"
    assert simulator.statistics().faults == 1


async def test_a_plain_request_leaves_a_streams_fault_waiting(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("stream_error"))
    assert (await ask(client)).status == "completed"
    assert simulator.statistics().faults == 0
    events, _ = await read(await ask(client, stream=True))
    assert events[-1].type == "error"


# --- Responses that failed or were cut ---


async def test_a_failed_response(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("failed", times=2))
    plain = await ask(client)
    assert (plain.status, plain.error.code, plain.usage, plain.output) == ("failed", "server_error", None, [])
    events, error = await read(await ask(client, stream=True))
    assert error is None
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"
    assert simulator.statistics().usage == {}
    assert (await client.responses.retrieve(plain.id)).status == "failed"


async def test_an_incomplete_answer(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.script(*[Reply("word " * 100)] * 3)
    simulator.inject(Fault("incomplete", times=3))
    plain = await ask(client)
    assert plain.status == "incomplete"
    events, _ = await read(await ask(client, stream=True))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == plain.output_text
    chat = await ask(client, "chat")
    assert chat.choices[0].finish_reason == "length"
    assert chat.usage.completion_tokens == plain.usage.output_tokens == 50
    assert simulator.statistics().usage[MODEL].output_tokens == 150


# --- Which requests are hit ---


async def test_a_fault_for_one_endpoint_spares_the_others(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("server_error", endpoint="/chat/completions", times=None))
    await ask(client)
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            await ask(client, "chat")
    assert simulator.statistics().faults == 3


async def test_faults_come_in_order(client: AsyncOpenAI, simulator: Simulator) -> None:
    simulator.inject(Fault("server_error", times=2), Fault("rate_limit"), Fault("drop", times=0))
    seen = []
    for _ in range(4):
        try:
            await ask(client)
            seen.append("ok")
        except openai.APIError as error:
            seen.append(type(error).__name__)
    assert seen == ["InternalServerError", "InternalServerError", "RateLimitError", "ok"]


async def test_it_recovers_when_told(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault("server_error", times=None))
    with pytest.raises(openai.InternalServerError):
        await ask(client)
    simulator.recover()
    assert (await ask(client)).status == "completed"


async def test_a_header_asks_for_a_fault(simulator: Simulator, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        await ask(client, extra_headers={"X-Simulate": "rate_limit; retry_after=0.5"})
    assert caught.value.response.headers["retry-after-ms"] == "500"
    stream = await ask(client, stream=True, extra_headers={"X-Simulate": "stream_error; after_events=1"})
    events, _ = await read(stream)
    assert [event.type for event in events] == ["response.created", "error"]
    assert simulator.statistics().faults == 2
    await ask(client)


@pytest.mark.parametrize(
    "value",
    [
        "no_such_fault",
        "latency; seconds=soon",
        "latency; second=1",
        "latency; seconds=-1",
        "stream_cut",
        "rate_limit; retry_after=nan",
    ],
)
async def test_a_header_that_makes_no_sense_is_refused(simulator: Simulator, client: AsyncOpenAI, value: str) -> None:
    with pytest.raises(openai.BadRequestError, match="X-Simulate"):
        await ask(client, extra_headers={"X-Simulate": value})
    assert simulator.statistics().faults == 0


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"kind": "rate_limits"}, "unknown fault 'rate_limits': one of latency, rate_limit,"),
        ({"kind": "drop", "endpoint": "/v1/responses"}, "unknown endpoint '/v1/responses': one of /responses,"),
        ({"kind": "drop", "times": -1}, "cannot be negative"),
        ({"kind": "rate_limit", "retry_after": float("nan")}, "must be finite"),
        ({"kind": "latency", "seconds": float("inf")}, "must be finite"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Fault(**settings)
