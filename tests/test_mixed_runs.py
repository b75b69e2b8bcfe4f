"""All patterns at work at once in one engine, and what they say on an event loop they cannot run on."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from contract_support import CASES, Watcher, create

from runmeter.engine import Engine
from runmeter.patterns import AsyncioRequired, BasePattern, PatternType
from runmeter.patterns.openai.conversation import OpenAIConversationPattern
from runmeter.simulator import Simulator

MANY = {"asyncio": 1_000, "trio": 300}
"""How many at once. The patterns on trio are on asyncio too."""


@pytest.fixture
def patterns(anyio_backend: str, simulator: Simulator, tmp_path: Path) -> Sequence[BasePattern]:
    """One of each that can run on this event loop."""
    (tmp_path / "honey.md").write_text("Honey is made of nectar, which bees collect from flowers.\n")
    return [create(kind, simulator.url, tmp_path) for kind, loop in CASES if loop == anyio_backend]


@pytest.mark.parametrize("scale", [0.06, pytest.param(1, marks=pytest.mark.campaign)])
async def test_a_thousand_runs_of_all_patterns_at_once(
    anyio_backend: str, patterns: Sequence[BasePattern], simulator: Simulator, scale: float
) -> None:
    runs = round(MANY[anyio_backend] * scale)
    watcher = Watcher()
    results: dict[str, list[str]] = {pattern.name: [] for pattern in patterns}

    async def run(engine: Engine, number: int) -> None:
        pattern = patterns[number % len(patterns)]
        # An assistant's conversations are the API's, and the others forget; this one's are its own.
        conversation = f"conversation {number % 100}" if isinstance(pattern, OpenAIConversationPattern) else None
        result = await engine.run(pattern, f"Please add {number} and 1.", conversation_id=conversation)
        results[pattern.name].append(result.content)

    async with AsyncExitStack() as stack:
        for pattern in patterns:
            await stack.enter_async_context(pattern)
        async with watcher.engine() as engine, anyio.create_task_group() as tasks:
            for number in range(runs):
                tasks.start_soon(run, engine, number)
    watcher.check_against(simulator)
    by_pattern = watcher.usage.snapshot().by_pattern()
    for name, contents in results.items():
        assert all(contents)
        assert by_pattern[name].successes == len(contents) >= runs // len(patterns)


@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.parametrize("kind", [kind for kind in PatternType if kind.framework == "langgraph"])
async def test_a_langgraph_pattern_on_trio_says_that_it_needs_asyncio(kind: PatternType, tmp_path: Path) -> None:
    watcher = Watcher()
    pattern = create(kind, "http://127.0.0.1:1/v1", tmp_path)
    async with watcher.engine() as engine:
        with pytest.raises(AsyncioRequired, match=f"{kind}.* needs asyncio"):
            await engine.run(pattern, "Hello.")
    assert watcher.requests == []
