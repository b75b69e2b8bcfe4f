"""Reserving room in budgets for a request before it leaves: at once, or in its turn."""

from collections.abc import Callable
from contextvars import Context, ContextVar, Token
from types import TracebackType
from typing import NamedTuple, Protocol
from weakref import ref

import anyio
import msgspec

from ..concurrency.loop import LoopThread
from ..events import TokenUsage, Usage
from ..request import ModelRequest
from .accounts import Account
from .budgets import Budgets
from .reservation import Notify, Reservation, Scope

# Contexts outlive requests: they refer to reservations, and keep none.
ASK_AGAIN = 0.25
"""Seconds before a request that waits asks other processes again for room."""

_reservation: ContextVar["ref[Reservation] | None"] = ContextVar("runmeter_reservation", default=None)
"""The reservation that the next request to a model uses."""
_held: ContextVar["ref[Reservation] | None"] = ContextVar("runmeter_held_reservation", default=None)
"""The reservation of the request that this code is inside of."""


class Reserving(Protocol):
    """A context manager, sync and async, around a request for which room is reserved."""

    def __enter__(self) -> ModelRequest: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None, /
    ) -> None: ...

    async def __aenter__(self) -> ModelRequest: ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None, /
    ) -> None: ...


class BudgetedRequest:
    """A request for which room is reserved, until it has ended or the block is left. Made by `Execution.reserve`."""

    def __init__(
        self, budgets: Budgets, scope: Scope, request: ModelRequest, notify: Notify, *, may_lower: bool
    ) -> None:
        self._budgets = budgets
        self._scope = scope
        self._request = request
        self._notify = notify
        self._may_lower = may_lower
        self._reservation: Reservation
        self._tokens: tuple[Token[ref[Reservation] | None], Token[ref[Reservation] | None]]

    def __enter__(self) -> ModelRequest:
        return self._enter(self._budgets.reserve(self._scope, self._request, self._notify, may_lower=self._may_lower))

    async def __aenter__(self) -> ModelRequest:
        # What waits holds nothing that others wait for, so none can wait for another in a circle.
        if not self._scope.can_wait or _is_inside_another():
            if self._scope.is_leased:
                return self._enter(
                    await _reserved(self._budgets, self._scope, self._request, self._notify, may_lower=self._may_lower)
                )
            return self.__enter__()
        return self._enter(await self._in_turn())

    def _enter(self, reservation: Reservation) -> ModelRequest:
        self._reservation = reservation
        referred = ref(reservation)
        self._tokens = _reservation.set(referred), _held.set(referred)
        return reservation.request

    async def _in_turn(self) -> Reservation:
        from anyio.lowlevel import checkpoint_if_cancelled  # here, because an import of this package should be light

        budgets, loop, called = self._budgets, LoopThread(), anyio.Event()

        def wake() -> None:
            try:
                loop.run(called.set)
            except RuntimeError:  # the loop has closed, and what waited is gone
                budgets.leave(waiter)

        waiter = budgets.line_up(self._scope, self._request, self._notify, wake, may_lower=self._may_lower)
        try:
            while waiter.outcome is None:
                limit = budgets.look_again(waiter)
                lacking = budgets.lacking(waiter)
                if lacking and budgets.leases is not None:
                    waiter.refused = await budgets.leases.ask_and_wait(lacking)
                    limit = min(budgets.look_again(waiter), ASK_AGAIN)
                with anyio.move_on_after(limit):
                    await called.wait()
            await checkpoint_if_cancelled()  # what was cancelled as it was admitted is not to send anything
        except BaseException:
            budgets.leave(waiter)
            raise
        if isinstance(waiter.outcome, Exception):
            raise waiter.outcome
        return waiter.outcome

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._budgets.release(self._reservation)
        try:
            _reservation.reset(self._tokens[0])
            _held.reset(self._tokens[1])
        except ValueError:
            pass  # left in another context than entered: there it stays, and is of no more use

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, tb)


def _is_inside_another() -> bool:
    held = _held.get()
    reservation = None if held is None else held()
    return reservation is not None and reservation.is_live


def hand_reservation(context: Context) -> None:
    """Have the next request of another context use the reservation that this one has made."""
    context.run(_reservation.set, _reservation.get())
    context.run(_held.set, _held.get())


def hold_reservation(context: Context) -> None:
    """Have the code of this context be inside the request of another, so that it does not wait for what that holds."""
    _held.set(context.get(_held))


async def _reserved(
    budgets: Budgets, scope: Scope, request: ModelRequest, notify: Notify, *, may_lower: bool
) -> Reservation:
    """Reserve a request's upper bound as `Budgets.reserve` does, and have others run while more is leased."""
    refused: set[Account] = set()
    while not isinstance(found := budgets.attempt(scope, request, notify, refused, may_lower=may_lower), Reservation):
        assert budgets.leases is not None  # noqa: S101 - nothing else is asked
        refused |= await budgets.leases.ask_and_wait(found)
    return found


async def lease(budgets: Budgets, scope: Scope, request: ModelRequest, notify: Notify) -> None:
    """Lease what `claim` is about to reserve, so that it does not block.

    Raises:
        BudgetExceeded: a budget has no room for it.
        UnboundedRequest: it has no known upper bound, and a budget needs one.
        BudgetUnavailable: a shared budget cannot lease anything from its ledger.
    """
    referred = _reservation.get()
    made = None if referred is None else referred()
    if made is None or made.scope is not scope or made.taken or not made.is_live:
        budgets.release(await _reserved(budgets, scope, request, notify, may_lower=False))


class Claim(NamedTuple):
    """A reservation that a request uses."""

    bound: Usage | None
    """The request's upper bound."""
    reserved_ns: int
    """The time of the reservation, in nanoseconds since the Unix epoch."""
    end: Callable[[TokenUsage], None]
    """A function to call with the request's end: until then all that its context does is inside the request."""


def claim(budgets: Budgets, scope: Scope, request: ModelRequest, notify: Notify) -> Claim:
    """Take the reservation of a request that is about to leave: the one made for it, or a new one.

    Raises:
        BudgetExceeded: a budget has no room for it.
        UnboundedRequest: it has no known upper bound, and a budget needs one.
    """
    referred = _reservation.get()
    made = None if referred is None else referred()
    if made is not None and made.scope is scope:
        if budgets.take(made):
            return _use(budgets, made)
        if request.bound is None and not made.released:
            request = msgspec.structs.replace(request, bound=made.request.bound)
    reservation = budgets.reserve(scope, request, notify, may_lower=False)
    budgets.take(reservation)
    return _use(budgets, reservation)


def _use(budgets: Budgets, reservation: Reservation) -> Claim:
    token = _held.set(ref(reservation))

    def end(event: TokenUsage) -> None:
        budgets.settle(reservation, event)
        try:
            _held.reset(token)
        except (ValueError, RuntimeError):
            pass  # in another context, which never saw it; or for the second time

    return Claim(reservation.request.bound, reservation.made_ns, end)
