"""`runmeter export`, `import`, `reprice`, and `--ledger`: events go there and back, and nothing is lost on the way."""

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped] # it has no types of its own
import pytest
from hypothesis import given, settings
from ledger_support import DAY_NS, NOV_1_NS, Told, events_of, write_ledger, write_log
from strategies import event_streams

from runmeter.cli import main as cli
from runmeter.cli.ledger.transfer import export_ledger
from runmeter.engine import JSON, Event, LedgerReader, PriceBook, Provenance, SystemClock, TokenUsage, Usage
from runmeter.engine.ledger.imports import Imported, import_events
from runmeter.engine.ledger.ledger_file import LedgerFile
from runmeter.reports.export import export_lines
from runmeter.reports.parquet import SCHEMA, export_parquet
from runmeter.reports.repricing import reprice, total_of

BOOK = PriceBook()
HALF = """
[[prices]]
provider = "openai"
model = "gpt-6-luna"
rates = { input_mtok = 0.05, cache_read_mtok = 0.005, output_mtok = 0.20 }
"""


def command(capfd: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> "tuple[str, str]":
    with pytest.raises(SystemExit) as ending:
        cli.run([*map(str, arguments)])
    out, err = capfd.readouterr()
    assert (ending.value.code or 0) == code, err
    return out, err


@given(events=event_streams())
@settings(max_examples=15)
def test_an_export_is_an_event_log_and_comes_back(
    events: list[Event], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("export")
    ledger = write_ledger(folder / "runs.db", events, BOOK)
    out = io.BytesIO()
    with LedgerReader(ledger, BOOK) as reader:
        count = export_lines(reader, out)
        days = reader.days()
    unique = {(event.run_id, event.seq): event for event in reversed(events)}
    assert count == len(unique)
    assert out.getvalue() == b"".join(
        JSON.encode(event) + b"\n" for event in events if unique.pop((event.run_id, event.seq), None)
    )
    log = folder / "events.jsonl"
    log.write_bytes(out.getvalue())
    account = Imported()
    with LedgerReader(write_ledger(folder / "again.db", [], BOOK), BOOK) as reader:
        for _ in range(2):
            import_events(map(JSON.decode, log.read_bytes().splitlines()), folder / "again.db", BOOK, account)
            assert reader.days() == days
    assert (account.read, account.added, account.duplicates) == (2 * count, count, count)


def test_an_end_that_is_there_already_closes_a_request_that_comes_again(tmp_path: Path) -> None:
    told = Told(1).asks(Usage(1, 1)).ends()
    path = write_ledger(tmp_path / "runs.db", told.events)
    import_events(told.events[:2], path, BOOK, Imported())
    import_events(Told(2).asks(Usage(1, 1)).events[2:], path, BOOK, Imported())
    import_events(Told(2).asks(Usage(1, 1)).events[:2], path, BOOK, Imported())
    with LedgerReader(path, BOOK) as reader:
        assert not reader.unended_requests()


def test_export_and_import_at_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = events_of(Told(1, tags={"tenant": "acme"}).asks(Usage(10, 10)).ends(), Told(2).asks(Usage(5, 5)).ends())
    ledger, log = write_ledger(tmp_path / "runs.db", told), tmp_path / "out.jsonl"
    command(capfd, "export", ledger, "-o", log)
    assert log.read_bytes() == write_log(tmp_path / "log.jsonl", told).read_bytes()
    out, _ = command(capfd, "export", ledger, "-o", "-")
    assert out.encode() == log.read_bytes()
    _, err = command(capfd, "export", ledger, "-o", log, code=2)
    assert "is there already" in err
    _, err = command(capfd, "export", ledger, "-o", ledger, "--force", code=2)
    assert "is there already: give another file" in err
    with log.open("a") as file:
        file.write("damaged\n")
    _, err = command(capfd, "import", log, tmp_path / "log.jsonl", "--into", tmp_path / "new.db")
    assert "line 9: skipped" in err
    assert "8 events read, 8 added" in err
    assert "8 events read, 0 added" in err
    _, err = command(capfd, "import", ledger, "--into", tmp_path / "new.db", code=2)
    assert "is a ledger" in err
    out, _ = command(capfd, "export", tmp_path / "new.db", "-o", "-")
    assert out.encode() == (tmp_path / "log.jsonl").read_bytes()
    assert {path.name for path in tmp_path.iterdir() if "part" in path.name} == set()


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = write_ledger(tmp_path / "runs.db", Told(1).asks(Usage(1, 1)).ends().events)
    before = {path.name for path in tmp_path.iterdir()}

    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("runmeter.cli.ledger.transfer.export_lines", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_ledger(ledger, tmp_path / "out.jsonl", None, None)
    assert {path.name for path in tmp_path.iterdir()} - before <= {"runs.db-shm", "runs.db-wal"}


@given(events=event_streams())
@settings(max_examples=8)
def test_parquet_has_every_event_in_columns(events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("parquet")
    with LedgerReader(write_ledger(folder / "runs.db", events, BOOK), BOOK) as reader:
        count = export_parquet(reader, folder / "events.parquet", BOOK)
        kept = list(reader.events())
    table = pq.read_table(folder / "events.parquet")
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert [JSON.decode(row["event"].encode()) for row in rows] == kept
    assert len(rows) == count
    for row, event in zip(rows, kept, strict=True):
        if not isinstance(event, TokenUsage):
            assert row["input_tokens"] is None or row["kind"] == "run_reported"
            continue
        cost = BOOK.cost(event)
        low, high = row["cost_low_usd"], row["cost_high_usd"]
        assert low <= cost.low < low + Decimal("1e-18")
        assert (high is None) == (cost.high is None)
        assert high is None or cost.high is None or high - Decimal("1e-18") < cost.high <= high
        assert row["is_unpriced"] is bool(cost.unpriced)
        assert row["input_tokens"] == (None if event.usage is None else event.usage.input_tokens)
        assert row["start"].value == event.start_ns if hasattr(row["start"], "value") else row["start"] is not None


def test_parquet_at_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ledger = write_ledger(tmp_path / "runs.db", Told(1, tags={"a": "b"}).asks(Usage(10, 1)).ends().events)
    command(capfd, "export", ledger, "-o", tmp_path / "runs.parquet")
    [_, _, request, _] = pq.read_table(tmp_path / "runs.parquet").to_pylist()
    assert (request["kind"], request["pattern"], request["tags"]) == ("token_usage", "routing", [("a", "b")])
    _, err = command(capfd, "export", ledger, "-o", "-", "--format", "parquet", code=2)
    assert "give -o FILE" in err


def test_repriced_by_day_and_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = [
        Told(1).asks(Usage(1_000_000, 0)).asks(Usage(0, 1_000), "no-such-model").ends(),
        Told(2, at_ns=NOV_1_NS + DAY_NS).asks(None, provenance=Provenance.UNKNOWN, bound=Usage(1_000, 0)).ends(),
    ]
    ledger = write_ledger(tmp_path / "runs.db", events_of(*told))
    table = tmp_path / "half.toml"
    table.write_text(HALF)
    other = PriceBook(table)
    with LedgerReader(ledger) as reader:
        luna, nameless, later = lines = reprice(reader, other)
    assert [(line.model, line.requests, line.kept) for line in lines] == [
        ("gpt-6-luna", 1, 1),
        ("no-such-model", 1, 1),
        ("gpt-6-luna", 1, 1),
    ]
    event = told[0].events[2]
    assert isinstance(event, TokenUsage)
    assert luna.difference is not None
    assert luna.difference.usd == other.cost(event).low - BOOK.cost(event).low != 0
    assert nameless.difference is not None
    assert nameless.difference.high is None, "no difference of what has no price"
    assert later.difference is not None
    assert later.difference.low < 0, "it may have cost up to its bound before, and nothing now"
    assert (later.difference.high or 0) > 0
    assert total_of(lines).requests == 3
    out, _ = command(capfd, "reprice", ledger, "--prices", table, "--until", "2026-11-02", "--format", "json")
    report = json.loads(out, parse_float=Decimal)
    assert report["lines"][0]["difference_usd"]["known"] == luna.difference.usd
    out, _ = command(capfd, "reprice", ledger, "--prices", table)
    assert "unknown" in out
    out, _ = command(capfd, "reprice", ledger, "--prices", table, "--format", "csv")
    assert len(out.splitlines()) == 4
    table.write_text("prices = 1")
    _, err = command(capfd, "reprice", ledger, "--prices", table, code=2)
    assert err.count("\n") == 1


def test_what_is_not_kept_has_no_difference(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ledger = write_ledger(tmp_path / "runs.db", Told(1).asks(Usage(1_000, 0)).asks(Usage(9, 9)).ends().events)
    store = LedgerFile(ledger, SystemClock())
    with store.transaction() as connection:
        connection.execute("DELETE FROM events WHERE seq = 2")
    store.close()
    (table := tmp_path / "half.toml").write_text(HALF)
    with LedgerReader(ledger) as reader:
        [line] = reprice(reader, PriceBook(table))
    assert (line.requests, line.kept, line.difference) == (2, 1, None)
    out, _ = command(capfd, "reprice", ledger, "--prices", table)
    assert "the events of 1 request on 1 day are not kept" in out


def test_run_and_demo_and_advise_know_ledgers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ledger = tmp_path / "runs.db"
    command(capfd, "run", "augmented_llm", "Hello?", "--simulated", "--ledger", ledger, "--tag", "tenant=acme")
    out, _ = command(capfd, "runs", ledger, "--format", "json")
    assert json.loads(out)["tags"] == {"tenant": "acme"}
    for arguments in ([str(ledger)], ["--ledger", str(ledger)]):
        out, _ = command(capfd, "advise", *arguments)
        assert "1 finished runs in" in out
    _, err = command(capfd, "advise", ledger, "--ledger", ledger, code=2)
    assert "one history" in err
    _, err = command(capfd, "advise", code=2)
    assert "one history" in err
    other = tmp_path / "text.db"
    other.write_text("no ledger " * 100)
    for arguments in (["run", "augmented_llm", "Hello?", "--simulated"], ["demo", "--runs", "1"]):
        _, err = command(capfd, *arguments, "--ledger", other, code=2)
        assert "is not a ledger of Runmeter's" in err
