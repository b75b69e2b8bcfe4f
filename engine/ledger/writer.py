"""The thread that writes a ledger: it takes events from any thread, and commits them in groups.

Events wait for a short window, so that those of many runs share a commit, which costs one `fsync` however many they
are. A caller that needs its events on disk says so and is told when they are; that ends the window at once, and
callers that come during a commit share the next one. A group that could not be committed is tried again, whole, until
it is: so no event is lost as long as the process lives.
"""

import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Literal, Protocol, TypeAlias
from weakref import WeakSet

from ..errors import LedgerError
from ..events import Event
from .ledger import LedgerStatistics, Told

logger = logging.getLogger("runmeter")

WINDOW = 0.05
"""Seconds that the first event of a group waits for more."""
GROUP = 5_000
"""Events of one commit, at most."""
CROWDED = 100_000
"""Events not on disk with which it is far behind: new runs wait."""
FIRST_RETRY, LAST_RETRY = 0.1, 5.0
"""Seconds before a group that failed is tried again: after its first failure, and at most."""
CHORES_AT_END = 1.0
"""Seconds that closing goes on with chores, at most: they can be done later, by any process."""

Load: TypeAlias = Literal["busy", "idle", "closing"]
"""What the writer has to do besides its chores: `busy` while events come."""
Chore: TypeAlias = Callable[[Load], bool]


class Errand(Protocol):
    """Work on the store that is due at its time, whatever events there are."""

    def __call__(self, *, closing: bool) -> float | None:
        """Do what is due. Gives the seconds until there may be more; None: until `Writer.wake` is called."""


class EventStore(Protocol):
    """A store that takes groups of events: all of a group, on disk when the call returns, or none."""

    def append(self, events: Sequence[Event]) -> object:
        """Add a group. Raises LedgerError if none of it was added."""

    def checkpoint(self) -> None:
        """Tidy up between groups, where that is due."""

    def close(self) -> None:
        """Close the store."""


