"""The page: one HTML document, that holds all it needs and asks the network for nothing."""

import base64
import hashlib
from datetime import timedelta
from importlib.resources import files

from runmeter.engine import UsageRow
from runmeter.engine.usage.row import sum_rows

from ..html import Html, element, json_in_html
from .concerns import budgets, doubts, errors, single_runs
from .report import Report
from .section import PageSection
from .sections import costs, latencies, overview, tokens
from .style import CONFIG
from .tables import moment


def render(report: Report, library: str) -> str:
    """Make the page of a report.

    Args:
        report: What it shows.
        library: The JavaScript that draws its charts.
    """
    total = sum_rows([each.cell.row for each in report.days]) if report.days else UsageRow()
    sections = [make(report) for make in (costs, latencies, tokens, errors, budgets, single_runs, doubts)]
    drawn = [chart for section in sections for chart in section.charts if chart.spec is not None]
    charts = {chart.name: chart.spec for chart in drawn}
    title = f"Runmeter report: {report.source}"
    style, code = _own("page.css"), _script(library, _own("page.js"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, code)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", style),
    )
    body = element(
        "body",
        element("header", element("h1", title), element("p", _period(report), class_="quiet"), _contents(sections)),
        element("main", overview(report, total), *(_section(each) for each in sections)),
        element("script", json_in_html({"config": CONFIG, "charts": charts}), type="application/json", id="charts"),
        element("script", code),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _own(name: str) -> Html:
    """Read a file of this folder, which is HTML's content as it is."""
    return Html(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _script(library: str, own: str) -> Html:
    """Join the code to one script, in which nothing ends the element before its end."""
    code = f"{library}\n{own}"
    return Html(code.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _policy(style: str, code: str) -> str:
    """Allow this style and this code, and nothing else: no network, no other script, no form."""
    allowed = f"style-src '{_hash(style)}'; script-src '{_hash(code)}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _period(report: Report) -> str:
    """Tell which days the report is about, and when it was made."""
    first = report.since or (report.days[0].day if report.days else None)
    last = report.until - timedelta(days=1) if report.until else report.days[-1].day if report.days else None
    days = f"{first or 'the beginning'} to {last or 'its end'} (UTC days)" if first or last else "an empty ledger"
    return f"{days}, made {moment(report.made_ns)}"


def _contents(sections: list[PageSection]) -> Html:
    links = (element("li", element("a", each.title, href=f"#{each.name}")) for each in sections)
    return element("nav", element("ul", *links), aria_label="Sections")


def _section(section: PageSection) -> Html:
    heading = element("h2", section.title, id=f"{section.name}-title")
    return element("section", heading, section.content, id=section.name, aria_labelledby=f"{section.name}-title")
