"""A chart for each question, as SVG, in light and in dark: a panel a case, a bar a peer, a whisker for its interval."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import BenchError
from .figures import Figure, Results
from .formats import NOISY, NOTHING, figure_relative, figure_time, memory
from .question import Case

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADES = 100
"""The ratio of the longest to the shortest bar from which on the axis is logarithmic."""
COLUMNS = 3
MOSTLY = 2 / 3
"""The share of cases that peers must have for all panels to show all of them, so that one column of names will do."""
ROOM = 0.75
"""Room for the numbers right of the bars, as a share of the longest bar."""
PANEL_WIDTH, LABEL_WIDTH = 3.1, 1.9
"""Inches."""
BAR_HEIGHT, TITLE_HEIGHT, HEAD_HEIGHT = 0.25, 0.7, 0.95
"""Inches: of a bar with its gap, of a panel's title, and of the chart's."""
TITLE_WIDTH = 38
"""Characters."""


class Theme(msgspec.Struct, frozen=True):
    """The colours of a chart."""

    name: str
    background: str
    text: str
    faint: str
    ours: str
    others: str


THEMES = (
    Theme("light", "#ffffff", "#1f2328", "#818b98", "#1a7f37", "#b6c2cf"),
    Theme("dark", "#0d1117", "#e6edf3", "#7d8590", "#3fb950", "#3d4a5a"),
)


def check_drawing() -> None:
    """Check that charts can be drawn.

    Raises:
        BenchError: the library is not installed.
    """
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError:
        raise BenchError("charts are drawn by matplotlib: pip install 'runmeter[bench]'") from None


def save_charts(results: Mapping[str, Results], folder: Path) -> Sequence[Path]:
    """Draw all questions that have figures, as `question-light.svg` and `question-dark.svg`.

    Returns:
        The files.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _save(each, theme, folder / f"{name}-{theme.name}.svg")
        for name, each in results.items()
        if each.shown()
        for theme in THEMES
    ]


def _save(results: Results, theme: Theme, path: Path) -> Path:
    import matplotlib as mpl

    # The salt makes the ids in the file the same each time.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "runmeter", "font.size": 9.0}):
        figure = _draw(results, theme)
        figure.savefig(path, facecolor=theme.background, metadata={"Date": None})
    return path


def _draw(results: Results, theme: Theme) -> Any:
    from matplotlib.figure import Figure as Canvas

    cases = results.shown()
    panels = _panels(results, cases)
    columns = min(COLUMNS, len(panels))
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(len(panel.rows) for panel in line) * BAR_HEIGHT + TITLE_HEIGHT for line in lines]
    width = columns * PANEL_WIDTH + LABEL_WIDTH * (1 if panels[0].is_shared else columns)
    canvas = Canvas(figsize=(width, sum(heights) + HEAD_HEIGHT), layout="constrained")
    canvas.suptitle(f"{results.question.title}\n", x=0.01, ha="left", fontsize=14, fontweight="bold", color=theme.text)
    under = HEAD_HEIGHT * 0.52 / (sum(heights) + HEAD_HEIGHT)
    canvas.text(0.01, 1 - under, _subtitle(results), va="center", fontsize=9, color=theme.faint)
    grid = canvas.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for line, row in zip(lines, grid, strict=True):
        for axes in row[len(line) :]:
            axes.set_visible(False)
        places = max(len(panel.rows) for panel in line)
        for panel, axes in zip(line, row, strict=False):
            _draw_panel(axes, panel, theme, places=places, labelled=not panel.is_shared or panel is line[0])
    return canvas


def _subtitle(results: Results) -> str:
    question = results.question
    labels = {peer.name: peer.title for peer in question.peers}
    of = f"what is added to {labels[question.baseline]}" if question.figures == "added" and question.baseline else ""
    compared = f"; × {labels[question.baseline]}" if question.baseline and not of else ""
    return f"CPU time per {question.unit}{', ' + of if of else ''}{compared}. Median, with its 95 % interval."


class _Row(msgspec.Struct, frozen=True):
    """A bar with its name."""

    name: str
    ours: bool
    figure: Figure | None


class _Panel(msgspec.Struct, frozen=True):
    """A panel of bars of one scale."""

    title: str
    rows: tuple[_Row, ...]
    is_shared: bool
    """True if all panels have the same rows, so that those in the first column name them for all."""


