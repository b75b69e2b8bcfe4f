"""A subscriber that is slower than the runs: what becomes of the events, on each lane."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import anyio
import anyio.lowlevel

from runmeter.engine import Engine, Event, ModelRequest, PriceBook, SubscriberStatistics, Usage, current_execution

Lane: TypeAlias = Literal["lossless", "lossy"]
LANES: tuple[Lane, ...] = ("lossless", "lossy")
CAPACITY = 1_000
"""Events that the subscriber may be behind."""
IN_MEMORY = 12_000
"""Events in memory at the most: new runs wait while the engine's own statistics are 10,000 behind."""
SLOWNESS = 100e-6
"""Seconds that it takes for an event: several times as long as a run takes to make one."""
EVENTS = 4
"""Of a run: the run starts, the call starts, the call ends, the run ends."""
REQUEST = ModelRequest(provider="openai", model="gpt-6-luna")


class Slow:
    """Takes its time for each event."""

    def __init__(self) -> None:
        self.taken = 0

    async def __call__(self, events: Sequence[Event]) -> None:
        await anyio.sleep(SLOWNESS * len(events))
        self.taken += len(events)


async def one_call(messages: object, context: object) -> None:
    """A run that lets the loop go on, as each does that waits for an answer."""
    with current_execution().model_call(REQUEST) as call:
        await anyio.lowlevel.checkpoint()
        call.record(Usage(1_000, 100))


async def overload(prices: PriceBook, lane: Lane, runs: int) -> dict[str, int]:
    """Run one after the other with such a subscriber.

    Returns:
        Its account in the end, how far it was behind at the most, and how many events were in memory at the most.

    Raises:
        RuntimeError: a look at the account found `published` other than `delivered + dropped + pending`, an event too
            many or too few, or a backlog beyond what the lane allows.
    """
    receive = Slow()
    behind = retained = 0
    async with Engine(prices=prices) as engine:
        subscription = engine.subscribe(receive, name="slow", lane=lane, capacity=CAPACITY)
        for _ in range(runs):
            await engine.run(one_call, "")
            account = subscription.statistics()
            _check(account, receive.taken)
            behind, retained = max(behind, account.pending), max(retained, engine.statistics().bus.retained)
    account = subscription.statistics()
    _check(account, receive.taken)
    if account.published != runs * EVENTS or account.pending:
        raise RuntimeError(f"{runs} runs of {EVENTS} events, and in the end {account}")
    if lane == "lossless" and (account.dropped or behind > CAPACITY + EVENTS):
        raise RuntimeError(f"up to {behind} events behind: {account}")
    if retained > IN_MEMORY:
        raise RuntimeError(f"up to {retained} events in memory: {account}")
    return {
        "published": account.published,
        "delivered": account.delivered,
        "dropped": account.dropped,
        "peak backlog": behind,
        "peak in memory": retained,
    }


def _check(account: SubscriberStatistics, taken: int) -> None:
    if account.published != account.delivered + account.dropped + account.pending or account.delivered != taken:
        raise RuntimeError(f"{taken} events were taken: {account}")
