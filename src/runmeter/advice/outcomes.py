"""Outcomes of many runs of one kind, folded into a few numbers: constant memory, exact, joinable."""

import math
from decimal import Decimal

from runmeter.engine.usage.histogram import Histogram

from .moments import LogMean, Moments, geometric_mean, mean_per_success, ratio_interval, typical_per_success
from .run_tree import FinishedRun


class _Costs:
    """Sums over one bound of each run's cost: the lower, or the upper."""

    __slots__ = ("failure_logs", "failures", "success_logs", "successes", "unknown")

    def __init__(self) -> None:
        self.successes, self.failures = Moments(), Moments()
        self.success_logs, self.failure_logs = Moments(), Moments()
        self.unknown = 0
        """Number of runs that have no such bound, or of which the logarithm has none."""

    def add(self, usd: Decimal | None, *, is_ok: bool, is_free: bool) -> None:
        """Count a run's bound. One that cost nothing counts in the sums, and has no logarithm."""
        if usd is None or (not usd and not is_free):
            self.unknown += 1
            return
        amount = float(usd)
        (self.successes if is_ok else self.failures).add(amount)
        if amount > 0:
            (self.success_logs if is_ok else self.failure_logs).add(math.log(amount))

    def __add__(self, other: "_Costs") -> "_Costs":
        both = _Costs()
        both.successes, both.failures = self.successes + other.successes, self.failures + other.failures
        both.success_logs = self.success_logs + other.success_logs
        both.failure_logs = self.failure_logs + other.failure_logs
        both.unknown = self.unknown + other.unknown
        return both

    def per_success(self) -> tuple[LogMean, LogMean] | None:
        """Compute the mean and the typical cost of a run that succeeded; None if a single run's is not known."""
        if self.unknown:
            return None
        mean = mean_per_success(self.successes, self.failures)
        typical = typical_per_success(self.success_logs, self.failure_logs)
        return None if mean is None or typical is None else (mean, typical)


class RunOutcomes:
    """Costs, durations and ends of many runs."""

    __slots__ = ("least", "log_durations", "most", "ok", "runs", "times")

    def __init__(self) -> None:
        self.runs = self.ok = 0
        self.least, self.most = _Costs(), _Costs()
        self.times = Histogram()
        """Durations of runs that succeeded, in nanoseconds."""
        self.log_durations = Moments()

    @property
    def failed(self) -> int:
        """Number of runs that finished in any other way than well."""
        return self.runs - self.ok

    def add(self, run: FinishedRun) -> None:
        """Count a finished run."""
        cost = run.cost
        is_free = cost.high is not None and not cost.high
        self.runs += 1
        self.ok += run.is_ok
        self.least.add(cost.low, is_ok=run.is_ok, is_free=is_free)
        self.most.add(cost.high, is_ok=run.is_ok, is_free=is_free)
        if run.is_ok:  # how soon a run failed says nothing about its speed
            self.times.add(run.duration_ns)
            self.log_durations.add(math.log(max(run.duration_ns, 1)))

    def __add__(self, other: "RunOutcomes") -> "RunOutcomes":
        both = RunOutcomes()
        both.runs, both.ok = self.runs + other.runs, self.ok + other.ok
        both.least, both.most = self.least + other.least, self.most + other.most
        for part in (self, other):
            both.times.merge(part.times.snapshot())
        both.log_durations = self.log_durations + other.log_durations
        return both

    def p95(self) -> int:
        """Compute the nanoseconds that 95 % of the runs that succeeded did not exceed; 0 if there are none."""
        return self.times.snapshot().quantile(0.95) or 0

    def typical_seconds(self) -> float:
        """Compute the geometric mean of the durations of runs that succeeded, in seconds."""
        return math.exp(self.log_durations.mean) / 1e9

    def usd_per_success(self) -> tuple[float | None, float | None]:
        """Compute the lower and upper bound of a success's cost in USD, with its share of the failures."""
        least, most = self.least.per_success(), self.most.per_success()
        return (math.exp(least[0].log) if least else None, math.exp(most[0].log) if most else None)


def cost_ratio(dear: RunOutcomes, cheap: RunOutcomes, confidence: float) -> tuple[float, float] | None:
    """Compute the interval of the ratio of two costs for each run that succeeded. None if it cannot be told.

    Both the mean cost, which the bill is made of, and the typical one (the geometric mean), which a few expensive runs
    do not sway, are compared; the interval holds those of both. The mean alone is not enough: of 100 simulated
    histories without a difference, and with very skewed costs (lognormal, sigma 1.6), it would tell one in 13, both
    together in 2. In each the ends are the worst case of what is not known for certain: the lower bound of the one's
    cost against the upper bound of the other's, and the other way round.
    """
    least, most = dear.least.per_success(), cheap.most.per_success()
    if least is None or most is None:
        return None
    low = min(ratio_interval(one, other, confidence)[0] for one, other in zip(least, most, strict=True))
    upper, lower = dear.most.per_success(), cheap.least.per_success()
    if upper is None or lower is None:
        return low, math.inf
    return low, max(ratio_interval(one, other, confidence)[1] for one, other in zip(upper, lower, strict=True))


def duration_ratio(slow: RunOutcomes, fast: RunOutcomes, confidence: float) -> tuple[float, float]:
    """Compute the interval of the ratio of two typical durations (geometric mean), of the runs that succeeded."""
    return ratio_interval(geometric_mean(slow.log_durations), geometric_mean(fast.log_durations), confidence)
