"""What agrees between requests and a bill, and what is left: by values, without HTTP."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import pytest
from bill_scene import MORNING
from hypothesis import given
from hypothesis import strategies as st

from runmeter.engine import CostEstimate, Usage
from runmeter.reports.reconciliation.amounts import Amount, narrowed, sum_amounts
from runmeter.reports.reconciliation.bill import BilledUsage
from runmeter.reports.reconciliation.counts import NOTHING, Counts, total
from runmeter.reports.reconciliation.matching import Match, Tier, compare
from runmeter.reports.reconciliation.parts import Knowledge, LedgerPart

TIERS = ("default", "priority", "flex")
usages = st.builds(
    lambda plain, read, written, long, output: Usage(
        input_tokens=plain + read + written,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_12h_tokens=written if long else 0,
    ),
    *(st.integers(0, 40) for _ in range(3)),
    st.booleans(),
    st.integers(1, 40),
)
requests = st.builds(
    lambda minute, tier, usage: (minute, tier, usage), st.integers(0, 5), st.sampled_from(TIERS), usages
)


def part(minute: int, tier: Tier, usage: Usage, lasting: int = 0) -> LedgerPart:
    start = (MORNING + 60 * minute) * 10**9
    return LedgerPart(
        start_ns=start,
        end_ns=start + lasting * 60 * 10**9,
        model="m",
        is_answered=True,
        tier=tier,
        knowledge=Knowledge.EXACT,
        counts=Counts(1, usage),
        cost=CostEstimate(),
    )


def billed(minute: int, tier: Tier, usage: Usage) -> BilledUsage:
    return BilledUsage(MORNING + 60 * minute, None, "m", tier, Counts(1, usage))


def compared(own: Sequence[LedgerPart], told: Sequence[BilledUsage], width: int = 60) -> Match:
    return compare(own, told, width)


@given(st.lists(requests), st.lists(requests), st.sampled_from([60, 86_400]))
def test_nothing_is_lost_and_nothing_is_counted_twice(
    own: list[tuple[int, str, Usage]], told: list[tuple[int, str, Usage]], width: int
) -> None:
    found = compared([part(*each) for each in own], [billed(*each) for each in told], width)
    for tier in TIERS:
        difference = total(Counts(1, usage) for _, of, usage in told if of == tier) - total(
            Counts(1, usage) for _, of, usage in own if of == tier
        )
        explained = found.moved.get(tier, NOTHING) + found.surplus.get(tier, NOTHING)
        rest = difference - (explained - found.missing.get(tier, NOTHING))
        assert not rest.tokens_alone
        low, high = found.lifetimes.get(tier, (0, 0))
        assert low <= rest.usage.cache_write_12h_tokens <= high
    assert not total(found.moved.values()).tokens_alone


@given(st.lists(requests), st.lists(st.tuples(st.sampled_from(TIERS), st.integers(0, 3))))
def test_requests_in_another_tier_alone_are_found_to_be_just_that(
    own: list[tuple[int, str, Usage]], changes: list[tuple[str, int]]
) -> None:
    moved = {index: tier for index, (tier, _) in enumerate(changes) if index < len(own)}
    told = [(minute, moved.get(index, tier), usage) for index, (minute, tier, usage) in enumerate(own)]
    found = compared([part(*each) for each in own], [billed(*each) for each in told])
    assert not found.surplus
    assert not found.missing
    assert not found.lifetimes
    before, after = Counter(tier for _, tier, _ in own), Counter(tier for _, tier, _ in told)
    assert found.moved_requests >= sum((after - before).values())


@given(st.lists(requests, min_size=1), st.lists(requests, min_size=1))
def test_what_a_stranger_asked_is_what_is_left_over(
    own: list[tuple[int, str, Usage]], strangers: list[tuple[int, str, Usage]]
) -> None:
    told = [billed(*each) for each in (*own, *strangers)]
    found = compared([part(*each) for each in own], told)
    assert total(found.surplus.values()).tokens_alone == total(Counts(1, usage) for *_, usage in strangers).tokens_alone
    assert not found.missing
    assert found.moved_requests == 0


def test_it_does_not_matter_whether_a_bill_counts_by_the_start_or_the_end() -> None:
    own = [part(minute, "default", Usage(10 + minute, 5), lasting=3) for minute in range(10)]
    by_end = [billed(minute + 3, "default", Usage(10 + minute, 5)) for minute in range(10)]
    found = compared(own, by_end)
    assert not (found.surplus)
    assert not (found.missing)
    assert not (found.moved_requests)


def test_a_request_is_known_again_by_its_tokens_where_both_tiers_have_strangers() -> None:
    own = [part(0, "default", Usage(10, 5)), part(0, "default", Usage(20, 9)), part(0, "default", Usage(31, 4))]
    told = [billed(0, "default", usage) for usage in (Usage(10, 5), Usage(31, 4), Usage(500, 500))]
    found = compared(own, [*told, billed(0, "priority", Usage(20, 9))])
    assert found.moved_requests == 1
    assert found.moved["priority"] == Counts(1, Usage(20, 9))
    assert found.surplus == {"default": Counts(1, Usage(500, 500))}


def test_a_tier_that_is_whole_has_given_nothing_away() -> None:
    own = [part(0, "default", Usage(10, 5))]
    found = compared(own, [billed(0, "default", Usage(10, 5)), billed(0, "priority", Usage(10, 5))])
    assert found.moved_requests == 0
    assert found.surplus == {"priority": Counts(1, Usage(10, 5))}


# --- Sums of intervals ---

ends = st.decimals(-100, 100, places=2)


@given(st.lists(st.tuples(ends, ends, ends, st.booleans(), st.booleans()), min_size=1, max_size=5))
def test_narrowing_a_sum_keeps_the_truth_of_each_part(
    parts: list[tuple[Decimal, Decimal, Decimal, bool, bool]],
) -> None:
    truth = [sorted(numbers[:3])[1] for numbers in parts]
    amounts = [
        Amount(None if no_low else min(numbers), None if no_high else max(numbers))
        for *numbers, no_low, no_high in parts
    ]
    narrow = narrowed(amounts, Amount.exactly(sum(truth, Decimal(0))))
    assert narrow is not None
    for amount, was, true in zip(narrow, amounts, truth, strict=True):
        assert amount.low is None or amount.low <= true
        assert amount.high is None or true <= amount.high
        assert amount.within(was) == amount


def test_parts_that_cannot_make_up_a_sum_are_told() -> None:
    assert narrowed([Amount(Decimal(1), Decimal(2))], Amount.exactly(Decimal(3))) is None


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Amount.exactly(Decimal("0.25")), "$0.2500"),
        (Amount.exactly(Decimal("-0.25")), "-$0.2500"),
        (Amount(Decimal(0), Decimal("0.25")), "$0.00 to $0.2500"),
        (Amount(Decimal("-0.12345"), Decimal("-0.1")), "-$0.1235 to -$0.1000"),
        (Amount(Decimal(1), None), "≥ $1.0000"),
        (Amount(None, Decimal(-1)), "≤ -$1.0000"),
        (Amount(None, None), "unknown"),
    ],
)
def test_an_interval_is_never_shown_as_one_number_nor_the_unknown_as_zero(amount: Amount, text: str) -> None:
    assert str(amount) == text


def test_amounts_add_up_end_by_end() -> None:
    assert sum_amounts([Amount(Decimal(1), None), Amount(Decimal(2), Decimal(3))]) == Amount(Decimal(3), None)
