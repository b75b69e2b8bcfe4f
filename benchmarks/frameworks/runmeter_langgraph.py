# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What a run costs: Runmeter's LangGraph patterns, in an engine that keeps statistics and prices what was used.

Written as its guide advises: one engine and one instance of each pattern are shared by all runs, over the same chat
model as in `langgraph`. Turn, tool round and stream are `augmented_llm`, the stream handed out by `engine.stream`; the
chain is `prompt_chaining`. `parallelization` gives all its sections the same messages, so the parts of the fan-out,
which differ, are runs at once by `engine.map`. No pattern on LangGraph hands over by a tool: the hand-off is the graph
of `langgraph`, metered by `MeteringHandler` in a function as a pattern. "instant turn" is its graph too, whose node
records its usage as a request to a model.

Switched off: the model's own retries, as in every peer. Statistics and costs are always on; spans and metrics are off
by default. That a plain function tool runs in a thread is the default too.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from worker import Bench, serve

Pattern = Callable[[Any, Any], Awaitable[str]]


def load() -> Bench:  # noqa: C901 - a function for each case
    import stub
    from hosting import Host
    from langchain_openai import ChatOpenAI

    from runmeter import Delta, Engine
    from runmeter.patterns import (
        AugmentedLLMPattern,
        OpenAIPatternConfig,
        PromptChainingConfig,
        PromptChainingPattern,
        Step,
    )

    llm = stub.Stub()
    model = ChatOpenAI(
        model=stub.MODEL,
        use_responses_api=True,
        max_retries=0,
        http_async_client=llm.http_client(),
        **llm.settings(),
    )

    def get_weather(city: str) -> str:
        return stub.WEATHER

    get_weather.__doc__ = stub.WEATHER_TOOL
    config = OpenAIPatternConfig(openai_model=stub.MODEL)
    assistant = AugmentedLLMPattern(config, model=model)
    forecaster = AugmentedLLMPattern(config, [get_weather], model=model)
    # The user says the first step's prompt.
    prompts = ("{input}", *[step.format(answer="{previous}") for step in stub.STEPS[1:]])
    steps = tuple(Step(name=f"step{number}", prompt=prompt) for number, prompt in enumerate(prompts, 1))
    chained = PromptChainingPattern(PromptChainingConfig(openai_model=stub.MODEL, steps=steps), model=model)
    desk = _hand_off(model)
    instant = _instant_turn()

    @asynccontextmanager
    async def engine_and_patterns() -> AsyncIterator[Any]:
        async with assistant, forecaster, chained, Engine() as engine:
            yield engine

    async def one_turn(engine: Engine) -> str:
        return (await engine.run(assistant, stub.QUESTION)).content

    async def tool_round(engine: Engine) -> str:
        return (await engine.run(forecaster, stub.WEATHER_QUESTION)).content

    async def chain(engine: Engine) -> str:
        return (await engine.run(chained, stub.STEPS[0])).content

    async def fan_out(engine: Engine) -> str:
        results = await engine.map(assistant, stub.PARTS, concurrency=len(stub.PARTS))
        return "\n".join(result.content for result in results)

    async def hand_off(engine: Engine) -> str:
        return (await engine.run(desk, stub.BILLING_QUESTION)).content

    async def stream(engine: Engine) -> str:
        text = ""
        async with engine.stream(assistant, stub.QUESTION) as run:
            async for item in run:
                if isinstance(item, Delta):
                    text += item.text
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
    host = Host(engine_and_patterns)
    cases = {name: host.in_a_row(run) for name, run in runs.items()}
    cases |= {f"{number} runs at once": host.at_once(one_turn, number) for number in (10, 100, 1000)}
    return Bench(cases, asked=llm.asked, close=host.close)


def _hand_off(model: Any) -> Pattern:
    import stub
    from langchain_core.messages import SystemMessage, ToolMessage
    from langchain_core.tools import tool
    from langgraph.graph import END, START, MessagesState, StateGraph
    from langgraph.types import Command

    from runmeter.patterns import MeteringHandler

    @tool(description="Hand the user over to billing.")
    def transfer_to_billing() -> str:
        return "Handed over."

    armed = model.bind_tools([transfer_to_billing])

    async def triage(state: MessagesState) -> Command[str]:
        answer = await armed.ainvoke([SystemMessage(stub.TRIAGE), *state["messages"]])
        handed = [ToolMessage("Handed over.", tool_call_id=call["id"]) for call in answer.tool_calls]
        return Command(update={"messages": [answer, *handed]}, goto="billing" if handed else END)

    async def billing(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([SystemMessage(stub.BILLING), *state["messages"]])]}

    builder = StateGraph(MessagesState)
    builder.add_node("triage", triage, destinations=("billing", END))
    builder.add_node("billing", billing)
    builder.add_edge(START, "triage")
    builder.add_edge("billing", END)
    graph = builder.compile()

    async def desk(messages: str, context: object) -> str:
        with MeteringHandler() as meter:
            state = await graph.ainvoke({"messages": [("user", messages)]}, {"callbacks": [meter]})
        return state["messages"][-1].text

    return desk


class Turn(TypedDict, total=False):
    """A turn without a chat model."""

    question: str
    answer: str


def _instant_turn() -> Pattern:
    import stub
    from langgraph.graph import END, START, StateGraph

    from runmeter import ModelRequest, Usage, current_execution

    async def answer(question: str) -> str:
        return stub.ANSWER

    async def node(state: Turn) -> Turn:
        with current_execution().model_call(ModelRequest(provider="openai", model=stub.MODEL)) as call:
            text = await answer(state["question"])
            call.record(Usage(input_tokens=40, output_tokens=50))
        return {"answer": text}

    builder = StateGraph(Turn)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    graph = builder.compile()

    async def instant(messages: str, context: object) -> str:
        return (await graph.ainvoke({"question": messages}))["answer"]

    return instant


if __name__ == "__main__":
    serve(load, ["runmeter", "langgraph", "langchain-core", "langchain-openai", "openai"])
