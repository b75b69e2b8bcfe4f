# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What the patterns on LangGraph cost, in an engine that keeps statistics and prices what was used."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from worker import Bench, serve


def load(telemetry: Callable[[], Any] = lambda: None) -> Bench:
    """All six patterns, with their defaults.

    Args:
        telemetry: Makes the engine's telemetry.
    """
    from hosting import Host
    from patterns.graphs import QUESTION, SHAPES, Instant

    from runmeter import Engine
    from runmeter.patterns import PatternConfig, get_pattern_registry

    model = Instant()

    @asynccontextmanager
    async def engine() -> AsyncIterator[Engine]:
        async with Engine(telemetry=telemetry()) as running:
            yield running

    def runs_of(name: str) -> Callable[[Engine], Awaitable[object]]:
        pattern: Any = get_pattern_registry().pattern_class(name)
        made = pattern(PatternConfig(), model=model)
        return lambda running: running.run(made, QUESTION)

    def asked() -> list[int]:
        count, model.asked = model.asked, 0
        return [count]

    host = Host(engine)
    return Bench({name: host.in_a_row(runs_of(name)) for name in SHAPES}, asked=asked, close=host.close)


if __name__ == "__main__":
    serve(load, ["runmeter", "langgraph", "langchain-core"])
