"""A run as a page: RESULTS.md, with the charts beside it."""

from collections.abc import Iterable, Sequence

from .figures import Figure, Results
from .formats import NOTHING, figure_relative, figure_spread, figure_time, memory
from .summary import Summary
from .tables import goal_cells, has_baseline, head

INTRODUCTION = """\
# Results

Made by `make bench`; what is measured, and what the figures do not tell, is in [README.md](README.md). The raw rounds
are in [results.json](results.json): `runmeter bench --compare benchmarks/results.json` tells what has changed since.

Times are CPU times on the machine below and do not travel; ratios do. Each figure is the median of its rounds, with
half of the width of its 95 % interval. **too noisy** stands where the rounds do not agree well enough for a number.
"""


def page(summary: Summary, charts: str) -> str:
    """Write the text of the page.

    Args:
        summary: The run.
        charts: The charts' folder, as seen from the page.
    """
    parts = [INTRODUCTION, "\n".join(f"- {line}" for line in head(summary)) + "\n"]
    if summary.outcomes:
        parts += ["## Goals\n", _goals(summary)]
    parts += [_question(results, charts) for results in summary.results.values()]
    if summary.record.failures:
        parts += ["## Left out\n", _failures(summary)]
    return "\n".join(parts)


def _question(results: Results, charts: str) -> str:
    question = results.question
    parts = [f"## {question.title}\n", f"{question.measures}\n"]
    if results.shown():
        parts += [_chart(question.name, question.title, charts), _figures(results)]
    if peaks := _peaks(results):
        parts += [peaks]
    parts += [f"- {peer.title}: {peer.note}" for peer in question.peers if peer.note]
    return "\n".join(parts) + "\n"


def _chart(name: str, title: str, charts: str) -> str:
    return (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{charts}/{name}-dark.svg">\n'
        f'  <img alt="{title}" src="{charts}/{name}-light.svg">\n</picture>\n'
    )


def _figures(results: Results) -> str:
    question = results.question
    peers = [peer for peer in question.peers if any(results.figure(case.name, peer.name) for case in results.shown())]
    cases = results.shown()
    if len(cases) == 1:  # one line a peer reads better than one line with all of them
        case = cases[0]
        compared = has_baseline(results)
        return _table(
            ["", "CPU time", *(["× baseline"] if compared else []), *(["memory"] if case.memory else [])],
            (
                [
                    peer.title,
                    _time(figure),
                    *([figure_relative(figure)] if compared else []),
                    *([memory(figure.memory)] if case.memory else []),
                ]
                for peer in peers
                if (figure := results.figure(case.name, peer.name)) is not None
            ),
        )
    rows = (
        [f"{case.title}, per {question.unit_of(case)}"]
        + [_cell(results.figure(case.name, peer.name), memories=case.memory) for peer in peers]
        for case in cases
    )
    return _table(["", *(peer.title for peer in peers)], rows)


def _cell(figure: Figure | None, *, memories: bool) -> str:
    if figure is None:
        return NOTHING
    relative = figure_relative(figure)
    parts = [_time(figure), *([relative] if relative != NOTHING and not figure.is_noisy else [])]
    return "<br>".join([*parts, *([memory(figure.memory)] if memories else [])])


def _time(figure: Figure) -> str:
    if figure.is_noisy or figure.is_bound:
        return figure_time(figure)
    return f"{figure_time(figure)} {figure_spread(figure)}"


def _peaks(results: Results) -> str:
    peaks = [(peer.title, results.peak_memory(peer.name)) for peer in results.question.peers]
    said = ", ".join(f"{title} {memory(peak)}" for title, peak in peaks if peak)
    return f"Peak memory: {said}.\n" if said else ""


def _goals(summary: Summary) -> str:
    rows = ([outcome.goal.text, *goal_cells(outcome), outcome.verdict] for outcome in summary.outcomes)
    return _table(["", "limit", "measured", "95 %", ""], rows)


def _failures(summary: Summary) -> str:
    rows = (
        [question, failure.peer, failure.case or "all", failure.reason] for question, failure in summary.record.failures
    )
    return _table(["question", "peer", "case", "why"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"
