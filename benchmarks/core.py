"""What do publishing, folding and an empty run cost? Run: .venv/bin/python benchmarks/core.py [runs]

Every figure is a ratio to something measured in the same round, and the median over rounds: machines differ and are
noisy, ratios travel. The last part runs an empty pattern (by default 100,000 times) and prints the process's memory as
it goes: it must not grow.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable

import anyio

from runmeter.engine import (
    Bus,
    Engine,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    Provenance,
    Status,
    TokenUsage,
    Usage,
    UsageAggregator,
)
from runmeter.engine.testing import Recorder

ROUNDS = 15
EVENTS = 20_000


def finished(seq: int) -> Event:
    return ExecutionFinished(run_id="1" * 32, seq=seq, time_ns=1, status=Status.OK, duration_ns=1)


def cpu_ns(work: Callable[[], object]) -> float:
    """CPU time of one call of `work` in ns for each of its EVENTS events."""
    start = time.process_time_ns()
    work()
    return (time.process_time_ns() - start) / EVENTS


def append_all(event: Event) -> None:
    log: list[Event] = []
    for _ in range(EVENTS):
        log.append(event)  # noqa: PERF401 - the very thing that is measured


def publish_all(bus: Bus, event: Event) -> None:
    for _ in range(EVENTS):
        bus.publish(event)


def build_and_publish_all(bus: Bus) -> None:
    for seq in range(EVENTS):
        bus.publish(finished(seq))


async def bus_with(subscribers: int, work: Callable[[Bus], object]) -> float:
    async with Bus(linger=0) as bus:
        for number in range(subscribers):
            bus.subscribe(Recorder(), name=str(number), lane="lossless")
        bus.publish(finished(0))
        cost = cpu_ns(lambda: work(bus))
        await bus.drain(10)
    return cost


def events_of_runs() -> list[Event]:
    """Runs of one model call each: three events a run that statistics and prices care about."""
    events: list[Event] = []
    for number in range(EVENTS // 3):
        run = f"{number + 1:032x}"
        events += [
            ExecutionStarted(run_id=run, seq=0, time_ns=1, pattern="p", framework="f", root_run_id=run),
            TokenUsage(
                run_id=run,
                seq=1,
                time_ns=1_795_305_600_000_000_000,
                call_id=1,
                provider="openai",
                operation="chat",
                model="gpt-6-luna",
                provenance=Provenance.REPORTED,
                usage=Usage(input_tokens=1_000 + number % 97, output_tokens=100, cache_read_tokens=512),
                start_ns=1_795_305_600_000_000_000,
                duration_ns=10_000_000 + number,
            ),
            ExecutionFinished(run_id=run, seq=2, time_ns=1, status=Status.OK, duration_ns=11_000_000 + number),
        ]
    return events


async def ratios() -> None:
    event, runs = finished(0), events_of_runs()
    rounds: dict[str, list[float]] = {}
    aggregator = UsageAggregator()
    aggregator.prices.load()
    for _ in range(ROUNDS):
        append = cpu_ns(lambda: append_all(event))
        one = await bus_with(1, lambda bus: publish_all(bus, event))
        ten = await bus_with(10, lambda bus: publish_all(bus, event))
        build = await bus_with(1, build_and_publish_all)
        fold = cpu_ns(lambda: UsageAggregator(aggregator.prices).fold(runs))
        for name, value in {
            "publish, 1 subscriber / list.append": one / append,
            "publish, 10 subscribers / list.append": ten / append,
            "build + publish one event / list.append": build / append,
            "fold one event into usage and cost / list.append": fold / append,
        }.items():
            rounds.setdefault(name, []).append(value)
    for name, values in rounds.items():
        low, *_, high = statistics.quantiles(values, n=10)
        print(f"{name:50} {statistics.median(values):6.2f}   (80 % of rounds: {low:.2f}–{high:.2f})")


async def nothing(messages: object, context: object) -> None:
    return None


async def empty_runs(count: int) -> None:
    async with Engine() as engine:
        start = time.process_time()
        for number in range(1, count + 1):
            await engine.run(nothing, "")
            if number % (count // 10) == 0:
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                cost = (time.process_time() - start) / number * 1e6
                print(f"{number:9,} runs: peak memory {memory} MB, {cost:.1f} µs CPU a run")
        assert engine.usage().total.executions == count


if __name__ == "__main__":
    anyio.run(ratios)
    anyio.run(empty_runs, int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
