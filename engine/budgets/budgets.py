"""The budgets of an engine: reservations in accounts, all under one lock.

Each cap of a budget has an account, or one for each tag value or run. A reservation holds its part of every account
that applies to a run, or there is none: that is decided in one step. When its request has ended, what that used takes
its place. An account is no more than sums, by slots of time, so it takes the same room however many requests there
were.

Requests that may wait for what is only reserved stand in one line. Whatever frees room admits, from its front, those
that there is room for, and refuses those that no release can help. One that waits holds up those behind it in the
accounts that it lacks room in, and in no others.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from decimal import Decimal
from functools import partial

import msgspec

from ..clock import Clock
from ..errors import BudgetExceeded, ConfigurationError, UnboundedRequest
from ..events import TokenUsage
from ..formats import format_amount
from ..request import ModelRequest
from .accounts import Account, Hold, Limit
from .budget import NEVER, Budget, BudgetStatus
from .lease_reports import key_of
from .leased_account import LeasedAccount
from .leases import Leases
from .request_limits import MIN_OUTPUT_TOKENS, NAMED_TIER, Need, Prices, limited, max_output_tokens, tokens_of, ways_out
from .reservation import Notify, Reservation, Scope
from .spending import Spending
from .waiting_line import Line, Waiter

logger = logging.getLogger("runmeter")

SHORTEST_WAIT = 0.001
"""Seconds between two looks at a clock that may not be that of the event loop."""
_ZERO, _ONE = Decimal(0), Decimal(1)


Room = Callable[[Account, Decimal], bool]
"""A function that tells whether an account has room for an amount."""


class Budgets:
    """The budgets of an engine. Safe from any thread; it takes time by the number of budgets that apply, not of runs.

    Raises:
        ConfigurationError: something is not a `Budget`, or two have the same label.
    """

    def __init__(
        self, budgets: Sequence[Budget], prices: Prices, clock: Clock, assumed_tier: str | None = None
    ) -> None:
        given: object = budgets
        if not isinstance(given, Sequence) or not all(isinstance(budget, Budget) for budget in given):
            raise ConfigurationError(f"budgets is a list of Budget, not {given!r}")
        labels = [budget.label for budget in budgets]
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigurationError(f"two budgets are called {label!r}: give them names")
        shared = [key_of(budget, "calls") for budget in budgets if budget.shared]
        if len(set(shared)) < len(shared):
            raise ConfigurationError("two shared budgets count the same: make them one, or give them names")
        self.given = tuple(budgets)
        self.prices = prices
        # Reentrant, since the garbage collector may end a run, and a signal handler ask for the status, in the middle
        # of what its own thread does here. So settlements queue, and nothing is changed while `_busy`.
        self.lock = threading.RLock()
        self._busy = False
        self._settlements: deque[Callable[[], None]] = deque()
        self._notices: list[Callable[[], None]] = []
        self._line = Line()
        self._clock = clock
        self.leases = Leases(self._undisturbed, self._line.freed, clock) if shared else None
        """What it has leased of shared budgets; None if it has none."""
        self.limits = tuple(
            Limit(budget, kind, cap, self.leases.account if budget.shared and self.leases else None)
            for budget in budgets
            for kind, cap in budget.caps
        )
        self.assumed_tier = assumed_tier
        self._roots: set[Scope] = set()

    def scope(self, pattern: str, tags: Mapping[str, str], run_id: str, parent: Scope | None) -> Scope:
        """Find the budgets that apply to a run."""
        return Scope(self.limits, pattern, tags, run_id, parent)

    def applies(self, pattern: str, tags: Mapping[str, str]) -> bool:
        """Tell whether a budget applies to a run that is not part of another."""
        return any(limit.budget.applies(frozenset((pattern,)), tags) for limit in self.limits)

    def restore(self, spending: Iterable[Spending]) -> None:
        """Begin with what was spent before, given in the order of slots. Of shared budgets the ledger knows it."""
        limits = {(limit.budget.label, limit.kind): limit for limit in self.limits if not limit.budget.shared}
        with self._undisturbed():
            now = self._clock.time_ns()
            for each in spending:
                if (limit := limits.get((each.label, each.kind))) is not None:
                    limit.account(each.scope, now).restore(each.start_ns, each.expires_ns, each.amount)

    def shared(self, spending: Iterable[Spending]) -> Mapping[str, Sequence[Spending]]:
        """Choose what was spent of shared budgets, by their keys. Each of these is in it."""
        keys = {
            (limit.budget.label, limit.kind): key_of(limit.budget, limit.kind)
            for limit in self.limits
            if limit.budget.shared
        }
        chosen: dict[str, list[Spending]] = {key: [] for key in keys.values()}
        for each in spending:
            if (key := keys.get((each.label, each.kind))) is not None:
                chosen[key].append(each)
        return chosen

    def finish(self, scope: Scope) -> None:
        """End a run's part: what it has not used is released, and what has not ended counts as spent, in full.

        Should such a request end all the same, `settle` puts that right.
        """
        with self.lock:
            scope.finished = True
            self._roots.discard(scope)
            open_reservations = tuple(scope.reservations)
        for reservation in open_reservations:
            self.release(reservation)
            if reservation.taken:
                self._put(reservation, [hold.asked for hold in reservation.holds], known=False)

    def reserve(self, scope: Scope, request: ModelRequest, notify: Notify, *, may_lower: bool) -> Reservation:
        """Reserve a request's upper bound in all budgets that apply to its run, or in none.

        Where a shared budget has leased too little, it blocks this thread until the ledger has answered.

        Args:
            scope: The run's.
            request: What is asked for.
            notify: Emits a notice on the run.
            may_lower: Whether the request can still be changed.

        Raises:
            BudgetExceeded: a budget has no room for it.
            UnboundedRequest: it has no known upper bound, and a budget needs one.
            BudgetUnavailable: a shared budget cannot lease anything from its ledger.
        """
        refused: set[Account] = set()
        while not isinstance(found := self.attempt(scope, request, notify, refused, may_lower=may_lower), Reservation):
            assert self.leases is not None  # noqa: S101 - nothing else is asked
            refused |= self.leases.ask_now(found)
        return found

    def attempt(
        self, scope: Scope, request: ModelRequest, notify: Notify, refused: Set[Account], *, may_lower: bool
    ) -> Reservation | Mapping[LeasedAccount, Decimal]:
        """Reserve a request's upper bound, or tell what is to be leased first: more room, in these accounts.

        Args:
            refused: Accounts that have no more to lease.
            scope, request, notify, may_lower: As for `reserve`, which raises the same.
        """
        need = self._need(scope.limits, request, self._clock.time_ns())
        with self._undisturbed():
            now = self._clock.time_ns()  # under the lock, where only a clock that is set back reads less than before
            admitted = self._admit(scope, request, need, notify, now, None, refused, may_lower=may_lower)
        return admitted if isinstance(admitted, Reservation) else _leased(admitted, need)

    def lacking(self, waiter: Waiter) -> Mapping[LeasedAccount, Decimal]:
        """Find what is to be leased for a request that waits."""
        return _leased(waiter.short, waiter.need)

    def line_up(
        self, scope: Scope, request: ModelRequest, notify: Notify, wake: Callable[[], object], *, may_lower: bool
    ) -> Waiter:
        """Have a request stand in line for the reservation that `reserve` makes. It may have an outcome at once.

        Args:
            wake: Called once there is an outcome, from any thread. It must not raise.
            scope, request, notify, may_lower: As for `reserve`.

        Raises:
            UnboundedRequest: it has no known upper bound, and a budget needs one.
        """
        need = self._need(scope.limits, request, self._clock.time_ns())
        waiter = Waiter(scope, request, need, notify, wake, may_lower=may_lower)
        with self._undisturbed():
            self._line.join(waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Have a request wait no longer. A reservation made for it is released."""
        with self._undisturbed():
            self._line.leave(waiter)
        if isinstance(waiter.outcome, Reservation):
            self.release(waiter.outcome)

    def look_again(self, waiter: Waiter) -> float:
        """See whether time has made room, by ending windows. Gives the seconds until it might next."""
        with self._undisturbed():
            self._line.freed(*waiter.short)
        with self.lock:
            next_ns = min((account.expires_ns for account in waiter.short), default=NEVER)
        return math.inf if next_ns == NEVER else max(SHORTEST_WAIT, (next_ns - self._clock.time_ns()) / 1e9)

    def take(self, reservation: Reservation) -> bool:
        """Have a request use a reservation. Tell whether it can: only one request does."""
        with self.lock:
            if reservation.taken or reservation.released:
                return False
            reservation.taken = True
            return True

    def release(self, reservation: Reservation) -> None:
        """End a reservation that no request will use. Does nothing if one does."""
        with self.lock:
            if reservation.taken or reservation.released:
                return
            reservation.released = True
        self._put(reservation, [_ZERO] * len(reservation.holds), known=True)

    def settle(self, reservation: Reservation, event: TokenUsage) -> None:
        """Put the usage of a request that has ended in the place of its reservation."""
        holds = reservation.holds
        cost = self.prices.cost(event) if any(hold.account.limit.kind == "usd" for hold in holds) else None
        self._put(reservation, [hold.spent_by(event, cost) for hold in holds], known=True)

    def _put(self, reservation: Reservation, spent: Sequence[Decimal], *, known: bool) -> None:
        """Queue the amounts spent, for each account, to take the place of those reserved; at first, or if known now."""
        self._settlements.append(partial(self._settle, reservation, spent, known))
        self._catch_up()

    def status(self) -> tuple[BudgetStatus, ...]:
        """Make each cap's status, in the order of the budgets; of a budget with `per`, for each value or run in use."""
        with self._undisturbed() as alone:
            now = self._clock.time_ns()
            runs = [account for scope in self._roots.copy() for account in scope.run_accounts.values()]
            accounts = [
                account
                for limit in self.limits
                for account in (*limit.accounts.values(), *(own for own in runs if own.limit is limit))
            ]
            if alone:
                for account in accounts:
                    account.roll(now)
            return tuple(account.status(self._line.waiting_in(account)) for account in accounts)

    def _admit(
        self,
        scope: Scope,
        request: ModelRequest,
        need: Need,
        notify: Notify,
        now: int,
        taken: Set[Account] | None,
        refused: Set[Account],
        *,
        may_lower: bool,
    ) -> Reservation | Set[Account]:
        """Reserve a request's need, or tell which accounts it has to wait for, or has to lease more in.

        Args:
            taken: Accounts in which others are before it; None if it is not to wait.
            refused: Accounts that have no more to lease.
            scope, request, need, notify, now, may_lower: The run, its request with its upper bound, and the time.
        """
        accounts = [self._account(limit, scope, now) for limit in scope.limits]
        awaited = frozenset(() if taken is None else (each for each in accounts if each.limit.is_awaited))

        def fits(account: Account, amount: Decimal) -> bool:
            return account.allows(amount) if account in awaited else account.fits(amount)

        full = [account for account in accounts if not fits(account, need.of(account.limit.kind))]
        unleased = {
            each
            for each in full
            if isinstance(each, LeasedAccount) and not _is_full(each, need.of(each.limit.kind), refused, now)
        }
        if unleased:
            return unleased
        if full:
            lowered = self._lower(full, request, now, fits) if may_lower else None
            if lowered is None:
                self._tell("refused", scope, request, ((each, need.of(each.limit.kind)) for each in full))
                raise self._refusal(full, need, request, now, fits)
            request, need = lowered, self._need(scope.limits, lowered, now)
        short = {each for each in awaited if each in (taken or ()) or not each.fits(need.of(each.limit.kind))}
        if short:
            return short
        holds = [account.hold(need.of(account.limit.kind), now) for account in accounts]
        reservation = Reservation(scope, request, holds, notify, now)
        scope.reservations.add(reservation)
        decision = f"limited to {request.max_output_tokens} output tokens and reserved" if full else "reserved"
        self._tell(decision, scope, request, ((hold.account, hold.asked) for hold in holds))
        return reservation

    def _need(self, limits: Sequence[Limit], request: ModelRequest, now: int) -> Need:
        bound = request.bound
        tokens = tokens_of(bound)
        usd: Decimal | None = None
        if bound is not None and any(limit.kind == "usd" for limit in limits):
            tier = self._tier(request)
            usd = self.prices.upper_bound(request.provider, request.model, tier, bound, now)
        need = Need(usd, tokens, _ONE)
        for limit in limits:
            if getattr(need, limit.kind) is None:
                raise UnboundedRequest(limit.budget.label, limit.kind, request.model, bounded=bound is not None)
        return need

    def _tier(self, request: ModelRequest) -> str | None:
        """Find the tier that will serve a request; None where that is not known."""
        return self.assumed_tier if request.service_tier in (None, "auto") else request.service_tier

    def _admit_waiter(self, waiter: Waiter, now: int, taken: Set[Account]) -> Reservation | Set[Account]:
        admitted = self._admit(
            waiter.scope,
            waiter.request,
            waiter.need,
            waiter.notify,
            now,
            taken,
            waiter.refused,
            may_lower=waiter.may_lower,
        )
        if isinstance(admitted, Set) and not waiter.short:  # at first
            lacking = ((each, waiter.need.of(each.limit.kind)) for each in admitted)
            self._tell("waiting", waiter.scope, waiter.request, lacking)
        return admitted

    def _lower(self, full: Sequence[Account], request: ModelRequest, now: int, room: Room) -> ModelRequest | None:
        """Lower a request's `max_output_tokens` to the highest for which these accounts have room.

        Returns:
            The request, or None if there is no such limit, or one of the accounts is not to be fitted in that way.
        """
        limits = [account.limit for account in full]
        if any(limit.budget.when_exceeded == "refuse" for limit in limits):
            return None

        def fits(output_tokens: int) -> bool:
            need = self._need(limits, limited(request, output_tokens), now)
            return all(room(account, need.of(account.limit.kind)) for account in full)

        least, most = MIN_OUTPUT_TOKENS, max_output_tokens(request)
        if least >= most or not fits(least):
            return None
        while least < most:  # `least` fits
            middle = (least + most + 1) // 2
            least, most = (middle, most) if fits(middle) else (least, middle - 1)
        return limited(request, least)

    def _refusal(
        self, full: Sequence[Account], need: Need, request: ModelRequest, now: int, room: Room
    ) -> BudgetExceeded:
        """Make the error for a request that these accounts have no room for: of one that no lowering satisfies."""
        shortest = self._need([account.limit for account in full], limited(request, MIN_OUTPUT_TOKENS), now)
        hopeless = (
            account
            for account in full
            if account.limit.budget.when_exceeded == "refuse" or not room(account, shortest.of(account.limit.kind))
        )
        account = next(hopeless, full[0])
        account.refused += 1
        limit, amount = account.limit, need.of(account.limit.kind)
        ways = list(ways_out(request, limit.budget, limit.kind, is_only_reserved=account.allows(amount)))
        if self._tier(request) is None:
            named = self._need([limit], msgspec.structs.replace(request, service_tier="default"), now)
            if named.of(limit.kind) < amount:
                ways.append(NAMED_TIER)
        return account.exceeded(amount, ways)

    def _account(self, limit: Limit, scope: Scope, now: int) -> Account:
        per = limit.budget.per
        if per != "run":
            account = limit.account(None if per is None else scope.tags.get(per), now)
        else:
            root = scope.root
            found = root.run_accounts.get(limit)
            if found is None:
                found = root.run_accounts[limit] = Account(limit, root.run_id)
                if not root.finished:
                    self._roots.add(root)
            account = found
        account.roll(now)
        return account

    @contextmanager
    def _undisturbed(self) -> Iterator[bool]:
        """Hold the lock, and have the garbage collector's settlements wait. Yields whether it is the outermost one."""
        try:
            with self.lock:
                alone, self._busy = not self._busy, True
                try:
                    yield alone
                finally:
                    self._busy = not alone
        finally:
            self._catch_up()

    def _catch_up(self) -> None:
        """Apply the settlements, admit the waiting requests that they make room for, and wake and notify their runs."""
        while True:
            with self.lock:
                if self._busy:
                    return  # the call that is busy will do it
                self._busy = True
                try:
                    while self._settlements:
                        self._settlements.popleft()()
                    done = self._line.serve(self._clock.time_ns(), self._admit_waiter)
                finally:
                    self._busy = False
                notices, self._notices = self._notices, []
            # Outside the lock: waking may call back (`leave`), and a notice is published and logged, which takes the
            # locks of others.
            for waiter in done:
                waiter.wake()
            for notice in notices:
                notice()
            if not self._settlements:  # nor anything that the garbage collector settled at the last moment
                return

    def _settle(self, reservation: Reservation, spent: Sequence[Decimal], known: bool) -> None:
        if reservation.settled and not known:
            return
        reservation.settled = known
        reservation.scope.reservations.discard(reservation)
        now = self._clock.time_ns()
        for hold, amount in zip(reservation.holds, spent, strict=True):
            hold.settle(amount)
            hold.account.roll(now)
            self._line.freed(hold.account)
            if amount:
                self._watch(hold, amount, now, reservation.notify)
        accounts = (hold.account for hold in reservation.holds)
        decision = "settled" if known else "given up as spent"
        self._tell(decision, reservation.scope, reservation.request, zip(accounts, spent, strict=True))

    def _tell(
        self, decision: str, scope: Scope, request: ModelRequest, amounts: Iterable[tuple[Account, Decimal]]
    ) -> None:
        """Log a decision, once the lock is free."""
        if logger.isEnabledFor(logging.DEBUG):
            named = ", ".join(f"{account.label} {format_amount(account.limit.kind, each)}" for account, each in amounts)
            line = "run %s: a request to %s is %s: %s"
            self._notices.append(partial(logger.debug, line, scope.run_id, request.model, decision, named))

    def _watch(self, hold: Hold, amount: Decimal, now: int, notify: Notify) -> None:
        """Notify that a budget nears its end, or has passed it: each once a window."""
        account, limit = hold.account, hold.account.limit
        if (
            limit.warn_from is not None
            and account.total_spent >= limit.warn_from
            and not _is_in(account.warned_in, now)
        ):
            account.warned_in = limit.slots(now)
            self._notices.append(partial(notify, account.label, f"{account.progress} spent"))
        if amount > hold.asked and not account.fits(_ZERO) and not _is_in(account.overdrawn_in, now):
            account.overdrawn_in = limit.slots(now)
            logger.warning(
                "budget %r is overdrawn, %s spent: a request used %s, and was to use at most %s",
                account.label,
                account.progress,
                format_amount(limit.kind, amount),
                format_amount(limit.kind, hold.asked),
            )


def _leased(accounts: Iterable[Account], need: Need) -> Mapping[LeasedAccount, Decimal]:
    return {each: need.of(each.limit.kind) for each in accounts if isinstance(each, LeasedAccount)}


def _is_full(account: LeasedAccount, amount: Decimal, refused: Set[Account], now: int) -> bool:
    """Tell whether an amount is known to be too much for all that could be leased."""
    return account.is_full(amount, now) or (account in refused and account.seems_full(amount))


def _is_in(window: tuple[int, int], now: int) -> bool:
    start, end = window
    return start <= now < end
