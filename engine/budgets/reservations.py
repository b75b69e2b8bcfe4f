"""What holds budgets: reservations in ledgers, all under one lock.

Each cap of a budget has a ledger, or one for each tag value or run. A reservation holds its part of every ledger that
applies to a run, or there is none: that is decided in one step. When its request has ended, what that used takes its
place. A ledger is no more than sums, by slots of time, so it takes the same room however many requests there were.

Requests that may wait for what is only reserved stand in one line. Whatever frees room admits, from its front, those
that there is room for, and refuses those that no release can help. One that waits holds up those behind it in the
ledgers that it lacks room in, and in no others.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from decimal import Decimal
from functools import partial

from ..calls import ModelRequest
from ..clock import Clock
from ..errors import BudgetExceeded, ConfigurationError, UnboundedRequest, format_amount
from ..events import TokenUsage
from .accounts import Hold, Ledger, Limit
from .budget import NEVER, Budget, BudgetStatus
from .request_limits import MIN_OUTPUT_TOKENS, Need, Prices, limited, max_output_tokens, tokens_of, ways_out
from .waiting_line import Line, Waiter

logger = logging.getLogger("runmeter")

SHORTEST_WAIT = 0.001
"""Seconds between two looks at a clock that may not be that of the event loop."""
_ZERO, _ONE = Decimal(0), Decimal(1)


Notify = Callable[[str, str], None]
"""Takes what a notice is about, and what it says."""
Room = Callable[[Ledger, Decimal], bool]
"""Whether a ledger has room for so much."""


class Scope:
    """Which budgets apply to a run, and what it has reserved in them. Made by `Budgets.scope`."""

    def __init__(
        self, budgets: "Budgets", pattern: str, tags: Mapping[str, str], run_id: str, parent: "Scope | None"
    ) -> None:
        self.budgets = budgets
        self.run_id = run_id
        self.root: Scope = parent.root if parent else self
        self.patterns: frozenset[str] = (parent.patterns if parent else frozenset()) | {pattern}
        self.tags: Mapping[str, str] = {**parent.tags, **tags} if parent else tags
        self.limits = tuple(limit for limit in budgets.limits if limit.budget.applies(self.patterns, self.tags))
        self.can_wait = any(limit.is_awaited for limit in self.limits)
        """Whether one of them has requests wait."""
        self.reservations: set[Reservation] = set()
        """Those that have not ended."""
        self.run_ledgers: dict[Limit, Ledger] = {}
        """The root run's own."""
        self.finished = False

    def finish(self) -> None:
        """The run is over: what it has not used is released, and what has not ended counts as spent, in full."""
        for reservation in self.budgets.end_of(self):
            reservation.abandon()


class Reservation:
    """What a request can use at the most, held until it has ended."""

    def __init__(self, scope: Scope, request: ModelRequest, holds: Sequence[Hold], notify: Notify) -> None:
        self.scope = scope
        self.request = request
        """As it may be sent."""
        self.holds = holds
        self.notify = notify
        self.taken = False
        self.released = False
        self.settled = False
        """Whether it is known what was spent, or as much as ever will be."""

    @property
    def is_live(self) -> bool:
        """Whether it holds room."""
        return not (self.released or self.settled)

    def take(self) -> bool:
        """Have a request use it. Says whether it can: only one request does."""
        with self.scope.budgets.lock:
            if self.taken or self.released:
                return False
            self.taken = True
            return True

    def release(self) -> None:
        """No request will use it. Does nothing if one does."""
        with self.scope.budgets.lock:
            if self.taken or self.released:
                return
            self.released = True
        self.scope.budgets.settle(self, [_ZERO] * len(self.holds), known=True)

    def settle(self, event: TokenUsage) -> None:
        """Its request has ended."""
        budgets = self.scope.budgets
        cost = budgets.prices.cost(event) if any(hold.ledger.limit.kind == "usd" for hold in self.holds) else None
        budgets.settle(self, [hold.spent_by(event, cost) for hold in self.holds], known=True)

    def abandon(self) -> None:
        """Its run is over. Should its request end all the same, `settle` puts that right."""
        self.release()
        if self.taken:
            self.scope.budgets.settle(self, [hold.asked for hold in self.holds], known=False)


