"""Telemetry keeps up with whatever runs at once: every event becomes a span, and none is dropped on the way."""

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from telemetry_support import no_variables

from runmeter.engine import Engine, ModelRequest, SubscriberStatistics, Usage, current_execution
from runmeter.patterns import OpenAIFunctionCallingPattern, OpenAIPatternConfig
from runmeter.simulator import Simulator
from runmeter.telemetry import OpenTelemetry, configure

__all__ = ["no_variables"]


class Counter(SpanProcessor):
    """Where the spans go."""

    spans = 0

    def on_end(self, span: ReadableSpan) -> None:
        self.spans += 1


class Kept:
    """An application's telemetry, and how far it ever was behind."""

    def __init__(self) -> None:
        self.counter = Counter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.counter)
        self.telemetry: OpenTelemetry = configure(
            tracer_provider=provider, meter_provider=MeterProvider(shutdown_on_exit=False)
        )
        self.furthest = 0

    def watch(self, engine: Engine) -> Callable[[int, int | None], None]:
        """Look how far telemetry is behind, as a map's progress."""

        def look(done: int, total: int | None) -> None:
            self.furthest = max(self.furthest, account_of(engine).pending)

        return look


def account_of(engine: Engine) -> SubscriberStatistics:
    (account,) = [each for each in engine.statistics().bus.subscribers if each.name == "telemetry"]
    return account


@pytest.fixture
def kept(no_variables: None) -> Kept:
    return Kept()


@pytest.mark.parametrize("runs", [1_000, pytest.param(60_000, marks=pytest.mark.campaign)])
async def test_functions_a_hundred_at_a_time(kept: Kept, runs: int) -> None:
    request = ModelRequest(provider="openai", model="gpt-6-luna")

    async def ask(messages: int, context: Any) -> None:
        with current_execution().model_call(request) as call:
            await anyio.lowlevel.checkpoint()
            call.record(Usage(40, 50))

    async with Engine(telemetry=kept.telemetry) as engine:
        await engine.map(ask, range(runs), concurrency=100, progress=kept.watch(engine))
    account = account_of(engine)
    assert (account.published, account.delivered, account.dropped) == (4 * runs, 4 * runs, 0)
    assert kept.counter.spans == 2 * runs
    assert kept.furthest < 10_000, "a second of work at the most"


@pytest.mark.parametrize(("runs", "at_once"), [(60, 40), pytest.param(1_500, 1_000, marks=pytest.mark.campaign)])
async def test_requests_over_http(kept: Kept, simulator: Simulator, runs: int, at_once: int) -> None:
    config = OpenAIPatternConfig(api_key="sk-simulated", base_url=simulator.url)
    async with OpenAIFunctionCallingPattern(config) as pattern, Engine(telemetry=kept.telemetry) as engine:
        questions = [f"How deep is sea {number}?" for number in range(runs)]
        await engine.map(pattern, questions, concurrency=at_once, progress=kept.watch(engine))
    account = account_of(engine)
    assert (account.published, account.delivered, account.dropped) == (4 * runs, 4 * runs, 0)
    assert kept.counter.spans == 2 * runs
    assert kept.furthest < 10_000, "a second of work at the most"
