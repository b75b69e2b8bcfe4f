"""The recording of an engine's runs in a ledger: the waits for it, on the event loop and off it."""

import threading
from collections.abc import Callable
from functools import partial
from os import PathLike
from typing import cast

import anyio
import anyio.to_thread

from ..budgets.budgets import Budgets
from ..clock import Clock
from ..concurrency.loop import LoopThread
from ..errors import ConfigurationError, LedgerFull
from ..events import Event
from ..prices.price_book import PriceBook
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
        self._opening: anyio.Event | None = None  # new runs wait for it
        self._stopped = False
        self._is_open = False

    async def open(self, prices: PriceBook, clock: Clock, budgets: Budgets | None) -> None:
        """Open the ledger. Raises what `Ledger.open` raises."""
        with anyio.CancelScope(shield=True):  # a thread cannot be cancelled, and would leave it open
            await anyio.to_thread.run_sync(self.ledger.open, prices, clock, budgets)
        self._is_open = True

    async def close(self, limit: float) -> None:
        """Hand over the last events and close the ledger, if it is open, in at most `limit` seconds."""
        if self._is_open:
            self._is_open = False
            self.catch_up()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.ledger.close, limit)

    def take_late(self, event: Event) -> None:
        """Hand over an event that came too late for the bus, unless the ledger has closed too."""
        if self._is_open:
            self.ledger.put((event,))

    async def on_disk(self) -> bool:
        """Wait until all events published so far are on disk. Gives False where they cannot be, at the moment."""
        if not self._is_open:
            return False
        loop, done, outcome = LoopThread(), anyio.Event(), [False]

        def told(durable: bool) -> None:
            outcome[0] = durable
            _wake(loop, done.set)

        self.catch_up()
        self.ledger.sync(told)
        await done.wait()
        return outcome[0]

    def on_disk_now(self) -> bool:
        """Block this thread until all events published so far are on disk. Gives False where they cannot be."""
        if not self._is_open:
            return False
        done, outcome = threading.Event(), [False]

        def told(durable: bool) -> None:
            outcome[0] = durable
            done.set()

        self.catch_up()
        self.ledger.sync(told)
        done.wait()
        return outcome[0]

    async def admission(self) -> None:
        """Wait until the ledger takes the events of new runs, or `stop_holding` is called.

        Raises:
            LedgerFull: it takes none now, and refuses runs meanwhile.
        """
        ledger = self.ledger
        while not (ledger.is_ready or self._stopped):
            if ledger.on_full == "refuse":
                raise LedgerFull(f"no run begins: {ledger.error or 'the ledger is too far behind'}")
            opening = self._opening
            if opening is None:
                self._opening = opening = anyio.Event()
                ledger.when_ready(partial(_wake, LoopThread(), self._open))
            await opening.wait()

    def stop_holding(self) -> None:
        """Hold back no more runs, for the engine closes."""
        self._stopped = True
        self._open()

    def _open(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.set()


def _wake(loop: LoopThread, function: Callable[[], object]) -> None:
    try:
        loop.run(function)
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
