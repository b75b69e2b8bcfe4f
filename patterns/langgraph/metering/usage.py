"""What a LangChain model answered and used, in the engine's words."""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from runmeter.engine import ModelCall, TokenCounter, TokenizerError, Usage

from ...requests.bounds import Sent

logger = logging.getLogger("runmeter")
_TIER = re.compile("^(priority|flex)_")
STREAM_CUT = "stream_cut", "the stream ended before the answer was complete"
"""Code and message of the error that an answer is which stopped coming."""


@dataclass(slots=True)
class Answer:
    """An answer, or as much of it as came."""

    usage: Usage | None
    """None if the model reported none."""
    metadata: Mapping[str, Any]
    finish_reasons: tuple[str, ...]
    cut: bool = False
    """Whether its stream ended too soon."""
    message: AIMessage | None = None

    def describe(self, call: ModelCall) -> None:
        """Say on a call what is known of its answer, but for the usage."""
        metadata = self.metadata
        response_id = metadata.get("id")
        call.response_id = response_id if isinstance(response_id, str) else call.response_id
        call.response_model = metadata.get("model_name") or metadata.get("model") or call.response_model
        call.service_tier = metadata.get("service_tier") or call.service_tier
        call.finish_reasons = self.finish_reasons or call.finish_reasons


def read_answer(result: LLMResult) -> Answer:
    """Read the outcome of one request. Of several choices each repeats the request's usage, so the first counts."""
    choices = result.generations[0] if result.generations else []
    messages = [
        choice.message
        for choice in choices
        if isinstance(choice, ChatGeneration) and isinstance(choice.message, AIMessage)
    ]
    if not messages:
        output = result.llm_output or {}
        return Answer(_completion_usage(output.get("token_usage") or {}), output, ())
    reasons = tuple(reason for message in messages if (reason := finish_reason_of(message)))
    return Answer(
        _message_usage(messages[0]), messages[0].response_metadata, reasons, any(map(was_cut, messages)), messages[0]
    )


async def estimate_usage(sent: Sent, answer: AIMessage) -> Usage | None:
    """Count a request and its answer in a worker thread; None if not all of it can be seen from here."""
    if sent.refers or sent.answers > 1:
        return None
    counter = TokenCounter()
    written = "".join((str(answer.text), *(f"{call['name']}{json.dumps(call['args'])}" for call in answer.tool_calls)))
    try:
        read = await counter.count_messages(sent.messages, sent.model, tools=sent.tools, text_format=sent.text_format)
        said = await counter.count_text(written, sent.model)
    except TokenizerError as error:
        logger.warning("cannot estimate what an answer used: %s", error)
        return None
    return Usage(input_tokens=read.tokens, output_tokens=said.tokens)


def was_cut(message: AIMessage) -> bool:
    """Tell whether the stream of an answer ended too soon: OpenAI always says why an answer ended."""
    return message.response_metadata.get("model_provider") == "openai" and not finish_reason_of(message)


def _message_usage(message: AIMessage) -> Usage | None:
    reported: Mapping[str, Any] | None = message.usage_metadata
    if reported is None:
        return None
    if reported.get("total_cost") == 0:  # how LangChain marks an answer from its own cache
        return Usage()
    tokens = _tokens(reported, "input_tokens", "output_tokens")
    if tokens is None or tokens == (0, 0):  # LangChain writes 0 where the API said nothing
        return None
    read = _by_kind(reported.get("input_token_details") or {})
    written = _by_kind(reported.get("output_token_details") or {})
    return Usage(
        *tokens,
        cache_read_tokens=min(read.get("cache_read", 0), tokens[0]),  # which are part of the input
        cache_write_tokens=read.get("cache_creation", 0),
        reasoning_tokens=written.get("reasoning", 0),
        audio_input_tokens=read.get("audio", 0),
        audio_output_tokens=written.get("audio", 0),
        image_input_tokens=read.get("image", 0),
        image_output_tokens=written.get("image", 0),
        web_searches=_count_calls(message, "web_search_call"),
        file_searches=_count_calls(message, "file_search_call"),
    )


def _by_kind(details: Mapping[str, Any]) -> dict[str, int]:
    """Read the counts of tokens by kind.

    langchain-openai 1.7.3 puts the tier that served before the kind, unless it is the default. Anthropic's cache writes
    come by their lifetime: `ephemeral_5m_input_tokens`, `ephemeral_1h_input_tokens`.
    """
    counts: dict[str, int] = {}
    for name, count in details.items():
        if isinstance(count, int):  # LangChain lets models write whatever they like beside
            kind = "cache_creation" if name.startswith("ephemeral_") else _TIER.sub("", name)
            counts[kind] = counts.get(kind, 0) + count
    return counts


def _count_calls(message: AIMessage, kind: str) -> int:
    """Count calls of a tool that OpenAI ran. Of the web searches only those that searched are billed."""
    if not isinstance(message.content, list):
        return 0
    blocks: Iterable[Any] = (*message.content, *(message.additional_kwargs.get("tool_outputs") or ()))
    return sum(
        isinstance(block, dict)
        and block.get("type") == kind
        and (block.get("action") or {}).get("type", "search") == "search"
        for block in blocks
    )


def finish_reason_of(message: AIMessage) -> str | None:
    """Tell why an answer ended, in the words of Chat Completions where it is OpenAI's."""
    metadata = message.response_metadata
    reason = metadata.get("finish_reason") or metadata.get("stop_reason")
    if reason:
        return str(reason)
    match metadata.get("status"):
        case "completed":
            return "tool_calls" if message.tool_calls or message.invalid_tool_calls else "stop"
        case "incomplete":
            cause = (metadata.get("incomplete_details") or {}).get("reason")
            return "length" if cause in (None, "max_output_tokens") else str(cause)
        case _:
            return None


def _completion_usage(reported: Mapping[str, Any]) -> Usage | None:
    """Read the usage that models for plain text report."""
    tokens = _tokens(reported, "prompt_tokens", "completion_tokens")
    return Usage(*tokens) if tokens else None


def _tokens(reported: Mapping[str, Any], read: str, written: str) -> tuple[int, int] | None:
    """Read input and output tokens; None unless both are reported."""
    before, after = reported.get(read), reported.get(written)
    return (before, after) if isinstance(before, int) and isinstance(after, int) else None
