"""The bus: one shared append-only log, and one cursor into it for each subscriber.

`publish` appends and returns; it costs the same for one subscriber or ten, never waits, never raises because of a
subscriber, and may be called from any thread. Each subscriber has a task of its own that hands it batches, so one that
raises or hangs delays no other. For every subscriber, always: published = delivered + dropped + pending.

Lossless subscribers never lose an event. Instead `admission` holds back new work while one of them is too far behind:
back-pressure belongs there, not in the middle of a run. Lossy subscribers lose their oldest events once they
are `capacity` behind, and every loss is counted.
"""

import logging
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

import anyio
import msgspec

from .concurrency.background import Background
from .concurrency.loop import LoopThread
from .errors import BusClosed, ConfigurationError
from .events import Event
from .subscription import BATCH, Lane, Log, Receiver, SubscriberStatistics, Subscription
from .validation.checks import check_number

logger = logging.getLogger("runmeter")

LOSSY_GRACE = 1.0
"""Seconds that closing waits for lossy subscribers to catch up."""
STOP_LIMIT = 1.0
"""Seconds that closing waits for subscribers that were cancelled: one that does not end by then is left behind."""


class BusStatistics(msgspec.Struct, frozen=True):
    """The accounting of a bus and its subscribers."""

    published: int
    """Number of events published since the bus was made."""
    retained: int
    """Number of events held in memory, for the slowest subscriber."""
    subscribers: tuple[SubscriberStatistics, ...]


