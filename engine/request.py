"""A request to a model, as it is asked for."""

import msgspec

from .events import Usage


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a model. Names and values are those of the OpenTelemetry GenAI conventions (2026-10-09)."""

    provider: str
    """The provider's name, such as `openai`."""
    model: str
    operation: str = "chat"
    """The operation: `chat` or `embeddings`."""
    api: str | None = None
    """The API: `responses` or `chat_completions`, for OpenAI."""
    stream: bool = False
    service_tier: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    previous_response_id: str | None = None
    server_address: str | None = None
    server_port: int | None = None
    bound: Usage | None = None
    """The upper bound of its input and output tokens, where that was worked out."""