def _panels(results: Results, cases: Sequence[Case]) -> Sequence[_Panel]:
    """Make a panel for each case; where there is but one peer, a panel for all cases."""
    figures = {case.name: {figure.peer: figure for figure in results.figures(case.name)} for case in cases}
    present = set[str]().union(*figures.values())
    peers = [peer for peer in results.question.peers if peer.name in present]
    if len(peers) == 1:
        (peer,) = peers
        rows = tuple(_Row(case.title, peer.ours, figures[case.name][peer.name]) for case in cases)
        return [_Panel(peer.title, rows, is_shared=False)]
    is_shared = sum(map(len, figures.values())) >= MOSTLY * len(cases) * len(peers)
    return [
        _Panel(
            _title(results, case),
            tuple(
                _Row(peer.title, peer.ours, figures[case.name].get(peer.name))
                for peer in peers
                if is_shared or peer.name in figures[case.name]
            ),
            is_shared,
        )
        for case in cases
    ]


def _draw_panel(axes: "Axes", panel: _Panel, theme: Theme, *, places: int, labelled: bool) -> None:
    figures = [row.figure for row in panel.rows if row.figure is not None]
    start = _scale(axes, [figure for figure in figures if not figure.is_noisy])
    for place, row in enumerate(panel.rows):
        _bar(axes, place, row, theme, start=start)
    ticks = range(len(panel.rows)) if labelled else []
    axes.set_yticks(ticks, [row.name for row in panel.rows] if labelled else [])
    for tick, row in zip(axes.yaxis.get_major_ticks(), panel.rows, strict=False):
        tick.label1.set_color(theme.ours if row.ours else theme.text)
        tick.label1.set_fontweight("bold" if row.ours else "normal")
    axes.set_ylim(places - 0.4, -0.6)  # as in its neighbours, so that all bars are as thick
    title = f"{panel.title}{' (logarithmic)' if axes.get_xscale() == 'log' else ''}"
    axes.set_title(_wrapped(title), loc="left", fontsize=9, fontweight="bold", color=theme.text)
    axes.set_facecolor(theme.background)
    axes.tick_params(length=0)
    axes.xaxis.set_visible(False)
    for spine in ("top", "right", "bottom"):
        axes.spines[spine].set_visible(False)
    axes.spines["left"].set_color(theme.faint)


def _wrapped(title: str) -> str:
    """Wrap a title into lines that a panel has room for."""
    return "\n".join(wrap(title, TITLE_WIDTH))


def _title(results: Results, case: Case) -> str:
    unit = f", per {case.unit}" if case.unit and case.unit != results.question.unit else ""
    return f"{case.title}{unit}"


def _scale(axes: "Axes", told: Sequence[Figure]) -> float:
    """Set the axis, with room for numbers at its end. Returns where bars begin."""
    positive = [figure.time.median for figure in told if figure.time.median > 0]
    end = max((figure.time.high for figure in told if figure.time.high > 0), default=1.0)
    if positive and max(positive) / min(positive) > DECADES:
        start = min(positive) / 2
        axes.set_xscale("log")
        axes.set_xlim(start, end * (end / start) ** ROOM)
        return start
    axes.set_xlim(0, end * (1 + ROOM))
    return 0.0


def _bar(axes: "Axes", place: int, row: _Row, theme: Theme, *, start: float) -> None:
    text: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
    figure = row.figure
    if figure is None or figure.is_noisy:
        said = NOTHING if figure is None else NOISY
        axes.annotate(said, (start, place), (3, 0), color=theme.faint, fontstyle="italic", **text)
        return
    time = figure.time
    length = max(start, time.median)
    axes.barh(place, length - start, left=start, height=0.7, color=theme.ours if row.ours else theme.others)
    low, high = max(start, time.low), max(length, time.high)
    axes.plot([low, high], [place, place], color=theme.text, linewidth=1.2, solid_capstyle="butt", alpha=0.85)
    parts = [figure_time(figure)]
    parts += [] if figure.relative is None or figure.is_relative_noisy else [figure_relative(figure)]
    parts += [] if figure.memory is None else [memory(figure.memory)]
    axes.annotate(" · ".join(parts), (high, place), (4, 0), color=theme.text, **text)
