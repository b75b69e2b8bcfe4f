"""The bill adds up: whatever it is broken down by, and whatever the events come from."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_support import DAY_NS, NOV_1_NS, Told, events_of, write_ledger, write_log
from strategies import event_streams

from runmeter.engine import ConfigurationError, Event, PriceBook, Provenance, Usage, UsageAggregator
from runmeter.engine.event_log import is_ledger
from runmeter.reports.bill import BillLine, BillQuery, UsageBill
from runmeter.reports.sources import reader_of

BOOK = PriceBook()
NAMES = ("day", "pattern", "framework", "model", "tag:tenant", "tag:team")
GROUPINGS = st.lists(st.sampled_from(NAMES), unique=True, max_size=3)


def bill_of(path: Path, **query: Any) -> UsageBill:
    bill = UsageBill(BillQuery(**query))

    def damaged(line: int, error: str) -> None:
        raise AssertionError(f"line {line}: {error}")

    with reader_of(path, BOOK, damaged) as ledger:
        for counts in ledger.counts(bill.query.since, bill.query.until):
            bill.add(counts)
        for request in ledger.unended_requests():
            bill.add_unended(request, BOOK)
    return bill


def added_up(lines: list[BillLine]) -> tuple[Any, ...]:
    return (
        sum(line.runs or 0 for line in lines),
        sum(sum(line.requests.values()) for line in lines),
        sum((line.usage or Usage() for line in lines), start=Usage()),
        sum(line.cost.low for line in lines),
        None if any(line.cost.high is None for line in lines) else sum(line.cost.high or 0 for line in lines),
        sum(line.cost.unpriced for line in lines),
        sum(line.unended for line in lines),
    )


@given(events=event_streams(), by=GROUPINGS)
@settings(max_examples=25)
def test_lines_add_up_to_the_live_statistics(
    events: list[Event], by: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bill")
    ledger, log = write_ledger(folder / "runs.db", events, BOOK), write_log(folder / "events.jsonl", events)
    assert is_ledger(ledger)
    assert not is_ledger(log)
    aggregator = UsageAggregator(BOOK, max_keys=10_000)
    aggregator.fold(events)
    live = aggregator.snapshot().total
    bill = bill_of(ledger, by=by)
    lines, total = list(bill.lines()), bill.total()
    assert total.cost == live.cost
    assert total.requests == live.requests_by_provenance
    assert (total.usage or Usage()) == live.usage
    assert total.runs == (None if "model" in by else live.executions)
    assert added_up(lines) == added_up([total])
    assert total.inclusive is None or total.inclusive == live.cost, "each request once"
    assert bill_of(log, by=by).lines() == lines, "a log says what a ledger says"


@given(events=event_streams())
@settings(max_examples=10)
def test_days_add_up_to_a_month(events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> None:
    ledger = write_ledger(tmp_path_factory.mktemp("bill") / "runs.db", events, BOOK)
    lines = bill_of(ledger, by=["day", "tag:tenant"]).lines()
    for day in {line.group[0] for line in lines}:
        assert day is not None
        first = date.fromisoformat(day)
        alone = bill_of(ledger, by=["day", "tag:tenant"], since=first, until=date.fromordinal(first.toordinal() + 1))
        assert list(alone.lines()) == [line for line in lines if line.group[0] == day]


def test_a_request_is_on_the_day_in_which_it_left_and_until_is_exclusive(tmp_path: Path) -> None:
    late = Told(1, at_ns=NOV_1_NS + DAY_NS - 10**9)
    late.asks(Usage(100, 10)).asks(Usage(1_000, 10), at_ns=NOV_1_NS + DAY_NS + 5).ends()
    ledger = write_ledger(tmp_path / "runs.db", events_of(late))
    [first, second] = bill_of(ledger, by=["day"]).lines()
    assert (first.group, first.runs, first.usage) == (("2026-11-01",), 1, Usage(100, 10))
    assert (second.group, second.runs, second.usage) == (("2026-11-02",), 0, Usage(1_000, 10))
    assert first.inclusive is not None
    assert first.inclusive.low == first.cost.low + second.cost.low, "the run began on the first day"
    only = bill_of(ledger, since=date(2026, 11, 1), until=date(2026, 11, 2)).total()
    assert only.usage == Usage(100, 10)


def test_what_is_not_known_is_not_zero(tmp_path: Path) -> None:
    bound = Usage(1_000, 100)
    unknown = Told(1, tags={"tenant": "acme"}).asks(None, provenance=Provenance.UNKNOWN, bound=bound).ends()
    unpriced = Told(2, tags={"tenant": "umbrella"}).asks(Usage(5, 5), "no-such-model").ends()
    crashed = Told(3).leaves(bound=bound)
    boundless = Told(4, tags={"tenant": "acme"}).leaves()
    ledger = write_ledger(tmp_path / "runs.db", events_of(unknown, unpriced, crashed, boundless))
    bill = bill_of(ledger, by=["tag:tenant"])
    acme, umbrella, neither = bill.lines()
    at_most = BOOK.upper_bound("openai", "gpt-6-luna", None, bound, NOV_1_NS)
    assert acme.usage is None
    assert not acme.cost.low
    assert not acme.cost.unpriced
    assert acme.cost.high
    assert acme.is_lower_bound
    assert (acme.unended, acme.unended_cost.high) == (1, None)
    assert (umbrella.cost.high, umbrella.cost.unpriced) == (None, 1)
    assert neither.group == (None,)
    assert (neither.unended, neither.unended_cost.high) == (1, at_most)
    assert not neither.unended_cost.low
    assert neither.cost.high == 0, "it is not in the cost"
    assert bill.lost == 2
    assert bill.total().unended_cost.high is None


def test_filters_and_inclusive_costs(tmp_path: Path) -> None:
    outer = Told(1, "routing", tags={"tenant": "acme"}).asks(Usage(1_000, 0))
    inner = Told(2, "routing.billing", outer.now_ns, within=outer, tags={"tenant": "umbrella"}).asks(Usage(0, 1_000))
    again = Told(3, "routing", inner.now_ns, within=inner, tags={"tenant": "umbrella"}).asks(Usage(500, 0)).ends()
    ledger = write_ledger(tmp_path / "runs.db", events_of(outer.ends(), inner.ends(), again))
    whole = bill_of(ledger).total().cost.low
    routing, billing = bill_of(ledger, by=["pattern"]).lines()
    assert routing.inclusive is not None
    assert billing.inclusive is not None
    assert routing.inclusive.low == whole, "a run of the pattern within another counts once"
    assert billing.inclusive.low == billing.cost.low + BOOK.cost(again.events[2]).low  # type: ignore[arg-type]
    assert routing.cost.low + billing.cost.low == whole
    acme, umbrella = bill_of(ledger, by=["tag:tenant"], where={"pattern": "routing"}).lines()
    assert acme.inclusive is not None
    assert umbrella.inclusive is not None
    assert acme.inclusive.low == whole
    assert umbrella.inclusive.low == Decimal(0), "its run is within one of acme's"
    assert [line.runs for line in (acme, umbrella)] == [1, 1]
    [model] = bill_of(ledger, by=["model"], where={"tag:tenant": "umbrella"}).lines()
    assert (model.group, model.runs, model.inclusive) == (("gpt-6-luna",), None, None)
    assert model.usage == Usage(500, 1_000)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"by": ["tenant"]}, "tag:NAME"),
        ({"by": ["tag:"]}, "tag:NAME"),
        ({"where": {"day": "2026-11-01"}}, "tag:NAME"),
        ({"since": date(2026, 11, 2), "until": date(2026, 11, 2)}, "the day after the last"),
    ],
)
def test_questions_without_sense(query: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        BillQuery(**query)
