"""A request to a model, as it is asked for."""

import msgspec

from .events import Usage


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a model. Names and values are those of the OpenTelemetry GenAI conventions (2026-10-09)."""

    provider: str
    """Such as `openai`."""
    model: str
    operation: str = "chat"
    """`chat` or `embeddings`."""
    api: str | None = None
    """`responses` or `chat_completions`, for OpenAI."""
    stream: bool = False
    service_tier: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    previous_response_id: str | None = None
    server_address: str | None = None
    server_port: int | None = None
    bound: Usage | None = None
    """It can use so much at the most, input and output tokens, where that was worked out."""
