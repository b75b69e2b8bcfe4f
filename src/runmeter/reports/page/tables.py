"""Tables: the figures of the charts, and what no chart shows, for those who read, copy or listen."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TypeVar

from runmeter.engine import Usage
from runmeter.engine.formats import format_time

from ..html import Html, element
from .costs import CostSplit, GroupSum, RequestCost
from .latency import Latency
from .waterfalls import Waterfall

_Names = TypeVar("_Names", bound=tuple[str, ...])


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int = 1) -> Html:
    """Make a table, whose first column names its rows.

    Args:
        caption: What it shows.
        header: The columns' names.
        rows: Their cells.
        texts: The number of columns that hold texts; the others hold numbers.
    """
    head = element(
        "tr", *(element("th", name, scope="col", class_=_class(at, texts)) for at, name in enumerate(header))
    )
    body = [element("tr", *(_cell(at, cell, texts) for at, cell in enumerate(row))) for row in rows]
    if not body:
        return element("p", f"{caption}: none.", class_="none")
    content = (element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", element("table", *content), class_="scroll", tabindex="0", role="region", aria_label=caption)


def folded(summary: str, *content: str) -> Html:
    """Put content behind a line that opens it."""
    return element("details", element("summary", summary), *content)


def split_table(split: CostSplit) -> Html:
    """Tabulate the sums of each group."""
    has_runs = split.is_tag or split.by == "pattern"
    header = [split.by, *(["runs", "failed"] if has_runs else []), "requests", "tokens in", "cached", "out", "cost USD"]
    if any(each.inclusive != each.spent.cost for each in split.sums) and split.by == "pattern" and not split.is_tag:
        header.append("with runs within")
    rows = [_sum_cells(each, header, has_runs=has_runs) for each in split.sums]
    return table(f"By {'tag ' if split.is_tag else ''}{split.by}", header, rows)


def _sum_cells(each: GroupSum, header: Sequence[str], *, has_runs: bool) -> Sequence[str]:
    usage = each.usage
    return [
        each.group,
        *([f"{each.executions:,}", f"{each.failures:,}"] if has_runs else []),
        f"{each.spent.requests:,}",
        f"{usage.input_tokens:,}",
        share(usage),
        f"{usage.output_tokens:,}",
        str(each.spent.cost),
        str(each.inclusive),
    ][: len(header)]


def day_table(split: CostSplit) -> Html:
    """Tabulate costs by day and group."""
    days = sorted({day for day, _ in split.days})
    rows = [[day.isoformat(), *(_spent(split.days.get((day, group))) for group in split.groups)] for day in days]
    return table(f"Cost in USD by day and {split.by}", ["day (UTC)", *split.groups], rows)


def latency_table(caption: str, of: str, latencies: Mapping[str, Latency] | Mapping[date, Latency]) -> Html:
    """Tabulate percentiles."""
    rows = [
        [str(key), f"{each.count:,}", *(format_time(at) for at in (each.p50, each.p95, each.p99, each.longest))]
        for key, each in latencies.items()
    ]
    return table(caption, [of, "number", "p50", "p95", "p99", "longest"], rows)


def spent_table(caption: str, header: Sequence[str], rows: Mapping[_Names, RequestCost]) -> Html:
    """Tabulate requests and what they cost, the most requests first."""
    order = sorted(rows.items(), key=lambda item: item[1].requests, reverse=True)
    cells = [[*names, f"{spent.requests:,}", str(spent.cost)] for names, spent in order]
    return table(caption, [*header, "requests", "cost USD"], cells, texts=len(header))


def waterfall_table(waterfall: Waterfall) -> Html:
    """Tabulate the lines of a waterfall."""
    rows = [
        [
            f"{'· ' * each.line.depth}{each.line.name}",
            format_time(each.offset_ns),
            "–" if each.line.length_ns is None else format_time(each.line.length_ns),
            "" if each.cost is None else str(each.cost),
            each.line.note,
        ]
        for each in waterfall.lines
    ]
    return table("All that happened", ["what", "began after", "took", "cost USD", "note"], rows)


def share(usage: Usage) -> str:
    """Write the share of input that came from the cache."""
    return f"{usage.cache_read_tokens / usage.input_tokens:.1%}" if usage.input_tokens else "–"


def moment(time_ns: int) -> str:
    """Write a time in UTC, to the second."""
    return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _spent(spent: RequestCost | None) -> str:
    return "" if spent is None else str(spent.cost)


def _cell(at: int, cell: str, texts: int) -> Html:
    if not at:
        return element("th", cell, scope="row")
    return element("td", cell, class_=_class(at, texts))


def _class(at: int, texts: int) -> str | None:
    return "text" if at < texts else None
