"""Leases of shared budgets: the part of a process, which spends of each cap what it has leased from the ledger.

What all processes have spent of a cap and what they have leased is never more than the cap. A process reserves room
within its lease without asking anyone, and reports what it has spent when it renews the lease: ahead of need, in the
ledger's thread. What a request lacks is asked for there, too. If others have it leased, that is recalled: each of them
gives back what it has not reserved, or is silent until its lease ends. Then what it has leased counts as spent, for it
may have been.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import NamedTuple

import anyio

from ..clock import Clock
from ..concurrency.loop import LoopThread
from ..errors import LedgerError
from ..prices.units import MONEY
from .accounts import AccountKey, Limit, Slot
from .lease_reports import LeaseAnswer, LeaseReport, LeaseStore, SlotAmount, encode, key_of, served
from .leased_account import FRESH_NS, LeasedAccount, total

logger = logging.getLogger("runmeter")

LEASE_NS = 5 * 10**9
"""Nanoseconds that a lease holds: a process that has gone is waited for so long, at most."""
RENEW_NS = LEASE_NS // 2
"""Nanoseconds before its end at which a lease in use is renewed, and after the last use at which it is given back."""
POLL = 0.05
"""Seconds between two looks for recalls, while anything is leased or asked for."""
LIMIT = 30.0
"""Seconds that a request waits for the ledger's answer."""
RETRY = 0.5
"""Seconds before the ledger is tried again."""
AHEAD = Decimal(4)
"""Requests that room is leased for when one needs it, where the cap has it; more, by what was used lately."""
_ZERO, _MORE = Decimal(0), Decimal(4)
_add, _subtract = MONEY.add, MONEY.subtract


class Ask:
    """A request's asking for room in accounts.

    Args:
        amounts: What it lacks, by account.
        told: Called once there is an outcome, from the ledger's thread. It must not raise.
    """

    def __init__(self, amounts: Mapping[LeasedAccount, Decimal], told: Callable[[], object]) -> None:
        self.amounts = amounts
        self.told = told
        self.open = set(amounts)
        """Accounts that nothing is known of yet."""
        self.refused: set[LeasedAccount] = set()
        """Accounts that have no room for it."""
        self.rounds: dict[LeasedAccount, int] = {}
        self.error: LedgerError | None = None

    def outcome(self) -> Set[LeasedAccount]:
        """Give the accounts that have no room for it, once that is known.

        Raises:
            BudgetUnavailable: nothing can be leased.
        """
        if self.error is None:
            return self.refused
        account, amount = next(iter(self.amounts.items()))
        raise account.unavailable(amount, str(self.error)) from self.error


class _Report(NamedTuple):
    account: LeasedAccount
    sent: LeaseReport
    spent: Sequence[tuple[Slot, Decimal]]
    asks: Sequence[Ask]


