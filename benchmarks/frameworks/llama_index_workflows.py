# /// script
# requires-python = ">=3.11"
# dependencies = ["llama-index-workflows==2.26.1", "openai==3.54.0"]
# ///
"""What a run costs: LlamaIndex Workflows.

Its steps ask the model with the bare `AsyncOpenAI` client, since a workflow engine has no model interface of its own.
That is fairer to it than `llama-index-llms-openai` (0.8.3, 2026-11), which needs openai 2 and llama-index-core: the
figures would then be about another client and another library than the engine's.

Written as its guide advises: a workflow is made once and shared by all runs; events are typed and carry what the next
step needs; a fan-out is a step that returns a list and a step that takes one, with as many workers as parts; deltas go
through the run's event stream. "instant turn" is a step that awaits a plain function.

Switched off: the client's retries, as in every peer. It is not instrumented by default. All else is as by default.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from worker import Bench, at_once, in_a_row, serve

Run = Callable[[], Awaitable[object]]


def load() -> Bench:
    import stub

    llm = stub.Stub()
    client = llm.client()
    one_turn = _one_turn(client)
    runs = {
        "one turn": one_turn,
        "tool round": _tool_round(client),
        "three-step chain": _chain(client),
        "eight-way fan-out": _fan_out(client),
        "handoff": _hand_off(client),
        "50-chunk stream": _stream(client),
        "instant turn": _instant_turn(),
    }
    cases = {name: in_a_row(run) for name, run in runs.items()}
    cases |= {f"{number} runs at once": at_once(one_turn, number) for number in (10, 100, 1000)}
    return Bench(cases, asked=llm.asked, close=client.close)


def _one_turn(client: Any) -> Run:
    import stub
    from workflows import Workflow, step
    from workflows.events import StartEvent, StopEvent

    class Question(StartEvent):
        text: str

    class OneTurn(Workflow):
        @step
        async def ask(self, ev: Question) -> StopEvent:
            response = await client.responses.create(model=stub.MODEL, input=ev.text)
            return StopEvent(result=response.output_text)

    workflow = OneTurn()

    async def run() -> str:
        return await workflow.run(text=stub.QUESTION)

    return run


def _tool_round(client: Any) -> Run:
    import stub
    from workflows import Workflow, step
    from workflows.events import Event, StartEvent, StopEvent

    def get_weather(city: str) -> str:
        return stub.WEATHER

    functions = {"get_weather": get_weather}
    tools = [_tool("get_weather", stub.WEATHER_TOOL, city={"type": "string"})]

    class Question(StartEvent):
        messages: list[Any]

    class Calls(Event):
        messages: list[Any]
        calls: list[Any]

    class Outputs(Event):
        messages: list[Any]

    class ToolRound(Workflow):
        @step
        async def ask(self, ev: Question | Outputs) -> Calls | StopEvent:
            response = await client.responses.create(model=stub.MODEL, input=ev.messages, tools=tools)
            calls = [item for item in response.output if item.type == "function_call"]
            if not calls:
                return StopEvent(result=response.output_text)
            return Calls(messages=[*ev.messages, *response.output], calls=calls)

        @step
        async def call(self, ev: Calls) -> Outputs:
            outputs = [_output(call, functions[call.name](**json.loads(call.arguments))) for call in ev.calls]
            return Outputs(messages=[*ev.messages, *outputs])

    workflow = ToolRound()

    async def run() -> str:
        return await workflow.run(messages=[{"role": "user", "content": stub.WEATHER_QUESTION}])

    return run


def _chain(client: Any) -> Run:
    import stub
    from workflows import Workflow, step
    from workflows.events import Event, StartEvent, StopEvent

    async def ask(number: int, answer: str = "") -> str:
        prompt = stub.STEPS[number].format(answer=answer)
        return (await client.responses.create(model=stub.MODEL, input=prompt)).output_text

    class First(Event):
        answer: str

    class Second(Event):
        answer: str

    class Chain(Workflow):
        @step
        async def first(self, ev: StartEvent) -> First:
            return First(answer=await ask(0))

        @step
        async def second(self, ev: First) -> Second:
            return Second(answer=await ask(1, ev.answer))

        @step
        async def third(self, ev: Second) -> StopEvent:
            return StopEvent(result=await ask(2, ev.answer))

    workflow = Chain()

    async def run() -> str:
        return await workflow.run()

    return run


def _fan_out(client: Any) -> Run:
    import stub
    from workflows import Workflow, step
    from workflows.events import Event, StartEvent, StopEvent

    class Part(Event):
        prompt: str

    class Answer(Event):
        text: str

    class FanOut(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Part]:
            return [Part(prompt=prompt) for prompt in stub.PARTS]

        @step(num_workers=len(stub.PARTS))
        async def ask(self, ev: Part) -> Answer:
            response = await client.responses.create(model=stub.MODEL, input=ev.prompt)
            return Answer(text=response.output_text)

        @step
        async def join(self, answers: list[Answer]) -> StopEvent:
            return StopEvent(result="\n".join(answer.text for answer in answers))

    workflow = FanOut()

    async def run() -> str:
        return await workflow.run()

    return run


def _hand_off(client: Any) -> Run:
    import stub
    from workflows import Workflow, step
    from workflows.events import Event, StartEvent, StopEvent

    tools = [_tool("transfer_to_billing", "Hand the user over to billing.")]

    class Question(StartEvent):
        messages: list[Any]

    class ForBilling(Event):
        messages: list[Any]

    async def ask(instructions: str, messages: list[Any], **offered: Any) -> Any:
        return await client.responses.create(model=stub.MODEL, instructions=instructions, input=messages, **offered)

    class Support(Workflow):
        @step
        async def triage(self, ev: Question) -> ForBilling | StopEvent:
            response = await ask(stub.TRIAGE, ev.messages, tools=tools)
            calls = [item for item in response.output if item.type == "function_call"]
            if not calls:
                return StopEvent(result=response.output_text)
            outputs = [_output(call, "Handed over.") for call in calls]
            return ForBilling(messages=[*ev.messages, *response.output, *outputs])

        @step
        async def billing(self, ev: ForBilling) -> StopEvent:
            response = await ask(stub.BILLING, ev.messages)
            return StopEvent(result=response.output_text)

    workflow = Support()

    async def run() -> str:
        return await workflow.run(messages=[{"role": "user", "content": stub.BILLING_QUESTION}])

    return run


def _stream(client: Any) -> Run:
    import stub
    from workflows import Context, Workflow, step
    from workflows.events import Event, StartEvent, StopEvent

    class Question(StartEvent):
        text: str

    class Delta(Event):
        text: str

    class Stream(Workflow):
        @step
        async def ask(self, ctx: Context, ev: Question) -> StopEvent:
            async for event in await client.responses.create(model=stub.MODEL, input=ev.text, stream=True):
                if event.type == "response.output_text.delta":
                    ctx.write_event_to_stream(Delta(text=event.delta))
            return StopEvent()

    workflow = Stream()

    async def run() -> str:
        text = ""
        handler = workflow.run(text=stub.QUESTION)
        async for event in handler.stream_events():
            if isinstance(event, Delta):
                text += event.text
        await handler
        return text

    return run


def _instant_turn() -> Run:
    import stub
    from workflows import Workflow, step
    from workflows.events import StartEvent, StopEvent

    async def answer(question: str) -> str:
        return stub.ANSWER

    class Question(StartEvent):
        text: str

    class InstantTurn(Workflow):
        @step
        async def ask(self, ev: Question) -> StopEvent:
            return StopEvent(result=await answer(ev.text))

    workflow = InstantTurn()

    async def run() -> str:
        return await workflow.run(text=stub.QUESTION)

    return run


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
    serve(load, ["llama-index-workflows", "openai"])
