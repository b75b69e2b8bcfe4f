"""A queue of items that wait for export: bounded by size, age and number, in the order in which they came.

There is no thread, no lock and no clock in here: the caller says what time it is.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

import msgspec

from .verdict import Refused, Unavailable, Verdict

Item = TypeVar("Item")
Entry: TypeAlias = tuple[Item, int, float]
"""An item, its size, and when it came."""

FIRST_RETRY = 1.0
"""Seconds before a request that found no collector is sent again; doubles with each further failure."""
MAX_RETRY_DELAY = 30.0
"""Seconds before a request is sent again, at most: for so long a collector's return may go unnoticed."""
CROWDED = 0.75
"""Share of the bounds that may be filled before callers that can wait should."""


class Bounds(msgspec.Struct, frozen=True):
    """Bounds of a queue and of its requests. Sizes are in bytes, times in seconds."""

    size: int
    """Bytes that may wait or be under way; beyond them the oldest items are dropped."""
    age: float
    """Seconds that an item may wait; older ones are dropped."""
    batch_count: int
    """Items in a request, at most."""
    batch_size: int
    """Bytes of a request, at most, unless one item alone is larger."""
    delay: float
    """Seconds that an item waits for a request to fill up."""
    count: float = math.inf
    """Items that may wait or be under way."""


class _Line(Generic[Item]):
    """Entries, the oldest in front. Kept in parts, because the garbage collector would look at each again and again."""

    __slots__ = ("items", "sizes", "times")

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self.sizes: deque[int] = deque()
        self.times: deque[float] = deque()

    def __len__(self) -> int:
        return len(self.items)

    def take_oldest(self) -> Entry[Item]:
        return self.items.popleft(), self.sizes.popleft(), self.times.popleft()

    def put_back(self, entries: Sequence[Entry[Item]]) -> None:
        for item, size, time in reversed(entries):
            self.items.appendleft(item)
            self.sizes.appendleft(size)
            self.times.appendleft(time)


class ExportQueue(Generic[Item]):
    """Holds items to be exported, and counts what became of the rest: `taken = sent + failed + dropped + pending`.

    Beyond its bounds it drops the oldest. So after an outage there is one gap, and the present is there.

    Args:
        bounds: How much may wait, and when it is sent.
        jitter: Makes the factor by which a delay is lengthened, lest all processes come back at once.
    """

    def __init__(self, bounds: Bounds, jitter: Callable[[], float] | None = None) -> None:
        self.bounds = bounds
        self.taken = self.sent = self.failed = self.dropped = 0
        self.pending = 0
        """Items that wait or are under way."""
        self._jitter = jitter or _jitter
        self._waiting: _Line[Item] = _Line()
        self._under_way: list[Entry[Item]] = []
        self._size = 0  # of both
        self._max_size, self._max_count = bounds.size, bounds.count
        self._crowded_size, self._crowded_count = bounds.size * CROWDED, bounds.count * CROWDED
        self._urgent = -math.inf  # what came until then is to be sent without delay
        self._failures = 0  # in a row
        self._not_before = -math.inf
        self._told = False  # the collector has named that time
        self._closed = False

    @property
    def is_crowded(self) -> bool:
        """The queue is so full that callers should wait, if they can, before they put more there."""
        return self._size > self._crowded_size or self.pending > self._crowded_count

    @property
    def is_half_empty(self) -> bool:
        """The queue has room for as much again as it holds."""
        return self._size * 2 <= self.bounds.size and self.pending * 2 <= self.bounds.count

    @property
    def is_ready(self) -> bool:
        """The queue holds enough for a request, and nothing is against sending it at once."""
        return self._is_enough() and not self._failures

    def put(self, item: Item, size: int, now: float) -> None:
        """Take an item of `size` bytes. One that alone is larger than the bounds is dropped."""
        self.taken += 1
        if self._closed or size > self._max_size:
            self.dropped += 1
            return
        waiting = self._waiting
        waiting.items.append(item)
        waiting.sizes.append(size)
        waiting.times.append(now)
        self._size += size
        self.pending += 1
        while self._size > self._max_size or self.pending > self._max_count:
            self._drop_oldest()

    def due(self, now: float) -> float | None:
        """Tell the seconds until there is something to send; None if there is nothing at all."""
        if not self._waiting or self._under_way:
            return None
        if now < self._not_before:
            return self._not_before - now
        since = self._waiting.times[0]
        if self._failures or self._is_enough() or since <= self._urgent:
            return 0
        return max(0, since + self.bounds.delay - now)

    def take(self, now: float) -> list[Item]:
        """Take the items of the next request, under way until it is settled. Empty if all had grown too old."""
        assert not self._under_way  # noqa: S101 - one at a time
        waiting, bounds = self._waiting, self.bounds
        while waiting and now - waiting.times[0] > bounds.age:
            self._drop_oldest()
        entries: list[Entry[Item]] = []
        room = bounds.batch_size
        while waiting and len(entries) < bounds.batch_count and (waiting.sizes[0] <= room or not entries):
            room -= waiting.sizes[0]
            entries.append(waiting.take_oldest())
        self._under_way = entries
        return [item for item, _, _ in entries]

    def give_back(self, count: int) -> None:
        """Have the last `count` items of the request that is under way wait again."""
        kept = max(0, len(self._under_way) - count)
        self._waiting.put_back(self._under_way[kept:])
        del self._under_way[kept:]

    def settle(self, verdict: Verdict, now: float) -> None:
        """Settle the request that was under way by its verdict. Once the queue is closed that makes no difference."""
        entries, self._under_way = self._under_way, []
        if isinstance(verdict, Unavailable):
            self._waiting.put_back(entries)
            self._postpone(verdict.retry_after, now)
            return
        self._failures, self._not_before, self._told = 0, -math.inf, False
        self._size -= sum([size for _, size, _ in entries])
        self.pending -= len(entries)
        failed = len(entries) if isinstance(verdict, Refused) else min(verdict.rejected, len(entries))
        self.failed += failed
        self.sent += len(entries) - failed

    def hurry(self, now: float) -> None:
        """Have waiting items sent without delay, unless the collector has named a time."""
        self._urgent = now
        if not self._told:
            self._not_before = -math.inf

    def is_settled(self, until: float) -> bool:
        """Tell whether no item that came until then is pending."""
        if self._under_way:
            return self._under_way[0][2] > until
        return not self._waiting or self._waiting.times[0] > until

    def refuse(self) -> None:
        """Count an item that could not even be made."""
        self.taken += 1
        self.failed += 1

    def close(self) -> None:
        """Drop all pending items, and those that are yet to come."""
        self._closed = True
        self.dropped += self.pending
        self._waiting, self._under_way = _Line(), []
        self._size = self.pending = 0

    def _is_enough(self) -> bool:
        return len(self._waiting) >= self.bounds.batch_count or self._size >= self.bounds.batch_size or self.is_crowded

    def _postpone(self, told: float | None, now: float) -> None:
        self._failures += 1
        self._told = told is not None
        delay = min(FIRST_RETRY * 2 ** min(self._failures - 1, 10), MAX_RETRY_DELAY) * self._jitter()
        self._not_before = now + min(delay if told is None else told, self.bounds.age)

    def _drop_oldest(self) -> None:
        self._size -= self._waiting.take_oldest()[1]
        self.pending -= 1
        self.dropped += 1


def _jitter() -> float:
    return random.uniform(0.8, 1.2)  # noqa: S311 - no secret
