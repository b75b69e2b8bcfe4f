# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What metering adds to a call: a client that Runmeter meters, `meter(client)`, and code that is otherwise unchanged.

Each call is an ambient run of one request, as outside `engine.run`, with statistics of tokens, cost and latency.
"""

from typing import TYPE_CHECKING

from worker import Bench, serve

if TYPE_CHECKING:
    from hosting import Host
    from metering.calls import Call
    from worker import Work

    from runmeter import Engine


def load() -> Bench:
    from hosting import Host
    from metering.calls import client_calls
    from stub import Stub

    from runmeter import Engine, meter

    stub = Stub()
    client = meter(stub.client(), provider="openai")
    host = Host(Engine)

    async def close() -> None:
        await host.close()
        await client.close()

    cases = {name: _repeated(call, host) for name, call in client_calls(client).items()}
    return Bench(cases, asked=stub.asked, close=close)


def _repeated(call: "Call", host: "Host") -> "Work":
    async def work(times: int) -> None:
        engine = await host.engine()
        events, tokens = engine.statistics().bus.published, engine.usage().total.usage.input_tokens
        for _ in range(times):
            await call()
        await _settle(engine, events, tokens, times)

    return work


async def _settle(engine: "Engine", events: int, tokens: int, times: int) -> None:
    """Wait until every subscriber has had all events: so many, with so many tokens, or the case fails."""
    import asyncio

    from hosting import PAUSE
    from metering.calls import INPUT_TOKENS
    from metering.runmeter import EVENTS

    while (bus := engine.statistics().bus) and any(each.pending for each in bus.subscribers):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(PAUSE)
    counted = bus.published - events, engine.usage().total.usage.input_tokens - tokens
    if counted != (times * EVENTS, times * INPUT_TOKENS):
        raise RuntimeError(f"there should be {EVENTS} events a call with {INPUT_TOKENS} tokens: {counted}, {bus}")


if __name__ == "__main__":
    serve(load, ["runmeter", "openai", "httpx2", "pydantic"])
