"""`runmeter report`: a ledger or an event log as one page."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.text import Text

from runmeter.engine import ConfigurationError, LedgerError, PriceBook
from runmeter.engine.formats import format_count, printable
from runmeter.reports.page.library import chart_library, check_drawing
from runmeter.reports.sources import reader_of

from ..ending import CommandError
from ..log_reading import DamagedLines, reading_bar
from ..output import check_output

PAGE_BEGINS = b"<!doctype html>"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of the command line."""

    file: Path
    """A ledger or an event log."""
    output: Path
    """The page. One that is there is replaced, any other file is not."""
    since: date | None = None
    """The first UTC day; by default the first that there is."""
    until: date | None = None
    """The UTC day after the last."""
    prices: Path | None = None
    """A price file of the user's own."""


def make_report(options: ReportOptions, console: Console | None = None) -> int:
    """Write the report on a ledger or an event log.

    Args:
        options: What is asked.
        console: Where progress, damaged lines and the page's size are shown; by default the standard error.

    Returns:
        The exit code: 0, or 1 if there is nothing on these days.

    Raises:
        CommandError: the file cannot be read, or a library is missing.
        OSError: the page cannot be written.
    """
    console = console or Console(stderr=True)
    check_output(options.output, options.file)
    _check_replaced(options.output)
    try:
        check_drawing()
        with ThreadPoolExecutor(1) as pool:
            library = pool.submit(chart_library)  # meanwhile the file is read
            page, days = _render(options, library, console)
    except (ConfigurationError, LedgerError) as error:
        raise CommandError(str(error)) from None
    _replace(options.output, page)
    size = f"{options.output.stat().st_size / 1e6:.1f} MB"
    console.print(Text(f"{printable(str(options.output))}: {format_count(days, 'day')}, {size}"), soft_wrap=True)
    return 0 if days else 1


def _render(options: ReportOptions, library: Future[str], console: Console) -> tuple[str, int]:
    """Make the page, and count the days that it shows."""
    from runmeter.reports.page.page import render
    from runmeter.reports.page.report import read_report

    path, damaged = options.file, DamagedLines(options.file)
    with (
        reading_bar(path, console) as progress,
        reader_of(path, PriceBook(options.prices), damaged, progress) as ledger,
    ):
        report = read_report(ledger, source=path.name, made_ns=time.time_ns(), since=options.since, until=options.until)
    damaged.tell(console)
    return render(report, library.result()), len({each.day for each in report.days})


def _check_replaced(output: Path) -> None:
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