class Writer:
    """Commits events to a store in a thread of its own. Safe from any thread.

    Args:
        store: Takes the groups; closed with the writer.
        window: Seconds that the first event of a group waits for more.
        chore: Work on the store between the groups, such as roll-ups: does a piece of it, and tells whether there is
            more.
        errand: Work on the store that does not wait for the groups, such as leases.
    """

    def __init__(
        self,
        store: EventStore,
        window: float = WINDOW,
        chore: Chore = lambda _: False,
        errand: Errand | None = None,
    ) -> None:
        self._store = store
        self._window = window
        self._chore = chore
        self._errand = errand
        self._errand_at = math.inf
        self._retry_at = 0.0
        self._changed = threading.Condition()
        self._pending: list[Event] = []
        self._first_at = 0.0  # when the oldest pending event came
        self._waiting: list[tuple[int, Told]] = []
        self._held_back: list[Callable[[], object]] = []
        self._done = self._skipped = self._commits = self._failures = 0
        self._failed_in_a_row = 0
        self._error: str | None = None
        self._closing = self._was_tried_at_end = self._ended = False
        self._was_told_of_skipped = False
        self._failed_chore = ""
        self._chores_end = float("inf")
        self._thread = threading.Thread(target=self._work, name="runmeter ledger", daemon=True)
        _writers.add(self)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether it takes the events of new runs: its commits succeed, and are not far behind."""
        return self._error is None and not self._ended and self.backlog < CROWDED

    @property
    def error(self) -> str | None:
        """The reason why the last commit failed; None if it did not."""
        return self._error

    @property
    def backlog(self) -> int:
        """The number of events that are not on disk."""
        return len(self._pending)

    def put(self, events: Sequence[Event]) -> None:
        """Take events, to be committed within the window."""
        if not events:
            return
        with self._changed:
            if not self._pending:
                self._first_at = monotonic()
                self._changed.notify()
            self._pending += events

    def sync(self, told: Told) -> None:
        """Have all events taken so far committed now, and tell when they are, or at once if they cannot be.

        While commits fail, no caller waits for the next try.
        """
        with self._changed:
            settled = True if not self._pending else False if self._error or self._ended else None
            if settled is None:
                self._waiting.append((self._done + len(self._pending), told))
                self._changed.notify()
        if settled is not None:
            told(settled)

    def when_ready(self, told: Callable[[], object]) -> None:
        """Tell once it is ready, or has closed: from the writer's thread, or at once. `told` must not raise."""
        with self._changed:
            waits = not self.is_ready and not self._ended
            if waits:
                self._held_back.append(told)
        if not waits:
            told()

    def wake(self) -> None:
        """Have the errand done soon."""
        with self._changed:
            self._errand_at = 0.0
            self._changed.notify()

    def close(self, limit: float) -> bool:
        """Commit what is pending and end the thread.

        Args:
            limit: Seconds to wait for it.

        Returns:
            Whether all events are on disk.
        """
        with self._changed:
            self._closing = True
            self._chores_end = monotonic() + min(limit, CHORES_AT_END)
            self._changed.notify()
        self._thread.join(limit)
        self._end()  # should it hang in the store, no caller waits for it any more
        return not self._pending

    def statistics(self) -> LedgerStatistics:
        """Read the writer's account as it is now."""
        with self._changed:
            return LedgerStatistics(
                received=self._done + len(self._pending),
                durable=self._done - self._skipped,
                pending=len(self._pending),
                skipped=self._skipped,
                commits=self._commits,
                failures=self._failures,
                last_error=self._error,
            )

    def _work(self) -> None:
        try:
            may_rest = False
            while (group := self._next_group(may_rest=may_rest)) is not None:
                self._run_errand(closing=False)
                if group:
                    self._commit(group)
                load: Load = "busy" if self._pending or group else "idle"
                may_rest = bool(self._error) or not (self._do_chore(load) or group)
            while not self._error and monotonic() < self._chores_end and self._do_chore("closing"):
                pass
            self._run_errand(closing=True)
        finally:
            try:
                self._store.close()
            except LedgerError as error:
                logger.warning("closing: %s", error)
            self._end()

    def _end(self) -> None:
        """Let go of all who wait."""
        self._ended = True
        self._tell(ok=False)
        self._let_in()

    def _next_group(self, *, may_rest: bool) -> Sequence[Event] | None:
        """Wait for a group that is due. An empty one means: there is time for chores; None: the end."""
        with self._changed:
            while True:
                now = monotonic()
                if self._errand_at <= now and not self._closing:
                    return ()
                if self._error and self._pending and not self._closing:
                    if self._retry_at <= now:
                        break
                    self._changed.wait(min(self._retry_at, self._errand_at) - now)
                    continue
                if self._closing:
                    if not self._pending or (self._error and self._was_tried_at_end):
                        return None
                    self._was_tried_at_end = True
                    break
                if self._pending:
                    rest = self._first_at + self._window - now
                    if rest <= 0 or self._waiting or len(self._pending) >= GROUP:
                        break
                    self._changed.wait(min(rest, self._errand_at - now, threading.TIMEOUT_MAX))
                elif not may_rest:
                    return ()
                else:
                    self._changed.wait(None if self._errand_at == math.inf else self._errand_at - now)
            return self._pending[:GROUP]

    def _commit(self, group: Sequence[Event]) -> None:
        try:
            skipped = self._append(group)
        except LedgerError as error:
            self._fail(str(error))
            return
        except Exception as error:  # which a store should not raise; the thread must not end by it
            logger.exception("the ledger's store failed")
            self._fail(f"the ledger failed: {type(error).__name__}")
            return
        with self._changed:
            del self._pending[: len(group)]
            self._done += len(group)
            self._skipped += skipped
            self._commits += 1
            if self._error:
                logger.info("the ledger takes events again")
            self._error, self._failed_in_a_row = None, 0
        self._tell(ok=True)
        if self.is_ready:
            self._let_in()
        self._store.checkpoint()

    def _append(self, group: Sequence[Event]) -> int:
        """Append a group; where something in it has no form in the ledger, all but that.

        Returns:
            The number of events skipped.
        """
        try:
            self._store.append(group)
        except (LedgerError, MemoryError):
            raise
        except Exception as error:  # whatever a value in an event may be: it is no reason to lose the others
            if len(group) == 1:
                self._tell_skipped(group[0], error)
                return 1
            half = len(group) // 2
            return self._append(group[:half]) + self._append(group[half:])
        return 0

    def _tell_skipped(self, event: Event, error: Exception) -> None:
        if self._was_told_of_skipped:
            return
        self._was_told_of_skipped = True
        kind, why = type(event).__name__, type(error).__name__
        logger.warning("the ledger cannot keep event %d of run %s, a %s: %s", event.seq, event.run_id, kind, why)
        logger.warning("further events that it cannot keep are counted alone, as `skipped` in its statistics")

    def _fail(self, error: str) -> None:
        with self._changed:
            first = self._error is None
            self._error = error
            self._failures += 1
            self._retry_at = monotonic() + min(FIRST_RETRY * 2 ** min(self._failed_in_a_row, 20), LAST_RETRY)
            self._failed_in_a_row += 1
        if first:
            logger.warning("%s; its events wait in memory, and are tried again", error)
        self._tell(ok=False)

    def _tell(self, *, ok: bool) -> None:
        """Tell the callers whose events are on disk; if they cannot be, all."""
        with self._changed:
            due = [told for position, told in self._waiting if not ok or position <= self._done]
            self._waiting = [each for each in self._waiting if ok and each[0] > self._done]
        for told in due:
            _call(partial(told, ok))

    def _let_in(self) -> None:
        with self._changed:
            due, self._held_back = self._held_back, []
        for told in due:
            _call(told)

    def _run_errand(self, *, closing: bool) -> None:
        if self._errand is None or (self._errand_at > monotonic() and not closing):
            return
        self._errand_at = math.inf  # who wakes it from now on has it run once more
        try:
            delay = self._errand(closing=closing)
        except Exception:
            logger.exception("ledger: leases failed")
            delay = LAST_RETRY
        with self._changed:
            if delay is not None:
                self._errand_at = min(self._errand_at, monotonic() + delay)

    def _do_chore(self, load: Load) -> bool:
        try:
            return self._chore(load)
        except Exception as error:
            if repr(error) != self._failed_chore:  # which would fail after each commit
                if isinstance(error, LedgerError):
                    logger.warning("ledger: %s", error)
                else:
                    logger.exception("ledger: a chore failed, and is tried again")
            self._failed_chore = repr(error)
        return False

    def _leave_behind(self) -> None:
        """Be of no more use: this process was forked from the one in which the thread runs."""
        self._changed = threading.Condition()  # the old one may be held by that thread
        self._ended = True


_writers: WeakSet[Writer] = WeakSet()


def _leave_writers_behind() -> None:
    for writer in _writers:
        writer._leave_behind()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_leave_writers_behind)


def _call(told: Callable[[], object]) -> None:
    try:
        told()
    except Exception:
        logger.exception("ledger: a caller that waited raised")
