"""Ledgers as an engine uses them: what it asks of one."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from ..budgets.budgets import Budgets
from ..clock import Clock
from ..events import Event
from ..prices.price_book import PriceBook
from ..usage.statistics import UsageStatistics

Told: TypeAlias = Callable[[bool], object]
"""Called once with whether events are on disk, from any thread or at once. It must not raise."""

Commit: TypeAlias = Literal["group", "run", "request"]
OnFull: TypeAlias = Literal["wait", "refuse"]


class LedgerStatistics(msgspec.Struct, frozen=True):
    """The account of a ledger in this process: `received = durable + skipped + pending`."""

    received: int
    durable: int
    """Events on disk."""
    pending: int
    skipped: int
    """Events that have no form in the ledger: the log tells the first."""
    commits: int
    failures: int
    """Commits that failed. Their events wait, and are tried again."""
    last_error: str | None
    """The reason why the last commit failed; None once one has succeeded."""


class Ledger(Protocol):
    """A store of events that outlives its process. One engine uses it at a time."""

    commit: Commit
    """What it promises. `group`: a crash loses at most the last window. `run`: when `Engine.run` returns, the run's
    events are on disk. `request`: also, a request is on disk before it leaves."""
    on_full: OnFull
    """What happens to a new run while the ledger takes no events."""

    @property
    def is_ready(self) -> bool:
        """Whether it takes the events of new runs."""

    @property
    def error(self) -> str | None:
        """The reason why events cannot be committed at the moment."""

    def open(self, prices: PriceBook, clock: Clock, budgets: Budgets | None = None) -> None:
        """Open it, have budgets begin with what they have spent in the windows that are open, and block meanwhile.

        Raises:
            LedgerError: it cannot be opened or written.
        """

    def put(self, events: Sequence[Event]) -> None:
        """Take events, to be committed soon. From any thread; it neither blocks nor fails."""

    def sync(self, told: Told) -> None:
        """Commit the events taken so far now, and tell whether they are on disk. After closing, tell at once."""

    def when_ready(self, told: Callable[[], object]) -> None:
        """Tell once it takes the events of new runs, or has closed."""

    def close(self, limit: float) -> None:
        """Commit what is pending and close, in at most `limit` seconds; blocks meanwhile."""

    def usage(self) -> UsageStatistics:
        """Sum up what all processes have committed to it; blocks meanwhile.

        Raises:
            LedgerError: it cannot be read.
        """

    def statistics(self) -> LedgerStatistics:
        """Read its account as it is now."""
