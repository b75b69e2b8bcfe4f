"""Span ids while a run is running, and the ambient OpenTelemetry context.

The spans themselves are built later, from events. Until then a `PendingSpan` stands for each of them in the ambient
context, so that the caller's trace goes on in the run, and instrumented clients nest below the right span.
"""

import random
from contextvars import ContextVar, Token
from typing import TypeAlias

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision, Sampler
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from runmeter.engine import TraceContext

from . import semconv
from .forking import call_in_forked_child

SpanToken: TypeAlias = "tuple[PendingSpan, Token[object], Token[Context]]"

# Ours beside OpenTelemetry's own: its token tells whether we are in the context that the span was started in, without
# the line that OpenTelemetry logs when we are not.
_started: ContextVar[object] = ContextVar("runmeter_started_span", default=None)

[_SPAN_KEY] = set_span_in_context(INVALID_SPAN, Context())
"""The key of a context's span. `get_current_span` checks what it finds there, which takes longer than to look."""
_NO_STATE = TraceState()


class RandomIds(IdGenerator):
    """Random ids from a generator of our own: `random.seed(0)` in user code or a fork must not make two alike."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 - ids must be unique, not secret
        call_in_forked_child(self._seed)

    def _seed(self) -> None:
        self._random.seed()

    def generate_span_id(self) -> int:
        """Draw 64 random bits, not all zero."""
        return self._random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        """Draw 128 random bits, not all zero."""
        return self._random.getrandbits(128) or 1

    def is_trace_id_random(self) -> bool:
        """Tell whether trace ids are random: they are, in all of their bits."""
        return True


class PendingSpan(NonRecordingSpan):
    """Stands in the ambient context for a span that will be built from its events. What is set on it is lost.

    One that ended in another context than it was started in stays ambient there. Then it stands for the span of ours
    above it, lest what begins later in the same run nest below something that is over.

    Args:
        trace: Its ids.
        flags: Of its context.
        state: Of its context.
        above: The span of ours that it is below.
    """

    ended = False
    _asked: SpanContext | None = None

    def __init__(
        self, trace: TraceContext, flags: TraceFlags, state: TraceState, above: "PendingSpan | None" = None
    ) -> None:
        # Without the base's own, which keeps a span context and no more: ours is made when it is asked for.
        self.trace = trace
        self.flags = flags
        self.state = state
        self.above = above

    def __repr__(self) -> str:
        return f"PendingSpan({self.trace})"

    def get_span_context(self) -> SpanContext:
        """Make the context of the span that what begins now is below: this one, or an open one above it."""
        return self.open_span().own_context()

    def own_context(self) -> SpanContext:
        """Make the span's own context, whether it has ended or not."""
        if self._asked is None:
            trace_id, span_id = int(self.trace.trace_id, 16), int(self.trace.span_id, 16)
            self._asked = SpanContext(trace_id, span_id, False, self.flags, self.state)
        return self._asked

    def open_span(self) -> "PendingSpan":
        """Find the nearest span that has not ended: itself, or one above it; of a run that has ended, the run."""
        span = self
        while span.ended and span.above is not None:
            span = span.above
        return span


class SpanTracing:
    """Allots span ids below the ambient span, on any event loop and in any thread.

    Args:
        sampler: Asked once for each run that is not within another one; everything in a run is sampled like the run.
        ids: Makes the ids.
    """

    def __init__(self, sampler: Sampler, ids: IdGenerator) -> None:
        self._sampler = sampler
        self._ids = ids
        # The SDK's default, unless a variable or the application names another. It samples every root, so is not asked.
        self._takes_all_roots = sampler is DEFAULT_ON
        self._root_flags = _flags(sampled=True, is_random=ids.is_trace_id_random())

    def start_span(
        self, trace_id: str | None = None, above: TraceContext | None = None
    ) -> tuple[TraceContext, SpanToken]:
        """Allot a span below the ambient one, or the first of a new trace, and make it the ambient one.

        Args:
            trace_id: What a new trace is to be called, where the ids are not made by a generator of the application.
            above: Stands for the ambient span where there is none.
        """
        outer = get_current()
        ambient = outer.get(_SPAN_KEY)
        if type(ambient) is PendingSpan:
            span = self._below(ambient.open_span() if ambient.ended else ambient)
        else:
            parent = get_current_span(outer).get_span_context()
            if above is None or parent.is_valid:
                span = self._first(parent, outer, trace_id)
            else:
                span = self._below(self._standing_for(above))
        return span.trace, (span, _started.set(span), attach(set_span_in_context(span, outer)))

    def end_span(self, token: SpanToken) -> None:
        """Make the span that was ambient before ambient again; in another context than it was started in, nothing."""
        span, started, attached = token
        span.ended = True
        try:
            _started.reset(started)
        except (ValueError, RuntimeError):
            # Another context, like that of a generator closed elsewhere: it never saw the span. Or the second time.
            return
        detach(attached)

    def _below(self, above: PendingSpan) -> PendingSpan:
        trace, span_id = above.trace, self._ids.generate_span_id().to_bytes(8).hex()
        own = TraceContext(trace.trace_id, span_id, trace.span_id, False, trace.sampled, trace.trace_state)
        return PendingSpan(own, above.flags, above.state, above)

    def _standing_for(self, above: TraceContext) -> PendingSpan:
        """Make a span of ours that is known by its ids alone."""
        state = TraceState.from_header([above.trace_state]) if above.trace_state else _NO_STATE
        return PendingSpan(above, _flags(sampled=above.sampled, is_random=self._ids.is_trace_id_random()), state)

    def _new_trace_id(self, wanted: str | None) -> int:
        """Make a trace id: the wanted one, if it can be one, as generators such as AWS X-Ray's have another form."""
        if wanted is None or not isinstance(self._ids, RandomIds):
            return self._ids.generate_trace_id()
        try:
            number = int(wanted, 16)
        except ValueError:
            number = 0
        return number if 0 < number < 1 << 128 else self._ids.generate_trace_id()

    def _first(self, parent: SpanContext, outer: Context, wanted: str | None) -> PendingSpan:
        """Make the first span of ours, below the ambient one if there is one."""
        trace_id = parent.trace_id if parent.is_valid else self._new_trace_id(wanted)
        if self._takes_all_roots and not parent.is_valid:
            own = TraceContext(f"{trace_id:032x}", f"{self._ids.generate_span_id():016x}")
            return PendingSpan(own, self._root_flags, _NO_STATE)
        is_random = parent.trace_flags.random_trace_id if parent.is_valid else self._ids.is_trace_id_random()
        result = self._sampler.should_sample(outer, trace_id, semconv.INVOKE_AGENT, SpanKind.INTERNAL)
        sampled = result.decision is Decision.RECORD_AND_SAMPLE
        state = result.trace_state or _NO_STATE
        span_id = self._ids.generate_span_id()
        return PendingSpan(
            TraceContext(
                trace_id=f"{trace_id:032x}",
                span_id=f"{span_id:016x}",
                parent_span_id=f"{parent.span_id:016x}" if parent.is_valid else None,
                parent_is_remote=parent.is_remote,
                sampled=sampled,
                trace_state=state.to_header(),
            ),
            _flags(sampled=sampled, is_random=is_random),
            state,
        )


def _flags(*, sampled: bool, is_random: bool) -> TraceFlags:
    return TraceFlags(sampled * TraceFlags.SAMPLED | is_random * TraceFlags.RANDOM_TRACE_ID)
