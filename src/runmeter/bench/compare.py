"""Changes since an earlier run, beyond noise."""

from collections.abc import Mapping, Sequence

import msgspec

from .figures import Results, Rounds
from .record import Machine, Record
from .statistics import Interval, quotient_interval

LEAST = 0.05
"""The least change that is told. A process's own layout of memory makes it a few per cent faster or slower than the
next one for all its life, and within one run that does not show.
"""


class Change(msgspec.Struct, frozen=True):
    """A change of a figure that both runs have."""

    question: str
    peer: str
    case: str
    ratio: Interval
    """The new over the old."""

    @property
    def is_beyond_noise(self) -> bool:
        """True if the figure is another, and not by chance."""
        return 1 not in self.ratio and abs(self.ratio.median - 1) >= LEAST


class ResultsComparison(msgspec.Struct, frozen=True):
    """A comparison of two runs."""

    is_same_machine: bool
    """If so times are compared, and else ratios to the baseline."""
    changes: Sequence[Change]
    """Changes of the figures of both that can be compared."""
    missing: Sequence[str]
    """Names of what cannot be compared, and why."""
    versions: Sequence[str]
    """Versions that peers are made of now and were not then."""


def compare(
    old: Mapping[str, Results], new: Mapping[str, Results], records: tuple[Record, Record]
) -> ResultsComparison:
    """Compare two runs of the benchmarks.

    Args:
        old: The earlier one's results by question.
        new: The later one's.
        records: The earlier and the later one as they were kept.
    """
    same = _same(records[0].machine, records[1].machine)
    changes: list[Change] = []
    missing = [f"{name}: not asked then" for name in new if name not in old]
    missing += [f"{name}: not asked now" for name in old if name not in new]
    for name in (name for name in new if name in old):
        _compare_question(old[name], new[name], changes, missing, same=same)
    return ResultsComparison(same, changes, missing, _versions(*records))


def _compare_question(old: Results, new: Results, changes: list[Change], missing: list[str], *, same: bool) -> None:
    name = new.question.name
    then = {case.name: case for case in old.question.cases}
    pairs = [(case, peer.name) for case in new.question.cases if not case.hidden for peer in new.question.peers]
    for case, peer in pairs:
        where = f"{name}, {case.name}, {peer}"
        if case.name not in then:
            missing.append(f"{where}: no such case then")
        elif _measures(new, case.name) != _measures(old, case.name):
            missing.append(f"{where}: measured otherwise then")
        elif same or peer != new.question.baseline_of(case):
            found = _compare_figure(old, new, case.name, peer, same=same)
            if isinstance(found, Change):
                changes.append(found)
            elif found:
                missing.append(f"{where}: {found}")
    now = {(case.name, peer) for case, peer in pairs}
    missing += [
        f"{name}, {case.name}, {peer.name}: not measured now"
        for case in old.shown()
        for peer in old.question.peers
        if (case.name, peer.name) not in now and old.rounds(case.name, peer.name) is not None
    ]


def _compare_figure(old: Results, new: Results, case: str, peer: str, *, same: bool) -> Change | str:
    then, now = (_values(results, case, peer, same=same) for results in (old, new))
    if then is None and now is None:
        return ""
    if then is None or now is None:
        return "not measured then" if then is None else "not measured now"
    for results, word in ((old, "then"), (new, "now")):
        figure = results.figure(case, peer)
        if figure is None or figure.is_noisy or figure.is_bound or (not same and figure.is_relative_noisy):
            return f"too noisy {word}"
    above, below = now.steady, then.steady
    parameters = new.parameters
    ratio = quotient_interval(above, below, parameters.seed, parameters.resamples)
    return Change(new.question.name, peer, case, ratio)


def _values(results: Results, case: str, peer: str, *, same: bool) -> Rounds | None:
    if case not in {each.name for each in results.question.cases}:
        return None
    told = results.told(case, peer)
    if same or told is None:
        return told
    baseline = results.question.baseline_of(results.question.case(case))
    base = results.rounds(case, baseline) if baseline else None
    compared = told.over(base) if base is not None else None
    return compared if compared is not None and compared.values else None


def _measures(results: Results, case: str) -> tuple[object, ...]:
    """The settings that must be equal for two figures to be comparable."""
    question = results.question
    asked = question.case(case)
    return (
        question.figures,
        question.baseline_of(asked),
        question.unit_of(asked),
        asked.per,
        asked.times,
        asked.minuend,
        asked.subtrahend,
    )


def _same(old: Machine, new: Machine) -> bool:
    return (old.cpu, old.cores, old.python) == (new.cpu, new.cores, new.python)


def _versions(old: Record, new: Record) -> Sequence[str]:
    then, now = _made_of(old), _made_of(new)
    return [f"{name} {then[name]} → {now[name]}" for name in sorted(now) if name in then and then[name] != now[name]]


def _made_of(record: Record) -> Mapping[str, str]:
    """Collect versions by distribution. Peers may have pinned different ones: then all of them."""
    made: dict[str, set[str]] = {}
    for question in record.questions:
        for peer in question.peers:
            for name, version in peer.versions.items():
                made.setdefault(name, set()).add(version)
    return {name: " and ".join(sorted(versions)) for name, versions in made.items()}
