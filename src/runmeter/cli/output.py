"""What commands write for other programs: JSON and CSV, safe for terminals and spreadsheets."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

import msgspec
from rich.console import Console

from runmeter.engine import CostEstimate
from runmeter.engine.formats import printable

from .ending import CommandError

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a cell begins that a spreadsheet would compute. Source: OWASP, "CSV Injection" (2026-11)."""
BESIDE = ("-wal", "-shm", "-journal", "-lock")
"""How the names of files end that belong to a ledger. Source: SQLite, "Temporary Files Used By SQLite" (2026-11)."""
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def write_json(out: TextIO, value: Any) -> None:
    """Write a value as one line of JSON. Signs that steer a terminal are escapes in it."""
    text = _ENCODER.encode(value).decode()
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)
    out.write(text + "\n")


def write_csv(out: TextIO, header: Sequence[str], rows: Iterable[Sequence[str | int | Decimal | None]]) -> None:
    """Write a table as CSV, its numbers in full; None as an empty cell.

    A text that a spreadsheet would compute begins with an apostrophe, which makes it text there. On a terminal, signs
    that steer it are escapes.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    is_terminal = out.isatty()
    for row in (header, *rows):
        cells = [_cell(value) for value in row]
        writer.writerow([printable(cell) for cell in cells] if is_terminal else cells)
        out.write(buffer.getvalue())
        buffer.seek(0)
        buffer.truncate()


def check_output(output: Path, ledger: Path) -> None:
    """Refuse to write what SQLite would take for the log or the lock of a ledger.

    Raises:
        CommandError: it is one of these.
    """
    if output.resolve() in [ledger.resolve().with_name(ledger.resolve().name + each) for each in BESIDE]:
        raise CommandError(f"{output} is a file of the ledger {ledger}: give another name")


def table_console(out: TextIO) -> Console:
    """Make the console of tables: without a terminal or a set width, wide enough for all columns."""
    return Console(file=out, width=None if out.isatty() or "COLUMNS" in os.environ else 200)


def cost_fields(cost: CostEstimate) -> dict[str, Any]:
    """Make the JSON object of a cost in USD: `known` where it is known exactly, else its bounds alone."""
    return {"known": cost.usd, "low": cost.low, "high": cost.high, "unpriced": cost.unpriced}


def _cell(value: str | int | Decimal | None) -> str:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    if isinstance(value, Decimal):
        return f"{value:f}"
    return "" if value is None else str(value)
