"""Killed at any moment, a process has lost nothing that the ledger promised; what had not ended is listed as lost."""

import json
import random
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from campaign_support import shortly
from faulty_ledger import BOOK, folded, open_file
from process_support import output_of, python, started

from runmeter.engine import LedgerReader, ModelCallStarted, UsageStatistics
from runmeter.engine.ledger.roll_up import RollUp
from runmeter.engine.usage.statistics import statistics_of

SUPPORT = Path(__file__).parents[2] / "support"
BATCH = 20
"""Crashes on one file."""

MOST_LINES = {"group": 8, "run": 25, "request": 40}
"""Lines after which it is killed, at most: a process says one a commit, a run, or a run and a request."""

Crash = Callable[[Path, str, int], list[str]]


@pytest.fixture
def crash() -> Iterator[Crash]:
    with started([sys.executable, SUPPORT / "engine" / "crasher.py"], stdin=-1, stderr=None) as crasher:

        def crash(path: Path, commit: str, after: int) -> list[str]:
            assert crasher.stdin is not None
            assert crasher.stdout is not None
            print(json.dumps({"path": str(path), "commit": commit, "after": after}), file=crasher.stdin, flush=True)
            said: list[str] = json.loads(crasher.stdout.readline())
            return said

        yield crash


def summed(reader: LedgerReader) -> UsageStatistics:
    total = UsageStatistics()
    for day in reader.days():
        total += statistics_of([(day.cell.key, day.cell.row)], 0, 0)
    return total


# The short form has as many moments as a few seconds have room for; a campaign 200 for each promise.
@pytest.mark.parametrize("batch", shortly(range(11), lambda batch: batch == 0))
@pytest.mark.parametrize("commit", ["group", "run", "request"])
def test_a_killed_process_has_lost_nothing_that_was_promised(
    tmp_path: Path, crash: Crash, commit: str, batch: int
) -> None:
    path, chance = tmp_path / "runs.db", random.Random(f"{commit} {batch}")  # noqa: S311
    told: set[str] = set()
    leaving: set[tuple[str, int]] = set()
    for _ in range(BATCH if batch else 3):
        for line in crash(path, commit, chance.randint(1, MOST_LINES[commit])):
            kind, *words = line.split()
            if kind == "leaves":
                leaving.add((words[0], int(words[1])))
            else:
                told.update(words)
        check(path, told, leaving)


def check(path: Path, told: set[str], leaving: set[tuple[str, int]]) -> None:
    """Look at what a crash has left, before any other process writes it, and after one does."""
    with LedgerReader(path, BOOK) as reader:
        events = list(reader.events())
        runs = {run.run_id: run for run in reader.runs()}
        assert told <= {run_id for run_id, run in runs.items() if run.status is not None}
        sequences: dict[str, list[int]] = defaultdict(list)
        for event in events:
            sequences[event.run_id].append(event.seq)
        assert all(len(set(sequence)) == len(sequence) for sequence in sequences.values()), "nothing is there twice"
        assert all(sequences[run_id] == list(range(len(sequences[run_id]))) for run_id in told), "nothing is missing"
        asked = {(event.run_id, event.call_id) for event in events if isinstance(event, ModelCallStarted)}
        assert leaving <= asked
        live = folded(events)
        assert reader.replay() == live
        assert summed(reader).cells == live.cells
        for run in reader.unended_runs():
            assert run.lost
            assert run.run_id not in told
        for request in reader.unended_requests():
            assert request.lost
            assert request.started is not None
            assert request.started.bound is not None, "it may have been billed up to that"
    store = open_file(path)
    while RollUp(store, BOOK)("closing"):
        pass
    store.close()
    with LedgerReader(path, BOOK) as reader:
        assert summed(reader).cells == live.cells


_ACKNOWLEDGING = """
import os, anyio
from runmeter.engine import Engine, SQLiteLedger
async def nothing(messages, context): pass
async def main():
    async with Engine(ledger=SQLiteLedger("runs.db", commit="run")) as engine:
        for number in range(20):
            result = await engine.run(nothing, "")
            os.write(1, b"kept" if result.durable else b"lost")
anyio.run(main)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace")
def test_acknowledgement_follows_the_fsync(tmp_path: Path) -> None:
    """Between the last write to the log and the acknowledgement lies a sync of the log, which has returned."""
    log = tmp_path / "trace"
    calls = "trace=write,pwrite64,fsync,fdatasync"
    output_of(["strace", "-f", "-y", "-e", calls, "-o", log, *python(_ACKNOWLEDGING)], cwd=tmp_path)
    done = list(completed(log.read_text(encoding="utf-8", errors="replace").splitlines()))
    acknowledged = 0
    synced = dirty = False
    for call in done:
        if "runs.db-wal>" in call:
            synced, dirty = ("sync(" in call), ("write" in call)
        elif '"kept"' in call:
            assert synced
            assert not dirty
            acknowledged += 1
            synced = False  # the next one needs its own
    assert acknowledged == 20


def completed(lines: list[str]) -> Iterator[str]:
    """The system calls of a trace, in the order in which they returned."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, _, call = line.partition(" ")
        if call.endswith("<unfinished ...>"):
            begun[thread] = call
        elif "resumed>" in call:
            yield begun.pop(thread, "") + re.sub(r"^.*resumed>", "", call)
        else:
            yield call


def test_a_number_of_a_process_that_another_has_by_now_counts_as_gone(tmp_path: Path, crash: Crash) -> None:
    """In a container each start has the same number."""
    path = tmp_path / "runs.db"
    crash(path, "request", 7)
    store = open_file(path)
    with store.transaction() as connection:
        connection.execute("UPDATE writers SET pid = (SELECT pid FROM writers ORDER BY id DESC LIMIT 1)")
    with LedgerReader(path) as reader:
        unended: list[Any] = reader.unended_runs()
        assert unended
        assert all(run.lost for run in unended)
    store.close()


def test_a_process_of_another_host_is_gone_once_it_is_silent(tmp_path: Path, crash: Crash) -> None:
    path = tmp_path / "runs.db"
    crash(path, "request", 7)
    store = open_file(path)
    for silence, gone in ((0, False), (60, False), (3_600, True)):
        with store.transaction() as connection:
            connection.execute(
                "UPDATE writers SET host = 'another', seen_ns = (SELECT max(seen_ns) FROM writers) - ? WHERE id = 1",
                (silence * 10**9,),
            )
        with LedgerReader(path) as reader:
            unended: list[Any] = reader.unended_runs()
            assert unended
            assert {run.lost for run in unended} == {gone}
    store.close()
