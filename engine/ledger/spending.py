"""What budgets have spent, kept in the ledger: sums by budget, tag's value and slot of the window, folded from events.

Caps and names have no part in it: what is spent is the same whatever the cap. So a budget whose cap was raised begins
with what is spent, and all processes fold the same sums, whichever of them has the budget.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Literal, NamedTuple

import msgspec

from ..budgets.budget import NEVER, Budget, Period, Window
from ..budgets.request_limits import tokens_of
from ..budgets.spending import Spending, spent_by
from ..events import ModelCallStarted, TokenUsage
from ..formats import Kind
from ..prices.price_book import PriceBook
from ..prices.units import MONEY
from .days import decode_tags, read_runs
from .stored_events import decode_events

KINDS: tuple[Kind, ...] = ("usd", "tokens", "calls")
_ZERO, _ONE = Decimal(0), Decimal(1)


class BudgetTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """The terms of a budget that decide what counts in it, and when: all but its caps and its name."""

    every: Period | int
    """An `int`: nanoseconds."""
    window: Literal["fixed", "rolling"] = "fixed"
    pattern: str | None = None
    tags: Mapping[str, str] = {}
    per: str | None = None

    @property
    def budget(self) -> Budget:
        """A budget of these terms."""
        every = timedelta(microseconds=self.every // 1_000) if isinstance(self.every, int) else self.every
        return Budget(calls=0, every=every, window=self.window, pattern=self.pattern, tags=self.tags, per=self.per)


_encode_terms = msgspec.json.Encoder(order="sorted").encode
_decode_terms = msgspec.json.Decoder(BudgetTerms).decode
encode_scope = msgspec.json.Encoder().encode
decode_scope = msgspec.json.Decoder(str | None).decode


def terms_of(budget: Budget) -> str | None:
    """Write down a budget's terms; None of one whose spending does not outlive its run or its engine."""
    every = budget.every
    if every is None or budget.per == "run":
        return None
    length = every // timedelta(microseconds=1) * 1_000 if isinstance(every, timedelta) else every
    terms = BudgetTerms(length, budget.window, budget.pattern, budget.tags, budget.per)
    return _encode_terms(terms).decode()


class SpendingPlace(NamedTuple):
    """A place where spending is summed up."""

    terms: str
    """The budget's, as `terms_of` writes them down."""
    scope: str | None
    start_ns: int
    expires_ns: int


Amounts = tuple[Decimal, ...]
"""What was spent of each kind, in the order of `KINDS`."""
NOTHING: Amounts = (_ZERO,) * len(KINDS)


def add_amounts(some: Amounts, others: Amounts) -> Amounts:
    """Add amounts kind by kind, exactly."""
    return tuple(map(MONEY.add, some, others))


class _Counted(NamedTuple):
    """A budget that a run counts in."""

    terms: str
    scope: str | None
    slots: Window


class _RunScope(NamedTuple):
    """What decides which budgets apply to a run: its own and its parents' patterns, and its tags with theirs."""

    patterns: frozenset[str]
    tags: Mapping[str, str]


_NO_RUN = _RunScope(frozenset(), {})


