# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What metering adds to a call: Runmeter, with its statistics of tokens, cost and latency.

Each call is a run of its own, `await engine.run(...)`, and within it the client's call inside `model_call`, which is
told what the answer says it used: what the documentation recommends for patterns of one's own. A case ends when the
statistics have counted all runs. No content is recorded: Runmeter never does.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from worker import Bench, Work, serve

if TYPE_CHECKING:
    from hosting import Host
    from metering.calls import Settle

    from runmeter import Engine, RunResult
    from runmeter.telemetry import OpenTelemetry

EVENTS = 4
"""Of a run that makes one call: the run starts, the call starts, the call ends, the run ends."""
PAUSE = 0.012
"""Seconds between two looks at the bus: it lets events gather for 10 ms, and looking costs something, too."""


def load(*, telemetry: bool = False, encode: bool = False) -> Bench:
    from hosting import Host
    from metering.patterns import patterns
    from stub import Stub

    from runmeter import Engine

    stub = Stub()
    client = stub.client()
    exporting, exported = _exporting(encode=encode) if telemetry else (None, None)
    host = Host(lambda: Engine(telemetry=exporting))

    async def close() -> None:
        await host.close()
        await client.close()

    cases = {name: _repeated(pattern, host, exported) for name, pattern in patterns(client).items()}
    return Bench(cases, asked=stub.asked, close=close)


def _exporting(*, encode: bool) -> "tuple[OpenTelemetry, Settle]":
    """Spans and metrics, and how to wait for the spans."""
    from metering.sinks import SpanSink, runmeter_telemetry

    sink = SpanSink(encode=encode)
    telemetry = runmeter_telemetry(sink)
    assert telemetry.tracer_provider is not None
    return telemetry, sink.settle(telemetry.tracer_provider.force_flush, spans_per_call=2)  # the run's, and the call's


def _repeated(pattern: Callable[..., Any], host: "Host", exported: "Settle | None") -> Work:
    async def work(times: int) -> None:
        engine = await host.engine()
        before = engine.statistics().bus.published
        for _ in range(times):
            result = await engine.run(pattern, "")
        await _settle(engine, result, before + times * EVENTS)
        if exported is not None:
            await exported(times)

    return work


async def _settle(engine: "Engine", last: "RunResult[Any]", events: int) -> None:
    """Wait until every subscriber has had all events: so many, or the case fails."""
    import asyncio

    from metering.calls import INPUT_TOKENS

    while (bus := engine.statistics().bus) and any(each.pending for each in bus.subscribers):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(PAUSE)
    lost = sum(each.dropped + each.errors for each in bus.subscribers)
    if bus.published != events or lost or last.usage.input_tokens != INPUT_TOKENS:
        raise RuntimeError(f"there should be {events} events, the last run with {INPUT_TOKENS} tokens: {bus}, {last}")


if __name__ == "__main__":
    serve(load, ["runmeter", "openai", "httpx2", "pydantic"])
