"""The line of requests that wait for room which is only reserved: first come, first served, account by account."""

from bisect import insort
from collections.abc import Callable, Sequence, Set
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TypeAlias

from ..request import ModelRequest
from .accounts import Account
from .request_limits import Need
from .reservation import Notify, Reservation, Scope

_NOWHERE: Set[Account] = frozenset()


class Waiter:
    """A request in line, and its outcome.

    Args:
        scope: Its run's.
        request: What is asked for.
        need: Its upper bound.
        notify: Emits a notice on its run.
        wake: Called once there is an outcome, from any thread. It must not raise.
        may_lower: Whether the request can still be changed.
    """

    def __init__(
        self,
        scope: Scope,
        request: ModelRequest,
        need: Need,
        notify: Notify,
        wake: Callable[[], object],
        *,
        may_lower: bool,
    ) -> None:
        self.scope = scope
        self.request = request
        self.need = need
        self.notify = notify
        self.wake = wake
        self.may_lower = may_lower
        self.number = -1
        """The request's place by arrival."""
        self.short: Set[Account] = _NOWHERE
        """Accounts in which it lacks room, or others are before it, as it was when that was last looked at."""
        self.refused: Set[Account] = _NOWHERE
        """Accounts of shared budgets that had no more to lease."""
        self.outcome: Reservation | Exception | None = None


Admit: TypeAlias = Callable[[Waiter, int, Set[Account]], Reservation | Set[Account]]
"""A function that takes a request, the time, and the accounts in which others are before it. Gives its reservation, or
the accounts in which it lacks room; raises the refusal."""


class Line:
    """The waiting requests in order of arrival. It takes no lock: `Budgets` does, around all of it.

    Those that lack room in the same accounts form a group. A group whose first has to wait waits as a whole, so that a
    look takes time by the number of groups, not of those that wait.
    """

    def __init__(self) -> None:
        self._groups: dict[Set[Account], list[Waiter]] = {}
        """Waiting requests by the accounts in which they lack room; those not looked at yet lack it nowhere."""
        self._changed: set[Account] = set()
        """Accounts in which there may be more room, or one less before others, than when they were last looked at."""
        self._arrivals = count()

    def join(self, waiter: Waiter) -> None:
        """Add a request at the end of the line."""
        waiter.number = next(self._arrivals)
        self._insert(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Take a request out of the line, if it is still there."""
        if waiter in self._groups.get(waiter.short, ()):
            self._remove(waiter)
            self._changed |= waiter.short

    def freed(self, *accounts: Account) -> None:
        """Mark accounts, so that the requests that wait for room in them are looked at again."""
        if self._groups:
            self._changed.update(accounts)

    def waiting_in(self, account: Account) -> int:
        """Count the requests that wait for room in an account."""
        return sum(len(group) for key, group in self._groups.items() if account in key)

    def serve(self, now: int, admit: Admit) -> Sequence[Waiter]:
        """Admit the requests that there is room for, and refuse those whose turn it is and that no release can help.

        One that waits holds up those behind it where it lacks room, and nowhere else.

        Returns:
            The requests that wait no longer.
        """
        if not self._changed and _NOWHERE not in self._groups:
            return ()
        changed, self._changed = self._changed, set()
        taken: set[Account] = set()
        done: list[Waiter] = []
        firsts = [(group[0].number, key) for key, group in self._groups.items()]
        heapify(firsts)
        while firsts:
            _, key = heappop(firsts)
            if key and (key <= taken or key.isdisjoint(changed)):
                taken |= key
                continue
            waiter = self._groups[key][0]
            short = _try(waiter, now, taken, admit)
            taken |= short
            if short == key and key:
                continue
            self._remove(waiter)
            changed |= key
            waiter.short = short
            if waiter.outcome is None:
                self._insert(waiter)
            else:
                done.append(waiter)
            if key in self._groups:
                heappush(firsts, (self._groups[key][0].number, key))
        return done

    def _insert(self, waiter: Waiter) -> None:
        insort(self._groups.setdefault(waiter.short, []), waiter, key=_number)

    def _remove(self, waiter: Waiter) -> None:
        group = self._groups[waiter.short]
        group.remove(waiter)
        if not group:
            del self._groups[waiter.short]


def _number(waiter: Waiter) -> int:
    return waiter.number


def _try(waiter: Waiter, now: int, taken: Set[Account], admit: Admit) -> Set[Account]:
    """Try whether it is a request's turn. Gives the accounts in which it lacks room, if it has to wait."""
    try:
        admitted = admit(waiter, now, taken)
    except Exception as error:  # a refusal, or whatever prices may raise: it is this request's, and no other's
        waiter.outcome = error
        return _NOWHERE
    if isinstance(admitted, Set):
        return frozenset(admitted)
    waiter.outcome = admitted
    return _NOWHERE
