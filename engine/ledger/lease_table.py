"""Leases of shared budgets in a ledger's file: what processes have spent of each cap, and what they may yet.

Of each account these are summed up, as far as they still count: what was spent, what is reserved, and the room that is
leased beyond that. No lease lets the sum pass the cap; a request that uses more than its bound may.
A process that ends without a word leaves its rows behind. Nobody touches them, and so they count as spent until the
slots that they are in no longer do: a lease's own room is in the slot in which the lease ends.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Context, Decimal
from typing import NamedTuple

from ..budgets.lease_reports import LeaseAnswer, LeaseReport, SlotAmount, served
from ..budgets.leased_account import SharedSlot, total
from ..budgets.spending import Spending
from ..prices.units import MONEY
from .ledger_file import LedgerFile
from .spending import encode_scope

KEPT_NS = 86_400 * 10**9
"""Nanoseconds that rows are kept after they have ceased to count."""
CONTESTED_NS = 10**9
"""Nanoseconds after a recall in which no room is leased ahead of need."""
LAST_NS = 2**63 - 1
"""The last time that SQLite has."""
_SHARES = Context(prec=12, rounding=ROUND_FLOOR)
_ZERO = Decimal(0)
_add, _subtract = MONEY.add, MONEY.subtract


class _Account(NamedTuple):
    number: int
    round: int
    """The number of the last recall."""
    recalled_ns: int


class _Lease(NamedTuple):
    """A lease of another process's."""

    room: Decimal
    until_ns: int
    expires_ns: int
    seen: int
    """The last recall that it has answered."""


class LeaseTable:
    """Leases room of shared budgets. Used by the thread that writes the ledger.

    Args:
        store: The ledger.
        begun: What budgets have spent before they were shared, by key: counted when the ledger first hears of them.
    """

    def __init__(self, store: LedgerFile, begun: Mapping[str, Sequence[Spending]]) -> None:
        self._store = store
        with store.transaction() as connection:
            for key, spending in begun.items():
                self._begin(connection, key, spending)

    def exchange(self, reports: Sequence[LeaseReport], now_ns: int) -> Sequence[LeaseAnswer]:
        """Take reports and give answers, in one transaction.

        Raises:
            LedgerError: nothing was changed.
        """
        with self._store.transaction() as connection:
            return [self._answer(connection, report, now_ns) for report in reports]

    def recalled(self) -> Mapping[tuple[str, str], int]:
        """Find the accounts, by budget and scope, whose leases others ask to be given back: their last recalls."""
        rows = self._store.connection.execute(
            "SELECT key, scope, round FROM leases JOIN shared_accounts ON shared_accounts.id = account"
            " JOIN shared_budgets ON shared_budgets.id = budget WHERE writer = ? AND seen < round",
            (self._store.writer,),
        )
        return {(key, scope): number for key, scope, number in rows}

    def _begin(self, connection: sqlite3.Connection, key: str, spending: Sequence[Spending]) -> None:
        known = connection.execute("SELECT 1 FROM shared_budgets WHERE key = ?", (key,)).fetchone()
        if known is None:
            connection.execute("INSERT INTO shared_budgets (key) VALUES (?)", (key,))
            for each in spending:
                account = self._account(connection, key, encode_scope(each.scope).decode())
                _spend(connection, account.number, SlotAmount(each.start_ns, each.expires_ns, each.amount))

    def _answer(self, connection: sqlite3.Connection, report: LeaseReport, now_ns: int) -> LeaseAnswer:
        account = self._account(connection, report.budget, report.scope)
        for spent in report.spent:
            _spend(connection, account.number, spent)
        seen = max(self._seen(connection, account), report.answered)
        self._forget_own(connection, account.number, now_ns)
        slots = _read_spent(connection, account.number, now_ns)
        others = _read_leases(connection, account.number, now_ns)
        reserved = _read_reserved(connection, account.number, now_ns)
        live = {writer: lease for writer, lease in others.items() if lease.until_ns > now_ns}

        own = total(each.amount for each in report.reserved if each.expires_ns > now_ns)
        taken = total(
            (
                *(slot.amount for slot in slots),
                *(slot.amount for _, slot in reserved),
                *(lease.room for lease in others.values()),
                own,
                report.kept,
            )
        )
        available = max(_subtract(report.cap, taken), _ZERO)
        contested = now_ns - account.recalled_ns < CONTESTED_NS
        chosen = served(report.needed, _add(report.kept, available))
        granted = max(_subtract(total(chosen), report.kept), _ZERO)
        round_number = None
        is_short = len(chosen) < len(report.needed)
        if is_short:
            round_number = self._recall(connection, account, report.round, live, now_ns)
            if round_number is None and report.takes_less:
                granted = available
        elif not contested:
            unneeded = _subtract(_add(report.kept, granted), total(chosen))
            ahead = _subtract(report.ahead, unneeded)
            granted = _add(granted, _share(ahead, _subtract(available, granted), len(live), whole=report.is_whole))
        self._keep(connection, account, report, _add(report.kept, granted), seen)

        shared = [SharedSlot(slot.expires_ns, slot.amount, _ZERO) for slot in slots]
        for writer, slot in reserved:
            shared.append(_shared(slot.expires_ns, slot.amount, is_live=writer in live))
        for writer, lease in others.items():
            shared.append(_shared(lease.expires_ns, lease.room, is_live=writer in live))
        return LeaseAnswer(granted, shared, is_short, round_number, is_contested=contested or round_number is not None)

    def _recall(
        self,
        connection: sqlite3.Connection,
        account: _Account,
        waits_for: int | None,
        live: Mapping[int, _Lease],
        now_ns: int,
    ) -> int | None:
        """Have others give room back, or see whether they have. Gives the recall that goes on, if one does."""
        if waits_for is not None:
            return waits_for if any(lease.seen < waits_for for lease in live.values()) else None
        if not live:
            return None
        begun = account.round + 1
        connection.execute(
            "UPDATE shared_accounts SET round = ?, recalled_ns = ? WHERE id = ?", (begun, now_ns, account.number)
        )
        return begun

    def _seen(self, connection: sqlite3.Connection, account: _Account) -> int:
        """Find the last recall that this process has answered: each that was before it leased anything."""
        row = connection.execute(
            "SELECT seen FROM leases WHERE account = ? AND writer = ?", (account.number, self._store.writer)
        ).fetchone()
        return account.round if row is None else int(row[0])

    def _account(self, connection: sqlite3.Connection, key: str, scope: str) -> _Account:
        row = connection.execute(
            "SELECT shared_accounts.id, round, recalled_ns FROM shared_accounts"
            " JOIN shared_budgets ON shared_budgets.id = budget WHERE key = ? AND scope = ?",
            (key, scope),
        ).fetchone()
        if row is not None:
            return _Account(*row)
        cursor = connection.execute(
            "INSERT INTO shared_accounts (budget, scope) SELECT id, ? FROM shared_budgets WHERE key = ?", (scope, key)
        )
        assert cursor.lastrowid is not None  # noqa: S101 - a row was inserted
        return _Account(cursor.lastrowid, 0, 0)

    def _forget_own(self, connection: sqlite3.Connection, account: int, now_ns: int) -> None:
        """Take out what this process said before, and rows of all that count no more."""
        for table in ("leases", "lease_holds"):
            connection.execute(
                f"DELETE FROM {table} WHERE account = ? AND (writer = ? OR expires_ns < ?)",  # noqa: S608 - fixed names
                (account, self._store.writer, now_ns - KEPT_NS),
            )
        connection.execute(
            "DELETE FROM shared_spending WHERE account = ? AND expires_ns < ?", (account, now_ns - KEPT_NS)
        )

    def _keep(
        self, connection: sqlite3.Connection, account: _Account, report: LeaseReport, room: Decimal, seen: int
    ) -> None:
        """Write down what this process has leased."""
        writer = self._store.writer
        connection.executemany(
            "INSERT INTO lease_holds VALUES (?, ?, ?, ?, ?)",
            [
                (account.number, writer, each.start_ns, min(each.expires_ns, LAST_NS), str(each.amount))
                for each in report.reserved
            ],
        )
        if room or report.reserved:
            connection.execute(
                "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?)",
                (account.number, writer, str(room), report.until_ns, min(report.expires_ns, LAST_NS), seen),
            )


