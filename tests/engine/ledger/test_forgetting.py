"""Forgetting: the value is gone from the ledger's files to the last byte, and no sum has changed."""

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from faulty_ledger import BOOK, open_file

from runmeter.cli.main import runmeter
from runmeter.engine import (
    Budget,
    ConfigurationError,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    LedgerError,
    LedgerReader,
    Notice,
    Provenance,
    Status,
    TokenUsage,
    Usage,
)
from runmeter.engine.budgets.lease_reports import key_of
from runmeter.engine.ledger.forgetting import FORGOTTEN, count_tagged, forget_tag
from runmeter.engine.ledger.roll_up import RollUp
from runmeter.engine.ledger.spending_roll_up import SpendingRollUp
from runmeter.engine.usage.row import sum_rows

SECRET = "Müller & Söhne"  # with letters and signs that JSON and SQL might write otherwise
TIME_NS = 1_790_000_000 * 10**9
BUDGETS = [Budget(usd=Decimal(5), per="customer", every="day"), Budget(calls=9, tags={"customer": SECRET}, every="day")]


def run(number: int, customer: str, *, parent: str | None = None) -> list[Event]:
    run_id = f"{number:032x}"
    root = parent or run_id
    return [
        ExecutionStarted(
            run_id=run_id, seq=0, time_ns=TIME_NS + number, pattern=f"p{number % 3}", framework="f", root_run_id=root,
            parent_run_id=parent, conversation_id=f"{customer}-{number}", tags={"customer": customer, "region": "eu"},
        ),
        TokenUsage(
            run_id=run_id, seq=1, time_ns=TIME_NS + number, call_id=1, attempt=1, provider="openai", operation="chat",
            model="gpt-6-luna", provenance=Provenance.REPORTED, usage=Usage(input_tokens=number, output_tokens=2),
            start_ns=TIME_NS + number, duration_ns=5, error_type="e", error_message=f"no room for {customer}!",
        ),
        Notice(
            run_id=run_id, seq=2, time_ns=TIME_NS, kind="budget", subject=f"$5 for customer={customer}",
            message=f"{customer} has spent 80 %",
        ),
        ExecutionFinished(
            run_id=run_id, seq=3, time_ns=TIME_NS + 9, status=Status.ERROR, duration_ns=9, error_type="e",
            error_message=f"{customer}: failed",
        ),
    ]  # fmt: skip


def made(path: Path) -> Path:
    """A ledger of several customers, half of it rolled up."""
    store = open_file(path)
    events = [event for n in range(1, 120) for event in run(n, SECRET if n % 4 else "other")]
    inner = run(500, "banana", parent=f"{1:032x}")  # within a run of the customer's, and with another tag
    inner[1] = ExecutionFinished(
        run_id=f"{500:032x}", seq=1, time_ns=1, status=Status.ERROR, duration_ns=1, error_message=f"for {SECRET}"
    )
    store.append([*events[:300], *inner[:2]])
    SpendingRollUp(store, BOOK).restore(BUDGETS, TIME_NS)
    while RollUp(store, BOOK)("closing"):
        pass
    with store.transaction() as connection:
        shared = Budget(calls=9, tags={"customer": SECRET}, every="day", shared=True, name=f"{SECRET} daily")
        connection.execute("INSERT INTO shared_budgets (key) VALUES (?)", (key_of(shared, "calls"),))
    store.append(events[300:])
    store.close()
    return path


def sums(path: Path) -> Any:
    with LedgerReader(path, BOOK) as reader:
        return reader.replay().total, sum_rows(day.cell.row for day in reader.days())


def bytes_of(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in sorted(path.parent.iterdir()))


