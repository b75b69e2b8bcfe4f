"""The events by which a run tells what it does: typed and frozen.

Events are values and nothing else. `(run_id, seq)` identifies an event, so any store can drop duplicates.
Everything the package reports (statistics, costs, traces, metrics) is computed from these events.

Old logs must always decode. Therefore a field is only ever added, with a default; none is renamed or removed; and an
event of a kind this version does not know is kept as `UnknownEvent`, not refused.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import msgspec


class Status(StrEnum):
    """The way that a run ended."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    BUDGET_EXCEEDED = "budget_exceeded"


class Provenance(StrEnum):
    """The source of a request's token counts. Counts that are not known are never reported as 0."""

    REPORTED = "reported"
    """Stated by the API in its final answer: exact."""
    PARTIAL = "partial"
    """Taken from a stream that was cut: a lower bound."""
    ESTIMATED = "estimated"
    """Counted locally with tiktoken, because the API reported nothing."""
    UNKNOWN = "unknown"
    """The request left and never answered: it may have been billed, for an unknown amount."""


class Usage(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Tokens (and billable searches) of one request or a sum of several, with OpenAI's inclusive meaning.

    `input_tokens` includes every other kind of input, `output_tokens` every other kind of output, so the others say
    "of which" and are never added to them. Adding two usages adds every field.
    Source of the meaning: openai 3.54.0, `types/responses/response_usage.py` (2026-11).
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    """Input tokens served from the prompt cache."""
    cache_write_tokens: int = 0
    """Input tokens written to the prompt cache, whatever their lifetime."""
    cache_write_12h_tokens: int = 0
    """Tokens among `cache_write_tokens` that were written for 12 hours, which cost more."""
    reasoning_tokens: int = 0
    """Output tokens spent on reasoning."""
    audio_input_tokens: int = 0
    audio_cache_read_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    web_searches: int = 0
    """Billable web searches (requests, not tokens)."""
    file_searches: int = 0
    """Billable file searches (calls, not tokens)."""

    @property
    def total_tokens(self) -> int:
        """Input plus output tokens."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.cache_write_12h_tokens + other.cache_write_12h_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.audio_input_tokens + other.audio_input_tokens,
            self.audio_cache_read_tokens + other.audio_cache_read_tokens,
            self.audio_output_tokens + other.audio_output_tokens,
            self.image_input_tokens + other.image_input_tokens,
            self.image_output_tokens + other.image_output_tokens,
            self.web_searches + other.web_searches,
            self.file_searches + other.file_searches,
        )


class TraceContext(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The ids of the span that an event will become, in W3C Trace Context form."""

    trace_id: str
    """Id of the trace: 32 hexadecimal digits."""
    span_id: str
    """Id of the span: 16 hexadecimal digits."""
    parent_span_id: str | None = None
    parent_is_remote: bool = False
    """The parent span was made by another process."""
    sampled: bool = True
    trace_state: str = ""
    """The `tracestate` header, as it came."""


class _Event(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The fields that every event has."""

    run_id: str
    """Id of the run: 128 random bits as 32 hexadecimal digits."""
    seq: int
    """The event's number within the run: 0, 1, 2 …"""
    time_ns: int
    """The time that the event was made: nanoseconds since the Unix epoch."""
    trace: TraceContext | None = None
    """The span this event becomes, where the engine has telemetry."""


class ExecutionStarted(_Event, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="execution_started"):
    """The start of a run: always its first event (`seq` 0)."""

    pattern: str
    framework: str
    root_run_id: str
    """The outermost run's id: the run's own, unless it is a child."""
    parent_run_id: str | None = None
    conversation_id: str | None = None
    tags: Mapping[str, str] = {}
    operation: Literal["invoke_agent", "invoke_workflow"] = "invoke_agent"
    """Kind of the run: one agent's, or a workflow over several agents or model calls."""

    @property
    def trace_id(self) -> str:
        """The id of the trace that the run is in: a caller's, or else the outermost run's id."""
        return self.trace.trace_id if self.trace else self.root_run_id


class ModelCallStarted(_Event, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="model_call_started"):
    """A request to a model is about to leave. Without its `TokenUsage` it may have been billed all the same."""

    call_id: int
    """Identifies the request within the run; the `TokenUsage` that ends it carries the same."""
    provider: str
    """Name in the OpenTelemetry GenAI conventions, such as `openai`."""
    operation: str
    """`chat`, `embeddings` or another operation name of the GenAI conventions."""
    model: str
    attempt: int = 1
    """The number of the try: 1 for a request's first, 2 for its first retry …"""
    stream: bool = False
    api: str | None = None
    """`responses` or `chat_completions`, for OpenAI."""
    service_tier: str | None = None
    """The tier as requested."""
    max_output_tokens: int | None = None
    temperature: float | None = None
    previous_response_id: str | None = None
    server_address: str | None = None
    server_port: int | None = None
    bound: Usage | None = None
    """The upper bound of its input and output tokens, where that was worked out."""
    reserved_ns: int | None = None
    """The time at which its upper bound was reserved in budgets: it counts in their windows of that time. Nanoseconds
    since the Unix epoch; None where no budget applied."""


class TokenUsage(_Event, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="token_usage"):
    """A request to a model ended, well or not. Exactly one for each `ModelCallStarted`."""

    call_id: int
    provider: str
    operation: str
    model: str
    """The model as requested."""
    provenance: Provenance
    usage: Usage | None
    """None exactly if the provenance is `unknown`."""
    start_ns: int
    """The time that the request left: nanoseconds since the Unix epoch."""
    duration_ns: int
    first_chunk_ns: int | None = None
    """Nanoseconds from the start to the first chunk of a streamed answer: of its text, a refusal, or a call. Reasoning
    and news of the answer come before, and are no chunk of it."""
    attempt: int = 1
    response_id: str | None = None
    response_model: str | None = None
    """The exact name of the model that answered."""
    service_tier: str | None = None
    """The tier that served the request, as far as that is known: where the answer does not say, the one asked for or
    assumed."""
    finish_reasons: tuple[str, ...] = ()
    error_type: str | None = None
    error_message: str | None = None
    bound: Usage | None = None
    """The upper bound of its input and output tokens, where the API did not report the usage."""
    contradiction: str | None = None
    """Which fields of what the server reported cannot all be true: its numbers are kept, the cost is an interval."""
    total_tokens: int | None = None
    """What the server says the total is, where that is not input and output together."""
    reserved_ns: int | None = None
    """The time at which its upper bound was reserved in budgets: it counts in their windows of that time. Nanoseconds
    since the Unix epoch; None where no budget applied."""

    @property
    def is_input_known(self) -> bool:
        """Whether `usage.input_tokens` says anything: of an answer that was cut often only its output is known."""
        usage = self.usage
        return usage is not None and (self.provenance is not Provenance.PARTIAL or usage.input_tokens > 0)


class FunctionCall(_Event, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="function_call"):
    """The execution of a tool, well or not."""

    name: str
    start_ns: int
    duration_ns: int
    call_id: str | None = None
    """The model's id for the call."""
    error_type: str | None = None
    error_message: str | None = None


class AssistantRun(_Event, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="assistant_run"):
    """The work of an assistant on a thread (a conversation)."""

    assistant: str
    start_ns: int
    duration_ns: int
    status: Status
    thread_id: str | None = None
    thread: Literal["created", "resumed"] | None = None
    """Origin of the thread: `created` by the run, or `resumed` by it; None if there is no thread."""
    steps: int = 0
    error_type: str | None = None
    error_message: str | None = None


class Retrieval(_Event, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="retrieval"):
    """A search of a source for passages. What was asked for and what the passages say is content: not kept."""

    source: str
    """The source that was searched, such as a vector store's id, or `local`."""
    start_ns: int
    duration_ns: int
    documents: int
    """The number of passages found."""
    top_score: float | None = None
    """The best passage's score, on the source's own scale."""
    requested: int | None = None
    """The number of passages asked for, at most."""
    error_type: str | None = None
    error_message: str | None = None


class Notice(_Event, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="notice"):
    """A warning that comes before something becomes an error."""

    kind: str
    """Topic of the warning: `budget`, `usage`, `unreported_usage`, `unmetered`, `background`, `ledger` or
    `model_retirement`."""
    subject: str
    """The budget or the model that it warns of."""
    message: str


class ExecutionFinished(_Event, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="execution_finished"):
    """The end of a run: exactly one for each `ExecutionStarted`."""

    status: Status
    duration_ns: int
    error_type: str | None = None
    error_message: str | None = None
    children: int = 0
    """Number of runs within it that had ended by then, those within these not counted."""


class RunReported(_Event, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag="run_reported"):
    """A run made outside an engine, and told by hand: the only event of it, which says as much as is known."""

    pattern: str
    framework: str
    status: Status
    duration_ns: int | None = None
    """Duration of the run in nanoseconds; None where it is not known."""
    provider: str = "openai"
    model: str | None = None
    """The model that used the tokens; None where there is no usage."""
    usage: Usage | None = None
    """The usage of all its requests together: how many there were is not known."""
    provenance: Provenance = Provenance.REPORTED
    """The source of that usage: `partial` where only one of input and output was told."""
    function_calls: int = 0
    assistant_runs: int = 0


class UnknownEvent(_Event, frozen=True, gc=False, kw_only=True, tag="unknown"):
    """An event of a kind that a newer version writes and this one does not know. Its fields are all kept."""

    kind: str
    fields: Mapping[str, Any]
    """The event as it was read, its kind under `type` included: it encodes to just that again."""


KnownEvent: TypeAlias = (
    ExecutionStarted
    | ModelCallStarted
    | TokenUsage
    | FunctionCall
    | AssistantRun
    | Retrieval
    | Notice
    | ExecutionFinished
    | RunReported
)
Event: TypeAlias = KnownEvent | UnknownEvent
