"""Money as whole numbers of a tiny unit: sums are exact in any order, whatever an application does to its decimals."""

from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow

# A context of our own: an application that lowers the precision of its decimals must not round its bill.
MONEY = Context(prec=100, Emin=-999_999, Emax=999_999, traps=[InvalidOperation, DivisionByZero, Overflow])

DECIMALS = 36
"""Decimals of a dollar that are kept: more would make arithmetic slower. A token's price in genai-prices had at most 24
in 2026-11, and such a price times a tier's multiple of 12 decimals is still exact. What has more is refused, never
rounded."""
UNITS: int = 10**DECIMALS
"""Number of units that make a dollar."""

_UNIT = Decimal(1).scaleb(-DECIMALS, MONEY)
_multiply, _normalize = MONEY.multiply, MONEY.normalize


def to_usd(units: int) -> Decimal:
    """Convert units to USD, without trailing zeros. Exact below 10^64 dollars."""
    if not units % UNITS:
        return Decimal(units // UNITS)  # and not 1E+2
    return _normalize(_multiply(_UNIT, units))


def to_units(usd: Decimal) -> int:
    """Convert USD to a whole number of units.

    Raises:
        ValueError: It has more than `DECIMALS` decimals, or is not a number.
        OverflowError: It is infinite.
    """
    numerator, denominator = usd.as_integer_ratio()
    if UNITS % denominator:
        raise ValueError(f"{usd} has more than {DECIMALS} decimals")
    return numerator * (UNITS // denominator)
