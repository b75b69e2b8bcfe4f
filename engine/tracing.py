"""The interface between the engine and telemetry while a run is running: span ids, and nothing else.

Spans are built later, from the events, off the hot path. But their ids are needed at once, so that the caller's trace
goes on in the run and whatever an instrumented client does inside nests below the right span.
"""

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from .events import Event, TraceContext


class Tracing(Protocol):
    """Allots span ids and keeps the ambient trace context. Called on every run, model call and tool call: be quick."""

    def start_span(
        self, trace_id: str | None = None, above: TraceContext | None = None
    ) -> tuple[TraceContext | None, Any]:
        """Allot a span below the ambient one and make it the ambient one.

        Args:
            trace_id: The outermost run's id: what a new trace is to be called, where no span is ambient.
            above: The span of the run that this one is in, if it is in one: it takes the place of the ambient one
                where the context was lost on the way, as in a thread that other code has started.

        Returns:
            The new span's ids, None while telemetry is switched off, and a token that `end_span` takes.
        """
        ...

    def end_span(self, token: Any) -> None:
        """Make the span that was ambient before `start_span` ambient again.

        May be called in another context (a generator closed elsewhere): then it must change nothing and not complain.
        """
        ...


class Telemetry(Tracing, Protocol):
    """Turns events into telemetry. `runmeter.telemetry.configure()` returns one, and an engine takes it."""

    def receive(self, events: Sequence[Event]) -> Awaitable[None] | None:
        """Take a batch of events, oldest first. The engine subscribes it on the lossy lane."""
        ...

    async def flush(self, timeout: float) -> None:
        """Send pending telemetry, in at most `timeout` seconds. The engine calls it when it closes."""
        ...
