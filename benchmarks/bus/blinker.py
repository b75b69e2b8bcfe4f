# /// script
# requires-python = ">=3.11"
# dependencies = ["blinker==1.9.0", "msgspec==0.22.0"]
# ///
"""What an event costs: a blinker signal.

`send` calls the receivers before it returns, so publishing is delivery. Receivers are connected to any sender, and
strongly: blinker needs not look whether they still exist.
"""

from collections.abc import Callable
from typing import Any

from bus.counting import Subscriber, cases, check, make_event, subscribers
from worker import Bench, serve


def load() -> Bench:
    from blinker import Signal

    event = make_event()

    def receiving(receiver: Subscriber) -> Callable[..., None]:
        def receive(sender: object, event: Any) -> None:
            receiver.received += event.duration_ns

        return receive

    def deliver(count: int, times: int) -> None:
        finished = Signal()
        receivers = subscribers(count)
        for receiver in receivers:
            finished.connect(receiving(receiver), weak=False)
        for _ in range(times):
            finished.send(event=event)
        check(receivers, times)

    return Bench(cases(deliver))


if __name__ == "__main__":
    serve(load, ["blinker", "msgspec"])
