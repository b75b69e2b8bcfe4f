"""What all peers of this question share: the event, subscribers that count, and the names of the cases.

It is imported in every peer's environment, so it needs Python alone; who calls `make_event` needs msgspec, too.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from worker import Work

SUBSCRIBERS = (1, 3, 10)
BATCH = 1_000
"""Events published between two rounds of delivery, where the mechanism has a buffer."""
FIELDS: dict[str, Any] = {"run_id": "1" * 32, "seq": 2, "time_ns": 1_795_305_600_000_000_000, "status": "ok"}
"""Of every peer's event, which has `duration_ns` besides. It is 1, so that their sum is a count."""


class Subscriber:
    """Counts the events it gets, by a field of each: being told how many there are will not do."""

    __slots__ = ("received",)

    def __init__(self) -> None:
        self.received = 0

    def take(self, event: Any) -> None:
        self.received += event.duration_ns

    def take_batch(self, events: Sequence[Any]) -> None:
        for event in events:
            self.received += event.duration_ns


def make_event() -> object:
    """A small event, for mechanisms that carry any object. Made once: its making is not what is measured."""
    import msgspec

    names = [(name, type(value)) for name, value in FIELDS.items()]
    finished = msgspec.defstruct("Finished", [*names, ("duration_ns", int)], frozen=True, gc=False, kw_only=True)
    return finished(**FIELDS, duration_ns=1)


def cases(
    deliver: Callable[[int, int], object], publish: Callable[[int, int], object] | None = None
) -> dict[str, Work]:
    """Name the cases. Both functions take the number of subscribers and of events.

    Args:
        deliver: Publishes, and returns when every subscriber has received everything.
        publish: Publishes only, where the mechanism has that apart from delivery.
    """
    works: dict[str, Work] = {}
    for kind, work in (("publish", publish), ("delivery", deliver)):
        if work is not None:
            for count in SUBSCRIBERS:
                works[f"{kind}, {count} subscriber{'s' * (count > 1)}"] = partial(work, count)
    return works


def subscribers(count: int) -> list[Subscriber]:
    return [Subscriber() for _ in range(count)]


def batches(times: int, size: int = BATCH) -> Iterator[int]:
    """Cut a number of events into batches."""
    for done in range(0, times, size):
        yield min(size, times - done)


async def until_received(receivers: Iterable[Subscriber], count: int) -> None:
    """Let the loop turn until each has so many."""
    for receiver in receivers:
        while receiver.received < count:  # noqa: ASYNC110 - to set an event, a subscriber would have to test each time
            await asyncio.sleep(0)


def check(receivers: Iterable[Subscriber], count: int) -> None:
    """Raise if a subscriber has more or fewer."""
    for receiver in receivers:
        check_count(receiver.received, count)


def check_count(found: int, count: int) -> None:
    if found != count:
        raise RuntimeError(f"{found} events where {count} were published")
