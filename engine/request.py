"""A request to a model, as it is asked for."""

from typing import Any

import msgspec
from msgspec import convert
from msgspec.structs import force_setattr

from .errors import ConfigurationError
from .events import Usage
from .validation.checks import (
    Count,
    Counts,
    Id,
    Name,
    count_of,
    encode,
    id_of,
    name_of,
    optional_name,
    sound_usage,
)


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a model. Names and values are those of the OpenTelemetry GenAI conventions (2026-10-09).

    Texts are cleaned and cut as `engine/validation/checks.py` says; a number that is not one counts as not given.

    Raises:
        ConfigurationError: provider, model or operation is not a string.
    """

    provider: str
    """The provider's name, such as `openai`."""
    model: str
    operation: str = "chat"
    """Name of the operation: `chat` or `embeddings`."""
    api: str | None = None
    """Name of the API: `responses` or `chat_completions`, for OpenAI."""
    stream: bool = False
    service_tier: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    previous_response_id: str | None = None
    server_address: str | None = None
    server_port: int | None = None
    bound: Usage | None = None
    """The upper bound of its input and output tokens, where that was worked out."""

    def __post_init__(self) -> None:
        try:
            encode(convert(self, _SoundRequest, from_attributes=True))
        except Exception:
            self._tidy()

    def _tidy(self) -> None:
        """Clean, cut or refuse the values that are not sound."""
        for what in ("provider", "model", "operation"):
            value = getattr(self, what)
            if not isinstance(value, str):
                raise ConfigurationError(f"the {what} of a request must be a string, is {value!r:.100}")
            force_setattr(self, what, name_of(value))
        for what in ("api", "service_tier", "server_address"):
            force_setattr(self, what, optional_name(getattr(self, what)))
        force_setattr(self, "previous_response_id", id_of(self.previous_response_id))
        for what in ("max_output_tokens", "server_port"):
            force_setattr(self, what, count_of(getattr(self, what)))
        force_setattr(self, "stream", bool(self.stream))
        force_setattr(self, "temperature", _float(self.temperature))
        bound, wrong = (None, ()) if self.bound is None else sound_usage(self.bound)
        force_setattr(self, "bound", None if wrong else bound)


def _float(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


class _SoundRequest(msgspec.Struct, gc=False):
    provider: Name
    model: Name
    operation: Name
    api: Name | None
    stream: bool
    service_tier: Name | None
    max_output_tokens: Count | None
    temperature: float | None
    previous_response_id: Id | None
    server_address: Name | None
    server_port: Count | None
    bound: Counts | None
