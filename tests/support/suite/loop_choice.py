"""Which cases of a test run on which event loop: each test on both in short, each case on both in the campaigns."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import pytest

LOOP = "anyio_backend"


def leave_other_loops_to_campaigns(items: Iterable[pytest.Item]) -> None:
    """Mark all but one of the event loops that a case of a test runs on: the one its values have met least often.

    So each test runs on both, and each value of each parameter as well where it comes in several cases. A test that
    has but one case keeps both.
    """
    cases = _cases(items)
    several = Counter(test for test, *_ in cases)
    met: Counter[tuple[object, ...]] = Counter()
    for values, by_loop in cases.items():
        if len(by_loop) < 2 or several[values[0]] < 2:
            continue
        kept = min(by_loop, key=lambda loop: sum(met[value, loop] for value in values))
        met.update((value, kept) for value in values)
        for loop, item in by_loop.items():
            if loop != kept:
                item.add_marker(pytest.mark.campaign)


def _cases(items: Iterable[pytest.Item]) -> dict[tuple[object, ...], dict[str, pytest.Item]]:
    """The items of each case by their loops, without those that are left to the campaigns anyway."""
    cases: dict[tuple[object, ...], dict[str, pytest.Item]] = defaultdict(dict)
    for item in items:
        called: Any = getattr(item, "callspec", None)
        if called is None or LOOP not in called.params or item.get_closest_marker("campaign"):
            continue
        test = item.nodeid.partition("[")[0]
        values = ((test, name, id(value)) for name, value in called.params.items() if name != LOOP)
        cases[(test,), *values][called.params[LOOP]] = item
    return cases
