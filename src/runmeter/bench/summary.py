"""The summary of a run: all that is shown of it, computed once."""

from collections.abc import Mapping, Sequence

import msgspec

from .compare import ResultsComparison, compare
from .figures import Results, noisy_share, unsteadiness, usual_loop_ns
from .goals import Goal, GoalOutcome, judge
from .record import Record


class Summary(msgspec.Struct, frozen=True):
    """The summary of a run of the benchmarks."""

    record: Record
    results: Mapping[str, Results]
    """By question."""
    outcomes: Sequence[GoalOutcome]
    """The outcomes of the goals."""
    comparison: ResultsComparison | None
    """With an earlier run."""
    unsteadiness: float
    """The unsteadiness of the machine's pace, as a share."""
    noisy_share: float
    """The share of measurements that were noisy to the last try."""
    loop_ns: float
    """The usual time of the calibration loop."""


def results_of(record: Record) -> Mapping[str, Results]:
    """Compute a run's figures by question."""
    loop_ns = usual_loop_ns(record.questions)
    return {each.question.name: Results(each, record.parameters, loop_ns) for each in record.questions}


def summarise(record: Record, goals: Sequence[Goal], earlier: Record | None) -> Summary:
    """Compute the summary of a run.

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
