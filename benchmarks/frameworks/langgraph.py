# /// script
# requires-python = ">=3.11"
# dependencies = ["langgraph==1.2.22", "langchain-core==1.7.2", "langchain-openai==1.7.3", "openai==3.54.0"]
# ///
"""What a run costs: LangGraph by itself, with LangChain's chat model for OpenAI.

Written as its guide advises: graphs are compiled once and shared by all runs, and so is the model. The tool round is a
model node and the prebuilt `ToolNode`, the chain has a node for each step, the fan-out is eight `Send`s and a node that
joins them, the hand-off a node that goes on by `Command`, and the stream `stream_mode="messages"`. "instant turn" is a
graph of one node that awaits a plain function.

Switched off: the model's own retries, as in every peer. There is no checkpointer, as by default, and tracing is off
where no variable of the environment switches it on. That a plain function tool runs in a thread is the default too.
"""

import operator
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict

from worker import Bench, at_once, in_a_row, serve

Run = Callable[[], Awaitable[object]]


def load() -> Bench:
    import stub
    from langchain_openai import ChatOpenAI

    llm = stub.Stub()
    model = ChatOpenAI(
        model=stub.MODEL,
        use_responses_api=True,
        max_retries=0,
        http_async_client=llm.http_client(),
        **llm.settings(),
    )
    one_turn = _one_turn(model)
    runs = {
        "one turn": one_turn,
        "tool round": _tool_round(model),
        "three-step chain": _chain(model),
        "eight-way fan-out": _fan_out(model),
        "handoff": _hand_off(model),
        "50-chunk stream": _stream(model),
        "instant turn": _instant_turn(),
    }
    cases = {name: in_a_row(run) for name, run in runs.items()}
    cases |= {f"{number} runs at once": at_once(one_turn, number) for number in (10, 100, 1000)}
    return Bench(cases, asked=llm.asked)


def _one_turn(model: Any) -> Run:
    import stub

    graph = _answering_graph(model)

    async def run() -> str:
        return (await graph.ainvoke({"messages": [("user", stub.QUESTION)]}))["messages"][-1].text

    return run


def _answering_graph(model: Any) -> Any:
    from langgraph.graph import END, START, MessagesState, StateGraph

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile()


def _tool_round(model: Any) -> Run:
    import stub
    from langchain_core.tools import tool
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    @tool(description=stub.WEATHER_TOOL)
    def get_weather(city: str) -> str:
        return stub.WEATHER

    armed = model.bind_tools([get_weather])

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await armed.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_node("tools", ToolNode([get_weather]))
    builder.add_edge(START, "answer")
    builder.add_conditional_edges("answer", tools_condition)
    builder.add_edge("tools", "answer")
    graph = builder.compile()

    async def run() -> str:
        return (await graph.ainvoke({"messages": [("user", stub.WEATHER_QUESTION)]}))["messages"][-1].text

    return run


class Chain(TypedDict):
    """What the steps of the chain pass on."""

    answer: str


def _chain(model: Any) -> Run:
    import stub
    from langgraph.graph import END, START, StateGraph

    def step(prompt: str) -> Callable[[Chain], Awaitable[Chain]]:
        async def take(state: Chain) -> Chain:
            return {"answer": (await model.ainvoke(prompt.format(answer=state["answer"]))).text}

        return take

    builder = StateGraph(Chain)
    names = [f"step {number}" for number in range(1, len(stub.STEPS) + 1)]
    for name, prompt in zip(names, stub.STEPS, strict=True):
        builder.add_node(name, step(prompt))
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    graph = builder.compile()

    async def run() -> str:
        return (await graph.ainvoke({"answer": ""}))["answer"]

    return run


class Parts(TypedDict, total=False):
    """What the parts of the fan-out are made of, and into."""

    prompts: tuple[str, ...]
    answers: Annotated[list[str], operator.add]
    joined: str


def _fan_out(model: Any) -> Run:
    import stub
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import Send

    def spread(state: Parts) -> list[Send]:
        return [Send("part", prompt) for prompt in state["prompts"]]

    async def part(prompt: str) -> Parts:
        return {"answers": [(await model.ainvoke(prompt)).text]}

    async def join(state: Parts) -> Parts:
        return {"joined": "\n".join(state["answers"])}

    builder = StateGraph(Parts)
    builder.add_node("part", part)
    builder.add_node("join", join)
    builder.add_conditional_edges(START, spread, ["part"])
    builder.add_edge("part", "join")
    builder.add_edge("join", END)
    graph = builder.compile()

    async def run() -> str:
        return (await graph.ainvoke({"prompts": stub.PARTS}))["joined"]

    return run


def _hand_off(model: Any) -> Run:
    import stub
    from langchain_core.messages import SystemMessage, ToolMessage
    from langchain_core.tools import tool
    from langgraph.graph import END, START, MessagesState, StateGraph
    from langgraph.types import Command

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

    async def run() -> str:
        return (await graph.ainvoke({"messages": [("user", stub.BILLING_QUESTION)]}))["messages"][-1].text

    return run


def _stream(model: Any) -> Run:
    import stub

    graph = _answering_graph(model)

    async def run() -> str:
        text = ""
        async for chunk, _ in graph.astream({"messages": [("user", stub.QUESTION)]}, stream_mode="messages"):
            text += chunk.text
        return text

    return run


class Turn(TypedDict, total=False):
    """A turn without a chat model."""

    question: str
    answer: str


def _instant_turn() -> Run:
    import stub
    from langgraph.graph import END, START, StateGraph

    async def answer(question: str) -> str:
        return stub.ANSWER

    async def node(state: Turn) -> Turn:
        return {"answer": await answer(state["question"])}

    builder = StateGraph(Turn)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    graph = builder.compile()

    async def run() -> str:
        return (await graph.ainvoke({"question": stub.QUESTION}))["answer"]

    return run


if __name__ == "__main__":
    serve(load, ["langgraph", "langchain-core", "langchain-openai", "openai"])
