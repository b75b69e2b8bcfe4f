"""The sums that a budget is checked against: for each cap an account, or one for each value of a tag or each run.

Nothing here takes a lock: `Budgets` does, around all of it.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TypeAlias

from ..errors import BudgetExceeded
from ..events import TokenUsage
from ..formats import Kind, format_amount
from ..prices.cost_estimate import CostEstimate
from ..prices.units import MONEY
from .budget import NEVER, Budget, BudgetStatus
from .spending import spent_by

logger = logging.getLogger("runmeter")

MAX_ACCOUNTS = 10_000
"""Values of a tag that a cap tells apart at once; further ones share one account, and so one cap, until it is idle."""
OTHER = "(other)"
"""The scope under which they share it."""
_SHARED = ()
"""The shared account's key: no tag's value can be it."""
SWEEP_AT = 64
"""Accounts from which on idle ones are looked for."""

NO_TIME = (0, 0)
"""A window in which no time is."""

_ZERO = Decimal(0)
_add, _subtract = MONEY.add, MONEY.subtract


class Sums:
    """Sums of the amounts spent and reserved."""

    __slots__ = ("reserved", "spent")

    def __init__(self) -> None:
        self.spent = self.reserved = _ZERO

    def move(self, reserved: Decimal, spent: Decimal) -> None:
        """Add to both sums; a negative amount comes off."""
        self.reserved = _add(self.reserved, reserved)
        self.spent = _add(self.spent, spent)


class Slot(Sums):
    """The amounts reserved in a stretch of time, and spent of them."""

    __slots__ = ("expires_ns", "live", "reported", "start_ns")

    def __init__(self, start_ns: int, expires_ns: int) -> None:
        super().__init__()
        self.start_ns = start_ns
        self.expires_ns = expires_ns
        self.reported = _ZERO
        """The part of what is spent that other processes know of, where the budget is shared."""
        self.live = True
        """True while its amounts still count."""


class Account(Sums):
    """The account of one cap: the sums over the slots that still count."""

    __slots__ = ("_gone", "_slots", "limit", "overdrawn_in", "refused", "scope", "warned_in")

    is_leased = False
    """True of a cap that other processes spend, too."""

    def __init__(self, limit: "Limit", scope: str | None) -> None:
        super().__init__()
        self.limit = limit
        self.scope = scope
        self.refused = 0
        self.warned_in = self.overdrawn_in = NO_TIME
        """The windows in which that was told."""
        self._slots: deque[Slot] = deque()
        self._gone: Sequence[Slot] = ()
        """Those that were let go last, at once."""

    def roll(self, now: int) -> bool:
        """Let go of the slots that no longer count. Tell whether any slot is left.

        Where the clock has gone back, the reading before was wrong: slots that it let go count again, and one that it
        opened, which begins after now, is now's.
        """
        if self._gone and self._gone[-1].expires_ns > now:
            self._bring_back(now)
        if self._slots and self._slots[-1].start_ns > now:
            self._put_back(now)
        if self._slots and self._slots[0].expires_ns <= now:
            self._let_go(now)
        return bool(self._slots)

    def _let_go(self, now: int) -> None:
        gone = []
        while self._slots and self._slots[0].expires_ns <= now:
            slot = self._slots.popleft()
            slot.live = False
            self.move(slot.reserved.copy_negate(), slot.spent.copy_negate())
            gone.append(slot)
        self._gone = gone

    def _bring_back(self, now: int) -> None:
        back = [slot for slot in self._gone if slot.expires_ns > now]
        self._gone = ()
        self._slots.extendleft(reversed(back))
        for slot in back:
            slot.live = True
            self.move(slot.reserved, slot.spent)

    def _put_back(self, now: int) -> None:
        start, expires = self.limit.slots(now)
        for slot in self._slots:
            if slot.start_ns > now:
                slot.start_ns, slot.expires_ns = start, expires

    def fits(self, amount: Decimal) -> bool:
        """Tell whether there is room for an amount."""
        return _add(_add(self.spent, self.reserved), amount) <= self.limit.cap

    def allows(self, amount: Decimal) -> bool:
        """Tell whether there is room for an amount once all that is reserved is free again."""
        return _add(self.spent, amount) <= self.limit.cap

    @property
    def expires_ns(self) -> int:
        """The time at which the oldest slot no longer counts; `NEVER` if there is none, or without a window."""
        return self._slots[0].expires_ns if self._slots else NEVER

    def hold(self, amount: Decimal, now: int) -> "Hold":
        """Reserve an amount, whether there is room or not."""
        return Hold(self, self._slot(*self.limit.slots(now)), amount)

    def book(self, slot: Slot, reserved: Decimal, spent: Decimal) -> None:
        """Add to the sums of one of its slots, and to its own while that counts."""
        slot.move(reserved, spent)
        if slot.live:
            self.move(reserved, spent)

    @property
    def total_spent(self) -> Decimal:
        """The amount spent, by all processes that share the cap."""
        return self.spent

    @property
    def total_reserved(self) -> Decimal:
        """The amount reserved, likewise."""
        return self.reserved

    def restore(self, start_ns: int, expires_ns: int, spent: Decimal) -> None:
        """Add what was spent before this process began, in the order of slots. It tells of nothing that was told."""
        self._slot(start_ns, expires_ns).move(_ZERO, spent)
        self.move(_ZERO, spent)
        if self.limit.warn_from is not None and self.spent >= self.limit.warn_from:
            self.warned_in = start_ns, expires_ns

    def _slot(self, start_ns: int, expires_ns: int) -> Slot:
        """Find the newest slot, or open this one if that is newer."""
        if not self._slots or self._slots[-1].start_ns < start_ns:
            self._slots.append(Slot(start_ns, expires_ns))
        return self._slots[-1]

    @property
    def label(self) -> str:
        """The budget's label, with the tag's value or the run's id if there is one."""
        label = self.limit.budget.label
        return label if self.scope is None else f"{label} [{self.scope}]"

    @property
    def progress(self) -> str:
        """The amount spent, and the cap, as text."""
        return f"{format_amount(self.limit.kind, self.total_spent)} of {format_amount(self.limit.kind, self.limit.cap)}"

    def exceeded(self, amount: Decimal, ways_out: Sequence[str]) -> BudgetExceeded:
        """Make the error for an amount that there is no room for."""
        limit = self.limit
        return BudgetExceeded(
            limit.budget.label,
            self.scope,
            limit.kind,
            limit.cap,
            self.total_spent,
            self.total_reserved,
            amount,
            ways_out,
        )

    def status(self, waiting: int) -> BudgetStatus:
        """Make the account's status, while `waiting` requests wait for room in it."""
        end = self.expires_ns
        return BudgetStatus(
            budget=self.limit.budget.label,
            scope=self.scope,
            kind=self.limit.kind,
            cap=self.limit.cap,
            spent=self.total_spent,
            reserved=self.total_reserved,
            refused=self.refused,
            waiting=waiting,
            window_end_ns=None if end == NEVER else end,
        )


