"""The ledger in a SQLite file: what it promises, and the thread that keeps the promise."""

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from os import PathLike
from pathlib import Path

from ..budgets.budgets import Budgets
from ..budgets.leases import Leases
from ..clock import Clock
from ..errors import ConfigurationError, EngineNotRunning
from ..events import Event
from ..prices.price_book import PriceBook
from ..usage.row import group_rows
from ..usage.statistics import UsageStatistics, statistics_of
from ..validation.checks import check_seconds
from .lease_table import LeaseTable
from .ledger import Commit, LedgerStatistics, OnFull, Told
from .ledger_file import LedgerFile
from .reader import LedgerReader
from .retention import Retention, check_retention
from .roll_up import RollUp
from .spending_roll_up import SpendingRollUp
from .writer import WINDOW, Writer

logger = logging.getLogger("runmeter")


class SQLiteLedger:
    """A ledger in a SQLite file, which several processes of one host may share.

        Engine(ledger="runs.db")
        Engine(ledger=SQLiteLedger("runs.db", commit="run"))

    Args:
        path: The file. It is made if there is none, readable by this user alone. A relative path is of the folder that
            is current now: the process may change it later.
        commit: `group` (events are on disk after `window` seconds: a crash loses no older ones), `run` (when
            `Engine.run` returns, its events are on disk; runs that end at once share a commit), or `request` (also, a
            request is on disk before it leaves). A run within a run is on disk with its outermost one.
        on_full: While events cannot be committed, because the disk is full for example, new runs `wait`, or are
            refused with `LedgerFull`. Runs under way go on either way, and their events wait in memory.
        window: Seconds that events wait for others, to share a commit.
        keep: The age from which on runs are let go of, with all their events, once they have ended and are counted in
            the statistics of their days, which stay. By default none is.
        max_bytes: The size of the file from which on its oldest runs are let go of, likewise; 1 MiB or more.

    Raises:
        ConfigurationError: the path names no file, there is no such promise, the window is no number of seconds, or a
            limit makes no sense.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        commit: Commit = "group",
        on_full: OnFull = "wait",
        window: float = WINDOW,
        keep: timedelta | None = None,
        max_bytes: int | None = None,
    ) -> None:
        if commit not in ("group", "run", "request"):
            raise ConfigurationError(f"commit is 'group', 'run' or 'request', not {commit!r:.100}")
        if on_full not in ("wait", "refuse"):
            raise ConfigurationError(f"on_full is 'wait' or 'refuse', not {on_full!r:.100}")
        check_seconds("window", window, positive=False)
        self.path = _absolute(path)
        self.commit: Commit = commit
        self.on_full: OnFull = on_full
        check_retention(keep, max_bytes)
        self._window = window
        self._keep = keep
        self._max_bytes = max_bytes
        self.lost = 0
        """Events that were not on disk when it closed, or have no form there."""
        self._writer: Writer | None = None
        self._leases: Leases | None = None
        self._prices: PriceBook | None = None
        self._is_open = False

    def __repr__(self) -> str:
        return f"SQLiteLedger({str(self.path)!r}, commit={self.commit!r})"

    @property
    def is_ready(self) -> bool:
        """Whether it takes the events of new runs: it can commit, and is not far behind."""
        return self._open_writer.is_ready

    @property
    def error(self) -> str | None:
        """The reason why the last commit failed; None if it did not."""
        return self._open_writer.error

    def open(self, prices: PriceBook, clock: Clock, budgets: Budgets | None = None) -> None:
        """Open the file, have budgets begin with what they have spent, and start to write.

        Args:
            prices: What tokens cost, for the roll-ups.
            clock: Tells when this process was last seen to write.
            budgets: Those of the engine. A budget that the ledger does not know yet is folded from all events that
                are kept of its window, once: a minute for ten million.

        Raises:
            EngineNotRunning: another engine uses it.
            LedgerError: the file cannot be opened or written, is not a ledger, or is a newer version's.
        """
        if self._is_open:
            raise EngineNotRunning(f"{self!r} is used by another engine: give each its own, of the same path")
        store = LedgerFile(self.path, clock)
        retention = Retention(store, clock, self._keep, self._max_bytes)
        days = RollUp(store, prices)
        spending = SpendingRollUp(store, prices, budgets.assumed_tier if budgets else None)
        leases = budgets.leases if budgets else None
        writer = Writer(
            store,
            self._window,
            lambda load: days(load) | spending(load) or retention(load),
            leases.tend if leases else None,
        )
        try:
            if budgets is not None:
                spent = spending.restore(budgets.given, clock.time_ns())
                budgets.restore(spent)
                if leases is not None:
                    leases.open(LeaseTable(store, budgets.shared(spent)), writer.wake)
        except BaseException:
            store.close()
            raise
        self._writer, self._leases, self._prices = writer, leases, prices
        self._is_open = True
        writer.start()

    def put(self, events: Sequence[Event]) -> None:
        """Take events, to be committed within the window. From any thread."""
        self._open_writer.put(events)

    def sync(self, told: Told) -> None:
        """Commit the events taken so far now, and tell whether they are on disk."""
        self._open_writer.sync(told)

    def when_ready(self, told: Callable[[], object]) -> None:
        """Tell once it takes the events of new runs, or has closed."""
        self._open_writer.when_ready(told)

    def close(self, limit: float) -> None:
        """Commit what is pending and close the file.

        Args:
            limit: Seconds that this may take: events that are not on disk by then are lost, which the log tells.
        """
        writer, self._is_open = self._open_writer, False
        is_complete = writer.close(limit)
        self.lost += writer.backlog + writer.statistics().skipped
        if self._leases is not None:
            self._leases.close()
        if not is_complete:
            reason = writer.error or f"it did not take them within {limit:g} s"
            logger.error("the ledger %s lacks its last %d events: %s", self.path, writer.backlog, reason)

    def usage(self) -> UsageStatistics:
        """Sum up the days of all processes that write the file, and what is not rolled up yet.

        Raises:
            LedgerError: it cannot be read.
        """
        with LedgerReader(self.path, self._prices) as reader:
            rows = group_rows((day.cell.key, day.cell.row) for day in reader.days())
        return statistics_of(rows.items(), 0, 0)

    def statistics(self) -> LedgerStatistics:
        """Read the account of its events: received, on disk, pending and skipped. After closing, the last one."""
        return self._open_writer.statistics()

    @property
    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise EngineNotRunning(f"{self!r} opens with the engine that uses it")
        return self._writer


def _absolute(path: str | PathLike[str]) -> Path:
    """Make a path that leads to the same file from any folder."""
    if not Path(path).name or "\0" in str(path):
        raise ConfigurationError(f"the ledger's path names no file: give one such as 'runs.db', not {str(path)!r:.100}")
    return Path(path).absolute()
