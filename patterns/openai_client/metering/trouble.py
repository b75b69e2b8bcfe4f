"""Failures of the metering itself: none of them reaches a request, and the first is told."""

import logging
from threading import Lock

logger = logging.getLogger("runmeter")


class Trouble:
    """The failures of this process's metered clients."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.count = 0
        """Requests that were not metered, or not wholly, because metering them failed."""

    def note(self, error: Exception) -> None:
        """Count a failure, and log the first."""
        with self._lock:
            self.count += 1
            is_first = self.count == 1
        if is_first:
            logger.error(
                "a request of a metered client was sent, but metering it failed; further failures are not told",
                exc_info=error,
            )


trouble = Trouble()
"""The instance that this process shares."""
