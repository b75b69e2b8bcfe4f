"""Events in, spans and metrics out."""

import logging
import threading
from collections.abc import Sequence

from opentelemetry.sdk.trace import Tracer

from runmeter.engine import Event

from .forking import call_in_forked_child
from .metrics import Metrics
from .runs import OpenRuns
from .spans import SpanBuilder

logger = logging.getLogger("runmeter")


class Projection:
    """Makes spans and metrics of the events as they come.

    Args:
        runs: Remembers the runs that have not ended.
        spans: Builds the spans.
        metrics: Takes the measurements.
        tracer: Where the spans go: to the span processors of its provider. None if there are none to go to.
    """

    def __init__(self, runs: OpenRuns, spans: SpanBuilder, metrics: Metrics, tracer: Tracer | None) -> None:
        self.runs = runs
        self.spans_built = 0
        self.errors = 0
        """Events that could not be made into telemetry."""
        self._spans = spans
        self._metrics = metrics
        self._tracer = tracer
        self._lock: threading.Lock
        self._unlock()
        call_in_forked_child(self._unlock)

    def _unlock(self) -> None:
        self._lock = threading.Lock()

    def receive(self, events: Sequence[Event]) -> None:
        """Take a batch of events, oldest first. Never raises: a batch given again would be counted again."""
        with self._lock:  # engines in other threads may share us
            if self._tracer is not None:
                self._spans.resource = self._tracer.resource
            for event in events:
                try:
                    self._take(event)
                except Exception:
                    if not self.errors:
                        logger.exception("no telemetry of %r: further errors are only counted", event)
                    self.errors += 1

    def _take(self, event: Event) -> None:
        run = self.runs.fold(event)
        self._metrics.record(event, run)
        trace, tracer = event.trace, self._tracer
        if tracer is None or trace is None or not trace.sampled:
            return
        span = self._spans.build(event, trace, run)
        if span is not None:
            self.spans_built += 1
            tracer.span_processor.on_end(span)
