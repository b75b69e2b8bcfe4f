"""Reservations: what runs hold in budgets. They are values that `Budgets` alone changes, under its lock."""

from collections.abc import Callable, Mapping, Sequence

from ..request import ModelRequest
from .accounts import Account, Hold, Limit

Notify = Callable[[str, str], None]
"""Takes what a notice is about, and what it says."""


class Scope:
    """The budgets that apply to a run, and what it has reserved in them. Made by `Budgets.scope`."""

    def __init__(
        self, limits: Sequence[Limit], pattern: str, tags: Mapping[str, str], run_id: str, parent: "Scope | None"
    ) -> None:
        self.run_id = run_id
        self.root: Scope = parent.root if parent else self
        self.patterns: frozenset[str] = (parent.patterns if parent else frozenset()) | {pattern}
        self.tags: Mapping[str, str] = {**parent.tags, **tags} if parent else tags
        self.limits = tuple(limit for limit in limits if limit.budget.applies(self.patterns, self.tags))
        self.can_wait = any(limit.is_awaited for limit in self.limits)
        """Whether one of them has requests wait."""
        self.reservations: set[Reservation] = set()
        """Those that have not ended."""
        self.run_accounts: dict[Limit, Account] = {}
        """The root run's own."""
        self.finished = False


class Reservation:
    """The upper bound of what a request can use, held until it has ended."""

    def __init__(self, scope: Scope, request: ModelRequest, holds: Sequence[Hold], notify: Notify) -> None:
        self.scope = scope
        self.request = request
        """As it may be sent."""
        self.holds = holds
        self.notify = notify
        self.taken = False
        """Whether a request uses it."""
        self.released = False
        """Whether it ended unused."""
        self.settled = False
        """Whether it is known what was spent, or as much as ever will be."""

    @property
    def is_live(self) -> bool:
        """Whether it holds room."""
        return not (self.released or self.settled)
