# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What the patterns are compared with: LangGraph alone, of the version that Runmeter is installed with."""

from typing import Any

from worker import Bench, Work, serve


def load() -> Bench:
    from langchain_core.messages import HumanMessage
    from patterns.graphs import QUESTION, SHAPES, Instant, bare_graph

    model = Instant()

    def runs_of(graph: Any) -> Work:
        async def work(times: int) -> None:
            for _ in range(times):
                await graph.ainvoke({"messages": [HumanMessage(QUESTION)]})

        return work

    def asked() -> list[int]:
        count, model.asked = model.asked, 0
        return [count]

    return Bench({name: runs_of(bare_graph(model, shape)) for name, shape in SHAPES.items()}, asked=asked)


if __name__ == "__main__":
    serve(load, ["langgraph", "langchain-core"])
