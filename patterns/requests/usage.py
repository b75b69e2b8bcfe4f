"""What a request used, as its server says: the one place that knows the shapes of usage.

Sources: openai 3.54.0, `types/responses/response_usage.py`, `types/completion_usage.py`; langchain-core 1.7.2,
`messages/ai.py` (`UsageMetadata`); langchain-openai 1.7.3, `_create_usage_metadata` (2026-11).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import msgspec

from runmeter.engine import ModelCall, Provenance, Usage, contradiction_in

from .plain_usage import read_plain

MAX_COUNT = 10**15
"""Tokens: what is more is no count."""
_INPUT_NAMES = ("input_tokens", "prompt_tokens")
_OUTPUT_NAMES = ("output_tokens", "completion_tokens")
_INPUT_DETAILS = ("input_tokens_details", "prompt_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("output_tokens_details", "completion_tokens_details", "output_token_details")
_TIER = re.compile("^(priority|flex)_")
"""langchain-openai puts the tier that served before the kind, unless it is the default."""
_TEXTS = frozenset(("message", "text", "output_text", "refusal"))
"""Kinds of items and parts that say something only if there is a text in them. All others do, whatever they are."""
_ANSWERS = ("refusal", "reasoning_content", "reasoning", "audio", "tool_calls", "function_call")
"""Fields of a message that are an answer, beside its text."""


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What an answer says that its request used. It passes on the server's own numbers, and repairs none."""

    usage: Usage | None = None
    """None if nothing was reported: no usage, not both of its totals, or none of what is to be seen in the answer."""
    contradiction: str | None = None
    """Which fields cannot all be true."""
    total_tokens: int | None = None
    """The server's total, where that is not input and output together."""
    is_whole: bool = True
    """Whether it is all that was used: not if another model, which is not named, was at work, too."""

    def record(self, call: ModelCall, **more: Any) -> None:
        """Say on a call what was reported; if nothing was, only which fields contradict that.

        Args:
            call: The request.
            more: What else `ModelCall.record` takes.
        """
        if self.contradiction is not None:
            call.contradict(self.contradiction, self.total_tokens)
        if self.usage is not None:
            call.record(self.usage, Provenance.REPORTED if self.is_whole else Provenance.PARTIAL, **more)


def read_usage(payload: Any, totals: "RunningTotals | None" = None) -> Reading:
    """Read what an answer says that its request used.

    Args:
        payload: An answer of the Responses API, of Chat Completions or of the embeddings API, as an object or a
            mapping; a LangChain message; the chunks of a streamed answer, of Chat Completions or LangChain; or a usage
            alone.
        totals: What the chunks said that a LangChain message was merged from.
    """
    if isinstance(payload, list | tuple):
        return _of_chunks(payload)
    if totals is None and (plain := read_plain(payload)) is not None:
        return Reading(plain)
    if _is_cached(payload):
        return Reading(Usage())
    usage = _usage_in(payload)
    if usage is None:
        return Reading()
    return _Reader(usage if totals is None else totals.correct(usage)).read(payload)


def count_of(part: Any, name: str) -> int | None:
    """A number that a server is to send; None if it sent something else in its place, or nothing.

    A whole float and a text of digits are numbers, too: openai's client takes them for such.
    """
    return _count(_get(part, name))


class RunningTotals:
    """Tells whether a stream's chunks each say all that was used so far, or each what is new.

    LangChain adds up what chunks say. That is right for models that report deltas, of which one alone has the input. An
    input that is said again is no delta.
    """

    __slots__ = ("_input", "_last", "_repeated", "_sum")

    def __init__(self) -> None:
        self._input = 0
        self._repeated = False
        self._last: Any = None
        self._sum = 0, 0

    def take(self, usage: Any) -> None:
        """Take what one chunk says; nothing, if it says none."""
        read, written = _total(usage, _INPUT_NAMES) or 0, _total(usage, _OUTPUT_NAMES) or 0
        if not (read or written):
            return
        self._repeated = self._repeated or 0 < self._input <= read
        self._input = max(self._input, read)
        self._sum = self._sum[0] + read, self._sum[1] + written
        self._last = usage

    def correct(self, merged: Any) -> Any:
        """The usage of an answer whose chunks were merged: the last total, if it is but the sum of several."""
        added_up = (_total(merged, _INPUT_NAMES) or 0, _total(merged, _OUTPUT_NAMES) or 0) == self._sum
        return self._last if self._repeated and added_up else merged


