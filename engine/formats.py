"""Text for people: tables, times, money and counts; and texts from outside, made safe for terminals and pages.

Names may come from models, servers and callers. Whatever writes one to a terminal passes it through `printable`,
whatever writes one into HTML through `escape_html`: there is no other way of escaping.
"""

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal, TypeAlias

from .prices.units import MONEY

Kind: TypeAlias = Literal["usd", "tokens", "calls"]
"""Units that a budget counts."""

_TIME_UNITS = ((10**9, "s"), (10**6, "ms"), (10**3, "µs"), (1, "ns"))


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table as lines of text: the first column to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def format_time(time_ns: int | None) -> str:
    """Format a time in nanoseconds with three digits and a fitting unit, such as `1.23 s`; None as a dash."""
    if time_ns is None:
        return "-"
    size, unit = next((step for step in _TIME_UNITS if time_ns >= step[0]), _TIME_UNITS[-1])
    value = time_ns / size
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def format_dollars(amount: Decimal, rounding: str = ROUND_HALF_EVEN) -> str:
    """Format USD with two decimals from $100 on, with four down to a cent, and with three digits below."""
    places = 2 if amount >= 100 or not amount else max(4, 2 - amount.adjusted())
    return f"${amount.quantize(Decimal(1).scaleb(-places, MONEY), rounding, MONEY):,f}"


def format_rough_dollars(amount: float) -> str:
    """Format USD with three digits, where the figure is an estimate."""
    if amount >= 100:
        return f"${amount:,.0f}"
    places = 2 if amount <= 0 else max(2, 2 - Decimal(amount).adjusted())
    return f"${amount:.{places}f}"


def format_price(price: Decimal | None) -> str:
    """Format a price in USD to a millionth, with two decimals at least and without a sign; None as a dash."""
    if price is None:
        return "–"
    price = round(price, 6)
    return f"{price:.2f}" if price == round(price, 2) else f"{price.normalize():f}"


def format_amount(kind: Kind, amount: Decimal) -> str:
    """Format an amount that a budget counts, in full, with its unit."""
    number = f"{amount:,f}"
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    if kind == "usd":
        return f"${number}"
    return f"{number} {kind if number != '1' else kind[:-1]}"


def format_count(count: int, noun: str) -> str:
    """Format a number of things with their noun: `1 run`, `2,000 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """Make a text safe for a terminal: signs that steer it, or turn its direction, become escapes such as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def escape_html(text: str) -> str:
    """Escape a text for HTML, as an element's content or within quotes as an attribute's value."""
    from html import escape  # a page is rare, and its table of entities takes a millisecond to load

    return escape(printable(text))
