"""A response as events, in the order the API sends them.

Source: openai/openai-openapi, 2026-08 (order); openai 3.54.0, `types/responses/response_*_event.py` (fields).
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from ..faults import Fault
from ..model.billing import Block, Generation
from ..service import Chunk
from .response import (
    FunctionCallItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ResponseObject,
    SummaryText,
    as_told,
    failed,
)


class _Event(msgspec.Struct, frozen=True):
    kind: str
    fields: dict[str, Any]
    tokens: int = 0


def response_events(
    draft: ResponseObject, final: ResponseObject, generation: Generation, fault: Fault | None
) -> list[Chunk]:
    """Write the events of a response, from its draft to its end, which a fault may misreport."""
    return [
        Chunk(_encode(event.kind, position, event.fields), event.tokens)
        for position, event in enumerate(_response(draft, final, generation, fault))
    ]


def error_event(fault: Fault, position: int, draft: ResponseObject) -> bytes:
    """Write the event that reports a failure: flat as documented, nested as seen in the wild, or a failed response."""
    if fault.kind == "failed":
        return _encode("response.failed", position, {"response": failed(draft)})
    message = "The server had an error while processing your request. Sorry about that!"
    details = {"code": "server_error", "message": message, "param": None}
    if fault.kind == "stream_error_nested":
        return _encode("error", position, {"error": {"type": "server_error", **details}})
    return _encode("error", position, details)


def _encode(kind: str, position: int, fields: dict[str, Any]) -> bytes:
    data = msgspec.json.encode({"type": kind, "sequence_number": position, **fields})
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)


def _response(
    draft: ResponseObject, final: ResponseObject, generation: Generation, fault: Fault | None
) -> Iterator[_Event]:
    yield _Event("response.created", {"response": draft})
    yield _Event("response.in_progress", {"response": draft})
    blocks = iter(generation.blocks)
    for index, item in enumerate(final.output):
        match item:
            case ReasoningItem():
                yield from _reasoning(item, index, generation.usage.reasoning_tokens)
            case OutputMessage():
                yield from _message(item, index, next(blocks))
            case FunctionCallItem():
                yield from _function_call(item, index, next(blocks))
    yield _Event(f"response.{final.status}", {"response": as_told(final, fault)})


def _reasoning(item: ReasoningItem, index: int, tokens: int) -> Iterator[_Event]:
    draft = msgspec.structs.replace(item, summary=[], encrypted_content="")
    yield _Event("response.output_item.added", {"output_index": index, "item": draft})
    for summary_index, part in enumerate(item.summary):
        where = {"item_id": item.id, "output_index": index, "summary_index": summary_index}
        kind = "response.reasoning_summary"
        yield _Event(f"{kind}_part.added", {**where, "part": SummaryText("")})
        yield _Event(f"{kind}_text.delta", {**where, "delta": part.text})
        yield _Event(f"{kind}_text.done", {**where, "text": part.text})
        yield _Event(f"{kind}_part.done", {**where, "part": part})
    yield _Event("response.output_item.done", {"output_index": index, "item": item}, tokens)


def _message(item: OutputMessage, index: int, block: Block) -> Iterator[_Event]:
    draft = msgspec.structs.replace(item, status="in_progress", content=[])
    yield _Event("response.output_item.added", {"output_index": index, "item": draft})
    where = {"item_id": item.id, "output_index": index, "content_index": 0}
    part = OutputText(block.text)
    yield _Event("response.content_part.added", {**where, "part": OutputText("")})
    yield from _deltas("response.output_text.delta", {**where, "logprobs": []}, block)
    yield _Event("response.output_text.done", {**where, "text": part.text, "logprobs": []})
    yield _Event("response.content_part.done", {**where, "part": part})
    yield _Event("response.output_item.done", {"output_index": index, "item": item})


def _function_call(item: FunctionCallItem, index: int, block: Block) -> Iterator[_Event]:
    draft = msgspec.structs.replace(item, status="in_progress", arguments="")
    yield _Event("response.output_item.added", {"output_index": index, "item": draft})
    where = {"item_id": item.id, "output_index": index}
    kind = "response.function_call_arguments"
    yield from _deltas(f"{kind}.delta", where, block)
    yield _Event(f"{kind}.done", {**where, "name": item.name, "arguments": item.arguments})
    yield _Event("response.output_item.done", {"output_index": index, "item": item})


def _deltas(kind: str, where: dict[str, Any], block: Block) -> Iterator[_Event]:
    """Write the delta events of a block: even a piece without text has cost its tokens, so it is sent."""
    for piece in block.pieces:
        yield _Event(kind, {**where, "delta": piece.text}, piece.tokens)
