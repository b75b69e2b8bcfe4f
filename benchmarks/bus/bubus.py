# /// script
# requires-python = ">=3.11"
# dependencies = ["bubus==1.5.6"]
# ///
"""What an event costs: a bubus event bus, as it is by default.

Events are pydantic models of its own, and each can be dispatched once, so making it is part of the work. Handlers are
plain functions, which it calls without a task for each. Its queue holds 50 events: that many are dispatched at once.
"""

from collections.abc import Callable
from typing import Any

from bus.counting import FIELDS, Subscriber, batches, cases, check, check_count, subscribers
from worker import Bench, serve

QUEUE = 50
"""Events that its queue holds."""


def load(max_history_size: int = 50) -> Bench:  # noqa: C901 - a function for each kind of case
    from bubus import BaseEvent, EventBus

    class Finished(BaseEvent[None]):
        run_id: str
        seq: int
        time_ns: int
        status: str
        duration_ns: int

    def make() -> Finished:
        return Finished(**FIELDS, duration_ns=1)

    def handler(receiver: Subscriber, number: int) -> Callable[[Any], None]:
        def handle(event: Any) -> None:
            receiver.received += event.duration_ns

        handle.__name__ = f"handle_{number}"  # it warns of handlers that have one name
        return handle

    def bus_for(receivers: list[Subscriber]) -> EventBus:
        bus = EventBus(max_history_size=max_history_size)
        for number, receiver in enumerate(receivers):
            bus.on(Finished, handler(receiver, number))
        return bus

    async def deliver(count: int, times: int) -> None:
        receivers = subscribers(count)
        bus = bus_for(receivers)
        for size in batches(times, QUEUE):
            for _ in range(size):
                bus.dispatch(make())
            await bus.wait_until_idle()
        await bus.stop(clear=True)
        check(receivers, times)

    async def publish(count: int, times: int) -> None:
        for size in batches(times, QUEUE):
            bus = bus_for(subscribers(count))
            for _ in range(size):
                bus.dispatch(make())
            assert bus.event_queue is not None
            check_count(bus.event_queue.qsize(), size)
            await bus.stop(clear=True)  # before anything is delivered

    return Bench(cases(deliver, publish))


if __name__ == "__main__":
    serve(load, ["bubus", "pydantic"])
