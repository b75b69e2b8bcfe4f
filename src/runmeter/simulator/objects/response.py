"""The Response object and its output items, as they go over the wire.

Source: openai 3.54.0, `types/responses/response.py` and its neighbours (2026-11).
"""

import hashlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from runmeter.engine import Usage

from ..faults import Fault
from ..misreports import told_usage
from ..model.billing import Block, Generation
from ..model.catalogue import Model
from ..model.prompt import Item, Part
from .conversation import StoredItem

ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]
ResponseStatus: TypeAlias = Literal["completed", "failed", "in_progress", "cancelled", "incomplete"]


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    """A message's only kind of content here."""

    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class SummaryText(msgspec.Struct, tag_field="type", tag="summary_text"):
    """A summary of the reasoning: what may be read of it."""

    text: str


class OutputMessage(msgspec.Struct, tag_field="type", tag="message"):
    """A message that the model says."""

    id: str
    status: ItemStatus
    content: list[OutputText]
    phase: Literal["commentary", "final_answer"] | None = None
    role: Literal["assistant"] = "assistant"


class FunctionCallItem(msgspec.Struct, tag_field="type", tag="function_call"):
    """A function call that the model asks for."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


class ReasoningItem(msgspec.Struct, tag_field="type", tag="reasoning"):
    """A reasoning item in the output: the model has thought."""

    id: str
    summary: list[SummaryText]
    encrypted_content: str | None = None


OutputItem: TypeAlias = ReasoningItem | OutputMessage | FunctionCallItem


class ResponseObject(msgspec.Struct, kw_only=True):
    """A response of the API. Settings are echoed as they were sent."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: ResponseStatus | None
    """The status of the response. None on command only."""
    completed_at: int | None = None
    background: bool = False
    conversation: dict[str, str] | None = None
    error: dict[str, Any] | None = None
    incomplete_details: dict[str, str] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    reasoning: dict[str, Any]
    safety_identifier: str | None = None
    service_tier: str
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int = 0
    top_p: float
    truncation: str
    usage: dict[str, Any] | msgspec.UnsetType | None = None
    user: str | None = None


def output_items(
    generation: Generation, model: Model, new_id: Callable[[str], str], *, summarise: bool
) -> list[OutputItem]:
    """Write the items of the output: reasoning first, if there was any, then text, then tool calls."""
    items: list[OutputItem] = []
    if generation.usage.reasoning_tokens:
        items.append(_reasoning(new_id("rs_"), summarise=summarise))
    phase: Literal["commentary", "final_answer"] | None = None
    if model.labels_phases:
        phase = "commentary" if generation.tool_calls else "final_answer"
    items += [_item(block, phase, new_id) for block in generation.blocks]
    return items


def _reasoning(item_id: str, *, summarise: bool) -> ReasoningItem:
    summary = [SummaryText("Read the request and settled on an answer.")] if summarise else []
    # Opaque to all but the real service: any bytes will do.
    return ReasoningItem(item_id, summary, b64encode(hashlib.sha256(item_id.encode()).digest()).decode())


def _item(
    block: Block, phase: Literal["commentary", "final_answer"] | None, new_id: Callable[[str], str]
) -> OutputItem:
    status: ItemStatus = "completed" if block.complete else "incomplete"
    if block.tool is None:
        return OutputMessage(new_id("msg_"), status, [OutputText(block.text)], phase)
    return FunctionCallItem(new_id("fc_"), new_id("call_"), block.tool, block.text, status)


def finished(draft: ResponseObject, output: list[OutputItem], generation: Generation) -> ResponseObject:
    """Finish the draft with its output and usage, completed or, if the output was cut, incomplete."""
    cut = generation.finish == "length"
    return msgspec.structs.replace(
        draft,
        status="incomplete" if cut else "completed",
        completed_at=None if cut else draft.created_at,
        incomplete_details={"reason": "max_output_tokens"} if cut else None,
        output=output,
        usage=wire_usage(generation.usage),
    )


def failed(draft: ResponseObject) -> ResponseObject:
    """Make the draft a failure of the service: no output, no usage."""
    error = {"code": "server_error", "message": "The server had an error while processing your request."}
    return msgspec.structs.replace(draft, status="failed", error=error)


def cancelled(draft: ResponseObject, usage: Usage) -> ResponseObject:
    """Finish the draft after its client left. What was generated is billed, but not kept."""
    return msgspec.structs.replace(draft, status="cancelled", usage=wire_usage(usage))


def as_told(final: ResponseObject, fault: Fault | None) -> ResponseObject:
    """Write the finished response as the caller is told it, which a fault may make less than it is."""
    usage = told_usage(final.usage or {}, fault).get("usage", msgspec.UNSET)
    final = msgspec.structs.replace(final, usage=usage)
    match fault.kind if fault is not None else None:
        case "null_finish_reason":
            return msgspec.structs.replace(final, status=None)
        case "empty_output":
            return msgspec.structs.replace(final, output=[])
        case _:
            return final


def wire_usage(usage: Usage) -> dict[str, Any]:
    """Write usage as the Responses API reports it."""
    written, written_12h = usage.cache_write_tokens, usage.cache_write_12h_tokens
    details = {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": written}
    by_lifetime = {"ttl_30m_tokens": written - written_12h, "ttl_12h_tokens": written_12h}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {**details, "cache_write_tokens_details": by_lifetime},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def as_input(item: OutputItem) -> Item:
    """Turn an output item into a part of the next request's input."""
    match item:
        case OutputMessage():
            return Item(role="assistant", content=[Part("output_text", part.text) for part in item.content])
        case FunctionCallItem():
            return Item("function_call", name=item.name, call_id=item.call_id, arguments=item.arguments)
        case ReasoningItem():
            return Item("reasoning", summary=[Part("summary_text", part.text) for part in item.summary])


def store_output(output: list[OutputItem]) -> list[StoredItem]:
    """Make output items as a conversation keeps them."""
    return [StoredItem(item.id, as_input(item), msgspec.Raw(msgspec.json.encode(item))) for item in output]
