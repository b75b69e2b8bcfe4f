# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What a run costs: Runmeter with all that it can be told to keep: statistics, costs, spans and metrics.

Two cases of `runmeter_openai`, done the same way, but that the engine has telemetry: each run and each request becomes
an OpenTelemetry span and its metrics. Spans go through the SDK's batch processor to an exporter that drops them, so
what sending them takes is not in it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from worker import Bench, serve


def load() -> Bench:
    import stub
    from hosting import Host
    from metering.sinks import SpanSink, runmeter_telemetry

    from runmeter import Engine, ModelRequest, Usage, current_execution
    from runmeter.patterns import OpenAIFunctionCallingPattern, OpenAIPatternConfig

    llm = stub.Stub()
    config = OpenAIPatternConfig(openai_model=stub.MODEL, stream_responses=False, **llm.settings())
    assistant = OpenAIFunctionCallingPattern(config)

    sink = SpanSink()
    telemetry = runmeter_telemetry(sink)
    assert telemetry.tracer_provider is not None
    exported = sink.settle(telemetry.tracer_provider.force_flush, spans_per_call=2)  # the run's, and the call's

    @asynccontextmanager
    async def engine_over_stub() -> AsyncIterator[Any]:
        async with assistant, Engine(telemetry=telemetry) as engine:
            assistant.clients.get()._client = llm.http_client()  # noqa: SLF001 - a pattern makes its client itself
            yield engine

    async def one_turn(engine: Engine) -> str:
        return (await engine.run(assistant, stub.QUESTION)).content

    async def answer(question: str) -> str:
        return stub.ANSWER

    async def instant(messages: str, context: object) -> str:
        with current_execution().model_call(ModelRequest(provider="openai", model=stub.MODEL)) as call:
            text = await answer(messages)
            call.record(Usage(input_tokens=40, output_tokens=50))
        return text

    async def instant_turn(engine: Engine) -> str:
        return (await engine.run(instant, stub.QUESTION)).content

    host = Host(engine_over_stub, exported)
    cases = {"one turn": host.in_a_row(one_turn), "instant turn": host.in_a_row(instant_turn)}
    return Bench(cases, asked=llm.asked, close=host.close)


if __name__ == "__main__":
    serve(load, ["runmeter", "openai", "opentelemetry-sdk"])
