"""The list that `runmeter models` shows: models, what they cost, how much they read, and when they are shut down."""

import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from runmeter.engine import Clock, ModelPrices, PriceBook, SystemClock, retirements
from runmeter.engine.formats import format_price

PROVIDER = "openai"
WIDE = 120
"""Characters that the table wants; with fewer it is set closer, and names may break."""
PIPE = 1_000
"""Characters of a line in a pipe or a file: enough for all names."""
USUAL_SOURCE = "genai-prices"


_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the list. Prices are in USD for a million tokens on the standard tier; None is not known."""

    provider: str
    model: str
    input: Decimal | None = None
    cached: Decimal | None = None
    write: Decimal | None = None
    output: Decimal | None = None
    context: int | None = None
    """Tokens."""
    shutdown: date | None = None
    replacement: str | None = None
    retired: bool = False
    """True if it has been shut down."""
    prices: str | None = None
    """The source of the prices: `genai-prices`, or the `overlay` file."""
    retirement: str | None = None
    """The source of its date."""


def list_models(priced: Iterable[ModelPrices], today: date, *, everything: bool = False) -> Sequence[ModelRow]:
    """List the models, by provider and name.

    Args:
        priced: What has a price.
        today: What is shut down by then is left out.
        everything: Leave nothing out: neither what is shut down, nor other providers' models, nor versions that have
            no price of their own and an undated name beside them.
    """
    rows = {
        (each.provider, each.model): _row(each, today) for each in priced if everything or each.provider == PROVIDER
    }
    for name in retirements.retirements():
        if (PROVIDER, name) not in rows and (everything or (PROVIDER, _DATED.sub("", name)) not in rows):
            rows[PROVIDER, name] = _with_retirement(ModelRow(provider=PROVIDER, model=name), today)
    return [row for _, row in sorted(rows.items()) if everything or not row.retired]


def _row(priced: ModelPrices, today: date) -> ModelRow:
    row = ModelRow(
        provider=priced.provider,
        model=priced.model,
        input=priced.input,
        cached=priced.cache_read,
        write=priced.cache_write,
        output=priced.output,
        context=priced.context_window,
        prices=priced.source,
    )
    return _with_retirement(row, today) if priced.provider == PROVIDER else row


def _with_retirement(row: ModelRow, today: date) -> ModelRow:
    found = retirements.find(row.model)
    if found is None:
        return row
    return msgspec.structs.replace(
        row,
        shutdown=found.shutdown,
        replacement=found.replacement,
        retired=found.is_retired(today),
        retirement=found.source,
    )


def models_table(rows: Iterable[ModelRow], today: date, width: int) -> Table:
    """Make a table of the models. What is shut down is red, what will be within 90 days yellow.

    Args:
        rows: What to show.
        today: Whether a shutdown is past, near or far.
        width: Characters there are.
    """
    table = Table(
        title="USD per million tokens, standard tier",
        title_justify="left",
        title_style="dim",
        caption=f"Prices: {USUAL_SOURCE}, except where another source is named. "
        f"Shutdowns: {retirements.table().source}, read {retirements.table().checked}",
        caption_justify="left",
        header_style="dim",
        box=SIMPLE_HEAD,
        padding=(0, int(width >= WIDE)),
        show_edge=width >= WIDE,
    )
    table.add_column("model", overflow="fold", min_width=14)
    for name in ("in", "cached", "write", "out", "context"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("shutdown", no_wrap=True)
    for name in ("use instead", "price"):
        table.add_column(name, overflow="fold")
    for row in rows:
        name = row.model if row.provider == PROVIDER else f"{row.provider}/{row.model}"
        money = map(format_price, (row.input, row.cached, row.write, row.output))
        context = "–" if row.context is None else f"{row.context // 1000:,}k"
        source = "" if row.prices in (None, USUAL_SOURCE) else row.prices
        table.add_row(escape(name), *money, context, _shutdown(row, today), row.replacement or "", source)
    return table


def _shutdown(row: ModelRow, today: date) -> Text:
    if row.shutdown is None:
        return Text("")
    soon = (row.shutdown - today).days <= retirements.NOTICE_DAYS
    return Text(row.shutdown.isoformat(), style="red" if row.retired else "yellow" if soon else "")


def to_json(rows: Sequence[ModelRow]) -> str:
    """Write the models as a JSON list. Prices are strings, so that none of their digits is lost."""
    return msgspec.json.format(msgspec.json.encode(rows)).decode()


def print_models(*, everything: bool, as_json: bool, clock: Clock | None = None) -> None:
    """Print the models, as a table or as JSON, on the standard output.

    Args:
        everything: As `list_models`.
        as_json: JSON instead of a table.
        clock: Says what day it is.
    """
    now_ns = (clock or SystemClock()).time_ns()
    today = datetime.fromtimestamp(now_ns // 10**9, UTC).date()
    rows = list_models(PriceBook().models(now_ns), today, everything=everything)
    if as_json:
        sys.stdout.write(to_json(rows) + "\n")
        return
    console = Console()
    if not console.is_terminal:
        console.width = PIPE
    console.print(models_table(rows, today, console.width))
