"""What a LangChain model answered and used, in the engine's words."""

import json
import logging
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


def read_answer(result: LLMResult, totals: RunningTotals | None = None) -> Answer:
    """Read the outcome of one request. Of several choices each repeats the request's usage, so the first counts.

    Args:
        result: As LangChain reports it.
        totals: What the chunks said, of an answer that was streamed.
    """
    choices = result.generations[0] if result.generations else []
    messages = [
        choice.message
        for choice in choices
        if isinstance(choice, ChatGeneration) and isinstance(choice.message, AIMessage)
    ]
    if not messages:
        output = result.llm_output or {}
        return Answer(read_usage(output.get("token_usage") or {}), output, ())
    reasons = tuple(reason for message in messages if (reason := finish_reason_of(message)))
    return Answer(
        read_usage(messages[0], totals),
        messages[0].response_metadata,
        reasons,
        any(map(was_cut, messages)),
        messages[0],
    )


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
        return str(reason)
    match metadata.get("status"):
        case "completed":
            return "tool_calls" if message.tool_calls or message.invalid_tool_calls else "stop"
        case "incomplete":
            cause = (metadata.get("incomplete_details") or {}).get("reason")
            return "length" if cause in (None, "max_output_tokens") else str(cause)
        case _:
            return None
