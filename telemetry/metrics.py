"""Events to metrics: what each of them measures, and by which attributes."""

from collections.abc import Callable
from typing import Any, TypeAlias

from runmeter.engine import (
    AssistantRun,
    Event,
    ExecutionFinished,
    FunctionCall,
    Notice,
    Provenance,
    Retrieval,
    TokenUsage,
    Usage,
)

from . import semconv
from .instruments import Attributes, Instruments, Series
from .open_runs import OpenRun
from .spans import encodable, failure

Names: TypeAlias = tuple[str, ...]
Value: TypeAlias = str | int | None

MAX_KEPT = 4_096
"""Sets of attributes that are looked up at once; with more, all of them are made again."""

_REPORTED = Provenance.REPORTED  # in Python 3.11 a member of an enumeration is slow to look up
_REQUEST: Names = (
    semconv.PATTERN,
    semconv.OPERATION_NAME,
    semconv.PROVIDER_NAME,
    semconv.REQUEST_MODEL,
    semconv.RESPONSE_MODEL,
    semconv.SERVER_ADDRESS,
    semconv.SERVER_PORT,
)
_TOOL: Names = (semconv.PATTERN, semconv.TOOL_NAME, semconv.TOOL_TYPE, semconv.AGENT_NAME, semconv.ERROR_TYPE)
_AGENT: Names = (semconv.PATTERN, semconv.AGENT_NAME, semconv.ERROR_TYPE)
_WORKFLOW: Names = (semconv.PATTERN, semconv.WORKFLOW_NAME, semconv.ERROR_TYPE)
_RETRIEVAL: Names = (semconv.PATTERN, semconv.OPERATION_NAME, semconv.ERROR_TYPE)
_NOTICE: Names = (semconv.PATTERN, semconv.NOTICE_KIND)


class RequestSeries:
    """The series that requests to a model are measured with which agree in all attributes.

    Args:
        instruments: Where the measurements go.
        requested: What was asked for.
        service_tier: The tier that an embedding's metrics and another provider's do not have.
        error_type: How it failed, if it did.
    """

    __slots__ = ("audio", "ended", "image", "requested", "served", "unknown")

    def __init__(
        self, instruments: Instruments, requested: Attributes, service_tier: str | None, error_type: str | None
    ) -> None:
        served = _extended(requested, semconv.OPENAI_RESPONSE_SERVICE_TIER, service_tier)
        self.requested = Series(instruments, requested)
        self.served = Series(instruments, served)
        self.ended = Series(instruments, _extended(served, semconv.ERROR_TYPE, error_type))
        self.unknown = Series(instruments, {**served, semconv.TOKEN_MODALITY: "unknown"})
        self.audio = Series(instruments, {**served, semconv.TOKEN_MODALITY: "audio"})
        self.image = Series(instruments, {**served, semconv.TOKEN_MODALITY: "image"})