def _of_chunks(chunks: Sequence[Any]) -> Reading:
    """What the chunks of a streamed answer say: the API's the last that says anything, LangChain's together."""
    if any(_get(chunk, "usage_metadata") is not None for chunk in chunks):
        totals = RunningTotals()
        for chunk in chunks:
            totals.take(_get(chunk, "usage_metadata"))
        return read_usage(reduce(add, chunks), totals)
    usage: Any = None
    for chunk in chunks:
        told = _usage_in(chunk)
        if told is not None and not (_total(told, _INPUT_NAMES) is None and _total(told, _OUTPUT_NAMES) is None):
            usage = told
    return Reading() if usage is None else _Reader(usage).read(chunks)


@dataclass(slots=True)
class _Reader:
    """Reads one usage, and keeps what it cannot believe."""

    usage: Any
    wrong: list[str] = field(default_factory=list)

    def read(self, payload: Any) -> Reading:
        read, written = self._take(self.usage, *_INPUT_NAMES), self._take(self.usage, *_OUTPUT_NAMES)
        total = self._take(self.usage, "total_tokens")
        if _is_embedding(payload):
            read, written = total if read is None else read, 0
        if read is None or written is None:
            return Reading(contradiction="; ".join(self.wrong) or None)
        if _answers(payload) and not (read and (written or _is_embedding(payload))):
            nothing = " and ".join(name for name, n in (("input_tokens", read), ("output_tokens", written)) if not n)
            return Reading(contradiction=f"{nothing} 0 of an answer that says something")
        usage = self._parts(read, written, payload)
        total = None if total == usage.total_tokens else total
        if found := contradiction_in(usage, total):
            self.wrong.append(found)
        return Reading(usage, "; ".join(self.wrong) or None, total, is_whole=not _has_images(payload))

    def _parts(self, read: int, written: int, payload: Any) -> Usage:
        before, after = _details(self.usage, _INPUT_DETAILS), _details(self.usage, _OUTPUT_DETAILS)
        lifetimes = _get(before, "cache_write_tokens_details")
        for_30m, for_12h = self._part(lifetimes, "ttl_30m_tokens"), self._part(lifetimes, "ttl_12h_tokens")
        for_5m, for_1h = (self._part(before, f"ephemeral_{each}_input_tokens") for each in ("5m", "1h"))
        return Usage(
            input_tokens=read,
            output_tokens=written,
            # Of what is said twice the larger counts: other servers name caches beside the totals, as Anthropic and
            # DeepSeek do, and some say of writes how long for as well, or only that.
            cache_read_tokens=max(
                self._part(before, "cached_tokens", "cache_read"),
                self._part(self.usage, "cache_read_input_tokens"),
                self._part(self.usage, "prompt_cache_hit_tokens"),
            ),
            cache_write_tokens=max(
                self._part(before, "cache_write_tokens", "cache_creation"),
                self._part(self.usage, "cache_creation_input_tokens"),
                for_30m + for_12h,
                for_5m + for_1h,
            ),
            cache_write_12h_tokens=for_12h,
            reasoning_tokens=self._part(after, "reasoning_tokens", "reasoning"),
            audio_input_tokens=self._part(before, "audio_tokens", "audio"),
            audio_output_tokens=self._part(after, "audio_tokens", "audio"),
            image_input_tokens=self._part(before, "image_tokens", "image"),
            image_output_tokens=self._part(after, "image_tokens", "image"),
            web_searches=_web_searches(payload),
            file_searches=sum(_get(item, "type") == "file_search_call" for item in _items(payload)),
        )

    def _part(self, part: Any, *names: str) -> int:
        return self._take(part, *names) or 0

    def _take(self, part: Any, *names: str) -> int | None:
        """The first of several fields that is there, as a number. What is there and is none is kept in mind."""
        for name in names:
            value = _get(part, name)
            if value is None:
                continue
            count = _count(value)
            if count is None:
                # A client may have made 7 of 7.0: both are told in the same words.
                told = int(value) if isinstance(value, float) and value.is_integer() else value
                self.wrong.append(f"{name} is {str(told)[:20]!r}")
            return count
        return None


