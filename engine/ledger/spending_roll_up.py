"""Rolling the spending of budgets up, a stretch of events at a time, and reading it when an engine starts."""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from ..budgets.budget import Budget
from ..budgets.spending import Spending
from ..events import ModelCallStarted
from ..prices.price_book import PriceBook
from .ledger_file import LedgerFile
from .roll_up import STRETCH, WORTH_IT
from .spending import (
    Amounts,
    SpendingFold,
    SpendingPlace,
    add_amounts,
    encode_scope,
    oldest_ns,
    read_ends,
    read_spending,
    spending_of,
    terms_of,
)
from .stored_events import decode_events
from .writer import Load

KEPT_NS = 86_400 * 10**9
"""Nanoseconds that sums are kept after they have ceased to count: for a clock that is set back."""
FORGOTTEN_NS = 90 * KEPT_NS
"""Nanoseconds after which a budget that no engine has begun with since, and that has spent nothing, is forgotten."""


class SpendingRollUp:
    """Rolls up what budgets spend, whichever process wrote it; each request counts once, whichever process does it.

    Args:
        store: The ledger.
        prices: What tokens cost.
        assumed_tier: The service tier of requests that name none.
    """

    def __init__(self, store: LedgerFile, prices: PriceBook, assumed_tier: str | None = None) -> None:
        self._store = store
        self._prices = prices
        self._assumed_tier = assumed_tier

    def __call__(self, load: Load) -> bool:
        """Roll up a stretch of events, if enough of them wait for it.

        Returns:
            Whether there may be more to do.

        Raises:
            LedgerError: nothing was changed.
        """
        after = self._through()
        if after is None or (last := self._last()) - after < WORTH_IT[load]:
            return False
        known = self._known()
        upto = min(last, after + STRETCH)
        fold = self._fold(known)
        fold.fold(read_ends(self._store.connection, after, upto))
        with self._store.transaction():
            if self._through() != after or self._known() != known:
                return True  # another process was faster, or has begun with a new budget
            self._add(fold.amounts)
            self._store.connection.execute("UPDATE progress SET through = ? WHERE name = 'budgets'", (upto,))
        return upto < last

    def restore(self, budgets: Sequence[Budget], now_ns: int) -> Sequence[Spending]:
        """Read what budgets have spent in the windows that are open. Requests that have not ended count in full.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        terms = {each for budget in budgets if (each := terms_of(budget)) is not None}
        if not terms:
            return ()
        self._learn(sorted(terms - self._known().keys()), now_ns)
        self._keep(terms, now_ns)
        while self("closing"):
            pass
        connection = self._store.connection
        connection.execute("BEGIN")
        try:
            return spending_of(budgets, self._read(terms, now_ns), now_ns)
        finally:
            connection.execute("COMMIT")

    def _read(self, terms: set[str], now_ns: int) -> Iterator[tuple[SpendingPlace, Amounts]]:
        connection = self._store.connection
        for each in terms:
            yield from read_spending(connection, each, now_ns)
        rest = self._fold(terms)
        rest.fold(read_ends(connection, self._through() or 0, self._last()))  # others go on meanwhile
        rows = connection.execute(
            "SELECT data FROM open_requests JOIN events"
            " ON events.run = open_requests.run AND events.seq = open_requests.call_id"
        )
        unended = decode_events(connection, (data for (data,) in rows.fetchall()))
        rest.fold_bounds([event for event in unended if isinstance(event, ModelCallStarted)])
        yield from rest.amounts.items()

    def _learn(self, new: Sequence[str], now_ns: int) -> None:
        """Fold the events that are kept for budgets that the ledger does not know yet, as far as others are folded."""
        if not new:
            return
        since_ns = min(oldest_ns(terms, now_ns) for terms in new)
        fold, position = self._fold(new), 0
        while True:
            through = self._through()
            target = self._last() if through is None else through
            if target < position:  # another process was the first to begin
                fold, position = self._fold(new), 0
            while position < target:
                upto = min(target, position + STRETCH)
                fold.fold(read_ends(self._store.connection, position, upto, since_ns))
                position = upto
            with self._store.transaction() as connection:
                if self._through() != through:
                    continue
                lacking = set(new) - self._known().keys()
                connection.execute("INSERT INTO progress VALUES ('budgets', ?) ON CONFLICT DO NOTHING", (target,))
                connection.executemany(
                    "INSERT INTO budgets (terms, used_ns) VALUES (?, ?)", [(each, now_ns) for each in sorted(lacking)]
                )
                self._add(
                    {
                        place: amounts
                        for place, amounts in fold.amounts.items()
                        if place.terms in lacking and place.expires_ns > now_ns
                    }
                )
                return

    def _keep(self, terms: set[str], now_ns: int) -> None:
        """Note that budgets are in use, and forget what is of no more use."""
        with self._store.transaction() as connection:
            connection.executemany("UPDATE budgets SET used_ns = ? WHERE terms = ?", [(now_ns, each) for each in terms])
            connection.execute("DELETE FROM budget_spending WHERE expires_ns < ?", (now_ns - KEPT_NS,))
            connection.execute(
                "DELETE FROM budgets WHERE used_ns < ? AND id NOT IN (SELECT budget FROM budget_spending)",
                (now_ns - FORGOTTEN_NS,),
            )

    def _add(self, amounts: dict[SpendingPlace, Amounts]) -> None:
        """Add amounts to the sums, within a transaction of the caller's."""
        connection, numbers = self._store.connection, self._known()
        for place, added in amounts.items():
            key = numbers[place.terms], encode_scope(place.scope).decode(), place.start_ns
            found = connection.execute(
                "SELECT usd, tokens, calls FROM budget_spending WHERE budget = ? AND scope = ? AND start_ns = ?", key
            ).fetchone()
            sums = added if found is None else add_amounts(added, tuple(map(Decimal, found)))
            connection.execute(
                "INSERT OR REPLACE INTO budget_spending VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*key, place.expires_ns, *map(str, sums)),
            )

    def _fold(self, terms: Iterable[str]) -> SpendingFold:
        return SpendingFold(self._store.connection, self._prices, terms, self._assumed_tier)

    def _through(self) -> int | None:
        """Read the number of the last event that is in the sums; None if no budget was ever kept."""
        row = self._store.connection.execute("SELECT through FROM progress WHERE name = 'budgets'").fetchone()
        return None if row is None else int(row[0])

    def _known(self) -> dict[str, int]:
        return dict(self._store.connection.execute("SELECT terms, id FROM budgets"))

    def _last(self) -> int:
        return self._store.connection.execute("SELECT max(id) FROM events").fetchone()[0] or 0
