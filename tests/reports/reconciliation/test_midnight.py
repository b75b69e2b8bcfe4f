"""Requests around midnight, by values: a bill that has them on the other day."""

from collections.abc import Sequence
from datetime import date, timedelta

import pytest
from bill_scene import BOOK, DAY, LUNA

from runmeter.engine import Provenance, TokenUsage, Usage
from runmeter.reports.reconcile import DayRange, Reconciliation, reconcile
from runmeter.reports.reconciliation.bill import BilledCost, BilledFigures, BilledUsage
from runmeter.reports.reconciliation.causes import Cause
from runmeter.reports.reconciliation.parts import LedgerPart, ended_parts

MIDNIGHT = 1_795_305_600
"""The start of `DAY`: seconds since the Unix epoch."""
OTHERS = [-3_600, 3_600]


def part(seconds: float, usage: Usage, lasting: float = 0.5) -> LedgerPart:
    start_ns = int((MIDNIGHT + seconds) * 10**9)
    event = TokenUsage(
        run_id=f"{1:032x}",
        seq=1,
        time_ns=start_ns,
        call_id=0,
        provider="openai",
        operation="chat",
        model=LUNA,
        provenance=Provenance.REPORTED,
        usage=usage,
        start_ns=start_ns,
        duration_ns=int(lasting * 10**9),
        response_model=LUNA,
    )
    (found,) = ended_parts(event, None, BOOK)
    return found


class KnownBill:
    """A bill that has each request at a time of its own."""

    is_live = True

    def __init__(self, told: Sequence[tuple[float, LedgerPart]]) -> None:
        self._told = [(MIDNIGHT + int(seconds // 60) * 60, part) for seconds, part in told]

    def _usage(self, width: int) -> list[BilledUsage]:
        return [
            BilledUsage(start // width * width, "proj_a", LUNA, "default", part.counts) for start, part in self._told
        ]

    def read(self, first: date, end: date) -> BilledFigures:
        """Read all of it."""
        costs = [
            BilledCost(usage.day, "proj_a", LUNA, part.cost.usd)
            for usage, (_, part) in zip(self._usage(86_400), self._told, strict=True)
        ]
        return BilledFigures(self._usage(86_400), costs)

    def minutes(self, day: date) -> Sequence[BilledUsage]:
        """Read a day by the minute."""
        return [usage for usage in self._usage(60) if usage.day == day]


def compared(own: Sequence[LedgerPart], told: Sequence[tuple[float, LedgerPart]]) -> Reconciliation:
    days = DayRange(DAY - timedelta(5), DAY + timedelta(5), DAY + timedelta(9))
    return reconcile(own, KnownBill(told), days, BOOK)


@pytest.mark.parametrize(("left", "billed"), [(-0.01, 0.1), (-1, 5), (0.01, -0.1)])
def test_a_request_around_midnight_is_on_the_day_of_the_bill(left: float, billed: float) -> None:
    others = [part(seconds, Usage(100 + number, 10)) for number, seconds in enumerate(OTHERS)]
    near = part(left, Usage(50, 7), lasting=0.001)
    found = compared([*others, near], [*zip(OTHERS, others, strict=True), (billed, near)])
    assert [(row.day, row.requests, row.findings) for row in found.rows] == [
        (DAY - timedelta(1), 1 + (billed < 0), []),
        (DAY, 1 + (billed >= 0), []),
    ]
    assert all(row.billed == row.known for row in found.rows)


def test_a_stranger_beside_it_is_still_found() -> None:
    others = [part(seconds, Usage(100 + number, 10)) for number, seconds in enumerate(OTHERS)]
    near, stranger = part(-0.01, Usage(50, 7)), part(7_200, Usage(900, 90))
    told = [*zip(OTHERS, others, strict=True), (0.1, near), (7_200.0, stranger)]
    before, after = compared([*others, near], told).rows
    assert not before.findings
    assert [(finding.cause, finding.usd.usd) for finding in after.findings] == [(Cause.OUTSIDE, stranger.cost.usd)]


def test_a_request_far_from_midnight_stays_on_its_day() -> None:
    others = [part(seconds, Usage(100 + number, 10)) for number, seconds in enumerate(OTHERS)]
    far = part(-600, Usage(50, 7))
    before, after = compared([*others, far], [*zip(OTHERS, others, strict=True), (600.0, far)]).rows
    assert [finding.cause for finding in before.findings] == [Cause.UNEXPLAINED]
    assert [finding.cause for finding in after.findings] == [Cause.OUTSIDE]


def test_long_requests_count_by_their_end_where_the_bill_does() -> None:
    own = [part(-60 * minute, Usage(10 + minute, 5), lasting=3_600) for minute in range(1, 20)]
    own += [part(-7_200 - minute, Usage(10 + minute, 5), lasting=5) for minute in range(5)]
    told = [(each.end_ns / 10**9 - MIDNIGHT, each) for each in own]
    rows = compared(own, told).rows
    assert [(row.requests, list(row.findings)) for row in rows] == [(5, []), (19, [])]
