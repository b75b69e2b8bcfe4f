"""Costs of runs with the runs within them: they add up over days and tags, each request once."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given, settings
from strategies import event_streams

from runmeter.engine import Event, ExecutionStarted, LedgerReader, PriceBook, RunReported, SystemClock, TokenUsage
from runmeter.engine.ledger.ledger_file import LedgerFile
from runmeter.engine.ledger.roll_up import RollUp
from runmeter.engine.usage.cell import reported_request

BOOK = PriceBook()


def lows(events: Sequence[Event]) -> tuple[Decimal, dict[str, Decimal]]:
    """The cost of all requests, and of those that have a run of a pattern around them, by pattern: lower bounds."""
    runs = {each.run_id: each for each in events if isinstance(each, ExecutionStarted)}
    total, by_pattern = Decimal(0), defaultdict[str, Decimal](Decimal)
    seen = set()
    for event in events:
        request = reported_request(event) if isinstance(event, RunReported) else event
        if not isinstance(request, TokenUsage) or (event.run_id, event.seq) in seen:
            continue
        seen.add((event.run_id, event.seq))
        cost = BOOK.cost(request).low
        around, run = set(), runs.get(event.run_id)
        around.add(event.pattern if isinstance(event, RunReported) else run.pattern if run else "unknown")
        while run is not None and run.parent_run_id is not None:
            run = runs.get(run.parent_run_id)
            if run is not None:
                around.add(run.pattern)
        total += cost
        for pattern in around:
            by_pattern[pattern] += cost
    return total, by_pattern


@settings(max_examples=30)
@given(events=event_streams())
def test_each_request_is_in_them_once(events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("ledger") / "runs.db"
    store = LedgerFile(path, SystemClock())
    store.append(events)
    total, by_pattern = lows(events)
    for rolled_up in (False, True):
        while rolled_up and RollUp(store, BOOK)("closing"):
            pass
        with LedgerReader(path, BOOK) as reader:
            days, counts = reader.days(), list(reader.counts())
        inclusive = defaultdict[str, Decimal](Decimal)
        for each in days:
            inclusive[each.cell.pattern] += each.inclusive.low
        assert {name: cost for name, cost in inclusive.items() if cost} == {n: c for n, c in by_pattern.items() if c}
        assert sum(each.outermost.low for each in days) == total
        assert sum(each.outermost.low for each in counts) == total
        assert sum(each.counts.requests for each in counts) == sum(each.cell.row.requests for each in days)
    store.close()
