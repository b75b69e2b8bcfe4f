"""The demo, in this process: what it shows is what was billed."""

import io
import re
import signal
from collections.abc import Sequence
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from rich.console import Console

from runmeter.cli.demo import command
from runmeter.cli.demo.command import DemoOptions, run_demo
from runmeter.cli.demo.documents import Documents
from runmeter.cli.demo.run_keeper import RunKeeper
from runmeter.cli.ending import CommandError
from runmeter.engine import Engine, Event, Provenance, TokenUsage, Usage
from runmeter.patterns import PatternType
from runmeter.simulator import Simulator


def write_documents(folder: Path) -> None:
    for name in ("bees", "cows"):
        (folder / f"{name}.txt").write_text("\n\n".join(f"Paragraph {n} is about {name}." * 40 for n in range(20)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_documents(tmp_path)
    return tmp_path


def options(folder: Path, runs: int) -> DemoOptions:
    return DemoOptions(folder=folder, runs=runs, concurrency=8, model="gpt-6-luna", live=False, otlp=None)


def screen() -> Console:
    return Console(file=io.StringIO(), width=120)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def nothing(*_: object) -> None:
    """Show nothing."""


class Watcher(RunKeeper):
    """Sees all events that the demo's engine publishes."""

    seen: list[Event] = []  # noqa: RUF012 - one demo, one watcher

    def __call__(self, events: Sequence[Event]) -> None:
        super().__call__(events)
        self.seen.extend(events)


def test_tokens_equal_the_simulator_s_count_and_cost_equals_the_price_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulators: list[Simulator] = []
    engines: list[Engine] = []

    class KnownSimulator(Simulator):
        def __init__(self) -> None:
            super().__init__()
            simulators.append(self)

    class KnownEngine(Engine):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            engines.append(self)

    monkeypatch.setattr(command, "Simulator", KnownSimulator)
    monkeypatch.setattr(command, "Engine", KnownEngine)
    monkeypatch.setattr(command, "RunKeeper", Watcher)
    monkeypatch.setattr(command, "show_mishaps", nothing)  # what they used is not the demo's
    Watcher.seen.clear()
    console = screen()
    assert run_demo(options(folder, 24), console) == 0

    requests = [event for event in Watcher.seen if isinstance(event, TokenUsage)]
    assert all(request.provenance is Provenance.REPORTED for request in requests)
    metered = sum((request.usage for request in requests if request.usage), start=Usage())
    billed = simulators[0].statistics().total
    assert metered == billed
    assert metered.cache_read_tokens > 0

    cost = sum((price(request) for request in requests), start=Decimal(0))
    assert engines[0].usage().total.cost.usd == cost, "to the last digit"

    (total,) = re.findall(r"^ *total +\d+ +0 .*$", shown(console), flags=re.MULTILINE)
    for tokens in (billed.input_tokens, billed.cache_read_tokens, billed.output_tokens):
        assert f" {tokens:,} " in total
    assert shown(console).count("✓") == 3
    assert f"${cost.quantize(Decimal(total.split('$')[1].strip()))}" in total


def price(request: TokenUsage) -> Decimal:
    """What the price list itself says, request by request."""
    assert request.usage is not None
    usage = PricedUsage(
        input_tokens=request.usage.input_tokens,
        cache_read_tokens=request.usage.cache_read_tokens,
        cache_write_tokens=request.usage.cache_write_tokens,
        output_tokens=request.usage.output_tokens,
    )
    return calc_price(usage, request.response_model or request.model, provider_id="openai").total_price


def test_ctrl_c_in_the_middle_shows_what_was_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    count_words = Documents.count_words

    def interrupt(self: Documents, text: str) -> dict[str, int]:
        """Count the words of a text."""
        nonlocal calls
        calls += 1
        if calls == 20:
            signal.raise_signal(signal.SIGINT)
        return count_words(self, text)

    monkeypatch.setattr(Documents, "count_words", interrupt)
    console = screen()
    assert run_demo(options(folder, 10_000), console) == 130
    assert "interrupted: this is what was counted until then" in shown(console)
    (total,) = re.findall(r"^ *total +([\d,]+) ", shown(console), flags=re.MULTILINE)
    assert 10 < int(total.replace(",", "")) < 1_000


class Screens(dict[int, str]):
    """What the demo showed, by the width of the terminal: it runs once for each that is looked at."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, width: int) -> str:
        console = Console(file=io.StringIO(), width=width)
        assert run_demo(options(self._folder, 24), console) == 0
        self[width] = shown(console)
        return self[width]


@pytest.fixture(scope="module")
def screens(tmp_path_factory: pytest.TempPathFactory) -> Screens:
    folder = tmp_path_factory.mktemp("documents")
    write_documents(folder)
    return Screens(folder)


def test_a_trace_is_shown_with_its_calls_in_order(screens: Screens) -> None:
    trace = screens[120].split("A run's trace")[1]
    assert re.search(r"chat gpt-6-luna(.|\n)*tool \w+(.|\n)*chat gpt-6-luna", trace)


def test_a_model_that_nobody_has_is_one_clear_error(folder: Path) -> None:
    wrong = DemoOptions(folder=folder, runs=2, concurrency=2, model="gpt-nonsense", live=False, otlp=None)
    with pytest.raises(CommandError, match=r"every run failed: .*gpt-nonsense"):
        run_demo(wrong, screen())


@pytest.mark.parametrize("width", [60, pytest.param(80, marks=pytest.mark.campaign), 120])
def test_nothing_is_broken_whatever_the_terminal(screens: Screens, width: int) -> None:
    lines = screens[width].splitlines()
    assert all(len(line) <= width for line in lines)
    assert not any("…" in line for line in lines)
    for pattern in PatternType:
        assert any(line.split()[:2] == [pattern, "2"] for line in lines), "its name is whole, and so is its row"
    assert any(line.split()[:2] == ["└", "worker"] for line in lines)
    for first in ("total", "✓ input tokens as the simulator billed them:", "trace "):
        assert any(line.strip().startswith(first) for line in lines)


def test_what_goes_wrong_is_shown_too(screens: Screens) -> None:
    _, _, mishaps = screens[120].partition("tried again")
    retried, cut, refused = re.split("A stream that was cut|A budget without room", mishaps)
    assert re.search(r"chat gpt-6-luna .* rate_limit_exceeded\n.*chat gpt-6-luna .* \d+ tokens\n", retried)
    assert re.search(r"chat gpt-6-luna .* ≥ \d+ tokens out APIConnectionError\n", cut)
    assert re.search(r"· \$0\.\d+ to \$0\.\d+ ·", cut)
    assert re.search(r"openai_function_calling .* budget_exceeded\n0 \(0 cached\) → 0 tokens · \$0\.00 ·", refused)
    assert "BudgetExceeded: budget 'tiny' allows $0.0001" in refused
    assert "Ways out: a lower openai_max_tokens than 300" in " ".join(refused.split())


def test_the_picture_in_the_readme_is_of_what_is_shown_today(screens: Screens) -> None:
    """Made by `runmeter demo --svg docs/demo.svg`."""
    picture = (Path(__file__).parents[2] / "docs" / "demo.svg").read_text(encoding="utf-8")
    said = " ".join(unescape(re.sub(r"<[^>]*>", " ", picture)).split())
    lines = [" ".join(line.split()) for line in screens[120].splitlines()]
    heading = next(line for line in lines if line.startswith("pattern runs fail"))
    titles = [line for line in lines if re.match("Usage by|A request|A stream|A budget", line)]
    assert len(titles) == 4
    for line in (heading, *titles, "300 runs over", "A run's trace,", "✓ input tokens as the simulator billed them:"):
        assert line in said


def test_the_lines_of_the_usage_table_add_up(screens: Screens) -> None:
    table = screens[120].split("Event bus")[0].splitlines()
    columns = table[table.index(next(line for line in table if "tokens in" in line))]
    assert columns.split()[-2:] == ["own", "cost"]
    figures = [line.split() for line in table if re.match(r" *(\w+) +\d+ ", line)]  # without those that begin with └
    *patterns, total = ([int(cell.replace(",", "")) for cell in line[6:10]] for line in figures)
    assert len(patterns) == 12
    assert [sum(column) for column in zip(*patterns, strict=True)] == total
    assert sum(int(line[1]) for line in figures[:-1]) == int(figures[-1][1]) == 24
    ((whole, own),) = (
        [Decimal(cell[1:]) for cell in line[-2:]] for line in figures if line[0] == "orchestrator_workers"
    )
    (inner,) = (Decimal(line.split()[-1][1:]) for line in table if "└ worker" in line)
    assert own + inner == pytest.approx(whole, rel=Decimal("0.01"))
