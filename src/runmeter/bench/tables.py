"""A run on the terminal: a table a question, with a bar in each line."""

import math
from collections.abc import Sequence

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .compare import ResultsComparison
from .figures import Figure, Results
from .formats import NOTHING, digits, figure_range, figure_relative, figure_spread, figure_time, memory, percent
from .goals import GoalOutcome
from .question import Case
from .summary import Summary

BAR = 24
"""Characters of the longest bar."""
DECADES = 100
"""The ratio of the longest to the shortest bar from which on they are drawn by logarithm."""
OURS = "green"
OTHERS = "blue"
VERDICTS = {"met": "green", "not met": "red", "open": "yellow"}


def show(summary: Summary, console: Console) -> None:
    """Print a whole summary on the console."""
    for line in head(summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for results in summary.results.values():
        show_question(results, console)
    if summary.outcomes:
        console.print(goal_table(summary.outcomes))
    if summary.comparison is not None:
        show_comparison(summary.comparison, console)
    for question, failure in summary.record.failures:
        where = f"{question}, {failure.peer}" + (f", {failure.case}" if failure.case else "")
        console.print(f"left out: {where}: {failure.reason}", style="red", markup=False, soft_wrap=True)


def head(summary: Summary) -> Sequence[str]:
    """Write where and when it was measured, and how steady it was there."""
    record, machine = summary.record, summary.record.machine
    where = f"{machine.python}, {machine.cpu}, {machine.cores} cores, {machine.memory / 1e9:.0f} GB, {machine.system}"
    return [
        f"Runmeter {record.runmeter}, {record.date[:10]}, {where}",
        f"Noise: the machine's pace varied by ±{percent(summary.unsteadiness)}; "
        f"{percent(summary.noisy_share)} of the measurements were noisy to the last try"
        + ("" if record.complete else "; the run was cut short"),
    ]


def show_question(results: Results, console: Console) -> None:
    """Print a question's table, and what else there is to say of it."""
    question = results.question
    console.print()
    console.print(Text(question.title, style="bold"))
    console.print(question.measures, style="dim", markup=False, highlight=False)
    if cases := results.shown():
        console.print(question_table(results, cases))
    peaks = [(peer.title, results.peak_memory(peer.name)) for peer in question.peers]
    if any(peak for _, peak in peaks):
        said = ", ".join(f"{title} {memory(peak)}" for title, peak in peaks if peak)
        console.print(f"Peak memory: {said}", style="dim", markup=False, highlight=False)
    for made in results.record.peers:
        for name, value in made.checks.items():
            console.print(f"{made.name}: {name}: {digits(value)}", style="dim", markup=False, highlight=False)
    for peer in question.peers:
        if peer.note:
            console.print(f"{peer.title}: {peer.note}", style="dim", markup=False, highlight=False)


def question_table(results: Results, cases: Sequence[Case]) -> Table:
    """Make a table with a line for each peer and case: time, interval, comparison, bar."""
    added = results.question.figures == "added"
    memories = any(case.memory for case in cases)
    table = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1), show_edge=False)
    table.add_column("")
    table.add_column("CPU time" if not added else "adds", justify="right", no_wrap=True)
    table.add_column("95 %", justify="right", no_wrap=True)
    if has_baseline(results):
        table.add_column("of baseline" if added else "× baseline", justify="right", no_wrap=True)
        table.add_column("95 %", justify="right", no_wrap=True)
    if memories:
        table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("", width=BAR, no_wrap=True)
    for case in cases:
        figures = results.figures(case.name)
        table.add_section()
        table.add_row(Text(f"{case.title}, per {results.question.unit_of(case)}", style="bold"))
        for figure, bar in zip(figures, _bars(figures, results), strict=True):
            table.add_row(*_row(figure, results, memories=memories), bar)
    return table


def has_baseline(results: Results) -> bool:
    """Tell whether a question's peers are compared with one."""
    return any(results.question.baseline_of(case) for case in results.question.cases)


