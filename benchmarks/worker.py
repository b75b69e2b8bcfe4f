"""A peer's process: it is told what to do by lines of JSON on stdin, and answers each with one on stdout.

This file is imported by every peer's script, in environments that have nothing in common, so it needs Python alone.
Whoever asks is `runmeter bench`; by hand a script runs with `uv run --script FILE CASE`, which times that one case.
"""

# What is imported here is not timed as a part of what peers import, so it is next to nothing.
import os
import resource
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from typing import Any, TypeAlias

    Work: TypeAlias = Callable[[int], Awaitable[object]] | Callable[[int], object]
else:
    Work = object
"""Does what a case asks for so many times."""

CALIBRATION_LOOPS = 100_000


class Bench:
    """What a peer can do.

    Args:
        cases: By name. Peers of one question give the same names to the same work; a peer may lack some.
        asked: Returns what the model has been asked since the last time, and forgets it.
        close: Called at the end.
        checks: Returns figures for the record, such as how many events a run has. Called once, after `load` was timed.
        collects: Whether garbage is collected within measurements, too.
    """

    def __init__(
        self,
        cases: "Mapping[str, Work]",
        asked: "Callable[[], list[Any]]" = list,
        close: "Callable[[], Awaitable[object]] | None" = None,
        checks: "Callable[[], Mapping[str, int]]" = dict,
        *,
        collects: bool = False,
    ) -> None:
        self.cases = cases
        self.asked = asked
        self.close = close
        self.checks = checks
        self.collects = collects


def in_a_row(run: "Callable[[], Awaitable[object]]") -> Work:
    """One run after the other."""

    async def work(times: int) -> None:
        for _ in range(times):
            await run()

    return work


def at_once(run: "Callable[[], Awaitable[object]]", number: int) -> Work:
    """So many runs at once, again and again."""
    import asyncio

    async def work(times: int) -> None:
        for _ in range(0, times, number):
            await asyncio.gather(*[run() for _ in range(number)])

    return work


def serve(load: "Callable[[], Bench]", distributions: "Iterable[str]") -> None:
    """Answer until stdin ends.

    Args:
        load: Imports the peer, and returns what it can do. Its time is the peer's import time, so the script's own
            top level imports nothing but the standard library.
        distributions: What the peer is made of: their versions go into the record.
    """
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # Else a script would be imported in place of the library that it is named after.
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.realpath(sys.argv[0]))]
    before = _rss()
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    import asyncio  # what all peers need, whether their scripts' helpers import it or not

    bench = load()
    took = {
        "import_cpu_ns": time.process_time_ns() - cpu,
        "import_wall_ns": time.perf_counter_ns() - wall,
        "import_rss": _rss() - before,
    }
    import gc
    import json
    from importlib.metadata import version

    ready = {
        **took,
        "cases": list(bench.cases),
        "versions": {name: version(name) for name in distributions},
        "python": sys.version.split()[0],
        "checks": dict(bench.checks()),
    }
    # As `timeit` does it. Else whoever happens to pass a threshold pays for looking through everybody's objects. What
    # was imported is frozen, so that the collection before each measurement has little to look through.
    gc.collect()
    gc.freeze()
    if not bench.collects:
        gc.disable()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        if len(sys.argv) > 1:
            print(json.dumps(ready | _measure(loop, bench.cases[sys.argv[1]], 100), indent=1), file=answers)
            return
        print(json.dumps(ready), file=answers)
        for line in sys.stdin:
            try:
                answer = _obey(loop, bench, json.loads(line))
            except Exception as error:  # whatever it is, it is the answer
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers)
        if bench.close is not None:
            loop.run_until_complete(bench.close())


def _obey(loop: "asyncio.AbstractEventLoop", bench: Bench, command: "Mapping[str, Any]") -> "dict[str, Any]":
    """`{"case": NAME, "times": N}` measures; with `"asked": true` it tells what the model was asked instead."""
    work = bench.cases[command["case"]]
    if command.get("asked"):
        bench.asked()
        _do(loop, work, command["times"])
        return {"asked": bench.asked()}
    return _measure(loop, work, command["times"])


def _measure(loop: "asyncio.AbstractEventLoop", work: Work, times: int) -> "dict[str, Any]":
    """What it took, between two runs of the same loop that tell how fast the machine is just now."""
    import gc

    gc.collect()
    before = calibrate()
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    _do(loop, work, times)
    cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
    return {
        "times": times,
        "cpu_ns": cpu,
        "wall_ns": wall,
        "calibration_ns": [before, calibrate()],
        "rss": _rss(),
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _do(loop: "asyncio.AbstractEventLoop", work: Work, times: int) -> None:
    done = work(times)
    if hasattr(done, "__await__"):
        loop.run_until_complete(_await(done))


async def _await(done: "Awaitable[object]") -> None:
    await done


def calibrate() -> int:
    """CPU time of a loop that is always the same, in ns. Of this thread: a peer may have others that work on."""
    start = time.thread_time_ns()
    total = 0
    for number in range(CALIBRATION_LOOPS):
        total += number & 7
    return time.thread_time_ns() - start


def _rss() -> int:
    """The process's memory now, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