class Bus:
    """Carries events from their publishers to the subscribers. Use it as an async context manager.

    What is published before it starts is delivered once it has.

    Args:
        linger: Seconds to wait after the first event of a batch for more to come. It bounds how late a subscriber hears
            of an event, and keeps the loop from waking up for each one.
        retry_delay: Seconds before a subscriber that raised is tried again; doubles with each further failure.
        late: Takes what is published after the bus has closed. Without it publishing then raises `BusClosed`.
    """

    def __init__(
        self, *, linger: float = 0.01, retry_delay: float = 0.05, late: Callable[[Event], object] | None = None
    ) -> None:
        self._linger = linger
        self._retry_delay = retry_delay
        self._late = late
        self._log = Log()
        self._events = self._log.events
        self._subscriptions: tuple[Subscription, ...] = ()
        self._lock = threading.Lock()
        """Held while subscribers come and go, which they may from any thread, and while the log is trimmed for them."""
        self._room = math.inf
        """Events that may be retained before a new run has to look whether it must wait."""
        self._asleep = False  # the dispatcher waits for the bell
        self._closed = False
        self._holding = False  # some new run waits for admission
        self._started = False
        self._tasks = Background("runmeter bus")
        self._bell: anyio.Event
        self._progress: anyio.Event | None = None
        """Set when a subscriber has taken something; None while no task waits for that."""
        self._loop: LoopThread

    # The subscribers' side

    def subscribe(
        self, receive: Receiver, *, name: str, lane: Lane, capacity: int = 10_000, batch: int = BATCH
    ) -> Subscription:
        """Add a subscriber, from any thread. It gets every event published from now on, in batches and in order.

        Args:
            receive: Takes a batch. If it raises, it gets the same batch again, later.
            name: What to call it in logs and statistics.
            lane: `lossless` never loses an event, and holds back new runs while it is more than `capacity` behind;
                `lossy` is never waited for, and loses its oldest events beyond `capacity`.
            capacity: In events.
            batch: How many events it is handed at once, at most. A plain receiver should be done with them in a few
                milliseconds, because nothing else runs in the loop meanwhile.

        Raises:
            BusClosed: the bus has closed, or its event loop has.
            ConfigurationError: capacity or batch is not a positive whole number, there is no such lane, or `receive`
                cannot be called.
        """
        if not callable(receive):
            raise ConfigurationError(
                f"subscriber {name!r}: it must be a function of a batch of events, is {receive!r:.100}"
            )
        check_number(f"subscriber {name!r}: capacity", capacity)
        check_number(f"subscriber {name!r}: batch", batch)
        if lane not in ("lossless", "lossy"):
            raise ConfigurationError(f"subscriber {name!r}: the lane must be 'lossless' or 'lossy', is {lane!r}")
        with self._lock:
            if self._closed:
                raise BusClosed
            subscription = Subscription(self._log, receive, name, lane, capacity, batch)
            self._subscriptions += (subscription,)
            self._measure_room()
            started = self._started
        if started:
            try:
                self._loop.run_soon(self._ring)  # the dispatcher starts it
            except RuntimeError:  # the loop has closed
                self.unsubscribe(subscription)
                raise BusClosed from None
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Deliver nothing more to this subscriber. From any thread; doing it twice does nothing.

        Raises:
            ConfigurationError: it is not a subscription.
        """
        if not isinstance(subscription, Subscription):
            raise ConfigurationError(f"unsubscribe takes what subscribe has returned, not {subscription!r:.100}")
        with self._lock:
            self._subscriptions = tuple(each for each in self._subscriptions if each is not subscription)
            self._measure_room()
            started = self._started
        subscription.leave()
        if started:
            with suppress(RuntimeError):  # the loop has closed: nothing goes on there
                self._loop.run(partial(self._stop, subscription))

    def statistics(self) -> BusStatistics:
        """Read the accounting of the bus and of each subscriber, as it is now."""
        return BusStatistics(
            published=self._log.end,
            retained=len(self._log.events),
            subscribers=tuple(subscription.statistics() for subscription in self._subscriptions),
        )

    # The publishers' side

    def publish(self, event: Event) -> None:
        """Append an event for every subscriber. From any thread.

        Raises:
            BusClosed: the bus has closed, and has no receiver for late events.
        """
        # All of the hot path: one append, which is atomic and so needs no lock, and a look whether the dispatcher must
        # be woken. Two threads may both wake it: that does no harm, and a lock would cost every event more.
        self._events.append(event)
        if self._asleep:
            self._wake()

    def _wake(self) -> None:
        if self._closed:
            self._take_late(self._events.pop())
            return
        self._asleep = False
        self._loop.run(self._ring)

    def _take_late(self, event: Event) -> None:
        if self._late is None:
            raise BusClosed
        self._late(event)

    def _ring(self) -> None:
        self._bell.set()

    @property
    def is_crowded(self) -> bool:
        """There may be something to wait for at `admission`. A quick look, for mostly there is not."""
        return len(self._events) > self._room

    def _stop(self, subscription: Subscription) -> None:
        subscription.cancel()
        self._progressed()  # new runs may have waited for it

    def _measure_room(self) -> None:
        self._room = min([each.room for each in self._subscriptions], default=math.inf)

    async def admission(self) -> None:
        """Wait until no lossless subscriber is more than its capacity behind, or the bus closes."""
        while not self._closed:
            slow = [subscription for subscription in self._subscriptions if subscription.blocking]
            if not slow:
                break
            if not self._holding:
                self._holding = True
                # One that is behind will catch up; one that fails may never.
                level = logging.WARNING if any(subscription.failing for subscription in slow) else logging.INFO
                names = ", ".join(subscription.name for subscription in slow)
                logger.log(level, "new runs wait until these subscribers have caught up: %s", names)
            await self._any_progress()
        self._holding = False

    # Life

    async def __aenter__(self) -> Self:
        self._loop = LoopThread()
        self._bell = anyio.Event()
        await self._tasks.start()
        self._tasks.start_soon(self._dispatch, name="runmeter bus")
        with self._lock:
            self._started = True
        self._start_subscribers()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not self._closed:
            await self.drain(LOSSY_GRACE)
        for subscription in self._subscriptions:
            subscription.give_up()
        await self._tasks.close(STOP_LIMIT)

    async def drain(self, timeout: float) -> None:
        """Publish no more events, and deliver the pending ones.

        Args:
            timeout: Seconds to wait for lossless subscribers, at most. Lossy ones get at most `LOSSY_GRACE`.
        """
        with self._lock:
            self._closed = self._asleep = True
        self._events = []  # what comes from now on is late, and no part of the log
        self._progressed()
        for subscription in self._subscriptions:
            subscription.hurry()
        start = anyio.current_time()
        with anyio.CancelScope(deadline=start + timeout, shield=True):
            await self._delivered("lossless")
        with anyio.CancelScope(deadline=start + min(timeout, LOSSY_GRACE), shield=True):
            await self._delivered("lossy")

    async def _delivered(self, lane: Lane) -> None:
        while any(subscription.pending for subscription in self._subscriptions if subscription.lane == lane):
            await self._any_progress()

    def _start_subscribers(self) -> None:
        for subscription in self._subscriptions:
            if not subscription.started:
                subscription.started = True
                self._tasks.start_soon(
                    subscription.deliver,
                    self._progressed,
                    self._retry_delay,
                    name=f"runmeter subscriber {subscription.name}",
                )

    async def _dispatch(self) -> None:
        """Wake the subscribers when there is something new: once a batch, not once an event."""
        told = 0
        while True:
            self._bell = anyio.Event()
            # The flag before the look: a publisher that comes after the flag rings the bell, and one that came before
            # has moved the end. The other way round an event in between would wait for the next one.
            self._asleep = True
            if self._log.end == told:
                await self._bell.wait()
            self._asleep = self._closed
            await anyio.sleep(self._linger)
            told = self._log.end
            self._start_subscribers()
            for subscription in self._subscriptions:
                subscription.wake()
                subscription.drop_oldest()
            self._trim()

    def _progressed(self) -> None:
        self._trim()
        if self._progress is not None:
            self._progress.set()
            self._progress = None

    async def _any_progress(self) -> None:
        if self._progress is None:
            self._progress = anyio.Event()
        await self._progress.wait()

    def _trim(self) -> None:
        """Free the events that every subscriber has been handed."""
        with self._lock:
            self._log.trim(min([subscription.cursor for subscription in self._subscriptions], default=self._log.end))
