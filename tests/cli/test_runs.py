"""`runmeter runs` as its users meet it: the list, what ends meanwhile, and one run's tree."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from ledger_support import NOV_1_NS, Told, events_of, write_ledger

from runmeter.cli import main as cli
from runmeter.cli.ledger.runs import RunsOptions, show_runs
from runmeter.engine import CostEstimate, LedgerReader, PriceBook, Provenance, Status, SystemClock, TokenUsage, Usage
from runmeter.engine.ledger.ledger_file import LedgerFile
from runmeter.reports.run_costs import run_costs

HOUR_NS = 3_600 * 10**9
BOOK = PriceBook()


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def family() -> list[Told]:
    """A run with one within it that has one within it; another that is dear; one that was lost."""
    outer = Told(0xA1, "routing", tags={"tenant": "acme"}).asks(Usage(1_000, 100))
    inner = Told(0xA2, "routing.billing", outer.now_ns, within=outer).asks(Usage(2_000, 0))
    third = Told(0xA3, "lookup", inner.now_ns, within=inner).asks(Usage(0, 300)).leaves(bound=Usage(100, 100))
    dear = Told(0xB1, "openai_rag", NOV_1_NS + HOUR_NS, tags={"tenant": "\x1b[2Jumbrella"})
    dear.asks(Usage(100_000, 10_000)).ends(Status.ERROR)
    lost = Told(0xC1, "openai_rag", NOV_1_NS + 2 * HOUR_NS).leaves()
    return [outer.ends(), inner.ends(), third.ends(), dear, lost]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return write_ledger(tmp_path / "runs.db", events_of(*family()))


def runs(capfd: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ending:
        cli.run(["runs", *map(str, arguments)])
    out, err = capfd.readouterr()
    assert (ending.value.code or 0) == code, err
    return err if code else out


def listed(capfd: pytest.CaptureFixture[str], *arguments: object) -> list[Any]:
    return [json.loads(line) for line in runs(capfd, *arguments, "--format", "json").splitlines()]


def last_digits(found: list[Any]) -> list[str]:
    return [run["run_id"].lstrip("0") for run in found]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["c1", "b1", "a1"]),
        (["--nested"], ["c1", "b1", "a3", "a2", "a1"]),
        (["--limit", "1"], ["c1"]),
        (["--pattern", "openai_rag"], ["c1", "b1"]),
        (["--status", "error"], ["b1"]),
        (["--tag", "tenant=acme"], ["a1"]),
        (["--since", "2026-11-01T01:00", "--until", "2026-11-01T02:00"], ["b1"]),
        (["--dearest"], ["b1", "a1", "c1"]),
        (["--slowest", "--limit", "2"], ["a1", "b1"]),
    ],
)
def test_lists_are_filtered_and_in_order(
    ledger: Path, arguments: list[str], expected: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert last_digits(listed(capfd, ledger, *arguments)) == expected


def test_the_dearest_are_found_before_they_are_rolled_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_ledger(tmp_path / "runs.db", events_of(*family()))
    store = LedgerFile(path, SystemClock())
    store.append(Told(0xD1, at_ns=NOV_1_NS - HOUR_NS).asks(Usage(900_000, 0)).ends().events)
    assert last_digits(listed(capfd, path, "--dearest", "--limit", "2")) == ["d1", "b1"]
    store.close()


def test_a_list_says_what_is_not_known(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = runs(capfd, ledger)
    lost, dear, outer = [line for line in out.splitlines() if " 2026-11-01 " in line]
    assert " lost " in lost
    assert "1 not ended" in lost
    assert r"\x1b[2Jumbrella" in dear
    assert "\x1b" not in out
    assert "1 not ended" in outer
    assert runs(capfd, ledger, "--status", "timeout") == "no such runs\n"


def test_a_run_is_a_tree_with_costs(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = runs(capfd, ledger, f"{0xA1:032x}", "--trace-url", "http://localhost:16686/trace/{trace_id}")
    assert f"http://localhost:16686/trace/{0xA1:032x}" in out
    events = [event for told in family()[:3] for event in told.events]
    costs = run_costs(events, BOOK)
    outer, inner = costs[f"{0xA1:032x}"], costs[f"{0xA2:032x}"]
    assert f"cost {outer.inclusive} of 3 requests, its own requests {outer.own}" in out
    assert f"{inner.inclusive} (own {inner.own})" in out
    assert "never ended · possibly billed, $0.00 to" in out
    [report] = listed(capfd, ledger, f"{0xA2:032x}")
    assert [run["pattern"] for run in report["runs"]] == ["lookup"]
    assert report["inclusive_cost_usd"]["low"] > report["cost_usd"]["low"] > 0
    assert report["never_ended"]["requests"] == 1


def test_costs_of_runs_count_each_request_once_on_each_level() -> None:
    outer, inner, third = family()[:3]
    costs = run_costs(events_of(outer, inner, third), BOOK)
    own = [
        sum((BOOK.cost(each) for each in told.events if isinstance(each, TokenUsage)), CostEstimate())
        for told in family()[:3]
    ]
    assert [costs[told.run_id].own for told in (outer, inner, third)] == own
    assert costs[third.run_id].inclusive == own[2]
    assert costs[inner.run_id].inclusive == own[1] + own[2]
    assert costs[outer.run_id].inclusive == own[0] + own[1] + own[2]
    assert [costs[told.run_id].unended for told in (outer, inner, third)] == [1, 1, 1]


def test_unknown_usage_makes_an_interval() -> None:
    told = Told(1).asks(None, provenance=Provenance.UNKNOWN)
    assert run_costs(told.events, BOOK)[told.run_id].inclusive == CostEstimate(high_units=None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["f"], "begins the id of no run"),
        (["0"], "or of several"),
        (["--follow", "--dearest"], "--follow shows runs as they end"),
        (["--tag", "acme"], "NAME=VALUE"),
        (["--since", "yesterday"], "does not match the format"),
    ],
)
def test_wrong_input_is_one_line(
    ledger: Path, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    err = runs(capfd, ledger, *arguments, code=2)
    assert said in err
    assert err.count("\n") == 1


def test_follow_shows_each_run_once_as_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    before, slow, quick = Told(1).ends(), Told(2, "slow"), Told(3, "quick")
    store = LedgerFile(path, SystemClock())
    store.append([*before.events, *slow.events])
    out, seen = io.StringIO(), list[list[str]]()

    def sleep(_: float) -> None:
        seen.append([line.split()[2].lstrip("0") for line in out.getvalue().splitlines()])
        match len(seen):
            case 1:
                store.append(quick.ends().events)
            case 2:
                store.append(slow.ends().events[-1:])
            case 4:
                raise KeyboardInterrupt

    # The digits of a run's id that are shown are zeros here.
    with pytest.raises(KeyboardInterrupt):
        show_runs(RunsOptions(ledger=path, follow=True, as_json=False), out, sleep)
    lines = out.getvalue().splitlines()
    assert [line.split()[-1] for line in lines] == ["routing", "quick", "slow"]
    assert [len(each) for each in seen] == [1, 2, 3, 3]
    store.close()


def test_a_time_may_be_before_or_after_all_that_a_ledger_holds(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ends = ("--since", "0001-01-01", "--until", "9999-12-31", "--limit", 10**30)
    assert last_digits(listed(capfd, ledger, *ends)) == ["c1", "b1", "a1"]
    assert listed(capfd, ledger, "--since", "9999-12-31") == []
    assert listed(capfd, ledger, "--until", "1970-01-01") == []
    with LedgerReader(ledger) as reader:
        assert len(list(reader.requests(-(2**80), 2**80))) == 4
        assert list(reader.notices(2**80, 2**81)) == []


@pytest.mark.parametrize(
    "command",
    [["runs"], ["usage"], ["report"], ["reprice", "--prices", __file__], ["reconcile"]],
    ids=lambda each: each[0],
)
@pytest.mark.parametrize("until", ["2026-11-02", "2026-10-31"])
def test_what_is_before_its_beginning_is_refused(
    ledger: Path, capfd: pytest.CaptureFixture[str], command: list[str], until: str
) -> None:
    with pytest.raises(SystemExit) as ending:
        cli.run([*command, str(ledger), "--since", "2026-11-02", "--until", until])
    said = capfd.readouterr().err
    assert ending.value.code == 2
    assert "until" in said
    assert len(said.splitlines()) == 1


def test_a_name_has_one_value(ledger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = runs(capfd, ledger, "--tag", "tenant=acme", "--tag", "tenant=umbrella", code=2)
    assert "--tag takes one value for each NAME" in said