def _count(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) < 20 else None
    elif isinstance(value, float):
        value = int(value) if value.is_integer() else None
    return value if isinstance(value, int) and 0 <= value <= MAX_COUNT else None


def _total(usage: Any, names: Iterable[str]) -> int | None:
    return next((count for name in names if (count := count_of(usage, name)) is not None), None)


def _get(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, Mapping) else getattr(part, name, None)


def _usage_in(payload: Any) -> Any:
    """The usage of an answer. Of a LangChain message what the server said, if it is kept: there null is not 0."""
    if (usage := _get(payload, "usage_metadata")) is not None:
        raw = _get(_get(payload, "response_metadata"), "token_usage")
        return raw if isinstance(raw, Mapping) and not raw.keys().isdisjoint(_OUTPUT_NAMES) else usage
    usage = _get(payload, "usage")
    if usage is not None:
        return usage
    is_usage = any(_get(payload, name) is not None for name in (*_INPUT_NAMES, *_OUTPUT_NAMES))
    return payload if is_usage else None


def _details(usage: Any, names: Iterable[str]) -> Any:
    """The kinds of tokens within a total. LangChain's have the tier in their names."""
    details = next((part for name in names if (part := _get(usage, name)) is not None), None)
    if isinstance(details, Mapping):
        return {_TIER.sub("", name): count for name, count in details.items() if isinstance(name, str)}
    return details


def _is_cached(payload: Any) -> bool:
    """Whether a message comes from LangChain's own cache, which marks it so."""
    return bool(_get(_get(payload, "usage_metadata"), "total_cost") == 0)


def _is_embedding(payload: Any) -> bool:
    """Whether nothing is written."""
    return "data" in payload if isinstance(payload, Mapping) else hasattr(payload, "data")


def _items(payload: Any) -> Sequence[Any]:
    """What an answer consists of: items of the Responses API, or a LangChain message's blocks."""
    output = _get(payload, "output")
    if not isinstance(output, list):
        content = _get(payload, "content")
        beside = _get(_get(payload, "additional_kwargs"), "tool_outputs")
        output = [*(content if isinstance(content, list) else ()), *(beside if isinstance(beside, list) else ())]
    return output


def _web_searches(payload: Any) -> int:
    """The billable ones, as the API counted them; where it did not, the searches it made."""
    counted = _get(_get(payload, "tool_usage"), "web_search")
    if counted is not None:
        return count_of(counted, "num_requests") or 0
    calls = (item for item in _items(payload) if _get(item, "type") == "web_search_call")
    # LangChain may leave out what a call did: then it is taken for a search.
    return sum((_get(_get(call, "action"), "type") or _unsaid(call)) == "search" for call in calls)


def _unsaid(call: Any) -> str | None:
    return "search" if isinstance(call, Mapping) and call.get("action") is None else None


def _has_images(payload: Any) -> bool:
    """Whether another model generated images, which is not named: their tokens are in no total."""
    images = _get(_get(payload, "tool_usage"), "image_gen")
    return bool(count_of(images, "input_tokens") or count_of(images, "output_tokens"))


def _answers(payload: Any) -> bool:
    """Whether an answer says something, that can be seen: then it took tokens to read and to write."""
    if isinstance(payload, list | tuple):
        return any(_answers(chunk) for chunk in payload)
    if _is_embedding(payload):
        return bool(_get(payload, "data"))
    choices = _get(payload, "choices")
    if choices and isinstance(choices, list):
        messages = (_get(choice, "message") or _get(choice, "delta") for choice in choices)
        return any(_says(message) for message in messages)
    return _says(payload) or any(_says(item) or _is_answer(item) for item in _items(payload))


def _is_answer(item: Any) -> bool:
    kind = _get(item, "type")
    return isinstance(kind, str) and kind not in _TEXTS


def _says(message: Any) -> bool:
    """Whether a message, or a part of one, has text, calls or another answer."""
    if isinstance(message, str):
        return bool(message)
    content = _get(message, "content")
    if isinstance(content, list):
        content = any(_says(part) for part in content)
    text, beside = _get(message, "text"), _get(message, "additional_kwargs")
    return bool(
        content
        or (text if isinstance(text, str) else None)
        or any(_get(message, name) or _get(beside, name) for name in _ANSWERS)
    )
