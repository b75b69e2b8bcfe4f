"""The telemetry of an engine: span ids while runs are running, and a subscriber that exports what they did."""

import atexit
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import anyio

from runmeter.engine import Event, TraceContext, Tracing

from .export.drain import SILENT_PATIENCE, Drain
from .statistics import TelemetryStatistics

if TYPE_CHECKING:  # the SDK is slow to import
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from .export.exporter import Exporter
    from .projection import Projection

SHUTDOWN_TIMEOUT = 10.0
"""Seconds that shutting down waits at most for a collector that takes what it is offered, less what flushing waited."""


class NoTracing:
    """Tracing that is switched off: no ids, and the ambient context stays what it is."""

    def start_span(
        self, trace_id: str | None = None, above: TraceContext | None = None
    ) -> tuple[TraceContext | None, Any]:
        """Allot no span, so that the run has no ids."""
        return None, None

    def end_span(self, token: Any) -> None:
        """End no span, for none was started."""


class OpenTelemetry:
    """Telemetry as `configure` makes it and an engine takes it. It serves any number of engines, at once or in turn.

    Args:
        tracing: Allots span ids.
        projection: Makes spans and metrics of events; None makes none.
        tracer_provider: Where spans go.
        meter_provider: Where measurements go.
        exporters: The exporters of the providers that are ours.
        owned: The providers that are ours, shut down with us.
        clock: Tells seconds that only go forward.
        sleep: Sleeps for a number of seconds, in a thread.
    """

    def __init__(
        self,
        tracing: Tracing,
        projection: "Projection | None" = None,
        tracer_provider: "TracerProvider | None" = None,
        meter_provider: "MeterProvider | None" = None,
        exporters: "Sequence[Exporter[Any]]" = (),
        owned: "Sequence[TracerProvider | MeterProvider]" = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        # Without a method of our own around them: they are called on every run, model call and tool call.
        self.start_span = tracing.start_span
        self.end_span = tracing.end_span
        self.tracer_provider = tracer_provider
        """The SDK's provider, None if telemetry is disabled. Hand it to `opentelemetry.trace.set_tracer_provider` to
        have instrumented clients send their spans the same way."""
        self.meter_provider = meter_provider
        """The SDK's provider, None if telemetry is disabled."""
        self._projection = projection
        self._exporters = exporters
        self._owned = owned
        self._drain = Drain(exporters, clock)
        self._sleep = sleep
        if owned:
            atexit.register(self._at_exit)

    def receive(self, events: Sequence[Event]) -> Awaitable[None] | None:
        """Take a batch of events, oldest first, and make spans and metrics of them. Never blocks, never raises.

        Returns:
            None if all are taken. Else what to await for the rest: the queue of an exporter is nearly full, and its
            collector takes what it is offered, so that there will be room.
        """
        return None if self._projection is None else self._projection.receive(events)

    def statistics(self) -> TelemetryStatistics:
        """Count the events so far, by what became of them."""
        exporters = tuple(exporter.statistics() for exporter in self._exporters)
        made = self._projection
        if made is None:
            return TelemetryStatistics(0, 0, 0, 0, exporters)
        return TelemetryStatistics(made.spans_built, len(made.runs), made.runs.forgotten, made.errors, exporters)

    async def flush(self, timeout: float) -> None:
        """Send the telemetry that is left.

        Returns after `timeout` seconds at the latest, and sooner if the collector takes nothing: after 1.5 s if it is
        known to be in trouble, after 5 s if it does not answer at all. What it has not taken by then is sent in the
        background.
        """
        collected = threading.Event()
        # A thread of our own, because a worker thread of anyio that still hangs would keep the process from ending.
        threading.Thread(target=self._collect, args=(collected,), name="runmeter telemetry flush", daemon=True).start()
        with closing(self._drain.pauses(timeout, collected.is_set)) as pauses, anyio.move_on_after(timeout):
            for pause in pauses:
                await anyio.sleep(pause)

    def _collect(self, collected: threading.Event) -> None:
        """Have our providers hand over what they measured, and those of the application send what they hold."""
        ours_first = sorted(
            (self.meter_provider, self.tracer_provider), key=lambda provider: provider not in self._owned
        )
        for provider in ours_first:
            with suppress(Exception):  # the SDK raises if an application's exporter is late, having logged it
                if provider is not None:
                    provider.force_flush(round(SILENT_PATIENCE * 1e3))
        collected.set()

    def _at_exit(self) -> None:
        with suppress(KeyboardInterrupt):  # impatience, at the end of the process
            self.shutdown()

    def shutdown(self) -> None:
        """Send the telemetry that is left, and end the background threads. Happens at the end of the process by itself.

        Waits while the collector takes what it is offered, 10 s at most, less what a flush has waited for it before.
        What it has not taken by then is dropped, and counted. It blocks: from async code call it in a worker thread.
        """
        atexit.unregister(self._at_exit)
        timeout = max(0.0, SHUTDOWN_TIMEOUT - self._drain.waited)
        owned, self._owned = self._owned, ()
        try:
            if self.tracer_provider is not None and self.tracer_provider in owned:
                self.tracer_provider.shutdown()
            if self.meter_provider is not None and self.meter_provider in owned:
                with suppress(Exception):  # the SDK raises if a last collection is late: no caller is left to tell
                    self.meter_provider.shutdown(SILENT_PATIENCE * 1e3)  # one collection, which nothing waits for
            for pause in self._drain.pauses(timeout):
                self._sleep(pause)
        finally:
            for exporter in self._exporters:
                exporter.stop()
