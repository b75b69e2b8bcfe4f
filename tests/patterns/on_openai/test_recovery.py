"""Asking the API what an answer used that was cut."""

from collections.abc import AsyncIterator
from typing import Any, Literal

import anyio
import httpx2
import openai
import pytest
from answer_support import event_stream
from pattern_support import KEY, Run
from time_support import advance

from runmeter.engine import Provenance, Usage
from runmeter.patterns import OpenAIFunctionCallingPattern, OpenAIPatternConfig, ResponseFailed, RetryPolicy
from runmeter.patterns.openai.responses import recovery
from runmeter.patterns.openai.responses.metered import MeteredResponses
from runmeter.patterns.openai_client.clients import Clients
from runmeter.simulator import Fault, Reply, Simulator

PARAMS: dict[str, Any] = {"model": "gpt-6-luna", "input": "Where is parcel AB-1?", "store": True}
TEXT = "It is in Berlin, where it waits for the customs officer to come back from a very long lunch."
ASKED = "GET /responses/{id}"

How = Literal["end", "reset", "timeout", "cancelled"]


class Service:
    """The simulator, and metered requests to it."""

    def __init__(self, simulator: Simulator, clients: Clients) -> None:
        self.simulator = simulator
        self.clients = clients

    def metered(self, *, recover: bool = True) -> MeteredResponses:
        return MeteredResponses(self.clients, RetryPolicy(max_retries=0), timeout=30, estimate=True, recover=recover)

    @property
    def asked(self) -> int:
        return self.simulator.statistics().requests.get(ASKED, 0)

    async def cut(self, how: How, params: dict[str, Any], *, recover: bool = True) -> Run:
        """Have a streamed answer cut after some of its text came."""
        scope = anyio.CancelScope()

        async def delta(_: str) -> None:
            if how == "cancelled":
                scope.cancel()
            elif how == "timeout":
                await advance(30)

        self.simulator.script(Reply(TEXT * 4, reasoning_tokens=20))
        if how in ("end", "reset"):
            self.simulator.inject(Fault("stream_end" if how == "end" else "stream_cut", after_events=9))
        else:
            self.simulator.inject(Fault("latency", seconds=0, between_chunks=0.02))
        run = Run(delta=delta)
        with scope:
            try:
                with run():
                    await self.metered(recover=recover).create(params, stream=True)
            except (ResponseFailed, openai.APIError):
                pass
        return run


@pytest.fixture
async def service(simulator: Simulator) -> AsyncIterator[Service]:
    clients = Clients(KEY, simulator.url, timeout=30)
    yield Service(simulator, clients)
    await clients.aclose()


