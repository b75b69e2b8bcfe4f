# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""The limits of Python itself: a dict for an event, `list.append` for a bus, a dict's `+=` for statistics.

Nothing is checked, nobody is woken, nothing is isolated from anything. What is below these cannot be written in Python.
"""

from worker import Bench, Work, serve


def load() -> Bench:  # noqa: C901 - a function for each case
    from contextvars import ContextVar

    from engine.call import TOOL_CALL, blocks, in_turn, latencies

    values = tuple(TOOL_CALL.values())

    def build(times: int) -> None:
        run_id, seq, time_ns, trace, name, start_ns, duration_ns, call_id, error_type, error_message = values
        for _ in range(times):
            _event = {
                "run_id": run_id,
                "seq": seq,
                "time_ns": time_ns,
                "trace": trace,
                "name": name,
                "start_ns": start_ns,
                "duration_ns": duration_ns,
                "call_id": call_id,
                "error_type": error_type,
                "error_message": error_message,
            }

    def publish(times: int) -> None:
        log: list[object] = []
        for size in blocks(times):
            for _ in range(size):
                log.append(TOOL_CALL)  # noqa: PERF401 - the very thing that is measured
            log.clear()

    def histogram_add(times: int) -> None:
        counts: dict[int, int] = {}
        for value in in_turn(latencies(), times):
            bucket = value.bit_length()
            counts[bucket] = counts.get(bucket, 0) + 1

    class Nothing:
        def __enter__(self) -> "Nothing":
            return self

        def __exit__(self, *_: object) -> None:
            return None

    current: ContextVar[Nothing] = ContextVar("current", default=Nothing())  # noqa: B039 - has no state

    def emit_site(times: int) -> None:
        for _ in range(times):
            with current.get():
                pass

    async def nothing(messages: object, context: object) -> None:
        return None

    async def empty_run(times: int) -> None:
        for _ in range(times):
            await nothing("", None)

    cases: dict[str, Work] = {
        "build an event": build,
        "publish": publish,
        "histogram add": histogram_add,
        "emit site with no engine": emit_site,
        "empty run": empty_run,
    }
    return Bench(cases)


if __name__ == "__main__":
    serve(load, [])
