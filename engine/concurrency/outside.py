"""Requests to models that belong to no run: counted, told once, and in the one engine that runs, held to its budgets.

The link between a request and its run is a context variable. A thread that is started without its caller's context
has lost it, and nothing can find it again: see `carry`.
"""

import logging
import os
from collections.abc import Callable
from contextvars import ContextVar, Token
from threading import Lock

from ..runtime import Runtime

logger = logging.getLogger("runmeter")


class Outside:
    """The engines that run in this process, and the requests that were made outside their runs."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._runtimes: list[Runtime] = []
        self._told = False
        self._installed: object = None
        self._at_close: dict[Callable[[], object], object] = {}
        self.gone: frozenset[object] = frozenset()
        """Engines of the process that this one was forked from."""
        self.requests = 0
        """Requests outside all runs that were heard of, since the process began."""

    @property
    def runtime(self) -> Runtime | None:
        """The runtime of the engine that runs, if there is exactly one: among several none is guessed."""
        with self._lock:
            return self._runtimes[0] if len(self._runtimes) == 1 else None

    def ambient(self) -> Runtime | None:
        """Find the runtime for a request outside all runs: of the engine whose block this code is in, else of the one
        that is installed, else of the only one. None if that does not run."""
        runtimes, entered = self._runtimes, _entered.get()
        if len(runtimes) == 1 and runtimes[0].owner is entered:
            return runtimes[0]
        for owner in (entered, self._installed):
            for runtime in runtimes if owner is not None else ():
                if runtime.owner is owner:
                    return runtime
        return runtimes[0] if len(runtimes) == 1 else None

    def install(self, owner: object) -> None:
        """Make an engine, running or not, the one of code that is in no engine's block. None takes that back."""
        self._installed = owner

    def is_alive(self, runtime: Runtime) -> bool:
        """Tell whether a runtime is one of this process, and not of the one that it was forked from."""
        return not self.gone or runtime.owner not in self.gone

    def forget(self) -> None:
        """Leave behind the engines of the process that this one was forked from: none of them runs here."""
        self._lock = Lock()  # the other may have been held
        self.gone |= {runtime.owner for runtime in self._runtimes}
        self._runtimes, self._at_close, self._told = [], {}, False

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
            ends = [end for end, owner in self._at_close.items() if owner is runtime.owner]
            for end in ends:
                del self._at_close[end]
        for end in ends:
            end()

    def call_at_close(self, owner: object, end: Callable[[], object]) -> None:
        """Have a function called when an engine closes."""
        with self._lock:
            self._at_close[end] = owner

    def forget_close(self, end: Callable[[], object]) -> bool:
        """Take back what was to be called when an engine closes. Tell whether it was, and is not called now."""
        with self._lock:
            return self._at_close.pop(end, None) is not None

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
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=outside.forget)

_entered: ContextVar[object] = ContextVar("runmeter_engine", default=None)
"""The engine in whose block this code is."""


def install(engine: object) -> None:
    """Make an engine the one of this process, for requests that are in no run and in no engine's block.

    That is needed only where several engines run in a process: the only one is found without it.

    Args:
        engine: Running or not: it counts while it runs. None takes the last one back.
    """
    outside.install(engine)


def outside_requests() -> int:
    """Read how many requests to models were heard of in this process that belong to no run, whatever engines ran."""
    return outside.requests


def call_at_close(owner: object, end: Callable[[], object]) -> None:
    """Have a function called when an engine closes, before it takes its last events.

    Args:
        owner: The engine, as a run's `runtime.owner`.
        end: Ends what nothing else does, such as a run that waits for an answer.
    """
    outside.call_at_close(owner, end)


def forget_close(end: Callable[[], object]) -> None:
    """Have a function not called any more when its engine closes. One that would not be is not an error."""
    outside.forget_close(end)


def enter_engine(owner: object) -> Token[object]:
    """Make an engine the current one, of this task and those it starts."""
    return _entered.set(owner)


def leave_engine(token: Token[object]) -> None:
    """Make the engine current that was before."""
    try:
        _entered.reset(token)
    except (ValueError, RuntimeError):
        pass  # left in another context than entered, or for the second time: an engine that has closed is none
