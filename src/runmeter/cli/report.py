"""`runmeter report`: a ledger as one page."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.text import Text

from runmeter.engine import ConfigurationError, LedgerError, LedgerReader, PriceBook
from runmeter.engine.formats import format_count, printable
from runmeter.reports.page.library import chart_library, check_drawing

from .ending import CommandError

PAGE_BEGINS = b"<!doctype html>"


def make_report(
    ledger: Path,
    output: Path,
    *,
    since: date | None = None,
    until: date | None = None,
    prices: Path | None = None,
    console: Console | None = None,
) -> int:
    """Write the report on a ledger.

    Args:
        ledger: The ledger.
        output: The page. One that is there is replaced, any other file is not.
        since: The first UTC day; by default the ledger's first.
        until: The UTC day after the last.
        prices: A file with prices, as `PriceBook` takes it.
        console: Where it is told what was written; by default the standard error.

    Returns:
        The exit code: 0, or 1 if the ledger holds nothing of these days.

    Raises:
        CommandError: the ledger cannot be read, or a library is missing.
        OSError: the page cannot be written.
    """
    console = console or Console(stderr=True)
    _check_output(output)
    try:
        check_drawing()
        with ThreadPoolExecutor(1) as pool:
            library = pool.submit(chart_library)  # meanwhile the ledger is read
            from runmeter.reports.page.page import render
            from runmeter.reports.page.report import read_report

            with LedgerReader(ledger, PriceBook(prices)) as reader:
                report = read_report(reader, since=since, until=until, made_ns=time.time_ns())
            page = render(report, library.result())
    except (ConfigurationError, LedgerError) as error:
        raise CommandError(str(error)) from None
    _replace(output, page)
    days = len({each.day for each in report.days})
    size = f"{output.stat().st_size / 1e6:.1f} MB"
    console.print(Text(f"{printable(str(output))}: {format_count(days, 'day')}, {size}"), soft_wrap=True)
    return 0 if report.days else 1


def _check_output(output: Path) -> None:
    """Refuse to write over what is no page, such as the ledger itself."""
    if not output.exists():
        return
    if not output.is_file():
        raise CommandError(f"{output} is not a file: give another name with -o")
    with output.open("rb") as file:
        begins = file.read(len(PAGE_BEGINS))
    if begins and begins.lower() != PAGE_BEGINS:
        raise CommandError(f"{output} is there and is no HTML page: give another name with -o")


def _replace(output: Path, page: str) -> None:
    """Write the page as a whole or not at all."""
    part = output.with_name(f"{output.name}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
