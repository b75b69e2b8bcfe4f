"""Import of events into a ledger, such as those of an event log: each counts once, however often it comes."""

from collections.abc import Iterable
from itertools import islice
from os import PathLike
from pathlib import Path

import msgspec

from ..clock import SystemClock
from ..events import Event
from ..prices.price_book import PriceBook
from .ledger_file import LedgerFile
from .roll_up import RollUp
from .writer import GROUP


class Imported(msgspec.Struct):
    """The account of an import: `read = added + duplicates`."""

    read: int = 0
    added: int = 0

    @property
    def duplicates(self) -> int:
        """Events that the ledger had already."""
        return self.read - self.added


def import_events(
    events: Iterable[Event], path: str | PathLike[str], prices: PriceBook, account: Imported, *, lasting: bool = True
) -> None:
    """Add events to a ledger, in groups, each of which is on disk before the next one is read.

    Args:
        events: The events, in any order.
        path: The ledger. It is made if there is none.
        prices: What tokens cost, for the roll-ups.
        account: Counts what was done so far; it is right also where the import ends early.
        lasting: The ledger is to outlive a loss of power. Without that it is written faster.

    Raises:
        LedgerError: the ledger cannot be opened or written.
    """
    store = LedgerFile(Path(path), SystemClock())
    try:
        if not lasting:
            store.connection.execute("PRAGMA synchronous = OFF")
        roll_up = RollUp(store, prices)
        source = iter(events)
        try:
            while group := list(islice(source, GROUP)):
                account.added += store.append(group)
                account.read += len(group)
                store.checkpoint()
                while roll_up("busy"):
                    pass
        finally:
            store.settle_requests()  # what was taken twice, or in another order
        while roll_up("closing"):
            store.checkpoint()
    finally:
        store.close()
