"""Every name that telemetry emits: spans' attributes, metrics with their units and buckets, and the source of each.

Source of the names in `gen_ai.*` and `openai.*`: OpenTelemetry GenAI semantic conventions, repository
open-telemetry/semantic-conventions-genai, commit 6fd0d763a092db245a54104fc1124031eb3c51d2 (main, 2026-10-09). All of
them have the stability `development`: expect renames, and make them here. The two metrics of embeddings are from the
change right after it, seen at commit 6f98aef (2026-10): the pinned commit has no token metric for embeddings at all.

Source of `error.type` and `server.*`: OpenTelemetry semantic conventions 1.44.0, stable. The conventions know neither
money nor patterns nor provenance, so those are in a namespace of our own, `runmeter.*`.
"""

from dataclasses import dataclass

CONVENTIONS_COMMIT = "6fd0d763a092db245a54104fc1124031eb3c51d2"
SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
"""The schema URL that `model/manifest.yaml` of the conventions gives at that commit."""
SCOPE = "runmeter"
"""Name of the instrumentation scope of every span and metric."""

# Operations

INVOKE_AGENT = "invoke_agent"
INVOKE_WORKFLOW = "invoke_workflow"
EXECUTE_TOOL = "execute_tool"
EMBEDDINGS = "embeddings"
RETRIEVAL = "retrieval"

# Attributes of the conventions

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
CONVERSATION_ID = "gen_ai.conversation.id"
AGENT_NAME = "gen_ai.agent.name"
WORKFLOW_NAME = "gen_ai.workflow.name"

REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_PREVIOUS_RESPONSE_ID = "gen_ai.request.previous_response.id"

RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
FINISH_REASON_ERROR = "error"
"""Stands for a finish reason that was expected and never came."""

USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_WRITE_INPUT_TOKENS = "gen_ai.usage.cache_write.input_tokens"
USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens"
USAGE_AUDIO_INPUT_TOKENS = "gen_ai.usage.audio.input_tokens"
USAGE_AUDIO_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.audio.cache_read.input_tokens"
USAGE_AUDIO_OUTPUT_TOKENS = "gen_ai.usage.audio.output_tokens"
USAGE_IMAGE_INPUT_TOKENS = "gen_ai.usage.image.input_tokens"
USAGE_IMAGE_OUTPUT_TOKENS = "gen_ai.usage.image.output_tokens"
TOKEN_MODALITY = "gen_ai.token.modality"  # noqa: S105 - a name
"""Attribute of token counters: `audio`, `image`, or `unknown`, as a plain count does not say its tokens are text."""

TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_TYPE_FUNCTION = "function"
"""A tool that this process executes."""
TOOL_CALL_ID = "gen_ai.tool.call.id"

DATA_SOURCE_ID = "gen_ai.data_source.id"
RETRIEVAL_TOP_K = "gen_ai.retrieval.top_k"
"""Number of passages that were asked for, at most."""

OPENAI = "openai"
"""The provider that the `openai.*` attributes belong to."""
OPENAI_API_TYPE = "openai.api.type"
OPENAI_REQUEST_SERVICE_TIER = "openai.request.service_tier"
OPENAI_RESPONSE_SERVICE_TIER = "openai.response.service_tier"
SERVICE_TIER_AUTO = "auto"
"""A requested tier that is not reported: a request that names it leaves the choice to the API."""

ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

# Attributes of our own

PATTERN = "runmeter.pattern"
"""The pattern's name, on every span and metric."""
FRAMEWORK = "runmeter.framework"
RUN_ID = "runmeter.run.id"
RUN_PARENT_ID = "runmeter.run.parent_id"
RUN_ROOT_ID = "runmeter.run.root_id"
RUN_STATUS = "runmeter.run.status"
RUN_COST_USD = "runmeter.run.cost.usd"
"""On a run's span, the sum of its own requests; child runs have spans of their own. Only if all of it is known."""
TOTAL_COST_USD = "runmeter.total.cost.usd"
"""On a run's span, the sum over its own requests and those of all runs within it that ended before it did. Only if it
is known exactly; `.usd_low` is always, and `.usd_high` where there is an upper bound."""
TOTAL_COST_USD_LOW = "runmeter.total.cost.usd_low"
TOTAL_COST_USD_HIGH = "runmeter.total.cost.usd_high"
TOTAL_INPUT_TOKENS = "runmeter.total.input_tokens"
TOTAL_OUTPUT_TOKENS = "runmeter.total.output_tokens"
TOTAL_REQUESTS = "runmeter.total.requests"
TOTAL_UNKNOWN_REQUESTS = "runmeter.total.unknown_requests"
"""Requests among these whose tokens are not known: then totals of tokens are lower bounds. Absent if there is none."""
TOTAL_TOOL_CALLS = "runmeter.total.tool_calls"
TOTAL_INCOMPLETE = "runmeter.total.incomplete"
"""In the totals' place, where an event of the run or of one within it was dropped on its way to telemetry."""
RUN_INFERENCE_CALLS = "runmeter.run.inference_calls"
RUN_TOOL_CALLS = "runmeter.run.tool_calls"
TAG_PREFIX = "runmeter.tag."
"""Prefix of a tag's name, on a run's span."""
ATTEMPT = "runmeter.attempt"
"""1 for a request's first try, 2 for its first retry …"""
COST_USD = "runmeter.cost.usd"
"""On a request's span alone, and only if it is known: so the sum over any spans counts each dollar once."""
USAGE_PROVENANCE = "runmeter.usage.provenance"
"""Provenance of the token counts; on a run's span, that of the request whose counts are known least."""
USAGE_WEB_SEARCHES = "runmeter.usage.web_searches"
USAGE_FILE_SEARCHES = "runmeter.usage.file_searches"
RETRIEVAL_DOCUMENTS = "runmeter.retrieval.documents"
"""Number of passages found. The conventions' `gen_ai.retrieval.documents` is the passages themselves: content."""
RETRIEVAL_TOP_SCORE = "runmeter.retrieval.top_score"
ASSISTANT_STATUS = "runmeter.assistant.status"
ASSISTANT_STEPS = "runmeter.assistant.steps"
ASSISTANT_THREAD = "runmeter.assistant.thread"
"""Origin of an assistant's thread: `created` or `resumed`."""
NOTICE = "runmeter.notice"
"""Name of an event on a run's span: a warning before something becomes an error."""
NOTICE_KIND = "runmeter.notice.kind"
NOTICE_SUBJECT = "runmeter.notice.subject"
"""Attribute of the span's event alone: a metric would have a series for each budget of each tenant."""
NOTICE_MESSAGE = "runmeter.notice.message"


