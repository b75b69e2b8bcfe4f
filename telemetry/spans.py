"""Events to spans, after the fact: each event that ends something becomes one finished span.

The SDK's own way through `tracer.start_span` costs a dozen times as much, and would have to happen while the run runs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from runmeter.engine import (
    AssistantRun,
    Event,
    ExecutionFinished,
    FunctionCall,
    Notice,
    Provenance,
    Retrieval,
    TokenUsage,
    Totals,
    TraceContext,
    Usage,
)
from runmeter.engine import Status as RunStatus

from . import semconv
from .open_runs import OpenRun

Attributes: TypeAlias = dict[str, str | int | float | tuple[str, ...]]

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NO_STATE = TraceState()
_UNSET = Status()
# By names of our own, because in Python 3.11 a member of an enumeration is slow to look up.
_CLIENT, _INTERNAL, _OK = SpanKind.CLIENT, SpanKind.INTERNAL, RunStatus.OK


class SpanBuilder:
    """Builds spans from events. A run whose start was dropped on its way here has one too, but without a name.

    Args:
        scope: What the spans say they come from.
        limits: How many attributes a span may have, and how long their values may be.
    """

    def __init__(self, scope: InstrumentationScope, limits: SpanLimits) -> None:
        self._scope = scope
        self._max_attributes = limits.max_span_attributes
        self._max_length = limits.max_span_attribute_length
        self._resource = _HashedResource(Resource.get_empty())
        self._built: dict[type[Event], Callable[[Any, TraceContext, OpenRun], ReadableSpan]] = {
            TokenUsage: self._model_call,
            FunctionCall: self._function_call,
            AssistantRun: self._assistant_run,
            Retrieval: self._retrieval,
            ExecutionFinished: self._run,
        }

    def be_about(self, resource: Resource) -> None:
        """Set the resource that the spans are about. It changes when the process forks."""
        if resource is not self._resource.original:
            self._resource = _HashedResource(resource)

    def build(self, event: Event, trace: TraceContext, run: OpenRun) -> ReadableSpan | None:
        """Build the span that an event completes, if it completes one."""
        build = self._built.get(type(event))
        return build(event, trace, run) if build is not None else None

    def _model_call(self, event: TokenUsage, trace: TraceContext, run: OpenRun) -> ReadableSpan:
        request = run.request
        attributes = _of_requests(
            event.operation,
            run.pattern,
            event.provider,
            event.model,
            event.response_model,
            request.server_address if request is not None else None,
            request.server_port if request is not None else None,
            event.attempt,
            event.provenance,
        ).copy()
        attributes[semconv.RUN_ID] = event.run_id
        if run.request_usd is not None:
            attributes[semconv.COST_USD] = run.request_usd
        if event.operation == semconv.EMBEDDINGS:
            if event.usage is not None:
                attributes[semconv.USAGE_INPUT_TOKENS] = event.usage.input_tokens
        else:
            _describe_request(attributes, event, run)
            _describe_response(attributes, event)
        name = f"{event.operation} {event.model}"
        return self._span(event, trace, name, _CLIENT, event.start_ns, attributes, event.error_type)

    def _function_call(self, event: FunctionCall, trace: TraceContext, run: OpenRun) -> ReadableSpan:
        attributes = _common(semconv.EXECUTE_TOOL, event.run_id, run)
        _describe_conversation(attributes, run)
        if run.agent is not None:
            attributes[semconv.AGENT_NAME] = run.agent
        attributes[semconv.TOOL_NAME] = event.name
        attributes[semconv.TOOL_TYPE] = semconv.TOOL_TYPE_FUNCTION
        if event.call_id is not None:
            attributes[semconv.TOOL_CALL_ID] = event.call_id
        name = f"{semconv.EXECUTE_TOOL} {event.name}"
        return self._span(event, trace, name, _INTERNAL, event.start_ns, attributes, event.error_type)

    def _assistant_run(self, event: AssistantRun, trace: TraceContext, run: OpenRun) -> ReadableSpan:
        attributes = _common(semconv.INVOKE_AGENT, event.run_id, run)
        attributes[semconv.AGENT_NAME] = event.assistant
        attributes[semconv.ASSISTANT_STATUS] = event.status.value
        attributes[semconv.ASSISTANT_STEPS] = event.steps
        if event.thread_id is not None:
            attributes[semconv.CONVERSATION_ID] = event.thread_id
        if event.thread is not None:
            attributes[semconv.ASSISTANT_THREAD] = event.thread
        name = f"{semconv.INVOKE_AGENT} {event.assistant}"
        return self._span(event, trace, name, _INTERNAL, event.start_ns, attributes, failure(event))

    def _retrieval(self, event: Retrieval, trace: TraceContext, run: OpenRun) -> ReadableSpan:
        attributes = _common(semconv.RETRIEVAL, event.run_id, run)
        attributes[semconv.DATA_SOURCE_ID] = event.source
        if event.requested is not None:
            attributes[semconv.RETRIEVAL_TOP_K] = event.requested
        attributes[semconv.RETRIEVAL_DOCUMENTS] = event.documents
        if event.top_score is not None:
            attributes[semconv.RETRIEVAL_TOP_SCORE] = event.top_score
        name = f"{semconv.RETRIEVAL} {event.source}"
        return self._span(event, trace, name, _CLIENT, event.start_ns, attributes, event.error_type)

    def _run(self, event: ExecutionFinished, trace: TraceContext, run: OpenRun) -> ReadableSpan:
        started = run.started
        operation = started.operation if started is not None else semconv.INVOKE_AGENT
        attributes = _common(operation, event.run_id, run)
        attributes[semconv.RUN_STATUS] = event.status.value
        name, start_ns = operation, event.time_ns - event.duration_ns
        if started is not None:
            name, start_ns = f"{operation} {started.pattern}", started.time_ns
            is_agent = operation == semconv.INVOKE_AGENT
            attributes[semconv.AGENT_NAME if is_agent else semconv.WORKFLOW_NAME] = started.pattern
            attributes[semconv.FRAMEWORK] = started.framework
            if started.parent_run_id is not None:
                attributes[semconv.RUN_PARENT_ID] = started.parent_run_id
                attributes[semconv.RUN_ROOT_ID] = started.root_run_id
            _describe_conversation(attributes, run)
            for tag, value in started.tags.items():
                attributes[semconv.TAG_PREFIX + tag] = value
        if run.is_whole(event):
            _describe_sums(attributes, run)
        if run.is_total(event):
            _describe_totals(attributes, run.totals)
        else:
            attributes[semconv.TOTAL_INCOMPLETE] = True
        notices = [_notice(notice) for notice in run.notices]
        return self._span(event, trace, name, _INTERNAL, start_ns, attributes, failure(event), events=notices)

    def _span(
        self,
        event: TokenUsage | FunctionCall | AssistantRun | Retrieval | ExecutionFinished,
        trace: TraceContext,
        name: str,
        kind: SpanKind,
        start_ns: int,
        attributes: Attributes,
        error_type: str | None,
        events: Sequence[SpanEvent] = (),
    ) -> ReadableSpan:
        status = _UNSET
        if error_type is not None:
            attributes[semconv.ERROR_TYPE] = error_type
            message = event.error_message
            status = Status(StatusCode.ERROR, encodable(message) if message else None)
        for value in attributes.values():
            if type(value) is str and not value.isascii():
                attributes = _encodable(attributes)
                break
        parent = None
        if trace.parent_span_id is not None:
            parent = _parent_context(trace.trace_id, trace.parent_span_id, trace.parent_is_remote, trace.trace_state)
        return ReadableSpan(  # by position, because names take as long as all the rest of it
            encodable(name),
            _context(trace.trace_id, trace.span_id, False, trace.trace_state),
            parent,
            self._resource,
            self._limited(attributes),
            events,
            (),  # links
            kind,
            None,  # what the scope was called once
            status,
            start_ns,
            start_ns + event.duration_ns,
            self._scope,
        )

    def _limited(self, attributes: Attributes) -> Mapping[str, str | int | float | tuple[str, ...]]:
        """Limit the attributes in number and length, as the SDK's limits say; it counts what is left out."""
        count = self._max_attributes
        if self._max_length is None and (count is None or len(attributes) <= count):
            return attributes
        return BoundedAttributes(count, attributes, max_value_len=self._max_length)  # type: ignore[return-value] # a mapping of wider values


