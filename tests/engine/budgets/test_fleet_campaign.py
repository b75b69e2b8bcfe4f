"""Processes on one ledger, some of them killed: a shared cap is never passed, and what they add up to is exact."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from budget_support import FlatPrices
from campaign_support import shortly
from process_support import run_command

from runmeter.engine import LedgerReader

WORKER = Path(__file__).parents[2] / "support/engine/fleet_worker.py"


class Size(NamedTuple):
    workers: int
    tasks: int
    requests: int
    cap: int
    kills: int


KILLED = [Size(3, 15, 1_000, 2_000, 1), Size(8, 200, 1_000, 60_000, 12)]
LEFT_ALONE = [Size(4, 5, 10, 10**9, 0), Size(4, 50, 150, 10**9, 0)]


def fleet(path: Path, size: Size) -> tuple[list[dict[str, int]], list[int]]:
    """Run a fleet. Gives what the workers say that ended by themselves, and what was billed."""
    bill = path.with_name("bill")
    bill.touch()
    given = json.dumps({"path": str(path), "bill": str(bill)} | size._asdict())
    done = run_command([sys.executable, WORKER], text=given + "\n")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], [int(line) for line in bill.read_text().split()]


@pytest.mark.parametrize("size", shortly(KILLED, lambda size: size is KILLED[0]))
def test_a_shared_cap_is_never_passed_whoever_is_killed(size: Size, tmp_path: Path) -> None:
    said, billed = fleet(tmp_path / "runs.db", size)
    assert size.workers <= len(said) <= size.workers + size.kills  # one may have ended before it was to be killed
    assert sum(billed) <= size.cap
    assert all(each["refused"] == size.tasks + 1 for each in said)  # it was the cap that ended them
    # What is missing is what the killed ones had leased, and may have spent.
    with LedgerReader(tmp_path / "runs.db", FlatPrices()) as reader:
        spent, leased = counted(reader)
        assert size.cap - spent - leased < 10  # no more than the last request's bound is left
        assert sum(billed) <= spent + leased
        assert sum(billed) >= spent


@pytest.mark.parametrize("size", shortly(LEFT_ALONE, lambda size: size is LEFT_ALONE[0]))
def test_what_processes_say_of_themselves_adds_up(size: Size, tmp_path: Path) -> None:
    said, billed = fleet(tmp_path / "runs.db", size)
    asked = size.workers * (size.tasks + 1) * size.requests
    assert sum(each["requests"] for each in said) == asked == len(billed)
    with LedgerReader(tmp_path / "runs.db", FlatPrices()) as reader:
        rows = [day.cell.row for day in reader.days()]
        assert sum(row.requests for row in rows) == asked
        assert sum(row.usage.input_tokens for row in rows) == sum(each["tokens"] for each in said) == sum(billed)
        assert counted(reader) == (sum(billed), 0)
        assert not reader.unended_runs()


def counted(reader: LedgerReader) -> tuple[int, int]:
    """What the ledger holds as spent of the cap, and as leased."""
    connection = reader._connection
    [spent] = [sum(int(row[0]) for row in connection.execute("SELECT spent FROM shared_spending"))]
    rooms = connection.execute("SELECT room FROM leases UNION ALL SELECT reserved FROM lease_holds")
    return spent, sum(int(row[0]) for row in rooms)
