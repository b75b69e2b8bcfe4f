"""What a LangChain model answered and used, in the engine's words."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from runmeter.engine import ModelCall, Tokenizer, TokenizerError, Usage

from ...requests.bounds import Sent
from ...requests.usage import Reading, RunningTotals, read_usage

logger = logging.getLogger("runmeter")
STREAM_CUT = "stream_cut", "the stream ended before the answer was complete"
"""Code and message of the error that an answer is which stopped coming."""
_TOLD = frozenset(("id", "model_name", "model", "service_tier", "finish_reason", "stop_reason"))
"""What a model tells of an answer, in text."""

_TOLD_AGAIN = re.compile("(stop|length|tool_calls|content_filter|function_call)+")
"""A reason why an answer ended, or several that LangChain has put one after the other."""


class Told:
    """What the chunks of an answer tell of it. LangChain puts one text after the other where several chunks tell it:
    each choice's last one does, and with some servers each chunk."""

    __slots__ = ("metadata", "reasons")

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        """What was told last, by its name."""
        self.reasons: list[str] = []
        """The reasons why choices ended, in the order they did."""

    def take(self, told: Mapping[str, Any] | None) -> None:
        """Take what one chunk tells; nothing, if it tells nothing."""
        for name in _TOLD & told.keys() if told else ():
            value = told[name] if told else None
            if isinstance(value, str) and value:
                self.metadata[name] = value
                if name in ("finish_reason", "stop_reason"):
                    self.reasons.append(value)


@dataclass(slots=True)
class Answer:
    """An answer, or as much of it as came."""

    reading: Reading
    """What the model reported."""
    metadata: Mapping[str, Any]
    finish_reasons: tuple[str, ...]
    cut: bool = False
    """Whether its stream ended too soon."""
    message: AIMessage | None = None

    @property
    def usage(self) -> Usage | None:
        """What was used, as the model reported it; None if it reported nothing."""
        return self.reading.usage

    def describe(self, call: ModelCall) -> None:
        """Say on a call what is known of its answer, but for the usage."""
        metadata = self.metadata
        response_id = metadata.get("id")
        call.response_id = response_id if isinstance(response_id, str) else call.response_id
        call.response_model = metadata.get("model_name") or metadata.get("model") or call.response_model
        call.service_tier = metadata.get("service_tier") or call.service_tier
        call.finish_reasons = self.finish_reasons or call.finish_reasons


def read_answer(
    result: LLMResult, totals: RunningTotals | None = None, told: Told | None = None, *, choices: int = 1
) -> Answer:
    """Read the outcome of one request. Of several choices each repeats the request's usage, so the first counts.

    Args:
        result: As LangChain reports it.
        totals: What the chunks said that was used, of an answer that was streamed.
        told: What else they told.
        choices: How many were asked for.
    """
    generated = result.generations[0] if result.generations else []
    messages = [
        choice.message
        for choice in generated
        if isinstance(choice, ChatGeneration) and isinstance(choice.message, AIMessage)
    ]
    if not messages:
        output = result.llm_output or {}
        return Answer(read_usage(output.get("token_usage") or {}), output, ())
    first = messages[0]
    if all(map(_is_cached_text, messages)):
        return Answer(Reading(Usage()), {}, (), message=first)
    reasons = tuple(reason for message in messages if (reason := finish_reason_of(message)))
    metadata: Mapping[str, Any] = first.response_metadata
    if told is not None and told.metadata:
        metadata = {**metadata, **told.metadata}
        reasons = tuple(told.reasons[-choices:]) or reasons
    return Answer(read_usage(first, totals), metadata, reasons, any(map(was_cut, messages)), first)


def _is_cached_text(message: AIMessage) -> bool:
    """Tell whether a message comes from a cache that keeps the text alone, so that nothing was asked and used.

    LangChain gives each message that a model made an id, if the model does not (langchain-core 1.8.0,
    `_generate_with_cache`), and those from a cache none (`_convert_cached_generations`).
    """
    return message.id is None and not message.response_metadata and message.usage_metadata is None


async def estimate_usage(sent: Sent, answer: AIMessage) -> Usage | None:
    """Count a request and its answer in a worker thread; None if not all of it can be seen from here."""
    return await anyio.to_thread.run_sync(estimate_here, sent, answer, abandon_on_cancel=True)


def estimate_here(sent: Sent, answer: AIMessage) -> Usage | None:
    """Count them in this thread: it takes a millisecond for a few thousand words, and a second the first time."""
    if sent.refers or sent.answers > 1:
        return None
    written = "".join((str(answer.text), *(f"{call['name']}{json.dumps(call['args'])}" for call in answer.tool_calls)))
    try:
        tokenizer = Tokenizer(sent.model)
        read = tokenizer.count_messages(sent.messages, tools=sent.tools, text_format=sent.text_format)
        said = tokenizer.count_text(written)
    except TokenizerError as error:
        logger.warning("cannot estimate what an answer used: %s", error)
        return None
    return Usage(input_tokens=read.tokens, output_tokens=said.tokens)


def was_cut(message: AIMessage) -> bool:
    """Tell whether the stream of an answer ended too soon: OpenAI always says why an answer ended.

    Some servers do not. An answer that came at once is whole all the same: LangChain keeps its usage as it was sent, or
    the fields of a response.
    """
    metadata = message.response_metadata
    if metadata.get("model_provider") != "openai" or finish_reason_of(message):
        return False
    return not ("token_usage" in metadata or ("object" in metadata and metadata.get("status") is None))


def finish_reason_of(message: AIMessage) -> str | None:
    """Tell why an answer ended, in the words of Chat Completions where it is OpenAI's."""
    metadata = message.response_metadata
    reason = metadata.get("finish_reason") or metadata.get("stop_reason")
    if reason:
        told = _TOLD_AGAIN.fullmatch(str(reason))
        return told[1] if told else str(reason)
    match metadata.get("status"):
        case "completed":
            return "tool_calls" if message.tool_calls or message.invalid_tool_calls else "stop"
        case "incomplete":
            cause = (metadata.get("incomplete_details") or {}).get("reason")
            return "length" if cause in (None, "max_output_tokens") else str(cause)
        case _:
            return None
