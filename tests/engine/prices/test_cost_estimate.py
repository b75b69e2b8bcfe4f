"""Costs: sums that are exact in any order, and the same whatever an application does to its decimals."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_UP, Clamped, Context, Decimal, Inexact, Rounded, Subnormal, localcontext
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import costs

from runmeter.engine import CostEstimate, UsageRow
from runmeter.engine.prices.units import UNITS, to_units, to_usd
from runmeter.engine.usage.row import CostRecord

UNPRICED = CostEstimate(high_units=None, unpriced=1)
whole_units = st.integers(-(10**60), 10**60) | st.integers(-(10**6), 10**6).map(lambda dollars: dollars * UNITS)


@contextmanager
def hostile_decimals() -> Iterator[None]:
    """An application that rounds to three digits, has no room for small numbers and raises whatever can be raised."""
    traps = [Clamped, Inexact, Rounded, Subnormal]
    with localcontext(Context(prec=3, rounding=ROUND_UP, Emin=-2, Emax=2, traps=traps)):
        yield


@given(costs(), costs(), costs())
def test_costs_add_up_in_any_order(a: CostEstimate, b: CostEstimate, c: CostEstimate) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c) == sum([c, a, b], start=CostEstimate())
    assert a + CostEstimate() == a


@given(costs(), costs())
def test_a_sum_of_costs_is_exact_and_no_more_certain_than_its_parts(a: CostEstimate, b: CostEstimate) -> None:
    both = a + b
    assert both.low == a.low + b.low
    assert both.high == (None if a.high is None or b.high is None else a.high + b.high)
    assert both.unpriced == a.unpriced + b.unpriced
    assert (both.usd is None) == (a.usd is None or b.usd is None)


@given(costs())
def test_a_cost_survives_the_encoding_of_its_row(cost: CostEstimate) -> None:
    row = UsageRow(cost_record=CostRecord.of(cost))
    assert msgspec.json.decode(msgspec.json.encode(row), type=UsageRow).cost == cost
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=UsageRow)
    assert copy == row
    assert (copy + copy).cost == cost + cost


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (CostEstimate(), "$0.00"),
        (exact := CostEstimate.between(Decimal("0.0123"), Decimal("0.0123")), "$0.0123"),
        (CostEstimate.between(Decimal("0.000001234"), Decimal("0.000001234")), "$0.00000123"),
        (CostEstimate.between(Decimal("12.3"), Decimal("12.3")), "$12.3000"),
        (CostEstimate.between(Decimal("1234.567"), Decimal("1234.567")), "$1,234.57"),
        (CostEstimate.between(Decimal("1234.567"), Decimal("1234.571")), "$1,234.56 to $1,234.58"),
        (CostEstimate.between(Decimal("0.01239"), None), "≥ $0.0123"),
        (exact + UNPRICED + UNPRICED, "≥ $0.0123 (2 requests unpriced)"),
        (UNPRICED, "unknown (1 request unpriced)"),
        (CostEstimate(high_units=None), "unknown"),
    ],
)
def test_costs_are_readable(cost: CostEstimate, text: str) -> None:
    assert str(cost) == text


@given(st.lists(costs(), max_size=6).flatmap(lambda parts: st.tuples(st.just(parts), st.permutations(parts))))
def test_sums_are_equal_in_every_order(orders: tuple[list[CostEstimate], list[CostEstimate]]) -> None:
    one, other = (sum(parts, start=CostEstimate()) for parts in orders)
    assert one == other
    assert one.low == sum((Fraction(part.low) for part in orders[0]), start=Fraction(0))


@given(whole_units)
def test_dollars_are_exact_under_hostile_decimals(units: int) -> None:
    with hostile_decimals():
        usd = to_usd(units)
        back = to_units(usd)
    assert Fraction(usd) == Fraction(units, UNITS)
    assert back == units
    _, digits, exponent = usd.as_tuple()
    assert exponent == 0 or (int(exponent) < 0 and digits[-1]), "neither 0.50 nor 1E+2"


@given(costs())
def test_the_nearest_float_is_the_decimals_own(cost: CostEstimate) -> None:
    assert cost.nearest_usd == (None if cost.usd is None else float(cost.usd))


@given(costs(), costs())
def test_costs_do_not_depend_on_an_applications_decimals(a: CostEstimate, b: CostEstimate) -> None:
    both = a + b
    plain = both.low, both.high, both.usd, str(both), CostRecord.of(both), CostEstimate.between(a.low, a.high)
    with hostile_decimals():
        assert (a + b) == both
        assert plain == (
            *(both.low, both.high, both.usd, str(both), CostRecord.of(both)),
            CostEstimate.between(a.low, a.high),
        )


def test_a_cost_is_written_in_decimals() -> None:
    cost = CostEstimate.between(Decimal("0.0555000"), Decimal(100), 2)
    row = UsageRow(cost_record=CostRecord.of(cost))
    assert msgspec.json.encode(row) == b'{"cost":{"low":"0.0555","high":"100","unpriced":2}}'
    assert msgspec.json.decode(b'{"cost":{"low":"0.05550","high":null}}', type=UsageRow).cost == CostEstimate.between(
        Decimal("0.0555"), None
    )
    assert msgspec.json.decode(b"{}", type=UsageRow).cost == CostEstimate()


def test_dollars_that_are_no_whole_number_of_units_are_refused() -> None:
    assert to_units(Decimal("1e-36")) == 1
    for amount in ("1e-37", "NaN"):
        with pytest.raises(ValueError):  # noqa: PT011 - the second message is the decimal module's
            CostEstimate.between(Decimal(amount), None)
    with pytest.raises(TypeError):
        CostEstimate(Decimal(1), Decimal(1))  # type: ignore[call-arg, arg-type] # dollars that would pass for units