class SpendingFold:
    """Folds requests into the spending of budgets, as their budgets count it live.

    Args:
        connection: The ledger, to look up the runs and the bounds of requests.
        prices: What tokens cost.
        terms: Those of the budgets.
        assumed_tier: The service tier of requests that name none.
    """

    def __init__(
        self, connection: sqlite3.Connection, prices: PriceBook, terms: Iterable[str], assumed_tier: str | None
    ) -> None:
        self._connection = connection
        self._prices = prices
        self._assumed_tier = assumed_tier
        self._budgets = [(each, budget := _decode_terms(each).budget, budget.slots()) for each in terms]
        self._scopes: dict[str, _RunScope] = {}
        self._counted: dict[str, Sequence[_Counted]] = {}
        self.amounts: dict[SpendingPlace, Amounts] = {}
        """What was spent in each place."""

    def fold(self, ends: Sequence[TokenUsage]) -> None:
        """Count requests that have ended."""
        self._look_up({event.run_id for event in ends})
        for event in ends:
            if counted := self._counted[event.run_id]:
                at_ns = event.start_ns if event.reserved_ns is None else event.reserved_ns
                self._count(counted, at_ns, self._spent(event))

    def fold_bounds(self, requests: Sequence[ModelCallStarted]) -> None:
        """Count requests that have not ended: as much as they may use."""
        self._look_up({event.run_id for event in requests})
        for event in requests:
            at_ns = event.time_ns if event.reserved_ns is None else event.reserved_ns
            self._count(self._counted[event.run_id], at_ns, self._bound(event))

    def _count(self, counted: Sequence[_Counted], at_ns: int, spent: Amounts) -> None:
        for terms, scope, slots in counted:
            place = SpendingPlace(terms, scope, *slots(at_ns))
            self.amounts[place] = add_amounts(self.amounts.get(place, NOTHING), spent)

    def _spent(self, event: TokenUsage) -> Amounts:
        cost = self._prices.cost(event)
        spent = [spent_by(kind, event, cost) for kind in KINDS]
        bound = NOTHING if all(each.is_known for each in spent) else self._bound(self._start_of(event))
        return tuple(each.within(most) for each, most in zip(spent, bound, strict=True))

    def _bound(self, event: ModelCallStarted | None) -> Amounts:
        """Compute a request's upper bound, as it was reserved. What has none counts as nothing: it is not known."""
        if event is None or event.bound is None:
            return _ZERO, _ZERO, _ONE
        tier = self._assumed_tier if event.service_tier in (None, "auto") else event.service_tier
        at_ns = event.time_ns if event.reserved_ns is None else event.reserved_ns
        usd = self._prices.upper_bound(event.provider, event.model, tier, event.bound, at_ns)
        return usd or _ZERO, tokens_of(event.bound) or _ZERO, _ONE

    def _start_of(self, event: TokenUsage) -> ModelCallStarted | None:
        row = self._connection.execute(
            "SELECT data FROM events WHERE run = (SELECT id FROM runs WHERE run_id = ?) AND seq = ?",
            (event.run_id, event.call_id),
        ).fetchone()
        start = next(iter(decode_events(self._connection, row or ())), None)
        return start if isinstance(start, ModelCallStarted) else None

    def _look_up(self, run_ids: set[str]) -> None:
        """Find the budgets that runs count in, by their parents as well."""
        wanted, chains = run_ids - self._counted.keys(), dict[str, tuple[str | None, str | None, str]]()
        asked = wanted
        while asked:
            found = read_runs(self._connection, sorted(asked))
            chains.update((run_id, (parent, pattern, tags)) for run_id, parent, pattern, _, tags, _ in found)
            asked = {parent for _, parent, *_ in found if parent} - self._scopes.keys() - chains.keys()
        for run_id in chains:
            self._enter(run_id, chains)
        for run_id in wanted:
            scope = self._scopes.get(run_id, _NO_RUN)
            self._counted[run_id] = [
                _Counted(terms, None if budget.per is None else scope.tags.get(budget.per), slots)
                for terms, budget, slots in self._budgets
                if budget.applies(scope.patterns, scope.tags)
            ]

    def _enter(self, run_id: str, chains: Mapping[str, tuple[str | None, str | None, str]]) -> None:
        """Enter a run's scope, after those of the runs that it is within."""
        path = [run_id]
        while (above := chains[path[-1]][0]) and above in chains and above not in self._scopes and above not in path:
            path.append(above)
        for each in reversed(path):
            if each not in self._scopes:
                parent, pattern, tags = chains[each]
                outer = self._scopes.get(parent or "", _NO_RUN)
                own = frozenset() if pattern is None else frozenset((pattern,))
                self._scopes[each] = _RunScope(outer.patterns | own, {**outer.tags, **decode_tags(tags)})


def read_ends(connection: sqlite3.Connection, after: int, through: int, since_ns: int = 0) -> list[TokenUsage]:
    """Read the ends of requests among events.

    Args:
        connection: The ledger.
        after: The number of the last event that is not wanted.
        through: That of the last one that is.
        since_ns: The time before which none is wanted.
    """
    rows = connection.execute(
        "SELECT data FROM events WHERE id > ? AND id <= ? AND kind = 'token_usage' AND time_ns >= ? ORDER BY id",
        (after, through, since_ns),
    )
    return [event for event in decode_events(connection, (data for (data,) in rows)) if isinstance(event, TokenUsage)]


def read_spending(connection: sqlite3.Connection, terms: str, now_ns: int) -> Iterator[tuple[SpendingPlace, Amounts]]:
    """Read what is folded of a budget's spending, as far as it still counts."""
    rows = connection.execute(
        "SELECT scope, start_ns, budget_spending.expires_ns, usd, tokens, calls FROM budget_spending"
        " JOIN budgets ON budgets.id = budget WHERE terms = ? AND budget_spending.expires_ns > ?",
        (terms, now_ns),
    )
    for scope, start_ns, expires_ns, *amounts in rows:
        yield SpendingPlace(terms, decode_scope(scope), start_ns, expires_ns), tuple(map(Decimal, amounts))


def spending_of(
    budgets: Sequence[Budget], amounts: Iterable[tuple[SpendingPlace, Amounts]], now_ns: int
) -> Sequence[Spending]:
    """Sum up what budgets have spent that still counts, in the order of slots."""
    sums: dict[SpendingPlace, Amounts] = {}
    for place, spent in amounts:
        if place.expires_ns > now_ns:
            sums[place] = add_amounts(sums.get(place, NOTHING), spent)
    return [
        Spending(budget.label, kind, place.scope, place.start_ns, place.expires_ns, spent[KINDS.index(kind)])
        for place, spent in sorted(sums.items(), key=_by_time)
        for budget in budgets
        if terms_of(budget) == place.terms
        for kind, _ in budget.caps
    ]


def oldest_ns(terms: str, now_ns: int) -> int:
    """Find a time before which nothing still counts."""
    start_ns, expires_ns = _decode_terms(terms).budget.slots()(now_ns)
    return now_ns - (expires_ns - start_ns) if expires_ns < NEVER else 0


def _by_time(item: tuple[SpendingPlace, Amounts]) -> int:
    return item[0].start_ns
