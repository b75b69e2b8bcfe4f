"""What the command line shows of statistics: tables and lines. From values to rich's renderables, no more."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from runmeter.engine import BusStatistics, Provenance, UsageRow, UsageStatistics
from runmeter.engine.formats import format_count, printable
from runmeter.patterns import PatternRegistry, PatternType
from runmeter.telemetry import TelemetryStatistics

from .tables import Column, fitted_table


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


class _Line(NamedTuple):
    """A line of the usage table."""

    name: str
    own: UsageRow
    """Of the runs themselves."""
    whole: UsageRow
    """With all that runs within them used."""
    is_outermost: bool = True
    has_inner: bool = False


def usage_table(usage: UsageStatistics, width: int) -> Group:
    """One line for each pattern, and their sum. What runs within a pattern's runs used is in its line, too.

    Args:
        usage: What to show.
        width: Characters there are. With fewer, there are fewer columns: names and numbers stay whole.
    """
    lines = list(_usage_lines(usage))
    outermost = sum((line.own for line in lines if line.is_outermost), start=UsageRow())
    lines.append(_Line("total", outermost, usage.total))
    owns, wholes = [line.own for line in lines], [line.whole for line in lines]
    columns = [
        Column("pattern", [Text(printable(line.name)) for line in lines], is_text=True),
        Column("runs", [f"{own.executions:,}" for own in owns]),
        Column("fail", [Text(f"{own.failures:,}", "red" if own.failures else "") for own in owns], 3),
        Column("cancelled", [f"{own.cancelled:,}" for own in owns], 2),
        Column("p50 s", [seconds(own.p50) for own in owns], 4),
        Column("p95 s", [seconds(own.p95) for own in owns], 8),
        Column("p99 s", [seconds(own.p99) for own in owns], 10),
        Column("tokens in", [_tokens(whole.usage.input_tokens, whole) for whole in wholes], 5),
        Column("cached", [f"{whole.usage.cache_read_tokens:,}" for whole in wholes], 9),
        Column("out", [_tokens(whole.usage.output_tokens, whole) for whole in wholes], 6),
        Column("tools", [f"{whole.function_calls:,}" for whole in wholes], 7),
        Column("cost", [Text(str(whole.cost), "green") for whole in wholes]),
        Column("own cost", [Text(str(line.own.cost) if line.has_inner else "", "green") for line in lines], 1),
    ]
    has_inner = any(line.has_inner for line in lines)
    absent = {"own cost": not has_inner, "cancelled": not outermost.cancelled}
    title = f"Usage by pattern{'; runs within runs (└) are in their lines' if has_inner else ''}"
    return fitted_table(title, [each for each in columns if not absent.get(each.name)], width, has_sum=True)


def _usage_lines(usage: UsageStatistics) -> Iterator[_Line]:
    """The patterns, each followed by those that run within its runs: their names begin with its own, and a dot."""
    rows = usage.by_pattern()
    for pattern, own in rows.items():
        inner = [row for name, row in rows.items() if name.startswith(f"{pattern}.")]
        depth = sum(pattern.startswith(f"{name}.") for name in rows)
        name = f"{'  ' * (depth - 1)}└ {pattern.rpartition('.')[2]}" if depth else pattern
        yield _Line(name, own, sum(inner, start=own), not depth, bool(inner))


def _tokens(count: int, row: UsageRow) -> str:
    """Write a number of tokens; as a lower bound, where requests did not say what they used, or not all of it."""
    known = row.requests_by_provenance
    return f"≥ {count:,}" if known.get(Provenance.UNKNOWN) or known.get(Provenance.PARTIAL) else f"{count:,}"


def bus_table(bus: BusStatistics, width: int) -> Group:
    """One row for each subscriber: what it was sent, and what became of that.

    Args:
        bus: The accounts.
        width: Characters there are.
    """
    accounts = bus.subscribers
    columns = [
        Column("subscriber", [Text(printable(account.name)) for account in accounts], is_text=True),
        Column("lane", [account.lane for account in accounts], 1, is_text=True),
    ]
    for name, rank in (("published", 0), ("delivered", 0), ("dropped", 0), ("pending", 2), ("errors", 3)):
        columns.append(Column(name, [f"{getattr(account, name):,}" for account in accounts], rank))
    return fitted_table(f"Event bus: {bus.published:,} events published", columns, width)


def error_summary(errors: Sequence[Exception]) -> Text:
    """Count the runs that failed with each error, and tell what the first of each said."""
    counts = Counter(type(error).__name__ for error in errors)
    text = Text("failed runs:", style="red")
    for name, count in counts.most_common():
        first = next(_printable_lines(error) for error in errors if type(error).__name__ == name)
        text.append(f"\n  {count:,} × {name}: {first if len(first) <= 300 else first[:300].rpartition(' ')[0] + ' …'}")
    return text


def _printable_lines(error: Exception) -> str:
    """Write an error's message, which may quote a server: lines stay lines, and no sign steers the terminal."""
    return "\n".join(map(printable, str(error).splitlines()))


