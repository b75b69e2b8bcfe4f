"""The model's prompt, in one form for both APIs: items (in the words of the Responses API), tools and settings."""

from collections.abc import Sequence, Set
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from ..errors import ApiError
from ..faults import Fault
from .catalogue import Model

Choice: TypeAlias = Literal["auto", "none", "required"]
"""The choice of a tool: the model may call one, must not, or must."""

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""The effort of the model's reasoning."""


FunctionName: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}\Z")]
"""A name the API takes for a function (source: openai 3.54.0, `types/shared_params/function_definition.py`; its answer
to others, `invalid_value`, is quoted in hackers365/xiaozhi-esp32-server-golang#268, 2026-05)."""

Temperature: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=2)]
TopP: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]

MetadataKey: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)]
MetadataText: TypeAlias = Annotated[str, msgspec.Meta(max_length=512)]
Metadata: TypeAlias = Annotated[dict[MetadataKey, MetadataText], msgspec.Meta(max_length=16)]
"""A client's notes on an object (source: openai 3.54.0, `types/conversations/conversation_create_params.py`)."""


class Part(msgspec.Struct, omit_defaults=True):
    """A piece of a message's content. Only text is understood; an image is counted."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    """The image, as a data URL; in Chat Completions under `url`."""
    detail: str | None = None


class Item(msgspec.Struct, omit_defaults=True):
    """A message, a function call, its output, or a reasoning item: `type` says which, and so which fields are set."""

    type: str = "message"
    role: str | None = None
    content: str | list[Part] | None = None
    name: str | None = None
    """A function's name; in Chat Completions also a speaker's."""
    call_id: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None
    """What was thought, so that only the service can read it."""

    @property
    def text(self) -> str:
        """The text of a message or an output."""
        content = self.output if self.type == "function_call_output" else self.content
        if isinstance(content, str):
            return content
        return "\n".join(part.text or part.refusal or "" for part in content or ())


class PromptTool(msgspec.Struct, frozen=True):
    """A function the model may call."""

    name: FunctionName
    description: str = ""
    parameters: dict[str, Any] = {}
    """JSON schema."""


class Output(msgspec.Struct, frozen=True):
    """The output that a tool gave back."""

    tool: str
    text: str


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A request, as the model sees it. This is what a script is given."""

    model: Model
    items: Sequence[Item]
    instructions: str | None = None
    tools: Sequence[PromptTool] = ()
    allowed: Sequence[PromptTool] = ()
    """The tools it may call now."""
    choice: Choice = "auto"
    parallel: bool = True
    effort: Effort | None = None
    """The reasoning effort the request asks for, if it asks."""
    json_schema: dict[str, Any] | None = None
    """The JSON schema that the answer's text must be an instance of."""
    max_output_tokens: int | None = None
    cache_12h: bool = False
    """New cache entries are kept for 12 hours, not 30 minutes."""
    api: Literal["responses", "chat_completions"] = "responses"
    """The API that was asked."""
    stops: Sequence[str] = ()
    """The texts before which the answer ends."""
    truncates: bool = False
    """Items may be left out, the oldest first, if they are too many for the model."""

    @property
    def user_text(self) -> str:
        """The text of the last user message."""
        last = self._last_user_message
        return self.items[last].text if last >= 0 else ""

    @property
    def outputs(self) -> list[Output]:
        """The outputs that tools gave back since the last user message, in order."""
        names = {item.call_id: item.name for item in self.items if item.type == "function_call"}
        since = self.items[self._last_user_message + 1 :]
        return [
            Output(names.get(item.call_id) or "", item.text) for item in since if item.type == "function_call_output"
        ]

    @property
    def called(self) -> Set[str]:
        """The names of the functions called since the last user message."""
        since = self.items[self._last_user_message + 1 :]
        return {item.name for item in since if item.type == "function_call" and item.name}

    @property
    def _last_user_message(self) -> int:
        """The index of the last user message, or -1."""
        positions = (i for i, item in enumerate(self.items) if item.type == "message" and item.role == "user")
        return max(positions, default=-1)


