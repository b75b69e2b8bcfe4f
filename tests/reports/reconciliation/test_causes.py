"""Each cause of a difference between a ledger and the bill, alone and with each other one, over real HTTP."""

import random
from decimal import Decimal
from itertools import combinations

import pytest
from bill_scene import DAY, DELAY, HOUR, LUNA, MINUTE, BillScene

from runmeter.reports.reconcile import Reconciled
from runmeter.reports.reconciliation.causes import Cause

CAUSES = tuple(cause for cause in Cause if cause is not Cause.UNEXPLAINED)
PAIRS = list(combinations(CAUSES, 2))
USUAL = {(Cause.UNENDED, Cause.OUTSIDE), (Cause.TIER, Cause.CACHE_LIFETIME), (Cause.TIER, Cause.OUTSIDE)}
"""Pairs that are tried at once; the others in the campaign."""


def told(scene: BillScene) -> Reconciled:
    """The one row of the scene, whose causes must add up to what was billed."""
    (row,) = scene.reconcile().rows
    assert (row.day, row.model, row.project) == (DAY, LUNA, "proj_default")
    assert row.billed is not None
    assert row.known + sum(scene.truth.values()) == row.billed
    low = sum(finding.usd.low or 0 for finding in row.findings)
    highs = [finding.usd.high for finding in row.findings]
    assert row.known + low <= row.billed
    assert None in highs or row.billed <= row.known + sum(high or 0 for high in highs)
    return row


def check(row: Reconciled, truth: dict[Cause, Decimal]) -> None:
    """The causes found are those that were seeded, and what each is worth lies within its interval."""
    assert [finding.cause for finding in row.findings] == [cause for cause in ORDER if cause in truth]
    for finding in row.findings:
        worth = truth[finding.cause]
        assert finding.usd.low is not None
        assert finding.usd.low <= worth, finding
        assert finding.usd.high is None or worth <= finding.usd.high, finding


ORDER = (
    *(Cause.TIER, Cause.CACHE_LIFETIME, Cause.UNPRICED, Cause.NOT_YET_BILLED),
    *(Cause.UNENDED, Cause.ESTIMATED, Cause.OUTSIDE),
)


async def test_where_all_was_seen_nothing_differs(scene: BillScene) -> None:
    scene.clock.advance(DELAY)
    row = told(scene)
    assert not row.findings
    assert row.ledger.usd == row.known == row.billed
    assert row.difference.usd == 0
    assert row.requests == row.billed_requests == 2


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_cause_alone_is_found_with_what_it_is_worth(scene: BillScene, cause: Cause) -> None:
    await scene.seed(cause)
    if cause is not Cause.NOT_YET_BILLED:
        scene.clock.advance(DELAY)
    row = told(scene)
    check(row, scene.truth)
    (finding,) = row.findings
    assert finding.usd.usd == scene.truth[cause]
    assert finding.requests[0] <= 1 <= finding.requests[1]


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(12))
async def test_many_causes_on_one_day_are_told_apart(scene: BillScene, seed: int) -> None:
    choice = random.Random(seed)  # noqa: S311 - any will do, but always the same
    causes = choice.sample([cause for cause in CAUSES if cause is not Cause.NOT_YET_BILLED], choice.randint(3, 6))
    for cause in causes:
        for _ in range(choice.randint(1, 3)):
            await scene.seed(cause)
            scene.clock.advance(MINUTE)
    if choice.random() < 0.5:
        await scene.seed(Cause.NOT_YET_BILLED)
    else:
        scene.clock.advance(DELAY)
    check(told(scene), scene.truth)


@pytest.mark.parametrize("apart", [True, False], ids=["apart", "at-once"])
@pytest.mark.parametrize(
    "pair",
    [pytest.param(pair, marks=() if pair in USUAL else pytest.mark.campaign, id="+".join(pair)) for pair in PAIRS],
)
async def test_two_causes_are_told_apart(scene: BillScene, pair: tuple[Cause, Cause], apart: bool) -> None:
    for cause in pair:
        await scene.seed(cause)
        scene.clock.advance(MINUTE if apart else 0)
    if Cause.NOT_YET_BILLED not in pair:
        scene.clock.advance(HOUR)
    row = told(scene)
    check(row, scene.truth)
