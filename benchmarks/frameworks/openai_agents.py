# /// script
# requires-python = ">=3.11"
# dependencies = ["openai-agents==0.24.0", "openai==3.54.0"]
# ///
"""What a run costs: OpenAI Agents SDK.

Written as its guide advises: agents, model and run configuration are made once and shared by all runs, since an agent
holds nothing of a run; the steps of a chain and the parts of a fan-out are runs of their own; the hand-off is the SDK's
`handoffs`, and streaming its `Runner.run_streamed`. The model is given as an object, so no run looks it up by name.
"instant turn" has a `Model` of its own in the place of `OpenAIResponsesModel`.

Switched off: the client's retries and the SDK's tracing, as in every peer. All else is as by default. That includes
running a plain function tool in a thread, which takes a little more CPU than a coroutine function would.
"""

from typing import Any

from worker import Bench, at_once, in_a_row, serve


def load() -> Bench:  # noqa: C901 - a function for each case
    import asyncio

    import stub
    from agents import Agent, OpenAIResponsesModel, RunConfig, Runner, function_tool

    llm = stub.Stub()
    client = llm.client()
    model = OpenAIResponsesModel(stub.MODEL, client)
    config = RunConfig(tracing_disabled=True)

    async def ask(agent: Agent, prompt: str) -> str:
        return (await Runner.run(agent, prompt, run_config=config)).final_output

    assistant = Agent(name="assistant", model=model)

    async def one_turn() -> str:
        return await ask(assistant, stub.QUESTION)

    @function_tool(description_override=stub.WEATHER_TOOL)
    def get_weather(city: str) -> str:
        return stub.WEATHER

    forecaster = Agent(name="forecaster", model=model, tools=[get_weather])

    async def tool_round() -> str:
        return await ask(forecaster, stub.WEATHER_QUESTION)

    async def chain() -> str:
        answer = ""
        for step in stub.STEPS:
            answer = await ask(assistant, step.format(answer=answer))
        return answer

    async def fan_out() -> str:
        return "\n".join(await asyncio.gather(*[ask(assistant, part) for part in stub.PARTS]))

    billing = Agent(name="billing", instructions=stub.BILLING, model=model)
    triage = Agent(name="triage", instructions=stub.TRIAGE, model=model, handoffs=[billing])

    async def hand_off() -> str:
        return await ask(triage, stub.BILLING_QUESTION)

    async def stream() -> str:
        text = ""
        async for event in Runner.run_streamed(assistant, stub.QUESTION, run_config=config).stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                text += event.data.delta
        return text

    understudy = Agent(name="assistant", model=_instant_model(stub.ANSWER))

    async def instant_turn() -> str:
        return await ask(understudy, stub.QUESTION)

    runs = {
        "one turn": one_turn,
        "tool round": tool_round,
        "three-step chain": chain,
        "eight-way fan-out": fan_out,
        "handoff": hand_off,
        "50-chunk stream": stream,
        "instant turn": instant_turn,
    }
    cases = {name: in_a_row(run) for name, run in runs.items()}
    cases |= {f"{number} runs at once": at_once(one_turn, number) for number in (10, 100, 1000)}
    return Bench(cases, asked=llm.asked, close=client.close)


def _instant_model(answer: str) -> Any:
    from agents import Model, ModelResponse, Usage
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText

    text = ResponseOutputText(type="output_text", text=answer, annotations=[])
    message = ResponseOutputMessage(type="message", id="msg_1", role="assistant", status="completed", content=[text])

    class Instant(Model):
        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            usage = Usage(requests=1, input_tokens=40, output_tokens=50, total_tokens=90)
            return ModelResponse(output=[message], usage=usage, response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("the instant turn is not streamed")

    return Instant()


if __name__ == "__main__":
    serve(load, ["openai-agents", "openai"])