def _share(wanted: Decimal, available: Decimal, others: int, *, whole: bool) -> Decimal:
    """Find how much to lease beyond what is needed: an ever smaller part of what is left, so that all get some."""
    granted = max(min(wanted, _SHARES.divide(available, Decimal(2 * (others + 1)))), _ZERO)
    return granted.to_integral_value(ROUND_FLOOR) if whole else granted


def _shared(expires_ns: int, amount: Decimal, *, is_live: bool) -> SharedSlot:
    return SharedSlot(expires_ns, _ZERO, amount) if is_live else SharedSlot(expires_ns, amount, _ZERO)


def _spend(connection: sqlite3.Connection, account: int, spent: SlotAmount) -> None:
    found = connection.execute(
        "SELECT spent FROM shared_spending WHERE account = ? AND start_ns = ?", (account, spent.start_ns)
    ).fetchone()
    amount = spent.amount if found is None else _add(spent.amount, Decimal(found[0]))
    connection.execute(
        "INSERT OR REPLACE INTO shared_spending VALUES (?, ?, ?, ?)",
        (account, spent.start_ns, min(spent.expires_ns, LAST_NS), str(amount)),
    )


def _read_spent(connection: sqlite3.Connection, account: int, now_ns: int) -> Sequence[SlotAmount]:
    rows = connection.execute(
        "SELECT start_ns, expires_ns, spent FROM shared_spending WHERE account = ? AND expires_ns > ?",
        (account, now_ns),
    )
    return [SlotAmount(start_ns, expires_ns, Decimal(spent)) for start_ns, expires_ns, spent in rows]


def _read_reserved(connection: sqlite3.Connection, account: int, now_ns: int) -> Sequence[tuple[int, SlotAmount]]:
    rows = connection.execute(
        "SELECT writer, start_ns, expires_ns, reserved FROM lease_holds WHERE account = ? AND expires_ns > ?",
        (account, now_ns),
    )
    return [(writer, SlotAmount(start_ns, expires_ns, Decimal(held))) for writer, start_ns, expires_ns, held in rows]


def _read_leases(connection: sqlite3.Connection, account: int, now_ns: int) -> Mapping[int, _Lease]:
    rows = connection.execute(
        "SELECT writer, room, until_ns, expires_ns, seen FROM leases WHERE account = ? AND expires_ns > ?",
        (account, now_ns),
    )
    return {writer: _Lease(Decimal(room), *rest) for writer, room, *rest in rows}
