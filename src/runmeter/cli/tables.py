"""Tables at the command line: as many columns as there is room for, each with all of its characters."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group, JustifyMethod
from rich.table import Table
from rich.text import Text

LONG_NAME = 32
"""Characters of a name beyond which it goes on in a further line, before any figure goes."""
SHORT_NAME = 8
"""Characters of a line that names keep, however narrow the table is."""


class Column(NamedTuple):
    """A column of a table that shows as many of them as there is room for."""

    name: str
    cells: Sequence[str | Text]
    rank: int = 0
    """Of those that there is no room for, the one with the highest goes first; 0 stays whatever happens."""
    is_text: bool = False

    @property
    def width(self) -> int:
        """Characters of the longest cell; of a name at most those that it is not folded for."""
        longest = max(cell_len(str(cell)) for cell in (self.name, *self.cells))
        return min(longest, LONG_NAME) if self.is_text and not self.rank else longest


def fitted_table(title: str, columns: Sequence[Column], width: int, *, has_sum: bool = False) -> Group:
    """A title, and a table of those columns that there is room for, each with all of its characters."""
    shown = list(columns)
    is_wide = sum(column.width + 3 for column in shown) + 1 <= width
    while not is_wide and sum(column.width + 1 for column in shown) - 1 > width:
        last = max(shown, key=lambda column: column.rank)
        if not last.rank:
            break
        shown.remove(last)
    gaps = 3 * len(shown) + 1 if is_wide else len(shown) - 1
    figures_fit = sum(min(each.width, SHORT_NAME) if each.is_text else each.width for each in shown) + gaps <= width
    table = Table(header_style="dim", box=SIMPLE_HEAD, padding=(0, int(is_wide)), show_edge=is_wide)
    for column in shown:
        is_whole = figures_fit and not column.is_text
        justify: JustifyMethod = "left" if column.is_text else "right"
        table.add_column(column.name, justify=justify, no_wrap=is_whole, overflow="fold")
    rows = list(zip(*(column.cells for column in shown), strict=True))
    for row in rows[:-1] if has_sum else rows:
        table.add_row(*row)
    if has_sum:
        table.add_section()
        table.add_row(*rows[-1], style="bold")
    return Group(Text(title, style="bold"), table)
