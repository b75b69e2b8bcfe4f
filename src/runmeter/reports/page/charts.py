"""The charts, by Altair: each a value of Vega-Lite with the figures that it draws inside."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import ROUND_CEILING
from typing import Any, TypeAlias

import altair as alt
import msgspec

from runmeter.engine.formats import format_dollars, format_time, printable

from .costs import CostSplit, RequestCost
from .latency import QUANTILES, Latency
from .style import DOUBT, FAILED, KIND_COLORS, colors
from .waterfalls import Waterfall, WaterfallLine

HEIGHT = 220
"""Pixels of a chart over time."""
STEP = 20
"""Pixels of a line in a chart of lines."""
SHORTEST_NS = 1_000
"""Nanoseconds as which anything shorter is drawn on a logarithmic scale, where 0 has no place."""


_Drawn: TypeAlias = alt.Chart | alt.LayerChart


class Chart(msgspec.Struct, frozen=True):
    """A chart, to be drawn in the element of its name."""

    name: str
    title: str
    alt: str
    """The text that stands for the chart, for those who do not see it."""
    spec: Mapping[str, Any] | None
    """None: there is nothing to draw."""


def cost_chart(name: str, split: CostSplit, possible: Mapping[date, RequestCost]) -> Chart:
    """Draw costs by day and group as stacked bars; what they may be more stands on top as a band.

    Args:
        name: The chart's name.
        split: The costs.
        possible: The possible cost of the requests that never ended, by day.
    """
    bars = [
        _bar(day, group, float(spent.cost.low), f"{group}: {spent.cost}") for (day, group), spent in split.days.items()
    ]
    sums = split.day_sums()
    unbounded = []
    for day in sorted(sums.keys() | possible.keys()):
        whole = sums.get(day, RequestCost()) + possible.get(day, RequestCost())
        if whole.doubt:
            bars.append(
                _bar(
                    day,
                    DOUBT,
                    float(whole.doubt),
                    f"up to {format_dollars(whole.doubt, ROUND_CEILING)} more, not known exactly",
                )
            )
        if whole.cost.high is None:
            top = float(whole.cost.low + whole.doubt)
            unbounded.append(_bar(day, DOUBT, top, f"no upper bound: {whole.cost}"))
    groups = [*split.groups, *([DOUBT] if any(bar["group"] == DOUBT for bar in bars) else [])]
    drawn: _Drawn = _stack(bars, groups, "USD")
    if unbounded:
        drawn = alt.LayerChart(layer=[drawn, _marks(unbounded)])
    title = f"Cost by day and {'tag ' if split.is_tag else ''}{printable(split.by)}"
    return _chart(name, title, f"{title}: stacked bars, in USD.", drawn)


def count_chart(
    name: str, title: str, unit: str, counts: Mapping[tuple[date, str], int], groups: Sequence[str]
) -> Chart:
    """Draw numbers by day and group as stacked bars."""
    bars = [_bar(day, group, count, f"{group}: {count:,} {unit}") for (day, group), count in counts.items()]
    return _chart(name, title, f"{title}: stacked bars.", _stack(bars, groups, unit))


def share_chart(name: str, title: str, shares: Mapping[date, float], what: str) -> Chart:
    """Draw a share by day, from 0 to 1, as a line."""
    points = [_bar(day, what, share, f"{what}: {share:.1%}") for day, share in shares.items()]
    drawn = (
        alt.Chart(_values(points))
        .mark_line(point=alt.OverlayMarkDef(filled=True, size=40), color="var(--c0)")
        .encode(
            x=_days(middle=True),
            y=alt.Y("value:Q", title=None, axis=alt.Axis(format=".0%", tickCount=5), scale=alt.Scale(domain=[0, 1])),
            tooltip=_TIP,
            description="said:N",
        )
        .properties(width="container", height=HEIGHT // 2)
    )
    return _chart(name, title, f"{title}: a line from 0 to 100 %.", drawn)


def latency_chart(name: str, title: str, latencies: Mapping[date, Latency]) -> Chart:
    """Draw percentiles by day as lines, in seconds."""
    points = [
        _bar(day, quantile, time_ns / 1e9, f"{quantile}: {format_time(time_ns)}, of {latency.count:,} runs")
        for day, latency in latencies.items()
        for quantile, time_ns in _quantiles(latency)
    ]
    drawn = (
        alt.Chart(_values(points))
        .mark_line(point=alt.OverlayMarkDef(filled=True, size=40))
        .encode(
            x=_days(middle=True),
            y=alt.Y("value:Q", title="seconds", axis=alt.Axis(tickCount=5)),
            color=_color(list(QUANTILES)),
            tooltip=_TIP,
            description="said:N",
        )
        .properties(width="container", height=HEIGHT)
    )
    return _chart(name, title, f"{title}: lines of the 50th, 95th and 99th percentile, in seconds.", drawn)


def range_chart(name: str, title: str, latencies: Mapping[str, Latency]) -> Chart:
    """Draw percentiles by group as points on a line each, in seconds."""
    points = [
        {"group": printable(group), "quantile": quantile, "value": max(time_ns, SHORTEST_NS) / 1e9, "said": said}
        for group, latency in latencies.items()
        for quantile, time_ns in _quantiles(latency)
        for said in [f"{printable(group)}, {quantile}: {format_time(time_ns)}, of {latency.count:,}"]
    ]
    shared = alt.Chart(_values(points)).encode(
        y=alt.Y("group:N", title=None, sort=None, axis=alt.Axis(domain=False, ticks=False)),
    )
    scale = alt.Scale(type="log", nice=False, padding=8)
    lines = [
        shared.mark_rule(color="var(--line)", strokeWidth=3, aria=False).encode(
            x=alt.X("min(value):Q", title="seconds", scale=scale), x2="max(value):Q"
        ),
        shared.mark_point(filled=True, size=70, opacity=1).encode(
            x=alt.X("value:Q", title="seconds", scale=scale, axis=alt.Axis(tickCount=4, format="~g")),
            color=_color(list(QUANTILES), "quantile:N"),
            tooltip=_TIP,
            description="said:N",
        ),
    ]
    drawn = alt.LayerChart(layer=lines, width="container", height=(STEP + 6) * max(len(latencies), 1))
    return _chart(name, title, f"{title}: points at the 50th, 95th and 99th percentile, in seconds.", drawn)


def waterfall_chart(name: str, title: str, waterfall: Waterfall) -> Chart:
    """Draw a run and all that happened in it as bars along its time."""
    lines = [_waterfall_line(number, each) for number, each in enumerate(waterfall.lines)]
    kinds = list(dict.fromkeys(line["kind"] for line in lines))
    shared = alt.Chart(_values(lines)).encode(
        y=alt.Y(
            "line:N",
            title=None,
            sort=None,
            axis=alt.Axis(
                labelExpr="slice(datum.value, indexof(datum.value, '\\t') + 1)",
                labelAlign="left",
                labelPadding=150,
                domain=False,
                ticks=False,
            ),
        ),
        color=alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=[KIND_COLORS[kind] for kind in kinds])),
        tooltip=_TIP,
        description="said:N",
    )
    x = alt.X("from:Q", title="seconds from the start", axis=alt.Axis(tickCount=5))
    bars = [
        shared.mark_bar(height=alt.RelativeBandSize(0.7)).encode(
            x=x, x2="to:Q", fillOpacity=alt.when("datum.ended").then(alt.value(1)).otherwise(alt.value(0.4))
        ),
        shared.mark_tick(thickness=2, aria=False, height=alt.RelativeBandSize(0.7)).encode(x=x),
    ]
    drawn = alt.LayerChart(layer=bars, width="container", height=STEP * len(lines))
    return _chart(name, title, f"{title}: a waterfall, in seconds from the run's start.", drawn)


_TIP = alt.Tooltip("said:N")


def _waterfall_line(number: int, each: WaterfallLine) -> dict[str, Any]:
    line = each.line
    took = "never ended" if line.length_ns is None else format_time(line.length_ns)
    said = ", ".join(filter(None, (line.name, f"from {format_time(each.offset_ns)}", took, line.note)))
    return {
        "line": f"{number}\t{'· ' * line.depth}{line.name}",
        "kind": FAILED if line.tone == "bad" else line.kind,
        "from": each.offset_ns / 1e9,
        "to": (each.offset_ns + each.shown_ns) / 1e9,
        "ended": line.length_ns is not None,
        "said": said if each.cost is None else f"{said}, {each.cost}",
    }


def _stack(bars: Sequence[Mapping[str, Any]], groups: Sequence[str], unit: str) -> alt.Chart:
    shown = [printable(group) for group in groups]
    numbered = [{**bar, "order": shown.index(bar["group"])} for bar in bars]
    chosen = alt.selection_point(fields=["group"], bind="legend")
    stack: alt.Chart = (
        alt.Chart(_values(numbered))
        .mark_bar()
        .encode(
            x=_days(),
            y=alt.Y(
                "value:Q", stack="zero", title=unit, axis=alt.Axis(tickCount=5, format="~s" if unit != "USD" else "~g")
            ),
            color=_color(shown),
            order=alt.Order("order:Q"),
            opacity=alt.when(chosen).then(alt.value(1)).otherwise(alt.value(0.15)),
            tooltip=_TIP,
            description="said:N",
        )
        .add_params(chosen)
        .properties(width="container", height=HEIGHT)
    )
    return stack


def _marks(points: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """Triangles on top of the bars that have no upper end."""
    marks: alt.Chart = (
        alt.Chart(_values(points))
        .mark_point(
            shape="triangle-up",
            filled=True,
            size=70 if len(points) <= 31 else 20,
            color="var(--bad)",
            opacity=1,
            yOffset=-7,
        )
        .encode(x=_days(middle=True), y=alt.Y("value:Q"), tooltip=_TIP, description="said:N")
    )
    return marks


def _days(*, middle: bool = False) -> alt.X:
    """Place something on its day: over all of it, or in the middle."""
    axis = alt.Axis(format="%d %b", labelOverlap=True, grid=False, tickMinStep=86_400_000)  # ms: one day
    where = 0.5 if middle else alt.Undefined
    return alt.X("day:T", timeUnit="utcyearmonthdate", title=None, axis=axis, bandPosition=where)


def _color(groups: Sequence[str], field: str = "group:N") -> alt.Color:
    return alt.Color(field, scale=alt.Scale(domain=list(groups), range=list(colors(groups))))


def _bar(day: date, group: str, value: float, said: str) -> dict[str, Any]:
    return {
        "day": day.isoformat(),
        "group": printable(group),
        "value": value,
        "said": f"{day.isoformat()}, {printable(said)}",
    }


def _quantiles(latency: Latency) -> Iterable[tuple[str, int]]:
    times = ((name, getattr(latency, name)) for name in QUANTILES)
    return ((name, time_ns) for name, time_ns in times if time_ns is not None)


def _values(values: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(values))


def _chart(name: str, title: str, said: str, drawn: _Drawn) -> Chart:
    spec = drawn.properties(description=said).to_dict()
    del spec["config"]  # the page has one for all
    # A chart without a value has no scale, and Vega makes it as high as a number can be.
    return Chart(name, title, said, spec if any(spec["datasets"].values()) else None)
