"""What a LangChain model is about to be asked, in the engine's words."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from runmeter.engine import ModelRequest

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
"""With one of these ChatOpenAI uses the Responses API (langchain-openai 1.7.3, `_use_responses_api`)."""


def describe_request(
    serialized: Mapping[str, Any] | None,
    params: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    operation: str,
    stream: bool,
) -> ModelRequest:
    """Describe a request.

    Args:
        serialized: The model object, as LangChain writes it.
        params: What the model is invoked with.
        metadata: What LangChain says of the model for tracing.
        operation: `chat` or `text_completion`.
        stream: Whether the answer is streamed, if `params` does not say so.
    """
    settings: Mapping[str, Any] = (serialized or {}).get("kwargs") or {}
    provider = metadata.get("ls_provider") or "unknown"
    address, port = _server(settings.get("openai_api_base") or settings.get("base_url"))
    return ModelRequest(
        provider=_PROVIDERS.get(provider, provider),
        model=metadata.get("ls_model_name") or params.get("model") or params.get("model_name") or "unknown",
        operation=operation,
        api=_api(settings, params) if provider == "openai" else None,
        stream=stream or bool(params.get("stream")),
        service_tier=params.get("service_tier"),
        max_output_tokens=metadata.get("ls_max_tokens"),
        temperature=metadata.get("ls_temperature"),
        previous_response_id=params.get("previous_response_id"),
        server_address=address,
        server_port=port,
    )


def _api(settings: Mapping[str, Any], params: Mapping[str, Any]) -> str | None:
    """Which API ChatOpenAI will use, where it can be told from outside."""
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
