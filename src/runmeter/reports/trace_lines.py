"""A run's trace as lines: the run, all that happened in it and the runs within it, each with its place and time."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from runmeter.engine import (
    AssistantRun,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    ModelCallStarted,
    Notice,
    Provenance,
    Retrieval,
    RunReported,
    Status,
    TokenUsage,
)
from runmeter.engine.formats import printable

LineKind: TypeAlias = Literal["run", "request", "tool", "assistant", "retrieval", "notice"]
Tone: TypeAlias = Literal["plain", "good", "warning", "bad"]
_Timed: TypeAlias = TokenUsage | FunctionCall | AssistantRun | Retrieval
_Shown: TypeAlias = _Timed | Notice | ModelCallStarted


class TraceLine(NamedTuple):
    """A run, or something that happened in one. Names and notes are printable."""

    depth: int
    """Number of runs around it, up to the outermost one of the trace."""
    kind: LineKind
    name: str
    start_ns: int
    length_ns: int | None
    """Nanoseconds that it took; None if it never ended."""
    note: str
    short_note: str
    """What must be said of it, if there is no room for more."""
    tone: Tone
    event: Event
    """The event that it was made from: of a run, its start."""


def trace_lines(events: Iterable[Event], run_id: str) -> Sequence[TraceLine]:
    """List a run and all that happened in it and in the runs within it, in order of time.

    Args:
        events: All events of the run and of the runs within it, in any order; others are left out.
        run_id: The run at the root.

    Raises:
        ValueError: the run's start is not among the events.
    """
    trace = _Trace(events)
    root = trace.roots.get(run_id)
    if root is None:
        raise ValueError(f"no event tells that run {run_id} began")
    return tuple(trace.lines(root, 0, ""))


class _Trace:
    """Events by the run in which they happened."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.roots: dict[str, ExecutionStarted | RunReported] = {}
        self._ends: dict[str, ExecutionFinished] = {}
        within: defaultdict[str, list[_Shown | ExecutionStarted]] = defaultdict(list)
        answered: set[tuple[str, int]] = set()
        for event in events:
            match event:
                case ExecutionStarted():
                    self.roots[event.run_id] = event
                    if event.parent_run_id is not None:
                        within[event.parent_run_id].append(event)
                case RunReported():
                    self.roots[event.run_id] = event
                case ExecutionFinished():
                    self._ends[event.run_id] = event
                case TokenUsage() | FunctionCall() | AssistantRun() | Retrieval() | Notice() | ModelCallStarted():
                    within[event.run_id].append(event)
            if isinstance(event, TokenUsage):
                answered.add((event.run_id, event.call_id))
        self._within: Mapping[str, Sequence[_Shown | ExecutionStarted]] = {
            run_id: sorted(happened, key=_start) for run_id, happened in within.items()
        }
        self._answered = answered

    def lines(self, run: ExecutionStarted | RunReported, depth: int, around: str) -> Iterator[TraceLine]:
        """The line of a run, and those of what happened in it."""
        name = printable(run.pattern.removeprefix(f"{around}."))
        if isinstance(run, RunReported):
            yield TraceLine(depth, "run", name, run.time_ns, run.duration_ns, *_outcome(run.status, None), run)
            return
        end = self._ends.get(run.run_id)
        outcome = _outcome(end.status, end.error_type) if end else ("unfinished", "unfinished", "bad")
        yield TraceLine(depth, "run", name, run.time_ns, end.duration_ns if end else None, *outcome, run)
        for event in self._within.get(run.run_id, ()):
            if isinstance(event, ExecutionStarted):
                yield from self.lines(event, depth + 1, run.pattern)
            elif not isinstance(event, ModelCallStarted):
                yield _line(event, depth + 1)
            elif (event.run_id, event.call_id) not in self._answered:
                name = printable(f"{event.operation} {event.model}")
                yield TraceLine(
                    depth + 1, "request", name, event.time_ns, None, "never ended", "never ended", "bad", event
                )


def _line(event: _Timed | Notice, depth: int) -> TraceLine:
    if isinstance(event, Notice):
        name, note = printable(f"notice {event.subject}"), printable(event.message)
        return TraceLine(depth, "notice", name, event.time_ns, 0, note, "", "warning", event)
    kind, name = _named(event)
    failed = event.error_type or ""
    note, short_note = (printable(" ".join(filter(None, (said, failed)))) for said in _noted(event))
    tone: Tone = "bad" if failed else "plain"
    return TraceLine(depth, kind, printable(name), event.start_ns, event.duration_ns, note, short_note, tone, event)


def _outcome(status: Status, error_type: str | None) -> tuple[str, str, Tone]:
    if status is Status.OK:
        return "ok", "ok", "good"
    if status is Status.CANCELLED:
        return "cancelled", "cancelled", "warning"
    said = printable(f"error: {error_type}") if status is Status.ERROR and error_type else str(status)
    return said, said, "bad"


def _named(event: _Timed) -> tuple[LineKind, str]:
    match event:
        case FunctionCall():
            return "tool", f"tool {event.name}"
        case AssistantRun():
            return "assistant", f"assistant {event.assistant}"
        case Retrieval():
            return "retrieval", f"retrieval {event.source}"
        case _:
            return "request", f"{event.operation} {event.model}"


def _noted(event: _Timed) -> tuple[str, str]:
    """Tell what came of an event, in full and in short."""
    if isinstance(event, Retrieval) and not event.error_type:
        found = f"{event.documents:,} found"
        return found if event.top_score is None else f"{found}, top score {event.top_score:.2f}", found
    if not isinstance(event, TokenUsage):
        return "", ""
    if event.usage is None:
        return "usage unknown", "unknown"
    used = event.usage
    if not event.is_input_known:
        return f"≥ {used.output_tokens:,} tokens out", f"≥ {used.output_tokens:,} out"
    if not used.input_tokens and event.error_type:  # it did nothing
        return "", ""
    known = "" if event.provenance is Provenance.REPORTED else f" {event.provenance}"
    cached = f" ({used.cache_read_tokens:,} cached)" if used.cache_read_tokens else ""
    short = f"{used.input_tokens:,} → {used.output_tokens:,}{known}"
    return f"{used.input_tokens:,}{cached} → {used.output_tokens:,} tokens{known}", short


def _start(event: Event) -> int:
    start: int = getattr(event, "start_ns", event.time_ns)
    return start
