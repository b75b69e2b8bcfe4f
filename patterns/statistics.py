"""Statistics in the registry's keys, and runs reported by hand as the events they would have been."""

import secrets
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from runmeter.engine import (
    AssistantRun,
    Clock,
    ConfigurationError,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    FunctionCall,
    ModelCallStarted,
    Provenance,
    Status,
    TokenUsage,
    Usage,
    UsageRow,
)

NS_PER_MS = 1_000_000


class OpenAIMetrics(TypedDict):
    """Tokens, calls and money. Of LangGraph patterns too."""

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


class UsageStats(TypedDict):
    """What runs did and used."""

    total_executions: int
    successful_executions: int
    failed_executions: int
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
    """A row of the usage statistics in the registry's keys. Durations are in milliseconds, costs in USD."""
    return {
        "total_executions": row.executions,
        "successful_executions": row.successes,
        "failed_executions": row.failures,
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
    }


def _ms(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else duration_ns / NS_PER_MS


_REPORTED_KEYS = frozenset(
    ("input_tokens", "output_tokens", "total_tokens", "estimated_cost_usd", "function_calls", "assistant_runs")
)


def report_events(
    pattern: str,
    framework: str,
    model: str,
    status: Status,
    duration_ms: float,
    metrics: Mapping[str, Any],
    clock: Clock,
) -> list[Event]:
    """The events of a run that was made outside an engine, as far as its numbers tell.

    Args:
        pattern: Its name in the statistics.
        framework: What it is built on.
        model: What the tokens were used by.
        status: How the run ended.
        duration_ms: How long it took, in milliseconds.
        metrics: `input_tokens`, `output_tokens`, `function_calls`, `assistant_runs`; each may be left out.
            `total_tokens` and `estimated_cost_usd` are taken and not used: they follow from the tokens.
        clock: Says when it ended.

    Raises:
        ConfigurationError: there is another key, a number is negative, or only the total of the tokens is known.
    """
    _check_metrics(metrics, duration_ms)
    duration_ns = round(duration_ms * NS_PER_MS)
    run_id, now = secrets.token_hex(16), clock.time_ns()
    start = now - duration_ns
    events: list[Event] = [
        ExecutionStarted(run_id=run_id, seq=0, time_ns=start, pattern=pattern, framework=framework, root_run_id=run_id)
    ]
    usage = Usage(metrics.get("input_tokens", 0), metrics.get("output_tokens", 0))
    if usage.total_tokens:
        events += _request_events(run_id, model, usage, start, duration_ns)
    for _ in range(metrics.get("function_calls", 0)):
        seq = len(events)
        events.append(FunctionCall(run_id=run_id, seq=seq, time_ns=now, name="reported", start_ns=now, duration_ns=0))
    for _ in range(metrics.get("assistant_runs", 0)):
        events.append(
            AssistantRun(
                run_id=run_id,
                seq=len(events),
                time_ns=now,
                assistant=pattern,
                status=status,
                start_ns=start,
                duration_ns=duration_ns,
            )
        )
    seq = len(events)
    events.append(ExecutionFinished(run_id=run_id, seq=seq, time_ns=now, status=status, duration_ns=duration_ns))
    return events


def _request_events(run_id: str, model: str, usage: Usage, start_ns: int, duration_ns: int) -> list[Event]:
    """One request stands for all of them: how many there were is not known."""
    return [
        ModelCallStarted(
            run_id=run_id, seq=1, time_ns=start_ns, call_id=1, provider="openai", operation="chat", model=model
        ),
        TokenUsage(
            run_id=run_id,
            seq=2,
            time_ns=start_ns + duration_ns,
            call_id=1,
            provider="openai",
            operation="chat",
            model=model,
            provenance=Provenance.REPORTED,
            usage=usage,
            start_ns=start_ns,
            duration_ns=duration_ns,
        ),
    ]


def _check_metrics(metrics: Mapping[str, Any], duration_ms: float) -> None:
    if unknown := metrics.keys() - _REPORTED_KEYS:
        raise ConfigurationError(
            f"openai_metrics has no {', '.join(sorted(unknown))}; its keys are {', '.join(sorted(_REPORTED_KEYS))}"
        )
    if duration_ms < 0 or any(number < 0 for number in metrics.values()):
        raise ConfigurationError("durations and counts must not be negative")
    if metrics.get("total_tokens") and not {"input_tokens", "output_tokens"} & metrics.keys():
        raise ConfigurationError("give input_tokens and output_tokens: they have different prices")