def choose(
    tools: Sequence[PromptTool], mode: str | None, names: Sequence[str] | None = None
) -> tuple[Choice, Sequence[PromptTool]]:
    """Read a request's `tool_choice`: whether a tool may or must be called, and which.

    Args:
        tools: The tools offered.
        mode: `auto`, `none`, `required`, or None where the request says nothing.
        names: The only tools allowed; None allows all.

    Raises:
        ApiError: 400: it contradicts the tools offered.
    """
    if mode not in {None, "auto", "none", "required"}:
        raise ApiError(400, f"Invalid value: '{mode}'.", param="tool_choice", code="invalid_value")
    if mode == "required" and not tools:
        message = "Tool choice 'required' must be specified with 'tools' parameter."
        raise ApiError(400, message, param="tool_choice")
    for name in names or ():
        if all(tool.name != name for tool in tools):
            message = f"Tool choice '{name}' not found in 'tools' parameter."
            raise ApiError(400, message, param="tool_choice")
    allowed = tools if names is None else [tool for tool in tools if tool.name in names]
    if mode == "required":
        return "required", allowed
    return ("none", ()) if mode == "none" else ("auto", allowed)


def check_calls(items: Sequence[Item]) -> None:
    """Check that every function call has its output, and every output its call.

    Raises:
        ApiError: 400, in the Responses API's words (openai/openai-agents-python#673, continuedev/continue#10092).
    """
    # Dicts, not sets: the first offender is named, whatever the hash seed.
    calls = dict.fromkeys(item.call_id for item in items if item.type == "function_call")
    outputs = dict.fromkeys(item.call_id for item in items if item.type == "function_call_output")
    for call_id in calls:
        if call_id not in outputs:
            raise ApiError(400, f"No tool output found for function call {call_id}.", param="input")
    for call_id in outputs:
        if call_id not in calls:
            message = f"No tool call found for function call output with call_id {call_id}."
            raise ApiError(400, message, param="input")


def check_sampling(model: Model, effort: str | None, values: dict[str, float | None], *, chat: bool) -> None:
    """Check that a model that reasons gets no sampling parameters, nor an effort that it does not take.

    Args:
        model: The model asked.
        effort: The effort the request names, if any.
        values: `temperature` and `top_p` as in the request.
        chat: Chat Completions has other words for it, and lets the default value 1 pass.

    Raises:
        ApiError: 400: as the API answers (microsoft/vscode#255504, BerriAI/litellm#10957).
    """
    name = "reasoning_effort" if chat else "reasoning.effort"
    if effort is not None and model.effort is None:
        message = f"Unsupported parameter: '{name}' is not supported with this model."
        raise ApiError(400, message, param=name, code="unsupported_parameter")
    if effort == "none" and not model.can_skip_reasoning:
        message = f"Unsupported value: 'none' is not supported with the '{model.id}' model."
        raise ApiError(400, message, param=name, code="unsupported_value")
    if effort is not None and not model.accepts(effort):
        listed = ", ".join(f"'{each}'" for each in model.efforts.split())
        message = (
            f"Unsupported value: '{effort}' is not supported with the '{model.id}' model. Supported values are: "
            f"{listed}."
        )
        raise ApiError(400, message, param=name, code="unsupported_value")
    if (effort or model.effort) in {None, "none"}:
        return
    for parameter, value in values.items():
        if value is None or (chat and value == 1):
            continue
        if chat:
            message = (
                f"Unsupported value: '{parameter}' does not support {value:g} with this model. "
                "Only the default (1) value is supported."
            )
            raise ApiError(400, message, param=parameter, code="unsupported_value")
        message = f"Unsupported parameter: '{parameter}' is not supported with this model."
        raise ApiError(400, message, param=parameter)


def served_tier(requested: str | None, fault: Fault | None) -> str:
    """Tell the service tier a request is served in (openai 3.54.0, `types/chat/chat_completion.py`)."""
    if fault is not None and fault.kind == "other_tier":
        return fault.tier
    return {None: "default", "auto": "default", "fast": "priority"}.get(requested, requested or "default")
