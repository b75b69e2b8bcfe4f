"""What waits for export: its bounds, its order, its times and its account. No thread, no clock but a number."""

from collections import Counter
from typing import Any

import pytest
from campaign_support import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runmeter.telemetry.export.queue import FIRST_RETRY, MAX_RETRY_DELAY, Bounds, ExportQueue
from runmeter.telemetry.export.verdict import Refused, Taken, Unavailable, Verdict

AWAY = Unavailable("nobody listens")


def make(jitter: float = 1.0, **bounds: Any) -> ExportQueue[int]:
    """A queue of numbers, roomy where nothing else is said."""
    roomy = {"size": 1_000_000, "age": 300.0, "batch_count": 10, "batch_size": 1_000, "delay": 5.0}
    return ExportQueue(Bounds(**(roomy | bounds)), lambda: jitter)


def fill(queue: ExportQueue[int], items: range, now: float = 0.0, size: int = 1) -> None:
    for item in items:
        queue.put(item, size, now)


def account(queue: ExportQueue[int]) -> tuple[int, int, int, int]:
    """What became of the items; it must balance."""
    assert queue.taken == queue.sent + queue.failed + queue.dropped + queue.pending
    return queue.sent, queue.failed, queue.dropped, queue.pending


def test_a_full_request_is_due_at_once_and_a_part_of_one_after_the_delay() -> None:
    queue = make()
    assert queue.due(0.0) is None
    fill(queue, range(9), now=1.0)
    assert (queue.is_ready, queue.due(2.0), queue.due(7.0)) == (False, 4.0, 0)
    fill(queue, range(9, 10), now=2.0)
    assert (queue.is_ready, queue.due(2.0)) == (True, 0)


def test_requests_are_bounded_by_number_and_by_size() -> None:
    queue = make()
    fill(queue, range(12))
    assert queue.take(0.0) == [*range(10)]
    assert queue.due(9.0) is None  # one is under way
    queue.settle(Taken(), 0.0)
    fill(queue, range(12, 15), size=600)
    assert queue.take(0.0) == [10, 11, 12]
    queue.settle(Taken(), 0.0)
    assert queue.take(0.0) == [13]
    queue.settle(Taken(), 0.0)
    assert account(queue) == (14, 0, 0, 1)


def test_an_item_larger_than_a_request_goes_alone_and_one_larger_than_the_bounds_not_at_all() -> None:
    queue = make(size=10_000)
    fill(queue, range(1))
    queue.put(1, 5_000, 0.0)
    queue.put(2, 10_001, 0.0)
    assert queue.take(0.0) == [0]
    queue.settle(Taken(), 0.0)
    assert queue.take(0.0) == [1]
    assert account(queue) == (1, 0, 1, 1)


@pytest.mark.parametrize("bounds", [{"size": 20}, {"count": 20}])
def test_beyond_the_bounds_the_oldest_go_but_not_those_under_way(bounds: dict[str, int]) -> None:
    queue = make(**bounds)
    fill(queue, range(20))
    assert queue.take(0.0) == [*range(10)]
    fill(queue, range(20, 25))
    assert account(queue) == (0, 0, 5, 20)
    queue.settle(Taken(), 0.0)
    assert queue.take(0.0) == [*range(15, 25)]


def test_what_is_put_when_all_is_under_way_is_dropped() -> None:
    queue = make(count=10)
    fill(queue, range(10))
    queue.take(0.0)
    fill(queue, range(10, 13))
    assert account(queue) == (0, 0, 3, 10)


def test_what_is_too_old_is_dropped_before_it_is_sent() -> None:
    queue = make(age=60.0)
    fill(queue, range(3), now=0.0)
    fill(queue, range(3, 5), now=30.0)
    assert queue.take(61.0) == [3, 4]
    queue.settle(AWAY, 61.0)
    assert queue.take(100.0) == []
    assert queue.due(100.0) is None
    assert account(queue) == (0, 0, 5, 0)


