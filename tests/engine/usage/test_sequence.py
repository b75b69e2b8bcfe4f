"""Numbers that come twice, late and out of order: each is taken once."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from runmeter.engine.usage.sequence import MAX_GAPS, SeqWindow


@given(st.lists(st.integers(0, 30)))
def test_each_number_is_new_once(numbers: list[int]) -> None:
    window, seen = SeqWindow(), set[int]()
    for number in numbers:
        assert window.takes(number) is (number not in seen)
        seen.add(number)
        stretches = [(0, window.next_seq), *(window.ahead or [])]
        assert {seq for first, end in stretches for seq in range(first, end)} == seen
        assert all(end < first for (_, end), (first, _) in pairwise(stretches))


@given(st.permutations(range(20)))
def test_numbers_without_a_gap_leave_nothing(numbers: list[int]) -> None:
    window = SeqWindow()
    assert all(window.takes(number) for number in numbers)
    assert (window.next_seq, window.ahead) == (20, None)


def test_more_gaps_than_are_told_apart_give_up_the_first() -> None:
    window = SeqWindow()
    assert all(window.takes(number) for number in range(1, 2 * MAX_GAPS + 4, 2))
    assert window.ahead is not None
    assert len(window.ahead) == MAX_GAPS
    assert not window.takes(0), "given up as lost"
    assert window.takes(2 * MAX_GAPS)
    assert not window.takes(2 * MAX_GAPS)
