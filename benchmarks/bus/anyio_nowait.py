# /// script
# requires-python = ">=3.11"
# dependencies = ["anyio==4.16.0", "msgspec==0.22.0"]
# ///
"""What an event costs: an anyio memory object stream for each subscriber, read with `receive_nowait`.

As in anyio_streams.py, but for the consumer: once woken it empties its buffer with `receive_nowait`, so that nothing
else runs between two events.
"""

from typing import Any

from bus.counting import Subscriber, batches, cases, check, make_event, subscribers
from worker import Bench, serve


def load() -> Bench:  # noqa: C901 - a function for each kind of case
    from anyio import EndOfStream, WouldBlock, create_memory_object_stream, create_task_group
    from anyio.streams.memory import MemoryObjectReceiveStream

    finished = make_event()

    async def consume(stream: MemoryObjectReceiveStream[Any], receiver: Subscriber) -> None:
        with stream:
            async for event in stream:
                receiver.received += event.duration_ns
                try:
                    while True:
                        receiver.received += stream.receive_nowait().duration_ns
                except (WouldBlock, EndOfStream):
                    pass

    async def deliver(count: int, times: int) -> None:
        receivers = subscribers(count)
        for size in batches(times):
            async with create_task_group() as consumers:
                senders = []
                for receiver in receivers:
                    sender, stream = create_memory_object_stream[Any](size)
                    consumers.start_soon(consume, stream, receiver)
                    senders.append(sender)
                for _ in range(size):
                    for sender in senders:
                        sender.send_nowait(finished)
                for sender in senders:
                    sender.close()
        check(receivers, times)

    return Bench(cases(deliver))


if __name__ == "__main__":
    serve(load, ["anyio", "msgspec"])
