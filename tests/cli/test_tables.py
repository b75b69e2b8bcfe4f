"""Tables at the command line: figures are whole at every width, however long the names are."""

import io

import pytest
from rich.console import Console

from runmeter.cli.tables import Column, fitted_table

COSTS = ["$0.00", "≥ $0.000195 (1 request unpriced)", "$1,234.56"]


def shown(width: int, *columns: Column) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(fitted_table("Usage", columns, width))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_long_name_goes_on_in_further_lines(width: int) -> None:
    name = "z" * 190 + "0123456789"
    said = shown(width, Column("tag", ["short", name, "–"], is_text=True), Column("cost", COSTS))
    assert "…" not in said
    assert all(cost in said for cost in COSTS)
    assert said.count("z") == 190
    assert max(map(len, said.splitlines())) <= width


def test_figures_go_on_in_further_lines_only_where_they_have_no_room() -> None:
    said = shown(30, Column("tag", ["short", "n" * 50, "–"], is_text=True), Column("cost", COSTS), Column("of", COSTS))
    assert "…" not in said
    assert said.count("unpriced)") == 2
    assert said.count("n" * 5) >= 1


def test_a_figure_goes_before_a_name_is_folded() -> None:
    said = shown(
        48, Column("tag", ["a" * 32], is_text=True), Column("calls", ["123,456"], 1), Column("cost", ["$0.10"])
    )
    assert "a" * 32 in said
    assert "123,456" in said
    said = shown(
        44, Column("tag", ["a" * 32], is_text=True), Column("calls", ["123,456"], 1), Column("cost", ["$0.10"])
    )
    assert "a" * 32 in said
    assert "123,456" not in said
