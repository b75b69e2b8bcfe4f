"""The report's page: what it says is what the events say, and nothing in it is more than text."""

import base64
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ledger_scene import (
    MARKUP,
    PRIVATE,
    SPLITS,
    costs_by,
    day_of,
    doubts_by_day,
    example_events,
    write_ledger,
)

from runmeter.engine import (
    CostEstimate,
    ExecutionFinished,
    ExecutionStarted,
    LedgerReader,
    PriceBook,
    Status,
    TokenUsage,
)
from runmeter.reports.page.page import render
from runmeter.reports.page.report import Report, read_report

LIBRARY = "window.vegaEmbed = () => Promise.resolve(); // </script> and <!-- end nothing here"
MADE = 1_796_000_000_000_000_000


class Page(HTMLParser):
    """The elements of a page, the ids of those, and the texts in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._within: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        (self.scripts if self._within[-1:] == ["script"] else self.texts).append(data)

    @property
    def charts(self) -> Mapping[str, Any]:
        """The specifications of the charts, by name."""
        charts: Mapping[str, Any] = json.loads(self.scripts[0])["charts"]
        return charts


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ledger(tmp_path_factory.mktemp("ledger") / "runs.db", example_events())


def read(ledger: Path, **period: date) -> Report:
    with LedgerReader(ledger) as reader:
        return read_report(reader, source="runs.db", made_ns=MADE, **period)


@pytest.fixture(scope="module")
def page(ledger: Path) -> Page:
    return Page(render(read(ledger), LIBRARY))


def values_of(spec: Mapping[str, Any], layer: int = 0) -> list[dict[str, Any]]:
    """The values of a chart, or of one of its layers where these have their own."""
    data = spec.get("data") or spec["layer"][layer]["data"]
    values: list[dict[str, Any]] = spec["datasets"][data["name"]]
    return values


@pytest.mark.parametrize("name", SPLITS)
def test_charts_of_costs_hold_what_the_events_cost(page: Page, name: str) -> None:
    values = [value for value in values_of(page.charts[name]) if value["group"] != "possibly more"]
    expected = costs_by(SPLITS[name])
    assert {(value["day"], value["group"]): value["value"] for value in values} == {
        key: float(cost.low) for key, cost in expected.items()
    }
    assert {value["said"] for value in values} == {f"{day}, {group}: {cost}" for (day, group), cost in expected.items()}


def test_what_may_be_more_is_the_rest_up_to_the_bounds(page: Page) -> None:
    """Of what has a bound: the interval of each request, and of that which never ended."""
    values = values_of(page.charts["cost-0"])
    assert {value["day"]: value["value"] for value in values if value["group"] == "possibly more"} == {
        day: float(doubt) for day, doubt in doubts_by_day().items()
    }


def test_days_without_an_upper_bound_are_marked(page: Page) -> None:
    marked = {value["day"]: value["said"] for value in values_of(page.charts["cost-0"], 1)}
    unpriced = {day for (day, model) in costs_by(SPLITS["cost-0"]) if model == PRIVATE}
    assert marked.keys() == unpriced
    assert all("no upper bound" in said and "unpriced" in said for said in marked.values())


def test_a_name_with_markup_is_text_everywhere(page: Page) -> None:
    assert {tag for tag, _ in page.elements}.isdisjoint({"b", "i", "img"})
    assert MARKUP in page.texts, "in the table of the tag"
    assert any(f"tenant={MARKUP}" in text for text in page.texts)
    assert "<" not in page.scripts[0], "the charts' data end no element"
    assert any(value["group"] == MARKUP for value in values_of(page.charts["cost-3"]))


def test_the_page_runs_its_own_code_and_asks_the_network_for_nothing(page: Page) -> None:
    (policy,) = (
        str(attributes["content"]) for tag, attributes in page.elements if "http-equiv" in attributes and tag == "meta"
    )
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    assert "unsafe" not in policy
    (style,) = re.findall("<style>(.*?)</style>", page.html, re.DOTALL)
    for kind, content in (("style-src", style), ("script-src", page.scripts[1])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert allowed[kind] == f"'sha256-{digest}'"
    links = [value for _, attributes in page.elements for key in ("src", "href") if (value := attributes.get(key))]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_links_lead_to_what_is_there_and_no_id_is_used_twice(page: Page) -> None:
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {str(attributes["href"])[1:] for tag, attributes in page.elements if tag == "a"}
    assert links <= set(ids)
    assert page.charts.keys() <= set(ids)


def test_each_chart_has_a_text_in_its_place_and_tables_have_names(page: Page) -> None:
    for spec in page.charts.values():
        assert spec["description"]
    tables = page.html.count("<table>")
    assert tables > 10
    assert page.html.count("<caption>") == tables
    assert page.html.count('scope="row"') > tables


def test_what_failed_and_what_is_not_known_is_listed(page: Page) -> None:
    text = " ".join(page.texts)
    failed = [event for event in example_events() if isinstance(event, TokenUsage) and event.error_type]
    assert failed
    for event in failed:
        assert str(event.error_type) in text
    retried = sum(isinstance(event, TokenUsage) and event.attempt > 1 for event in example_events())
    assert f"Tried again: {retried} requests" in text
    for reason in ("no published price", "a stream that was cut", "no answer", "never ended: its process has gone"):
        assert reason in text
    assert example_events()[-1].run_id in text, "the run that never ended"


def test_budgets_say_what_they_warned_of_and_refused(page: Page) -> None:
    assert f"a tenant's day [{MARKUP}]" in page.texts
    refused = sum(
        isinstance(event, ExecutionFinished) and event.status is Status.BUDGET_EXCEEDED for event in example_events()
    )
    assert sum(value["value"] for value in values_of(page.charts["budgets-days"])) == refused


def test_the_slowest_and_the_dearest_runs_are_waterfalls(ledger: Path, page: Page) -> None:
    report = read(ledger)
    ends = [event for event in example_events() if isinstance(event, ExecutionFinished)]
    slowest = sorted((event.duration_ns for event in ends), reverse=True)[:5]
    assert [each.run.duration_ns for each in report.slowest] == slowest
    prices = PriceBook()
    costs: defaultdict[str, CostEstimate] = defaultdict(CostEstimate)
    for event in example_events():
        if isinstance(event, TokenUsage):
            costs[event.run_id] += prices.cost(event)
    high = sorted((cost.high or cost.low for cost in costs.values()), reverse=True)[:5]
    assert [each.cost.high for each in report.dearest] == high
    first = values_of(page.charts["run-0"])
    assert first[0]["from"] == 0
    assert first[0]["to"] == slowest[0] / 1e9


def test_a_period_holds_its_days_alone(ledger: Path) -> None:
    since, until = date(2026, 11, 4), date(2026, 11, 6)
    page = Page(render(read(ledger, since=since, until=until), LIBRARY))
    days = {value["day"] for value in values_of(page.charts["cost-0"])}
    assert days == {"2026-11-04", "2026-11-05"}
    assert "2026-11-04 to 2026-11-05 (UTC days)" in " ".join(page.texts)
    runs = [event for event in example_events() if isinstance(event, ExecutionStarted)]
    began = sum("2026-11-04" <= day_of(event.time_ns) <= "2026-11-05" for event in runs)
    (number,) = (page.texts[at + 1] for at, text in enumerate(page.texts) if text == "Runs")
    assert number == str(began)


def test_an_empty_ledger_has_a_page(tmp_path: Path) -> None:
    empty = write_ledger(tmp_path / "empty.db", [])
    page = Page(render(read(empty), LIBRARY))
    assert any("an empty ledger" in text for text in page.texts)
    assert page.charts == {}
    assert "Nothing in this time." in page.texts
