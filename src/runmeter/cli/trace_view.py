"""What the command line shows of a run: all that happened in it, as a tree along the time that it took."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text
from rich.tree import Tree

from runmeter.engine import (
    AssistantRun,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    Notice,
    Provenance,
    Retrieval,
    Status,
    TokenUsage,
)

from .views import duration

GUIDE = 4
"""Characters that one level of a tree draws before its lines."""
TIME = 8
"""Characters of a duration, such as `999.9 ms`."""


class _Line(NamedTuple):
    """A run, or something that happened in one."""

    depth: int
    name: str
    style: str
    start_ns: int
    length_ns: int
    note: str
    short_note: str
    """What must be said of it, if there is no room for more."""
    note_style: str = ""


class _Layout(NamedTuple):
    """The layout of a trace: how much a line shows."""

    bar: int
    """Characters of the time line."""
    offset: bool = False
    """Whether to say when each thing began."""
    short: bool = False
    """Whether notes are short."""


_LAYOUTS = (_Layout(20, offset=True), _Layout(16), _Layout(10), _Layout(10, short=True), _Layout(0, short=True))
"""From the richest to the barest."""


def trace_tree(events: Sequence[Event], run_id: str, width: int) -> Tree:
    """A run with all that happened in it and its child runs, in order of time, each with its share of the run's time.

    Args:
        events: All events of the run and of the runs within it, in any order; others are left out.
        run_id: The run at the root.
        width: Characters there are. With fewer, lines say less: names and durations stay whole.
    """
    (root,) = (event for event in events if isinstance(event, ExecutionStarted) and event.run_id == run_id)
    lines = list(_lines(events, root, 0))
    name = max(GUIDE * line.depth + cell_len(line.name) for line in lines)
    layout = next((each for each in _LAYOUTS if _needs(each, name, lines) <= width), _LAYOUTS[-1])
    return _tree(lines, layout, name)


def _lines(events: Sequence[Event], run: ExecutionStarted, depth: int, within: str = "") -> Iterator[_Line]:
    finished = _finished(events, run.run_id)
    name = run.pattern.removeprefix(f"{within}.")
    note, style = _outcome(finished)
    yield _Line(depth, name, "bold", run.time_ns, finished.duration_ns if finished else 0, note, note, style)
    for event in sorted(events, key=_start):
        match event:
            case ExecutionStarted(parent_run_id=parent) if parent == run.run_id:
                yield from _lines(events, event, depth + 1, run.pattern)
            case TokenUsage() | FunctionCall() | AssistantRun() | Retrieval() | Notice() if event.run_id == run.run_id:
                yield _describe(event, depth + 1)
            case _:
                pass


def _needs(layout: _Layout, name: int, lines: Sequence[_Line]) -> int:
    """Characters of the longest line."""
    note = max(cell_len(line.short_note if layout.short else line.note) for line in lines)
    bar, offset = layout.bar + 1 if layout.bar else 0, 10 if layout.offset else 0
    return name + 1 + bar + offset + TIME + (1 + note if note else 0)


def _tree(lines: Sequence[_Line], layout: _Layout, name: int) -> Tree:
    root = lines[0]
    branches = [Tree(_text(root, root, layout, name))]
    for line in lines[1:]:
        del branches[line.depth :]
        branches.append(branches[-1].add(_text(line, root, layout, name)))
    return branches[0]


def _text(line: _Line, root: _Line, layout: _Layout, name: int) -> Text:
    """Write a line of the trace; the deeper it is, the less room has its name."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(line.name + " " * (name - GUIDE * line.depth - cell_len(line.name) + 1), line.style)
    offset_ns = line.start_ns - root.start_ns
    if layout.bar:
        text.append(_bar(layout.bar, offset_ns, line.length_ns, root.length_ns) + " ", line.style)
    if layout.offset:
        text.append(f"+{duration(offset_ns)}".rjust(9) + " ", "dim")
    text.append(duration(line.length_ns).rjust(TIME))
    if note := line.short_note if layout.short else line.note:
        text.append(f" {note}", line.note_style)
    return text


def _bar(length: int, offset_ns: int, length_ns: int, span_ns: int) -> str:
    span_ns = max(1, span_ns)
    first = min(length - 1, max(0, offset_ns * length // span_ns))
    width = max(1, min(length - first, round(length_ns * length / span_ns)))
    return (" " * first + "━" * width).ljust(length)


def _outcome(finished: ExecutionFinished | None) -> tuple[str, str]:
    if finished is None:
        return "unfinished", "red"
    if finished.status is Status.OK:
        return "ok", "green"
    if finished.status is Status.CANCELLED:
        return "cancelled", "yellow"
    if finished.status is Status.ERROR:
        return f"error: {finished.error_type}", "red"
    return str(finished.status), "red"


def _describe(event: TokenUsage | FunctionCall | AssistantRun | Retrieval | Notice, depth: int) -> _Line:
    if isinstance(event, Notice):
        name = f"notice {event.subject}"
        return _Line(depth, name, "bold yellow", event.time_ns, 0, event.message, "", "yellow")
    name, style = _named(event)
    note, short_note = _noted(event)
    failed = event.error_type or ""
    full, short = (" ".join(filter(None, (said, failed))) for said in (note, short_note))
    return _Line(depth, name, style, event.start_ns, event.duration_ns, full, short, "red" if failed else "")


def _named(event: TokenUsage | FunctionCall | AssistantRun | Retrieval) -> tuple[str, str]:
    match event:
        case FunctionCall():
            return f"tool {event.name}", "yellow"
        case AssistantRun():
            return f"assistant {event.assistant}", "magenta"
        case Retrieval():
            return f"retrieval {event.source}", "blue"
        case _:
            return f"{event.operation} {event.model}", "cyan"


def _noted(event: TokenUsage | FunctionCall | AssistantRun | Retrieval) -> tuple[str, str]:
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


def _finished(events: Iterable[Event], run_id: str) -> ExecutionFinished | None:
    return next((e for e in events if isinstance(e, ExecutionFinished) and e.run_id == run_id), None)
