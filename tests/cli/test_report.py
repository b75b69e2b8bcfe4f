"""`runmeter report`: what it writes, and what it refuses."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from ledger_scene import example_events, write_ledger

from runmeter.cli.main import run
from runmeter.engine import JSON


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return write_ledger(tmp_path / "runs.db", example_events())


@pytest.fixture(autouse=True)
def quick_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are drawn in another test: to bundle the code for that takes seconds."""
    monkeypatch.setattr("runmeter.cli.ledger.report.chart_library", lambda: "// draws nothing")


def report(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        run(["report", *map(str, arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_it_writes_a_page_and_says_so(ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "november.html"
    assert report(ledger, "-o", page) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert f"{page}: 12 days, " in capsys.readouterr().err


def test_an_event_log_has_the_same_page_and_its_damaged_lines_are_told(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, page, other = tmp_path / "runs.jsonl", tmp_path / "log.html", tmp_path / "ledger.html"
    log.write_bytes(b"\n".join([*map(JSON.encode, example_events()), b"{}"]))
    assert report(log, "-o", page) == 0
    assert "runs.jsonl, line 317: skipped" in capsys.readouterr().err
    assert report(ledger, "-o", other) == 0
    assert charts(page) == charts(other)


def charts(page: Path) -> str:
    """The figures that a page draws."""
    return page.read_text().partition('id="charts">')[2].partition("</script>")[0]


def test_a_page_is_replaced_and_leaves_nothing_beside_it(ledger: Path, tmp_path: Path) -> None:
    page = tmp_path / "november.html"
    assert report(ledger, "-o", page) == 0
    whole = page.stat().st_size
    assert report(ledger, "-o", page, "--since", "2026-11-04", "--until", "2026-11-06") == 0
    assert page.stat().st_size < whole
    assert {path.name for path in tmp_path.iterdir() if path.suffix in (".html", ".part")} == {"november.html"}


def test_days_without_anything_are_an_exit_code(ledger: Path, tmp_path: Path) -> None:
    assert report(ledger, "-o", tmp_path / "page.html", "--until", "2020-01-01") == 1


def test_what_is_no_page_is_not_written_over(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = ledger.read_bytes()
    assert report(ledger, "-o", ledger) == 2
    assert ledger.read_bytes() == before
    assert "is no HTML page: give another name with -o" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "2026-11-06", "--until", "2026-11-06"], "give one after --since"),
        (["--since", "yesterday"], "does not match the format '%Y-%m-%d'"),
        (["--prices", "{ledger}"], "the price overlay"),
    ],
)
def test_arguments_that_make_no_sense(
    ledger: Path, tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert report(ledger, "-o", page, *(each.format(ledger=ledger) for each in arguments)) == 2
    assert said in capsys.readouterr().err
    assert not page.exists()


def test_a_file_without_an_event_gives_an_empty_page_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("not a ledger")
    assert report(tmp_path / "notes.txt", "-o", tmp_path / "page.html") == 1
    assert "notes.txt, line 1: skipped" in capsys.readouterr().err


def test_a_database_that_is_no_ledger_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE notes (text)")
    assert report(tmp_path / "other.db", "-o", tmp_path / "page.html") == 2
    assert "other.db is not a ledger of Runmeter's" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("library", ["altair", "vl_convert"])
def test_a_library_that_is_missing_is_named_with_the_way_to_get_it(
    library: str, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert report(ledger, "-o", tmp_path / "page.html") == 2
    said = capsys.readouterr().err
    assert library in said
    assert "pip install 'runmeter[report]'" in said


def test_prices_of_ones_own_price_single_requests_too(ledger: Path, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(
        '[[prices]]\nprovider = "house"\nmodel = "house-model"\nrates = { input_mtok = 1, output_mtok = 2 }\n'
    )
    page = tmp_path / "page.html"
    assert report(ledger, "-o", page, "--prices", tmp_path / "prices.toml") == 0
    assert "no published price" not in page.read_text()