class Leases:
    """The leases of a process. Its accounts change under the budgets' lock alone.

    Args:
        undisturbed: Holds the budgets' lock, and serves those who wait for room once it is given back.
        freed: Marks accounts that may have more room.
        clock: Tells until when leases hold.
    """

    def __init__(
        self,
        undisturbed: Callable[[], AbstractContextManager[object]],
        freed: Callable[[LeasedAccount], object],
        clock: Clock,
    ) -> None:
        self._undisturbed = undisturbed
        self._freed = freed
        self._clock = clock
        self._store: LeaseStore | None = None
        self._wake: Callable[[], None] = _nothing
        self._accounts: dict[tuple[str, str], LeasedAccount] = {}
        """Those with something leased, reported or asked for."""
        self._asks: list[Ask] = []
        self._contested_until: dict[LeasedAccount, int] = {}

    def account(self, limit: Limit, scope: str | None, key: AccountKey) -> LeasedAccount:
        """Make an account of a shared budget, or find the one that has something leased or asked for already."""
        names = key_of(limit.budget, limit.kind), encode(key).decode()
        return self._accounts.get(names) or LeasedAccount(limit, scope, names, self.wake)

    def open(self, store: LeaseStore, wake: Callable[[], None]) -> None:
        """Begin to lease from a store, in a thread that `wake` has call `tend`."""
        self._store, self._wake = store, wake

    def wake(self) -> None:
        """Have the leases tended soon."""
        self._wake()

    def ask(self, ask: Ask) -> None:
        """Ask for room: from any thread, under the budgets' lock or not."""
        with self._undisturbed():
            is_open = self._store is not None
            if is_open:
                self._asks.append(ask)
                self._accounts.update((account.key, account) for account in ask.amounts)
        if is_open:
            self._wake()
        else:
            ask.error = LedgerError("the engine does not run")
            ask.told()

    def ask_now(self, amounts: Mapping[LeasedAccount, Decimal]) -> Set[LeasedAccount]:
        """Ask for room, and block this thread until there is an outcome. Gives the accounts that have none.

        Raises:
            LedgerError: nothing can be leased.
        """
        told = threading.Event()
        ask = Ask(amounts, told.set)
        self.ask(ask)
        told.wait(LIMIT)
        self.withdraw(ask)
        return ask.outcome()

    async def ask_and_wait(self, amounts: Mapping[LeasedAccount, Decimal]) -> Set[LeasedAccount]:
        """Ask for room, as `ask_now` does, and have others run meanwhile."""
        loop, told = LoopThread(), anyio.Event()

        def wake() -> None:
            try:
                loop.run(told.set)
            except RuntimeError:
                pass  # the loop has closed: nothing waits there

        ask = Ask(amounts, wake)
        self.ask(ask)
        try:
            with anyio.move_on_after(LIMIT):
                await told.wait()
        finally:
            self.withdraw(ask)
        return ask.outcome()

    def withdraw(self, ask: Ask) -> None:
        """Wait no longer for an outcome."""
        with self._undisturbed():
            if ask in self._asks:
                self._asks.remove(ask)
                ask.error = LedgerError(f"it has not answered within {LIMIT:g} s")

    def tend(self, *, closing: bool = False) -> float | None:
        """Report, renew and give back what is due, and answer those who ask. In the ledger's thread.

        Returns:
            Seconds until there may be more to do; None: until it is woken.
        """
        store = self._store
        if store is None:
            return None
        try:
            recalled = store.recalled() if self._accounts else {}
            now = self._clock.time_ns()
            with self._undisturbed():
                reports = self._reports(recalled, now, closing=closing)
            if reports:
                self._take(reports, store.exchange([each.sent for each in reports], now), now)
        except Exception as error:
            if not isinstance(error, LedgerError):
                logger.exception("leases failed")
            self._fail(error if isinstance(error, LedgerError) else LedgerError(f"it failed: {type(error).__name__}"))
            if not closing:
                return RETRY
        if closing:
            self.close()
        if any(ask.open - ask.rounds.keys() for ask in self._asks):
            return 0  # it has come meanwhile, or lacks room that was not yet asked for
        return POLL if self._accounts or self._asks else None

    def close(self) -> None:
        """Lease nothing more, and let go of those who ask."""
        with self._undisturbed():
            self._store = None
        self._fail(LedgerError("it has closed"))

    def _reports(self, recalled: Mapping[tuple[str, str], int], now: int, *, closing: bool) -> list[_Report]:
        for key in recalled.keys() & self._accounts.keys():
            self._contested_until[self._accounts[key]] = now + FRESH_NS
        self._contested_until = {account: end for account, end in self._contested_until.items() if end > now}
        wanted = {account for ask in self._asks for account in ask.open}
        return [
            self._report(account, now, recalled.get(key, 0), closing=closing)
            for key, account in self._accounts.items()
            if closing or key in recalled or account in wanted or account.is_low or account.until_ns - now <= RENEW_NS
        ]

    def _report(self, account: LeasedAccount, now: int, recalled: int, *, closing: bool) -> _Report:
        account.roll(now)
        asks = [ask for ask in self._asks if account in ask.open]
        needed = [ask.amounts[account] for ask in asks]
        if account.used:
            account.used_ns = now
        is_idle = now - account.used_ns > RENEW_NS and not asks
        if closing or is_idle or account in self._contested_until:
            ahead = _ZERO
        else:
            # As much as was used since the last time; more where it was used up sooner, when half of it is gone.
            used = MONEY.multiply(account.used, _MORE) if account.until_ns - now > RENEW_NS else account.used
            ahead = max(MONEY.multiply(max(needed, default=_ZERO), AHEAD), used)
        # Where others lack room it keeps none that is too little for any of its own requests.
        useful = total(served(needed, account.free)) if account in self._contested_until else total(needed)
        kept = account.keep(_ZERO if closing else _add(useful, ahead), now)
        until_ns = now if closing else now + LEASE_NS
        slots = account.slots
        spent = [(slot, _subtract(slot.spent, slot.reported)) for slot in slots if slot.spent != slot.reported]
        report = LeaseReport(
            *account.key,
            account.limit.cap,
            account.limit.kind != "usd",
            [SlotAmount(slot.start_ns, slot.expires_ns, amount) for slot, amount in spent],
            [SlotAmount(slot.start_ns, slot.expires_ns, slot.reserved) for slot in slots if slot.reserved],
            kept,
            needed,
            ahead,
            account.limit.budget.when_exceeded == "lower",
            until_ns,
            account.limit.slots(until_ns)[1],
            max((ask.rounds[account] for ask in asks if account in ask.rounds), default=None),
            recalled,
        )
        return _Report(account, report, spent, asks)

    def _take(self, reports: Iterable[_Report], answers: Sequence[LeaseAnswer], now: int) -> None:
        with self._undisturbed():
            for report, answer in zip(reports, answers, strict=True):
                for slot, amount in report.spent:
                    slot.reported = _add(slot.reported, amount)
                report.account.renew(answer.granted, report.sent.until_ns, answer.shared, now)
                if answer.is_contested:
                    self._contested_until[report.account] = now + FRESH_NS
                self._answer(report, answer)
                self._freed(report.account)
            done = [ask for ask in self._asks if not ask.open]
            self._asks = [ask for ask in self._asks if ask.open]
            wanted = {account for ask in self._asks for account in ask.open}
            self._accounts = {
                key: account for key, account in self._accounts.items() if account in wanted or account.is_in_use
            }
        for ask in done:
            ask.told()

    def _answer(self, report: _Report, answer: LeaseAnswer) -> None:
        """Answer those who ask for room in an account, in their order."""
        account, left = report.account, report.account.free
        for ask in report.asks:
            amount = ask.amounts[account]
            if amount <= left:
                left = _subtract(left, amount)
                ask.open.discard(account)
            elif not answer.is_short:
                pass  # others of this process were faster: it is asked for again
            elif answer.round is None and report.sent.round in (None, ask.rounds.get(account)):
                ask.open.discard(account)
                ask.refused.add(account)
            elif answer.round is not None and report.sent.round is None:
                ask.rounds[account] = answer.round

    def _fail(self, error: LedgerError) -> None:
        with self._undisturbed():
            failed, self._asks = self._asks, []
        for ask in failed:
            ask.error = error
            ask.told()


def _nothing() -> None:
    pass
