"""`runmeter usage` as its users meet it."""

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ledger_support import DAY_NS, NOV_1_NS, Told, events_of, write_ledger, write_log

from runmeter.cli import main as cli
from runmeter.engine import PriceBook, Provenance, Usage

DECEMBER_NS = NOV_1_NS + 40 * DAY_NS
BOUND = Usage(1_000, 100)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    told = [
        Told(1, tags={"tenant": "acme"}).asks(Usage(1_000, 100, cache_read_tokens=512)).ends(),
        Told(2, tags={"tenant": "=1+1"}).asks(None, provenance=Provenance.UNKNOWN, bound=BOUND).ends(),
        Told(3, "openai_rag", NOV_1_NS + DAY_NS, tags={"tenant": "\x1b[31mred"}).asks(Usage(7, 7)).ends(),
        Told(4, "openai_rag", NOV_1_NS + 40 * DAY_NS, tags={"tenant": "acme"})
        .asks(Usage(9, 9), "no-such-model")
        .ends(),
        Told(5, tags={"tenant": "acme"}).leaves(bound=BOUND),
    ]
    return write_ledger(tmp_path / "runs.db", events_of(*told))


def usage(capfd: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ending:
        cli.run(["usage", *map(str, arguments)])
    out, err = capfd.readouterr()
    assert (ending.value.code or 0) == code, err
    return out if code in (0, 1) else err


def exactly(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def test_a_table_says_what_is_not_known(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = usage(capfd, ledger, "--by", "tag:tenant,model")
    by_tenant = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert " unknown " in by_tenant["=1+1"]
    assert "\x1b[31m" not in out
    assert r"\x1b[31mred" in out
    assert "1 request never ended, as the process has gone: possibly billed, $0.00 to $0.000" in out
    assert "(1 request unpriced)" in out


def test_json_has_all_in_full(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = exactly(usage(capfd, ledger, "--by", "tag:tenant", "--until", "2026-12-01", "--format", "json"))
    lines = {line["group"]["tag:tenant"]: line for line in report["lines"]}
    assert lines["acme"]["tokens"]["cache_read_tokens"] == 512
    assert lines["acme"]["never_ended"]["requests"] == 1
    bound = PriceBook().upper_bound("openai", "gpt-6-luna", None, BOUND, NOV_1_NS)
    assert lines["acme"]["never_ended"]["cost_usd"]["high"] == bound
    assert lines["=1+1"]["tokens"] is None
    assert lines["=1+1"]["cost_usd"]["known"] is None
    assert lines["acme"]["cost_usd"]["known"] == lines["acme"]["cost_usd"]["low"] > 0
    assert report["total"]["runs"] == 4


def test_csv_is_text_for_spreadsheets(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = usage(capfd, ledger, "--by", "tag:tenant,model", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    by_tenant = {(row["tag:tenant"], row["model"]): row for row in rows}
    assert set(by_tenant) == {
        ("acme", "gpt-6-luna"),
        ("acme", "no-such-model"),
        ("'=1+1", "gpt-6-luna"),
        ("\x1b[31mred", "gpt-6-luna"),
    }
    unknown = by_tenant["'=1+1", "gpt-6-luna"]
    assert (unknown["requests_unknown"], unknown["input_tokens"], unknown["cost_low_usd"]) == ("1", "", "0")
    assert Decimal(unknown["cost_high_usd"]) > 0
    unpriced = by_tenant["acme", "no-such-model"]
    assert (unpriced["cost_high_usd"], unpriced["unpriced"]) == ("", "1")
    known = by_tenant["acme", "gpt-6-luna"]
    assert known["cost_low_usd"] == known["cost_high_usd"] != ""
    assert "E" not in known["cost_low_usd"]


def test_several_files_add_up(ledger: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = write_log(tmp_path / "more.jsonl", events_of(Told(9, tags={"tenant": "acme"}).asks(Usage(4, 4)).ends()))
    with log.open("a") as file:
        file.write("broken\n")
    one = exactly(usage(capfd, ledger, "--format", "json"))
    with pytest.raises(SystemExit):
        cli.run(["usage", str(ledger), str(log), "--format", "json"])
    out, err = capfd.readouterr()
    both = exactly(out)
    assert both["total"]["tokens"]["input_tokens"] == one["total"]["tokens"]["input_tokens"] + 4
    assert both["total"]["runs"] == one["total"]["runs"] + 1
    assert both["damaged_lines"] == 1
    assert "more.jsonl, line 5: skipped" in err


def test_days_and_filters(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = usage(
        capfd, ledger, "--by", "day", "--since", "2026-11-02", "--where", "pattern=openai_rag", "--format", "csv"
    )
    assert [row["day"] for row in csv.DictReader(io.StringIO(out))] == ["2026-11-02", "2026-12-11"]
    out = usage(capfd, ledger, "--until", "2026-10-01")
    assert "nothing was used before 2026-10-01" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "tenant"], "tag:NAME"),
        (["--since", "2026-11-02", "--until", "2026-11-01"], "the day after the last"),
        (["--since", "November"], "does not match the format"),
        (["--where", "routing"], "NAME=VALUE"),
        (["--format", "xml"], "is not one of"),
    ],
)
def test_wrong_input_is_one_line(
    ledger: Path, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    err = usage(capfd, ledger, *arguments, code=2)
    assert said in err
    assert err.count("\n") == 1


def test_wrong_files_are_one_line(ledger: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "would count twice" in usage(capfd, ledger, ledger, code=2)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    assert "not a ledger" in usage(capfd, other, code=2)
    other.write_bytes(b"SQLite format 3\x00" + b"\xff" * 4_096)
    assert "not a ledger" in usage(capfd, other, code=2)
    assert "does not exist" in usage(capfd, tmp_path / "none", code=2)


def test_a_log_without_an_event_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "letter.txt"
    log.write_text("Dear all\n")
    usage(capfd, log, code=1)


def test_a_reader_that_leaves_is_not_an_error(ledger: Path) -> None:
    command = [sys.executable, "-m", "runmeter", "usage", str(ledger), "--format", "csv"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, check=False)  # noqa: S603
    os.close(write_end)
    assert done.stderr == b""
    assert done.returncode == 141
