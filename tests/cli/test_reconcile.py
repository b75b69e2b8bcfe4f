"""`runmeter reconcile`: a ledger in a file against a simulator that bills."""

import io
import json
from collections.abc import AsyncIterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest
from bill_scene import ADMIN, BOOK, DAY, DELAY, LUNA, BillScene
from time_support import until

from runmeter.cli.ending import CommandError
from runmeter.cli.ledger.reconcile import ReconcileOptions, reconcile_ledger
from runmeter.cli.main import run
from runmeter.engine.ledger.days import DayUsage
from runmeter.engine.ledger.reader import LedgerReader, RequestRecord
from runmeter.reports.reconciliation.causes import Cause
from runmeter.reports.reconciliation.export import ExportedBill
from runmeter.reports.reconciliation.ledger_requests import LedgerRequests
from runmeter.simulator import Fault


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio alone: the command blocks, and asks no event loop."""
    return "asyncio"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def scene(tmp_path: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BillScene]:
    monkeypatch.setenv("OPENAI_ADMIN_KEY", ADMIN)
    async with BillScene.open(tmp_path, ledger) as scene:
        await scene.ask("Good morning.")
        await scene.ask("What is honey made of?")
        yield scene


def told(scene: BillScene, ledger: Path, **options: Any) -> str:
    """What the command says once the engine has written all."""
    out = io.StringIO()
    given = {"base_url": None if options.get("exports") else scene.simulator.url, **options}
    assert reconcile_ledger(ReconcileOptions(ledger, **given), out, scene.clock) == 0
    return out.getvalue()


async def test_what_agrees_is_one_line(scene: BillScene, ledger: Path) -> None:
    scene.clock.advance(DELAY)
    text = told(scene, ledger)
    assert "runs.db and OpenAI's bill, 2026-10-24 to 2026-11-22 (UTC)" in text
    assert "In agreement: 1 row of day and model, $0.0000108." in text
    assert "ledger              $0.0000108" in text


async def test_each_difference_is_told_with_its_causes_and_nothing_open_as_one_number(
    scene: BillScene, ledger: Path
) -> None:
    for cause in (Cause.TIER, Cause.OUTSIDE, Cause.UNPRICED):
        await scene.seed(cause)
    scene.clock.advance(DELAY)
    text = told(scene, ledger)
    assert f"2026-11-22  {LUNA}  proj_default" in text
    for cause in scene.truth:
        assert f"  {cause}" in text
    rows = json.loads(told(scene, ledger, as_json=True), parse_float=Decimal)["rows"]
    (row,) = rows
    assert (row["requests"], row["billed_requests"]) == (4, 5)
    assert row["ledger"]["high_usd"] is None
    found = {each["cause"]: each for each in row["causes"]}
    assert set(found) == set(scene.truth)
    assert Decimal(str(row["known_usd"])) + sum(scene.truth.values()) == row["billed_usd"]
    for cause, worth in scene.truth.items():
        assert found[cause]["low_usd"] <= worth
        assert found[cause]["high_usd"] is None or worth <= found[cause]["high_usd"]


async def test_projects_are_compared_one_by_one_where_a_tag_tells_them(scene: BillScene, ledger: Path) -> None:
    other = scene.client.with_options(default_headers={"OpenAI-Project": "proj_support"})
    scene.client, own = other, scene.client
    await scene.ask("Where is my parcel?", tags={"project": "proj_support"})
    scene.client = own
    scene.clock.advance(DELAY)
    merged = json.loads(told(scene, ledger, as_json=True))
    assert [row["project"] for row in merged["rows"]] == [None]
    assert "compared as one: proj_default, proj_support" in merged["notes"][0]
    tagged = json.loads(told(scene, ledger, as_json=True, project_tag="project", projects=("proj_support",)))
    (row,) = tagged["rows"]
    assert (row["project"], row["requests"], row["billed_requests"], row["causes"]) == ("proj_support", 1, 1, [])


async def test_exports_are_compared_without_a_key(
    scene: BillScene, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_ADMIN_KEY")
    await scene.seed(Cause.OUTSIDE)
    scene.clock.advance(DELAY)
    text = told(scene, ledger, exports=scene.export(tmp_path))
    assert "  outside the ledger  +$0.0000" in text


async def test_a_request_without_an_end_is_told_with_what_it_was_billed(scene: BillScene, ledger: Path) -> None:
    def is_written() -> bool:
        with LedgerReader(ledger, BOOK) as reader:
            return bool(reader.unended_requests())

    scene.simulator.inject(Fault("latency", seconds=3_600))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.ask, "Is anybody still there, at this time of night?")
        await until(is_written)
        await until(lambda: scene.simulator.statistics().usage[LUNA].input_tokens > 30)
        scene.clock.advance(DELAY)
        (row,) = json.loads(told(scene, ledger, as_json=True), parse_float=Decimal)["rows"]
        tasks.cancel_scope.cancel()
    (cause,) = row["causes"]
    assert (row["requests"], row["billed_requests"], cause["cause"]) == (3, 3, "never ended")
    assert cause["low_usd"] == cause["high_usd"] == row["billed_usd"] - row["known_usd"] > 0


class Pruned:
    """A ledger of which only the days' statistics are kept."""

    def __init__(self, ledger: LedgerReader) -> None:
        self._ledger = ledger

    def days(self, since: date | None = None, until: date | None = None) -> list[DayUsage]:
        return self._ledger.days(since, until)

    def requests(self, since_ns: int = 0, until_ns: int = 0) -> Any:
        return iter(list[RequestRecord]())

    def unended_requests(self) -> list[RequestRecord]:
        return []


