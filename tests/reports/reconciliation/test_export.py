"""Bills from exported files."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from bill_scene import DAY, DELAY, LUNA, BillScene

from runmeter.engine import Usage
from runmeter.reports.reconciliation.bill import BilledFigures, BillError, item_named
from runmeter.reports.reconciliation.causes import Cause
from runmeter.reports.reconciliation.counts import Counts
from runmeter.reports.reconciliation.export import ExportedBill

FIRST, END = date(2026, 11, 1), date(2026, 12, 1)
START = 1_795_305_600  # 2026-11-22
USAGE = (
    "start_time,end_time,project_id,num_model_requests,model,batch,service_tier,input_tokens,output_tokens,"
    "input_cached_tokens,input_cache_write_tokens,input_cache_write_12h_tokens,input_cached_audio_tokens,"
    "input_audio_tokens,input_image_tokens,output_audio_tokens,output_image_tokens"
)
COSTS = "start_time,end_time,amount_value,amount_currency,line_item,project_id"


def read(tmp_path: Path, *texts: str, projects: tuple[str, ...] = ()) -> BilledFigures:
    paths = [tmp_path / f"{number}.csv" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return ExportedBill(paths, projects).read(FIRST, END)


# --- Reading ---


def test_usage_and_costs_are_read_from_their_files(tmp_path: Path) -> None:
    bill = read(
        tmp_path,
        f"{USAGE}\n{START},,proj_a,3,{LUNA},false,priority,900,40,100,200,50,0,0,0,0,0\n",
        f'{COSTS}\n{START},,0.0000123000,usd,"priority | {LUNA}, output, long context",proj_a\n{START + 86400},,,,,\n',
    )
    (usage,), (cost,) = bill.usage, bill.costs
    assert (usage.day, usage.project, usage.model, usage.tier) == (DAY, "proj_a", LUNA, "priority")
    assert usage.counts == Counts(3, Usage(900, 40, 100, 200, 50))
    assert (cost.day, cost.project, cost.item, cost.usd) == (DAY, "proj_a", LUNA, Decimal("0.0000123"))
    assert (bill.has_usage, bill.has_costs, bill.has_tiers, bill.untold) == (True, True, True, frozenset())
    assert (bill.newest, bill.projects) == (DAY, ["proj_a"])


def test_tabs_byte_order_marks_and_dates_are_read(tmp_path: Path) -> None:
    text = f"\ufeff{COSTS}\n2026-11-22,,0.5,USD,{LUNA} input,\n2026-11-23T00:00:00+00:00,,1,usd,Vector storage,\n"
    bill = read(tmp_path, text.replace(",", "\t"))
    assert [(cost.day, cost.item, cost.usd) for cost in bill.costs] == [
        (DAY, f"{LUNA} input", Decimal("0.5")),
        (date(2026, 11, 23), "Vector storage", Decimal(1)),
    ]


def test_what_an_older_export_does_not_tell_is_unknown_and_not_nothing(tmp_path: Path) -> None:
    bill = read(tmp_path, f"start_time,model,num_model_requests,input_tokens,output_tokens\n{START},{LUNA},2,10,3\n")
    assert not bill.has_tiers
    assert not bill.has_costs
    assert {"cache_read_tokens", "cache_write_tokens", "cache_write_12h_tokens"} < bill.untold
    assert bill.usage[0].counts == Counts(2, Usage(10, 3))


def test_only_the_projects_and_days_that_are_wanted_count(tmp_path: Path) -> None:
    rows = [f'{start},,1,usd,"{LUNA}, input",{project}' for start in (START, 0) for project in ("proj_a", "proj_b")]
    bill = read(tmp_path, "\n".join([COSTS, *rows]), projects=("proj_b",))
    assert [(cost.day, cost.project) for cost in bill.costs] == [(DAY, "proj_b")]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "0.csv: neither an export of usage nor of costs"),
        ("a,b\n1,2\n", "neither an export of usage nor of costs; export it from OpenAI's dashboard"),
        (f"{COSTS}\n{START},,one,usd,x,\n", r"0.csv, line 2: .*; export it"),
        (f"{COSTS}\n{START},,1,usd,x,\n{START},,1,eur,x,\n", "line 3: amounts in eur, not in USD"),
        (f"{COSTS}\nyesterday,,1,usd,x,\n", "line 2: Invalid isoformat string"),
        (f"{USAGE}\n{START},,p,many,{LUNA},,,1,1\n", "line 2: invalid literal for int"),
    ],
)
def test_a_file_that_is_no_export_is_told_with_its_line(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(BillError, match=error):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BillError, match=r"none\.csv: .*No such file"):
        ExportedBill([tmp_path / "none.csv"]).read(FIRST, END)


@pytest.mark.parametrize(
    ("line_item", "item"),
    [
        ("gpt-4o-mini-2024-07-18, input", "gpt-4o-mini-2024-07-18"),
        ("gpt-6-astra, input_tokens", "gpt-6-astra"),
        ("priority | gpt-5.6-sol, output, long context", "gpt-5.6-sol"),
        ("evals | gpt-4o-mini-2024-07-18, input", "gpt-4o-mini-2024-07-18"),
        ("gpt-audio-mini-2025-12-15 audio, input", "gpt-audio-mini-2025-12-15"),
        ("web search tool calls", "web search tool calls"),
        ("assistants api | file search", "file search tool calls"),
        ("Vector storage", "Vector storage"),
    ],
)
def test_a_line_of_a_bill_is_of_a_model_or_of_itself(line_item: str, item: str) -> None:
    assert item_named(line_item) == item


# --- Comparing ---


@pytest.mark.parametrize("cause", [Cause.TIER, Cause.CACHE_LIFETIME, Cause.OUTSIDE, Cause.UNENDED, Cause.UNPRICED])
async def test_a_cause_is_found_by_an_export_as_well(scene: BillScene, tmp_path: Path, cause: Cause) -> None:
    await scene.seed(cause)
    scene.clock.advance(DELAY)
    (row,) = scene.reconcile_with(ExportedBill(scene.export(tmp_path))).rows
    assert [finding.cause for finding in row.findings] == [cause]
    assert row.findings[0].usd.usd == scene.truth[cause]


async def test_the_last_day_of_an_export_may_lack_what_was_not_billed_when_it_was_made(
    scene: BillScene, tmp_path: Path
) -> None:
    await scene.seed(Cause.NOT_YET_BILLED)
    bill = ExportedBill(scene.export(tmp_path))
    scene.clock.advance(40 * 86_400)  # which does not make it newer
    (row,) = scene.reconcile_with(bill).rows
    assert [finding.cause for finding in row.findings] == [Cause.NOT_YET_BILLED]
    assert row.findings[0].usd.usd == scene.truth[Cause.NOT_YET_BILLED]


async def test_costs_alone_leave_a_difference_unexplained_and_say_why(scene: BillScene, tmp_path: Path) -> None:
    await scene.seed(Cause.TIER)
    scene.clock.advance(DELAY)
    _, costs = scene.export(tmp_path)
    found = scene.reconcile_with(ExportedBill([costs]))
    (row,) = found.rows
    assert row.billed_requests is None
    assert [finding.cause for finding in row.findings] == [Cause.UNEXPLAINED]
    assert row.findings[0].usd.usd == scene.truth[Cause.TIER]
    assert "The bill tells of costs alone" in found.notes[0]


async def test_usage_alone_tells_causes_by_the_ledgers_prices(scene: BillScene, tmp_path: Path) -> None:
    await scene.seed(Cause.TIER)
    scene.clock.advance(DELAY)
    usage, _ = scene.export(tmp_path)
    found = scene.reconcile_with(ExportedBill([usage]))
    (row,) = found.rows
    assert row.billed is None
    assert [(finding.cause, finding.usd.usd) for finding in row.findings] == [(Cause.TIER, scene.truth[Cause.TIER])]
    assert "The bill tells of usage alone" in found.notes[0]
