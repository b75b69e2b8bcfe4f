"""What the command line shows: statistics as tables, a run as a tree. From values to rich's renderables, no more."""

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from runmeter.engine import (
    AssistantRun,
    BusStatistics,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    Notice,
    Provenance,
    Retrieval,
    Status,
    TokenUsage,
    UsageRow,
    UsageStatistics,
)
from runmeter.engine.formats import format_count
from runmeter.patterns import PatternRegistry, PatternType
from runmeter.telemetry import TelemetryStatistics

FIGURES = ("runs", "fail", "p50/p95/p99 s", "tokens in", "cached", "out", "tools", "cost")
WIDE = 104
"""Characters that the tables want; with fewer they are set closer."""
GUIDE = 4
"""Characters that one level of a tree draws before its lines."""


def duration(time_ns: int | None) -> str:
    """A time in nanoseconds for people: `1.2 ms`, `3.40 s`; a dash for None."""
    if time_ns is None:
        return "–"
    return f"{time_ns / 1e9:.2f} s" if time_ns >= 1e9 else f"{time_ns / 1e6:.1f} ms"


def seconds(time_ns: int | None) -> str:
    """A time in nanoseconds as seconds, with two digits at least; a dash for None."""
    if time_ns is None:
        return "–"
    return f"{time_ns / 1e9:.2f}" if time_ns >= 1e8 else f"{time_ns / 1e9:.3f}"


def _table(title: str, *, wide: bool = True) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=SIMPLE_HEAD,
        padding=(0, int(wide)),
        show_edge=wide,
    )


def usage_table(usage: UsageStatistics, width: int) -> Table:
    """One row for each pattern, and their sum.

    Args:
        usage: What to show.
        width: Characters there are. On a narrow terminal names may break, numbers may not.
    """
    table = _table("Usage by pattern; └ are runs within its runs", wide=width >= WIDE)
    table.add_column("pattern", overflow="fold", min_width=11)
    for name in FIGURES:
        table.add_column(name, justify="right", no_wrap=True)
    rows = usage.by_pattern()
    for pattern, row in rows.items():
        parent, _, child = pattern.rpartition(".")
        table.add_row(escape(f"└ {child}" if parent in rows else pattern), *_usage_cells(row))
    table.add_section()
    table.add_row("total", *_usage_cells(usage.total), style="bold")
    return table


def _usage_cells(row: UsageRow) -> list[str | Text]:
    used = row.usage
    return [
        f"{row.executions:,}",
        Text(f"{row.failures:,}", style="red" if row.failures else ""),
        "/".join(seconds(time_ns) for time_ns in (row.p50, row.p95, row.p99)),
        f"{used.input_tokens:,}",
        f"{used.cache_read_tokens:,}",
        f"{used.output_tokens:,}",
        f"{row.function_calls:,}",
        Text(str(row.cost), style="green"),
    ]


def bus_table(bus: BusStatistics) -> Table:
    """One row for each subscriber: what it was sent, and what became of that."""
    table = _table(f"Event bus: {bus.published:,} events published")
    table.add_column("subscriber")
    table.add_column("lane")
    for name in ("published", "delivered", "dropped", "pending", "errors"):
        table.add_column(name, justify="right")
    for account in bus.subscribers:
        figures = (account.published, account.delivered, account.dropped, account.pending, account.errors)
        table.add_row(escape(account.name), account.lane, *(f"{figure:,}" for figure in figures))
    return table


