"""Tables at the command line: as many columns as there is room for, each with all of its characters."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text


class Column(NamedTuple):
    """A column of a table that shows as many of them as there is room for."""

    name: str
    cells: Sequence[str | Text]
    rank: int = 0
    """Of those that there is no room for, the one with the highest goes first; 0 stays whatever happens."""
    is_text: bool = False

    @property
    def width(self) -> int:
        """Characters of the longest cell."""
        return max(cell_len(str(cell)) for cell in (self.name, *self.cells))


def fitted_table(title: str, columns: Sequence[Column], width: int, *, has_sum: bool = False) -> Group:
    """A title, and a table of those columns that there is room for, each with all of its characters."""
    shown = list(columns)
    is_wide = sum(column.width + 3 for column in shown) + 1 <= width
    while not is_wide and sum(column.width + 1 for column in shown) - 1 > width:
        last = max(shown, key=lambda column: column.rank)
        if not last.rank:
            break
        shown.remove(last)
    table = Table(header_style="dim", box=SIMPLE_HEAD, padding=(0, int(is_wide)), show_edge=is_wide)
    for column in shown:
        table.add_column(column.name, justify="left" if column.is_text else "right", no_wrap=True)
    rows = list(zip(*(column.cells for column in shown), strict=True))
    for row in rows[:-1] if has_sum else rows:
        table.add_row(*row)
    if has_sum:
        table.add_section()
        table.add_row(*rows[-1], style="bold")
    return Group(Text(title, style="bold"), table)
