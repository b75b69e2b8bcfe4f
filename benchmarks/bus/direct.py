# /// script
# requires-python = ">=3.11"
# dependencies = ["msgspec==0.22.0"]
# ///
"""What an event costs without a bus: a function is called for each subscriber.

"list.append" is the least that keeping an event for later can cost.
"""

from bus.counting import batches, cases, check, check_count, make_event, subscribers
from worker import Bench, serve


def load() -> Bench:
    event = make_event()

    def deliver(count: int, times: int) -> None:
        receivers = subscribers(count)
        callbacks = [receiver.take for receiver in receivers]
        for _ in range(times):
            for callback in callbacks:
                callback(event)
        check(receivers, times)

    def append(times: int) -> None:
        for size in batches(times, 100_000):  # as many as the bus of runmeter.py keeps
            log: list[object] = []
            for _ in range(size):
                log.append(event)  # noqa: PERF401 - the very thing that is measured
            check_count(len(log), size)

    return Bench({**cases(deliver), "list.append": append})


if __name__ == "__main__":
    serve(load, ["msgspec"])
