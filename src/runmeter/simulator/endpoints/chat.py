"""The Chat Completions API: create, plain and streamed. One choice only (`n` = 1).

Source of all shapes: openai 3.54.0, `types/chat/` and `types/completion_usage.py` (2026-11).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from runmeter.engine import Usage

from ..accounts import BilledRequest
from ..errors import ApiError, decode, not_simulated
from ..faults import Fault, FaultKind, server_error
from ..misreports import told_usage
from ..model.billing import Block, Generation
from ..model.catalogue import Model, find_model
from ..model.limits import check_output_limit
from ..model.prompt import Item, Part, Prompt, check_sampling, served_tier
from ..objects.content import check_pieces
from ..requests.chat_params import (
    AssistantMessage,
    CreateChatCompletion,
    FunctionMessage,
    Message,
    ToolMessage,
    check_chat_params,
)
from ..requests.text_format import response_format_schema
from ..requests.tools import chat_choice, chat_tools
from ..service import Answer, Call, Chunk, Service


def create(service: Service, call: Call) -> Answer:
    """Answer POST /chat/completions with a completion."""
    request = decode(call.body, CreateChatCompletion)
    check_chat_params(request)
    model = find_model(request.model)
    prompt = _prompt(request, model)
    _check(request, model)
    pending = PendingCompletion(service, request, prompt, call)
    if request.stream:
        return pending
    pending.completed()
    return pending.plain()


class PendingCompletion:
    """A completion from its generation to its end, which decides what is billed."""

    def __init__(self, service: Service, request: CreateChatCompletion, prompt: Prompt, call: Call) -> None:
        self._account = call.account
        self._fault = call.fault
        self._model = prompt.model.id
        self._generation: Generation = service.generate(prompt, call.fault)
        self._finish = None if self._has_fault("null_finish_reason") else self._generation.finish
        self._include_usage = request.stream_options is not None and bool(request.stream_options.include_usage)
        self._arrived = service.clock()
        self._tier = served_tier(request.service_tier, call.fault)
        self._head = {
            "id": service.new_id("chatcmpl-"),
            "created": int(self._arrived),
            "model": self._model,
            "service_tier": self._tier,
            "system_fingerprint": None,
        }
        self._call_ids = [service.new_id("call_") for block in self._generation.blocks if block.tool]

    def plain(self) -> bytes:
        """Write the whole completion as JSON."""
        texts = [block.text for block in self._generation.blocks if not block.tool]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(texts) if texts else None,
            "refusal": None,
            "annotations": [],
        }
        if self._call_ids:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": block.tool, "arguments": block.text}}
                for call_id, block in zip(self._call_ids, self._calls(), strict=True)
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish}
        usage = told_usage(wire_usage(self._generation.usage), self._fault)
        return msgspec.json.encode({**self._head, "object": "chat.completion", "choices": [choice], **usage})

    @property
    def chunks(self) -> Sequence[Chunk]:
        """The events of the whole stream."""
        spent = 0
        chunks = []
        for body, tokens in self._bodies():
            spent += tokens
            if self._has_fault("cumulative_usage"):
                body["usage"] = wire_usage(self._generation.usage_after(spent))
            chunks.append(Chunk(_encode(body), tokens))
        return [*chunks, Chunk(b"data: [DONE]\n\n")]

    def error(self, fault: Fault, position: int) -> bytes:  # one form for all of them
        """Write the event that reports a fault."""
        return _encode({"error": server_error().details()})

    def completed(self) -> None:
        """Bill all that was generated."""
        self._bill(self._generation.usage, tool_calls=self._generation.tool_calls)

    def abandoned(self, tokens: int) -> None:
        """Bill what was generated until the client left."""
        self._bill(self._generation.usage_after(tokens))

    def failed(self) -> None:
        """Bill nothing, as the service failed."""

    def _bill(self, usage: Usage, *, tool_calls: int = 0) -> None:
        request = BilledRequest("completions", self._model, usage, self._tier, self._arrived)
        self._account.bill(request, self._fault, tool_calls=tool_calls)

    def _calls(self) -> list[Block]:
        return [block for block in self._generation.blocks if block.tool]

    def _has_fault(self, kind: FaultKind) -> bool:
        return self._fault is not None and self._fault.kind == kind

    def _bodies(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Write each chunk of the stream, and the tokens of output that it carries."""
        # Reasoning is not shown, but it is generated before anything that is.
        reasoning = self._generation.usage.reasoning_tokens
        yield self._chunk({"role": "assistant", "content": "", "refusal": None}, tokens=reasoning)
        index = 0
        for block in self._generation.blocks:
            if block.tool is None:
                yield from (self._chunk({"content": piece.text}, tokens=piece.tokens) for piece in block.pieces)
            else:
                yield from self._call_chunks(block, index)
                index += 1
        yield self._chunk({}, finish=self._finish)
        if self._include_usage and not self._has_fault("no_usage"):
            yield self._chunk(None, usage=told_usage(wire_usage(self._generation.usage), self._fault)["usage"])

    def _call_chunks(self, block: Block, index: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Write a call's chunks: the first carries the name and its tokens, the others pieces of the arguments."""
        name, *pieces = block.pieces
        function = {"name": block.tool, "arguments": ""}
        first = {"index": index, "id": self._call_ids[index], "type": "function", "function": function}
        yield self._chunk({"tool_calls": [first]}, tokens=name.tokens)
        for piece in pieces:
            delta = {"index": index, "function": {"arguments": piece.text}}
            yield self._chunk({"tool_calls": [delta]}, tokens=piece.tokens)

    def _chunk(
        self,
        delta: dict[str, Any] | None,
        *,
        finish: str | None = None,
        usage: dict[str, Any] | None = None,
        tokens: int = 0,
    ) -> tuple[dict[str, Any], int]:
        """Write one chunk of the stream: of the one choice, or, without a delta, of none."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        body = {**self._head, "object": "chat.completion.chunk", "choices": [] if delta is None else [choice]}
        if self._include_usage:
            body["usage"] = usage
        return body, tokens


def wire_usage(usage: Usage) -> dict[str, Any]:
    """Write usage as Chat Completions reports it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _encode(body: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % msgspec.json.encode(body)


def _prompt(request: CreateChatCompletion, model: Model) -> Prompt:
    items = [item for index, message in enumerate(request.messages) for item in _items(message, index)]
    _check_tool_messages(request.messages)
    tools = chat_tools(request.tools or ())
    choice, allowed = chat_choice(tools, request.tool_choice)
    return Prompt(
        model=model,
        items=items,
        tools=tools,
        choice=choice,
        allowed=allowed,
        parallel=request.parallel_tool_calls is not False,
        effort=request.reasoning_effort,
        json_schema=response_format_schema(request.response_format, items),
        max_output_tokens=request.max_completion_tokens or request.max_tokens,
        api="chat_completions",
        stops=request.stops,
    )


def _items(message: Message, index: int) -> Iterator[Item]:
    """Write a message in the words of the Responses API."""
    at = f"messages[{index}]"
    check_pieces(message.content, f"{at}.content")
    match message:
        case ToolMessage():
            output = msgspec.convert(msgspec.to_builtins(message.content), str | list[Part])
            yield Item("function_call_output", call_id=message.tool_call_id, output=output)
        case AssistantMessage():
            yield from _said(message, index)
        case FunctionMessage():
            raise not_simulated("a message of role 'function'", f"{at}.role")
        case _:
            content = msgspec.convert(msgspec.to_builtins(message.content), str | list[Part])
            yield Item(role=message.text_role, content=content, name=message.name)


def _said(message: AssistantMessage, index: int) -> Iterator[Item]:
    at = f"messages[{index}]"
    for name in ("audio", "function_call"):
        if getattr(message, name) is not None:
            raise not_simulated(f"'{name}' in a message", f"{at}.{name}")
    if message.content is None and not (message.refusal or message.tool_calls):
        # As reported: run-llama/llama_index#17921 (2025), vercel/ai#13744 (2026).
        text = "Invalid value for 'content': expected a string, got null."
        raise ApiError(400, text, param=f"messages.[{index}].content")
    if message.content or message.refusal or not message.tool_calls:
        parts = msgspec.convert(msgspec.to_builtins(message.content), str | list[Part] | None)
        content = parts or ([Part("refusal", refusal=message.refusal)] if message.refusal else "")
        yield Item(role="assistant", content=content, name=message.name)
    for place, call in enumerate(message.tool_calls or ()):
        if call.function is None:
            raise not_simulated(f"a tool call of type '{call.type}'", f"{at}.tool_calls[{place}].type")
        yield Item("function_call", call_id=call.id, name=call.function.name, arguments=call.function.arguments)


def _check(request: CreateChatCompletion, model: Model) -> None:
    """Refuse what this model does not take."""
    if model.effort and request.max_tokens is not None:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        raise ApiError(400, message, param="max_tokens", code="unsupported_parameter")
    for limit in ("max_tokens", "max_completion_tokens"):
        check_output_limit(model, getattr(request, limit), limit, chat=True)
    sampling = {"temperature": request.temperature, "top_p": request.top_p}
    check_sampling(model, request.reasoning_effort, sampling, chat=True)
    _check_unsupported(request, model)
    effort = request.reasoning_effort or model.effort
    if request.tools and model.separates_tools_from_reasoning and effort != "none":
        # Source: the API's answer as quoted in GoogleChromeLabs/webmcp-tools#417 and laurent22/joplin#16451,
        # 2026-09.
        message = (
            f"Function tools with reasoning_effort are not supported for {model.id} in /v1/chat/completions. "
            "To use function tools, use /v1/responses or set reasoning_effort to 'none'."
        )
        raise ApiError(400, message, param="reasoning_effort")


def _check_unsupported(request: CreateChatCompletion, model: Model) -> None:
    """Refuse parameters that models which reason do not take.

    Sources: huggingface/smolagents#1671 (the words, 2025), BerriAI/litellm#28650 (`stop` from gpt-5.5 on, 2026).
    """
    unsupported = {"stop": bool(request.stops) and not model.takes_stop}
    if (request.reasoning_effort or model.effort) not in {None, "none"}:
        unsupported |= {name: bool(getattr(request, name)) for name in ("frequency_penalty", "presence_penalty")}
    for name, is_given in unsupported.items():
        if is_given:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise ApiError(400, message, param=name, code="unsupported_parameter")


def _check_tool_messages(messages: Sequence[Message]) -> None:
    """Check that tool messages answer the calls of the assistant's message before them, each of them.

    Raises:
        ApiError: 400, in the API's words (FoundationAgents/OpenManus#744, QwenLM/Qwen3-Coder#455).
    """
    waiting: dict[str, None] = {}
    for position, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in waiting:
                text = (
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message "
                    "with 'tool_calls'."
                )
                raise ApiError(400, text, param=f"messages.[{position}].role")
            del waiting[message.tool_call_id]
            continue
        _check_answered(waiting, position)
        calls = message.tool_calls if isinstance(message, AssistantMessage) else None
        waiting = dict.fromkeys(call.id for call in calls or ())
    _check_answered(waiting, len(messages))


def _check_answered(waiting: dict[str, None], position: int) -> None:
    if waiting:
        text = (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(waiting)}"
        )
        raise ApiError(400, text, param=f"messages.[{position}].role")
