"""Statistics in the registry's keys."""

from typing import NotRequired, TypedDict

from runmeter.engine import HistogramSnapshot, UsageRow

NS_PER_MS = 1_000_000


class Bucket(TypedDict):
    """A bucket of a histogram: durations of about the same length."""

    up_to_ms: float
    """The longest that is counted here."""
    count: int


class Durations(TypedDict):
    """A histogram of durations, in milliseconds. None where there is no value yet.

    The same length is in the same bucket always, so that histograms of several processes add up: `count`, `total_ms`,
    and the counts of buckets with an equal `up_to_ms`. A bucket is at most 1.6 % wide.
    """

    count: int
    total_ms: float
    average_ms: float | None
    min_ms: float | None
    max_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    buckets: list[Bucket]
    """Those that hold anything, the shortest durations first."""


class OpenAIMetrics(TypedDict):
    """Tokens, calls and money, of LangGraph patterns too."""

    total_tokens: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    """Of the input tokens."""
    reasoning_tokens: int
    """Of the output tokens."""
    requests: int
    requests_by_provenance: dict[str, int]
    """How the usage of each request is known. What is unknown is in no token count."""
    estimated_cost_usd: float | None
    """None where the cost is not known exactly: some usage or price is unknown."""
    cost_low_usd: float
    cost_high_usd: float | None
    """None if there is no known bound."""
    unpriced_requests: int
    function_calls: int
    assistant_runs: int
    threads_created: int
    """Assistant runs that made their thread."""
    threads_resumed: int
    """Assistant runs that went on with one."""
    assistant_run_durations: Durations


class UsageStats(TypedDict):
    """Statistics of runs and of what they used."""

    total_executions: int
    successful_executions: int
    failed_executions: int
    cancelled_executions: int
    """Runs stopped from outside. They are no failures."""
    running_executions: int
    executions_by_status: dict[str, int]
    errors_by_type: dict[str, int]
    total_duration_ms: float
    average_duration_ms: float
    p50_duration_ms: float | None
    p95_duration_ms: float | None
    p99_duration_ms: float | None
    openai_metrics: OpenAIMetrics
    by_pattern: NotRequired[dict[str, "UsageStats"]]


def stats_of(row: UsageRow, *, with_cost: bool = True) -> UsageStats:
    """Translate a row of the usage statistics to the registry's keys. Durations are in milliseconds, costs in USD."""
    return {
        "total_executions": row.executions,
        "successful_executions": row.successes,
        "failed_executions": row.failures,
        "cancelled_executions": row.cancelled,
        "running_executions": row.in_flight,
        "executions_by_status": {str(status): number for status, number in row.by_status.items()},
        "errors_by_type": dict(row.errors_by_type),
        "total_duration_ms": row.run_latency.sum / NS_PER_MS,
        "average_duration_ms": (row.run_latency.mean or 0.0) / NS_PER_MS,
        "p50_duration_ms": _ms(row.p50),
        "p95_duration_ms": _ms(row.p95),
        "p99_duration_ms": _ms(row.p99),
        "openai_metrics": _metrics_of(row, with_cost=with_cost),
    }


def _metrics_of(row: UsageRow, *, with_cost: bool) -> OpenAIMetrics:
    usage, cost = row.usage, row.cost
    known = cost.usd if with_cost else None
    return {
        "total_tokens": usage.total_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cache_read_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "requests": row.requests,
        "requests_by_provenance": {str(kind): number for kind, number in row.requests_by_provenance.items()},
        "estimated_cost_usd": None if known is None else float(known),
        "cost_low_usd": float(cost.low) if with_cost else 0.0,
        "cost_high_usd": None if cost.high is None or not with_cost else float(cost.high),
        "unpriced_requests": cost.unpriced,
        "function_calls": row.function_calls,
        "assistant_runs": row.assistant_runs,
        "threads_created": row.threads_created,
        "threads_resumed": row.threads_resumed,
        "assistant_run_durations": _durations_of(row.assistant_latency),
    }


def _durations_of(latency: HistogramSnapshot) -> Durations:
    return {
        "count": latency.count,
        "total_ms": latency.sum / NS_PER_MS,
        "average_ms": None if latency.mean is None else latency.mean / NS_PER_MS,
        "min_ms": _ms(latency.min),
        "max_ms": _ms(latency.max),
        "p50_ms": _ms(latency.quantile(0.50)),
        "p95_ms": _ms(latency.quantile(0.95)),
        "p99_ms": _ms(latency.quantile(0.99)),
        "buckets": [{"up_to_ms": largest / NS_PER_MS, "count": count} for largest, count in latency.up_to()],
    }


def _ms(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else duration_ns / NS_PER_MS