def run_summary(
    row: UsageRow, time_ns: int | None, status: str, error: Exception | None, trace_id: str | None, width: int
) -> Text:
    """Tell what one run took, in a line or two, its trace's id in another, and why it failed if it did.

    Args:
        row: The run's statistics, those of its child runs included.
        time_ns: How long it took, in nanoseconds.
        status: How it ended, in a word.
        error: What it raised.
        trace_id: None if it did not start.
        width: Characters there are.
    """
    used = row.usage
    read, written = _tokens(used.input_tokens, row), _tokens(used.output_tokens, row)
    figures = [
        f"{read} ({used.cache_read_tokens:,} cached) → {written} tokens",
        str(row.cost),
        duration(time_ns),
        format_count(row.requests, "request"),
        format_count(row.function_calls, "tool call"),
    ]
    text = Text("\n".join(_joined(figures, width)), style="dim")
    if trace_id is not None:
        text.append(f"\ntrace {trace_id}")
    if error is not None:
        text.append(f"\n{type(error).__name__}: {_printable_lines(error)}", style="red")
    elif status != "ok":
        text.append(f"\n{status}: this is what was used until then", style="yellow")
    return text


def _joined(figures: Iterable[str], width: int) -> Iterator[str]:
    """Join figures to lines, none of which is broken."""
    line = ""
    for figure in figures:
        longer = f"{line} · {figure}" if line else figure
        if line and cell_len(longer) > width:
            yield line
            longer = figure
        line = longer
    yield line


def export_summary(telemetry: TelemetryStatistics, url: str) -> Text:
    """Tell how much of the telemetry reached the collector."""
    text = Text(f"telemetry to {url}: {telemetry.spans:,} spans")
    for exporter in telemetry.exporters:
        if exporter.unsupported:  # which the log has told
            continue
        lost = exporter.taken - exporter.sent
        text.append(f"; {exporter.name}: {exporter.sent:,} sent, ")
        text.append(f"{lost:,} not delivered", style="red" if lost else "")
    return text


def pattern_table(registry: PatternRegistry, width: int) -> Group:
    """The patterns, what each is built on, and whether it can be created."""
    status = {True: Text("available", "green"), False: Text("not in this version", "dim")}
    columns = [
        Column("pattern", list(PatternType), is_text=True),
        Column("framework", [registry.get_pattern_framework(each) for each in PatternType], 1, is_text=True),
        Column("status", [status[each in registry.available] for each in PatternType], 2, is_text=True),
    ]
    return fitted_table("Patterns", columns, width)


def verdict(label: str, counted: int, expected: int) -> Text:
    """Tell whether two counts of the same thing agree."""
    if counted == expected:
        return Text(f"✓ {label}: {counted:,}", style="green")
    return Text(f"✗ {label}: metered {counted:,}, expected {expected:,}", style="red")
