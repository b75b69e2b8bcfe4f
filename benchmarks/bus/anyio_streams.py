# /// script
# requires-python = ">=3.11"
# dependencies = ["anyio==4.16.0", "msgspec==0.22.0"]
# ///
"""What an event costs: an anyio memory object stream for each subscriber, written with `send_nowait`.

The buffers hold a batch, so that sending never fails; a consumer reads its stream with `async for`, as the
documentation does, and ends when it is closed, which is how the producer knows that everything has arrived.
"""

from typing import Any

from bus.counting import Subscriber, batches, cases, check, check_count, make_event, subscribers
from worker import Bench, serve


def load() -> Bench:  # noqa: C901 - a function for each kind of case
    from anyio import create_memory_object_stream, create_task_group
    from anyio.streams.memory import MemoryObjectReceiveStream

    finished = make_event()

    async def consume(stream: MemoryObjectReceiveStream[Any], receiver: Subscriber) -> None:
        with stream:
            async for event in stream:
                receiver.received += event.duration_ns

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

    def publish(count: int, times: int) -> None:
        for size in batches(times):
            streams = [create_memory_object_stream[Any](size) for _ in range(count)]
            senders = [sender for sender, _ in streams]
            for _ in range(size):
                for sender in senders:
                    sender.send_nowait(finished)
            for sender, stream in streams:
                check_count(stream.statistics().current_buffer_used, size)
                sender.close()
                stream.close()

    return Bench(cases(deliver, publish))


if __name__ == "__main__":
    serve(load, ["anyio", "msgspec"])
