# /// script
# requires-python = ">=3.11"
# dependencies = ["pyee==13.0.1", "msgspec==0.22.0"]
# ///
"""What an event costs: a pyee event emitter.

`emit` calls the listeners before it returns, so publishing is delivery. It is the plain `EventEmitter`: the one for
asyncio does the same for a plain listener, and more.
"""

from bus.counting import cases, check, make_event, subscribers
from worker import Bench, serve


def load() -> Bench:
    from pyee import EventEmitter

    event = make_event()

    def deliver(count: int, times: int) -> None:
        emitter = EventEmitter()
        receivers = subscribers(count)
        for receiver in receivers:
            emitter.add_listener("finished", receiver.take)
        for _ in range(times):
            emitter.emit("finished", event)
        check(receivers, times)

    return Bench(cases(deliver))


if __name__ == "__main__":
    serve(load, ["pyee", "msgspec"])
