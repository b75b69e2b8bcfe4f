"""Budgets as they are written down: amounts, the runs they apply to, and windows of time. `Budgets` holds them."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Literal, TypeAlias

import msgspec

from ..errors import ConfigurationError
from ..formats import Kind, format_amount
from ..prices.units import MONEY

Period: TypeAlias = Literal["minute", "hour", "day", "week", "month"]
Window: TypeAlias = Callable[[int], tuple[int, int]]
"""A function from a time to its slot: the slot's beginning, and the time from which what is spent in it no longer
counts."""

NEVER = 2**63
"""A time in nanoseconds that does not come."""
STEPS = 60
"""Parts that a rolling window moves by: so many sums, and not every request, are kept for it."""

_SECOND = 10**9
_DAY = 86_400 * _SECOND
_LENGTHS = {"minute": 60 * _SECOND, "hour": 3_600 * _SECOND, "day": _DAY, "week": 7 * _DAY}
_MONDAY = 4 * _DAY
"""The first Monday after the Unix epoch, which was a Thursday."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A cap on the spending of runs, in USD, tokens or requests.

    Before a request to a model leaves, its upper bound is reserved in every budget that applies, or in none: then it is
    refused, and does not leave. When it has ended, what it really used takes the reservation's place; where that is not
    known, all that was reserved counts as spent.

    It applies to runs that meet all of its conditions: to every run, if it has none. A run within a run keeps what its
    parents have: their patterns' names next to its own, and their tags where it has none of that name.

    A request counts in the window in which it leaves, however long it takes. A fixed window begins with the minute,
    hour, day, week (Monday) or month of UTC, or at a whole multiple of its length since the Unix epoch. In a rolling
    window no period of that length holds more than the cap; what was spent is free again at most a sixtieth of the
    length later than it might be.

        Budget(usd="25", per="tenant", every="day")
        Budget(usd="0.50", calls=20, per="run", when_exceeded="lower")

    Raises:
        ConfigurationError: it caps nothing, or a field makes no sense.
    """

    usd: Decimal | str | int | None = None
    """The cap in US dollars: give text such as `"0.50"`, not a float, which is never quite what it looks like."""
    tokens: int | None = None
    """The cap in input and output tokens, cached ones included."""
    calls: int | None = None
    """The cap in requests to models: every attempt counts, also one that the API refuses."""
    pattern: str | None = None
    """Applies to this pattern's runs, and to what runs within them."""
    tags: Mapping[str, str] = {}
    """Applies to runs with these tags."""
    per: str | None = None
    """The name of a tag: each of its values has a budget of its own, and so have runs without it together. Or `run`:
    each run has, with all that runs within it."""
    every: Period | timedelta | None = None
    """The window of time. Without one the budget holds for as long as the engine, or the run, lives."""
    window: Literal["fixed", "rolling"] = "fixed"
    warn_at: float | None = 0.8
    """The part of the cap from which on the run that spends it emits a `Notice`, once a window. None: never."""
    when_exceeded: Literal["refuse", "lower"] = "refuse"
    """The behaviour where a budget is full. `lower`: a request reserved with `Execution.reserve` is not refused while
    there is room for a shorter answer; its `max_output_tokens` is lowered to what the budget still allows."""
    when_reserved: Literal["refuse", "wait"] = "refuse"
    """The behaviour where room is only reserved. `wait`: where there would be room if requests under way had ended
    and used nothing, one that can wait does so, first come, first served; what is spent is never waited for.
    `Execution.reserve` says which can."""
    shared: bool = False
    """One cap for all processes that share the engine's ledger, and have a budget with these conditions, window and
    name. Without a window it holds for as long as the ledger is kept."""
    name: str | None = None
    """The name in errors, notices and statistics; by default a description. `label` is the one in use."""

    def __post_init__(self) -> None:
        if not self.caps:
            raise ConfigurationError("a budget caps something: give it usd, tokens or calls")
        _check_names(self)
        msgspec.structs.force_setattr(self, "tags", dict(self.tags))  # the caller's own may change
        _check_part(self.warn_at)
        for value, allowed in (
            (self.window, ("fixed", "rolling")),
            (self.when_exceeded, ("refuse", "lower")),
            (self.when_reserved, ("refuse", "wait")),
        ):
            if value not in allowed:
                raise ConfigurationError(f"expected one of {allowed}, not {value!r}")
        if self.window == "rolling" and self.every in (None, "month"):
            raise ConfigurationError("a rolling window has a length: every='day', or a timedelta")
        if not isinstance(self.shared, bool):
            raise ConfigurationError(f"shared is True or False, not {self.shared!r:.100}")
        if self.shared and self.per == "run":
            raise ConfigurationError('per="run" cannot be shared: a run and all runs within it are in one process')
        self.slots()

    @property
    def caps(self) -> tuple[tuple[Kind, Decimal], ...]:
        """The capped kinds, each with its amount."""
        given: tuple[tuple[Kind, Decimal | str | int | None], ...] = (
            ("usd", self.usd),
            ("tokens", self.tokens),
            ("calls", self.calls),
        )
        return tuple((kind, _cap(kind, value)) for kind, value in given if value is not None)

    @property
    def label(self) -> str:
        """The budget's name, or a description such as `$25 per tenant every day`."""
        if self.name:
            return self.name
        words = [" and ".join(format_amount(kind, cap) for kind, cap in self.caps)]
        if self.pattern is not None:
            words.append(f"for pattern {self.pattern}")
        words += [f"for {name}={value}" for name, value in sorted(self.tags.items())]
        if self.per is not None:
            words.append(f"per {self.per}")
        if self.every is not None:
            words.append(f"{'every' if self.window == 'fixed' else 'in any'} {self.every}")
        return " ".join(words)

    def slots(self) -> Window:
        """Make the function that divides time into the window's slots.

        Raises:
            ConfigurationError: there is no such window.
        """
        if self.every is None:
            return _forever
        if self.every == "month":
            return _month
        if isinstance(self.every, timedelta):
            length = self.every // timedelta(microseconds=1) * 1_000
        else:
            length = _LENGTHS.get(str(self.every), 0)  # whatever else it is
        if length <= 0:
            raise ConfigurationError(
                f"every is minute, hour, day, week, month, or a timedelta above 0, not {self.every!r}"
            )
        if self.window == "rolling":
            return partial(_rolling, length)
        return partial(_fixed, length, _MONDAY if self.every == "week" else 0)

    def applies(self, patterns: frozenset[str], tags: Mapping[str, str]) -> bool:
        """Tell whether it applies to a run, by its own pattern's name and its parents', and by its tags."""
        return (self.pattern is None or self.pattern in patterns) and self.tags.items() <= tags.items()


class BudgetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of one cap: of a budget with `per`, for one value or run."""

    budget: str
    """The label of the budget."""
    scope: str | None = None
    """The tag's value, or the run's id; None if all share one cap."""
    kind: Kind
    """The kind that is counted: the unit of all amounts."""
    cap: Decimal
    spent: Decimal
    """The amount spent: above the cap only if a request used more than its upper bound."""
    reserved: Decimal
    """The amount held for requests that have not ended."""
    refused: int
    """The number of requests that this cap refused."""
    waiting: int = 0
    """The number of requests that wait for room in it now."""
    window_end_ns: int | None
    """The window's end, in nanoseconds since the Unix epoch; of a rolling one, the time at which something of what was
    spent no longer counts. None without a window."""

    @property
    def available(self) -> Decimal:
        """The amount that can still be reserved."""
        return max(MONEY.subtract(self.cap, MONEY.add(self.spent, self.reserved)), Decimal(0))

    def __str__(self) -> str:
        spent, cap, reserved = (format_amount(self.kind, each) for each in (self.spent, self.cap, self.reserved))
        scope = "" if self.scope is None else f" [{self.scope}]"
        waiting = f", {self.waiting:,} waiting" if self.waiting else ""
        return f"{self.budget}{scope}: {spent} of {cap} spent, {reserved} reserved, {self.refused:,} refused{waiting}"


def _check_part(warn_at: object) -> None:
    if warn_at is not None and not (isinstance(warn_at, int | float | Decimal) and 0 < warn_at <= 1):
        raise ConfigurationError(f"warn_at is a part of the cap, above 0 and at most 1, or None: {warn_at!r}")


def _check_names(budget: Budget) -> None:
    for field_name in ("pattern", "per", "name"):
        value = getattr(budget, field_name)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"{field_name} is text, or None; not {value!r}")
    tags: object = budget.tags
    if not isinstance(tags, Mapping) or not all(isinstance(text, str) for tag in tags.items() for text in tag):
        raise ConfigurationError(f"tags are names and values in text, such as {{'tenant': 'acme'}}; not {tags!r}")


def _cap(kind: Kind, value: Decimal | str | int) -> Decimal:
    allowed = (Decimal, str, int) if kind == "usd" else int
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise ConfigurationError(
            f"{kind} cannot be {value!r}: give {'text or a Decimal' if kind == 'usd' else 'an int'}"
        )
    try:
        cap = Decimal(value)
    except InvalidOperation:
        raise ConfigurationError(f"usd is an amount such as '0.50', not {value!r}") from None
    if not cap.is_finite() or cap < 0:
        raise ConfigurationError(f"{kind} must be finite and not negative, is {value}")
    return cap


def _forever(_: int) -> tuple[int, int]:
    return 0, NEVER


def _fixed(length: int, origin: int, at_ns: int) -> tuple[int, int]:
    start = at_ns - (at_ns - origin) % length
    return start, start + length


def _month(at_ns: int) -> tuple[int, int]:
    at = datetime.fromtimestamp(at_ns // _SECOND, UTC)
    start = datetime(at.year, at.month, 1, tzinfo=UTC)
    end = datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)
    return int(start.timestamp()) * _SECOND, int(end.timestamp()) * _SECOND


def _rolling(length: int, at_ns: int) -> tuple[int, int]:
    """Find a rolling window's slot: it counts until its very end is as long ago as the window is long."""
    step = max(length // STEPS, 1)
    start = at_ns - at_ns % step
    return start, start + step + length