def test_the_value_is_gone_and_all_sums_are_as_before(tmp_path: Path) -> None:
    path = made(tmp_path / "runs.db")
    before = sums(path)
    assert SECRET.encode() in bytes_of(path)
    found = count_tagged(path, "customer", SECRET)
    assert SECRET.encode() in bytes_of(path), "only counted"
    told: list[tuple[int, int]] = []
    done = forget_tag(path, "customer", SECRET, lambda count, total: told.append((count, total)))
    assert done == found
    assert (done.runs, done.log_is_empty) == (90, True)
    assert done.day_rows == 6
    assert done.budgets == 3
    assert told[-1] == (90, 90)
    assert sorted(told) == told
    assert SECRET.encode() not in bytes_of(path)
    assert "Müller" not in bytes_of(path).decode(errors="replace")
    assert sums(path) == before
    with LedgerReader(path, BOOK) as reader:
        customers = {run.tags["customer"] for run in reader.runs()}
        assert customers == {FORGOTTEN, "other", "banana"}
        assert all(run.tags["region"] == "eu" for run in reader.runs())
        tree = list(reader.events([f"{1:032x}", f"{500:032x}"]))
        assert [event.error_message for event in tree if isinstance(event, ExecutionFinished)] == [
            f"{FORGOTTEN}: failed", f"for {FORGOTTEN}",
        ]  # fmt: skip
        assert {dict(day.cell.tags)["customer"] for day in reader.days()} == customers
    assert count_tagged(path, "customer", SECRET) == type(done)()


def test_a_second_value_joins_the_first(tmp_path: Path) -> None:
    path = made(tmp_path / "runs.db")
    before = sums(path)
    for value in (SECRET, "other"):
        forget_tag(path, "customer", value)
    assert sums(path) == before
    with LedgerReader(path, BOOK) as reader:
        assert {dict(day.cell.tags)["customer"] for day in reader.days()} == {FORGOTTEN, "banana"}
    store = open_file(path)
    spending = SpendingRollUp(store, BOOK).restore(BUDGETS[:1], TIME_NS)
    assert len({each.scope for each in spending}) == len(spending)
    store.close()


def test_only_whole_words_of_its_own_runs(tmp_path: Path) -> None:
    path = made(tmp_path / "runs.db")
    forget_tag(path, "customer", "an")
    assert b"banana" in bytes_of(path)
    forget_tag(path, "region", SECRET)
    assert SECRET.encode() in bytes_of(path), "another tag's"


def test_a_process_goes_on_with_a_run_that_was_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = open_file(path)
    events = run(1, SECRET)
    store.append(events[:2])
    forget_tag(path, "customer", SECRET)
    store.append(events[3:])
    while RollUp(store, BOOK)("closing"):
        pass
    store.close()
    with LedgerReader(path, BOOK) as reader:
        [kept] = reader.runs()
        assert (kept.tags["customer"], kept.status) == (FORGOTTEN, "error")
        assert {dict(day.cell.tags)["customer"] for day in reader.days()} == {FORGOTTEN}
        assert reader.replay().total == sum_rows(day.cell.row for day in reader.days())


def test_a_reader_can_keep_the_log(tmp_path: Path) -> None:
    path = made(tmp_path / "runs.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        assert not forget_tag(path, "customer", SECRET).log_is_empty
        reader.execute("COMMIT")
    assert forget_tag(path, "customer", SECRET).log_is_empty
    assert SECRET.encode() not in bytes_of(path)


def test_what_cannot_be_forgotten(tmp_path: Path) -> None:
    path = made(tmp_path / "runs.db")
    for value in ("", FORGOTTEN):
        with pytest.raises(ConfigurationError, match="the value to forget"):
            forget_tag(path, "customer", value)
    with pytest.raises(LedgerError, match="there is no ledger"):
        forget_tag(tmp_path / "none.db", "customer", SECRET)


def test_the_command(tmp_path: Path) -> None:
    path = made(tmp_path / "runs.db")
    command = ["forget", str(path), "--tag", f"customer={SECRET}"]
    shown = CliRunner().invoke(runmeter, [*command, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("would replace it in 90 runs, ")
    assert SECRET.encode() in bytes_of(path)
    done = CliRunner().invoke(runmeter, command)
    assert done.exit_code == 0, done.output
    assert done.stdout == shown.stdout.replace("would replace", "replaced")
    assert SECRET.encode() not in bytes_of(path)
    wrong = CliRunner().invoke(runmeter, ["forget", str(path), "--tag", "customer"])
    assert wrong.exit_code == 2
