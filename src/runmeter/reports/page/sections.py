"""What the page shows of usage: sums, costs, latency, tokens."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date

from runmeter.engine import Provenance, Usage, UsageRow
from runmeter.engine.formats import format_count, format_time

from ..html import Html, element, join
from . import latency
from .charts import cost_chart, count_chart, latency_chart, range_chart, share_chart
from .costs import RequestCost, split_by_model, split_by_pattern, split_by_tag, tag_names
from .report import Report
from .section import PageSection, figure, utc_day
from .tables import day_table, folded, latency_table, share, split_table, table

MAX_TAGS = 6
"""Tags by which costs are drawn; further ones are named."""


def overview(report: Report, total: UsageRow) -> Html:
    """Sum up the report in a few figures."""
    usage = total.usage
    finished = sum(total.by_status.values())
    tiles = [
        ("Cost", str(total.cost), _unended_note(len(report.unended))),
        ("Runs", f"{total.executions:,}", f"{total.failures:,} failed, {total.cancelled:,} cancelled of {finished:,}"),
        ("Requests", f"{total.requests:,}", f"{sum(total.request_errors_by_type.values()):,} failed"),
        ("Tokens in", f"{_at_least(total)}{usage.input_tokens:,}", f"{share(usage)} from the cache"),
        ("Tokens out", f"{_at_least(total)}{usage.output_tokens:,}", f"{usage.reasoning_tokens:,} for reasoning"),
        ("A run took", f"p50 {format_time(total.p50)}", f"p95 {format_time(total.p95)}, p99 {format_time(total.p99)}"),
    ]
    cells = (
        element("div", element("dt", name), element("dd", figure), element("dd", note), class_="tile")
        for name, figure, note in tiles
    )
    return element("dl", *cells, class_="tiles")


def costs(report: Report) -> PageSection:
    """Show costs by day and model, pattern and tag."""
    names = tag_names(report.days)
    splits = [split_by_model(report.days), split_by_pattern(report.days)]
    splits += [split_by_tag(report.days, name) for name in names[:MAX_TAGS]]
    possible = _possible_by_day(report)
    charts = [cost_chart(f"cost-{number}", split, possible) for number, split in enumerate(splits)]
    content = [
        figure(chart, split_table(split), folded("Figures by day", day_table(split)))
        for chart, split in zip(charts, splits, strict=True)
    ]
    if len(names) > MAX_TAGS:
        content.append(element("p", f"Not drawn: the tags {', '.join(names[MAX_TAGS:])}.", class_="quiet"))
    words = element(
        "p",
        "A day is the UTC day in which the request left. A bar is the cost that is certain; the pale band on top is "
        "what it may be more, and a triangle says that there is no upper bound, as something has no price.",
        class_="quiet",
    )
    return PageSection("costs", "Cost over time", join([words, *content]), charts)


def latencies(report: Report) -> PageSection:
    """Show how long runs and requests took."""
    by_day = latency.runs_by_day(report.days)
    by_pattern = latency.runs_by_pattern(report.days)
    by_model = latency.requests_by_model(report.days)
    first = latency.first_chunks_by_model(report.days)
    charts = [
        latency_chart("latency-days", "Runs by day", by_day),
        range_chart("latency-patterns", "Runs by pattern", by_pattern),
        range_chart("latency-models", "Requests by model", by_model),
    ]
    tables = [
        folded("Figures by day", latency_table("Runs by the UTC day in which they began", "day", by_day)),
        latency_table("Runs by pattern", "pattern", by_pattern),
        latency_table("Requests by model", "model", by_model),
    ]
    figures = [figure(chart, shown) for chart, shown in zip(charts, tables, strict=True)]
    chunks = latency_table("First chunk of a streamed answer, by model", "model", first) if first else Html()
    return PageSection(
        "latency", "Latency", join([figures[0], element("div", *figures[1:], class_="pair"), chunks]), charts
    )


def tokens(report: Report) -> PageSection:
    """Show tokens by day, and what the prompt cache served."""
    by_day: defaultdict[date, Usage] = defaultdict(Usage)
    for each in report.days:
        if each.cell.row.usage_by_provenance:
            by_day[each.day] += each.cell.row.usage
    kinds = [kind for kind, _ in _kinds(Usage())]
    counts = {(day, kind): count for day, usage in by_day.items() for kind, count in _kinds(usage) if count}
    shares = {day: u.cache_read_tokens / u.input_tokens for day, u in by_day.items() if u.input_tokens}
    charts = [
        count_chart("tokens-days", "Tokens by day", "tokens", counts, kinds),
        share_chart("cache-days", "Share of input from the cache, by day", shares, "from the cache"),
    ]
    rows = [
        [day.isoformat(), *(f"{count:,}" for _, count in _kinds(usage)), share(usage)] for day, usage in by_day.items()
    ]
    shown = folded("Figures by day", table("Tokens by day", ["day (UTC)", *kinds, "input from cache"], rows))
    return PageSection("tokens", "Tokens and caching", join([figure(charts[0]), figure(charts[1], shown)]), charts)


def _unended_note(count: int) -> str:
    return f"besides {format_count(count, 'request')} that never ended" if count else "of all requests"


def _at_least(total: UsageRow) -> str:
    """Mark a number of tokens as a lower bound, where requests did not say what they used, or not all of it."""
    known = total.requests_by_provenance
    return "≥ " if known.get(Provenance.UNKNOWN) or known.get(Provenance.PARTIAL) else ""


def _possible_by_day(report: Report) -> Mapping[date, RequestCost]:
    """Sum up what the requests that have not ended may cost, by the UTC day in which they left."""
    sums: defaultdict[date, RequestCost] = defaultdict(RequestCost)
    for each in report.unended:
        sums[utc_day(each.started.time_ns)] += RequestCost.of(1, each.cost)
    return dict(sums)


def _kinds(usage: Usage) -> Iterable[tuple[str, int]]:
    """Tell tokens apart that cost differently: each is in one kind."""
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return (
        ("input", max(usage.input_tokens - cached, 0)),
        ("input from the cache", usage.cache_read_tokens),
        ("input written to the cache", usage.cache_write_tokens),
        ("output", max(usage.output_tokens - usage.reasoning_tokens, 0)),
        ("output for reasoning", usage.reasoning_tokens),
    )
