"""Parameters of the Responses API.

Source: openai 3.54.0, `types/responses/response_create_params.py`, `input_token_count_params.py` (2026-11).
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from ..errors import ApiError, not_simulated
from ..model.prompt import Effort, Metadata, Temperature, TopP
from .text_format import TextParams
from .tools import ToolChoice, Tools

LEAST_OUTPUT = 16
"""`max_output_tokens` cannot be less."""

ShortText: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)]


class Reasoning(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Settings of how the model is to think."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None

    @property
    def summarises(self) -> bool:
        """True if a summary of the reasoning is asked for, by either name."""
        return (self.summary or self.generate_summary) is not None


class ConversationReference(msgspec.Struct, forbid_unknown_fields=True):
    """A reference to a conversation by its id."""

    id: str


class CacheOptions(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Options of the prompt cache."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m", "12h"] | None = None
    prewarm: bool | None = None
    comparison_response_id: str | None = None
    """Asks for a diagnosis, which may be left out, as it is here."""


class EventOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options of a response's stream. Its events are never padded, whatever it says."""

    include_obfuscation: bool | None = None


Includable: TypeAlias = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


class PromptParams(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Parameters that make the prompt."""

    model: str
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationReference | None = None
    reasoning: Reasoning | None = None
    text: TextParams | None = None
    max_output_tokens: int | None = None
    prompt_cache_options: CacheOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None

    @property
    def conversation_id(self) -> str | None:
        """The conversation the request belongs to, whichever way it names it."""
        return self.conversation.id if isinstance(self.conversation, ConversationReference) else self.conversation


class CountInputTokens(PromptParams, kw_only=True):
    """The body of POST /responses/input_tokens."""

    personality: Any = None


class CreateResponse(PromptParams, kw_only=True):
    """The body of POST /responses. What only the real service can do is read as `Any`, and refused by name."""

    stream: bool | None = None
    stream_options: EventOptions | None = None
    store: bool | None = None
    max_tool_calls: int | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    include: list[Includable] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    metadata: Metadata | None = None
    prompt_cache_key: ShortText | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    safety_identifier: str | None = None
    user: str | None = None
    prompt: Any = None
    background: bool | None = None
    access_programs: Any = None
    background_options: Any = None
    context_management: Any = None
    image: Any = None
    moderation: Any = None


_NOT_SIMULATED = ("prompt", "access_programs", "background_options", "context_management", "image", "moderation")


def check_response_params(request: CreateResponse) -> None:
    """Refuse what the real service refuses, whatever the model, and what is not simulated.

    Raises:
        ApiError: 400: a parameter, by name.
    """
    for name in _NOT_SIMULATED:
        if getattr(request, name) is not None:
            raise not_simulated(f"'{name}'", name)
    if request.background:
        raise not_simulated("responses in the background", "background")
    if request.top_logprobs or "message.output_text.logprobs" in (request.include or ()):
        raise not_simulated("log probabilities", "top_logprobs" if request.top_logprobs else "include")
    if request.reasoning is not None and request.reasoning.mode not in {None, "standard"}:
        raise not_simulated(f"reasoning in mode '{request.reasoning.mode}'", "reasoning.mode")
    if request.stream_options is not None and not request.stream:
        raise stream_options_alone()
    if request.max_output_tokens is not None and request.max_output_tokens < LEAST_OUTPUT:
        message = (
            f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= {LEAST_OUTPUT}, "
            f"but got {request.max_output_tokens} instead."
        )
        raise ApiError(400, message, param="max_output_tokens", code="integer_below_min_value")
    options = request.prompt_cache_options
    if options is not None and (options.prewarm or options.mode == "explicit"):
        raise not_simulated("a prompt cache that is warmed, or has breakpoints", "prompt_cache_options")


def stream_options_alone() -> ApiError:
    """Make the error of options for a stream where there is none (as reported: BerriAI/litellm#5803, 2024)."""
    message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
    return ApiError(400, message, param="stream_options")
