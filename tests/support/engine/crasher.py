"""Starts processes that keep runs in a ledger, and kills them; the test looks at what they leave.

Reads one JSON line after another: the ledger's path, its promise, and after how many lines that the process says it is
killed. Writes the lines that it had said until then, as JSON. Processes are forked, so as not to import all again.
"""

import json
import os
import random
import signal
import sys
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint

from runmeter.engine import Engine, ExecutionFinished, ModelRequest, RunInfo, SQLiteLedger, Usage
from runmeter.engine.ledger import roll_up, sqlite
from runmeter.engine.ledger.ledger_file import LedgerFile
from runmeter.engine.runs.current import current_execution

TASKS = 8
REQUEST = ModelRequest(provider="openai", model="gpt-6-luna", bound=Usage(input_tokens=1_000, output_tokens=1_000))


def say(*words: object) -> None:
    """Say something in one write: it is said or it is not."""
    os.write(1, " ".join(map(str, words)).encode() + b"\n")


class TellingFile(LedgerFile):
    """Says which runs have ended in each group that is on disk."""

    def append(self, events: Any) -> int:
        added = super().append(events)
        say("committed", *[event.run_id for event in events if isinstance(event, ExecutionFinished)])
        return added


async def work(messages: Any, context: Any, *, tells_requests: bool) -> None:
    """Ask twice, once in a run within this one."""
    execution = current_execution()
    async with execution.model_call(REQUEST) as call:
        if tells_requests:
            say("leaves", execution.run_id, call.call_id)
        await checkpoint()
        call.record(Usage(input_tokens=10, output_tokens=1))
    with execution.child(RunInfo("helper")) as helper:
        async with helper.model_call(REQUEST) as call:
            if tells_requests:
                say("leaves", helper.run_id, call.call_id)
            await anyio.sleep(random.random() / 200)  # noqa: S311 - any moment does
            call.record(Usage(input_tokens=10, output_tokens=1))


async def keep_running(path: str, commit: Any) -> None:
    """Run on and on."""
    if commit == "group":
        setattr(sqlite, "LedgerFile", TellingFile)  # noqa: B010 - which it imports, and does not export
    roll_up.WORTH_IT = {"busy": 50, "idle": 20, "closing": 1}  # so that some die in the middle of it
    roll_up.STRETCH = 50
    execute = partial(work, tells_requests=commit == "request")

    async with Engine(ledger=SQLiteLedger(path, commit=commit, window=0.005)) as engine:

        async def run_on() -> None:
            while True:
                result = await engine.run(named(execute), "hi", tags={"tenant": "acme"})
                if commit != "group":
                    assert result.durable
                    say("returned", result.run_id)

        async with anyio.create_task_group() as tasks:
            for _ in range(TASKS):
                tasks.start_soon(run_on)


def named(execute: Any) -> Any:
    """Make it a function with a name."""

    async def worker(messages: Any, context: Any) -> None:
        await execute(messages, context)

    return worker


def crash(path: str, commit: str, after: int) -> list[str]:
    """Have a process keep runs, kill it after so many lines, and give all that it has said."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        os.dup2(writes, 1)
        anyio.run(keep_running, path, commit)
        os._exit(1)
    os.close(writes)
    with os.fdopen(reads) as said:
        lines = [said.readline() for _ in range(after)]
        os.kill(child, signal.SIGKILL)
        lines += said.readlines()
    os.waitpid(child, 0)
    return [line.strip() for line in lines if line.endswith("\n")]


def main() -> None:
    """Crash once for each line."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(crash(**json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
