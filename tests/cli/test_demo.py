"""The demo, in this process: what it shows is what was billed."""

import io
import re
import signal
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from rich.console import Console

from runmeter.cli import demo
from runmeter.cli.demo import DemoError, DemoOptions, RunKeeper, run_demo
from runmeter.cli.demo_documents import Documents
from runmeter.engine import Engine, Event, Provenance, TokenUsage, Usage
from runmeter.simulator import Simulator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("bees", "cows"):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"Paragraph {n} is about {name}." * 40 for n in range(20)))
    return tmp_path


def options(folder: Path, runs: int) -> DemoOptions:
    return DemoOptions(folder, runs, concurrency=8, model="gpt-6-luna", live=False, otlp=None)


def screen() -> Console:
    return Console(file=io.StringIO(), width=120)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


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

    monkeypatch.setattr(demo, "Simulator", KnownSimulator)
    monkeypatch.setattr(demo, "Engine", KnownEngine)
    monkeypatch.setattr(demo, "RunKeeper", Watcher)
    Watcher.seen.clear()
    console = screen()
    assert run_demo(options(folder, 40), console) == 0

    requests = [event for event in Watcher.seen if isinstance(event, TokenUsage)]
    assert all(request.provenance is Provenance.REPORTED for request in requests)
    metered = sum((request.usage for request in requests if request.usage), start=Usage())
    billed = simulators[0].statistics().total
    assert metered == billed
    assert metered.cache_read_tokens > 0

    cost = sum((price(request) for request in requests), start=Decimal(0))
    assert engines[0].usage().total.cost.usd == cost, "to the last digit"

    (total,) = re.findall(r"^ +total +\d+ +0 .*$", shown(console), flags=re.MULTILINE)
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
    (total,) = re.findall(r"^ +total +([\d,]+) ", shown(console), flags=re.MULTILINE)
    assert 10 < int(total.replace(",", "")) < 1_000


def test_a_trace_is_shown_with_its_calls_in_order(folder: Path) -> None:
    console = screen()
    run_demo(options(folder, 8), console)
    trace = shown(console).split("A run's trace")[1]
    assert re.search(r"chat gpt-6-luna(.|\n)*tool \w+(.|\n)*chat gpt-6-luna", trace)


def test_a_model_that_nobody_has_is_one_clear_error(folder: Path) -> None:
    wrong = DemoOptions(folder, 2, concurrency=2, model="gpt-nonsense", live=False, otlp=None)
    with pytest.raises(DemoError, match=r"every run failed: .*gpt-nonsense"):
        run_demo(wrong, screen())


@pytest.mark.parametrize("width", [80, 104, 200])
def test_no_number_is_cut_whatever_the_terminal(folder: Path, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    assert run_demo(options(folder, 8), console) == 0
    table = shown(console).split("Event bus")[0]
    assert "…" not in table
    assert "openai_func" in table
