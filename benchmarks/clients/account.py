"""A simulator, an engine and a metered client, and the check that what is told equals the simulator's own account.

The scripts beside this one are what their frameworks' guides show, and nothing in them is for Runmeter: the client that
they are handed is metered, in one line, here. From a clone, each in an environment of its own:

    uv run --with '.[simulator]' benchmarks/clients/openai_agents.py
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from openai import AsyncOpenAI

from runmeter import Engine, meter
from runmeter.simulator import Fault, Simulator


def check(work: Callable[[AsyncOpenAI], Awaitable[None]]) -> None:
    """Have a framework do its work, and again where its client must try twice: exit 1 if that is told wrongly."""
    sys.exit(0 if asyncio.run(_is_right(work)) else 1)


async def _is_right(work: Callable[[AsyncOpenAI], Awaitable[None]]) -> bool:
    simulator = Simulator()
    async with simulator as url, Engine() as engine:
        client = meter(AsyncOpenAI(base_url=url, api_key="sk-simulated", max_retries=1))
        await work(client)
        simulator.inject(Fault("rate_limit", retry_after=0.01))
        await work(client)
        await client.close()
        usage, account = engine.usage(), simulator.statistics()
        print(usage)
        told = usage.total.usage, usage.total.requests
        billed = account.total, sum(account.requests.values())
        print(f"told {told[1]} requests, {told[0].total_tokens} tokens; billed {billed[1]}, {billed[0].total_tokens}")
        return told == billed
