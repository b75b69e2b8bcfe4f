# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What an event costs: Runmeter's bus.

Publishing appends to one log, whoever subscribes; each subscriber takes batches from it in a task of its own. The
subscribers are lossless. `linger` is 0, so that delivery starts in the next turn of the loop: by default it waits for
10 ms, and larger batches.
"""

from bus.counting import batches, cases, check, check_count, subscribers, until_received
from worker import Bench, serve

KEPT = 100_000
"""Events published to one bus that nobody takes: so many that starting the bus is no part of what they cost."""
BUILT = 10_000
"""The same where each is an object of its own, and takes memory."""


def load() -> Bench:  # noqa: C901 - a function for each kind of case
    from runmeter.engine import Bus, Event, ExecutionFinished, Status

    def make(seq: int) -> Event:
        return ExecutionFinished(
            run_id="1" * 32, seq=seq, time_ns=1_795_305_600_000_000_000, status=Status.OK, duration_ns=1
        )

    event = make(2)

    async def deliver(count: int, times: int) -> None:
        receivers = subscribers(count)
        async with Bus(linger=0) as bus:
            for number, receiver in enumerate(receivers):
                bus.subscribe(receiver.take_batch, name=str(number), lane="lossless")
            published = 0
            for size in batches(times):
                for _ in range(size):
                    bus.publish(event)
                published += size
                await until_received(receivers, published)
        check(receivers, times)

    async def publish(count: int, times: int) -> None:
        receivers = subscribers(count)
        for size in batches(times, KEPT):
            async with Bus() as bus:
                subscriptions = [
                    bus.subscribe(receiver.take_batch, name=str(number), lane="lossless")
                    for number, receiver in enumerate(receivers)
                ]
                for _ in range(size):
                    bus.publish(event)
                for subscription in subscriptions:
                    check_count(subscription.pending, size)
                    bus.unsubscribe(subscription)  # before anything is delivered to it

    async def build_and_publish(times: int) -> None:
        for size in batches(times, BUILT):
            async with Bus() as bus:
                subscription = bus.subscribe(subscribers(1)[0].take_batch, name="0", lane="lossless")
                for seq in range(size):
                    bus.publish(make(seq))
                check_count(subscription.pending, size)
                bus.unsubscribe(subscription)

    return Bench({**cases(deliver, publish), "build and publish": build_and_publish})


if __name__ == "__main__":
    serve(load, ["runmeter", "msgspec", "anyio"])
