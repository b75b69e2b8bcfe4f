"""A ledger of many events, and how long it takes to write and to read: `python benchmarks/ledger_scale.py --help`.

The events are those of an application with tenants, nested runs, retries and failures, spread over the days of a month,
and the same each time. They go through the real ledger, with its commits and roll-ups. Nothing here is a part of
`runmeter bench`: ten million events take some minutes and five gigabytes.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from runmeter.engine import (
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    ModelCallStarted,
    PriceBook,
    Provenance,
    SQLiteLedger,
    Status,
    SystemClock,
    TokenUsage,
    Usage,
)

DAY_NS = 86_400 * 10**9
FIRST_DAY_NS = 1_793_491_200 * 10**9
"""2026-11-01."""
DAYS = 30
TENANTS = 40
PATTERNS = ("routing", "openai_rag", "augmented_llm", "openai_function_calling")
MODELS = ("gpt-6-luna", "gpt-6.1-terra", "gpt-5-mini")
BATCH = 1_000
BACKLOG = 20_000
"""Events that wait in memory, at most, while a ledger is filled."""


class Scene:
    """An application's runs, one after another.

    Args:
        events: How many events they have, about; they are spread over the days.
        seed: Of all that is random.
    """

    def __init__(self, events: int, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._step_ns = DAYS * DAY_NS // max(events, 1)
        self._now_ns = FIRST_DAY_NS
        self._seq: dict[str, int] = {}

    def events(self) -> Iterator[Event]:
        """Make events without end."""
        while True:
            self._seq.clear()
            pattern, tenant = self._random.choice(PATTERNS), f"tenant-{self._random.randrange(TENANTS):03}"
            yield from self._run(pattern, {"tenant": tenant, "tier": "free" if tenant < "tenant-030" else "paid"})

    def _run(self, pattern: str, tags: dict[str, str], above: str | None = None) -> Iterator[Event]:
        run_id = f"{self._random.getrandbits(128):032x}"
        begun = self._tick()
        framework = "openai" if pattern.startswith("openai") else "langgraph"
        yield ExecutionStarted(
            **self._head(run_id),
            pattern=pattern,
            framework=framework,
            root_run_id=above or run_id,
            parent_run_id=above,
            tags=tags,
        )
        for _ in range(self._random.choice((1, 1, 2, 3))):
            yield from self._request(run_id)
        if self._random.random() < 0.5:
            now = self._tick()
            yield FunctionCall(**self._head(run_id), name="find_parcel", start_ns=now, duration_ns=self._duration())
        if above is None and self._random.random() < 0.3:
            yield from self._run(f"{pattern}.specialist", tags, run_id)
        status = Status.OK if self._random.random() < 0.98 else Status.ERROR
        error = None if status is Status.OK else "RateLimitError"
        taken = self._tick() - begun
        yield ExecutionFinished(**self._head(run_id), status=status, duration_ns=taken, error_type=error)

    def _request(self, run_id: str) -> Iterator[Event]:
        model, begun = self._random.choice(MODELS), self._tick()
        head = self._head(run_id)
        asked: dict[str, Any] = {"provider": "openai", "operation": "chat", "model": model, "service_tier": "default"}
        bound = Usage(8_000, 1_000)
        yield ModelCallStarted(**head, call_id=head["seq"], api="responses", bound=bound, **asked)
        if self._random.random() < 0.00005:  # what a crash leaves
            return
        known = self._random.random() < 0.995
        read = self._random.randrange(0, 6_000)
        usage = Usage(read + self._random.randrange(50, 2_000), self._random.randrange(5, 800), cache_read_tokens=read)
        yield TokenUsage(
            **self._head(run_id),
            call_id=head["seq"],
            provenance=Provenance.REPORTED if known else Provenance.UNKNOWN,
            usage=usage if known else None,
            start_ns=begun,
            duration_ns=self._duration(),
            first_chunk_ns=self._duration() // 4,
            response_id=f"resp_{self._random.getrandbits(96):024x}",
            response_model=model,
            finish_reasons=("completed",) if known else (),
            error_type=None if known else "APITimeoutError",
            bound=None if known else bound,
            **asked,
        )

    def _head(self, run_id: str) -> "dict[str, Any]":
        seq = self._seq.get(run_id, 0)
        self._seq[run_id] = seq + 1
        return {"run_id": run_id, "seq": seq, "time_ns": self._now_ns}

    def _tick(self) -> int:
        self._now_ns += self._random.randrange(2 * self._step_ns + 1)
        return self._now_ns

    def _duration(self) -> int:
        return int(self._random.lognormvariate(20.5, 0.7))


def fill(path: Path, count: int) -> None:
    """Write so many events, as fast as they are made and committed."""
    ledger = SQLiteLedger(path)
    book = PriceBook()
    book.load()
    ledger.open(book, SystemClock())
    events = Scene(count).events()
    begun = time.perf_counter()
    for done in range(0, count, BATCH):
        ledger.put(list(islice(events, min(BATCH, count - done))))
        while ledger.statistics().pending > BACKLOG:
            time.sleep(0.01)
        if done % 500_000 == 0:
            print(f"{done:,} events, {time.perf_counter() - begun:,.0f} s", flush=True)
    ledger.close(3_600)
    taken = time.perf_counter() - begun
    print(f"{count:,} events in {taken:,.0f} s, made and rolled up ({count / taken:,.0f}/s); {size(path)}")


def throughput(path: Path, count: int) -> None:
    """Measure what committing costs, with events that were made before."""
    book = PriceBook()
    book.load()
    events = list(islice(Scene(count).events(), count))
    ledger = SQLiteLedger(path)
    ledger.open(book, SystemClock())
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, count, BATCH):
        ledger.put(events[start : start + BATCH])
        while ledger.statistics().pending > BACKLOG:
            time.sleep(0.001)
    while ledger.statistics().pending:
        time.sleep(0.001)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    commits = ledger.statistics().commits
    print(f"durable: {count / wall:,.0f} events/s in {commits:,} commits, CPU {cpu / count * 1e6:.1f} µs an event")
    ledger.close(3_600)


def read(path: Path) -> None:
    """Measure the commands that read, each in a process of its own."""
    command = [sys.executable, "-m", "runmeter"]
    opening = "from runmeter.engine import LedgerReader; import time; t = time.perf_counter(); "
    opening += f"LedgerReader({str(path)!r}).close(); print(f'{{time.perf_counter() - t:.4f}} s')"
    cases = {
        "opening": [sys.executable, "-c", opening],
        "usage of a day": [*command, "usage", str(path), "--since", "2026-11-15", "--until", "2026-11-16"],
        "usage of all": [*command, "usage", str(path), "--by", "tag:tenant,model"],
        "usage by day and pattern": [*command, "usage", str(path), "--by", "day,pattern", "--format", "csv"],
        "newest runs": [*command, "runs", str(path), "--limit", "20"],
        "slowest runs": [*command, "runs", str(path), "--slowest", "--limit", "20"],
        "dearest runs": [*command, "runs", str(path), "--dearest", "--limit", "20"],
        "runs with a tag": [*command, "runs", str(path), "--tag", "tenant=tenant-007", "--limit", "20"],
    }
    for name, arguments in cases.items():
        begun = time.perf_counter()
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, env={**os.environ, "COLUMNS": "120"}) as process:  # noqa: S603
            out = process.stdout.read() if process.stdout else b""
            _, code, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(code)
        taken = time.perf_counter() - begun
        said = out.decode().strip() if name == "opening" else f"{len(out.splitlines()):,} lines"
        cpu = used.ru_utime + used.ru_stime
        print(f"{name:26} {taken:6.2f} s, CPU {cpu:5.2f} s, {used.ru_maxrss / 1024:4.0f} MB, {said}")


def size(path: Path) -> str:
    """Tell a file's size, and this process's memory."""
    return f"{path.stat().st_size / 2**30:.2f} GiB, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fill", "throughput", "read"])
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--events", type=int, default=10_000_000)
    options = parser.parse_args()
    if options.what == "read":
        read(options.ledger)
    else:
        {"fill": fill, "throughput": throughput}[options.what](options.ledger, options.events)


if __name__ == "__main__":
    main()
