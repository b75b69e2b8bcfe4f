"""All patterns at work at once in one engine, and what they say on an event loop they cannot run on."""

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
from contract_support import CASES, Watcher, create

from runmeter.engine import Budget, Engine
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


async def test_all_patterns_wait_for_a_budget_that_has_room_for_one_or_two_requests_at_a_time(
    patterns: Sequence[BasePattern], simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a dollar is reserved for each answer of no limit, though it costs a thousandth of a cent."""
    watcher = Watcher()
    budget = Budget(usd="1.40", when_reserved="wait")
    caplog.set_level(logging.DEBUG, "runmeter")
    async with AsyncExitStack() as stack:
        for pattern in patterns:
            await stack.enter_async_context(pattern)
        async with watcher.engine(budgets=[budget], assume_tier="default") as engine:
            async with anyio.create_task_group() as tasks:
                for number in range(3 * len(patterns)):
                    tasks.start_soon(engine.run, patterns[number % len(patterns)], f"Please add {number} and 1.")
            [status] = engine.budgets()
            total = engine.usage().total
    assert status.refused == status.waiting == 0 == status.reserved
    assert status.spent == total.cost.usd
    assert 0 < status.spent < Decimal("0.01")
    assert total.failures == 0
    assert " is waiting: $1.4 $" in caplog.text
    watcher.check_against(simulator)


@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.parametrize("kind", [kind for kind in PatternType if kind.framework == "langgraph"])
async def test_a_langgraph_pattern_on_trio_says_that_it_needs_asyncio(kind: PatternType, tmp_path: Path) -> None:
    watcher = Watcher()
    pattern = create(kind, "http://127.0.0.1:1/v1", tmp_path)
    async with watcher.engine() as engine:
        with pytest.raises(AsyncioRequired, match=f"{kind}.* needs asyncio"):
            await engine.run(pattern, "Hello.")
    assert watcher.requests == []
