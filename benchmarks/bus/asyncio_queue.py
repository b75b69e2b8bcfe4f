# /// script
# requires-python = ">=3.11"
# dependencies = ["msgspec==0.22.0"]
# ///
"""What an event costs: an `asyncio.Queue` for each subscriber.

The queues are unbounded, the producer uses `put_nowait`, and a consumer that was woken by `await get()` empties its
queue with `get_nowait`, which is faster than awaiting each event. `task_done` and `join` are not used.
"""

import asyncio
from typing import Any

from bus.counting import Subscriber, batches, cases, check, check_count, make_event, subscribers, until_received
from worker import Bench, serve


def load() -> Bench:  # noqa: C901 - a function for each kind of case
    finished = make_event()

    async def consume(queue: asyncio.Queue[Any], receiver: Subscriber) -> None:
        while True:
            event = await queue.get()
            receiver.received += event.duration_ns
            while not queue.empty():
                receiver.received += queue.get_nowait().duration_ns

    async def deliver(count: int, times: int) -> None:
        receivers = subscribers(count)
        queues: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in receivers]
        consumers = [asyncio.create_task(consume(*pair)) for pair in zip(queues, receivers, strict=True)]
        published = 0
        for size in batches(times):
            for _ in range(size):
                for queue in queues:
                    queue.put_nowait(finished)
            published += size
            await until_received(receivers, published)
        for consumer in consumers:
            consumer.cancel()
        check(receivers, times)

    def publish(count: int, times: int) -> None:
        for size in batches(times):
            queues: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in range(count)]
            for _ in range(size):
                for queue in queues:
                    queue.put_nowait(finished)
            for queue in queues:
                check_count(queue.qsize(), size)

    return Bench(cases(deliver, publish))


if __name__ == "__main__":
    serve(load, ["msgspec"])
