"""Forks the workers of a fleet, which ask a model under one shared cap; the test kills some of them and counts.

Reads one JSON line: the ledger's path, a file for what was billed, how many workers there are, tasks in each, requests
of each task at most, the cap in tokens, and how many workers are killed. A killed one's place is taken by another.
Writes one JSON line for each worker that ended by itself, with its own statistics.
"""

import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from budget_support import FlatPrices, request

from runmeter.engine import Budget, BudgetExceeded, BudgetUnavailable, Engine, SQLiteLedger, Usage, current_execution

BOUND = 10
"""Tokens that a request may use."""


async def work(path: Path, bill: Path, tasks: int, requests: int, cap: int, seed: int) -> None:
    """Be a worker: each task makes its requests, until one is refused."""
    chance, account = random.Random(seed), os.open(bill, os.O_WRONLY | os.O_APPEND)  # noqa: S311
    refused = 0

    async def ask(messages: Any, context: Any) -> None:
        execution = current_execution()
        async with execution.reserve(request(read=BOUND, written=0)) as asked:
            with execution.model_call(asked) as call:
                used = chance.randint(1, BOUND)
                os.write(account, b"%d\n" % used)  # it has left, and is billed whatever becomes of this process
                await anyio.sleep(chance.random() / 200)
                call.record(Usage(input_tokens=used))

    async def task() -> None:
        nonlocal refused
        for _ in range(requests):
            try:
                await engine.run(ask, "hi")
            except BudgetUnavailable:
                raise
            except BudgetExceeded:
                refused += 1
                return

    budget = Budget(tokens=cap, shared=True, warn_at=None)
    async with Engine(prices=FlatPrices(), budgets=[budget], ledger=SQLiteLedger(path)) as engine:
        async with anyio.create_task_group() as group:
            for _ in range(tasks):
                group.start_soon(task)
        await task()  # some were refused for what others had only reserved
        total = engine.usage().total
        [status] = engine.budgets()
    said = {
        "requests": total.requests,
        "tokens": total.usage.input_tokens,
        "refused": refused,
        "left": int(status.available),
    }
    os.write(1, json.dumps(said).encode() + b"\n")


def fork(given: dict[str, Any], seed: int) -> int:
    """Start a worker. Gives its process's id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            path, bill = Path(given["path"]), Path(given["bill"])
            anyio.run(work, path, bill, given["tasks"], given["requests"], given["cap"], seed)
            code = 0
        finally:
            os._exit(code)
    return child


def main() -> None:
    """Start all workers, kill some at random moments, and wait for the others."""
    given = json.loads(sys.stdin.readline())
    chance = random.Random(given["cap"])  # noqa: S311
    alive = {fork(given, seed) for seed in range(given["workers"])}
    for seed in range(given["kills"]):
        time.sleep(0.2 + chance.random())
        victim = chance.choice(sorted(alive))
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        alive.remove(victim)
        os.waitpid(victim, 0)
        alive.add(fork(given, 1_000 + seed))
    failed = [pid for pid in alive if os.waitpid(pid, 0)[1] != 0]
    sys.exit(f"workers failed: {failed}" if failed else 0)


if __name__ == "__main__":
    main()
