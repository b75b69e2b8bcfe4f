"""The look of charts: colours are the page's own variables, so that one drawing serves light, dark and paper."""

from collections.abc import Mapping, Sequence
from typing import Any

from runmeter.engine.usage.statistics import OTHER

from ..trace_lines import LineKind

DOUBT = "possibly more"
"""The group of what is between the lower and the upper bound of a cost."""
FAILED = "failed"
_PALETTE = 8
CONFIG: Mapping[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelLimit": 150,
    },
    "legend": {
        "orient": "bottom",
        "direction": "vertical",
        "columns": 2,
        "labelColor": "var(--text)",
        "labelLimit": 150,
        "symbolType": "square",
        "title": None,
    },
    "text": {"fill": "var(--text)"},
}
"""Vega-Lite's configuration of every chart."""
KIND_COLORS: Mapping[LineKind | str, str] = {
    "run": "var(--c0)",
    "request": "var(--c1)",
    "tool": "var(--c2)",
    "retrieval": "var(--c3)",
    "assistant": "var(--c4)",
    "notice": "var(--c5)",
    FAILED: "var(--bad)",
}
"""The colours of a waterfall."""


def colors(groups: Sequence[str]) -> Sequence[str]:
    """Choose a colour for each group, by its place; what stands for others, or for doubt, has its own."""
    fixed = {OTHER: "var(--other)", DOUBT: "var(--doubt)"}
    return [fixed.get(group, f"var(--c{number % _PALETTE})") for number, group in enumerate(groups)]
