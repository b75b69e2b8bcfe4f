"""Parameters of Chat Completions.

Source: openai 3.54.0, `types/chat/completion_create_params.py`, `types/chat/chat_completion_*_message_param.py`
(2026-11). One choice only (`n` = 1).
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from ..errors import ApiError, not_simulated
from ..model.prompt import Effort, Metadata, Temperature, TopP
from ..objects.content import ChatPiece, ChatSaidPiece, ChatText
from .response_params import ShortText, stream_options_alone
from .text_format import ResponseFormat
from .tools import ToolChoice, Tools


class Function(msgspec.Struct, forbid_unknown_fields=True):
    """The function of a tool call."""

    name: str
    arguments: str


class MessageCall(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A tool call in an assistant's message."""

    id: str
    type: Literal["function", "custom"]
    function: Function | None = None
    custom: Any = None


class _Message(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="role"):
    name: str | None = None

    @property
    def text_role(self) -> str:
        """The role of whoever speaks."""
        return str(self.__struct_config__.tag)


class DeveloperMessage(_Message, tag="developer"):
    """A message of the developer's."""

    content: str | list[ChatText]


class SystemMessage(_Message, tag="system"):
    """A message of the developer's, as it was called before."""

    content: str | list[ChatText]


class UserMessage(_Message, tag="user"):
    """A message of the user's."""

    content: str | list[ChatPiece]


class AssistantMessage(_Message, kw_only=True, tag="assistant"):
    """A message that the model said, as the API wrote it or in a client's own words."""

    content: str | list[ChatSaidPiece] | None = None
    tool_calls: Annotated[list[MessageCall], msgspec.Meta(min_length=1)] | None = None
    refusal: str | None = None
    audio: Any = None
    function_call: Any = None
    annotations: Any = None
    """In the API's own messages, which clients send back as they are."""


class ToolMessage(_Message, tag="tool"):
    """The output that a tool gave back."""

    content: str | list[ChatText]
    tool_call_id: str


class FunctionMessage(_Message, tag="function"):
    """The output that a function gave back, before there were tools."""

    content: str | None = None


Message: TypeAlias = DeveloperMessage | SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options of a stream: what it is to have. Its chunks are never padded, whatever it says."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatCacheOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options of the prompt cache."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m"] | None = None


MOST_TOOLS = 128
"""Upper bound on a request's tools (as reported: julep-ai/julep#330, 2024)."""

OutputLimit: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Penalty: TypeAlias = Annotated[float, msgspec.Meta(ge=-2, le=2)]


class CreateChatCompletion(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /chat/completions. What only the real service can do is read as `Any`, and refused by name."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    tools: Annotated[Tools, msgspec.Meta(min_length=1, max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: OutputLimit | None = None
    max_completion_tokens: OutputLimit | None = None
    reasoning_effort: Effort | None = None
    response_format: ResponseFormat | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    n: int | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    metadata: Metadata | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    prompt_cache_key: ShortText | None = None
    prompt_cache_options: ChatCacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    safety_identifier: str | None = None
    seed: int | None = None
    store: bool | None = None
    user: str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    logit_bias: Any = None
    moderation: Any = None
    prediction: Any = None
    web_search_options: Any = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


_NOT_SIMULATED = (
    *("audio", "function_call", "functions", "logit_bias", "moderation", "prediction", "web_search_options"),
)


def check_chat_params(request: CreateChatCompletion) -> None:
    """Refuse what the real service refuses, whatever the model, and what is not simulated.

    Raises:
        ApiError: 400: a parameter, by name.
    """
    for name in _NOT_SIMULATED:
        if getattr(request, name):
            raise not_simulated(f"'{name}'", name)
    if "audio" in (request.modalities or ()):
        raise not_simulated("answers that are spoken", "modalities")
    if request.n not in {None, 1}:
        raise not_simulated("more than one choice", "n")
    if request.logprobs or request.top_logprobs:
        raise not_simulated("log probabilities", "logprobs" if request.logprobs else "top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise stream_options_alone()
    if request.prompt_cache_options is not None and request.prompt_cache_options.mode == "explicit":
        raise not_simulated("breakpoints of the prompt cache", "prompt_cache_options")
    _check_tools_are_there(request)


def _check_tools_are_there(request: CreateChatCompletion) -> None:
    for name in ("tool_choice", "parallel_tool_calls"):
        if getattr(request, name) is not None and request.tools is None:
            message = f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified."
            raise ApiError(400, message, param=name)
