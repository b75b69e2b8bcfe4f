"""Waiting until exporters have sent what they hold: as long as that helps, and no longer than there is time."""

import math
import time
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

POLL = 0.005
"""Seconds between two looks at the exporters."""
PATIENCE = 1.5
"""Seconds to wait for a collector that is known to be in trouble: enough for a first retry."""
SILENT_PATIENCE = 5.0
"""Seconds to wait for a collector, or a provider of the application, that says nothing at all."""


class Exporting(Protocol):
    """An exporter that sends its queue in the background."""

    in_trouble: bool
    answers: int

    def hurry(self) -> float:
        """Send pending items without delay; the time returned is for `is_settled`."""
        ...

    def is_settled(self, until: float) -> bool:
        """Tell whether no item that came until then is pending."""
        ...


class Drain:
    """Waits for exporters, once or several times, with one patience for all of it.

    A collector that was waited for in vain is not waited for again before it has answered. So to flush and then to shut
    down takes no longer than one of them.

    Args:
        exporters: Are waited for.
        clock: Tells seconds that only go forward.
    """

    def __init__(self, exporters: Sequence[Exporting], clock: Callable[[], float] = time.monotonic) -> None:
        self.waited = 0.0
        """Seconds that were waited since all items had been sent."""
        self._clock = clock
        self._patience = [_Patience(exporter) for exporter in exporters]

    def pauses(self, timeout: float, collected: Callable[[], bool] = lambda: True) -> Generator[float, None, None]:
        """Yield the pauses to make, in seconds, until all is sent, or waiting is no use any more.

        Args:
            timeout: Seconds, at most.
            collected: Whether all that is to be sent has been handed over; it is waited for, too.
        """
        started = now = self._clock()
        collecting = True
        self._hurry()
        try:
            while now - started < timeout:
                if collecting and (collected() or now - started >= SILENT_PATIENCE):
                    collecting = False
                    self._hurry()
                waiting = [patience for patience in self._patience if patience.is_worthwhile()]
                if not waiting and not collecting:
                    break
                yield POLL
                before, now = now, self._clock()
                for patience in waiting:
                    patience.spend(now - before)
        finally:
            settled = all(patience.is_settled() for patience in self._patience)
            self.waited = 0.0 if settled else self.waited + self._clock() - started

    def wait(self, timeout: float) -> bool:
        """Wait in this thread until all is sent, or for `timeout` seconds. Tell whether all was sent."""
        for pause in self.pauses(timeout):
            time.sleep(pause)
        return self.waited == 0

    def _hurry(self) -> None:
        for patience in self._patience:
            patience.hurry()


class _Patience:
    """The time that is left to wait for one exporter."""

    def __init__(self, exporter: Exporting) -> None:
        self._exporter = exporter
        self._until = -math.inf  # what came later is not waited for
        self._answers = exporter.answers
        self._spent = 0.0  # since the last answer

    def hurry(self) -> None:
        self._until = self._exporter.hurry()

    def is_settled(self) -> bool:
        return self._exporter.is_settled(self._until)

    def is_worthwhile(self) -> bool:
        if self._exporter.answers != self._answers:
            self._answers, self._spent = self._exporter.answers, 0.0
        patience = PATIENCE if self._exporter.in_trouble else SILENT_PATIENCE
        return self._spent < patience and not self.is_settled()

    def spend(self, seconds: float) -> None:
        self._spent += seconds
