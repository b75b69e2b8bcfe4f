"""`runmeter models`: what it lists, and what it says of each."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from runmeter.cli.main import runmeter
from runmeter.cli.models import ModelRow, list_models, models_table, print_models, to_json
from runmeter.engine import ModelPrices, PriceBook
from runmeter.engine.models import retirements as lifecycle

TODAY = date(2026, 11, 22)


class Noon:
    """A clock that stands at noon of a day."""

    def __init__(self, day: date) -> None:
        self._ns = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) * 10**9

    def time_ns(self) -> int:
        return self._ns

    def monotonic_ns(self) -> int:
        return 0


def price(model: str, provider: str = "openai", **rest: Any) -> ModelPrices:
    return ModelPrices(provider=provider, model=model, input=Decimal(2), output=Decimal(10), **rest)


PRICED = [
    price("gpt-6.1-sol", cache_read=Decimal("0.10"), cache_write=Decimal("2.50")),
    price("gpt-5"),
    price("gpt-4"),
    price("gpt-5", provider="elsewhere"),
]


def rows(today: date = TODAY, *, everything: bool = False) -> dict[str, ModelRow]:
    return {f"{row.provider}/{row.model}": row for row in list_models(PRICED, today, everything=everything)}


def test_what_is_shut_down_is_left_out() -> None:
    listed = rows()
    assert "openai/gpt-4" not in listed
    assert "openai/gpt-5" in listed
    assert "openai/gpt-5" not in rows(date(2026, 12, 11))
    assert list(listed) == sorted(listed)


def test_all_leaves_nothing_out() -> None:
    listed = rows(everything=True)
    assert {f"openai/{name}" for name in lifecycle.retirements()} < listed.keys()
    assert listed["openai/gpt-4"].retired
    assert not listed["openai/gpt-5"].retired
    assert listed["elsewhere/gpt-5"].shutdown is None, "what OpenAI shuts down may live on elsewhere"


def test_a_dated_version_is_listed_only_where_it_says_something_new() -> None:
    assert "openai/gpt-5-2025-08-07" not in rows()
    assert "openai/gpt-5-mini" in rows()


def test_a_row_says_where_its_facts_are_from() -> None:
    row = rows()["openai/gpt-5"]
    assert (row.shutdown, row.replacement, row.prices) == (date(2026, 12, 11), "gpt-6.1-sol", "genai-prices")
    assert row.retirement is not None
    assert "deprecations" in row.retirement
    unpriced = rows()["openai/gpt-5-mini"]
    assert (unpriced.input, unpriced.prices) == (None, None)


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_keeps_its_numbers_whole(width: int) -> None:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(models_table(list_models(PRICED, TODAY), TODAY, width))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= width
    for said in ("gpt-6.1-sol", "2.00", "0.10", "2.50", "10.00", "2026-12-11", "2027-01-14"):
        assert said in text
    assert "…" not in text


def test_small_prices_keep_all_their_digits() -> None:
    console = Console(width=140)
    tiny = ModelPrices(provider="openai", model="tiny", input=Decimal("0.0125"), output=Decimal(100))
    with console.capture() as captured:
        console.print(models_table(list_models([tiny], TODAY), TODAY, 140))
    assert "0.0125" in captured.get()
    assert "100.00" in captured.get()


def test_json_keeps_prices_exact() -> None:
    listed = {row["model"]: row for row in json.loads(to_json(list_models(PRICED, TODAY)))}
    assert listed["gpt-6.1-sol"]["cached"] == "0.10"
    assert listed["gpt-5"]["shutdown"] == "2026-12-11"
    assert listed["gpt-5"]["input"] == "2"
    assert listed["gpt-6.1-sol"]["shutdown"] is None


def test_the_real_prices_are_listed_on_a_day(capsys: pytest.CaptureFixture[str]) -> None:
    print_models(everything=False, as_json=True, clock=Noon(TODAY))
    listed = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    book = {each.model: each for each in PriceBook().models(Noon(TODAY).time_ns()) if each.provider == "openai"}
    for model in ("gpt-6-luna", "gpt-6.2-sol", "gpt-5.6-sol"):
        assert listed[model]["input"] == str(book[model].input)
        assert listed[model]["context"] == book[model].context_window
    assert listed["gpt-6.2-sol"]["prices"] == "overlay"
    assert listed["gpt-4o"]["replacement"] == "gpt-6-luna"
    assert {"ada", "gpt-4", "gpt-3.5-turbo", "o1"}.isdisjoint(listed)


@pytest.mark.parametrize("arguments", [["models"], ["models", "--all"]])
def test_the_command_prints_a_table(arguments: list[str]) -> None:
    done = CliRunner().invoke(runmeter, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "gpt-6-luna" in done.output
    assert "developers.openai.com" in done.output
    assert ("gpt-4-1106-preview" in done.output) is ("--all" in arguments)


def test_the_command_prints_json() -> None:
    done = CliRunner().invoke(runmeter, ["models", "--all", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert any(row["provider"] == "anthropic" for row in json.loads(done.output))
