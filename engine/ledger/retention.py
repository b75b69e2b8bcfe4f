"""Retention: a ledger lets go of its oldest events, by age and by size, and keeps the statistics of their days.

What goes are whole runs with all the runs within them, once each has ended and every roll-up has counted its last
event: days, and the spending of budgets. Runs that never ended stay, for what they may have been billed is in no day.
"""

import logging
import sqlite3
from datetime import timedelta
from typing import Any

from ..clock import Clock
from ..errors import ConfigurationError
from ..validation.checks import check_number
from .ledger_file import LedgerFile
from .schema import marks
from .writer import Load

logger = logging.getLogger("runmeter")

INTERVAL_NS = 60 * 10**9
"""Nanoseconds from one look for what is too old, or too much, to the next."""
PIECE = 100
"""Outermost runs that one transaction lets go of."""
FREED_PAGES = 2_000
"""Pages given back to the file system in one transaction."""
GRACE_NS = 60 * 10**9
"""Nanoseconds for which a run is kept after its end, however small the ledger is to be: its last notices may come."""
SMALLEST = 2**20
"""Bytes to which a ledger can be limited."""

_OUTERMOST = """
    SELECT id, run_id, start_ns FROM runs
    WHERE parent_run_id IS NULL AND status IS NOT NULL
        AND (start_ns, id) > (?, ?) AND start_ns < ? AND start_ns + coalesce(duration_ns, 0) < ?
    ORDER BY start_ns, id LIMIT ?"""
_WITHIN = "SELECT id, status FROM runs WHERE root_run_id = ? OR id = ?"


class Retention:
    """Lets go of the oldest runs of a ledger, in small pieces.

    Args:
        store: The ledger.
        clock: Tells how old a run is.
        keep: The age that a run's events reach at least, from its end. None: any.
        max_bytes: The size to which the ledger is brought back, by letting go of the oldest. None: any.

    """

    def __init__(self, store: LedgerFile, clock: Clock, keep: timedelta | None, max_bytes: int | None) -> None:
        self._store = store
        self._clock = clock
        self._keep_ns = None if keep is None else keep // timedelta(microseconds=1) * 1_000
        self._max_bytes = max_bytes
        self._due_ns = 0
        """When to look again, on the monotonic clock."""
        self._after = (-1, -1)  # start and number of the last run that was looked at
        self._is_closing = self._was_told = False

    def __call__(self, load: Load) -> bool:
        """Let go of some runs, if there are any to let go of.

        Returns:
            Whether there may be more to do.

        Raises:
            LedgerError: nothing was changed.
        """
        if self._keep_ns is None and self._max_bytes is None:
            return False
        if load == "closing" and not self._is_closing:  # by now the last events are rolled up
            self._is_closing, self._due_ns, self._after = True, 0, (-1, -1)
        if self._clock.monotonic_ns() < self._due_ns:
            return False
        if self._let_go() or self._give_back():
            return True
        self._after = (-1, -1)
        self._due_ns = self._clock.monotonic_ns() + INTERVAL_NS
        return False

    def _let_go(self) -> bool:
        now_ns = self._clock.time_ns()
        too_large = self._is_too_large()
        before_ns = now_ns - GRACE_NS if too_large else now_ns - self._keep_ns if self._keep_ns is not None else None
        if before_ns is None:
            return False
        with self._store.transaction() as connection:
            through = connection.execute("SELECT min(through) FROM progress").fetchone()[0]
            found = connection.execute(_OUTERMOST, (*self._after, *[max(before_ns, 0)] * 2, PIECE)).fetchall()
            for number, run_id, _ in found:
                _delete_tree(connection, number, run_id, through)
        if found:
            self._after = found[-1][2], found[-1][0]
        elif too_large:
            self._tell()
        return bool(found)

    def _is_too_large(self) -> bool:
        if self._max_bytes is None:
            return False
        pages, free, size = (
            self._store.connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return bool((pages - free) * size > self._max_bytes)

    def _give_back(self) -> bool:
        """Give some of the pages that became free back to the file system."""
        free = self._store.connection.execute("PRAGMA freelist_count").fetchone()[0]
        if not free:
            return False
        with self._store.transaction() as connection:
            connection.execute(f"PRAGMA incremental_vacuum({FREED_PAGES})").fetchall()
            return bool(connection.execute("PRAGMA freelist_count").fetchone()[0] < free)

    def _tell(self) -> None:
        if not self._was_told:
            logger.warning(
                "the ledger %s is larger than max_bytes=%d: beside the statistics of days it holds runs that are not"
                " counted yet, never ended, or ended in the last minute",
                self._store.path,
                self._max_bytes,
            )
        self._was_told = True


def check_retention(keep: Any, max_bytes: Any) -> None:
    """Check the limits of a ledger.

    Raises:
        ConfigurationError: they are none.
    """
    if keep is not None and not (isinstance(keep, timedelta) and keep > timedelta()):
        raise ConfigurationError(f"keep is a timedelta, such as timedelta(days=90), or None, not {keep!r:.100}")
    if max_bytes is not None:
        check_number("max_bytes", max_bytes, " or None")
        if max_bytes < SMALLEST:
            raise ConfigurationError(f"max_bytes must be at least {SMALLEST}, is {max_bytes}")


def _delete_tree(connection: sqlite3.Connection, number: int, run_id: str, through: int) -> None:
    """Delete an outermost run with all within it, unless something of it goes on or is not counted yet."""
    runs = connection.execute(_WITHIN, (run_id, number)).fetchall()
    if any(status is None for _, status in runs):
        return
    numbers = [run for run, _ in runs]
    for start in range(0, len(numbers), PIECE):
        some = numbers[start : start + PIECE]
        wanted = (
            ("SELECT 1 FROM events WHERE run IN ({}) AND id > ? LIMIT 1", (*some, through)),
            ("SELECT 1 FROM open_requests WHERE run IN ({}) LIMIT 1", some),
        )
        if any(connection.execute(query.format(marks(some)), values).fetchone() for query, values in wanted):
            return
    for start in range(0, len(numbers), PIECE):
        some = numbers[start : start + PIECE]
        connection.execute(f"DELETE FROM events WHERE run IN ({marks(some)})", some)  # noqa: S608 - question marks alone
        connection.execute(f"DELETE FROM runs WHERE id IN ({marks(some)})", some)  # noqa: S608 - question marks alone
