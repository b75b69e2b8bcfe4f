"""Goals of the benchmarks: `goals.toml` names ratios of figures, and their upper bounds."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from .errors import BenchError
from .figures import Results, Rounds
from .record import Parameters
from .statistics import Interval, median_interval, quotient_interval

FILE = "goals.toml"


class Term(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A term of a goal, (of − minus) / per; figures are called `question/peer/case`."""

    of: str
    minus: str | None = None
    per: float = 1
    memory: bool = False
    """True if it is the process's memory after the case, and not its CPU time."""

    @property
    def references(self) -> Sequence[str]:
        """The names of the figures that it is made of."""
        return [self.of] if self.minus is None else [self.of, self.minus]


class Goal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A goal for a quotient: numerator / denominator ≤ limit."""

    text: str
    limit: float
    """Upper bound of the quotient; without a denominator, in µs of CPU time or MB of memory."""
    numerator: Term | str
    denominator: Term | str | None = None

    @property
    def terms(self) -> Sequence[Term]:
        """The numerator, and the denominator if there is one."""
        terms = [self.numerator] if self.denominator is None else [self.numerator, self.denominator]
        return [Term(term) if isinstance(term, str) else term for term in terms]

    @property
    def questions(self) -> set[str]:
        """The questions that it takes figures from."""
        return {split(reference)[0] for term in self.terms for reference in term.references}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    goals: tuple[Goal, ...] = ()


class GoalOutcome(msgspec.Struct, frozen=True):
    """The figure measured for a goal, and the verdict on it."""

    goal: Goal
    measured: Interval | None
    """None if something that it needs was not measured."""
    verdict: str
    """`met`, `not met`, `open` if the limit is within the interval, `too noisy` or `not measured`."""


def split(reference: str) -> tuple[str, str, str]:
    """Split a reference into question, peer and case. Raises `BenchError`."""
    parts = reference.split("/", 2)
    if len(parts) != 3:
        raise BenchError(f"{FILE}: {reference!r} is not of the form question/peer/case")
    return parts[0], parts[1], parts[2]


def load_goals(folder: Path) -> Sequence[Goal]:
    """Read the goals in a folder; none, if it has no such file.

    Raises:
        BenchError: it is not as it should be.
    """
    path = folder / FILE
    if not path.exists():
        return ()
    try:
        goals = msgspec.toml.decode(path.read_bytes(), type=_File).goals
        for goal in goals:
            assert goal.questions  # noqa: S101 - reads all references
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.DecodeError) as error:
        raise BenchError(f"{path}: {error}") from None
    return goals


def judge(goals: Sequence[Goal], results: Mapping[str, Results], parameters: Parameters) -> Sequence[GoalOutcome]:
    """Hold what was measured against the goals, as far as their questions were asked.

    Args:
        goals: All there are.
        results: By question.
        parameters: How it was measured.
    """
    return [_judge(goal, results, parameters) for goal in goals if goal.questions <= results.keys()]


def _judge(goal: Goal, results: Mapping[str, Results], parameters: Parameters) -> GoalOutcome:
    terms = [_rounds(term, results) for term in goal.terms]
    known = [rounds for rounds in terms if rounds is not None and rounds.values]
    if len(known) < len(terms):
        return GoalOutcome(goal, None, "not measured")
    if len(known) == 2 and len(goal.questions) == 1:
        known = [known[0].over(known[1])]
    if not all(rounds.values for rounds in known):
        return GoalOutcome(goal, None, "not measured")
    measured = _measured(goal, known, results, parameters)
    return GoalOutcome(goal, measured, _verdict(goal, measured, known, parameters))


def _measured(goal: Goal, known: Sequence[Rounds], results: Mapping[str, Results], parameters: Parameters) -> Interval:
    """Compute the figure of a goal: of one kind of rounds, or of two that were not measured side by side."""
    seed, resamples = parameters.seed, parameters.resamples
    if len(known) == 2:
        return quotient_interval(known[0].steady, known[1].steady, seed, resamples)
    measured = median_interval(known[0].steady, seed, resamples)
    if goal.denominator is not None:
        return measured
    result = results[split(goal.terms[0].of)[0]]
    return measured.scaled(1e-6 if goal.terms[0].memory else result.loop_ns / 1e3)


def _verdict(goal: Goal, measured: Interval, known: Sequence[Rounds], parameters: Parameters) -> str:
    if not all(rounds.is_told_by(parameters.least_steady) for rounds in known):
        return "too noisy"
    if measured.is_of_few and not goal.terms[0].memory:
        return "open"
    if measured.high <= goal.limit:
        return "met"
    if measured.low > goal.limit:
        return "not met"
    return "too noisy" if measured.half_width > parameters.widest * abs(measured.median) else "open"


def _rounds(term: Term, results: Mapping[str, Results]) -> Rounds | None:
    parts = [_value(reference, results, memory=term.memory) for reference in term.references]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    whole = known[0].minus(known[1]) if len(known) == 2 else known[0]
    return whole.times(1 / term.per)


def _value(reference: str, results: Mapping[str, Results], *, memory: bool) -> Rounds | None:
    question, peer, case = split(reference)
    result = results[question]
    try:
        return result.memory_rounds(case, peer) if memory else result.told(case, peer)
    except KeyError:
        return None  # a case that a quick run leaves out
