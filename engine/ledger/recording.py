"""The recording of an engine's runs in a ledger: the waits for it, on the event loop and off it."""

import threading
from collections.abc import Callable
from functools import partial
from os import PathLike
from typing import cast

import anyio

from ..concurrency.loop import LoopThread
from ..errors import ConfigurationError, LedgerFull
from .ledger import Ledger


class Recording:
    """Hands a ledger the events of an engine, and waits for it where the ledger's promise says so.

    Args:
        ledger: Where events are kept.
        catch_up: Hands over the events that the bus has and the ledger not yet.
    """

    def __init__(self, ledger: Ledger, catch_up: Callable[[], None]) -> None:
        self.ledger = ledger
        self.catch_up = catch_up
        self.keeps_runs = ledger.commit != "group"
        """A run's events are on disk when it returns."""
        self.keeps_requests = ledger.commit == "request"
        """A request is on disk before it leaves."""

    async def on_disk(self) -> bool:
        """Wait until all events published so far are on disk. Gives False where they cannot be, at the moment."""
        loop, done, outcome = LoopThread(), anyio.Event(), [False]

        def told(durable: bool) -> None:
            outcome[0] = durable
            _wake(loop, done)

        self.catch_up()
        self.ledger.sync(told)
        await done.wait()
        return outcome[0]

    def on_disk_now(self) -> bool:
        """Block this thread until all events published so far are on disk. Gives False where they cannot be."""
        done, outcome = threading.Event(), [False]

        def told(durable: bool) -> None:
            outcome[0] = durable
            done.set()

        self.catch_up()
        self.ledger.sync(told)
        done.wait()
        return outcome[0]

    async def admission(self) -> None:
        """Wait until the ledger takes the events of new runs.

        Raises:
            LedgerFull: it takes none now, and refuses runs meanwhile.
        """
        ledger = self.ledger
        while not ledger.is_ready:
            if ledger.on_full == "refuse":
                raise LedgerFull(f"no run begins: {ledger.error or 'the ledger is too far behind'}")
            loop, done = LoopThread(), anyio.Event()
            ledger.when_ready(partial(_wake, loop, done))
            await done.wait()


def _wake(loop: LoopThread, done: anyio.Event) -> None:
    try:
        loop.run(done.set)
    except RuntimeError:
        pass  # the loop has closed: nothing waits there


def ledger_of(ledger: object) -> Ledger | None:
    """Take what an engine was given as its ledger: a path, or a ledger.

    Raises:
        ConfigurationError: it is neither.
    """
    if ledger is None:
        return None
    if isinstance(ledger, str | PathLike):
        from .sqlite import SQLiteLedger

        return SQLiteLedger(ledger)
    if not all(hasattr(ledger, name) for name in ("commit", "on_full", "open", "put", "sync", "when_ready", "close")):
        raise ConfigurationError(f"ledger is a path or a Ledger, such as SQLiteLedger('runs.db'), not {ledger!r:.100}")
    return cast("Ledger", ledger)
