"""What the command line shows: statistics as tables, a run as a tree. From values to rich's renderables, no more."""

from collections.abc import Iterable, Sequence
from typing import Any

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
    Provenance,
    Status,
    TokenUsage,
    UsageRow,
    UsageStatistics,
)

COUNTS = ("runs", "failed", "p50", "p95", "p99", "tokens in", "cached", "tokens out", "tool calls", "cost")
BAR = 24
"""Characters of a trace's time line."""


def duration(time_ns: int | None) -> str:
    """A time in nanoseconds for people: `1.2 ms`, `3.40 s`; a dash for None."""
    if time_ns is None:
        return "–"
    return f"{time_ns / 1e9:.2f} s" if time_ns >= 1e9 else f"{time_ns / 1e6:.1f} ms"


def usage_table(usage: UsageStatistics) -> Table:
    """One row for each pattern, and their sum."""
    table = Table(title="Usage by pattern", title_justify="left", header_style="bold")
    table.add_column("pattern", no_wrap=True)
    for name in COUNTS:
        table.add_column(name, justify="right", no_wrap=True)
    for pattern, row in usage.by_pattern().items():
        table.add_row(escape(pattern), *_usage_cells(row))
    table.add_section()
    table.add_row("total", *_usage_cells(usage.total), style="bold")
    return table


def _usage_cells(row: UsageRow) -> list[str | Text]:
    used = row.usage
    return [
        f"{row.executions:,}",
        Text(f"{row.failures:,}", style="red" if row.failures else ""),
        duration(row.p50),
        duration(row.p95),
        duration(row.p99),
        f"{used.input_tokens:,}",
        f"{used.cache_read_tokens:,}",
        f"{used.output_tokens:,}",
        f"{row.function_calls:,}",
        Text(str(row.cost), style="green"),
    ]


def bus_table(bus: BusStatistics) -> Table:
    """One row for each subscriber: what it was sent, and what became of that."""
    table = Table(title=f"Event bus: {bus.published:,} events published", title_justify="left", header_style="bold")
    table.add_column("subscriber")
    table.add_column("lane")
    for name in ("published", "delivered", "dropped", "pending", "errors"):
        table.add_column(name, justify="right")
    for account in bus.subscribers:
        figures = (account.published, account.delivered, account.dropped, account.pending, account.errors)
        table.add_row(escape(account.name), account.lane, *(f"{figure:,}" for figure in figures))
    return table


def trace_tree(events: Sequence[Event], run_id: str) -> Tree:
    """A run with its model calls, tool calls and child runs, in order of time, each with its share of the run's time.

    Args:
        events: All events of the run and of the runs within it, in any order; others are left out.
        run_id: The run at the root.
    """
    (started,) = (event for event in events if isinstance(event, ExecutionStarted) and event.run_id == run_id)
    finished = _finished(events, run_id)
    span = finished.duration_ns if finished else 0
    tree = Tree(_line(started.pattern, "bold", started.time_ns, span, started.time_ns, span, _outcome(finished)))
    _grow(tree, events, run_id, started.time_ns, span)
    return tree


def _grow(tree: Tree, events: Sequence[Event], run_id: str, origin_ns: int, span_ns: int) -> None:
    for event in sorted(events, key=_start):
        match event:
            case ExecutionStarted(parent_run_id=parent) if parent == run_id:
                finished = _finished(events, event.run_id)
                length = finished.duration_ns if finished else 0
                line = _line(event.pattern, "bold", event.time_ns, length, origin_ns, span_ns, _outcome(finished))
                _grow(tree.add(line), events, event.run_id, origin_ns, span_ns)
            case TokenUsage() | FunctionCall() | AssistantRun() if event.run_id == run_id:
                name, style, note = _describe(event)
                tree.add(_line(name, style, event.start_ns, event.duration_ns, origin_ns, span_ns, note))
            case _:
                pass


def _describe(event: TokenUsage | FunctionCall | AssistantRun) -> tuple[str, str, str]:
    """An event's name, style and note."""
    failed = f"[red]{escape(event.error_type)}[/]" if event.error_type else ""
    if isinstance(event, FunctionCall):
        return f"tool {event.name}", "yellow", failed
    if isinstance(event, AssistantRun):
        return f"assistant {event.assistant}", "magenta", failed
    if event.usage is None:
        return f"{event.operation} {event.model}", "cyan", f"usage unknown {failed}"
    cached = f" ({event.usage.cache_read_tokens:,} cached)" if event.usage.cache_read_tokens else ""
    known = "" if event.provenance is Provenance.REPORTED else f" {event.provenance}"
    note = f"{event.usage.input_tokens:,}{cached} → {event.usage.output_tokens:,} tokens{known} {failed}"
    return f"{event.operation} {event.model}", "cyan", note


def _line(name: str, style: str, start_ns: int, length_ns: int, origin_ns: int, span_ns: int, note: str) -> Table:
    """One line of a trace: name, time line, start, duration, note."""
    line = Table.grid(padding=(0, 1))
    line.add_column(width=30, no_wrap=True)
    line.add_column(width=BAR)
    line.add_column(width=11, justify="right")
    line.add_column(width=9, justify="right")
    line.add_column()
    line.add_row(
        Text(name, style=style),
        Text(_bar(start_ns - origin_ns, length_ns, span_ns), style=style.replace("bold", "white")),
        Text(f"+{duration(start_ns - origin_ns)}", style="dim"),
        duration(length_ns),
        note,
    )
    return line


def _bar(offset_ns: int, length_ns: int, span_ns: int) -> str:
    if span_ns <= 0:
        return ""
    first = min(BAR - 1, max(0, offset_ns * BAR // span_ns))
    width = max(1, min(BAR - first, round(length_ns * BAR / span_ns)))
    return " " * first + "━" * width


def _start(event: Event) -> int:
    start: int = getattr(event, "start_ns", event.time_ns)
    return start


def _finished(events: Iterable[Event], run_id: str) -> ExecutionFinished | None:
    return next((e for e in events if isinstance(e, ExecutionFinished) and e.run_id == run_id), None)


def _outcome(finished: ExecutionFinished | None) -> str:
    if finished is None:
        return "[red]unfinished[/]"
    return "[green]ok[/]" if finished.status is Status.OK else f"[red]{finished.status}: {finished.error_type}[/]"


def pattern_table(patterns: Iterable[tuple[str, str, str]]) -> Table:
    """The patterns: name, framework, and whether they can be run here."""
    table = Table(header_style="bold")
    for name in ("pattern", "framework", "status"):
        table.add_column(name)
    for row in patterns:
        table.add_row(*row)
    return table


def verdict(label: str, counted: Any, expected: Any) -> Text:
    """Whether two counts of the same thing agree."""
    if counted == expected:
        return Text(f"✓ {label}: {counted}", style="green")
    return Text(f"✗ {label}: counted {counted}, expected {expected}", style="red")
