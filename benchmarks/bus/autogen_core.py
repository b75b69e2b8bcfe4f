# /// script
# requires-python = ">=3.11"
# dependencies = ["autogen-core==0.7.5"]
# ///
"""What an event costs: autogen-core's single-threaded runtime, its agents subscribed to one topic.

Messages are dataclasses, and the subscribers closure agents, which do the least for a message. Its tracing is switched
off, as in every peer.
"""

from collections.abc import Awaitable, Callable

from bus.counting import FIELDS, Subscriber, batches, cases, check, check_count, subscribers
from worker import Bench, serve


def load() -> Bench:  # noqa: C901 - a function for each kind of case
    from dataclasses import dataclass

    from autogen_core import (
        ClosureAgent,
        ClosureContext,
        DefaultSubscription,
        DefaultTopicId,
        MessageContext,
        SingleThreadedAgentRuntime,
    )
    from opentelemetry.trace import NoOpTracerProvider

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Finished:
        run_id: str
        seq: int
        time_ns: int
        status: str
        duration_ns: int

    event = Finished(**FIELDS, duration_ns=1)
    topic = DefaultTopicId()

    def receiving(receiver: Subscriber) -> Callable[[ClosureContext, Finished, MessageContext], Awaitable[None]]:
        async def receive(_: ClosureContext, message: Finished, __: MessageContext) -> None:
            receiver.received += message.duration_ns

        return receive

    async def subscribed(receivers: list[Subscriber]) -> SingleThreadedAgentRuntime:
        runtime = SingleThreadedAgentRuntime(tracer_provider=NoOpTracerProvider())
        for number, receiver in enumerate(receivers):
            await ClosureAgent.register_closure(
                runtime, f"subscriber_{number}", receiving(receiver), subscriptions=lambda: [DefaultSubscription()]
            )
        return runtime

    async def deliver(count: int, times: int) -> None:
        receivers = subscribers(count)
        runtime = await subscribed(receivers)
        for size in batches(times):
            for _ in range(size):
                await runtime.publish_message(event, topic)
            runtime.start()
            await runtime.stop_when_idle()
        check(receivers, times)

    async def publish(count: int, times: int) -> None:
        receivers = subscribers(count)
        for size in batches(times):
            runtime = await subscribed(receivers)
            for _ in range(size):
                await runtime.publish_message(event, topic)
            check_count(runtime.unprocessed_messages_count, size)

    return Bench(cases(deliver, publish))


if __name__ == "__main__":
    serve(load, ["autogen-core"])