def test_a_request_that_found_no_collector_waits_again_in_its_place() -> None:
    queue = make()
    fill(queue, range(15))
    assert queue.take(0.0) == [*range(10)]
    queue.settle(AWAY, 1.0)
    assert account(queue) == (0, 0, 0, 15)
    assert queue.due(1.0) == FIRST_RETRY
    assert queue.take(2.0) == [*range(10)]


def test_retries_are_ever_rarer_until_one_is_taken() -> None:
    queue = make(jitter=1.1)
    fill(queue, range(10))
    delays, now = [], 0.0
    for _ in range(7):
        queue.take(now)
        queue.settle(AWAY, now)
        delay = queue.due(now)
        assert delay is not None
        delays.append(delay / 1.1)
        now += delay
    assert delays == pytest.approx([1, 2, 4, 8, 16, MAX_RETRY_DELAY, MAX_RETRY_DELAY])
    queue.take(now)
    queue.settle(Taken(), now)
    fill(queue, range(10), now)
    assert queue.due(now) == 0


def test_when_the_collector_names_a_time_it_is_kept_even_in_a_hurry() -> None:
    queue = make()
    fill(queue, range(10))
    queue.take(0.0)
    queue.settle(Unavailable("busy", retry_after=60.0), 0.0)
    queue.hurry(1.0)
    assert queue.due(1.0) == 59.0
    assert queue.take(60.0) == [*range(10)]


def test_no_collector_is_waited_for_longer_than_anything_may_wait() -> None:
    queue = make(age=60.0)
    fill(queue, range(1))
    queue.take(0.0)
    queue.settle(Unavailable("maintenance", retry_after=86_400.0), 10.0)
    assert queue.due(10.0) == 60.0


def test_in_a_hurry_nothing_waits_for_a_request_to_fill_up_or_for_the_next_try() -> None:
    queue = make()
    fill(queue, range(3))
    queue.hurry(0.5)
    assert queue.due(0.5) == 0
    queue.take(0.5)
    queue.settle(AWAY, 0.5)
    assert queue.due(0.5) == FIRST_RETRY
    queue.hurry(0.6)
    assert queue.due(0.6) == 0
    queue.take(0.6)
    queue.settle(Taken(), 0.6)
    fill(queue, range(1), now=0.7)  # has come since
    assert queue.due(0.7) == 5.0


def test_all_is_settled_that_came_until_then() -> None:
    queue = make()
    assert queue.is_settled(0.0)
    fill(queue, range(1), now=1.0)
    fill(queue, range(1, 2), now=2.0)
    assert queue.is_settled(0.5)
    assert not queue.is_settled(1.0)
    queue.take(2.0)
    assert not queue.is_settled(1.0)  # it is under way
    queue.settle(Refused("never"), 2.0)
    assert queue.is_settled(2.0)


def test_a_refusal_and_a_part_rejected_are_failures() -> None:
    queue = make()
    fill(queue, range(30))
    queue.take(0.0)
    queue.settle(Refused("404"), 0.0)
    queue.take(0.0)
    queue.settle(Taken(rejected=3), 0.0)
    queue.take(0.0)
    queue.settle(Taken(rejected=1_000), 0.0)  # data points, of ten collections
    assert account(queue) == (7, 23, 0, 0)
    queue.refuse()
    assert account(queue) == (7, 24, 0, 0)


def test_part_of_a_request_can_be_given_back() -> None:
    queue = make()
    fill(queue, range(12))
    queue.take(0.0)
    queue.give_back(6)
    queue.settle(Taken(), 0.0)
    assert queue.take(0.0) == [*range(4, 12)]
    assert account(queue) == (4, 0, 0, 8)


def test_once_closed_everything_is_dropped() -> None:
    queue = make()
    fill(queue, range(12))
    queue.take(0.0)
    queue.close()
    queue.give_back(5)
    queue.settle(Taken(), 1.0)  # too late
    fill(queue, range(12, 14))
    assert account(queue) == (0, 0, 14, 0)
    assert queue.due(1.0) is None


