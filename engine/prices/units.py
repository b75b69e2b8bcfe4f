"""Money as whole numbers of a tiny unit: sums are exact in any order, whatever an application does to its decimals."""

from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow

# A context of our own: an application that lowers the precision of its decimals must not round its bill.
MONEY = Context(prec=100, Emin=-999_999, Emax=999_999, traps=[InvalidOperation, DivisionByZero, Overflow])

DECIMALS = 36
"""Of a dollar: more would make arithmetic slower. A token's price in genai-prices had 24 at the most in 2026-11, and
such a price times a tier's multiple of 12 decimals is still exact. What has more is refused, never rounded."""
UNITS: int = 10**DECIMALS
"""So many make a dollar."""

_UNIT = Decimal(1).scaleb(-DECIMALS, MONEY)
_multiply, _normalize = MONEY.multiply, MONEY.normalize


def to_usd(units: int) -> Decimal:
    """An amount in USD, without trailing zeros. Exact below 10^64 dollars."""
    if not units % UNITS:
        return Decimal(units // UNITS)  # and not 1E+2
    return _normalize(_multiply(_UNIT, units))


def to_units(usd: Decimal) -> int:
    """An amount in USD as a whole number of units.

    Raises:
        ValueError: It has more than `DECIMALS` decimals, or is no number.
        OverflowError: It is infinite.
    """
    numerator, denominator = usd.as_integer_ratio()
    if UNITS % denominator:
        raise ValueError(f"{usd} has more than {DECIMALS} decimals")
    return numerator * (UNITS // denominator)
