"""The errors of this package, each with a sentence of its own. All of them can be pickled, to pass between processes.

RunmeterError
├── EngineNotRunning     the engine was used before `async with` or after it
├── BusClosed            an event was published after the bus had closed
├── StreamClosed         a run had another piece of its answer, and its listener had gone
├── RunAborted           the engine closed before the run was done
├── RunEnded             a run that has ended was to make a request, or another step of its own
├── StrayCancellation    a pattern awaited something that had been cancelled elsewhere
├── RunTimeout           a run took longer than its timeout (also a TimeoutError)
├── BudgetExceeded       a request was refused, because a budget has no room for it
│   └── BudgetUnavailable … or because the ledger cannot say whether a shared budget has
├── LedgerError          a ledger cannot be opened, read or written
│   └── LedgerFull       a new run was refused, because the ledger takes no events at the moment
├── TokenizerError       a shipped vocabulary is missing or damaged
└── ConfigurationError   arguments that contradict each other (also a ValueError)
    └── UnboundedRequest a budget applies to a request without a known upper bound
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from .formats import Kind, format_amount


class RunmeterError(Exception):
    """Base of every error this package raises for reasons of its own."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception's own way is to call its class with the sentence it made, which is not what its class takes.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[RunmeterError], args: tuple[Any, ...], fields: dict[str, Any]) -> RunmeterError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class EngineNotRunning(RunmeterError):
    """The engine was used before it started, after it closed, or away from its event loop."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the engine cannot run anything: {why}. Use it inside `async with Engine() as engine:`")


class BusClosed(RunmeterError):
    """An event was published after the bus had closed, so no subscriber would see it."""

    def __init__(self) -> None:
        super().__init__(
            "the bus has closed: publish inside `async with`, or await what still publishes before leaving it"
        )


class StreamClosed(RunmeterError):
    """A run had another piece of its answer to hand out, but its stream had been left. It ends the run."""

    def __init__(self) -> None:
        super().__init__("the stream of this run was left, so its answer goes nowhere: the run ends")


class RunTimeout(RunmeterError, TimeoutError):
    """A run took longer than the timeout it was given."""

    def __init__(self, pattern: str, run_id: str, timeout: float) -> None:
        super().__init__(f"pattern {pattern!r} did not finish within its timeout of {timeout:g} s")
        self.pattern = pattern
        self.run_id = run_id
        self.timeout = timeout
        """The run's timeout in seconds."""


class RunAborted(RunmeterError):
    """The engine closed before the run was done, and its drain timeout had passed."""

    def __init__(self, pattern: str, run_id: str) -> None:
        super().__init__(f"pattern {pattern!r} was stopped: the engine closed, and its drain_timeout had passed")
        self.pattern = pattern
        self.run_id = run_id


class RunEnded(RunmeterError):
    """A run that has ended was to make a request or a call: by a thread, for example, that its timeout did not stop.

    It did not leave, and is in no statistics.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id} has ended, so nothing more is done in its name: await what it starts, or give that a run of "
            "its own by `engine.run`"
        )
        self.run_id = run_id


class StrayCancellation(RunmeterError):
    """A pattern awaited a task or future that had been cancelled elsewhere, and was not cancelled itself."""

    def __init__(self, pattern: str) -> None:
        super().__init__(f"pattern {pattern!r} awaited something that had been cancelled elsewhere")
        self.pattern = pattern


class BudgetExceeded(RunmeterError):
    """A request was refused before it left, because a budget has no room for its upper bound.

    Args:
        budget: The budget's label.
        scope: The tag's value or the run's id that it is the budget of, if each has one.
        kind: What is counted: `usd`, `tokens` or `calls`, the unit of the amounts.
        cap: How much may be spent.
        spent: How much is.
        reserved: How much is held for requests that have not ended.
        asked: The request's upper bound.
        ways_out: What would have made room, each a few words.
    """

    def __init__(
        self,
        budget: str,
        scope: str | None,
        kind: Kind,
        cap: Decimal,
        spent: Decimal,
        reserved: Decimal,
        asked: Decimal,
        ways_out: Sequence[str] = (),
    ) -> None:
        said = [format_amount(kind, amount) for amount in (cap, spent, reserved, asked)]
        of = "" if scope is None else f" of {scope!r}"
        super().__init__(
            f"budget {budget!r}{of} allows {said[0]}: {said[1]} spent and {said[2]} reserved "
            f"leave no room for a request that can use {said[3]}"
            + (f". Ways out: {'; '.join(ways_out)}" if ways_out else "")
        )
        self.budget = budget
        self.scope = scope
        self.kind: Kind = kind
        self.cap = cap
        self.spent = spent
        self.reserved = reserved
        self.asked = asked
        self.ways_out = tuple(ways_out)


class BudgetUnavailable(BudgetExceeded):
    """A request was refused before it left, because the ledger of a shared budget leases no room at the moment.

    Args:
        budget, scope, kind, cap, spent, reserved, asked: As of `BudgetExceeded`, as far as this process was told.
        reason: What keeps the ledger from it.
    """

    def __init__(
        self,
        budget: str,
        scope: str | None,
        kind: Kind,
        cap: Decimal,
        spent: Decimal,
        reserved: Decimal,
        asked: Decimal,
        reason: str,
    ) -> None:
        super().__init__(budget, scope, kind, cap, spent, reserved, asked)
        sentence = (
            f"budget {budget!r} is shared, and a request that can use {format_amount(kind, asked)} needs room that its "
            f"ledger does not lease: {reason}"
        )
        self.args = (sentence,)
        self.reason = reason


class LedgerError(RunmeterError):
    """A ledger cannot be opened, read or written: the sentence names the file, the cause and the way out."""


class LedgerFull(LedgerError):
    """A new run was refused, because the ledger cannot take events at the moment (`on_full="refuse"`)."""


class TokenizerError(RunmeterError):
    """A shipped vocabulary is missing or damaged: reinstall the package."""


class ConfigurationError(RunmeterError, ValueError):
    """Arguments that contradict each other or lie outside their range."""


class UnboundedRequest(ConfigurationError):
    """A budget applies to a request without a known upper bound, so it was refused before it left.

    Args:
        budget: The budget's label.
        kind: What it counts: `usd` or `tokens`.
        model: The model asked for.
        bounded: Whether its tokens have a known upper bound, and only its price is not known.
    """

    def __init__(self, budget: str, kind: Kind, model: str, *, bounded: bool) -> None:
        if not bounded:
            why = f"this request to {model!r} has no known upper bound: set max_output_tokens"
        else:
            why = f"{model!r} has no known price on this service tier: add one to the price book's overlay"
        super().__init__(f"budget {budget!r} counts {kind}, but {why}, or let the budget count calls")
        self.budget = budget
        self.kind: Kind = kind
        self.model = model
