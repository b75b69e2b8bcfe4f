"""Waiting for exporters that keep up, before more is put into their queues."""

from collections.abc import Sequence
from typing import Protocol

import anyio

POLL = 0.01
"""Seconds between two looks at the queues."""
MAX_WAIT = 5.0
"""Seconds to wait in all for queues that never come to be half empty again: then they drop their oldest."""


class Filling(Protocol):
    """An exporter whose queue fills up."""

    @property
    def is_crowded(self) -> bool:
        """The queue is so full that a caller should wait before it puts more there."""
        ...

    @property
    def is_half_empty(self) -> bool:
        """The queue has room for as much again as it holds."""
        ...


class Backpressure:
    """Says when to wait for room in the queues.

    A subscriber that waits falls behind, and events pile up in the bus, where measurements would be lost with the
    spans. So a collector that does not keep up in the long run, or is away, is not waited for.

    Args:
        exporters: Whose queues fill up.
    """

    def __init__(self, exporters: Sequence[Filling]) -> None:
        self._exporters = exporters
        self._left = MAX_WAIT

    def is_due(self) -> bool:
        """Tell whether a caller should wait before it puts more into the queues."""
        for exporter in self._exporters:  # asked for each span: a loop takes half as long as any()
            if exporter.is_crowded:
                return self._left > 0
        return False

    def relax(self) -> None:
        """Gain patience, if the queues have come to be half empty."""
        if self._left < MAX_WAIT and all(exporter.is_half_empty for exporter in self._exporters):
            self._left = MAX_WAIT

    async def wait(self) -> None:
        """Wait until the queues have room, or patience ends."""
        while self.is_due():
            started = anyio.current_time()
            await anyio.sleep(POLL)
            self._left -= anyio.current_time() - started
