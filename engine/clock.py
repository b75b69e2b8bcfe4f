"""Sources of times and run ids. Both are injected, so that a test decides them."""

import os
import random
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias


class Clock(Protocol):
    """A clock with two readings of time."""

    def time_ns(self) -> int:
        """Read nanoseconds since the Unix epoch: says when."""
        ...

    def monotonic_ns(self) -> int:
        """Read nanoseconds on a clock that never goes back: says how long."""
        ...


class SystemClock:
    """The machine's own clocks."""

    # Bound to the C functions themselves: a reading costs one call, not two.
    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.perf_counter_ns)


IdSource: TypeAlias = Callable[[], str]
"""A function that makes a run id: 32 hexadecimal digits, never all zero, and as good as random in the last 16.

Where no caller's trace goes on it is the W3C trace id, by whose last digits samplers take their share.
"""

# A generator of our own: neither `random.seed(0)` in user code nor a fork may make two processes draw the same ids.
_random = random.Random()  # noqa: S311 - ids must be unique, not secret
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_random.seed)


def random_run_id() -> str:
    """Draw 128 random bits as 32 hexadecimal digits."""
    return f"{_random.getrandbits(128) or 1:032x}"