class Hold:
    """The part of a reservation that one account holds."""

    __slots__ = ("_reserved", "_slot", "_spent", "account", "asked")

    def __init__(self, account: Account, slot: Slot, asked: Decimal) -> None:
        self.account = account
        self.asked = asked
        self._slot = slot
        self._reserved, self._spent = asked, _ZERO
        self._move(asked, _ZERO)

    def settle(self, spent: Decimal) -> None:
        """Put the amount spent in the place of the one reserved, or of what passed for spent until now."""
        freed, more = self._reserved.copy_negate(), _subtract(spent, self._spent)
        self._reserved, self._spent = _ZERO, spent
        self._move(freed, more)

    def spent_by(self, event: TokenUsage, cost: CostEstimate | None) -> Decimal:
        """Derive the amount spent by a request that has ended, or its upper bound where that is not known.

        Args:
            event: Its end.
            cost: What it cost, where the account counts USD.
        """
        return spent_by(self.account.limit.kind, event, cost).within(self.asked)

    def _move(self, reserved: Decimal, spent: Decimal) -> None:
        self.account.book(self._slot, reserved, spent)


class Limit:
    """A cap of a budget, with its accounts: all but those of runs, which are the runs' own."""

    def __init__(self, budget: Budget, kind: Kind, cap: Decimal, make: "MakeAccount | None" = None) -> None:
        self.budget = budget
        self._make = make or _make_account
        self.kind: Kind = kind
        self.cap = cap
        self.slots = budget.slots()
        self.is_awaited = budget.when_reserved == "wait"
        self.warn_from = None if budget.warn_at is None else MONEY.multiply(cap, Decimal(str(budget.warn_at)))
        self.accounts: dict[AccountKey, Account] = {}
        if budget.per is None:
            self.accounts[None] = self._make(self, None, None)
        self._sweep_at = SWEEP_AT

    def account(self, value: str | None, now: int) -> Account:
        """Find or make the account of a tag's value."""
        account = self.accounts.get(value)
        if account is not None:
            return account
        # Values that came while there was no room are in the shared account: until it is idle, it may be any of them.
        shared = self.accounts.get(_SHARED)
        if shared is not None and shared.roll(now):
            return shared
        if len(self.accounts) >= self._sweep_at:
            self.accounts = {value: account for value, account in self.accounts.items() if account.roll(now)}
            self._sweep_at = min(max(SWEEP_AT, 2 * len(self.accounts)), MAX_ACCOUNTS)
        if len(self.accounts) >= MAX_ACCOUNTS:
            logger.warning("budget %r: more than %d values share one cap", self.budget.label, MAX_ACCOUNTS)
            account = self.accounts[_SHARED] = self._make(self, OTHER, _SHARED)
        else:
            account = self.accounts[value] = self._make(self, value, value)
        return account


AccountKey: TypeAlias = str | tuple[()] | None
"""The value of a tag, or `()` for those that share one account."""
MakeAccount: TypeAlias = Callable[[Limit, str | None, AccountKey], Account]
"""A function that makes an account of a limit, for a scope, under a key."""


def _make_account(limit: Limit, scope: str | None, _: AccountKey) -> Account:
    return Account(limit, scope)
