"""Accounts of shared budgets: an account spends within what it has leased of a cap that other processes spend too."""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import reduce
from typing import NamedTuple

from ..errors import BudgetUnavailable
from ..prices.units import MONEY
from .accounts import Account, Limit, Slot

FRESH_NS = 10**9
"""Nanoseconds for which what was told of other processes is believed without asking again."""
_ZERO, _HALF = Decimal(0), Decimal("0.5")
_add, _subtract = MONEY.add, MONEY.subtract


class SharedSlot(NamedTuple):
    """What the processes that share a cap have of it, in one slot of its window."""

    expires_ns: int
    spent: Decimal
    """The amount spent by all, as far as it was reported, with what one that has gone silent may have spent."""
    leased: Decimal
    """The amount that others have reserved, or may without asking."""


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Add amounts up, exactly."""
    return reduce(_add, amounts, _ZERO)


class LeasedAccount(Account):
    """The account of one cap that several processes share. What it has leased is `free`, reserved or spent.

    Args:
        limit: The cap.
        scope: As for any account.
        key: The names of the budget and of the account that all processes give them.
        wake: Has the lease renewed, as it runs low. It must not block.
    """

    __slots__ = (
        "_is_lapsed",
        "_shared",
        "_wake",
        "free",
        "is_low",
        "key",
        "low",
        "read_ns",
        "until_ns",
        "used",
        "used_ns",
    )

    is_leased = True

    def __init__(self, limit: Limit, scope: str | None, key: tuple[str, str], wake: Callable[[], None]) -> None:
        super().__init__(limit, scope)
        self.key = key
        self._wake = wake
        self._shared: Sequence[SharedSlot] = ()
        self._is_lapsed = True
        self.free = _ZERO
        """Room that is leased, and neither reserved nor spent."""
        self.until_ns = 0
        """The time from which on nothing more is reserved of it, unless the lease is renewed."""
        self.low = _ZERO
        """Room below which more is leased ahead of need."""
        self.is_low = False
        self.used = _ZERO
        """Room reserved since the lease was last renewed."""
        self.used_ns = 0
        """The time of the last reservation."""
        self.read_ns = 0
        """The time at which it was last told what others have."""

    def roll(self, now: int) -> bool:
        """Let go of what no longer counts, here and elsewhere. Tell whether anything is left."""
        self._is_lapsed = now >= self.until_ns
        if any(each.expires_ns <= now for each in self._shared):
            self._shared = [each for each in self._shared if each.expires_ns > now]
        return super().roll(now) or self.free > 0

    def fits(self, amount: Decimal) -> bool:
        """Tell whether an amount is within what is leased."""
        return not self._is_lapsed and amount <= self.free

    def allows(self, amount: Decimal) -> bool:
        """Tell whether there is room for an amount once all that is reserved or leased is free again."""
        return _add(self.total_spent, amount) <= self.limit.cap

    @property
    def total_spent(self) -> Decimal:
        """The amount spent by all processes, as far as it was told."""
        unreported = total(_subtract(slot.spent, slot.reported) for slot in self._slots)
        return _add(unreported, total(each.spent for each in self._shared))

    @property
    def total_reserved(self) -> Decimal:
        """The amount reserved by all processes, with the room that others have leased."""
        return _add(self.reserved, total(each.leased for each in self._shared))

    @property
    def slots(self) -> Sequence[Slot]:
        """The slots that count."""
        return self._slots

    @property
    def is_in_use(self) -> bool:
        """Whether it has anything leased, or something to report."""
        return bool(self.free or self.reserved) or any(slot.spent != slot.reported for slot in self._slots)

    def is_full(self, amount: Decimal, now: int) -> bool:
        """Tell whether an amount is known to be too much, without asking others again."""
        return now - self.read_ns < FRESH_NS and not self.allows(amount)

    def unavailable(self, amount: Decimal, reason: str) -> BudgetUnavailable:
        """Make the error for an amount that the ledger does not lease."""
        limit = self.limit
        spent, reserved = self.total_spent, self.total_reserved
        return BudgetUnavailable(limit.budget.label, self.scope, limit.kind, limit.cap, spent, reserved, amount, reason)

    def seems_full(self, amount: Decimal) -> bool:
        """Tell whether there is no room for an amount as far as it was told: not so once a window has ended since."""
        return _add(_add(self.total_spent, self.total_reserved), amount) > self.limit.cap

    def book(self, slot: Slot, reserved: Decimal, spent: Decimal) -> None:
        """Add to the sums, and take it out of what is free."""
        super().book(slot, reserved, spent)
        if not slot.live:
            return
        self.free = _subtract(self.free, _add(reserved, spent))
        if reserved > 0:
            self.used = _add(self.used, reserved)
            if self.free < self.low and not self.is_low:
                self.is_low = True
                self._wake()

    def keep(self, room: Decimal, now: int) -> Decimal:
        """Give up free room beyond this much, and all of a lease that has lapsed. Gives what is kept."""
        self.free = _ZERO if now >= self.until_ns else max(min(self.free, room), _ZERO)
        return self.free

    def renew(self, granted: Decimal, until_ns: int, shared: Sequence[SharedSlot], now: int) -> None:
        """Take more room, until a time, and what is told of all processes."""
        self.free = _add(self.free, granted)
        self.until_ns, self.read_ns = until_ns, now
        self._shared = shared
        self.low = MONEY.multiply(self.free, _HALF)
        self.is_low = False
        self.used = _ZERO
        self.roll(now)
