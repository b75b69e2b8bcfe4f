"""Processes that share budgets, without threads: each has its connection to one ledger, and is tended by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from budget_support import FlatPrices, request

from runmeter.engine import Budget, ModelRequest, TokenUsage, Usage
from runmeter.engine.budgets.budgets import Budgets
from runmeter.engine.budgets.leases import Ask
from runmeter.engine.budgets.reservation import Reservation
from runmeter.engine.errors import BudgetExceeded
from runmeter.engine.events import Provenance
from runmeter.engine.ledger.lease_table import LeaseTable
from runmeter.engine.ledger.ledger_file import LedgerFile
from runmeter.engine.testing import ManualClock


class Member:
    """A process of a fleet."""

    def __init__(self, path: Path, budgets: Sequence[Budget], clock: ManualClock) -> None:
        self.budgets = Budgets(budgets, FlatPrices(), clock)
        self.store = LedgerFile(path, clock)
        self.table = LeaseTable(self.store, self.budgets.shared(()))
        assert self.budgets.leases is not None
        self.leases = self.budgets.leases
        self.leases.open(self.table, lambda: None)
        self.is_stopped = False
        self.exchanges = 0

    def tend(self) -> None:
        """Do what the ledger's thread does when it is woken, or after a while."""
        if not self.is_stopped:
            self.leases.tend()

    def leave(self) -> None:
        """End in good order."""
        self.leases.tend(closing=True)
        self.store.close()

    def die(self) -> None:
        """End without a word."""
        self.store.connection.close()
        self.is_stopped = True


class Fleet:
    """Processes that share budgets."""

    def __init__(self, path: Path, *budgets: Budget, size: int = 2) -> None:
        self.path = path
        self.given = budgets
        self.clock = ManualClock()
        self.members = [Member(path, budgets, self.clock) for _ in range(size)]

    def add(self) -> Member:
        """Have another process join."""
        self.members.append(member := Member(self.path, self.given, self.clock))
        return member

    def tend(self) -> None:
        """Have each process's ledger do what is due."""
        for member in self.members:
            member.tend()

    def reserve(self, member: Member, asked: ModelRequest | None = None, **tags: str) -> Reservation | BudgetExceeded:
        """Reserve a request, as a process does that waits for its ledger; time goes on while others are silent."""
        scope = member.budgets.scope("support", tags, "1" * 32, None)
        refused: set[Any] = set()
        while True:
            try:
                found = member.budgets.attempt(scope, asked or request(), _ignore, refused, may_lower=False)
            except BudgetExceeded as error:
                return error
            if isinstance(found, Reservation):
                assert member.budgets.take(found)
                return found
            ask = Ask(found, lambda: None)
            member.leases.ask(ask)
            while ask.open and ask.error is None:
                self.tend()
                if any(each.is_stopped for each in self.members):
                    self.clock.advance(0.5)
            try:
                refused |= ask.outcome()
            except BudgetExceeded as error:
                return error

    def is_refused(self, member: Member, asked: ModelRequest | None = None, **tags: str) -> bool:
        """Whether a request is refused. One that is not is given back."""
        reservation = self.reserve(member, asked, **tags)
        if isinstance(reservation, BudgetExceeded):
            return True
        settle(member, reservation, Usage())
        return False

    def close(self) -> None:
        """Have those end that are left."""
        for member in self.members:
            if not member.is_stopped:
                member.leave()


def settle(member: Member, reservation: Reservation | BudgetExceeded, usage: Usage) -> None:
    """End a request that has used this."""
    assert isinstance(reservation, Reservation)
    member.budgets.settle(
        reservation,
        TokenUsage(
            run_id="1" * 32,
            seq=1,
            time_ns=reservation.made_ns,
            call_id=0,
            provider="openai",
            operation="chat",
            model="gpt-6-luna",
            provenance=Provenance.REPORTED,
            usage=usage,
            start_ns=reservation.made_ns,
            duration_ns=1,
        ),
    )


def _ignore(subject: str, message: str) -> None:
    pass
