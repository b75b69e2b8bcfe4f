"""The short form of what a campaign tries in full."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def shortly(values: Iterable[T], chosen: Callable[[T], bool]) -> list[Any]:
    """Parameters of a test, for all of these values: those not chosen are tried in the campaigns alone."""
    return [value if chosen(value) else pytest.param(value, marks=pytest.mark.campaign) for value in values]
