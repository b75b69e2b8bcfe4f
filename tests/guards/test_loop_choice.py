"""The short form of the tests that run on two event loops: nothing is on neither, and each test is on both."""

from collections import Counter, defaultdict
from itertools import product
from typing import Any

import pytest
from loop_choice import LOOP, leave_other_loops_to_campaigns


class Case:
    """What of an item counts here."""

    def __init__(self, loop: str | None, *marks: str, **params: Any) -> None:
        params |= {LOOP: loop} if loop else {}
        self.nodeid = f"test[{params}]"
        self.callspec = self
        self.params = params
        self.marks = list(marks)

    def get_closest_marker(self, name: str) -> object:
        return name if name in self.marks else None

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        self.marks.append(mark.name)


LOOPS = "asyncio", "trio"


def short(*cases: Case) -> list[Case]:
    """What is left of the cases in the short form."""
    items: Any = cases
    leave_other_loops_to_campaigns(items)
    return [case for case in cases if "campaign" not in case.marks]


@pytest.mark.parametrize("sizes", [(2,), (3,), (2, 2), (3, 2), (4, 2), (2, 3, 2), (5, 4)], ids=str)
def test_each_case_runs_once_and_each_test_and_value_on_both_loops(sizes: tuple[int, ...]) -> None:
    values = [[object() for _ in range(size)] for size in sizes]
    cases = [
        Case(loop, **{f"p{name}": value for name, value in enumerate(chosen)})
        for loop in LOOPS
        for chosen in product(*values)
    ]
    left = short(*cases)
    runs = Counter(tuple(value for name, value in case.params.items() if name != LOOP) for case in left)
    assert set(runs) == set(product(*values))
    assert set(runs.values()) == {1}
    assert {case.params[LOOP] for case in left} == set(LOOPS)
    met: dict[tuple[str, object], set[str]] = defaultdict(set)
    for case in left:
        for name, value in case.params.items():
            met[name, value].add(case.params[LOOP])
    assert all(len(loops) == 2 for (name, _), loops in met.items() if name != LOOP) or len(sizes) == 1


def test_a_test_of_one_case_keeps_both_loops() -> None:
    assert len(short(*(Case(loop) for loop in LOOPS))) == 2
    scaled = [Case(loop, *["campaign"] * (scale == 9), scale=scale) for scale in (1, 9) for loop in LOOPS]
    assert [case.params["scale"] for case in short(*scaled)] == [1, 1]


def test_what_runs_on_one_loop_anyway_is_left_alone() -> None:
    cases = [Case("asyncio", scale=scale) for scale in (1, 2)]
    assert len(short(*cases, Case(None, scale=3))) == 3
