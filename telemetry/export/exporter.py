"""The exporter: a queue, a thread, and the transport that it sends by.

A collector that is away is nothing an application should hear about more than once. So there is one line in the log for
each outage, and counts.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, set_value

from ..forking import call_in_forked_child
from ..statistics import ExporterStatistics
from .queue import Bounds, ExportQueue, Item
from .verdict import Refused, Taken, Transport, Verdict

logger = logging.getLogger("runmeter")

KEEPS_UP = 1.0
"""Seconds between two answers, at most, of a collector that is worth waiting for while there is work to do."""
LEAVE = 0.2
"""Seconds that a thread has to end. One that still hangs in a request is left behind; it keeps nothing from ending."""


class Exporter(Generic[Item]):
    """Exports what it is given, in a thread of its own, request after request while there is enough for one.

    Args:
        name: What it exports and where to.
        bounds: How much may wait, and when it is sent.
        encode: Makes a request of items.
        connect: Makes the transport; again in a forked process, because two must not share a connection.
        timeout: Seconds that a request may take.
        clock: Tells seconds that only go forward.
    """

    def __init__(
        self,
        name: str,
        bounds: Bounds,
        encode: Callable[[Sequence[Item]], bytes],
        connect: Callable[[], Transport],
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._bounds = bounds
        self._encode = encode
        self._connect = connect
        self._timeout = timeout
        self._clock = clock
        self._inherited: Transport | None = None
        self._reset(connect())
        call_in_forked_child(self._forked)

    def _reset(self, transport: Transport | None) -> None:
        self.in_trouble = False
        """True once the collector has refused or missed a request, until it takes one."""
        self._complained = False
        self._unsupported = False
        self.answers = 0
        """Requests that the collector has taken or refused."""
        self._transport = transport
        self._queue = ExportQueue[Item](self._bounds)
        self._told_of_drops = False
        self._dozing = False  # the thread waits for a request to fill up
        self._progress_at = -math.inf  # when a request was due or answered last
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._unlock()

    def _unlock(self) -> None:
        self._lock = threading.RLock()  # a signal handler may export while its own thread does
        self._changed = threading.Condition(self._lock)

    def start(self) -> None:
        """Start the export thread before there is something to export: an interpreter that ends starts none."""
        self._thread = threading.Thread(target=self._work, name=f"runmeter export of {self.name}", daemon=True)
        self._thread.start()

    def _forked(self) -> None:
        if self._stopped:
            self._unlock()
            return
        is_started = self._thread is not None
        self._inherited = self._transport  # kept, because letting go of it might close the parent's connection
        self._reset(None)
        if is_started:
            self.start()

    # Giving

    def put(self, item: Item, size: int) -> None:
        """Take an item of `size` bytes. Beyond the bounds the oldest are dropped, and counted. From any thread."""
        queue, now = self._queue, self._clock()
        with self._lock:
            queue.put(item, size, now)
            if self._dozing and (queue.is_ready or queue.pending == 1):
                self._dozing = False
                self._progress_at = now
                self._changed.notify_all()
        if queue.dropped and not self._told_of_drops:
            self._tell_of_drops("more than may wait, or for too long: the oldest are dropped, and counted")

    def refuse(self, error: Exception) -> None:
        """Count an item that could not be encoded."""
        with self._lock:
            self._queue.refuse()
        self._complain(f"cannot be encoded: {error!r}")

    @property
    def is_crowded(self) -> bool:
        """The queue has little room and the collector keeps up, so a caller should wait before it puts more there."""
        return self._queue.is_crowded and not self.in_trouble and self._clock() - self._progress_at < KEEPS_UP

    @property
    def is_half_empty(self) -> bool:
        """The queue has room for as much again as it holds."""
        return self._queue.is_half_empty

    def statistics(self) -> ExporterStatistics:
        """Read the exporter's account as it is now."""
        with self._lock:
            queue = self._queue
            return ExporterStatistics(
                self.name, queue.taken, queue.sent, queue.failed, queue.dropped, queue.pending, self._unsupported
            )

    # Ending

    def hurry(self) -> float:
        """Have pending items sent without delay.

        Returns:
            The time to ask `is_settled` with.
        """
        with self._lock:
            now = self._clock()
            self._queue.hurry(now)
            self._changed.notify_all()
            return now

    def is_settled(self, until: float) -> bool:
        """Tell whether no item that came until then is pending."""
        with self._lock:
            return self._queue.is_settled(until)

    def stop(self) -> None:
        """Drop pending items, and end the thread. Doing it twice does nothing."""
        with self._lock:
            self._stopped = True
            left = self._queue.pending
            self._queue.close()
            self._changed.notify_all()
            transport, self._transport = self._transport, None
        self._tell_of_drops(f"{left} not sent in time" if left else None)
        if transport is not None:
            transport.close()
        if self._thread is not None:
            self._thread.join(LEAVE)

    # In the thread

    def _work(self) -> None:
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # instrumented clients must not trace the export itself
        while items := self._next():
            verdict = self._send(items)
            if not self._stopped:
                self._hear(verdict, len(items))
            with self._lock:
                self._progress_at = self._clock()
                self._queue.settle(verdict, self._progress_at)

    def _next(self) -> list[Item]:
        """Wait for the next request to be due, and take its items; empty if there is to be no other."""
        with self._lock:
            while not self._stopped:
                now = self._clock()
                due = self._queue.due(now)
                if due != 0:
                    self._dozing = True
                    self._changed.wait(due)
                    self._dozing = False
                elif items := self._queue.take(now):
                    self._progress_at = now
                    return items
            return []

    def _send(self, items: list[Item]) -> Verdict:
        """Send a request of these items, or of the first of them, if that is all that fits."""
        body, unfit = self._request(items)
        while len(body) > self._bounds.batch_size and len(items) > 1:  # more than was estimated
            with self._lock:
                self._queue.give_back(len(items) - len(items) // 2)
            del items[len(items) // 2 :]
            body, unfit = self._request(items)
        if len(unfit) == len(items):
            return Refused(f"cannot be encoded: {unfit[0]!r}")
        try:
            with self._lock:
                if self._stopped:
                    return Refused("closed")
                self._transport = transport = self._transport or self._connect()
            verdict = transport.send(body, self._timeout)
        except Exception as error:
            return Refused(repr(error))
        if unfit and isinstance(verdict, Taken):
            return Taken(verdict.rejected + len(unfit), f"cannot be encoded: {unfit[0]!r} {verdict.message}")
        return verdict

    def _request(self, items: list[Item]) -> tuple[bytes, list[Exception]]:
        """Encode the items that can be encoded: one that cannot is no reason to lose the others."""
        try:
            return self._encode(items), []
        except Exception as error:
            if len(items) == 1:
                return b"", [error]
        alone = [self._request([item]) for item in items]
        fit = [item for item, (_, unfit) in zip(items, alone, strict=True) if not unfit]
        return self._encode(fit) if fit else b"", [error for _, unfit in alone for error in unfit]

    def _hear(self, verdict: Verdict, count: int) -> None:
        """Log a request's verdict, where it is news."""
        if isinstance(verdict, Taken):
            self._hear_taken(verdict, count)
            return
        self.in_trouble = True
        logger.debug("%s: %d not taken: %s", self.name, count, verdict)
        if isinstance(verdict, Refused):
            self.answers += 1
            if verdict.is_unsupported:
                self._unsupported = True
                self._say_unsupported(verdict.reason)
                return
        self._complain(verdict.reason)

    def _hear_taken(self, verdict: Taken, count: int) -> None:
        self.answers += 1
        self.in_trouble = self._unsupported = False
        logger.debug("%s: %d taken: %s", self.name, count, verdict)
        if verdict.rejected:
            self._complain(f"{verdict.rejected} rejected: {verdict.message}")
        elif self._complained:
            self._complained = False
            logger.info("telemetry arrives again: %s", self.name)

    def _tell_of_drops(self, why: str | None) -> None:
        self._told_of_drops = True
        if why is not None and not self._complained:
            logger.warning("telemetry is dropped: %s: %s", self.name, why)

    def _say_unsupported(self, reason: str) -> None:
        if self._complained:
            return
        self._complained = True
        signal, _, place = self.name.partition(" to ")
        like = ", and neither does Jaeger" if signal == "metrics" else ""
        way_out = f"send them to a collector that does, or set OTEL_{signal.upper()}_EXPORTER=none"
        logger.warning("%s takes no %s (%s)%s: %s", place, signal, reason, like, way_out)

    def _complain(self, why: str) -> None:
        if self._complained:
            return
        self._complained = True
        logger.warning(
            "telemetry does not arrive: %s: %s (the work goes on; further failures are only counted)", self.name, why
        )