def test_crowded_is_before_full_and_half_empty_after_it() -> None:
    queue = make(count=100, size=1_000)
    fill(queue, range(75))
    assert (queue.is_crowded, queue.is_half_empty) == (False, False)
    fill(queue, range(75, 76))
    assert (queue.is_crowded, queue.is_half_empty) == (True, False)
    for _ in range(3):
        queue.take(0.0)
        queue.settle(Taken(), 0.0)
    assert (queue.is_crowded, queue.is_half_empty) == (False, True)
    queue.put(0, 800, 0.0)
    assert (queue.is_crowded, queue.is_half_empty) == (True, False)


def test_what_is_crowded_is_sent_even_if_a_request_is_not_full() -> None:
    queue = make(count=8)
    fill(queue, range(6))
    assert not queue.is_ready
    fill(queue, range(6, 7))
    assert queue.due(0.0) == 0


VERDICTS = st.one_of(
    st.builds(Taken, st.integers(0, 5)),
    st.just(Refused("no")),
    st.builds(Unavailable, st.just("later"), st.none() | st.floats(0, 100)),
)


class Exporting(RuleBasedStateMachine):
    """Items come, requests leave, time goes by: in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = make(size=50, count=30, age=20.0, batch_count=7, batch_size=20)
        self.came: list[int] = []
        self.under_way: list[int] = []
        self.left = Counter[int]()  # requests that carried an item and were not to be repeated
        self.last = -1
        self.is_closed = False

    @rule(sizes=st.lists(st.integers(1, 60), max_size=20))
    def put(self, sizes: list[int]) -> None:
        for size in sizes:
            self.queue.put(len(self.came), size, self.now)
            self.came.append(size)

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.under_way and self.queue.due(self.now) == 0)
    @rule()
    def take(self) -> None:
        self.under_way = self.queue.take(self.now)
        assert self.under_way == sorted(self.under_way)
        assert all(item > self.last for item in self.under_way)  # nothing twice, nothing out of order
        sizes = [self.came[item] for item in self.under_way]
        assert len(sizes) <= 7
        assert sum(sizes) <= 20 or len(sizes) == 1

    @precondition(lambda self: self.under_way)
    @rule(count=st.integers(0, 3))
    def give_back(self, count: int) -> None:
        if count < len(self.under_way):
            self.queue.give_back(count)
            del self.under_way[len(self.under_way) - count :]

    @precondition(lambda self: self.under_way)
    @rule(verdict=VERDICTS)
    def settle(self, verdict: Verdict) -> None:
        before = self.queue.sent, self.queue.failed
        self.queue.settle(verdict, self.now)
        if isinstance(verdict, Unavailable) or self.is_closed:
            assert (self.queue.sent, self.queue.failed) == before
        else:
            self.left.update(self.under_way)
            self.last = self.under_way[-1]
        self.under_way = []

    @rule()
    def hurry(self) -> None:
        self.queue.hurry(self.now)

    @rule()
    @precondition(lambda self: self.now > 60)
    def close(self) -> None:
        self.queue.close()
        self.is_closed = True

    @invariant()
    def it_balances_within_its_bounds(self) -> None:
        queue = self.queue
        assert queue.taken == len(self.came)
        assert queue.sent + queue.failed == sum(self.left.values())
        assert max(self.left.values(), default=1) == 1
        account(queue)
        assert queue.pending <= 30
        waiting = [self.came[item] for item in queue._waiting.items]
        assert len(waiting) == len(queue._waiting.sizes) == len(queue._waiting.times)
        assert queue._size == sum(waiting) + sum(size for _, size, _ in queue._under_way) <= 50


TestExporting = Exporting.TestCase
TestExporting.settings = settings(examples(200), stateful_step_count=40)