class _HashedResource(Resource):
    """A resource that knows its hash. The SDK makes it of a JSON text, and its encoder asks each span's for it."""

    def __init__(self, original: Resource) -> None:
        super().__init__(original.attributes, original.schema_url)
        self.original = original
        self._hash = hash(original)

    def __hash__(self) -> int:
        return self._hash


def _context(trace_id: str, span_id: str, is_remote: bool, state: str) -> SpanContext:
    parsed = TraceState.from_header([state]) if state else _NO_STATE
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, _SAMPLED, parsed)


_parent_context = lru_cache(maxsize=1_024)(_context)  # one for all that is below it


@lru_cache(maxsize=1_024)
def _of_requests(
    operation: str,
    pattern: str | None,
    provider: str,
    model: str,
    response_model: str | None,
    server_address: str | None,
    server_port: int | None,
    attempt: int,
    provenance: Provenance,
) -> Attributes:
    """Make the attributes that the spans of many requests share, once for them all: to be copied."""
    attributes: Attributes = {
        semconv.OPERATION_NAME: operation,
        semconv.PROVIDER_NAME: provider,
        semconv.REQUEST_MODEL: model,
        semconv.ATTEMPT: attempt,
        semconv.USAGE_PROVENANCE: provenance.value,
    }
    if pattern is not None:
        attributes[semconv.PATTERN] = pattern
    if server_address is not None:
        attributes[semconv.SERVER_ADDRESS] = server_address
        if server_port is not None:
            attributes[semconv.SERVER_PORT] = server_port
    if response_model is not None:
        attributes[semconv.RESPONSE_MODEL] = response_model
    return attributes


