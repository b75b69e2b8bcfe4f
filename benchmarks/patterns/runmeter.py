# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What the patterns on LangGraph cost, in an engine that keeps statistics and prices what was used, and bare graphs.

Both run in one process: what the patterns add is less than what two processes may differ by.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from worker import Bench, Work, serve


def load(telemetry: Callable[[], Any] = lambda: None) -> Bench:
    """All six patterns, with their defaults, and their bare graphs.

    Args:
        telemetry: Makes the engine's telemetry.
    """
    from hosting import Host
    from langchain_core.messages import HumanMessage
    from patterns.graphs import QUESTION, SHAPES, Instant, bare_graph

    from runmeter import Engine
    from runmeter.patterns import PatternConfig, get_pattern_registry

    model = Instant()
    made = telemetry()

    @asynccontextmanager
    async def engine() -> AsyncIterator[Engine]:
        async with Engine(telemetry=made) as running:
            yield running

    def runs_of(name: str) -> Callable[[Engine], Awaitable[object]]:
        pattern: Any = get_pattern_registry().pattern_class(name)
        instance = pattern(PatternConfig(), model=model)
        return lambda running: running.run(instance, QUESTION)

    def bare_runs_of(graph: Any) -> Work:
        async def work(times: int) -> None:
            for _ in range(times):
                await graph.ainvoke({"messages": [HumanMessage(QUESTION)]})

        return work

    def asked() -> list[int]:
        count, model.asked = model.asked, 0
        return [count]

    async def flush(_: int) -> None:
        if made is not None:
            made.tracer_provider.force_flush()

    host = Host(engine, flush)
    cases: dict[str, Work] = {}
    for name, shape in SHAPES.items():
        cases[f"{name}, bare"] = bare_runs_of(bare_graph(model, shape))
        cases[name] = host.in_a_row(runs_of(name))
    return Bench(cases, asked=asked, close=host.close)


if __name__ == "__main__":
    serve(load, ["runmeter", "langgraph", "langchain-core"])