def _row(figure: Figure, results: Results, *, memories: bool) -> Sequence[Text]:
    peer = next(peer for peer in results.question.peers if peer.name == figure.peer)
    is_base = figure.peer == results.question.baseline_of(results.question.case(figure.case))
    cells = [
        Text(f"  {peer.title}", style=OURS if peer.ours else ""),
        Text(figure_time(figure), style="yellow" if figure.is_noisy else "dim" if is_base else ""),
        Text(figure_spread(figure), style="dim"),
    ]
    if has_baseline(results):
        compared = "baseline" if is_base else figure_relative(figure)
        cells += [Text(compared, style="dim" if is_base else ""), Text(figure_range(figure), style="dim")]
    return [*cells, Text(memory(figure.memory))] if memories else cells


def _bars(figures: Sequence[Figure], results: Results) -> Sequence[RenderableType]:
    ours = {peer.name for peer in results.question.peers if peer.ours}
    told = [figure.time.median for figure in figures if not figure.is_noisy and figure.time.median > 0]
    if not told:
        return [""] * len(figures)
    longest, shortest = max(told), min(told)
    by_logarithm = longest / shortest > DECADES

    def length(value: float) -> float:
        if value <= 0:
            return 0
        if by_logarithm:
            return math.log(value / shortest * 2) / math.log(longest / shortest * 2)
        return value / longest

    return [
        Text(NOTHING, style="dim")
        if figure.is_noisy
        else Bar(1, 0, max(0.0, length(figure.time.median)), width=BAR, color=OURS if figure.peer in ours else OTHERS)
        for figure in figures
    ]


def goal_table(outcomes: Sequence[GoalOutcome]) -> Table:
    """Make a table with a line for each goal."""
    table = Table(title="Goals", title_justify="left", title_style="bold", box=SIMPLE_HEAD, header_style="dim")
    table.add_column("")
    for name in ("limit", "measured", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for outcome in outcomes:
        style = VERDICTS.get(outcome.verdict, "yellow")
        table.add_row(escape(outcome.goal.text), *goal_cells(outcome), Text(outcome.verdict, style=style))
    return table


def goal_cells(outcome: GoalOutcome) -> tuple[str, str, str]:
    """Write a goal's limit, what was measured, and its interval."""
    goal, measured = outcome.goal, outcome.measured
    unit = "" if goal.denominator is not None else " MB" if goal.terms[0].memory else " µs"
    limit = f"≤ {digits(goal.limit)}{unit}"
    if measured is None:
        return limit, NOTHING, ""
    return limit, f"{digits(measured.median)}{unit}", f"{digits(measured.low)} – {digits(measured.high)}"


def show_comparison(comparison: ResultsComparison, console: Console) -> None:
    """Print the changes since an earlier run."""
    beyond = [change for change in comparison.changes if change.is_beyond_noise]
    what = "times" if comparison.is_same_machine else "another machine or Python, so ratios to the baseline"
    console.print(Text(f"\nChanges beyond noise: {len(beyond)} of {len(comparison.changes)} ({what})", style="bold"))
    table = Table(box=SIMPLE_HEAD, header_style="dim", show_edge=False)
    for name in ("question", "case", "peer"):
        table.add_column(name)
    table.add_column("new / old", justify="right")
    table.add_column("95 %", justify="right")
    for change in sorted(beyond, key=lambda change: change.ratio.median):
        figures = f"{digits(change.ratio.median)} ×", f"{digits(change.ratio.low)} – {digits(change.ratio.high)}"
        style = OURS if change.ratio.median < 1 else "red"
        table.add_row(escape(change.question), escape(change.case), escape(change.peer), *figures, style=style)
    if beyond:
        console.print(table)
    for title, lines in (("Other versions", comparison.versions), ("Not compared", comparison.missing)):
        if lines:
            console.print(f"{title}: {'; '.join(lines)}", style="dim", markup=False, highlight=False, soft_wrap=True)