class Metrics:
    """Records the measurements that each event makes.

    Args:
        instruments: Where the measurements go.
        count_unreported: Also count tokens that no API reported in full: of cut streams, and estimates. By the
            conventions a metric holds reported counts only, unless the user chooses otherwise.
    """

    def __init__(self, instruments: Instruments, *, count_unreported: bool) -> None:
        self._instruments = instruments
        self._count_unreported = count_unreported
        self._epoch = instruments.epoch
        self._requests: dict[tuple[Value, ...], RequestSeries] = {}
        self._series: dict[tuple[Names | Value, ...], Series] = {}
        self._measured: dict[type[Event], Callable[[Any, OpenRun], None]] = {
            TokenUsage: self._model_call,
            FunctionCall: self._function_call,
            AssistantRun: self._assistant_run,
            Retrieval: self._retrieval,
            Notice: self._notice,
            ExecutionFinished: self._run,
        }

    def record(self, event: Event, run: OpenRun) -> None:
        """Record what an event measures, if it measures something."""
        measure = self._measured.get(type(event))
        if measure is None:
            return
        with self._instruments.lock:
            if self._epoch != self._instruments.epoch:
                self._forget()
            measure(event, run)

    def _forget(self) -> None:
        self._requests = {}
        self._series = {}
        self._epoch = self._instruments.epoch

    def _model_call(self, event: TokenUsage, run: OpenRun) -> None:
        series = self._series_of_request(event, run)
        if run.request_usd is not None:
            series.requested[semconv.COST](run.request_usd)
        else:
            series.requested[semconv.UNPRICED_REQUESTS](1)
        usage = event.usage
        if event.provenance is not _REPORTED and not self._count_unreported:
            usage = None
        if event.operation == semconv.EMBEDDINGS:
            if usage is not None:
                series.served[semconv.EMBEDDINGS_INPUT_TOKENS](usage.input_tokens)
            series.ended[semconv.EMBEDDINGS_DURATION](event.duration_ns / 1e9)
            return
        if event.first_chunk_ns is not None:
            series.requested[semconv.INFERENCE_TIME_TO_FIRST_CHUNK](event.first_chunk_ns / 1e9)
        if usage is not None:
            if event.is_input_known:
                series.served[semconv.INFERENCE_INPUT_TOKENS](usage.input_tokens)
            series.served[semconv.INFERENCE_OUTPUT_TOKENS](usage.output_tokens)
            _count_input(usage, series)
            _count_output(usage, series)
        series.ended[semconv.INFERENCE_DURATION](event.duration_ns / 1e9)

    def _function_call(self, event: FunctionCall, run: OpenRun) -> None:
        series = self._series_of(
            _TOOL, run.pattern, event.name, semconv.TOOL_TYPE_FUNCTION, run.agent, event.error_type
        )
        series[semconv.EXECUTE_TOOL_DURATION](event.duration_ns / 1e9)

    def _assistant_run(self, event: AssistantRun, run: OpenRun) -> None:
        series = self._series_of(_AGENT, run.pattern, event.assistant, failure(event))
        series[semconv.INVOKE_AGENT_DURATION](event.duration_ns / 1e9)

    def _retrieval(self, event: Retrieval, run: OpenRun) -> None:
        """Record a retrieval, without its source: the conventions have no place for one on this metric."""
        series = self._series_of(_RETRIEVAL, run.pattern, semconv.RETRIEVAL, event.error_type)
        series[semconv.OPERATION_DURATION](event.duration_ns / 1e9)

    def _notice(self, event: Notice, run: OpenRun) -> None:
        self._series_of(_NOTICE, run.pattern, event.kind)[semconv.NOTICES](1)

    def _run(self, event: ExecutionFinished, run: OpenRun) -> None:
        started = run.started
        if started is None:  # its start was dropped: it is not known whether the run was an agent's
            return
        pattern, seconds = started.pattern, event.duration_ns / 1e9
        if started.operation == semconv.INVOKE_WORKFLOW:
            ended = self._series_of(_WORKFLOW, pattern, pattern, failure(event))
            ended[semconv.INVOKE_WORKFLOW_DURATION](seconds)
            return
        self._series_of(_AGENT, pattern, pattern, failure(event))[semconv.INVOKE_AGENT_DURATION](seconds)
        if run.is_whole(event):
            series = self._series_of(_AGENT, pattern, pattern, None)
            series[semconv.INVOKE_AGENT_INFERENCE_CALLS](run.inference_calls)
            series[semconv.INVOKE_AGENT_TOOL_CALLS](run.tool_calls)

    def _series_of(self, names: Names, *values: Value) -> Series:
        """Find or make the series with these attributes. An attribute whose value is None is left out."""
        key = (names, *values)
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= MAX_KEPT:
                self._series = {}
            series = self._series[key] = Series(self._instruments, _attributes(names, values))
        return series

    def _series_of_request(self, event: TokenUsage, run: OpenRun) -> RequestSeries:
        request, started = run.request, run.started
        address = port = None
        if request is not None and request.server_address is not None:
            address, port = request.server_address, request.server_port
        key = (
            started.pattern if started is not None else None,
            event.operation,
            event.provider,
            event.model,
            event.response_model,
            address,
            port,
            event.service_tier,
            event.error_type,
        )
        series = self._requests.get(key)
        if series is None:
            if len(self._requests) >= MAX_KEPT:
                self._requests = {}
            with_tier = event.provider == semconv.OPENAI and event.operation != semconv.EMBEDDINGS
            series = self._requests[key] = RequestSeries(
                self._instruments,
                _attributes(_REQUEST, key),
                event.service_tier if with_tier else None,
                event.error_type,
            )
        return series


def _count_input(usage: Usage, series: RequestSeries) -> None:
    """Add a request's tokens, split by modality: an API's plain count may be of any, so the rest is `unknown`."""
    audio, image, cached_audio = usage.audio_input_tokens, usage.image_input_tokens, usage.audio_cache_read_tokens
    rest = usage.input_tokens - audio - image
    if rest > 0:
        series.unknown[semconv.INFERENCE_USAGE_INPUT_TOKENS](rest)
    if audio > 0:
        series.audio[semconv.INFERENCE_USAGE_INPUT_TOKENS](audio)
    if image > 0:
        series.image[semconv.INFERENCE_USAGE_INPUT_TOKENS](image)
    cached = usage.cache_read_tokens - cached_audio
    if cached > 0:
        series.unknown[semconv.INFERENCE_USAGE_CACHE_READ](cached)
    if cached_audio > 0:
        series.audio[semconv.INFERENCE_USAGE_CACHE_READ](cached_audio)
    if usage.cache_write_tokens > 0:
        series.unknown[semconv.INFERENCE_USAGE_CACHE_WRITE](usage.cache_write_tokens)


def _count_output(usage: Usage, series: RequestSeries) -> None:
    """Add a response's tokens, split by modality, as `_count_input` does."""
    audio, image = usage.audio_output_tokens, usage.image_output_tokens
    rest = usage.output_tokens - audio - image
    if rest > 0:
        series.unknown[semconv.INFERENCE_USAGE_OUTPUT_TOKENS](rest)
    if audio > 0:
        series.audio[semconv.INFERENCE_USAGE_OUTPUT_TOKENS](audio)
    if image > 0:
        series.image[semconv.INFERENCE_USAGE_OUTPUT_TOKENS](image)
    if usage.reasoning_tokens > 0:
        series.unknown[semconv.INFERENCE_USAGE_REASONING](usage.reasoning_tokens)


def _attributes(names: Names, values: tuple[Value, ...]) -> Attributes:
    """Make attributes of the values that are known, by name; of more values than names the first ones."""
    return {
        name: encodable(value) if isinstance(value, str) else value
        for name, value in zip(names, values, strict=False)
        if value is not None
    }


def _extended(attributes: Attributes, name: str, value: str | None) -> Attributes:
    return attributes if value is None else {**attributes, name: encodable(value)}
