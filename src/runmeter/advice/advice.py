"""A piece of advice, and the way its numbers are written."""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec

MIN_RUNS = 20
"""Number of runs (or requests, or calls) below which nothing is said: too few to tell a habit from an accident."""
CONFIDENCE = 0.95
"""Confidence that all the comparisons of one report hold together: the more pairs are compared, the more each has to
show."""

Kind: TypeAlias = Literal[
    "cheaper",
    "faster",
    "caching_saved",
    "caching_possible",
    "tool_tokens",
    "prompt_tokens",
    "failed_requests",
    "silence",
]


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """A statement that an application's history supports. A value: msgspec can encode it."""

    kind: Kind
    """The kind of statement; `silence` says what cannot be told, and what is missing."""
    subject: str
    """The thing it is about: a variant, a pattern with a model, a tool."""
    text: str
    """The statement for people: one to three sentences."""
    figures: Mapping[str, float | Decimal | None] = {}
    """The numbers in the text, by name: USD, tokens, ratios, nanoseconds (`_ns`). None is an end that is not known."""
    counts: Mapping[str, int] = {}
    """The numbers of runs, requests or calls that they rest on."""


def times(low: float, high: float) -> str:
    """Write a ratio's interval above 1, rounded outwards: `3.1–4.2 times`; `at least` without a known upper end."""
    least = _rounded(low, math.floor)
    if math.isinf(high):
        return f"at least {least} times"
    most = _rounded(high, math.ceil)
    return f"{least} times" if least == most else f"{least}–{most} times"


def _rounded(ratio: float, rounding: Callable[[float], int]) -> str:
    """Round a ratio to two significant digits, or to as many more as it takes to differ from 1."""
    if ratio >= 10:
        scale = 10 ** (math.floor(math.log10(ratio)) - 1)
        return f"{rounding(ratio / scale) * scale:,}"
    places = 1 if ratio >= 2 else 2
    while places < 9 and rounding(ratio * 10**places) == 10**places:
        places += 1
    return f"{rounding(ratio * 10**places) / 10**places:g}"


def percent(share: float) -> str:
    """Write a share as `3.2 %`."""
    return f"{_percentage(share, 3)} %"


def percents(low: float, high: float) -> str:
    """Write the interval of a share, as `2.9–4.1 %`."""
    first, last = _percentage(low, 2), _percentage(high, 2)
    return f"{first} %" if first == last else f"{first}–{last} %"


def _percentage(share: float, digits: int) -> str:
    """Write a share in percent with `digits` significant digits: `100`, not `1e+02`."""
    return f"{Decimal(f'{share * 100:.{digits}g}'):f}"


def tokens(low: int, high: int) -> str:
    """Write a number of tokens, or the interval that it lies in."""
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
