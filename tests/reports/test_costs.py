"""Costs by day and group: whatever is told apart, the sums stay what they are."""

from datetime import date, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from runmeter.engine import CostEstimate, Provenance, Status, Usage, UsageCell, UsageRow
from runmeter.engine.ledger.days import DayUsage
from runmeter.engine.usage.row import CostRecord
from runmeter.engine.usage.statistics import OTHER, OTHER_TAGS
from runmeter.reports.page.costs import MAX_GROUPS, UNTAGGED, split_by_model, split_by_pattern, split_by_tag, tag_names

MODELS = [f"model-{number}" for number in range(12)]
amounts = st.integers(0, 10**6).map(lambda micros: Decimal(micros) / 10**6)
costs = st.tuples(amounts, st.none() | amounts, st.integers(0, 3)).map(
    lambda parts: CostEstimate.between(parts[0], None if parts[1] is None else parts[0] + parts[1], parts[2])
)


def request(day: int, model: str, cost: CostEstimate, tenant: str = "", number: int = 1) -> DayUsage:
    """What some requests of a day come to."""
    row = UsageRow(
        requests_by_provenance={Provenance.REPORTED: number},
        usage_by_provenance={Provenance.REPORTED: Usage(10 * number, number)},
        cost_record=CostRecord.of(cost),
    )
    tags = (("tenant", tenant),) if tenant else ()
    return DayUsage(date(2026, 11, 1) + timedelta(day), UsageCell("ask", "openai", model, tags, row))


@given(st.lists(st.builds(request, st.integers(0, 3), st.sampled_from(MODELS), costs, st.sampled_from(["", "a", "b"]))))
def test_the_groups_add_up_to_the_whole(days: list[DayUsage]) -> None:
    whole = sum((each.cell.row.cost for each in days), start=CostEstimate())
    for split in (split_by_model(days), split_by_pattern(days), split_by_tag(days, "tenant")):
        assert len(split.groups) == len(set(split.groups)) <= MAX_GROUPS + 1
        assert sum((each.spent.cost for each in split.sums), start=CostEstimate()) == whole
        assert sum((each.cost for each in split.days.values()), start=CostEstimate()) == whole
        assert sum(each.usage.input_tokens for each in split.sums) == 10 * len(days)
        assert {group for _, group in split.days} <= set(split.groups)
        assert list(split.day_sums()) == sorted(split.day_sums())


def test_the_dearest_are_told_apart_and_the_others_are_one() -> None:
    days = [
        request(0, model, CostEstimate.between(Decimal(number), Decimal(number))) for number, model in enumerate(MODELS)
    ]
    split = split_by_model(days)
    assert list(split.groups) == [*reversed(MODELS[-MAX_GROUPS:]), OTHER]
    assert split.sums[-1].spent.cost.usd == sum(range(len(MODELS) - MAX_GROUPS))
    assert split.sums[-1].spent.requests == len(MODELS) - MAX_GROUPS


def test_a_single_further_group_keeps_its_name() -> None:
    days = [request(0, model, CostEstimate()) for model in MODELS[: MAX_GROUPS + 1]]
    assert OTHER not in split_by_model(days).groups


def test_what_may_be_more_leaves_out_what_has_no_bound() -> None:
    known, open_ended = CostEstimate.between(Decimal(1), Decimal(3)), CostEstimate.between(Decimal(1), None, 2)
    (spent,) = split_by_model([request(0, "a", known), request(0, "a", open_ended)]).days.values()
    assert spent.doubt == 2
    assert spent.cost.low == 2
    assert spent.cost.high is None
    assert spent.cost.unpriced == 2


def test_runs_without_a_tag_and_those_there_was_no_room_for_are_named_as_such() -> None:
    run = UsageRow(executions=2, by_status={Status.OK: 1, Status.ERROR: 1})
    day = date(2026, 11, 1)
    days = [
        DayUsage(day, UsageCell("ask", "openai", None, tags, run))
        for tags in ((), OTHER_TAGS, (("plan", "free"),), (("tenant", "a"),))
    ]
    split = split_by_tag(days, "tenant")
    assert {each.group: (each.executions, each.failures) for each in split.sums} == {
        UNTAGGED: (4, 2),
        "a": (2, 1),
        OTHER: (2, 1),
    }
    assert tag_names(days) == ["plan", "tenant"]
