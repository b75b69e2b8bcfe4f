"""What the page shows to be looked into: errors, budgets, single runs, and what is not known."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date

from runmeter.engine import Status
from runmeter.engine.formats import format_count, format_time
from runmeter.engine.usage.statistics import OTHER

from ..html import Html, element, join
from .charts import count_chart, waterfall_chart
from .costs import MAX_GROUPS
from .report import Report
from .section import PageSection, figure
from .tables import folded, moment, spent_table, table, waterfall_table
from .waterfalls import Waterfall

MAX_LISTED = 50
"""Lines of a list of single things; further ones are counted."""


def errors(report: Report) -> PageSection:
    """Show what failed, what was tried again, and what that cost."""
    counts: Counter[tuple[date, str]] = Counter()
    for each in report.days:
        row = each.cell.row
        for kind, found in (
            ("request", row.request_errors_by_type),
            ("run", row.errors_by_type),
            ("tool", row.function_errors_by_type),
            ("retrieval", row.retrieval_errors_by_type),
        ):
            for error, count in found.items():
                counts[each.day, f"{kind}: {error}"] += count
    groups, by_day = _most_frequent(counts)
    chart = count_chart("errors-days", "Errors by day", "errors", by_day, groups)
    troubles = report.troubles
    failed_runs = {(str(status),): spent for status, spent in troubles.failed_runs.items()}
    rows = [[day.isoformat(), error, f"{count:,}"] for (day, error), count in sorted(counts.items())]
    content = [
        figure(
            chart, folded("Figures by day", table("Errors by day", ["day (UTC)", "error", "number"], rows, texts=2))
        ),
        spent_table("Requests that failed, and what they cost", ["error", "model"], troubles.failed),
        spent_table("Requests in runs that did not end well", ["the outermost run's end"], failed_runs),
        element(
            "p",
            f"Tried again: {format_count(troubles.retries.requests, 'request')} were a second or later try, "
            f"at a cost of {troubles.retries.cost}.",
        ),
    ]
    return PageSection("errors", "Errors and retries", join(content), [chart])


def budgets(report: Report) -> PageSection:
    """Show what budgets warned of and refused."""
    refused: Counter[tuple[date, str]] = Counter()
    for each in report.days:
        if count := each.cell.row.by_status.get(Status.BUDGET_EXCEEDED):
            refused[each.day, each.cell.pattern] += count
    warnings = [notice for _, notice in report.notices if notice.kind == "budget"]
    latest = {notice.subject: notice for notice in warnings}
    numbers = Counter(notice.subject for notice in warnings)
    rows = [
        [subject, moment(notice.time_ns), notice.message, f"{numbers[subject]:,}"] for subject, notice in latest.items()
    ]
    said = table("Warnings, by budget", ["budget", "last", "what it said", "warnings"], rows, texts=3)
    if not refused:
        return PageSection("budgets", "Budgets", join([said, element("p", "No run was refused by a budget.")]))
    groups, by_day = _most_frequent(refused)
    chart = count_chart("budgets-days", "Runs refused by budgets, by day", "runs", by_day, groups)
    by_pattern = [[day.isoformat(), pattern, f"{count:,}"] for (day, pattern), count in sorted(refused.items())]
    figures = table("Runs refused", ["day (UTC)", "pattern", "runs"], by_pattern, texts=2)
    return PageSection("budgets", "Budgets", join([said, figure(chart, folded("Figures by day", figures))]), [chart])


def single_runs(report: Report) -> PageSection:
    """Show the slowest and the dearest runs as waterfalls."""
    waterfalls = {each.run.run_id: each for each in (*report.slowest, *report.dearest)}
    names = {run_id: f"run-{number}" for number, run_id in enumerate(waterfalls)}
    charts, figures = [], []
    for run_id, each in waterfalls.items():
        title = f"{each.run.pattern or 'a run'}: {_took(each)}, {each.cost}"
        chart = waterfall_chart(names[run_id], title, each)
        charts.append(chart)
        more = f"{format_count(each.left_out, 'line')} more." if each.left_out else ""
        figures.append(
            figure(
                chart, element("p", _origin(each), class_="quiet"), folded("As a table", waterfall_table(each), more)
            )
        )
    lists = element(
        "div", _run_list("Slowest", report.slowest, names), _run_list("Dearest", report.dearest, names), class_="pair"
    )
    return PageSection("runs", "Slowest and dearest runs", join([lists, *figures]), charts)


def doubts(report: Report) -> PageSection:
    """List what is not known: costs between bounds or without a price, and what never ended."""
    requests = [
        [moment(each.started.time_ns), each.started.model, each.run.pattern or "", each.reason, str(each.cost)]
        for each in report.unended
    ]
    runs = [
        [moment(each.start_ns), each.pattern or "", each.run_id, "its process has gone" if each.lost else "under way"]
        for each in report.unended_runs
    ]
    content = [
        spent_table("Requests whose cost is not known exactly", ["reason", "model"], report.troubles.doubts),
        _listed("Requests that have not ended", ["left", "model", "pattern", "why", "may cost USD"], requests, texts=4),
        _listed("Runs that have not ended", ["began", "pattern", "run", "why"], runs, texts=4),
    ]
    return PageSection("doubts", "What is not known", join(content))


def _listed(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int) -> Html:
    shown = table(caption, header, rows[:MAX_LISTED], texts=texts)
    if len(rows) <= MAX_LISTED:
        return shown
    return join([shown, element("p", f"{len(rows) - MAX_LISTED:,} more are not listed.", class_="quiet")])


def _most_frequent(counts: Mapping[tuple[date, str], int]) -> tuple[Sequence[str], Mapping[tuple[date, str], int]]:
    """Tell the most frequent groups apart, and sum up all others in one."""
    totals: Counter[str] = Counter()
    for (_, group), count in counts.items():
        totals[group] += count
    order = [group for group, _ in totals.most_common()]
    shown = order if len(order) <= MAX_GROUPS + 1 else order[:MAX_GROUPS]
    sums: Counter[tuple[date, str]] = Counter()
    for (day, group), count in sorted(counts.items()):
        sums[day, group if group in shown else OTHER] += count
    return [*shown, *([OTHER] if len(shown) < len(order) else [])], sums


def _took(each: Waterfall) -> str:
    return "never ended" if each.run.duration_ns is None else format_time(each.run.duration_ns)


def _origin(each: Waterfall) -> str:
    """Tell which run it was."""
    run = each.run
    tags = ", ".join(f"{name}={value}" for name, value in sorted(run.tags.items()))
    parts = [
        f"began {moment(run.start_ns)}",
        str(run.status or "never ended"),
        f"run {run.run_id}",
        f"trace {run.trace_id}" if run.trace_id else "",
        tags,
    ]
    return " · ".join(filter(None, parts))


def _run_list(caption: str, waterfalls: Sequence[Waterfall], names: Mapping[str, str]) -> Html:
    header = ["run", "took", "cost USD", "ended"]
    rows = [
        [
            element("a", each.run.pattern or each.run.run_id, href=f"#{names[each.run.run_id]}"),
            _took(each),
            str(each.cost),
            str(each.run.status or "–"),
        ]
        for each in waterfalls
    ]
    return table(caption, header, rows)
