"""Event loops whose time passes only when nothing else can happen: a test measures seconds and waits for none."""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any

import trio.testing

TICK = 0.001
"""Seconds that a turn of the loop takes: so that time passes for one that never rests, too."""


class _Selector(selectors.DefaultSelector):
    """Looks what is ready, and passes the time that it was told to wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None:
            self.now += timeout or TICK
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


class VirtualTime:
    """One test's event loop.

    Args:
        backend: `asyncio` or `trio`.
    """

    def __init__(self, backend: str) -> None:
        self._clock = trio.testing.MockClock(autojump_threshold=0)
        options: Mapping[str, Mapping[str, Any]] = {
            "asyncio": {"loop_factory": _Loop},
            "trio": {"clock": self._clock},
        }
        self.backend = backend, dict(options[backend])
        self.tick: Callable[[], None] = (lambda: self._clock.jump(TICK)) if backend == "trio" else (lambda: None)
        """Called in each turn by what never rests: trio's clock does not move meanwhile."""
