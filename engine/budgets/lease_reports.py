"""What a process and the ledger say to each other about the leases of shared budgets."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

import msgspec

from ..formats import Kind
from ..prices.units import MONEY
from .budget import Budget
from .leased_account import SharedSlot

encode = msgspec.json.Encoder(order="sorted").encode


def key_of(budget: Budget, kind: Kind) -> str:
    """Write down what makes a shared budget the same in all processes: all but its caps, and what it does at them."""
    every = budget.every if budget.every is None else str(budget.every)
    return encode([budget.name, budget.pattern, budget.tags, budget.per, every, budget.window, kind]).decode()


class SlotAmount(NamedTuple):
    """An amount in a slot of a window."""

    start_ns: int
    expires_ns: int
    amount: Decimal


def served(needed: Iterable[Decimal], room: Decimal) -> Sequence[Decimal]:
    """Choose the requests that there is room for, in their order."""
    chosen = []
    for amount in needed:
        if amount <= room:
            chosen.append(amount)
            room = MONEY.subtract(room, amount)
    return chosen


class LeaseReport(NamedTuple):
    """What a process reports of an account, and what it asks for."""

    budget: str
    """The budget's key, the same in all processes."""
    scope: str
    """The account's, likewise."""
    cap: Decimal
    is_whole: bool
    """Whether it counts in whole numbers."""
    spent: Sequence[SlotAmount]
    """What was spent since the last report."""
    reserved: Sequence[SlotAmount]
    """What is reserved now."""
    kept: Decimal
    """The free room that it keeps."""
    needed: Sequence[Decimal]
    """The room that requests wait for, what is kept included, in their order: each all of it."""
    ahead: Decimal
    """The room beyond that it would like to have."""
    takes_less: bool
    """Whether a request can do with less, where there is no more."""
    until_ns: int
    """The end of its lease."""
    expires_ns: int
    """The time from which on what was reserved before that end no longer counts."""
    round: int | None
    """The recall that its requests wait for; None before they do."""
    answered: int
    """The recall by others that it knows of: it keeps no more than it needs."""


class LeaseAnswer(NamedTuple):
    """The answer to a report."""

    granted: Decimal
    shared: Sequence[SharedSlot]
    is_short: bool = False
    """Whether less was granted than is needed."""
    round: int | None = None
    """The recall that was begun or goes on, where others may yet give room back; None where none will."""
    is_contested: bool = False
    """Others lack room: there is none to be leased ahead of need."""


class LeaseStore(Protocol):
    """The place where processes lease room: used by one thread of each."""

    def exchange(self, reports: Sequence[LeaseReport], now_ns: int) -> Sequence[LeaseAnswer]:
        """Take reports and give answers, in one transaction. Raises LedgerError if nothing was changed."""

    def recalled(self) -> Mapping[tuple[str, str], int]:
        """Find the accounts, by budget and scope, whose leases others ask to be given back: their last recalls."""
