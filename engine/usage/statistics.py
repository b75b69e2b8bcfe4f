"""Usage statistics as a value: rows by pattern, framework, model and tags, and the sums over them."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from ..events import Provenance
from ..formats import format_table, format_time
from .row import UsageRow, group_rows, sum_rows

OTHER = "(other)"
"""Name that stands for all that there was no room to tell apart."""
Tags: TypeAlias = tuple[tuple[str, str], ...]
Key: TypeAlias = tuple[str, str, str | None, Tags]  # pattern, framework, model, tags
OTHER_TAGS: Tags = ((OTHER, OTHER),)


class UsageCell(msgspec.Struct, frozen=True):
    """The row of one pattern, framework, model and set of tags."""

    pattern: str
    framework: str
    model: str | None
    """The model as requested; None for what belongs to the run and not to a request."""
    tags: Tags
    """The tags, in order of their names."""
    row: UsageRow

    @property
    def key(self) -> Key:
        """The key that sets the cell apart."""
        return self.pattern, self.framework, self.model, self.tags


class UsageStatistics(msgspec.Struct, frozen=True):
    """Statistics of all runs. A value: msgspec can encode it, and another process's can be added to it."""

    cells: tuple[UsageCell, ...] = ()
    """The cells in order of pattern, framework, model and tags."""
    uncounted: int = 0
    """Events that could not be counted, because something in them makes no sense. The log has the first."""
    unknown_events: int = 0
    """Events that only a newer version understands: their numbers are in no row."""

    @property
    def total(self) -> UsageRow:
        """The sum of all rows."""
        return sum_rows(cell.row for cell in self.cells)

    def by_pattern(self) -> dict[str, UsageRow]:
        """Sum up one row a pattern. What a run used is in its own pattern's row, not in its parent's."""
        return group_rows((cell.pattern, cell.row) for cell in self.cells)

    def by_framework(self) -> dict[str, UsageRow]:
        """Sum up one row a framework."""
        return group_rows((cell.framework, cell.row) for cell in self.cells)

    def by_model(self) -> dict[str, UsageRow]:
        """Sum up one row a model, as requested. It holds what belongs to requests, not what belongs to runs."""
        return group_rows((cell.model, cell.row) for cell in self.cells if cell.model is not None)

    def by_tag(self, name: str) -> dict[str | None, UsageRow]:
        """Sum up one row a value of the tag, and one under None for runs that lack it.

        Runs whose tags there was no room for are under `OTHER`.
        """
        return group_rows(
            (OTHER if cell.tags == OTHER_TAGS else dict(cell.tags).get(name), cell.row) for cell in self.cells
        )

    def __add__(self, other: "UsageStatistics") -> "UsageStatistics":
        rows = group_rows((cell.key, cell.row) for cell in (*self.cells, *other.cells))
        return statistics_of(rows.items(), self.uncounted + other.uncounted, self.unknown_events + other.unknown_events)

    def __str__(self) -> str:
        total = self.total
        lines = [_summary(pattern, row) for pattern, row in self.by_pattern().items()]
        if len(lines) != 1:
            lines.append(_summary("total", total))
        text = format_table(_HEADER, lines)
        if total.assistant_runs:
            text += (
                f"\nassistant runs: {total.assistant_runs:,}, p50 {format_time(total.assistant_latency.quantile(0.5))}"
            )
            text += f"; threads: {total.threads_created:,} created, {total.threads_resumed:,} resumed"
        if total.cancelled:
            text += f"\ncancelled, and no failures: {total.cancelled:,} (of {total.executions:,} runs)"
        if total.retrievals:
            failed = sum(total.retrieval_errors_by_type.values())
            text += f"\nretrievals: {total.retrievals:,} ({total.empty_retrievals:,} found nothing, {failed:,} failed)"
            text += f"; documents found: {total.documents_found:,}"
        if total.notices:
            kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(total.notices_by_kind.items()))
            text += f"\nnotices: {kinds}"
        unreported = {kind: n for kind, n in total.requests_by_provenance.items() if kind is not Provenance.REPORTED}
        if unreported:
            kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(unreported.items()))
            text += f"\nusage not reported by the API: {kinds} (of {total.requests:,} requests)"
        if self.uncounted:
            text += f"\nevents that could not be counted: {self.uncounted:,} (see the log)"
        if self.unknown_events:
            text += f"\nevents that only a newer version can count: {self.unknown_events:,}"
        return text


def statistics_of(rows: Iterable[tuple[Key, UsageRow]], uncounted: int, unknown: int) -> UsageStatistics:
    """Make statistics with their cells in order, so that equal statistics are equal values."""
    return UsageStatistics(tuple(sorted((UsageCell(*key, row) for key, row in rows), key=_order)), uncounted, unknown)


def _order(cell: UsageCell) -> tuple[str, str, bool, str, Tags]:
    return cell.pattern, cell.framework, cell.model is not None, cell.model or "", cell.tags


_HEADER = ("pattern", "runs", "failures", "p50", "p95", "tokens in", "cached", "tokens out", "tool calls", "cost")


def _summary(name: str, row: UsageRow) -> Sequence[str]:
    usage = row.usage
    return (
        name,
        f"{row.executions:,}",
        f"{row.failures:,}",
        format_time(row.p50),
        format_time(row.p95),
        f"{usage.input_tokens:,}",
        f"{usage.cache_read_tokens:,}",
        f"{usage.output_tokens:,}",
        f"{row.function_calls:,}",
        str(row.cost),
    )
