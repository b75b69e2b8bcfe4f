"""Time that passes when a test says so: no deadline of a test is outrun by a machine with other work."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import trio

from runmeter.simulator import Simulator


async def advance(seconds: float) -> None:
    """Have time pass on the running event loop: deadlines until then are over. Other loops notice nothing."""
    try:
        _put_forward(asyncio.get_running_loop(), seconds)
    except RuntimeError:
        clock: Any = trio.lowlevel.current_clock()
        object.__setattr__(clock, "offset", clock.offset + seconds)  # of a frozen class
    for _ in range(3):  # in which the loop finds what is due, and does it
        await anyio.lowlevel.checkpoint()


def advance_simulator(simulator: Simulator, seconds: float) -> None:
    """Have time pass on the simulator's event loop, as soon as something there waits for no longer than that."""
    assert simulator._thread is not None
    loop: Any = simulator._thread._loop

    def put_forward_if_awaited() -> None:
        due = loop.time() + seconds
        if any(timer.when() <= due and not timer.cancelled() for timer in loop._scheduled):
            _put_forward(loop, seconds)
        else:
            loop.call_soon(put_forward_if_awaited)

    loop.call_soon_threadsafe(put_forward_if_awaited)


def _put_forward(loop: Any, seconds: float) -> None:
    now = loop.time
    loop.time = lambda: now() + seconds


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread or process makes true."""
    while not condition():  # noqa: ASYNC110 - nothing here is told
        await anyio.sleep(0.002)


@asynccontextmanager
async def passing(seconds: float, *, whenever: Callable[[], int]) -> AsyncIterator[None]:
    """Have time pass within the block: so much whenever the count grows, or the condition comes true."""
    passed = 0

    def has_grown() -> bool:
        return whenever() > passed

    async def watch() -> None:
        nonlocal passed
        while True:
            await until(has_grown)
            await anyio.wait_all_tasks_blocked()  # and what there is to wait for is waited for
            passed += 1
            await advance(seconds)

    error: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            yield
        except Exception as raised:  # which comes out as it is, and not in a group
            error = raised
        tasks.cancel_scope.cancel()
    if error is not None:
        raise error
