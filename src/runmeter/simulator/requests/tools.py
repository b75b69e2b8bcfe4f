"""The tools of a request, and which of them may be called, in the words of either API.

Source of the shapes: openai 3.54.0, `types/responses/tool_param.py`, `types/chat/chat_completion_tool_union_param.py`,
`types/responses/tool_choice_*_param.py` (2026-11). Functions are called. Tools that OpenAI runs are taken and not used,
as a model may do that finds no need of them. What the caller is to run in other ways than a function is not simulated.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import ApiError, convert, missing_parameter, not_simulated, unknown_parameter, unsupported_kind
from ..model.prompt import Choice, FunctionName, PromptTool, choose
from ..model.schemas import check_schema

HOSTED: Mapping[str, str] = {
    "file_search": "vector_store_ids! filters max_num_results ranking_options",
    "web_search": "external_web_access filters search_context_size user_location",
    "web_search_preview": "search_content_types search_context_size user_location",
    "code_interpreter": "container! allowed_callers",
    "image_generation": "action background complexity frame_count frame_duration_ms input_fidelity input_image_mask "
    "model moderation output_compression output_format partial_images quality size svg",
    "mcp": "server_label! allowed_callers allowed_tools authorization connector_id defer_loading headers "
    "require_approval server_description server_url tunnel_id",
}
"""The tools that OpenAI runs, and their keys; those with a mark are required."""
_DATED = {"web_search_2025_08_26": "web_search", "web_search_preview_2025_03_11": "web_search_preview"}
OTHERS = frozenset(
    {
        *("computer", "computer_use_preview", "custom", "local_shell", "shell", "apply_patch"),
        *("namespace", "tool_search", "programmatic_tool_calling"),
    }
)
"""The tools that are not simulated: the caller runs them, or they are how to find others."""


class ChatFunction(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A function in a tool of Chat Completions."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionDefinition(ChatFunction, kw_only=True):
    """A function in a tool of the Responses API."""

    type: Literal["function"]
    output_schema: dict[str, Any] | None = None
    allowed_callers: list[Literal["direct", "programmatic"]] | None = None
    defer_loading: bool | None = None
    is_async: bool | None = msgspec.field(name="async", default=None)


class ChatFunctionTool(msgspec.Struct, forbid_unknown_fields=True):
    """A function as a tool of Chat Completions."""

    type: Literal["function"]
    function: ChatFunction


Tools: TypeAlias = list[dict[str, Any]]
ToolChoice: TypeAlias = str | dict[str, Any]


class _NamedTool(msgspec.Struct, forbid_unknown_fields=True):
    """A tool in `tool_choice`, by its name."""

    type: str
    name: str | None = None
    server_label: str | None = None


class _AllowedTools(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["auto", "required"]
    tools: list[dict[str, Any]]
    type: Literal["allowed_tools"] = "allowed_tools"


def response_tools(given: Sequence[Mapping[str, Any]]) -> list[PromptTool]:
    """Read the functions among the tools of a request to the Responses API.

    Raises:
        ApiError: 400: a tool that the API does not take, or that is not simulated.
    """
    functions = []
    for index, tool in enumerate(given):
        at = f"tools[{index}]"
        match tool.get("type"):
            case "function":
                definition = convert(tool, FunctionDefinition, at)
                _check_callers(definition, at)
                functions.append(_function(definition, f"{at}.parameters"))
            case str(kind) if _DATED.get(kind, kind) in HOSTED:
                _check_keys(tool, HOSTED[_DATED.get(kind, kind)], at)
            case str(kind) if kind in OTHERS:
                raise not_simulated(f"a tool of type '{kind}'", f"{at}.type")
            case kind:
                raise unsupported_kind(kind, f"{at}.type", ["function", *HOSTED, *sorted(OTHERS)])
    return functions


def chat_tools(given: Sequence[Mapping[str, Any]]) -> list[PromptTool]:
    """Read the functions that a request to Chat Completions offers.

    Raises:
        ApiError: 400: a tool that the API does not take, or that is not simulated.
    """
    functions = []
    for index, tool in enumerate(given):
        at = f"tools[{index}]"
        match tool.get("type"):
            case "function":
                definition = convert(tool, ChatFunctionTool, at).function
                functions.append(_function(definition, f"{at}.function.parameters"))
            case "custom":
                raise not_simulated("a tool of type 'custom'", f"{at}.type")
            case kind:
                raise unsupported_kind(kind, f"{at}.type", ["function", "custom"])
    return functions


def response_choice(
    tools: Sequence[PromptTool], choice: ToolChoice | None, offered: Sequence[Mapping[str, Any]]
) -> tuple[Choice, Sequence[PromptTool]]:
    """Read the `tool_choice` of a request to the Responses API: whether a tool may or must be called, and which.

    Raises:
        ApiError: 400: it contradicts the tools offered, or asks for a tool that OpenAI runs.
    """
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            allowed = convert(choice, _AllowedTools, "tool_choice")
            names = [_function_name(tool, f"tool_choice.tools[{i}]") for i, tool in enumerate(allowed.tools)]
            return choose(tools, allowed.mode, names)
        return choose(tools, "required", [_function_name(choice, "tool_choice")])
    if choice == "required" and offered and not tools:
        raise not_simulated("a call of a tool that OpenAI runs", "tool_choice")
    return choose(tools, choice)


def chat_choice(tools: Sequence[PromptTool], choice: ToolChoice | None) -> tuple[Choice, Sequence[PromptTool]]:
    """Read the `tool_choice` of a request to Chat Completions.

    Raises:
        ApiError: 400: it contradicts the tools offered.
    """
    match choice:
        case {"type": "function", "function": dict(function), **rest} if not rest:
            return choose(tools, "required", [_name_of(function)])
        case {"type": "allowed_tools", "allowed_tools": dict(allowed), **rest} if not rest:
            given = convert(allowed, _AllowedTools, "tool_choice.allowed_tools")
            return choose(tools, given.mode, [_name_of(tool.get("function")) for tool in given.tools])
        case {"type": "custom"}:
            raise not_simulated("a tool of type 'custom'", "tool_choice")
        case dict():
            raise ApiError(400, "Invalid value for 'tool_choice'.", param="tool_choice", code="invalid_value")
    return choose(tools, choice)


def _function(definition: ChatFunction, param: str) -> PromptTool:
    if definition.parameters is not None:
        of = f"function '{definition.name}'"
        strict = definition.strict is True
        check_schema(definition.parameters, of, param, "invalid_function_parameters", strict=strict)
    elif definition.strict:
        message = f"Invalid schema for function '{definition.name}': a strict function needs parameters."
        raise ApiError(400, message, param=param, code="invalid_function_parameters")
    return PromptTool(definition.name, definition.description or "", definition.parameters or {})


def _check_callers(definition: FunctionDefinition, at: str) -> None:
    """Refuse what has the model call functions in other ways than by asking for it at once."""
    if definition.defer_loading or definition.is_async or "programmatic" in (definition.allowed_callers or ()):
        raise not_simulated("functions that are deferred, async, or called by a program", at)


def _check_keys(tool: Mapping[str, Any], keys: str, at: str) -> None:
    known = {key.rstrip("!"): key.endswith("!") for key in keys.split()}
    for key in tool:
        if key != "type" and key not in known:
            raise unknown_parameter(f"{at}.{key}")
    for key, required in known.items():
        if required and tool.get(key) is None:
            raise missing_parameter(f"{at}.{key}")


def _function_name(tool: Mapping[str, Any], at: str) -> str:
    """Read the name of a function in `tool_choice`: no other tool can be asked for."""
    named = convert(tool, _NamedTool, at)
    if named.type == "function" and named.name is not None:
        return named.name
    kind = _DATED.get(named.type, named.type)
    if kind in HOSTED or kind in OTHERS or kind == "computer_use":
        raise not_simulated(f"a call of a tool of type '{named.type}'", "tool_choice")
    raise ApiError(400, "Invalid value for 'tool_choice'.", param="tool_choice", code="invalid_value")


def _name_of(function: Any) -> str:
    match function:
        case {"name": str(name), **rest} if not rest:
            return name
        case _:
            raise ApiError(400, "Invalid type for 'tool_choice.tools'.", param="tool_choice", code="invalid_type")
