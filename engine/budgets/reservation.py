"""Reservations: amounts that runs hold in budgets. They are values that `Budgets` alone changes, under its lock."""

from collections.abc import Callable, Mapping, Sequence

from ..request import ModelRequest
from .accounts import Account, Hold, Limit

Notify = Callable[[str, str], None]
"""A function that takes a notice's subject, and its message."""


class Scope:
    """The budgets that apply to a run, and the run's reservations in them. Made by `Budgets.scope`."""

    def __init__(
        self, limits: Sequence[Limit], pattern: str, tags: Mapping[str, str], run_id: str, parent: "Scope | None"
    ) -> None:
        self.run_id = run_id
        self.root: Scope = parent.root if parent else self
        self.patterns: frozenset[str] = (parent.patterns if parent else frozenset()) | {pattern}
        self.tags: Mapping[str, str] = {**parent.tags, **tags} if parent else tags
        self.limits = tuple(limit for limit in limits if limit.budget.applies(self.patterns, self.tags))
        self.can_wait = any(limit.is_awaited for limit in self.limits)
        """True if one of them has requests wait."""
        self.is_leased = any(limit.budget.shared for limit in self.limits)
        """True if one of them is shared with other processes."""
        self.reservations: set[Reservation] = set()
        """The run's reservations that have not ended."""
        self.run_accounts: dict[Limit, Account] = {}
        """Accounts of the root run alone, by limit."""
        self.finished = False


class Reservation:
    """The upper bound of a request, held until the request has ended."""

    def __init__(
        self, scope: Scope, request: ModelRequest, holds: Sequence[Hold], notify: Notify, made_ns: int
    ) -> None:
        self.scope = scope
        self.request = request
        """The request as it may be sent."""
        self.holds = holds
        self.notify = notify
        self.made_ns = made_ns
        """The time that it was made, in nanoseconds since the Unix epoch."""
        self.taken = False
        """True once a request uses it."""
        self.released = False
        """True once it ended unused."""
        self.settled = False
        """True once it is known what was spent, or as much as ever will be."""

    @property
    def is_live(self) -> bool:
        """The reservation still holds room."""
        return not (self.released or self.settled)
