"""From raw rounds to figures: each round is normalised by its calibration, compared within itself, and then summed up.

A round's value is CPU time per unit, divided by the time the calibration loop took around it: how fast the machine was
just then drops out. Comparisons with the baseline are made in the round, too, before any median is taken.
"""

from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from .question import Case, Question
from .record import Parameters, QuestionRecord, Sample
from .statistics import Interval, median_interval

SMALL = 0.025
"""The share of the baseline's own time that the interval of what is added may always be wide."""


class Rounds(msgspec.Struct, frozen=True):
    """The values of a figure by round."""

    values: Mapping[int, float]
    noisy: frozenset[int] = frozenset()
    """The rounds that were noisy."""

    def minus(self, other: "Rounds") -> "Rounds":
        """Subtract the other's values, in the rounds that both have."""
        return Rounds(
            {number: self.values[number] - other.values[number] for number in self._both(other)},
            self.noisy | other.noisy,
        )

    def over(self, other: "Rounds") -> "Rounds":
        """Divide by the other's values, in the rounds that both have, and where the other is not 0."""
        both = [number for number in self._both(other) if other.values[number]]
        return Rounds({number: self.values[number] / other.values[number] for number in both}, self.noisy | other.noisy)

    def times(self, factor: float) -> "Rounds":
        """Scale the values to another unit."""
        return Rounds({number: value * factor for number, value in self.values.items()}, self.noisy)

    def _both(self, other: "Rounds") -> Sequence[int]:
        return [number for number in self.values if number in other.values]

    @property
    def steady(self) -> Sequence[float]:
        """The values of the rounds that were not noisy; of all, if there is no other."""
        steady = [value for number, value in self.values.items() if number not in self.noisy]
        return steady or list(self.values.values())

    def is_told_by(self, least: int) -> bool:
        """Tell whether so many rounds were not noisy, or all there are."""
        return len(self.values.keys() - self.noisy) >= min(least, len(self.values))


class Figure(msgspec.Struct, frozen=True):
    """The figure of a peer for a case."""

    peer: str
    case: str
    time: Interval
    """CPU time per unit on this machine at its usual pace, ns. Where the question asks what is added, that."""
    relative: Interval | None
    """Times the baseline's; where the question asks what is added, the share of the baseline's that it is."""
    is_noisy: bool
    """True if it is too noisy to tell."""
    is_relative_noisy: bool
    """True if the comparison with the baseline is too noisy to tell."""
    is_added: bool = False
    wall: float | None = None
    """Wall time per unit, ns: a median. None of what is derived or added."""
    memory: float | None = None
    """Bytes, if the case tells: a median."""

    @property
    def is_bound(self) -> bool:
        """True if all that can be told is an upper bound: the interval's upper end."""
        return self.is_added and 0 in self.time


