"""The telemetry of an engine: span ids while runs are running, and a subscriber that exports what they did."""

import atexit
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from runmeter.engine import Event, TraceContext, Tracing

from .statistics import TelemetryStatistics

if TYPE_CHECKING:  # the SDK is slow to import
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from .outlet import Outlet
    from .projection import Projection

PATIENCE = 1.5
"""Seconds that a flush waits for a collector in trouble to take something: enough for an exporter's first retry."""

UNSEEN_PATIENCE = 5.0
"""Seconds that a flush waits at most for providers of the application, whose troubles are not known here."""


class NoTracing:
    """Tracing that is switched off: no ids, and the ambient context stays what it is."""

    def start_span(
        self, trace_id: str | None = None, above: TraceContext | None = None
    ) -> tuple[TraceContext | None, Any]:
        """No span."""
        return None, None

    def end_span(self, token: Any) -> None:
        """Nothing to end."""


class OpenTelemetry:
    """What `configure` returns and an engine takes. It serves any number of engines, one after another or at once.

    Args:
        tracing: Allots span ids.
        projection: Makes spans and metrics of events; None makes none.
        tracer_provider: Where spans go.
        meter_provider: Where measurements go.
        outlets: The exporters of the providers that are ours.
        owned: The providers that are ours, shut down with us.
    """

    def __init__(
        self,
        tracing: Tracing,
        projection: "Projection | None" = None,
        tracer_provider: "TracerProvider | None" = None,
        meter_provider: "MeterProvider | None" = None,
        outlets: "Sequence[Outlet[Any]]" = (),
        owned: "Sequence[TracerProvider | MeterProvider]" = (),
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
        self._outlets = outlets
        self._owned = owned
        if owned:
            atexit.register(self.shutdown)

    def receive(self, events: Sequence[Event]) -> None:
        """Take a batch of events, oldest first, and make spans and metrics of them. Never waits, never raises."""
        if self._projection is not None:
            self._projection.receive(events)

    def statistics(self) -> TelemetryStatistics:
        """What became of the events so far."""
        exporters = tuple(outlet.statistics() for outlet in self._outlets)
        made = self._projection
        if made is None:
            return TelemetryStatistics(0, 0, 0, 0, exporters)
        return TelemetryStatistics(made.spans_built, len(made.runs), made.runs.forgotten, made.errors, exporters)

    async def flush(self, timeout: float) -> None:
        """Send what is left.

        Returns after `timeout` seconds at the latest, and soon if the collector takes nothing: what it has not taken by
        then is sent in the background.
        """
        if not self._outlets:
            timeout = min(timeout, UNSEEN_PATIENCE)
        done = threading.Event()
        # A thread of our own, because a worker thread of anyio that still hangs would keep the process from ending.
        threading.Thread(target=self._flush, args=(timeout, done), name="runmeter telemetry flush", daemon=True).start()
        with anyio.move_on_after(timeout):
            while not done.is_set():
                sent = self._sent()
                await anyio.to_thread.run_sync(done.wait, min(timeout, PATIENCE), abandon_on_cancel=True)
                if self._in_trouble() and self._sent() == sent:
                    return

    def _flush(self, timeout: float, done: threading.Event) -> None:
        for provider in (self.tracer_provider, self.meter_provider):
            with suppress(Exception):  # the SDK raises if an application's exporter is late, having logged it
                if provider is not None:
                    provider.force_flush(round(timeout * 1e3))
        done.set()

    def _sent(self) -> int:
        return sum(outlet.statistics().sent for outlet in self._outlets)

    def _in_trouble(self) -> bool:
        return any(outlet.in_trouble for outlet in self._outlets)

    def shutdown(self) -> None:
        """Send what is left and end the background threads. Happens at the end of the process by itself.

        Waits while the collector takes what it is offered; the first failure ends it. It blocks: from async code call
        it in a worker thread.
        """
        atexit.unregister(self.shutdown)
        for outlet in self._outlets:
            outlet.close()
        owned, self._owned = self._owned, ()
        for provider in owned:
            with suppress(Exception):  # the SDK raises if a last export is late: there is nobody left to tell
                provider.shutdown()
