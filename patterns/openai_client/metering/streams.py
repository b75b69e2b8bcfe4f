"""Streamed answers, read as their bytes pass on to the caller: many events at once, of which few need to be parsed.

Markers are looked for in the bytes. Within a text of JSON a quotation mark is always escaped, so that a marker that has
one is never a part of what a model says.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec

from runmeter.engine import ModelCall, Provenance, Usage

from ...requests.usage import read_usage
from .answers import failure_in, record_completed, record_response

_SAYS_SOMETHING: Mapping[str, Any] = {"choices": [{"delta": {"content": "…"}}]}
"""Stands for the chunks with text or calls: an answer that has any took tokens to write."""
_AT_ONCE = 65_536
"""Bytes of events that are kept to be read together."""
_ERRORS = b'"type":"error"', b'{"error":{'
"""Marks of an error: told in the event itself, as documented, or under `error`, as real servers send it."""
EVENT_ENDS = b"\n\n", b"\n\r\n", b"\r\r"
"""Ends of blank lines, of each kind of line break that a stream of events may have (WHATWG HTML, 2026): of several
kinds where one server passes on what another has sent."""
_EVENTS = re.compile(b"|".join(b"(?<=%s)" % end for end in EVENT_ENDS)).split
_DONE = re.compile(rb"^data:[ \t]*\[DONE\]", re.MULTILINE).search
"""Finds the end of a stream of Chat Completions, which a model may write, too, but not at the start of a line."""
_DATA = re.compile(rb"^data:[ \t]*(.*)", re.MULTILINE).findall
_HAS_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_DELTAS = re.compile(rb'"type":"(?!response\.reasoning_summary)[a-z_.]+\.delta"').findall
_TEXTS = re.compile(rb'"(?:content|arguments|refusal|reasoning_content)":"[^"]').findall
_RESPONSE_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))


class StreamReading(ABC):
    """A streamed answer, as far as it has come.

    Args:
        call: Told when it begins, and how it ends.
    """

    beginning: ClassVar[re.Pattern[bytes]]
    """What is in the events with which an answer begins, and perhaps in some before."""

    def __init__(self, call: ModelCall) -> None:
        self.call = call
        self.answered = False
        """True once a part of the answer has come: of its text, a refusal or a call, and not of reasoning."""
        self.complete = False
        """True once the answer is all there, whatever comes after it. Known at the end."""
        self.failed = False
        """True once the stream has said that the answer ends in an error. Known at the end."""
        self.is_done = False
        """True once the server has said that nothing of the answer comes any more."""
        self._unread: list[bytes] = []
        self._size = 0
        self._uncounted = b""
        self._pieces = 0
        self._is_over = False

    def read(self, block: bytes) -> None:
        """Take some whole events, to be read with others. Only whether the answer begins is looked for at once."""
        self._unread.append(block)
        self._size += len(block)
        if not self.answered and self.beginning.search(block) and self.begins(block):
            self.answered = True
            self.call.first_chunk()
        if self._size > _AT_ONCE:
            self.catch_up()

    def end(self) -> None:
        """Record what is known at the end, if the answer did not say it."""
        if self._is_over:
            return
        self._is_over = True
        self.catch_up()
        call = self.call
        if call.usage is None and not self.failed and (pieces := self.counted()):
            call.record(Usage(output_tokens=pieces), Provenance.PARTIAL)
        if not self.complete:
            call.finish_reasons = ("error",)

    def counted(self) -> int:
        """Count the parts of the answer with something in them, of a token each or more, where usage is not told."""
        block, self._uncounted = self._uncounted, b""
        if block:
            self._pieces += self.count(_in_one_form(block))
        return self._pieces

    def catch_up(self) -> None:
        """Read the events that have been kept."""
        unread, self._unread, self._size = self._unread, [], 0
        if not unread or self.is_done:
            return
        block = _with_plain_breaks(b"".join(unread))
        if (done := _DONE(block)) is not None:
            self.is_done, block = True, block[: done.start()]
        if not self.scan(block) and (in_one_form := _in_one_form(block)) is not block:
            block = in_one_form
            self.scan(block)
        if self.call.response_id is None or self.call.response_model is None:
            any(map(self.describe, events_in(block)))
        self.counted()  # of the last block that may not be needed
        self._uncounted = block

    @abstractmethod
    def begins(self, block: bytes) -> bool:
        """Tell whether some events have a part of the answer: of its text, a refusal or a call."""

    @abstractmethod
    def scan(self, block: bytes) -> bool:
        """Look for what events say of the end. Returns False if that is not all there is to say."""

    @abstractmethod
    def describe(self, event: Mapping[str, Any]) -> bool:
        """Take what is not known of the answer from an event. Returns False of one that is not of it: a keep-alive."""

    @abstractmethod
    def count(self, block: bytes) -> int:
        """Count the parts of the answer that events have."""

    def _fail(self, error: Any) -> None:
        self.failed = True
        kind, message = failure_in(error) if isinstance(error, dict) else ("error", str(error))
        self.call.fail(kind, message or "the stream ended in an error")


class ResponseReading(StreamReading):
    """A streamed answer of the Responses API."""

    beginning = re.compile(rb'\.delta"|"(?:function|custom_tool)_call"')

    def begins(self, block: bytes) -> bool:
        """Look for a delta, or the name of a call."""
        block = _in_one_form(block)
        if b'"type":"function_call"' in block or b'"type":"custom_tool_call"' in block:
            return True
        return self.count(block) > block.count(b'"type":"response.reasoning_text.delta"')

    def scan(self, block: bytes) -> bool:
        """Read the last event, which has the usage."""
        data = _last_with(b'"response":{', block)
        if record_completed(self.call, data):
            self.complete = True
            return True
        event = _parsed(data)
        kind, response = event.get("type"), event.get("response")
        if kind in _RESPONSE_ENDS and isinstance(response, dict):
            self.complete = True
            record_response(self.call, response)
            if kind == "response.completed":
                return True
        for marker in _ERRORS:
            for event in events_with(marker, block):
                if event.get("type") == "error" or event.get("error"):
                    self._fail(event.get("error") or event)
        return False

    def describe(self, event: Mapping[str, Any]) -> bool:
        """Take the id from the first event that has one."""
        response = event.get("response")
        if not isinstance(response, dict):
            return False
        self.call.response_id = self.call.response_id or response.get("id")
        self.call.response_model = self.call.response_model or response.get("model")
        return True

    def count(self, block: bytes) -> int:
        """Count deltas, but those of a summary of reasoning, which is not what is billed."""
        return max(0, len(_DELTAS(block)) - block.count(b'"delta":""'))


class CompletionReading(StreamReading):
    """A streamed answer of Chat Completions."""

    beginning = re.compile(rb'"(?:content|arguments|refusal)"\s*:\s*"[^"]')

    def __init__(self, call: ModelCall) -> None:
        super().__init__(call)
        self._reasons: dict[int, str] = {}
        self._usage: Mapping[str, Any] | None = None
        """The last chunk that said what was used: some servers say so in each."""
        self._is_whole = False
        """True once a chunk had the usage alone, as one at the end has."""

    def begins(self, block: bytes) -> bool:
        """Take any text that is not empty for the beginning, which is what marks it."""
        return True

    def scan(self, block: bytes) -> bool:
        """Read the chunks with a reason for the end or with usage."""
        for marker in (b'"finish_reason":"', b'"usage":{', b'{"error":'):
            for chunk in events_with(marker, block):
                self._read(chunk)
        if self.is_done and not self.complete:
            self.complete = not self.failed
        return self.complete and self._is_whole

    def describe(self, event: Mapping[str, Any]) -> bool:
        """Take id and model from the first chunk that says something."""
        call = self.call
        call.response_id = call.response_id or event.get("id")
        call.response_model = call.response_model or event.get("model")
        call.service_tier = call.service_tier or event.get("service_tier")
        return bool(event.get("choices"))

    def count(self, block: bytes) -> int:
        """Count texts that are not empty."""
        return len(_TEXTS(block))

    def end(self) -> None:
        """Record the usage that was said last: of a stream that was cut, which said so in each chunk, it is a part."""
        self.catch_up()
        if self._usage is not None and not self._is_over:
            self._record(self._usage)
        super().end()

    def _record(self, usage: Mapping[str, Any]) -> None:
        reading = read_usage(usage)
        if reading.usage is not None and not _is_used(usage, every=True) and self.counted():
            reading = read_usage([_SAYS_SOMETHING, usage])
        if self._reasons or self._is_whole:
            reading.record(self.call)
        elif reading.usage is not None:
            self.call.record(reading.usage, Provenance.PARTIAL)

    def _read(self, chunk: Mapping[str, Any]) -> None:
        if chunk.get("error"):
            self._fail(chunk["error"])
            return
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and isinstance(reason := choice.get("finish_reason"), str):
                index = choice.get("index")
                self._reasons[index if isinstance(index, int) else 0] = reason
                self.complete = True
                self.call.finish_reasons = tuple(self._reasons[index] for index in sorted(self._reasons))
        if chunk.get("usage") is not None:
            call = self.call
            call.response_id = chunk.get("id") or call.response_id
            call.response_model = chunk.get("model") or call.response_model
            call.service_tier = chunk.get("service_tier") or call.service_tier
            self._is_whole = self._is_whole or not chunk.get("choices")
            if self._usage is None or _is_used(chunk):
                self._usage = chunk


def _is_used(chunk: Mapping[str, Any], *, every: bool = False) -> bool:
    """Tell whether a chunk says of some tokens, or of every kind, that they were used."""
    usage = chunk["usage"]
    said = (usage.get("prompt_tokens"), usage.get("completion_tokens")) if isinstance(usage, dict) else ()
    return all(said) if every else any(said)


def events_in(block: bytes) -> Iterator[dict[str, Any]]:
    """Parse the events of a block that are objects of JSON."""
    return filter(None, map(_parsed, map(_data_in, block.split(b"\n\n"))))


def events_with(marker: bytes, block: bytes) -> Iterator[dict[str, Any]]:
    """Parse the events of a block in which a marker is, and no others."""
    at = block.find(marker)
    while at >= 0:
        end = block.find(b"\n\n", at)
        end = len(block) if end < 0 else end
        event = _parsed(_data_in(block[block.rfind(b"\n\n", 0, at) + 1 : end]))
        if event:
            yield event
        at = block.find(marker, end)


def _last_with(marker: bytes, block: bytes) -> bytes:
    """Find the data of the last event in which a marker is; nothing if there is none."""
    at = block.rfind(marker)
    if at < 0:
        return b""
    end = block.find(b"\n\n", at)
    return _data_in(block[block.rfind(b"\n\n", 0, at) + 1 : end if end >= 0 else len(block)])


def _data_in(event: bytes) -> bytes:
    return b"\n".join(_DATA(event))


def _parsed(data: bytes) -> dict[str, Any]:
    """Parse the data of an event that is an object of JSON; another is taken for one that says nothing."""
    if data.startswith(b"{"):
        try:
            said: dict[str, Any] = msgspec.json.decode(data)
            return said
        except (ValueError, RecursionError):
            pass  # what is not JSON the client will complain of
    return {}


def without_usage(block: bytes) -> bytes:
    """Take the chunk out of a block that has the usage alone, and that its caller did not ask for."""
    if _HAS_USAGE.search(block) is None:
        return block
    return b"".join(event for event in _EVENTS(block) if not _has_usage_alone(event))


def _has_usage_alone(event: bytes) -> bool:
    chunks = events_in(_with_plain_breaks(event))
    return any(chunk.get("usage") is not None and not chunk.get("choices") for chunk in chunks)


def _with_plain_breaks(block: bytes) -> bytes:
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block


def _in_one_form(block: bytes) -> bytes:
    """Write JSON as most servers do, with no space around colons. Returns the block itself if it is so."""
    for spaced in (b'" :', b'": '):
        if spaced in block:
            block = block.replace(spaced, b'":')
    return block
