"""The comparison of variants that did the same work: which was cheaper or faster.

A variant is a pattern in a framework with the models it asked. What is the same work cannot be seen in events: it is
what the user says. A tag names it (`by="task"`), or else runs of one pattern count as the same work. Nothing is
compared across works.

A pattern that asked one model in some runs and more in others, as routers do, is one variant: which it asked was part
of its work, and easy cases would be compared with difficult ones. For the same reason a run that failed before it had
asked all its models counts for the variant it can only have belonged to; if there are several, it is left out, and
that is told.
"""

import math
from collections.abc import Iterator, Sequence

import msgspec

from runmeter.engine.formats import format_count, format_rough_dollars, format_time

from .advice import CONFIDENCE, MIN_RUNS, Advice, percent, percents, times
from .moments import share_interval
from .outcomes import RunOutcomes, cost_ratio, duration_ratio
from .run_tree import FinishedRun

MAX_MISSING = 10
"""Number of variants of which it is said what they lack to be compared; further ones are only counted."""
MAX_MIXED_TAGS = 20
"""Number of tags by which the runs of one work differ that are remembered."""


class Variant(msgspec.Struct):
    """A way of doing the work, and its outcomes."""

    pattern: str
    framework: str
    models: frozenset[str]
    outcomes: RunOutcomes

    def overlaps(self, models: frozenset[str]) -> bool:
        """Tell whether one of the two sets of models holds the other."""
        return self.models <= models or models <= self.models


