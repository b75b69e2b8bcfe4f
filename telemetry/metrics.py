"""Events to metrics, through instruments of the OpenTelemetry API.

The SDK keeps at most 2,000 distinct sets of attributes an instrument and puts the rest in one marked
`otel.metric.overflow` (opentelemetry-sdk 1.45, `MetricReader`), so a flood of model or tool names stays bounded.
"""

from typing import TypeAlias

from opentelemetry.metrics import Counter, Histogram, Meter

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
from .runs import OpenRun
from .semconv import Metric
from .spans import failure

Attributes: TypeAlias = dict[str, str | int]


class Metrics:
    """The instruments, and what to record on them when something has ended.

    Args:
        meter: Makes the instruments.
        count_unreported: Also count tokens that no API reported in full: of cut streams, and estimates. By the
            conventions a metric holds reported counts only, unless the user chooses otherwise.
    """

    def __init__(self, meter: Meter, *, count_unreported: bool) -> None:
        self._count_unreported = count_unreported
        self._inference_duration = _histogram(meter, semconv.INFERENCE_DURATION)
        self._time_to_first_chunk = _histogram(meter, semconv.INFERENCE_TIME_TO_FIRST_CHUNK)
        self._input_tokens = _histogram(meter, semconv.INFERENCE_INPUT_TOKENS)
        self._output_tokens = _histogram(meter, semconv.INFERENCE_OUTPUT_TOKENS)
        self._usage_input = _counter(meter, semconv.INFERENCE_USAGE_INPUT_TOKENS)
        self._usage_output = _counter(meter, semconv.INFERENCE_USAGE_OUTPUT_TOKENS)
        self._usage_cache_read = _counter(meter, semconv.INFERENCE_USAGE_CACHE_READ)
        self._usage_cache_write = _counter(meter, semconv.INFERENCE_USAGE_CACHE_WRITE)
        self._usage_reasoning = _counter(meter, semconv.INFERENCE_USAGE_REASONING)
        self._embeddings_duration = _histogram(meter, semconv.EMBEDDINGS_DURATION)
        self._embeddings_tokens = _histogram(meter, semconv.EMBEDDINGS_INPUT_TOKENS)
        self._operation_duration = _histogram(meter, semconv.OPERATION_DURATION)
        self._tool_duration = _histogram(meter, semconv.EXECUTE_TOOL_DURATION)
        self._agent_duration = _histogram(meter, semconv.INVOKE_AGENT_DURATION)
        self._agent_inference_calls = _histogram(meter, semconv.INVOKE_AGENT_INFERENCE_CALLS)
        self._agent_tool_calls = _histogram(meter, semconv.INVOKE_AGENT_TOOL_CALLS)
        self._workflow_duration = _histogram(meter, semconv.INVOKE_WORKFLOW_DURATION)
        self._cost = _counter(meter, semconv.COST)
        self._unpriced = _counter(meter, semconv.UNPRICED_REQUESTS)
        self._notices = _counter(meter, semconv.NOTICES)

    def record(self, event: Event, run: OpenRun) -> None:
        """Record what an event measures, if it measures something."""
        if isinstance(event, TokenUsage):
            self._model_call(event, run)
        elif isinstance(event, FunctionCall):
            self._function_call(event, run)
        elif isinstance(event, AssistantRun):
            self._assistant_run(event, run)
        elif isinstance(event, ExecutionFinished):
            self._run(event, run)
        elif isinstance(event, Retrieval):
            self._retrieval(event, run)
        elif isinstance(event, Notice):
            self._notices.add(1, {**_of_pattern(run), semconv.NOTICE_KIND: event.kind})

    def _model_call(self, event: TokenUsage, run: OpenRun) -> None:
        attributes = _of_request(event, run)
        usd = run.request_cost.usd
        if usd is not None:
            self._cost.add(float(usd), attributes)
        else:
            self._unpriced.add(1, attributes)
        usage = event.usage
        if event.provenance is not Provenance.REPORTED and not self._count_unreported:
            usage = None
        if event.operation == semconv.EMBEDDINGS:
            if usage is not None:
                self._embeddings_tokens.record(usage.input_tokens, attributes)
            self._embeddings_duration.record(event.duration_ns / 1e9, _with_error(attributes, event.error_type))
            return
        if event.first_chunk_ns is not None:
            self._time_to_first_chunk.record(event.first_chunk_ns / 1e9, attributes)
        if event.service_tier is not None and event.provider == semconv.OPENAI:
            attributes = {**attributes, semconv.OPENAI_RESPONSE_SERVICE_TIER: event.service_tier}
        if usage is not None:
            self._input_tokens.record(usage.input_tokens, attributes)
            self._output_tokens.record(usage.output_tokens, attributes)
            self._count(usage, attributes)
        self._inference_duration.record(event.duration_ns / 1e9, _with_error(attributes, event.error_type))

    def _count(self, usage: Usage, attributes: Attributes) -> None:
        """Add a request's tokens, split by modality: an API's plain count may be of any, so the rest is `unknown`."""
        rest_of_input = usage.input_tokens - usage.audio_input_tokens - usage.image_input_tokens
        rest_of_output = usage.output_tokens - usage.audio_output_tokens - usage.image_output_tokens
        for counter, tokens, modality in (
            (self._usage_input, rest_of_input, "unknown"),
            (self._usage_input, usage.audio_input_tokens, "audio"),
            (self._usage_input, usage.image_input_tokens, "image"),
            (self._usage_output, rest_of_output, "unknown"),
            (self._usage_output, usage.audio_output_tokens, "audio"),
            (self._usage_output, usage.image_output_tokens, "image"),
            (self._usage_cache_read, usage.cache_read_tokens - usage.audio_cache_read_tokens, "unknown"),
            (self._usage_cache_read, usage.audio_cache_read_tokens, "audio"),
            (self._usage_cache_write, usage.cache_write_tokens, "unknown"),
            (self._usage_reasoning, usage.reasoning_tokens, "unknown"),
        ):
            if tokens > 0:
                counter.add(tokens, {**attributes, semconv.TOKEN_MODALITY: modality})

    def _function_call(self, event: FunctionCall, run: OpenRun) -> None:
        attributes = _of_pattern(run)
        attributes[semconv.TOOL_NAME] = event.name
        attributes[semconv.TOOL_TYPE] = semconv.TOOL_TYPE_FUNCTION
        if run.agent is not None:
            attributes[semconv.AGENT_NAME] = run.agent
        self._tool_duration.record(event.duration_ns / 1e9, _with_error(attributes, event.error_type))

    def _assistant_run(self, event: AssistantRun, run: OpenRun) -> None:
        attributes = _of_pattern(run)
        attributes[semconv.AGENT_NAME] = event.assistant
        self._agent_duration.record(event.duration_ns / 1e9, _with_error(attributes, failure(event)))

    def _retrieval(self, event: Retrieval, run: OpenRun) -> None:
        """Without its source: the conventions have no place for one on this metric."""
        attributes = _of_pattern(run)
        attributes[semconv.OPERATION_NAME] = semconv.RETRIEVAL
        self._operation_duration.record(event.duration_ns / 1e9, _with_error(attributes, event.error_type))

    def _run(self, event: ExecutionFinished, run: OpenRun) -> None:
        started = run.started
        if started is None:  # whose start was dropped: nobody knows whether it was an agent's
            return
        attributes = _of_pattern(run)
        seconds = event.duration_ns / 1e9
        if started.operation == semconv.INVOKE_WORKFLOW:
            attributes[semconv.WORKFLOW_NAME] = started.pattern
            self._workflow_duration.record(seconds, _with_error(attributes, failure(event)))
            return
        attributes[semconv.AGENT_NAME] = started.pattern
        self._agent_duration.record(seconds, _with_error(attributes, failure(event)))
        if run.is_whole(event):
            self._agent_inference_calls.record(run.inference_calls, attributes)
            self._agent_tool_calls.record(run.tool_calls, attributes)


def _of_pattern(run: OpenRun) -> Attributes:
    return {semconv.PATTERN: run.started.pattern} if run.started is not None else {}


def _of_request(event: TokenUsage, run: OpenRun) -> Attributes:
    request = run.request
    attributes = _of_pattern(run)
    attributes[semconv.OPERATION_NAME] = event.operation
    attributes[semconv.PROVIDER_NAME] = event.provider
    attributes[semconv.REQUEST_MODEL] = event.model
    if event.response_model is not None:
        attributes[semconv.RESPONSE_MODEL] = event.response_model
    if request is not None and request.server_address is not None:
        attributes[semconv.SERVER_ADDRESS] = request.server_address
        if request.server_port is not None:
            attributes[semconv.SERVER_PORT] = request.server_port
    return attributes


def _with_error(attributes: Attributes, error_type: str | None) -> Attributes:
    return attributes if error_type is None else {**attributes, semconv.ERROR_TYPE: error_type}


def _histogram(meter: Meter, metric: Metric) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
    )


def _counter(meter: Meter, metric: Metric) -> Counter:
    return meter.create_counter(metric.name, metric.unit, metric.description)
