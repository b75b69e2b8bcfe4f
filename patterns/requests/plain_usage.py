"""The usage that nearly all answers have, read at once: text alone, whole counts that agree, in a form that is known.

What is not just so is left to `read_usage`, which looks at each field. The library checks the form in one go, which
takes a tenth of the time.

Sources: openai 3.54.0, `types/responses/response_usage.py`, `types/completion_usage.py` (2026-11).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, convert, field

from runmeter.engine import Usage

_Count = Annotated[int, Meta(ge=0, le=10**15)]
_Some = Annotated[int, Meta(ge=1, le=10**15)]
_Zero = Annotated[int, Meta(ge=0, le=0)]
"""A count of what is priced otherwise than text, or is not among the tokens."""


class _Lifetimes(msgspec.Struct, gc=False):
    ttl_30m_tokens: _Count | None = None
    ttl_12h_tokens: _Count | None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    audio_tokens: _Zero | None = None
    image_tokens: _Zero | None = None
    cache_write_tokens_details: _Lifetimes | None = None
    cache_read: None = None
    cache_creation: None = None
    ephemeral_5m_input_tokens: None = None
    ephemeral_1h_input_tokens: None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Zero | None = None
    image_tokens: _Zero | None = None


class _ResponseUsage(msgspec.Struct, gc=False):
    read: _Some = field(name="input_tokens")
    written: _Some = field(name="output_tokens")
    total: _Count | None = field(name="total_tokens", default=None)
    before: _InputDetails | None = field(name="input_tokens_details", default=None)
    after: _OutputDetails | None = field(name="output_tokens_details", default=None)
    input_token_details: None = None
    output_token_details: None = None
    cache_read_input_tokens: None = None
    cache_creation_input_tokens: None = None
    prompt_cache_hit_tokens: None = None


class _CompletionUsage(msgspec.Struct, gc=False):
    read: _Some = field(name="prompt_tokens")
    written: _Some = field(name="completion_tokens")
    total: _Count | None = field(name="total_tokens", default=None)
    before: _InputDetails | None = field(name="prompt_tokens_details", default=None)
    after: _OutputDetails | None = field(name="completion_tokens_details", default=None)
    input_tokens: None = None
    output_tokens: None = None
    input_tokens_details: None = None
    output_tokens_details: None = None
    input_token_details: None = None
    output_token_details: None = None
    cache_read_input_tokens: None = None
    cache_creation_input_tokens: None = None
    prompt_cache_hit_tokens: None = None


class _Item(msgspec.Struct, gc=False):
    type: Literal["message", "reasoning", "function_call", "custom_tool_call"]


class _Images(msgspec.Struct, gc=False):
    input_tokens: _Zero | None = None
    output_tokens: _Zero | None = None


class _Searches(msgspec.Struct, gc=False):
    num_requests: _Zero | None = None


class _ToolUsage(msgspec.Struct, gc=False):
    image_gen: _Images | None = None
    web_search: _Searches | None = None


class PlainResponse(msgspec.Struct, gc=False):
    """The form of an answer of the Responses API whose usage is plain."""

    usage: _ResponseUsage
    output: list[_Item]
    tool_usage: _ToolUsage | None = None
    usage_metadata: None = None
    data: None = None


class PlainCompletion(msgspec.Struct, gc=False):
    """The form of an answer of Chat Completions, or of a stream's last chunk, whose usage is plain."""

    usage: _CompletionUsage
    choices: list[Any]
    tool_usage: _ToolUsage | None = None
    usage_metadata: None = None
    output: None = None
    content: None = None
    data: None = None
    additional_kwargs: None = None


_NO_INPUT, _NO_OUTPUT = _InputDetails(), _OutputDetails()


def read_plain(payload: Any) -> Usage | None:
    """Read the usage of an answer, or of a stream's last chunk, if it is plain; None if it has to be looked at."""
    form: type[PlainCompletion | PlainResponse] = PlainCompletion if _has(payload, "choices") else PlainResponse
    try:
        return usage_of(convert(payload, form, from_attributes=True))
    except (msgspec.ValidationError, TypeError):
        return None


def usage_of(answer: PlainResponse | PlainCompletion) -> Usage | None:
    """Read the usage of an answer in its plain form; None if its counts do not agree."""
    said = answer.usage
    read, written, total = said.read, said.written, said.total
    before, after = said.before or _NO_INPUT, said.after or _NO_OUTPUT
    cached, kept, reasoning = before.cached_tokens or 0, before.cache_write_tokens or 0, after.reasoning_tokens or 0
    long = 0
    if (lifetimes := before.cache_write_tokens_details) is not None:
        long = lifetimes.ttl_12h_tokens or 0
        kept = max(kept, long + (lifetimes.ttl_30m_tokens or 0))
    if cached + kept > read or reasoning > written or (total is not None and total != read + written):
        return None
    return Usage(read, written, cached, kept, long, reasoning)


def _has(payload: Any, name: str) -> bool:
    return name in payload if isinstance(payload, dict) else hasattr(payload, name)
