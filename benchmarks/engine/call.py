"""What all peers of this question share: the same event, request, usage and latencies, as plain values.

It needs Python alone, because every peer's environment has to have what it needs.
"""

import random
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from typing import Any

RUN_ID = "1" * 32
NOW_NS = 1_795_305_600_000_000_000
SECOND_NS = 1_000_000_000
TOOL_CALL: dict[str, Any] = {
    "run_id": RUN_ID,
    "seq": 2,
    "time_ns": NOW_NS,
    "trace": None,
    "name": "get_weather",
    "start_ns": NOW_NS,
    "duration_ns": 1_000_000,
    "call_id": "call_0123456789",
    "error_type": None,
    "error_message": None,
}
"""An event of ten fields, as each tool's work emits it."""

PROVIDER = "openai"
MODEL = "gpt-6.1-terra"
SERVICE_TIER = "default"
INPUT_TOKENS = 100_000
OUTPUT_TOKENS = 2_000
CACHE_READ_TOKENS = 60_000
CACHE_WRITE_TOKENS = 10_000
REASONING_TOKENS = 500

BLOCK = 10_000
"""Events that are kept at once, so that memory does not grow with the number of times."""

REQUEST_ATTRIBUTES: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "runmeter.run.id": RUN_ID,
    "runmeter.pattern": "support",
    "gen_ai.provider.name": PROVIDER,
    "gen_ai.request.model": MODEL,
    "server.address": "api.openai.com",
    "server.port": 443,
    "openai.api.type": "responses",
}
"""What Runmeter's span says of a request before it leaves."""
RESPONSE_ATTRIBUTES: dict[str, Any] = {
    "gen_ai.response.model": MODEL,
    "runmeter.attempt": 1,
    "runmeter.usage.provenance": "reported",
    "runmeter.cost.usd": 0.0555,
    "gen_ai.response.id": "resp_0123456789",
    "openai.response.service_tier": SERVICE_TIER,
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.usage.input_tokens": INPUT_TOKENS,
    "gen_ai.usage.output_tokens": OUTPUT_TOKENS,
    "gen_ai.usage.cache_read.input_tokens": CACHE_READ_TOKENS,
    "gen_ai.usage.cache_write.input_tokens": CACHE_WRITE_TOKENS,
    "gen_ai.usage.reasoning.output_tokens": REASONING_TOKENS,
}
"""What it says of the answer."""
METRIC_ATTRIBUTES: dict[str, Any] = {
    "runmeter.pattern": "support",
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": PROVIDER,
    "gen_ai.request.model": MODEL,
    "gen_ai.response.model": MODEL,
    "server.address": "api.openai.com",
    "server.port": 443,
    "openai.response.service_tier": SERVICE_TIER,
}
"""What Runmeter's measurements of a request say they are about."""
COUNTED: dict[str, float] = {
    "cost": 0.0555,
    "usage.input_tokens": INPUT_TOKENS,
    "usage.output_tokens": OUTPUT_TOKENS,
    "usage.cache_read": CACHE_READ_TOKENS,
    "usage.cache_write": CACHE_WRITE_TOKENS,
    "usage.reasoning": REASONING_TOKENS,
}
"""What Runmeter adds to counters for a request."""
MEASURED: dict[str, float] = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS, "duration": 1.0}
"""What Runmeter records on histograms for a request."""


def latencies() -> list[int]:
    """A thousand durations in ns, most of them around a second: spread as latencies are."""
    chance = random.Random(0)
    return [round(chance.lognormvariate(0, 1) * SECOND_NS) for _ in range(1_000)]


def in_turn(values: Iterable[Any], times: int) -> Iterator[Any]:
    """So many values, beginning anew where they end."""
    return islice(cycle(values), times)


def blocks(times: int, size: int = BLOCK) -> Iterator[int]:
    """Cut a number into blocks."""
    for done in range(0, times, size):
        yield min(size, times - done)
