"""The files that reports are made from: ledgers, and event logs, which are read into a ledger that does not last."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from runmeter.engine import LedgerReader, PriceBook
from runmeter.engine.event_log import is_ledger, read_events
from runmeter.engine.ledger.imports import Imported, import_events


@contextmanager
def reader_of(
    path: Path,
    prices: PriceBook,
    damaged: Callable[[int, str], None],
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[LedgerReader]:
    """Open a ledger or an event log to read from.

    Args:
        path: The file.
        prices: What tokens cost, for what is not rolled up.
        damaged: Told the number of each line of a log that is not an event, and why.
        progress: Told after each line of a log how many bytes it had.

    Raises:
        LedgerError: the ledger cannot be read.
        OSError: the log cannot be read.
    """
    if is_ledger(path):
        with LedgerReader(path, prices) as reader:
            yield reader
        return
    with TemporaryDirectory(prefix="runmeter-") as folder:
        ledger = Path(folder) / "log.db"
        import_events(read_events(path, damaged, progress), ledger, prices, Imported(), lasting=False)
        with LedgerReader(ledger, prices) as reader:
            yield reader