async def test_what_is_kept_as_a_sum_is_not_taken_for_requests_of_others(
    scene: BillScene, ledger: Path, tmp_path: Path
) -> None:
    scene.clock.advance(DELAY)
    with LedgerReader(ledger, BOOK) as reader:
        requests = LedgerRequests(Pruned(reader), DAY, DAY + timedelta(1), BOOK)
        whole = LedgerRequests(reader, DAY, DAY + timedelta(1), BOOK)
        (part,) = requests
        assert sum(each.counts.requests for each in whole) == part.counts.requests == 2
    assert (part.tier, part.cost.usd) == (None, Decimal("0.0000108"))
    (row,) = scene.reconcile_with(ExportedBill(scene.export(tmp_path)), parts=requests).rows
    assert not row.findings


# --- What cannot be done ---


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"since": DAY, "until": DAY}, "--since 2026-11-22 must be before --until 2026-11-22, which is exclusive"),
        ({"exports": (Path("x.csv"),), "base_url": "http://x"}, "--base-url is of OpenAI's endpoints"),
        ({"base_url": "http://127.0.0.1:9"}, r"http://127\.0\.0\.1:9 cannot be reached: .*Check --base-url"),
        ({"exports": (Path("none.csv"),)}, "none.csv: .*No such file"),
    ],
)
async def test_it_says_what_is_wrong_and_what_to_do(
    scene: BillScene, ledger: Path, options: dict[str, Any], error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_, **__: 0)
    with pytest.raises(CommandError, match=error):
        told(scene, ledger, **options)


async def test_without_a_key_it_says_how_to_get_one(
    scene: BillScene, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ADMIN_KEY", " ")
    with pytest.raises(CommandError, match=r"set OPENAI_ADMIN_KEY to an admin key, .* or give files exported"):
        told(scene, ledger)


async def test_a_key_that_may_not_read_usage_is_told_and_not_shown(
    scene: BillScene, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-proj-0123456789")
    with pytest.raises(CommandError, match=r"refuses the key in OPENAI_ADMIN_KEY: .*api\.usage\.read") as caught:
        told(scene, ledger)
    assert "0123456789" not in str(caught.value)


def test_a_file_that_is_no_ledger_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs.db"
    path.write_text("nothing of the kind")
    with pytest.raises(SystemExit) as ended:
        run(["reconcile", str(path), "--csv", str(path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("runmeter reconcile: ")
    assert len(error.splitlines()) == 1


def test_its_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["reconcile", "--help"])
    told = capsys.readouterr().out
    for option in ("--since", "--until", "--base-url", "--csv", "--project", "--project-tag", "--json", "--prices"):
        assert option in told