class Budgets:
    """The budgets of an engine. Safe from any thread; it takes time by the number of budgets that apply, not of runs.

    Raises:
        ConfigurationError: something is no `Budget`, or two have the same label.
    """

    def __init__(self, budgets: Sequence[Budget], prices: Prices, clock: Clock) -> None:
        given: object = budgets
        if not isinstance(given, Sequence) or not all(isinstance(budget, Budget) for budget in given):
            raise ConfigurationError(f"budgets is a list of Budget, not {given!r}")
        labels = [budget.label for budget in budgets]
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigurationError(f"two budgets are called {label!r}: give them names")
        self.prices = prices
        self.limits = tuple(Limit(budget, kind, cap) for budget in budgets for kind, cap in budget.caps)
        # Reentrant, since the garbage collector may end a run, and a signal handler ask for the status, in the middle
        # of what its own thread does here. So settlements queue, and nothing is changed while `_busy`.
        self.lock = threading.RLock()
        self._busy = False
        self._settlements: deque[Callable[[], None]] = deque()
        self._notices: list[Callable[[], None]] = []
        self._line = Line()
        self._clock = clock
        self._roots: set[Scope] = set()

    def scope(self, pattern: str, tags: Mapping[str, str], run_id: str, parent: Scope | None) -> Scope:
        """What applies to a run."""
        return Scope(self, pattern, tags, run_id, parent)

    def reserve(self, scope: Scope, request: ModelRequest, notify: Notify, *, may_lower: bool) -> Reservation:
        """Reserve the most that a request can use in all budgets that apply to its run, or in none.

        Args:
            scope: The run's.
            request: What is asked for.
            notify: Emits a notice on the run.
            may_lower: Whether the request can still be changed.

        Raises:
            BudgetExceeded: a budget has no room for it.
            UnboundedRequest: the most that it can use is not known, and a budget must know.
        """
        now = self._clock.time_ns()
        need = self._need(scope.limits, request, now)
        with self._undisturbed():
            admitted = self._admit(scope, request, need, notify, now, None, may_lower=may_lower)
        assert isinstance(admitted, Reservation)  # noqa: S101 - it was not to wait
        return admitted

    def line_up(
        self, scope: Scope, request: ModelRequest, notify: Notify, wake: Callable[[], object], *, may_lower: bool
    ) -> Waiter:
        """Have a request stand in line for what `reserve` reserves. It may have an outcome at once.

        Args:
            wake: Called once there is an outcome, from any thread. It must not raise.
            scope, request, notify, may_lower: As for `reserve`.

        Raises:
            UnboundedRequest: the most that it can use is not known, and a budget must know.
        """
        need = self._need(scope.limits, request, self._clock.time_ns())
        waiter = Waiter(scope, request, need, notify, wake, may_lower=may_lower)
        with self._undisturbed():
            self._line.join(waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Have a request wait no longer. What was reserved for it is released."""
        with self._undisturbed():
            self._line.leave(waiter)
        if isinstance(waiter.outcome, Reservation):
            waiter.outcome.release()

    def look_again(self, waiter: Waiter) -> float:
        """See whether time has made room, by ending windows. Gives the seconds until it might next."""
        with self._undisturbed():
            self._line.freed(*waiter.short)
        with self.lock:
            next_ns = min((ledger.expires_ns for ledger in waiter.short), default=NEVER)
        return math.inf if next_ns == NEVER else max(SHORTEST_WAIT, (next_ns - self._clock.time_ns()) / 1e9)

    def settle(self, reservation: Reservation, spent: Sequence[Decimal], *, known: bool) -> None:
        """Put what was spent, in each ledger, in the place of what was reserved; at first, or if it is known now."""
        self._settlements.append(partial(self._settle, reservation, spent, known))
        self._catch_up()

    def end_of(self, scope: Scope) -> Sequence[Reservation]:
        """Forget a run that is over. Gives back its reservations that have not ended."""
        with self.lock:
            scope.finished = True
            self._roots.discard(scope)
            return tuple(scope.reservations)

    def status(self) -> tuple[BudgetStatus, ...]:
        """How each cap stands, in the order of the budgets; of a budget with `per`, for each value or run in use."""
        now = self._clock.time_ns()
        with self._undisturbed() as alone:
            runs = [ledger for scope in self._roots.copy() for ledger in scope.run_ledgers.values()]
            ledgers = [
                ledger
                for limit in self.limits
                for ledger in (*limit.ledgers.values(), *(own for own in runs if own.limit is limit))
            ]
            if alone:
                for ledger in ledgers:
                    ledger.roll(now)
            return tuple(ledger.status(self._line.waiting_in(ledger)) for ledger in ledgers)

    def _admit(
        self,
        scope: Scope,
        request: ModelRequest,
        need: Need,
        notify: Notify,
        now: int,
        taken: Set[Ledger] | None,
        *,
        may_lower: bool,
    ) -> Reservation | Set[Ledger]:
        """Reserve what a request needs, or say which ledgers it has to wait for.

        Args:
            taken: Ledgers in which others are before it; None if it is not to wait.
            scope, request, need, notify, now, may_lower: Whose, what, how much at the most, and when.
        """
        ledgers = [self._ledger(limit, scope, now) for limit in scope.limits]
        awaited = frozenset(() if taken is None else (each for each in ledgers if each.limit.is_awaited))

        def fits(ledger: Ledger, amount: Decimal) -> bool:
            return ledger.allows(amount) if ledger in awaited else ledger.fits(amount)

        full = [ledger for ledger in ledgers if not fits(ledger, need.of(ledger.limit.kind))]
        if full:
            lowered = self._lower(full, request, now, fits) if may_lower else None
            if lowered is None:
                self._tell("refused", scope, request, ((each, need.of(each.limit.kind)) for each in full))
                raise self._refusal(full, need, request, now, fits)
            request, need = lowered, self._need(scope.limits, lowered, now)
        short = {each for each in awaited if each in (taken or ()) or not each.fits(need.of(each.limit.kind))}
        if short:
            return short
        holds = [ledger.hold(need.of(ledger.limit.kind), now) for ledger in ledgers]
        reservation = Reservation(scope, request, holds, notify)
        scope.reservations.add(reservation)
        decision = f"limited to {request.max_output_tokens} output tokens and reserved" if full else "reserved"
        self._tell(decision, scope, request, ((hold.ledger, hold.asked) for hold in holds))
        return reservation

    def _need(self, limits: Sequence[Limit], request: ModelRequest, now: int) -> Need:
        bound = request.bound
        tokens = tokens_of(bound)
        usd: Decimal | None = None
        if bound is not None and any(limit.kind == "usd" for limit in limits):
            usd = self.prices.upper_bound(request.provider, request.model, request.service_tier, bound, now)
        need = Need(usd, tokens, _ONE)
        for limit in limits:
            if getattr(need, limit.kind) is None:
                raise UnboundedRequest(limit.budget.label, limit.kind, request.model, bounded=bound is not None)
        return need

    def _admit_waiter(self, waiter: Waiter, now: int, taken: Set[Ledger]) -> Reservation | Set[Ledger]:
        admitted = self._admit(
            waiter.scope, waiter.request, waiter.need, waiter.notify, now, taken, may_lower=waiter.may_lower
        )
        if isinstance(admitted, Set) and not waiter.short:  # at first
            lacking = ((each, waiter.need.of(each.limit.kind)) for each in admitted)
            self._tell("waiting", waiter.scope, waiter.request, lacking)
        return admitted

    def _lower(self, full: Sequence[Ledger], request: ModelRequest, now: int, room: Room) -> ModelRequest | None:
        """The request with the highest `max_output_tokens` for which these ledgers have room; None if there is none, or
        one of them is not to be fitted in that way."""
        limits = [ledger.limit for ledger in full]
        if any(limit.budget.when_exceeded == "refuse" for limit in limits):
            return None

        def fits(output_tokens: int) -> bool:
            need = self._need(limits, limited(request, output_tokens), now)
            return all(room(ledger, need.of(ledger.limit.kind)) for ledger in full)

        least, most = MIN_OUTPUT_TOKENS, max_output_tokens(request)
        if least >= most or not fits(least):
            return None
        while least < most:  # `least` fits
            middle = (least + most + 1) // 2
            least, most = (middle, most) if fits(middle) else (least, middle - 1)
        return limited(request, least)

    def _refusal(
        self, full: Sequence[Ledger], need: Need, request: ModelRequest, now: int, room: Room
    ) -> BudgetExceeded:
        """What to raise for a request that these ledgers have no room for: it names one that no lowering satisfies."""
        shortest = self._need([ledger.limit for ledger in full], limited(request, MIN_OUTPUT_TOKENS), now)
        hopeless = (
            ledger
            for ledger in full
            if ledger.limit.budget.when_exceeded == "refuse" or not room(ledger, shortest.of(ledger.limit.kind))
        )
        ledger = next(hopeless, full[0])
        ledger.refused += 1
        limit, amount = ledger.limit, need.of(ledger.limit.kind)
        ways = ways_out(request, limit.budget, limit.kind, is_only_reserved=ledger.allows(amount))
        return ledger.exceeded(amount, ways)

    def _ledger(self, limit: Limit, scope: Scope, now: int) -> Ledger:
        per = limit.budget.per
        if per != "run":
            ledger = limit.ledger(None if per is None else scope.tags.get(per), now)
        else:
            root = scope.root
            found = root.run_ledgers.get(limit)
            if found is None:
                found = root.run_ledgers[limit] = Ledger(limit, root.run_id)
                if not root.finished:
                    self._roots.add(root)
            ledger = found
        ledger.roll(now)
        return ledger

    @contextmanager
    def _undisturbed(self) -> Iterator[bool]:
        """What the garbage collector settles meanwhile waits until the end. Says whether this is the outermost one."""
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
        """Settle what is to be settled, see who in line that makes room for, and tell those whom it concerns."""
        while True:
            with self.lock:
                if self._busy:
                    return  # whoever is will do it
                self._busy = True
                try:
                    while self._settlements:
                        self._settlements.popleft()()
                    done = self._line.serve(self._clock.time_ns(), self._admit_waiter)
                finally:
                    self._busy = False
                notices, self._notices = self._notices, []
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
            hold.ledger.roll(now)
            self._line.freed(hold.ledger)
            if amount:
                self._watch(hold, amount, now, reservation.notify)
        ledgers = (hold.ledger for hold in reservation.holds)
        decision = "settled" if known else "given up as spent"
        self._tell(decision, reservation.scope, reservation.request, zip(ledgers, spent, strict=True))

    def _tell(
        self, decision: str, scope: Scope, request: ModelRequest, amounts: Iterable[tuple[Ledger, Decimal]]
    ) -> None:
        """Log what was decided, once the lock is free."""
        if logger.isEnabledFor(logging.DEBUG):
            named = ", ".join(f"{ledger.label} {format_amount(ledger.limit.kind, each)}" for ledger, each in amounts)
            line = "run %s: a request to %s is %s: %s"
            self._notices.append(partial(logger.debug, line, scope.run_id, request.model, decision, named))

    def _watch(self, hold: Hold, amount: Decimal, now: int, notify: Notify) -> None:
        """Say that a budget nears its end, or has passed it: each once a window."""
        ledger, limit = hold.ledger, hold.ledger.limit
        if limit.warn_from is not None and ledger.spent >= limit.warn_from and now >= ledger.warned_until:
            ledger.warned_until = limit.slots(now)[1]
            self._notices.append(partial(notify, ledger.label, f"{ledger.progress} spent"))
        if amount > hold.asked and not ledger.fits(_ZERO) and now >= ledger.overdrawn_until:
            ledger.overdrawn_until = limit.slots(now)[1]
            logger.warning(
                "budget %r is overdrawn, %s spent: a request used %s, and was to use %s at the most",
                ledger.label,
                ledger.progress,
                format_amount(limit.kind, amount),
                format_amount(limit.kind, hold.asked),
            )
