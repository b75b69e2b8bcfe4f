"""Rolling a ledger's events up into days, a stretch at a time, between the commits of its writer."""

from collections.abc import Mapping

from ..prices.price_book import PriceBook
from .days import DayFold, add_usage, folded_through, read_stretch
from .ledger_file import LedgerFile
from .writer import Load

STRETCH = 5_000
"""Events that are rolled up in one transaction."""
WORTH_IT: Mapping[Load, int] = {"busy": 50_000, "idle": STRETCH, "closing": 1}
"""Events that are rolled up if so many wait for it. A reader folds by itself what is not."""


class RollUp:
    """Rolls up the events of a ledger, whichever process wrote them; each is counted once, whichever process does it.

    Args:
        store: The ledger.
        prices: What tokens cost.
    """

    def __init__(self, store: LedgerFile, prices: PriceBook) -> None:
        self._store = store
        self._prices = prices

    def __call__(self, load: Load) -> bool:
        """Roll up a stretch of events, if enough of them wait for it.

        Returns:
            Whether there may be more to do.

        Raises:
            LedgerError: nothing was changed.
        """
        connection = self._store.connection
        after = folded_through(connection)
        last = connection.execute("SELECT max(id) FROM events").fetchone()[0] or 0
        if last - after < WORTH_IT[load]:
            return False
        last, events = read_stretch(connection, after, STRETCH)
        fold = DayFold(connection, self._prices)
        fold.fold(events)
        with self._store.transaction():
            if folded_through(connection) != after:
                return True  # another process was faster
            add_usage(connection, fold.usage())
            connection.executemany(
                "UPDATE runs SET cost_low = cost_low + ?, cost_high = cost_high + ? WHERE run_id = ?",
                [
                    (float(cost.low), None if cost.high is None else float(cost.high), run_id)
                    for run_id, cost in fold.run_costs.items()
                ],
            )
            connection.execute("UPDATE progress SET through = ? WHERE name = 'days'", (last,))
        return len(events) == STRETCH
