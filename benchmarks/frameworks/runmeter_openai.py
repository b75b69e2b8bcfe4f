# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What a run costs: Runmeter's OpenAI patterns, in an engine that keeps statistics and prices what was used.

Written as its guide advises: one engine and one instance of each pattern are shared by all runs. Turn and tool round
are `openai_function_calling`, the hand-off is `openai_multi_agent` and the stream `openai_streaming`, handed out by
`engine.stream`. There is no OpenAI pattern for a chain or a fan-out: the steps of the chain are runs in a row, the
parts of the fan-out runs at once by `engine.map`. "instant turn" is a function as a pattern, which awaits a plain
function and records its usage as a request to a model.

Switched off: that answers are streamed where they are not handed out in pieces, since the others ask for them at once
(`stream_responses=False`). Statistics and costs are always on; spans and metrics are off by default (see
`runmeter_all_sinks`). That a plain function tool runs in a thread is the default too. A pattern makes its client
itself; only the HTTP client below it is replaced.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from worker import Bench, serve


def load() -> Bench:  # noqa: C901 - a function for each case
    import stub
    from hosting import Host

    from runmeter import Delta, Engine, ModelRequest, Usage, current_execution
    from runmeter.patterns import (
        Agent,
        OpenAIFunctionCallingPattern,
        OpenAIMultiAgentConfig,
        OpenAIMultiAgentPattern,
        OpenAIPatternConfig,
        OpenAIStreamingPattern,
    )

    llm = stub.Stub()
    where = {"stream_responses": False, **stub.Stub.settings()}

    def get_weather(city: str) -> str:
        return stub.WEATHER

    get_weather.__doc__ = stub.WEATHER_TOOL
    config = OpenAIPatternConfig(openai_model=stub.MODEL, **where)
    assistant = OpenAIFunctionCallingPattern(config)
    forecaster = OpenAIFunctionCallingPattern(config, [get_weather])
    streamer = OpenAIStreamingPattern(config)
    triage = Agent(name="triage", instructions=stub.TRIAGE, handoffs=("billing",))
    billing = Agent(name="billing", description="Bills.", instructions=stub.BILLING, handoffs=())
    desk = OpenAIMultiAgentPattern(OpenAIMultiAgentConfig(openai_model=stub.MODEL, agents=(triage, billing), **where))

    @asynccontextmanager
    async def engine_over_stub() -> AsyncIterator[Any]:
        async with assistant, forecaster, streamer, desk, Engine() as engine:
            for pattern in (assistant, forecaster, streamer, desk):
                pattern.clients.get()._client = llm.http_client()  # noqa: SLF001 - a pattern makes its client itself
            yield engine

    host = Host(engine_over_stub)

    async def one_turn(engine: Engine) -> str:
        return (await engine.run(assistant, stub.QUESTION)).content

    async def tool_round(engine: Engine) -> str:
        return (await engine.run(forecaster, stub.WEATHER_QUESTION)).content

    async def chain(engine: Engine) -> str:
        answer = ""
        for step in stub.STEPS:
            answer = (await engine.run(assistant, step.format(answer=answer))).content
        return answer

    async def fan_out(engine: Engine) -> str:
        results = await engine.map(assistant, stub.PARTS, concurrency=len(stub.PARTS))
        return "\n".join(result.content for result in results)

    async def hand_off(engine: Engine) -> str:
        return (await engine.run(desk, stub.BILLING_QUESTION)).content

    async def stream(engine: Engine) -> str:
        text = ""
        async with engine.stream(streamer, stub.QUESTION) as run:
            async for item in run:
                if isinstance(item, Delta):
                    text += item.text
        return text

    async def answer(question: str) -> str:
        return stub.ANSWER

    async def instant(messages: str, context: object) -> str:
        with current_execution().model_call(ModelRequest(provider="openai", model=stub.MODEL)) as call:
            text = await answer(messages)
            call.record(Usage(input_tokens=40, output_tokens=50))
        return text

    async def instant_turn(engine: Engine) -> str:
        return (await engine.run(instant, stub.QUESTION)).content

    runs = {
        "one turn": one_turn,
        "tool round": tool_round,
        "three-step chain": chain,
        "eight-way fan-out": fan_out,
        "handoff": hand_off,
        "50-chunk stream": stream,
        "instant turn": instant_turn,
    }
    cases = {name: host.in_a_row(run) for name, run in runs.items()}
    cases |= {f"{number} runs at once": host.at_once(one_turn, number) for number in (10, 100, 1000)}
    return Bench(cases, asked=llm.asked, close=host.close)


if __name__ == "__main__":
    serve(load, ["runmeter", "openai"])