class Results:
    """The figures of a question.

    Args:
        record: What was measured.
        parameters: How, and when it is too noisy.
        loop_ns: What the calibration loop usually took, in the whole run: it turns values into times.
    """

    def __init__(self, record: QuestionRecord, parameters: Parameters, loop_ns: float) -> None:
        self.record = record
        self.question: Question = record.question
        self.parameters = parameters
        self.loop_ns = loop_ns
        self._samples: dict[tuple[str, str], list[Sample]] = {}
        lost = {(failure.peer, failure.case) for failure in record.failures}
        for sample in record.samples:
            if not {(sample.peer, None), (sample.peer, sample.case)} & lost:
                self._samples.setdefault((sample.case, sample.peer), []).append(sample)

    def rounds(self, case: str, peer: str) -> Rounds | None:
        """A peer's own values for a case, in calibration loops per unit; None if it has none."""
        asked = self.question.case(case)
        if asked.minuend is not None and asked.subtrahend is not None:
            minuend, subtrahend = self.rounds(asked.minuend, peer), self.rounds(asked.subtrahend, peer)
            if minuend is None or subtrahend is None:
                return None
            return _or_none(minuend.minus(subtrahend).times(1 / asked.per))
        samples = self._samples.get((case, peer), ())
        values = {each.round: each.cpu_ns / (each.times * asked.per) / _loop(each) for each in samples}
        return _or_none(Rounds(values, frozenset(each.round for each in samples if each.is_noisy)))

    def told(self, case: str, peer: str) -> Rounds | None:
        """Find the values that the question tells of a case: the peer's own, or what it adds to the baseline's."""
        own = self.rounds(case, peer)
        if own is None or not self._adds(case, peer):
            return own
        base = self.rounds(case, self.question.baseline_of(self.question.case(case)) or "")
        return None if base is None else _or_none(own.minus(base))

    def figure(self, case: str, peer: str) -> Figure | None:
        """Compute the figure of a case for a peer; None if there are no values."""
        asked = self.question.case(case)
        told = self.told(case, peer)
        if told is None:
            return None
        baseline = self.question.baseline_of(asked)
        base = self.rounds(case, baseline) if baseline else None
        compared = told.over(base) if base is not None and peer != baseline else None
        time = self._interval(told)
        adds = self._adds(case, peer)
        relative = self._interval(compared) if compared is not None and compared.values else None
        slack = SMALL * abs(self._interval(base).median) if adds and base is not None else 0.0
        noisy = self._too_noisy(told, time, slack)
        vague = compared is None or relative is None or self._too_noisy(compared, relative, SMALL if adds else 0.0)
        return Figure(
            peer,
            case,
            time.scaled(self.loop_ns),
            relative,
            noisy,
            vague,
            adds,
            None if adds or asked.is_derived else self._wall(case, peer),
            self._memory(case, peer) if asked.memory else None,
        )

    def figures(self, case: str) -> Sequence[Figure]:
        """Compute the figures of a case, in the order of the peers."""
        figures = [self.figure(case, peer.name) for peer in self.question.peers]
        return [figure for figure in figures if figure is not None]

    def shown(self) -> Sequence[Case]:
        """The cases to show: those that are not hidden, and that a peer did."""
        return [case for case in self.question.cases if not case.hidden and self.figures(case.name)]

    def peak_memory(self, peer: str) -> int | None:
        """The peak memory of a peer, in bytes; None if it measured nothing."""
        return max((each.peak_rss for each in self.record.samples if each.peer == peer), default=None)

    def loops(self, rounds: Rounds) -> Interval:
        """The median of some values, with its interval, as they are."""
        return self._interval(rounds)

    def memory_rounds(self, case: str, peer: str) -> Rounds | None:
        """The process's memory after a case, in bytes."""
        return _or_none(Rounds({each.round: float(each.rss) for each in self._samples.get((case, peer), ())}))

    def _adds(self, case: str, peer: str) -> bool:
        return self.question.figures == "added" and peer != self.question.baseline_of(self.question.case(case))

    def _interval(self, rounds: Rounds) -> Interval:
        return median_interval(rounds.steady, self.parameters.seed, self.parameters.resamples)

    def _too_noisy(self, rounds: Rounds, interval: Interval, slack: float) -> bool:
        allowed = max(self.parameters.widest * abs(interval.median), slack)
        return not rounds.is_told_by(self.parameters.least_steady) or interval.half_width > allowed

    def _wall(self, case: str, peer: str) -> float:
        per = self.question.case(case).per
        return median(each.wall_ns / (each.times * per) for each in self._samples[case, peer])

    def _memory(self, case: str, peer: str) -> float | None:
        rounds = self.memory_rounds(case, peer)
        return None if rounds is None else median(rounds.values.values())


def usual_loop_ns(records: Sequence[QuestionRecord]) -> float:
    """The time of the calibration loop in a whole run, in ns: the median. 1 if it never ran."""
    loops = [loop for record in records for sample in record.samples for loop in sample.calibration_ns]
    return median(loops) if loops else 1.0


def unsteadiness(records: Sequence[QuestionRecord]) -> float:
    """Tell how much the machine's pace varied over a whole run, as a share of the median.

    It is half the distance from the calibrations' 5th to their 95th percentile.
    """
    loops = sorted(loop for record in records for sample in record.samples for loop in sample.calibration_ns)
    if not loops:
        return 0.0
    low, high = loops[len(loops) // 20], loops[-1 - len(loops) // 20]
    return (high - low) / 2 / median(loops)


def noisy_share(records: Sequence[QuestionRecord]) -> float:
    """The share of measurements of a whole run that were noisy to the last try."""
    samples = [sample.is_noisy for record in records for sample in record.samples]
    return sum(samples) / len(samples) if samples else 0.0


def _loop(sample: Sample) -> float:
    return sum(sample.calibration_ns) / 2


def _or_none(rounds: Rounds) -> Rounds | None:
    return rounds if rounds.values else None
