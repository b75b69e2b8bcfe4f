"""The shared log of events, and a subscriber's place in it. The bus puts the two together."""

import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from inspect import isawaitable
from typing import Literal, TypeAlias

import anyio
import msgspec

from .calls.endings import error_message
from .concurrency.loop import is_own_failure
from .events import Event

logger = logging.getLogger("runmeter")

Lane: TypeAlias = Literal["lossless", "lossy"]
Receiver: TypeAlias = Callable[[Sequence[Event]], Awaitable[None] | None]
"""A function that takes a batch of events, oldest first, not to be changed. May be plain or async; a plain one must
not block."""

BATCH = 1_000
"""Events handed over at once, at most, to a subscriber that takes about a microsecond for each."""
TURN = 0.005
"""Seconds of one turn of the event loop that a subscriber may use, unless it needs more to keep up."""
TRIM = 1_000
"""Number of events worth forgetting at once."""
LOSSY_ATTEMPTS = 5
"""Number of times that a lossy subscriber is offered the same batch before it is dropped."""
MAX_RETRY_DELAY = 30.0
"""Seconds before a subscriber that raised is tried again, at most."""
LASTING_FAILURES = 5
"""Failures in a row from which on a lossless subscriber is said to go on failing: about a second after the first."""


GIVE_UP_FAILURES = 10
"""Failures in a row from which on a lossless subscriber holds back no run, half a minute after the first: the batch
that it fails on is set aside, and so is what exceeds its capacity, until it takes events again."""


class SubscriberStatistics(msgspec.Struct, frozen=True):
    """The account of one subscriber: `published = delivered + dropped + pending`, all since it subscribed."""

    name: str
    lane: Lane
    published: int
    delivered: int
    dropped: int
    pending: int
    errors: int
    """Number of times that it raised."""
    failures: int = 0
    """Number of times that it has raised in a row, until now. 0: it takes what it is handed."""
    last_error: str | None = None
    """Type and message of its last exception, as long as it goes on failing."""
    set_aside: int = 0
    """Events that it took and could not keep, by its own count (`skipped`)."""
    blocking: bool = False
    """New runs wait until it has caught up."""