class _Timeline:
    """The time that a trace covers, and the lines drawn along it."""

    def __init__(self, origin_ns: int, span_ns: int, width: int) -> None:
        self._origin_ns = origin_ns
        self._span_ns = max(1, span_ns)
        self._wide = width >= WIDE
        self._name, self._length = (32, 20) if self._wide else (27, 10)

    def line(self, name: str, style: str, start_ns: int, length_ns: int, note: str, depth: int) -> Table:
        """One line: name, time line, start, duration, note. The deeper, the less room for the name."""
        line = Table.grid(padding=(0, 1))
        offset_ns = start_ns - self._origin_ns
        line.add_column(width=self._name - GUIDE * depth, no_wrap=True)
        line.add_column(width=self._length, no_wrap=True)
        line.add_column(width=9 if self._wide else 0, justify="right", no_wrap=True)
        line.add_column(width=8, justify="right", no_wrap=True)
        line.add_column(no_wrap=True)
        offset = f"+{duration(offset_ns)}" if self._wide else ""
        bar = self._bar(offset_ns, length_ns)
        line.add_row(Text(name, style=style), Text(bar, style=style), Text(offset, "dim"), duration(length_ns), note)
        return line

    def _bar(self, offset_ns: int, length_ns: int) -> str:
        first = min(self._length - 1, max(0, offset_ns * self._length // self._span_ns))
        width = max(1, min(self._length - first, round(length_ns * self._length / self._span_ns)))
        return " " * first + "━" * width


def trace_tree(events: Sequence[Event], run_id: str, width: int) -> Tree:
    """A run with all that happened in it and its child runs, in order of time, each with its share of the run's time.

    Args:
        events: All events of the run and of the runs within it, in any order; others are left out.
        run_id: The run at the root.
        width: Characters there are. A narrow terminal gets shorter lines.
    """
    (root,) = (event for event in events if isinstance(event, ExecutionStarted) and event.run_id == run_id)
    finished = _finished(events, run_id)
    timeline = _Timeline(root.time_ns, finished.duration_ns if finished else 0, width)
    return _run_tree(Tree(_run_line(timeline, root, finished, 0)), events, root, timeline, 1)


def _run_tree(tree: Tree, events: Sequence[Event], run: ExecutionStarted, timeline: _Timeline, depth: int) -> Tree:
    for event in sorted(events, key=_start):
        match event:
            case ExecutionStarted(parent_run_id=parent) if parent == run.run_id:
                branch = tree.add(_run_line(timeline, event, _finished(events, event.run_id), depth))
                _run_tree(branch, events, event, timeline, depth + 1)
            case TokenUsage() | FunctionCall() | AssistantRun() | Retrieval() if event.run_id == run.run_id:
                name, style, note = _describe(event)
                tree.add(timeline.line(name, style, event.start_ns, event.duration_ns, note, depth))
            case Notice() if event.run_id == run.run_id:
                name = f"notice {event.subject}"
                tree.add(
                    timeline.line(name, "bold yellow", event.time_ns, 0, f"[yellow]{escape(event.message)}[/]", depth)
                )
            case _:
                pass
    return tree


def _run_line(timeline: _Timeline, run: ExecutionStarted, finished: ExecutionFinished | None, depth: int) -> Table:
    length_ns = finished.duration_ns if finished else 0
    return timeline.line(run.pattern, "bold", run.time_ns, length_ns, _outcome(finished), depth)


def _describe(event: TokenUsage | FunctionCall | AssistantRun | Retrieval) -> tuple[str, str, str]:
    """An event's name, style and note."""
    failed = f"[red]{escape(event.error_type)}[/]" if event.error_type else ""
    if isinstance(event, FunctionCall):
        return f"tool {event.name}", "yellow", failed
    if isinstance(event, AssistantRun):
        return f"assistant {event.assistant}", "magenta", failed
    if isinstance(event, Retrieval):
        score = f", top score {event.top_score:.2f}" if event.top_score is not None else ""
        return f"retrieval {event.source}", "blue", failed or f"{event.documents:,} found{score}"
    if event.usage is None:
        return f"{event.operation} {event.model}", "cyan", f"usage unknown {failed}"
    cached = f" ({event.usage.cache_read_tokens:,} cached)" if event.usage.cache_read_tokens else ""
    known = "" if event.provenance is Provenance.REPORTED else f" {event.provenance}"
    note = f"{event.usage.input_tokens:,}{cached} → {event.usage.output_tokens:,} tokens{known} {failed}"
    return f"{event.operation} {event.model}", "cyan", note


def _start(event: Event) -> int:
    start: int = getattr(event, "start_ns", event.time_ns)
    return start


def _finished(events: Iterable[Event], run_id: str) -> ExecutionFinished | None:
    return next((e for e in events if isinstance(e, ExecutionFinished) and e.run_id == run_id), None)


def _outcome(finished: ExecutionFinished | None) -> str:
    if finished is None:
        return "[red]unfinished[/]"
    if finished.status is Status.OK:
        return "[green]ok[/]"
    if finished.status is Status.CANCELLED:
        return "[yellow]cancelled[/]"
    return f"[red]{finished.status}: {escape(str(finished.error_type))}[/]"


def error_summary(errors: Sequence[Exception]) -> Text:
    """How many runs failed with which error, and what the first of each said."""
    counts = Counter(type(error).__name__ for error in errors)
    text = Text("failed runs:", style="red")
    for name, count in counts.most_common():
        first = next(str(error) for error in errors if type(error).__name__ == name)
        text.append(f"\n  {count:,} × {name}: {first[:200]}")
    return text


def run_summary(row: UsageRow, time_ns: int | None, status: str, error: Exception | None, trace_id: str | None) -> Text:
    """What one run took, in a line, its trace's id in another, and why it failed if it did.

    Args:
        row: The run's statistics, those of its child runs included.
        time_ns: How long it took, in nanoseconds.
        status: How it ended, in a word.
        error: What it raised.
        trace_id: None if it did not start.
    """
    used = row.usage
    figures = [
        f"{used.input_tokens:,} ({used.cache_read_tokens:,} cached) → {used.output_tokens:,} tokens",
        str(row.cost),
        duration(time_ns),
        format_count(row.requests, "request"),
        format_count(row.function_calls, "tool call"),
    ]
    text = Text(" · ".join(figures), style="dim")
    if trace_id is not None:
        text.append(f"\ntrace {trace_id}")
    if error is not None:
        text.append(f"\n{type(error).__name__}: {error}", style="red")
    elif status != "ok":
        text.append(f"\n{status}: this is what was used until then", style="yellow")
    return text


def export_summary(telemetry: TelemetryStatistics, url: str) -> Text:
    """How much of the telemetry reached the collector."""
    text = Text(f"telemetry to {url}: {telemetry.spans:,} spans")
    for exporter in telemetry.exporters:
        lost = exporter.taken - exporter.sent
        text.append(f"; {exporter.name}: {exporter.sent:,} sent, ")
        text.append(f"{lost:,} not delivered", style="red" if lost else "")
    return text


def pattern_table(registry: PatternRegistry) -> Table:
    """The patterns, what each is built on, and whether it can be created."""
    table = _table("Patterns")
    for name in ("pattern", "framework", "status"):
        table.add_column(name)
    for pattern in PatternType:
        available = pattern in registry.available
        status = "[green]available[/]" if available else "[dim]not in this version[/]"
        table.add_row(pattern, registry.get_pattern_framework(pattern), status)
    return table


def verdict(label: str, counted: int, expected: int) -> Text:
    """Whether two counts of the same thing agree."""
    if counted == expected:
        return Text(f"✓ {label}: {counted:,}", style="green")
    return Text(f"✗ {label}: metered {counted:,}, expected {expected:,}", style="red")
