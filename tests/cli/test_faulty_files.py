"""Files that are damaged, or not what a command takes them for: one clear error, and nothing is written over."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ledger_support import Told, events_of, write_ledger

from runmeter.cli import main as cli
from runmeter.engine import LedgerReader, Usage


@pytest.mark.parametrize("command", ["export", "report"])
@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal", "-lock"])
def test_no_command_writes_over_what_belongs_to_a_ledger(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str, end: str
) -> None:
    ledger = write_ledger(tmp_path / "runs.db", events_of(Told(0xA1, "routing").asks(Usage(1_000, 100)).ends()))
    with pytest.raises(SystemExit) as ending:
        cli.run([command, str(ledger), "-o", f"{ledger}{end}"])
    assert ending.value.code == 2
    assert "is a file of the ledger" in capfd.readouterr().err
    assert not (tmp_path / f"runs.db{end}").exists() or end == "-lock"


@pytest.mark.parametrize("command", [["run", "augmented_llm", "hi", "--simulated"], ["demo", "--runs", "1"]])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_ledger_is_no_event_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: list[str], is_there: bool
) -> None:
    ledger = tmp_path / "runs.db"
    options = ["--events", str(ledger)]
    if is_there:
        write_ledger(ledger, events_of(Told(0xA1, "routing").ends()))
    else:
        options += ["--ledger", str(ledger)]
    with pytest.raises(SystemExit) as ending:
        cli.run([*command, *options])
    assert ending.value.code == 2
    said = capfd.readouterr().err
    assert ("is a ledger: an event log takes another file" if is_there else "give each its own") in said
    if is_there:
        with LedgerReader(ledger) as reader:
            assert len(reader.runs()) == 1


@pytest.mark.parametrize("text", ["x", "{}", '{"type":"token_usage"', '{"type":"token_usage","run_id":7}'])
def test_a_damaged_event_is_one_clear_error_and_the_rest_can_be_saved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    ledger = write_ledger(tmp_path / "runs.db", events_of(Told(0xA1, "routing").asks(Usage(1_000, 100)).ends()))
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("UPDATE events SET data = ? WHERE kind = 'token_usage'", (text,))
    prices = tmp_path / "prices.toml"
    prices.write_text("")
    saved, again = tmp_path / "saved.jsonl", tmp_path / "again.db"
    for command in (
        ["runs", str(ledger)],
        ["runs", str(ledger), "a1".zfill(32)],
        ["reprice", str(ledger), "--prices", str(prices)],
        ["export", str(ledger), "-o", str(tmp_path / "x.parquet")],
        ["report", str(ledger), "-o", str(tmp_path / "x.html")],
        ["advise", str(ledger)],
    ):
        with pytest.raises(SystemExit) as ending:
            cli.run(command)
        said = capfd.readouterr().err
        assert (ending.value.code, command[0]) == (2, command[0])
        assert "has a damaged event" in said
        assert "`runmeter export` it" in said
    for command in (["export", str(ledger), "-o", str(saved)], ["import", str(saved), "--into", str(again)]):
        with pytest.raises(SystemExit) as ending:
            cli.run(command)
        assert not ending.value.code
    assert "skipped" in capfd.readouterr().err
    with LedgerReader(again) as reader:
        assert len(list(reader.lines())) == 3
        [request] = reader.unended_requests()
        assert request.lost  # though its run has ended
