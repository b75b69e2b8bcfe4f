"""The short form of what a campaign tries in full."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest
from hypothesis import settings

T = TypeVar("T")
SHORT, FULL = 25, 100
"""Examples of a property that says no number of its own, in short and in the campaigns."""


def shortly(values: Iterable[T], chosen: Callable[[T], bool]) -> list[Any]:
    """Parameters of a test, for all of these values: those not chosen are tried in the campaigns alone."""
    return [value if chosen(value) else pytest.param(value, marks=pytest.mark.campaign) for value in values]


def examples(number: int) -> settings:
    """Settings of a property that has so many examples in the campaigns, and in short its share of them."""
    assert settings.default is not None
    return settings(max_examples=max(1, number * settings.default.max_examples // FULL))
