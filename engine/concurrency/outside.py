"""Requests to models that belong to no run: counted, told once, and in the one engine that runs, held to its budgets.

The link between a request and its run is a context variable. A thread that is started without its caller's context
has lost it, and nothing can find it again: see `carry`.
"""

import logging
from threading import Lock

from ..runtime import Runtime

logger = logging.getLogger("runmeter")


class Outside:
    """The engines that run in this process, and the requests that were made outside their runs."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._runtimes: list[Runtime] = []
        self._told = False
        self.requests = 0
        """Requests outside all runs that were heard of, since the process began."""

    @property
    def runtime(self) -> Runtime | None:
        """The runtime of the engine that runs, if there is exactly one: among several none is guessed."""
        with self._lock:
            return self._runtimes[0] if len(self._runtimes) == 1 else None

    @property
    def watched(self) -> bool:
        """True while at least one engine runs in this process."""
        return bool(self._runtimes)

    def open(self, runtime: Runtime) -> None:
        """Take in an engine that has started."""
        with self._lock:
            self._runtimes.append(runtime)
            self._told = False

    def close(self, runtime: Runtime) -> None:
        """Leave out an engine that closes. One that is not in is not an error."""
        with self._lock:
            self._runtimes = [each for each in self._runtimes if each.owner is not runtime.owner]

    def count(self) -> None:
        """Count a request, and warn of the first since an engine has started."""
        with self._lock:
            self.requests += 1
            told, self._told = self._told, True
            engines = len(self._runtimes)
        if not told:
            logger.warning(
                "a request to a model belongs to no run, and so to no tenant: it was made outside `engine.run`, or in "
                "a thread without its caller's context (%d engines run). Hand functions to executors as "
                "`runmeter.carry(function)`. Further ones are not told",
                engines,
            )


outside = Outside()
"""The instance that this process shares."""