HOW: tuple[How, ...] = ("end", "reset", "timeout", "cancelled")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time enough, also on a machine that is busy."""
    monkeypatch.setattr(recovery, "RECOVERY_LIMIT", 30)
    monkeypatch.setattr(recovery, "_PAUSES", (0.0, 0.4, 1.0, 5.0))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("how", HOW)
async def test_what_a_cut_answer_used_is_asked_of_the_api(service: Service, how: How) -> None:
    run = await service.cut(how, PARAMS)
    [request] = run.requests
    assert request.provenance is Provenance.REPORTED
    assert request.usage == service.simulator.statistics().total
    assert request.bound is None
    assert request.error_type is not None, "it failed all the same"
    assert request.finish_reasons == ("error",)
    assert service.asked


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("off", ["recover", "store"])
async def test_nothing_is_asked_where_that_is_off_or_nothing_is_kept(service: Service, how: How, off: str) -> None:
    run = await service.cut(how, {**PARAMS, "store": off != "store"}, recover=off != "recover")
    [request] = run.requests
    assert request.provenance is Provenance.PARTIAL
    assert request.bound is not None
    assert service.asked == 0


@pytest.mark.usefixtures("patient")
async def test_the_config_asks_for_it(service: Service) -> None:
    service.simulator.script(Reply(TEXT))
    service.simulator.inject(Fault("stream_end", after_events=9))
    config = OpenAIPatternConfig(
        base_url=service.simulator.url, api_key=KEY, store=True, stream_responses=True, recover_usage=True
    )
    run = Run()
    async with OpenAIFunctionCallingPattern(config, retry=RetryPolicy(first_delay=0)) as pattern:
        with run():
            await pattern.execute("Where is it?")
    assert [request.provenance for request in run.requests] == [Provenance.REPORTED] * 2
    assert run.reported == service.simulator.statistics().total


async def test_an_attempt_without_an_id_is_not_asked_about(service: Service) -> None:
    service.simulator.inject(Fault("drop"))
    run = Run()
    with pytest.raises(openai.APIConnectionError), run():
        await service.metered().create(PARAMS, stream=True)
    assert service.asked == 0
    assert run.requests[0].provenance is Provenance.UNKNOWN


@pytest.mark.parametrize("fault", [Fault("server_error", times=None, endpoint="/responses/{id}"), None])
async def test_asking_in_vain_leaves_what_is_known(service: Service, fault: Fault | None) -> None:
    if fault is not None:
        service.simulator.inject(fault)
    else:
        service.simulator.inject(Fault("latency", seconds=3600, endpoint="/responses/{id}"))
    run = await service.cut("reset", PARAMS)
    [request] = run.requests
    assert request.provenance is Provenance.PARTIAL
    assert request.bound is not None
    assert service.asked == 1


async def test_asking_holds_up_a_cancellation_no_longer_than_its_limit(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RECOVERY_LIMIT", 0.05)
    service.simulator.inject(Fault("latency", seconds=3600, endpoint="/responses/{id}"))
    run = await service.cut("cancelled", PARAMS)
    assert run.requests[0].provenance is Provenance.PARTIAL


@pytest.mark.parametrize(
    ("answers", "provenance", "asked"),
    [
        (["in_progress", "completed"], Provenance.REPORTED, 2),
        (["in_progress", "in_progress", "completed"], Provenance.PARTIAL, 2),
        (["incomplete"], Provenance.REPORTED, 1),
        (["cancelled without usage"], Provenance.PARTIAL, 1),
    ],
)
async def test_only_what_has_ended_counts(
    monkeypatch: pytest.MonkeyPatch, answers: list[str], provenance: Provenance, asked: int
) -> None:
    monkeypatch.setattr(recovery, "_PAUSES", (0.0, 0.0))
    usage = {"input_tokens": 30, "output_tokens": 40, "total_tokens": 70}
    gets = 0

    def serve(request: httpx2.Request) -> httpx2.Response:
        nonlocal gets
        if request.method == "POST":
            begun = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
            created = {"type": "response.created", "sequence_number": 0, "response": begun}
            piece = {"type": "response.output_text.delta", "sequence_number": 1, "output_index": 0, "delta": "It"}
            return httpx2.Response(
                200, headers={"content-type": "text/event-stream"}, content=event_stream(created, piece)
            )
        status, *without = answers[gets].split()
        gets += 1
        answer = {"id": "resp_1", "object": "response", "model": "gpt-6-luna", "status": status, "output": []}
        reports = not without and status != "in_progress"
        return httpx2.Response(200, json={**answer, "usage": usage if reports else None})

    clients = Clients(KEY, "http://127.0.0.1:1/v1", timeout=5)
    monkeypatch.setattr(clients.get(), "_client", httpx2.AsyncClient(transport=httpx2.MockTransport(serve)))
    metered = MeteredResponses(clients, RetryPolicy(max_retries=0), timeout=5, estimate=True, recover=True)
    run = Run()
    with pytest.raises(ResponseFailed, match="before the answer was complete"), run():
        await metered.create(PARAMS, stream=True)
    await clients.aclose()
    [request] = run.requests
    assert request.provenance is provenance
    assert request.usage == (Usage(30, 40) if provenance is Provenance.REPORTED else Usage(0, 1))
    assert gets == asked
