"""The report in a browser: what it draws is what the ledger holds; it calls nobody, and runs no code but its own."""

import re
import shutil
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ledger_scene import MARKUP, SPLITS, costs_by, day_of, doubts_by_day, example_events, write_ledger
from process_support import run_command

from runmeter.cli.main import run
from runmeter.engine import Event, ExecutionFinished, ExecutionStarted, FunctionCall, Histogram, Status, TokenUsage
from runmeter.engine.formats import format_time, printable

pytestmark = [pytest.mark.campaign, pytest.mark.browser]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NUMBER = r"-?[\d.]+(?:e-?\d+)?"
BAR = re.compile(rf"M{NUMBER},{NUMBER}h({NUMBER})v({NUMBER})h-?{NUMBER}Z")


class Mark(NamedTuple):
    """Something that was drawn."""

    said: str
    path: str


class Drawn(HTMLParser):
    """A page as the browser has it once its code has run: the marks of each chart, and the texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.marks: defaultdict[str, list[Mark]] = defaultdict(list)
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.root: dict[str, str | None] = {}
        self._chart = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.add(tag)
        if tag == "html":
            self.root = attributes
        if "chart" in str(attributes.get("class")).split():
            self._chart = str(attributes["id"])
        if attributes.get("role") == "graphics-symbol" and "aria-label" in attributes:
            self.marks[self._chart].append(Mark(str(attributes["aria-label"]), str(attributes.get("d"))))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def opened(page: Path, tmp_path: Path) -> tuple[Drawn, str]:
    """The page as drawn, and what the browser had to say."""
    assert BROWSER is not None
    done = run_command(
        [
            BROWSER,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr"),
            *("--window-size=1100,900", "--virtual-time-budget=60000", f"--user-data-dir={tmp_path / 'profile'}"),
            "--dump-dom",
            page.as_uri(),
        ]
    )
    assert done.returncode == 0, done.stderr
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return Drawn(done.stdout), console


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if BROWSER is None:
        pytest.skip("no Chromium: apt-get install chromium")
    return write_ledger(tmp_path_factory.mktemp("ledger") / "runs.db", example_events())


@pytest.fixture(scope="module")
def page(ledger: Path) -> Path:
    path = ledger.with_name("report.html")
    with pytest.raises(SystemExit) as ended:
        run(["report", str(ledger), "-o", str(path)])
    assert ended.value.code == 0
    return path


@pytest.fixture(scope="module")
def drawn(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    drawn, console = opened(page, tmp_path_factory.mktemp("browser"))
    assert console == ""
    assert drawn.root["data-drawn"] == str(page.read_text().count('<div class="chart"'))
    return drawn


def bars(marks: list[Mark]) -> Mapping[str, tuple[float, float]]:
    """Width and height of each bar, in pixels."""
    found = ((mark.said, BAR.fullmatch(mark.path)) for mark in marks)
    return {said: (float(bar[1]), abs(float(bar[2]))) for said, bar in found if bar}


def check_lengths(drawn: Mapping[str, float], values: Mapping[str, float]) -> None:
    """All bars are drawn on one scale: their lengths are to each other as the values are, within half a pixel."""
    assert drawn.keys() == values.keys()
    scale = max(drawn.values()) / max(values.values())
    for said, value in values.items():
        assert drawn[said] == pytest.approx(value * scale, abs=0.5), said


@pytest.mark.parametrize("chart", SPLITS)
def test_bars_of_costs_are_what_the_events_cost(chart: str, drawn: Drawn) -> None:
    costs = costs_by(SPLITS[chart])
    certain = {f"{day}, {group}: {cost}": float(cost.low) for (day, group), cost in costs.items()}
    shown = bars(drawn.marks[chart])
    bands = {said.partition(",")[0]: said for said in shown if "more, not known exactly" in said}
    doubts = {bands[day]: float(doubt) for day, doubt in doubts_by_day().items()}
    check_lengths({said: height for said, (_, height) in shown.items()}, certain | doubts)
    unbounded = [mark.said for mark in drawn.marks[chart] if "no upper bound" in mark.said]
    unpriced = {day for (day, _), cost in costs.items() if cost.high is None}
    assert {said.partition(",")[0] for said in unbounded} == unpriced
    assert len(unbounded) == len(unpriced)


def test_bars_of_tokens_are_what_the_requests_used(drawn: Drawn) -> None:
    tokens: Counter[tuple[str, str]] = Counter()
    for event in example_events():
        if isinstance(event, TokenUsage) and event.usage is not None:
            day, used = day_of(event.start_ns), event.usage
            tokens[day, "input"] += used.input_tokens - used.cache_read_tokens - used.cache_write_tokens
            tokens[day, "input from the cache"] += used.cache_read_tokens
            tokens[day, "input written to the cache"] += used.cache_write_tokens
            tokens[day, "output"] += used.output_tokens - used.reasoning_tokens
            tokens[day, "output for reasoning"] += used.reasoning_tokens
    expected = {f"{day}, {kind}: {count:,} tokens": float(count) for (day, kind), count in tokens.items() if count}
    check_lengths({said: height for said, (_, height) in bars(drawn.marks["tokens-days"]).items()}, expected)


def test_bars_of_errors_are_those_of_the_events(drawn: Drawn) -> None:
    errors: Counter[str] = Counter()
    began = {event.run_id: day_of(event.time_ns) for event in example_events() if isinstance(event, ExecutionStarted)}
    for event in example_events():
        match event:
            case TokenUsage(error_type=str() as error):
                errors[f"{day_of(event.start_ns)}, request: {error}"] += 1
            case ExecutionFinished(error_type=str() as error):
                errors[f"{began[event.run_id]}, run: {error}"] += 1
            case FunctionCall(error_type=str() as error):
                errors[f"{began[event.run_id]}, tool: {error}"] += 1
            case _:
                pass
    expected = {f"{said}: {count} errors": float(count) for said, count in errors.items()}
    check_lengths({said: height for said, (_, height) in bars(drawn.marks["errors-days"]).items()}, expected)


def test_percentiles_are_those_of_the_runs(drawn: Drawn) -> None:
    began = {event.run_id: day_of(event.time_ns) for event in example_events() if isinstance(event, ExecutionStarted)}
    durations: defaultdict[str, Histogram] = defaultdict(Histogram)
    for event in example_events():
        if isinstance(event, ExecutionFinished):
            durations[began[event.run_id]].add(event.duration_ns)
    expected = {
        f"{day}, {name}: {format_time(times.quantile(q))}, of {times.count} runs"
        for day, histogram in durations.items()
        for times in [histogram.snapshot()]
        for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    assert {mark.said for mark in drawn.marks["latency-days"]} >= expected


def test_waterfalls_are_drawn_to_scale(drawn: Drawn) -> None:
    ends = [event for event in example_events() if isinstance(event, ExecutionFinished)]
    slowest = max(ends, key=lambda end: end.duration_ns)
    within = [event for event in example_events() if event.run_id == slowest.run_id]
    (start,) = (event for event in within if isinstance(event, ExecutionStarted))
    lengths = {(start.time_ns, slowest.duration_ns)} | {
        (event.start_ns, event.duration_ns) for event in within if isinstance(event, TokenUsage | FunctionCall)
    }
    shown = bars(drawn.marks["run-0"])
    expected = {
        next(said for said in shown if f"from {format_time(at - start.time_ns)}, {format_time(length)}" in said): length
        for at, length in lengths
    }
    assert len(expected) == len(lengths) > 3
    check_lengths({said: width for said, (width, _) in shown.items() if "notice" not in said}, expected)


def test_a_name_with_markup_is_text_where_it_is_drawn(drawn: Drawn) -> None:
    assert "b" not in drawn.tags
    assert drawn.texts.count(MARKUP) >= 3, "in the table, the header of the days, and the chart's legend"
    assert any(MARKUP in mark.said for mark in drawn.marks["cost-3"])


RUN = "a" * 32
NAME = f"</script><script>alert(1)</script>\x1b[2J\u202e{'x' * 200}"
HOSTILE: list[Event] = [
    ExecutionStarted(
        run_id=RUN, seq=0, time_ns=10**18, pattern=NAME, framework="none", root_run_id=RUN, tags={NAME: NAME}
    ),
    ExecutionFinished(run_id=RUN, seq=1, time_ns=10**18, status=Status.OK, duration_ns=0),
]


@pytest.mark.parametrize(
    ("events", "charts"), [([], 0), (HOSTILE, 3)], ids=["an empty ledger", "a run that took no time, by a bad name"]
)
def test_little_is_drawn_of_little_and_without_complaint(
    events: list[Event], charts: int, ledger: Path, tmp_path: Path
) -> None:
    """What has no value has no scale: it would be drawn as high as a number can be."""
    few = write_ledger(tmp_path / "few.db", events)
    with pytest.raises(SystemExit):
        run(["report", str(few), "-o", str(tmp_path / "few.html")])
    drawn, console = opened(tmp_path / "few.html", tmp_path)
    assert console == ""
    assert drawn.root["data-drawn"] == str(charts)
    assert any(printable(NAME) in text for text in drawn.texts) == bool(events)


class Requests(ThreadingHTTPServer):
    """A server that notes what it is asked."""

    daemon_threads = True

    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Requests]:
    server = Requests(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def hostile(port: int) -> str:
    """Markup that would call out and run code, if it ever got into a page."""
    url = f"http://127.0.0.1:{port}"
    return (
        f"<img src='{url}/image' onerror='document.documentElement.dataset.hit = 1'>"
        f"<script>document.documentElement.dataset.hit = 1; fetch('{url}/fetch')</script>"
        f"<script src='{url}/script'></script><iframe src='{url}/frame'></iframe>"
    )


def test_markup_in_the_page_could_neither_run_nor_call_out(page: Path, tmp_path: Path, server: Requests) -> None:
    """Even if some name had become markup. The same markup does both in a page without the policy."""
    markup = hostile(server.server_address[1])
    guarded, plain = tmp_path / "guarded.html", tmp_path / "plain.html"
    guarded.write_text(page.read_text().replace("<main>", f"<main>{markup}"))
    drawn, console = opened(guarded, tmp_path)
    assert "data-drawn" in drawn.root
    assert "data-hit" not in drawn.root
    assert server.asked == []
    assert "Content Security Policy" in console
    plain.write_text(f"<!doctype html><main>{markup}</main>")
    drawn, _ = opened(plain, tmp_path)
    assert "data-hit" in drawn.root
    assert "/image" in server.asked
