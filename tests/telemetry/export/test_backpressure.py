"""When it is worth waiting for room in the queues of exporters, and for how long."""

from typing import Any

import anyio
import pytest
from virtual_time import VirtualTime

from runmeter.telemetry.export.backpressure import MAX_WAIT, POLL, Backpressure


class Queue:
    """As full as the test says."""

    is_crowded = False
    is_half_empty = False


@pytest.fixture(params=["asyncio", "trio"])
def time(request: pytest.FixtureRequest) -> VirtualTime:
    return VirtualTime(request.param)


@pytest.fixture
def anyio_backend(time: VirtualTime) -> tuple[str, dict[str, Any]]:
    return time.backend


async def waits(backpressure: Backpressure) -> float:
    """Seconds that it waits."""
    started = anyio.current_time()
    await backpressure.wait()
    return anyio.current_time() - started


async def test_where_there_is_room_nothing_waits() -> None:
    backpressure = Backpressure([Queue(), Queue()])
    assert not backpressure.is_due()
    assert await waits(backpressure) == 0
    assert not Backpressure([]).is_due()


async def test_it_waits_until_there_is_room_in_all_of_them() -> None:
    first, second = Queue(), Queue()
    first.is_crowded = second.is_crowded = True
    backpressure = Backpressure([first, second])

    async def make_room() -> None:
        await anyio.sleep(1)
        first.is_crowded = False
        await anyio.sleep(1)
        second.is_crowded = False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make_room)
        assert await waits(backpressure) == pytest.approx(2, abs=2 * POLL)


async def test_its_patience_is_one_until_the_queues_are_half_empty_again() -> None:
    queue = Queue()
    backpressure = Backpressure([queue])
    for _ in range(3):
        queue.is_crowded = True
        with anyio.move_on_after(2):
            await backpressure.wait()
        queue.is_crowded = False  # a little room, and no more
        backpressure.relax()
    queue.is_crowded = True
    assert not backpressure.is_due()
    assert await waits(backpressure) == 0
    queue.is_half_empty = True
    backpressure.relax()
    assert await waits(backpressure) == pytest.approx(MAX_WAIT, abs=2 * POLL)