def _common(operation: str, run_id: str, run: OpenRun) -> Attributes:
    """Make the attributes that every span has."""
    attributes: Attributes = {semconv.OPERATION_NAME: operation, semconv.RUN_ID: run_id}
    if run.started is not None:
        attributes[semconv.PATTERN] = run.started.pattern
    return attributes


def _encodable(attributes: Attributes) -> Attributes:
    return {key: encodable(value) if isinstance(value, str) else value for key, value in attributes.items()}


def _notice(event: Notice) -> SpanEvent:
    attributes = {
        semconv.NOTICE_KIND: encodable(event.kind),
        semconv.NOTICE_SUBJECT: encodable(event.subject),
        semconv.NOTICE_MESSAGE: encodable(event.message),
    }
    return SpanEvent(semconv.NOTICE, attributes, event.time_ns)


def _describe_conversation(attributes: Attributes, run: OpenRun) -> None:
    if run.started is not None and run.started.conversation_id is not None:
        attributes[semconv.CONVERSATION_ID] = run.started.conversation_id


def _describe_request(attributes: Attributes, event: TokenUsage, run: OpenRun) -> None:
    """Add the request's attributes, of a model that is not an embedding model."""
    _describe_conversation(attributes, run)
    request = run.request
    if request is None:
        return
    if request.stream:
        attributes[semconv.REQUEST_STREAM] = True
    if request.max_output_tokens is not None:
        attributes[semconv.REQUEST_MAX_TOKENS] = request.max_output_tokens
    if request.temperature is not None:
        attributes[semconv.REQUEST_TEMPERATURE] = request.temperature
    if request.previous_response_id is not None:
        attributes[semconv.REQUEST_PREVIOUS_RESPONSE_ID] = request.previous_response_id
    if event.provider == semconv.OPENAI:
        if request.api is not None:
            attributes[semconv.OPENAI_API_TYPE] = request.api
        if request.service_tier not in {None, semconv.SERVICE_TIER_AUTO}:
            attributes[semconv.OPENAI_REQUEST_SERVICE_TIER] = str(request.service_tier)


def _describe_response(attributes: Attributes, event: TokenUsage) -> None:
    """Add the response's attributes, of a model that is not an embedding model."""
    if event.response_id is not None:
        attributes[semconv.RESPONSE_ID] = event.response_id
    if event.service_tier is not None and event.provider == semconv.OPENAI:
        attributes[semconv.OPENAI_RESPONSE_SERVICE_TIER] = event.service_tier
    if event.first_chunk_ns is not None:
        attributes[semconv.RESPONSE_TIME_TO_FIRST_CHUNK] = event.first_chunk_ns / 1e9
    if event.finish_reasons:
        attributes[semconv.RESPONSE_FINISH_REASONS] = event.finish_reasons
    elif event.provenance is Provenance.PARTIAL or (event.error_type and event.first_chunk_ns is not None):
        # An answer had begun, so that its reason to end was due.
        attributes[semconv.RESPONSE_FINISH_REASONS] = (semconv.FINISH_REASON_ERROR,)
    if event.usage is not None:
        _describe_usage(attributes, event.usage, event.provenance)


