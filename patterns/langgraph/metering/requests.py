"""What a LangChain model is about to be asked, in the engine's words, and how much its answer may be."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding

from runmeter.engine import ConfigurationError, ModelRequest

from ...message_parts import LEFT_OUT
from ...messages import Item, MessageReader
from ...requests.bounds import Sent

Model: TypeAlias = Runnable[Any, BaseMessage]

_PROVIDERS = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "xai": "x_ai",
}
"""From LangChain's names to those of the OpenTelemetry GenAI conventions (2026-10-09), where they differ."""

_RESPONSES_ONLY = {"context_management", "include", "previous_response_id", "reasoning", "text", "truncation"}
"""Parameters with which ChatOpenAI uses the Responses API (langchain-openai 1.7.3, `_use_responses_api`)."""


UNKNOWN = "unknown"
"""Stands for a name that LangChain does not say."""
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""Names of the parameters that limit an answer."""
_REFERENCES = ("previous_response_id", "conversation", "prompt")
"""Parameters with which the model reads more than is sent."""
_OPENAI = ("openai-chat", "azure-chat")


def describe_request(
    serialized: Mapping[str, Any] | None,
    params: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    operation: str,
    stream: bool,
) -> ModelRequest:
    """Describe a request to a LangChain model.

    Args:
        serialized: The model object, as LangChain writes it.
        params: What the model is invoked with.
        metadata: What LangChain says of the model for tracing.
        operation: `chat` or `text_completion`.
        stream: Whether the answer is streamed, if `params` does not say so.
    """
    settings: Mapping[str, Any] = (serialized or {}).get("kwargs") or {}
    provider = str(metadata.get("ls_provider") or UNKNOWN)
    address, port = _server(settings.get("openai_api_base") or settings.get("base_url"))
    return ModelRequest(
        provider=_PROVIDERS.get(provider, provider),
        model=str(metadata.get("ls_model_name") or params.get("model") or params.get("model_name") or UNKNOWN),
        operation=operation,
        api=_api(settings, params) if provider == "openai" else None,
        stream=stream or bool(params.get("stream")),
        service_tier=params.get("service_tier"),
        max_output_tokens=_limit(params) or metadata.get("ls_max_tokens"),
        temperature=metadata.get("ls_temperature"),
        previous_response_id=params.get("previous_response_id"),
        server_address=address,
        server_port=port,
    )


def describe_sent(
    request: ModelRequest, serialized: Mapping[str, Any] | None, params: Mapping[str, Any], messages: Any
) -> Sent:
    """Describe all of a request that counts for how much it can use.

    Args:
        request: What is known of it.
        serialized: The model object, as LangChain writes it.
        params: What the model is invoked with.
        messages: LangChain messages, or a text.
    """
    settings: Mapping[str, Any] = (serialized or {}).get("kwargs") or {}
    params = {**params, **(params.get("extra_body") or {})}
    tools = [*(params.get("tools") or ()), *(params.get("functions") or ())]
    if params.get("web_search_options") is not None:
        tools.append({"type": "web_search"})
    known = all(isinstance(tool, Mapping) for tool in tools)
    try:
        reader = MessageReader()
        items = messages if isinstance(messages, str) else [item for each in messages for item in _items(each, reader)]
    except ConfigurationError:  # a message of a kind of its own
        items, known = [], False
    said_form = params.get("response_format") or (params.get("text") or {}).get("format")
    return Sent(
        provider=request.provider,
        model=request.model,
        messages=items,
        tools=[tool for tool in tools if isinstance(tool, Mapping)],
        text_format=said_form if isinstance(said_form, Mapping) else None,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=params.get("max_tool_calls"),
        answers=n if isinstance(n := params.get("n"), int) else 1,
        refers=not known or bool(settings.get("use_previous_response_id")) or any(map(params.get, _REFERENCES)),
    )


def describe_question(model: Model, messages: Iterable[BaseMessage]) -> tuple[ModelRequest, Sent] | None:
    """Describe what a model would be asked, before it is. None if it is not a chat model with settings bound to it."""
    chat, settings = _unbind(model)
    if not isinstance(chat, BaseChatModel):
        return None
    # LangChain calls handlers with these, a moment later, and has no public way to ask for them before.
    params = chat._get_invocation_params(**settings)  # noqa: SLF001
    metadata, serialized = chat._get_ls_params(**settings), chat._serialized  # noqa: SLF001
    request = describe_request(serialized, params, metadata, operation="chat", stream=False)
    return request, describe_sent(request, serialized, params, messages)


def with_limit(model: Model, max_output_tokens: int) -> Model | None:
    """Limit a model's answers to so many tokens; None if it is not known to take a limit for each request.

    ChatOpenAI sends whichever of several names it likes (langchain-openai 1.7.3), so all that are set get the limit.
    """
    chat, settings = _unbind(model)
    if not isinstance(chat, BaseChatModel):
        return None
    if chat._llm_type in _OPENAI:  # noqa: SLF001 - how LangChain tells models apart
        name = "max_completion_tokens"
    elif "max_tokens" in type(chat).model_fields:
        name = "max_tokens"
    else:
        return None
    params = chat._get_invocation_params(**settings)  # noqa: SLF001 - as above
    return model.bind(**{each: max_output_tokens for each in _LIMITS if each == name or params.get(each) is not None})


def _unbind(model: Model) -> tuple[Any, dict[str, Any]]:
    """Divide a model into the one without bound settings, and those settings."""
    if isinstance(model, RunnableBinding):
        chat, settings = _unbind(model.bound)
        return chat, {**settings, **model.kwargs}
    return model, {}


def _items(message: Any, reader: MessageReader) -> Iterator[Item]:
    """Yield a message, with all that LangChain models may send of it."""
    yield from reader.read(message)
    beside = {key: value for key, value in getattr(message, "additional_kwargs", {}).items() if value}
    if getattr(message, "name", None):
        beside["name"] = message.name
    if beside:
        yield {"role": "user", "content": str(beside)}
    if isinstance(message, AIMessage) and isinstance(message.content, list):
        yield from (part for part in message.content if isinstance(part, dict) and part.get("type") in LEFT_OUT)


def _limit(params: Mapping[str, Any]) -> int | None:
    """The upper bound of an answer's length, in tokens; of several limits the longest, whichever counts."""
    if params.keys().isdisjoint(_LIMITS):
        return None
    return max((limit for name in _LIMITS if isinstance(limit := params.get(name), int)), default=None)


def _api(settings: Mapping[str, Any], params: Mapping[str, Any]) -> str | None:
    """Tell which API ChatOpenAI will use, where it can be told from outside."""
    told = settings.get("use_responses_api")
    if told is not None:
        return "responses" if told else "chat_completions"
    return "responses" if _RESPONSES_ONLY & params.keys() else None


@lru_cache(maxsize=64)
def _server(url: object) -> tuple[str | None, int | None]:
    if not isinstance(url, str):
        return None, None
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None, None