# Metrics


@dataclass(frozen=True, slots=True, eq=False)  # each is itself, and quick to look up by
class Metric:
    """The definition of a metric. One with buckets is a histogram, one without a counter."""

    name: str
    unit: str
    description: str
    buckets: tuple[float, ...] | None = None


_OPERATION_SECONDS = tuple(0.01 * 2**power for power in range(14))
_AGENT_SECONDS = tuple(0.1 * 2**power for power in range(13))
_WORKFLOW_SECONDS = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)
_TOKENS = tuple(4.0**power for power in range(14))
_CALLS = tuple(2.0**power for power in range(8))

INFERENCE_DURATION = Metric(
    "gen_ai.client.inference.duration", "s", "How long a request to a model took.", _OPERATION_SECONDS
)
INFERENCE_TIME_TO_FIRST_CHUNK = Metric(
    "gen_ai.client.inference.time_to_first_chunk",
    "s",
    "From a streaming request to the first chunk of its answer.",
    _OPERATION_SECONDS,
)
INFERENCE_INPUT_TOKENS = Metric(
    "gen_ai.client.inference.operation.input_tokens", "{token}", "Input tokens of one request.", _TOKENS
)
INFERENCE_OUTPUT_TOKENS = Metric(
    "gen_ai.client.inference.operation.output_tokens", "{token}", "Output tokens of one request.", _TOKENS
)
INFERENCE_USAGE_INPUT_TOKENS = Metric(
    "gen_ai.client.inference.usage.input_tokens", "{token}", "Input tokens, those of every kind."
)
INFERENCE_USAGE_OUTPUT_TOKENS = Metric(
    "gen_ai.client.inference.usage.output_tokens", "{token}", "Output tokens, those of every kind."
)
INFERENCE_USAGE_CACHE_READ = Metric(
    "gen_ai.client.inference.usage.cache_read.input_tokens", "{token}", "Input tokens served from a cache."
)
INFERENCE_USAGE_CACHE_WRITE = Metric(
    "gen_ai.client.inference.usage.cache_write.input_tokens", "{token}", "Input tokens written to a cache."
)
INFERENCE_USAGE_REASONING = Metric(
    "gen_ai.client.inference.usage.reasoning.output_tokens", "{token}", "Output tokens spent on reasoning."
)
EMBEDDINGS_DURATION = Metric(
    "gen_ai.client.embeddings.duration", "s", "How long a request for embeddings took.", _OPERATION_SECONDS
)
EMBEDDINGS_INPUT_TOKENS = Metric(
    "gen_ai.client.embeddings.operation.input_tokens", "{token}", "Input tokens of one request for embeddings.", _TOKENS
)
OPERATION_DURATION = Metric("gen_ai.client.operation.duration", "s", "How long a retrieval took.", _OPERATION_SECONDS)
"""Metric of every operation without one of its own, by the conventions; of those we have retrievals alone."""
EXECUTE_TOOL_DURATION = Metric("gen_ai.execute_tool.duration", "s", "How long a tool took.", _OPERATION_SECONDS)
INVOKE_AGENT_DURATION = Metric(
    "gen_ai.invoke_agent.duration", "s", "How long an agent's invocation took.", _AGENT_SECONDS
)
INVOKE_AGENT_INFERENCE_CALLS = Metric(
    "gen_ai.invoke_agent.inference_calls",
    "{inference_call}",
    "Requests to models in one invocation of an agent.",
    _CALLS,
)
INVOKE_AGENT_TOOL_CALLS = Metric(
    "gen_ai.invoke_agent.tool_calls", "{tool_call}", "Tools run in one invocation of an agent.", _CALLS
)
INVOKE_WORKFLOW_DURATION = Metric(
    "gen_ai.invoke_workflow.duration", "s", "How long a workflow took.", _WORKFLOW_SECONDS
)
COST = Metric("runmeter.cost", "{USD}", "Cost in US dollars of the requests whose cost is known.")
UNPRICED_REQUESTS = Metric(
    "runmeter.unpriced_requests", "{request}", "Requests whose cost is not known: they are not in `runmeter.cost`."
)
NOTICES = Metric("runmeter.notices", "{notice}", "Warnings before something becomes an error, by kind.")