def _describe_usage(attributes: Attributes, usage: Usage, provenance: Provenance) -> None:
    """Add token counts, and parts only where there are any: the events do not tell none from not applicable."""
    if usage.input_tokens or provenance is not Provenance.PARTIAL:  # as `TokenUsage.is_input_known`, but faster
        attributes[semconv.USAGE_INPUT_TOKENS] = usage.input_tokens
    attributes[semconv.USAGE_OUTPUT_TOKENS] = usage.output_tokens
    if usage.cache_read_tokens:
        attributes[semconv.USAGE_CACHE_READ_INPUT_TOKENS] = usage.cache_read_tokens
    if usage.cache_write_tokens:
        attributes[semconv.USAGE_CACHE_WRITE_INPUT_TOKENS] = usage.cache_write_tokens
    if usage.reasoning_tokens:
        attributes[semconv.USAGE_REASONING_OUTPUT_TOKENS] = usage.reasoning_tokens
    _describe_modalities(attributes, usage)
    if usage.web_searches:
        attributes[semconv.USAGE_WEB_SEARCHES] = usage.web_searches
    if usage.file_searches:
        attributes[semconv.USAGE_FILE_SEARCHES] = usage.file_searches


def _describe_modalities(attributes: Attributes, usage: Usage) -> None:
    if usage.audio_input_tokens:
        attributes[semconv.USAGE_AUDIO_INPUT_TOKENS] = usage.audio_input_tokens
    if usage.audio_cache_read_tokens:
        attributes[semconv.USAGE_AUDIO_CACHE_READ_INPUT_TOKENS] = usage.audio_cache_read_tokens
    if usage.audio_output_tokens:
        attributes[semconv.USAGE_AUDIO_OUTPUT_TOKENS] = usage.audio_output_tokens
    if usage.image_input_tokens:
        attributes[semconv.USAGE_IMAGE_INPUT_TOKENS] = usage.image_input_tokens
    if usage.image_output_tokens:
        attributes[semconv.USAGE_IMAGE_OUTPUT_TOKENS] = usage.image_output_tokens


def _describe_sums(attributes: Attributes, run: OpenRun) -> None:
    """Add the sums over the run's own requests and tools. By the conventions only an agent's span has token counts."""
    attributes[semconv.RUN_INFERENCE_CALLS] = run.inference_calls
    attributes[semconv.RUN_TOOL_CALLS] = run.tool_calls
    usd = run.cost.nearest_usd
    if usd is not None and run.inference_calls:
        attributes[semconv.RUN_COST_USD] = usd
    if run.inference_calls:
        attributes[semconv.USAGE_PROVENANCE] = run.provenance.value
    if run.agent is None:
        return
    if run.input_tokens is not None:
        attributes[semconv.USAGE_INPUT_TOKENS] = run.input_tokens
    if run.output_tokens is not None:
        attributes[semconv.USAGE_OUTPUT_TOKENS] = run.output_tokens
    if run.finish_reasons:
        attributes[semconv.RESPONSE_FINISH_REASONS] = run.finish_reasons


def _describe_totals(attributes: Attributes, totals: Totals) -> None:
    """Add the sums over the run with all runs within it."""
    attributes[semconv.TOTAL_REQUESTS] = totals.requests
    attributes[semconv.TOTAL_TOOL_CALLS] = totals.function_calls
    if not totals.requests:
        return
    attributes[semconv.TOTAL_INPUT_TOKENS] = totals.usage.input_tokens
    attributes[semconv.TOTAL_OUTPUT_TOKENS] = totals.usage.output_tokens
    if totals.unknown_requests:
        attributes[semconv.TOTAL_UNKNOWN_REQUESTS] = totals.unknown_requests
    cost = totals.cost
    usd = cost.nearest_usd
    if usd is not None:
        attributes[semconv.TOTAL_COST_USD] = attributes[semconv.TOTAL_COST_USD_LOW] = usd
        attributes[semconv.TOTAL_COST_USD_HIGH] = usd
        return
    attributes[semconv.TOTAL_COST_USD_LOW] = float(cost.low)
    if cost.high is not None:
        attributes[semconv.TOTAL_COST_USD_HIGH] = float(cost.high)


def failure(event: ExecutionFinished | AssistantRun) -> str | None:
    """Find the error's type of an event that did not end well; its status where nothing better is known."""
    if event.status is _OK:
        return None
    return event.error_type or event.status.value


def encodable(text: str) -> str:
    """Replace lone surrogates in a text: with one, protobuf would refuse the whole batch that the span is in."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
