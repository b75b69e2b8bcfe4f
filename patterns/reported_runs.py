"""Runs reported by hand: what is told of them, checked, and the event that it becomes."""

import secrets
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from runmeter.engine import Clock, ConfigurationError, ModelRequest, Provenance, RunInfo, RunReported, Status, Usage

NS_PER_MS = 1_000_000

_Count: TypeAlias = Annotated[int, Meta(ge=0, le=10**15)]
_Milliseconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e12)]  # some 30 years: more is another unit
_Dollars: TypeAlias = Annotated[float, Meta(ge=0)]
_Read = TypeVar("_Read", bound=msgspec.Struct)


class _Tokens(msgspec.Struct, frozen=True):
    input: _Count | None = None
    output: _Count | None = None
    total: _Count | None = None


class _OpenAIMetrics(msgspec.Struct, frozen=True):
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    total_tokens: _Count | None = None
    estimated_cost_usd: _Dollars | None = None
    """Not used: it follows from the tokens."""
    function_calls: _Count | None = None
    assistant_runs: _Count | None = None


class RunMetrics(msgspec.Struct, frozen=True):
    """Figures that a caller reports of a run. None stands for what is not known."""

    success: bool | None = None
    duration_ms: _Milliseconds | None = None
    token_usage: _Tokens | None = None
    function_calls: _Count | None = None
    assistant_run: bool | _Count | None = None
    """Whether an assistant ran, or how often."""


def read_metrics(
    metrics: Any, success: bool | None, openai_metrics: Mapping[str, Any] | None, duration_ms: float | None
) -> RunMetrics:
    """Read the figures reported of a run: by its metrics, or by single arguments.

    Raises:
        ConfigurationError: both are given, or neither; a value is not of its kind; a mapping has another key; or an
            object has none of the attributes.
    """
    if isinstance(metrics, Real) and duration_ms is None:
        metrics, duration_ms = None, metrics
    if metrics is None and duration_ms is not None:
        return _of_arguments(duration_ms, success, openai_metrics)
    if not (success is None and openai_metrics is None and duration_ms is None):
        raise ConfigurationError("give metrics, or duration_ms with success and openai_metrics, and not both")
    told = _told("metrics", metrics, RunMetrics)
    if told.get("token_usage") is not None:
        told["token_usage"] = _told("metrics.token_usage", told["token_usage"], _Tokens)
    return _read("metrics", told, RunMetrics)


def _of_arguments(duration_ms: float, success: bool | None, openai_metrics: Mapping[str, Any] | None) -> RunMetrics:
    told = _read("openai_metrics", _told("openai_metrics", openai_metrics or {}, _OpenAIMetrics), _OpenAIMetrics)
    arguments = {
        "duration_ms": duration_ms,
        "success": success,
        "token_usage": {"input": told.input_tokens, "output": told.output_tokens, "total": told.total_tokens},
        "function_calls": told.function_calls,
        "assistant_run": told.assistant_runs,
    }
    return _read("", arguments, RunMetrics)


def reported(pattern: str, framework: str, model: Any, metrics: RunMetrics, clock: Clock) -> RunReported:
    """Make the event of a run that was made outside an engine.

    Args:
        pattern: Its name in the statistics.
        framework: What it is built on.
        model: What used the tokens.
        metrics: What is told of it.
        clock: Says when that was.

    Raises:
        ConfigurationError: the numbers of tokens contradict each other, or only their total is told; or the model is no
            name.
    """
    if not isinstance(model, str) or not model:
        raise ConfigurationError(f"model: expected a name, is {model!r}")
    usage, provenance = _usage(metrics.token_usage or _Tokens())
    # As of a run in an engine: names that events may hold.
    info, request = RunInfo(pattern, framework), ModelRequest(provider="openai", model=model)
    return RunReported(
        run_id=secrets.token_hex(16),
        seq=0,
        time_ns=clock.time_ns(),
        pattern=info.pattern,
        framework=info.framework,
        status=Status.ERROR if metrics.success is False else Status.OK,
        duration_ns=None if metrics.duration_ms is None else round(metrics.duration_ms * NS_PER_MS),
        model=request.model if usage is not None else None,
        usage=usage,
        provenance=provenance,
        function_calls=metrics.function_calls or 0,
        assistant_runs=int(metrics.assistant_run or 0),
    )


def _usage(tokens: _Tokens) -> tuple[Usage | None, Provenance]:
    """Read what was used, if anything; and whether that is all, or a lower bound."""
    told_in, told_out, total = tokens.input, tokens.output, tokens.total
    if total is not None:
        if told_in is None and told_out is None and total:
            raise ConfigurationError("give input and output tokens, not their total alone: they have different prices")
        if told_in is None and told_out is not None:
            told_in = total - told_out
        elif told_out is None and told_in is not None:
            told_out = total - told_in
        if min(told_in or 0, told_out or 0) < 0 or (told_in or 0) + (told_out or 0) != total:
            raise ConfigurationError(f"input and output tokens do not add up to their total, {total}")
    is_whole = told_in is not None and told_out is not None
    usage = Usage(told_in or 0, told_out or 0)
    return usage if usage.total_tokens else None, Provenance.REPORTED if is_whole else Provenance.PARTIAL


def _told(what: str, value: Any, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Read a mapping's keys or an object's attributes, as far as they are there; the names must be the kind's."""
    names = kind.__struct_fields__
    if isinstance(value, Mapping):
        if unknown := value.keys() - set(names):
            named = ", ".join(sorted(map(repr, unknown)))
            raise ConfigurationError(f"{what} has no {named}; its keys are {', '.join(names)}")
        return dict(value)
    told = {name: getattr(value, name) for name in names if hasattr(value, name)}
    if not told:
        raise ConfigurationError(f"{what}: {type(value).__name__} has none of {', '.join(names)}")
    return told


def _read(what: str, told: Mapping[str, Any], kind: type[_Read]) -> _Read:
    try:
        return msgspec.convert(_plain(told), kind)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        named = f"{what}{place.rstrip('`')}".removeprefix(".")
        raise ConfigurationError(f"{named}: {problem}") from None


def _plain(value: Any) -> Any:
    """Convert a mapping to numbers of Python's own, also where a library has others: numpy, for one."""
    match value:
        case bool():
            return value
        case Integral():
            return int(value)
        case Real():
            return float(value)
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case _:
            return value
