"""What the tests of reconciliation share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bill_scene import BillScene


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio alone: what is compared blocks, and asks no event loop."""
    return "asyncio"


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[BillScene]:
    """A morning with two requests that both sides have."""
    async with BillScene.open(tmp_path) as scene:
        await scene.ask("Good morning.")
        await scene.ask("What is honey made of?")
        yield scene
