"""Certainty of a mean: running moments, and the interval of the ratio of two means.

A mean is compared on the logarithmic scale, where "three times as much" is a distance, and where skewed values such as
costs and durations are closer to normal. The interval is Welch's, so the two sides may spread differently.
"""

import math
from statistics import NormalDist

import msgspec


class Moments:
    """Count, mean and spread of numbers, in constant memory (Welford's method). Sets of numbers can be joined."""

    __slots__ = ("count", "mean", "squares")

    def __init__(self, count: int = 0, mean: float = 0.0, squares: float = 0.0) -> None:
        self.count = count
        self.mean = mean
        self.squares = squares
        """The sum of the squared distances from the mean."""

    @property
    def sum(self) -> float:
        """Sum of the numbers, with a float's precision."""
        return self.count * self.mean

    def add(self, value: float) -> None:
        """Count one more number."""
        self.count += 1
        distance = value - self.mean
        self.mean += distance / self.count
        self.squares += distance * (value - self.mean)

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        if not count:
            return Moments()
        distance = other.mean - self.mean
        return Moments(
            count,
            self.mean + distance * other.count / count,
            self.squares + other.squares + distance * distance * self.count * other.count / count,
        )


class LogMean(msgspec.Struct, frozen=True):
    """The logarithm of a mean, and its variance."""

    log: float
    variance: float
    """Variance of `log`, as an estimate."""
    freedom: int
    """Degrees of freedom of `variance`."""


def geometric_mean(logs: Moments) -> LogMean:
    """Compute the geometric mean of at least two positive numbers, from the moments of their logarithms."""
    return LogMean(logs.mean, logs.squares / (logs.count - 1) / logs.count, logs.count - 1)


def mean_per_success(successes: Moments, failures: Moments) -> LogMean | None:
    """Compute what all the runs together took, for each of those that succeeded.

    A ratio of two sums; its variance is that of the linearized ratio (the delta method), relative to the mean.

    Args:
        successes: What each run that succeeded took.
        failures: What each run that failed took.

    Returns:
        None if nothing succeeded, if nothing was taken, or for a single run.
    """
    count, total = successes.count + failures.count, successes.sum + failures.sum
    if not successes.count or total <= 0 or count < 2:
        return None
    ratio = total / successes.count
    squares = successes.squares + successes.count * (successes.mean - ratio) ** 2
    squares += failures.squares + failures.count * failures.mean**2
    return LogMean(math.log(ratio), squares / (count - 1) / count / (total / count) ** 2, count - 1)


def typical_per_success(successes: Moments, failures: Moments) -> LogMean | None:
    """Compute the geometric mean of the runs over the share of successes: what is typical for each success.

    Args:
        successes: The logarithm of what each run that succeeded took.
        failures: The same of each run that failed.

    Returns:
        None if nothing succeeded, or for a single run.
    """
    both = successes + failures
    if not successes.count or both.count < 2:
        return None
    share = successes.count / both.count
    squares = successes.squares + successes.count * (successes.mean - both.mean - (1 - share) / share) ** 2
    squares += failures.squares + failures.count * (failures.mean - both.mean + 1) ** 2
    return LogMean(both.mean - math.log(share), squares / (both.count - 1) / both.count, both.count - 1)


def ratio_interval(over: LogMean, under: LogMean, confidence: float) -> tuple[float, float]:
    """Compute the bounds of the ratio of two means, with a two-sided confidence such as 0.95."""
    difference, variance = over.log - under.log, over.variance + under.variance
    if variance <= 0:
        return math.exp(difference), math.exp(difference)
    freedom = variance**2 / (over.variance**2 / over.freedom + under.variance**2 / under.freedom)
    reach = student_t(0.5 + confidence / 2, freedom) * math.sqrt(variance)
    return math.exp(difference - reach), math.exp(difference + reach)


def student_t(p: float, freedom: float) -> float:
    """Compute the quantile of Student's distribution: for 15 degrees of freedom or more, within 1 % up to p = 0.99999.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.5.
    """
    z = NormalDist().inv_cdf(p)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def share_interval(part: int, whole: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the bounds of a true share of which `part` of `whole` were seen (Wilson's score interval)."""
    if not whole:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    seen, scale = part / whole, 1 + z * z / whole
    middle = seen + z * z / (2 * whole)
    reach = z * math.sqrt(seen * (1 - seen) / whole + z * z / (4 * whole * whole))
    return max((middle - reach) / scale, 0.0), min((middle + reach) / scale, 1.0)
