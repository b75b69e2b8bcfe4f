"""A section of the page, and the figures in it."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import msgspec

from ..html import Html, element
from .charts import Chart


class PageSection(msgspec.Struct, frozen=True):
    """A section of the page."""

    name: str
    title: str
    content: Html
    charts: Sequence[Chart] = ()


def figure(chart: Chart, *beside: str) -> Html:
    """Make the place where a chart is drawn, with its title and what stands beside it."""
    caption = element("figcaption", chart.title)
    if chart.spec is None:
        return element("figure", caption, element("p", "Nothing in this time.", class_="none"), *beside)
    return element("figure", caption, element("div", class_="chart", id=chart.name), *beside)


def utc_day(time_ns: int) -> date:
    """Tell the UTC day of a time in nanoseconds since the Unix epoch."""
    return datetime.fromtimestamp(time_ns // 10**9, UTC).date()
