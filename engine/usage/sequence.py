"""The window of a run's events that have come: they may come twice, late, and out of order."""

from bisect import bisect_right
from math import inf

import msgspec

MAX_GAPS = 1_024
"""Stretches of missing events that are told apart. One more, and those of the first are given up as lost."""


class SeqWindow(msgspec.Struct, gc=False):
    """The numbers seen so far, in as many stretches as there are gaps between them.

    So its size depends neither on how many events come nor on how late a missing one is.
    """

    next_seq: int = 0
    """The first number that was neither seen nor given up."""
    ahead: list[tuple[int, int]] | None = None
    """The stretches beyond it that were seen, in order: first number, and the one after the last. Never empty."""

    def takes(self, seq: int) -> bool:
        """Tell whether a number is new. From now on it counts as seen."""
        ahead = self.ahead or []
        place = bisect_right(ahead, (seq, inf))
        if seq < self.next_seq or (place and seq < ahead[place - 1][1]):
            return False
        first, end = seq, seq + 1
        before = after = place
        if place and ahead[place - 1][1] == seq:
            before, first = place - 1, ahead[place - 1][0]
        if place < len(ahead) and ahead[place][0] == end:
            after, end = place + 1, ahead[place][1]
        ahead[before:after] = [(first, end)]
        if ahead[0][0] == self.next_seq or len(ahead) > MAX_GAPS:
            self.next_seq = ahead.pop(0)[1]
        self.ahead = ahead or None
        return True
