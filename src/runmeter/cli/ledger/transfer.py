"""`runmeter export` and `runmeter import`: a ledger's events to a file, and those of event logs into a ledger."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from runmeter.engine import ConfigurationError, LedgerError, LedgerReader, PriceBook
from runmeter.engine.event_log import is_ledger, read_events
from runmeter.engine.formats import format_count, printable
from runmeter.engine.ledger.imports import Imported, import_events
from runmeter.reports.export import export_lines, whole_or_nothing

from ..ending import NOT_WRITTEN, CommandError
from ..log_reading import DamagedLines, reading_bar
from ..output import check_output

ExportFormat: TypeAlias = Literal["jsonl", "parquet"]


def export_ledger(
    path: Path,
    target: Path,
    form: ExportFormat | None,
    prices: Path | None,
    console: Console | None = None,
    *,
    force: bool = False,
) -> int:
    """Write a ledger's events to a file, or none where that fails.

    Args:
        path: The ledger.
        target: The file; `-` is the standard output.
        form: Its format; by default what its name says.
        prices: A price file of the user's own, for Parquet's costs.
        console: Where progress is shown; by default the standard error.
        force: Replace a file that is there.

    Returns:
        The exit code: 0, or 74 if the file could not be written.

    Raises:
        CommandError: the ledger cannot be read, the file is there, or a library is missing.
    """
    console = console or Console(stderr=True)
    form = form or ("parquet" if target.suffix == ".parquet" else "jsonl")
    try:
        if str(target) == "-":
            if form == "parquet":
                raise CommandError("Parquet goes to a file: give -o FILE")
            with LedgerReader(path) as ledger:
                export_lines(ledger, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return 0
        check_output(target, path)
        if target.exists() and (not force or target.samefile(path)):
            raise CommandError(f"{target} is there already: give another file{'' if force else ', or --force'}")
        with LedgerReader(path, PriceBook(prices)) as ledger:
            count = _write(ledger, target, form, console)
    except (ConfigurationError, LedgerError) as error:
        raise CommandError(str(error)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        console.print(Text(f"{printable(str(target))}: {error.strerror or error}", "red"), soft_wrap=True)
        return NOT_WRITTEN
    console.print(Text(printable(f"{format_count(count, 'event')} in {target}")), soft_wrap=True)
    return 0


def _write(ledger: LedgerReader, target: Path, form: ExportFormat, console: Console) -> int:
    with whole_or_nothing(target) as part, _counting(console) as progress:
        if form == "jsonl":
            with part.open("wb") as file:
                return export_lines(ledger, file, progress)
        try:
            from runmeter.reports.parquet import export_parquet
        except ImportError:
            raise CommandError("Parquet needs pyarrow: pip install 'runmeter[parquet]'") from None
        return export_parquet(ledger, part, ledger.prices, progress)


@contextmanager
def _counting(console: Console) -> Iterator[Callable[[int], None]]:
    """Show how many events were written so far."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("events written", total=None)
        yield lambda count: progress.advance(task, count)


def import_logs(paths: Sequence[Path], ledger: Path, prices: Path | None, console: Console | None = None) -> int:
    """Add the events of event logs to a ledger; those that it has already are not added again.

    Args:
        paths: The logs.
        ledger: The ledger. It is made if there is none.
        prices: A price file of the user's own, for the statistics of days.
        console: Where progress and damaged lines are shown; by default the standard error.

    Returns:
        The exit code: 0, or 1 if a log has no line that is an event.

    Raises:
        CommandError: a file cannot be read, or the ledger not be written.
    """
    console = console or Console(stderr=True)
    is_empty = False
    try:
        book = PriceBook(prices)
        for path in paths:
            if is_ledger(path):
                raise CommandError(f"{path} is a ledger: export it first, and import that")
        for path in paths:
            account, damaged = Imported(), DamagedLines(path)
            try:
                with reading_bar(path, console) as progress:
                    import_events(read_events(path, damaged, progress), ledger, book, account)
            finally:
                damaged.tell(console)
                _tell(path, ledger, account, console)
            is_empty |= bool(damaged.count) and not account.read
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror or error}") from None
    except (ConfigurationError, LedgerError) as error:
        raise CommandError(str(error)) from None
    return 1 if is_empty else 0


def _tell(path: Path, ledger: Path, account: Imported, console: Console) -> None:
    had = f", which had {account.duplicates:,} of them" if account.duplicates else ""
    text = f"{path}: {format_count(account.read, 'event')} read, {account.added:,} added to {ledger}{had}"
    console.print(Text(printable(text)), soft_wrap=True)
