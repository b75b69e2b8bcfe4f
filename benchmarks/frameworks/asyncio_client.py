# /// script
# requires-python = ">=3.11"
# dependencies = ["openai==3.54.0"]
# ///
"""What a run costs: plain asyncio with the bare client, no framework. The baseline, and what all others are asked for.

One client is made and shared by all runs, as its guide advises. The tool loop and the hand-off are those few lines that
one writes without a framework; a plain function is called where it stands, and not in a thread. "instant turn" awaits a
plain function.

Switched off: the client's retries, as in every peer; there is nothing to retry.
"""

from typing import Any

from worker import Bench, at_once, in_a_row, serve


def load() -> Bench:  # noqa: C901 - a function for each case
    import asyncio
    import json

    import stub

    llm = stub.Stub()
    client = llm.client()

    async def ask(prompt: str) -> str:
        return (await client.responses.create(model=stub.MODEL, input=prompt)).output_text

    async def one_turn() -> str:
        return await ask(stub.QUESTION)

    def get_weather(city: str) -> str:
        return stub.WEATHER

    functions = {"get_weather": get_weather}
    weather_tools = [_tool("get_weather", stub.WEATHER_TOOL, city={"type": "string"})]

    async def tool_round() -> str:
        items: list[Any] = [{"role": "user", "content": stub.WEATHER_QUESTION}]
        while True:
            response = await client.responses.create(model=stub.MODEL, input=items, tools=weather_tools)
            calls = [item for item in response.output if item.type == "function_call"]
            if not calls:
                return response.output_text
            items += response.output
            items += [_output(call, functions[call.name](**json.loads(call.arguments))) for call in calls]

    async def chain() -> str:
        answer = ""
        for step in stub.STEPS:
            answer = await ask(step.format(answer=answer))
        return answer

    async def fan_out() -> str:
        return "\n".join(await asyncio.gather(*[ask(part) for part in stub.PARTS]))

    transfer_tools = [_tool("transfer_to_billing", "Hand the user over to billing.")]

    async def hand_off() -> str:
        items: list[Any] = [{"role": "user", "content": stub.BILLING_QUESTION}]
        response = await client.responses.create(
            model=stub.MODEL, instructions=stub.TRIAGE, input=items, tools=transfer_tools
        )
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return response.output_text
        items += response.output
        items += [_output(call, "Handed over.") for call in calls]
        return (await client.responses.create(model=stub.MODEL, instructions=stub.BILLING, input=items)).output_text

    async def stream() -> str:
        text = ""
        async for event in await client.responses.create(model=stub.MODEL, input=stub.QUESTION, stream=True):
            if event.type == "response.output_text.delta":
                text += event.delta
        return text

    async def answer(question: str) -> str:
        return stub.ANSWER

    async def instant_turn() -> str:
        return await answer(stub.QUESTION)

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


def _tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "name": name, "description": description, "parameters": parameters, "strict": True}


def _output(call: Any, text: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call.call_id, "output": text}


if __name__ == "__main__":
    serve(load, ["openai"])