class Log:
    """Events in the order of publishing, addressed by how many were published before. Only its front is ever removed.

    `events.append` is the one writer and needs no lock: a list's append is atomic.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._trimmed = 0
        # Reentrant: a signal handler may read while its own thread does. No other lock is taken under it.
        self._lock = threading.RLock()

    @property
    def end(self) -> int:
        """The address of the next event, which is the number ever published."""
        with self._lock:
            return self._trimmed + len(self.events)

    def read(self, cursor: int, count: int) -> Sequence[Event]:
        """Read up to `count` events from an address on."""
        with self._lock:
            start = cursor - self._trimmed
            return self.events[start : start + count]

    def trim(self, cursor: int) -> None:
        """Forget the events before an address, once that is worth moving the rest to the front."""
        with self._lock:
            count = cursor - self._trimmed
            if count >= TRIM or count == len(self.events):
                del self.events[:count]
                self._trimmed += count


_delivering: ContextVar["Subscription | None"] = ContextVar("runmeter_subscription", default=None)
"""The subscription in whose receiver this code is."""


def is_within_receiver() -> bool:
    """Tell whether this code is part of what a receiver does with its batch: then a subscriber waits for it.

    What a receiver has started and left alone begins to count as any other code once the batch is taken.
    """
    subscription = _delivering.get()
    return subscription is not None and subscription.is_handing_over


class Subscription:
    """A subscriber's place in the log, and the account of the events before it. Made by `Bus.subscribe`."""

    def __init__(self, log: Log, receive: Receiver, name: str, lane: Lane, capacity: int, batch: int) -> None:
        self.name = name
        self.lane: Lane = lane
        self.capacity = capacity
        """Events it may be behind: then admission closes (lossless) or its oldest are dropped (lossy)."""
        self._log = log
        self._receive = receive
        self._batch_size = batch
        self._joined = self._cursor = self._seen = log.end
        self._batch: Sequence[Event] = ()  # handed over, not yet acknowledged
        self._delivered = 0
        self._dropped = 0
        self._errors = 0
        self._failures = 0  # in a row
        self._last_error: str | None = None
        self._bell: anyio.Event | None = None
        self._closing: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None
        self.started = False
        """The task that delivers to it has been started."""
        self._cancelled = False
        # Taken before a receiver's own locks, never after them. Reentrant: a receiver may ask for a consistent read,
        # and so catch up on itself.
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Subscription {self.statistics()}>"

    @property
    def cursor(self) -> int:
        """The address of the first event that it was not yet handed."""
        return self._cursor

    @property
    def pending(self) -> int:
        """The number of events published and not yet taken."""
        return self._log.end - self._cursor + len(self._batch)

    @property
    def room(self) -> float:
        """The number of events that the log may retain before this could be `blocking`, less a batch in hand."""
        return self.capacity - self._batch_size if self.lane == "lossless" else math.inf

    @property
    def blocking(self) -> bool:
        """No new run may start until it has caught up."""
        return not self._loses and self.pending > self.capacity

    @property
    def _loses(self) -> bool:
        """The oldest events beyond its capacity are dropped."""
        return self.lane == "lossy" or self._failures >= GIVE_UP_FAILURES

    @property
    def is_handing_over(self) -> bool:
        """A batch is in the receiver's hands, or waits to be offered again."""
        return bool(self._batch)

    @property
    def failing(self) -> bool:
        """The receiver raised when it was last handed a batch."""
        return self._failures > 0

    def statistics(self) -> SubscriberStatistics:
        """Read the subscriber's account as it is now."""
        with self._lock:
            end = self._log.end
            return SubscriberStatistics(
                self.name,
                self.lane,
                published=end - self._joined,
                delivered=self._delivered,
                dropped=self._dropped,
                pending=end - self._cursor + len(self._batch),
                errors=self._errors,
                failures=self._failures,
                last_error=self._last_error,
                set_aside=int(getattr(self._receive, "skipped", 0)),
                blocking=self.blocking,
            )

    def catch_up(self) -> None:
        """Hand a plain (not async) receiver all that is pending, now, in this thread: for reads that miss nothing.

        A receiver that raises is left for the bus to try again.
        """
        with self._lock:
            if self._batch:  # we are inside the receiver already, or it failed and is due for another try
                return
            try:
                while self.pending > 0:
                    self._offer()
            except Exception as error:
                self._fail(error)

    def wake(self) -> None:
        """Wake the delivering task, because there are new events, or the bus closes."""
        if self._bell is not None:
            self._bell.set()

    def leave(self) -> None:
        """Stop delivering, from the next batch on. From any thread."""
        self._cancelled = True

    def cancel(self) -> None:
        """Stop delivering, in the middle of a batch too."""
        self._cancelled = True  # the task may have been woken already, and would deliver once more
        if self._scope is not None:
            self._scope.cancel()

    def hurry(self) -> None:
        """Deliver pending events, and do not wait long to try again, because the bus is closing."""
        if self._closing is not None:
            self._closing.set()
        self.wake()

    async def deliver(self, progressed: Callable[[], None], retry_delay: float) -> None:
        """Hand over batch after batch until cancelled.

        Args:
            progressed: Called after each batch, and when there is nothing left.
            retry_delay: Seconds to wait after a first failure; doubles with each further one.
        """
        self._closing = anyio.Event()
        _delivering.set(self)  # of this task alone, and of what the receiver starts
        with anyio.CancelScope() as self._scope:
            while not self._cancelled:
                self._bell = anyio.Event()
                while self.pending > 0 and not self._cancelled:
                    if not await self._deliver_turn():
                        progressed()  # it may have been given up
                        await self._back_off(retry_delay, self._closing)
                    progressed()
                    await anyio.sleep(0)  # noqa: ASYNC115 - a checkpoint, without importing one more module
                progressed()
                await self._bell.wait()

    async def _deliver_turn(self) -> bool:
        """Hand over the events that one turn of the loop has room for, and never fewer than the last turn made.

        A subscriber that got a fixed number a turn would fall behind without end where a turn makes more: hundreds of
        runs at once do. So what it takes keeps up with what is made, and slows down the runs that make it.
        """
        made = self._log.end
        due, self._seen = self._cursor + made - self._seen, made
        end = time.perf_counter() + TURN
        while await self._deliver_batch():
            if self.pending == 0 or self._cancelled or (self._cursor >= due and time.perf_counter() >= end):
                return True
        return False

    async def _deliver_batch(self) -> bool:
        try:
            taking = self._offer()
            if taking is not None:
                await taking
                with self._lock:
                    self._acknowledge()
        except BaseException as error:
            if not is_own_failure(error):
                raise
            with self._lock:
                self._fail(error)
            return False
        return True

    async def _back_off(self, retry_delay: float, closing: anyio.Event) -> None:
        if closing.is_set():
            await anyio.sleep(retry_delay)
            return
        with anyio.move_on_after(min(retry_delay * 2 ** min(self._failures - 1, 20), MAX_RETRY_DELAY)):
            await closing.wait()

    def _offer(self) -> Awaitable[None] | None:
        """Hand over the batch that failed, or the next one. A plain receiver has taken it on return."""
        with self._lock:
            if not self._batch:
                self._batch = self._log.read(self._cursor, self._batch_size)
                self._cursor += len(self._batch)
            taking = self._receive(self._batch)
            if isawaitable(taking):
                return taking
            self._acknowledge()  # whatever else a plain receiver returns means nothing
            return None

    def _acknowledge(self) -> None:
        self._delivered += len(self._batch)
        self._batch = ()
        if self._failures >= LASTING_FAILURES:
            logger.info("subscriber %r takes events again", self.name)
        self._failures, self._last_error = 0, None

    def _fail(self, error: BaseException) -> None:
        """Count a receiver that raised; give its batch up where the lane allows it."""
        if not self._errors:
            logger.error("subscriber %r raised; it is tried again, and errors are counted", self.name, exc_info=error)
        self._errors += 1
        self._failures += 1
        self._last_error = f"{type(error).__name__}: {error_message(error)}"
        if self.lane == "lossless" and self._failures == LASTING_FAILURES:
            logger.warning(
                "subscriber %r has failed %d times in a row (%s): it is tried again, its events are kept, and new runs "
                "wait once they are more than %d, for half a minute",
                self.name,
                self._failures,
                self._last_error,
                self.capacity,
            )
        if self._failures % (LOSSY_ATTEMPTS if self.lane == "lossy" else GIVE_UP_FAILURES) == 0:
            if self.lane == "lossless":
                self._warn_of_loss()
            self._dropped += len(self._batch)
            self._batch = ()

    def _warn_of_loss(self) -> None:
        if self._failures == GIVE_UP_FAILURES:
            logger.warning(
                "subscriber %r has failed %d times in a row (%s): %d events are set aside, and new runs wait for it no "
                "more; further events that it does not take are dropped beyond %d, and counted",
                self.name,
                self._failures,
                self._last_error,
                len(self._batch),
                self.capacity,
            )

    def drop_oldest(self) -> None:
        """Skip the events that exceed its capacity, if it may lose any. A batch handed over is not taken back."""
        if not self._loses:
            return
        with self._lock:
            end = self._log.end
            excess = min(self.pending - self.capacity, end - self._cursor)
            if excess > 0:
                self._cursor += excess
                self._dropped += excess

    def give_up(self) -> None:
        """Settle the account of a subscriber that gets no more events."""
        pending = self.pending
        if pending and self.lane == "lossless":
            logger.error("subscriber %r did not take its last %d events", self.name, pending)
        elif pending:
            with self._lock:
                self._cursor = self._log.end
                self._batch = ()
                self._dropped += pending
