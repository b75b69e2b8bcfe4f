"""A LangGraph app, as it was before Runmeter."""

import asyncio
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


def find_parcel(number: str) -> str:
    """Say where a parcel is."""
    return f"Parcel {number} is in Lyon."


model = ChatOpenAI(model="gpt-6-luna")


async def desk(state: MessagesState) -> dict[str, list[AnyMessage]]:
    return {"messages": [await model.bind_tools([find_parcel]).ainvoke(state["messages"])]}


builder = StateGraph(MessagesState)
builder.add_node("desk", desk)
builder.add_node("tools", ToolNode([find_parcel]))
builder.add_edge(START, "desk")
builder.add_conditional_edges("desk", tools_condition)
builder.add_edge("tools", "desk")
graph: Any = builder.compile()


async def main() -> None:
    async with asyncio.TaskGroup() as tasks:
        questions = ("Where is parcel 7?", "Where is parcel 8?")
        asked = [tasks.create_task(graph.ainvoke({"messages": [("user", each)]})) for each in questions]
    for each in asked:
        print(each.result()["messages"][-1].text)


asyncio.run(main())
