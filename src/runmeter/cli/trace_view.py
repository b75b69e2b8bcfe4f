"""What the command line shows of a run: all that happened in it, as a tree along the time that it took."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text
from rich.tree import Tree

from runmeter.engine import Event
from runmeter.reports.trace_lines import LineKind, Tone, TraceLine, trace_lines

from .views import duration

GUIDE = 4
"""Characters that one level of a tree draws before its lines."""
TIME = 8
"""Characters of a duration, such as `999.9 ms`."""
_STYLES: Mapping[LineKind, str] = {
    "run": "bold",
    "request": "cyan",
    "tool": "yellow",
    "assistant": "magenta",
    "retrieval": "blue",
    "notice": "bold yellow",
}
_NOTE_STYLES: Mapping[Tone, str] = {"plain": "", "good": "green", "warning": "yellow", "bad": "red"}


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


def trace_tree(
    events: Sequence[Event], run_id: str, width: int, amend: Callable[[TraceLine], TraceLine] = lambda line: line
) -> Tree:
    """A run with all that happened in it and its child runs, in order of time, each with its share of the run's time.

    Args:
        events: All events of the run and of the runs within it, in any order; others are left out.
        run_id: The run at the root.
        width: Characters there are. With fewer, lines say less: names and durations stay whole.
        amend: Changes a line before it is shown, such as its notes.

    Raises:
        ValueError: the run's start is not among the events.
    """
    lines = [amend(line) for line in trace_lines(events, run_id)]
    name = max(GUIDE * line.depth + cell_len(line.name) for line in lines)
    layout = next((each for each in _LAYOUTS if _needs(each, name, lines) <= width), _LAYOUTS[-1])
    return _tree(lines, layout, name)


def _needs(layout: _Layout, name: int, lines: Sequence[TraceLine]) -> int:
    """Characters of the longest line."""
    note = max(cell_len(line.short_note if layout.short else line.note) for line in lines)
    bar, offset = layout.bar + 1 if layout.bar else 0, 10 if layout.offset else 0
    return name + 1 + bar + offset + TIME + (1 + note if note else 0)


def _tree(lines: Sequence[TraceLine], layout: _Layout, name: int) -> Tree:
    root = lines[0]
    branches = [Tree(_text(root, root, layout, name))]
    for line in lines[1:]:
        del branches[line.depth :]
        branches.append(branches[-1].add(_text(line, root, layout, name)))
    return branches[0]


def _text(line: TraceLine, root: TraceLine, layout: _Layout, name: int) -> Text:
    """Write a line of the trace; the deeper it is, the less room has its name."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(line.name + " " * (name - GUIDE * line.depth - cell_len(line.name) + 1), _STYLES[line.kind])
    offset_ns = line.start_ns - root.start_ns
    if layout.bar:
        text.append(_bar(layout.bar, offset_ns, line.length_ns or 0, root.length_ns or 0) + " ", _STYLES[line.kind])
    if layout.offset:
        text.append(f"+{duration(offset_ns)}".rjust(9) + " ", "dim")
    text.append(duration(line.length_ns).rjust(TIME))
    if note := line.short_note if layout.short else line.note:
        text.append(f" {note}", _NOTE_STYLES[line.tone])
    return text


def _bar(length: int, offset_ns: int, length_ns: int, span_ns: int) -> str:
    span_ns = max(1, span_ns)
    first = min(length - 1, max(0, offset_ns * length // span_ns))
    width = max(1, min(length - first, round(length_ns * length / span_ns)))
    return (" " * first + "━" * width).ljust(length)
