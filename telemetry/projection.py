"""Events in, spans and metrics out: the subscriber's work on each event."""

import logging
import threading
from collections.abc import Awaitable, Sequence

from opentelemetry.sdk.trace import Tracer

from runmeter.engine import Event

from .export.backpressure import Backpressure
from .forking import call_in_forked_child
from .metrics import Metrics
from .open_runs import OpenRuns
from .spans import SpanBuilder

logger = logging.getLogger("runmeter")


class Projection:
    """Makes spans and metrics of the events as they come.

    Args:
        runs: Remembers the runs that have not ended.
        spans: Builds the spans.
        metrics: Takes the measurements.
        tracer: Where the spans go: to the span processors of its provider. None if there are none to go to.
        backpressure: Says when to wait before more spans are made.
    """

    def __init__(
        self,
        runs: OpenRuns,
        spans: SpanBuilder,
        metrics: Metrics,
        tracer: Tracer | None,
        backpressure: Backpressure,
    ) -> None:
        self.runs = runs
        self.spans_built = 0
        self.errors = 0
        """Events that could not be made into telemetry."""
        self._spans = spans
        self._metrics = metrics
        self._tracer = tracer
        self._backpressure = backpressure
        self._lock: threading.Lock
        self._unlock()
        call_in_forked_child(self._unlock)

    def _unlock(self) -> None:
        self._lock = threading.Lock()

    def receive(self, events: Sequence[Event]) -> Awaitable[None] | None:
        """Take a batch of events, oldest first. Never raises: a batch given again would be counted again.

        Returns:
            What to await for those that must wait for room. None if none must.
        """
        self._backpressure.relax()
        rest = self._take_while_there_is_room(events)
        return self._take_later(rest) if rest else None

    async def _take_later(self, events: Sequence[Event]) -> None:
        while events:
            await self._backpressure.wait()
            events = self._take_while_there_is_room(events)

    def _take_while_there_is_room(self, events: Sequence[Event]) -> Sequence[Event]:
        """Take events, and give back those that must wait."""
        with self._lock:  # engines in other threads may share us
            if self._tracer is not None:
                self._spans.be_about(self._tracer.resource)
            for number, event in enumerate(events, 1):
                try:
                    has_span = self._take(event)
                except Exception:
                    if not self.errors:
                        logger.exception("no telemetry of %r: further errors are only counted", event)
                    self.errors += 1
                    continue
                if has_span and self._backpressure.is_due():
                    return events[number:]
        return ()

    def _take(self, event: Event) -> bool:
        """Make a measurement of an event, and a span, if it completes one."""
        run = self.runs.fold(event)
        self._metrics.record(event, run)
        trace, tracer = event.trace, self._tracer
        if tracer is None or trace is None or not trace.sampled:
            return False
        span = self._spans.build(event, trace, run)
        if span is None:
            return False
        self.spans_built += 1
        tracer.span_processor.on_end(span)
        return True