class _Work:
    """The runs that did the same work, by variant."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str, frozenset[str]], RunOutcomes] = {}
        self.tags: dict[str, str] = {}
        self.mixed_tags: set[str] = set()

    def note_tags(self, run: FinishedRun) -> None:
        """Remember by which tags its runs differ: one of these may tell work apart."""
        if not self.outcomes:
            self.tags = dict(run.tags)
        if len(self.mixed_tags) < MAX_MIXED_TAGS and run.tags != self.tags:
            names = self.tags.keys() | run.tags.keys()
            self.mixed_tags |= {name for name in names if self.tags.get(name) != run.tags.get(name)}

    def variants(self) -> tuple[list[Variant], int]:
        """Group the runs by variant, and count the failed runs that could belong to several of them."""
        variants: list[Variant] = []
        left_out = 0
        # Runs that succeeded have asked all their models, and so say what variants there are; the fullest sets first.
        order = sorted(self.outcomes.items(), key=lambda item: (not item[1].ok, -len(item[0][2]), sorted(item[0][2])))
        for (pattern, framework, models), outcomes in order:
            kin = [each for each in variants if (each.pattern, each.framework) == (pattern, framework)]
            fitting = [each for each in kin if each.overlaps(models)]
            if len(fitting) > 1 and not outcomes.ok:
                left_out += outcomes.runs
                continue
            whole = Variant(pattern, framework, models, outcomes)
            for each in fitting:
                whole = Variant(pattern, framework, whole.models | each.models, whole.outcomes + each.outcomes)
                variants.remove(each)
            variants.append(whole)
        return variants, left_out


class _Pair(msgspec.Struct, frozen=True):
    """A pair of variants of a work, with their names there."""

    better: Variant
    other: Variant
    names: tuple[str, str]
    work: str
    remarks: str


class Comparison:
    """Folds finished runs into variants of works, and compares these.

    Args:
        by: The tag that says what is the same work; None: the pattern does.
        max_keys: Variants at most that are told apart; runs of further ones are left out.
    """

    def __init__(self, by: str | None, max_keys: int) -> None:
        self._by = by
        self._max_keys = max_keys
        self._keys = 0
        self._works: dict[str, _Work] = {}
        self.runs = self.untagged = self.left_out = 0

    def add(self, run: FinishedRun) -> None:
        """Count a finished run for its variant."""
        self.runs += 1
        name = run.pattern if self._by is None else run.tags.get(self._by)
        if name is None:
            self.untagged += 1
            return
        work, key = self._works.get(name), (run.pattern, run.framework, run.models)
        if work is None or key not in work.outcomes:
            if self._keys >= self._max_keys:
                self.left_out += 1
                return
            self._keys += 1
            work = self._works.setdefault(name, _Work())
        work.note_tags(run)
        work.outcomes.setdefault(key, RunOutcomes()).add(run)

    def advice(self) -> Iterator[Advice]:
        """Find the differences that hold, all of them together at a confidence of `CONFIDENCE`."""
        works = []
        for name, work in sorted(self._works.items()):
            variants, left_out = work.variants()
            enough = [each for each in variants if each.outcomes.ok >= MIN_RUNS]
            works.append((self._title(name), enough, self._remarks(work, left_out)))
        compared = sum(2 * math.comb(len(variants), 2) for _, variants, _ in works)  # costs and durations
        confidence = 1 - (1 - CONFIDENCE) / max(compared, 1)  # Bonferroni's correction
        for title, variants, remarks in works:
            if len(variants) > 1:
                yield from _cheaper(title, variants, confidence, remarks)
                yield from _faster(title, variants, confidence, remarks)

    def silences(self) -> Iterator[Advice]:
        """Explain the silence where something might be expected."""
        compared = [(self._title(name), work.variants()[0]) for name, work in sorted(self._works.items())]
        missing = [
            advice
            for title, variants in compared
            if len(variants) > 1
            for variant in variants
            for advice in _missing(_name(variant, variants), title, variant.outcomes)
        ]
        missing.sort(key=lambda each: -each.counts["runs"])
        yield from missing[:MAX_MISSING]
        if more := len(missing[MAX_MISSING:]):
            text = f"For like reasons {format_count(more, 'variant')} more, of no more runs each, cannot be compared."
            yield Advice(kind="silence", subject="comparison", text=text, counts={"variants": more})
        if self.untagged < self.runs and not any(len(variants) > 1 for _, variants in compared):
            yield self._nothing_to_compare()
        if self.untagged:
            text = f"{format_count(self.untagged, 'run')} of {self.runs:,} had no tag {self._by} and were not compared."
            yield Advice(kind="silence", subject=f"tag {self._by}", text=text, counts={"runs": self.untagged})
        if self.left_out:
            text = (
                f"{format_count(self.left_out, 'run')} of {self.runs:,} were not compared: there are too many variants."
            )
            yield Advice(kind="silence", subject="comparison", text=text, counts={"runs": self.left_out})

    def _title(self, name: str) -> str:
        return f"pattern {name}" if self._by is None else f"{self._by}={name}"

    def _nothing_to_compare(self) -> Advice:
        if self._by is None:
            text = (
                "There is nothing to compare: no pattern ran in several frameworks, or with one model in some runs and "
                "another in others. Where several patterns do the same work, give their runs a tag that names it, and "
                "compare by that tag."
            )
        else:
            text = f"There is nothing to compare: no two patterns or models did the same {self._by}."
        return Advice(kind="silence", subject="comparison", text=text, counts={"runs": self.runs})

    def _remarks(self, work: _Work, left_out: int) -> str:
        text = ""
        if left_out:
            text += f" {format_count(left_out, 'failed run')} that may belong to either left out."
        if self._by is None and work.mixed_tags:
            names = ", ".join(sorted(work.mixed_tags))
            text += f" Their tags differ ({names}): if one of these tells the work apart, compare by it."
        return text


def _cheaper(work: str, variants: Sequence[Variant], confidence: float, remarks: str) -> Iterator[Advice]:
    known = [each for each in variants if each.outcomes.usd_per_success()[0] is not None]
    bounded = [each for each in known if each.outcomes.usd_per_success()[1] is not None]
    if not bounded:
        return
    best = min(bounded, key=lambda each: each.outcomes.usd_per_success()[1] or 0)
    for other in known:
        ratio = None if other is best else cost_ratio(other.outcomes, best.outcomes, confidence)
        if ratio is not None and ratio[0] > 1:
            yield _told_cheaper(
                _Pair(best, other, (_name(best, variants), _name(other, variants)), work, remarks), ratio
            )


def _faster(work: str, variants: Sequence[Variant], confidence: float, remarks: str) -> Iterator[Advice]:
    best = min(variants, key=lambda each: each.outcomes.log_durations.mean)
    for other in variants:
        if other is best:
            continue
        ratio = duration_ratio(other.outcomes, best.outcomes, confidence)
        if ratio[0] > 1:
            yield _told_faster(
                _Pair(best, other, (_name(best, variants), _name(other, variants)), work, remarks), ratio
            )


def _told_cheaper(pair: _Pair, ratio: tuple[float, float]) -> Advice:
    mine, theirs = pair.better.outcomes, pair.other.outcomes
    (my_low, my_high), (their_low, their_high) = mine.usd_per_success(), theirs.usd_per_success()
    name, other = pair.names
    text = (
        f"{name} was {times(*ratio)} cheaper than {other} on {pair.work}, {mine.runs:,} and {theirs.runs:,} runs: "
        f"{_between(my_low, my_high)} against {_between(their_low, their_high)} for each run that succeeded; "
        f"p95 {format_time(mine.p95())} against {format_time(theirs.p95())}.{_failures(mine, theirs)}{pair.remarks}"
    )
    figures = {
        "ratio_low": ratio[0],
        "ratio_high": _finite(ratio[1]),
        "usd_per_success_low": my_low,
        "usd_per_success_high": my_high,
        "other_usd_per_success_low": their_low,
        "other_usd_per_success_high": their_high,
        "p95_ns": mine.p95(),
        "other_p95_ns": theirs.p95(),
    }
    return Advice(
        kind="cheaper", subject=f"{name} on {pair.work}", text=text, figures=figures, counts=_counts(mine, theirs)
    )


def _told_faster(pair: _Pair, ratio: tuple[float, float]) -> Advice:
    mine, theirs = pair.better.outcomes, pair.other.outcomes
    name, other = pair.names
    typical, their_typical = mine.typical_seconds(), theirs.typical_seconds()
    text = (
        f"{name} was {times(*ratio)} faster than {other} on {pair.work}, {mine.ok:,} and {theirs.ok:,} runs that "
        f"succeeded: typically {format_time(round(typical * 1e9))} against {format_time(round(their_typical * 1e9))}, "
        f"p95 {format_time(mine.p95())} against {format_time(theirs.p95())}.{_failures(mine, theirs)}{pair.remarks}"
    )
    figures = {
        "ratio_low": ratio[0],
        "ratio_high": ratio[1],
        "typical_s": typical,
        "other_typical_s": their_typical,
        "p95_ns": mine.p95(),
        "other_p95_ns": theirs.p95(),
    }
    return Advice(
        kind="faster", subject=f"{name} on {pair.work}", text=text, figures=figures, counts=_counts(mine, theirs)
    )


def _missing(name: str, work: str, outcomes: RunOutcomes) -> Iterator[Advice]:
    """Explain what a variant lacks to be compared."""
    subject, counts = f"{name} on {work}", {"runs": outcomes.runs, "failures": outcomes.failed}
    if outcomes.ok < MIN_RUNS:
        text = f"{subject} is not compared: {outcomes.ok:,} of {format_count(outcomes.runs, 'run')} succeeded, "
        text += f"{MIN_RUNS - outcomes.ok} more are needed."
        yield Advice(kind="silence", subject=subject, text=text, counts=counts)
    elif outcomes.most.unknown:
        text = (
            f"{subject}: what {outcomes.most.unknown:,} of {format_count(outcomes.runs, 'run')} cost has no upper bound"
        )
        text += " (usage or price unknown), so it is not called cheaper than anything."
        yield Advice(kind="silence", subject=subject, text=text, counts=counts)
    elif outcomes.usd_per_success()[1] is None:
        text = (
            f"{subject}: its {format_count(outcomes.runs, 'run')} cost nothing, so there is no telling how many times "
        )
        text += "cheaper it was than anything."
        yield Advice(kind="silence", subject=subject, text=text, counts=counts)


def _failures(mine: RunOutcomes, theirs: RunOutcomes) -> str:
    """Write the failures of the two, if there are any; first of all if the one recommended failed more often."""
    if not mine.failed and not theirs.failed:
        return ""
    share, other = mine.failed / mine.runs, theirs.failed / theirs.runs
    bounds = percents(*share_interval(mine.failed, mine.runs))
    other_bounds = percents(*share_interval(theirs.failed, theirs.runs))
    how = " But it failed more often" if share > other else " It failed no more often"
    return f"{how}: {percent(share)} of its runs ({bounds}) against {percent(other)} ({other_bounds})."


def _counts(mine: RunOutcomes, theirs: RunOutcomes) -> dict[str, int]:
    return {
        "runs": mine.runs,
        "other_runs": theirs.runs,
        "failures": mine.failed,
        "other_failures": theirs.failed,
    }


def _name(variant: Variant, among: Sequence[Variant]) -> str:
    """Name a variant by what sets it apart from the others."""
    parts = []
    if len({each.pattern for each in among}) > 1:
        parts.append(variant.pattern)
    if len({each.framework for each in among}) > 1:
        parts.append(f"({variant.framework})")
    if len({each.models for each in among}) > 1:
        models = " + ".join(sorted(variant.models)) or "no model"
        parts.append(f"with {models}" if parts else models)
    return " ".join(parts)


def _between(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"at least {format_rough_dollars(low)}" if low is not None else "an unknown amount"
    return format_rough_dollars(low) if low == high else f"{format_rough_dollars(low)} to {format_rough_dollars(high)}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
