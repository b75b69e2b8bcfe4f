"""All that is shown of a run, computed once."""

from collections.abc import Mapping, Sequence

import msgspec

from .compare import ResultsComparison, compare
from .figures import Results, noisy_share, unsteadiness, usual_loop_ns
from .goals import Goal, GoalOutcome, judge
from .record import Record


class Summary(msgspec.Struct, frozen=True):
    """What came of a run."""

    record: Record
    results: Mapping[str, Results]
    """By question."""
    outcomes: Sequence[GoalOutcome]
    """Of the goals."""
    comparison: ResultsComparison | None
    """With an earlier run."""
    unsteadiness: float
    """How much the machine's pace varied, as a share."""
    noisy_share: float
    """How many measurements were noisy to the last try, as a share."""
    loop_ns: float
    """What the calibration loop usually took."""


def results_of(record: Record) -> Mapping[str, Results]:
    """A run's figures by question."""
    loop_ns = usual_loop_ns(record.questions)
    return {each.question.name: Results(each, record.parameters, loop_ns) for each in record.questions}


def summarise(record: Record, goals: Sequence[Goal], earlier: Record | None) -> Summary:
    """Compute what is shown of a run.

    Args:
        record: The run.
        goals: All there are.
        earlier: A run to compare it with.
    """
    results = results_of(record)
    comparison = None if earlier is None else compare(results_of(earlier), results, (earlier, record))
    return Summary(
        record,
        results,
        judge(goals, results, record.parameters),
        comparison,
        unsteadiness(record.questions),
        noisy_share(record.questions),
        usual_loop_ns(record.questions),
    )
