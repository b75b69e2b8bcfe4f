# /// script
# requires-python = ">=3.11"
# dependencies = ["pydantic-ai-slim[openai]==2.68.0", "openai==3.54.0"]
# ///
"""What a run costs: Pydantic AI.

Written as its guide advises: agents and model are made once and shared by all runs; the steps of a chain and the parts
of a fan-out are runs of their own; the hand-off is an output function that runs the other agent with the messages so
far; deltas are streamed without debouncing, as the caller is to get each one. "instant turn" has its `FunctionModel` in
the place of `OpenAIResponsesModel`, and reports usage itself, so that none is estimated.

Switched off: the client's retries, as in every peer. It is not instrumented by default. All else is as by default. That
includes pricing each response that it knows the model of, and running a plain function tool in a thread, which takes a
little more CPU than a coroutine function would.
"""

from worker import Bench, at_once, in_a_row, serve


def load() -> Bench:  # noqa: C901 - a function for each case
    import asyncio

    import stub
    from pydantic_ai import Agent, ModelMessage, ModelResponse, RequestUsage, RunContext, TextPart, Tool, ToolOutput
    from pydantic_ai.models.function import AgentInfo, FunctionModel
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    llm = stub.Stub()
    client = llm.client()
    model = OpenAIResponsesModel(stub.MODEL, provider=OpenAIProvider(openai_client=client))
    assistant = Agent(model, name="assistant")

    async def ask(prompt: str) -> str:
        return (await assistant.run(prompt)).output

    async def one_turn() -> str:
        return await ask(stub.QUESTION)

    def get_weather(city: str) -> str:
        return stub.WEATHER

    forecaster = Agent(model, name="forecaster", tools=[Tool(get_weather, description=stub.WEATHER_TOOL)])

    async def tool_round() -> str:
        return (await forecaster.run(stub.WEATHER_QUESTION)).output

    async def chain() -> str:
        answer = ""
        for step in stub.STEPS:
            answer = await ask(step.format(answer=answer))
        return answer

    async def fan_out() -> str:
        return "\n".join(await asyncio.gather(*[ask(part) for part in stub.PARTS]))

    billing = Agent(model, name="billing", instructions=stub.BILLING)

    async def transfer_to_billing(ctx: RunContext) -> str:
        """Hand the user over to billing."""
        # The last message is the call of this function, which is not for the other agent.
        return (await billing.run(message_history=ctx.messages[:-1], usage=ctx.usage)).output

    hand_over = ToolOutput(transfer_to_billing, name="transfer_to_billing")
    triage = Agent(model, name="triage", instructions=stub.TRIAGE, output_type=[hand_over, str])

    async def hand_off() -> str:
        return (await triage.run(stub.BILLING_QUESTION)).output

    async def stream() -> str:
        text = ""
        async with assistant.run_stream(stub.QUESTION) as result:
            async for delta in result.stream_text(delta=True, debounce_by=None):
                text += delta
        return text

    async def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[TextPart(stub.ANSWER)], usage=RequestUsage(input_tokens=40, output_tokens=50))

    understudy = Agent(FunctionModel(respond), name="assistant")

    async def instant_turn() -> str:
        return (await understudy.run(stub.QUESTION)).output

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


if __name__ == "__main__":
    serve(load, ["pydantic-ai-slim", "openai"])
