"""Streamed answers, read as their bytes pass on to the caller: events that say nothing new are not parsed.

Markers are looked for in the bytes. Within a text of JSON a quotation mark is always escaped, so that a marker that has
one is never a part of what a model says.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from runmeter.engine import ModelCall, Provenance, Usage

from ...requests.usage import read_usage
from .answers import failure_in, record_response

_SAYS_SOMETHING: Mapping[str, Any] = {"choices": [{"delta": {"content": "…"}}]}
"""Stands for the chunks with text or calls: an answer that has any took tokens to write."""
_ERRORS = b'"type":"error"', b'{"error":{'
"""Marks of an error: told in the event itself, as documented, or under `error`, as real servers send it."""
EVENT_ENDS = b"\r\n\r\n", b"\r\r", b"\n\n"
"""Blank lines, of each kind of line break that a stream of events may have (WHATWG HTML, 2026)."""
_HAS_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_RESPONSE_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))


class StreamReading(ABC):
    """A streamed answer, as far as it has come.

    Args:
        call: Told when it begins, and how it ends.
    """

    def __init__(self, call: ModelCall) -> None:
        self.call = call
        self.pieces = 0
        """Parts of the answer with something in them: of a token each, or more."""
        self.answered = False
        """True once a part of the answer has come: of its text, a refusal or a call, and not of reasoning."""
        self.complete = False
        """True once the answer is all there, whatever comes after it."""
        self.failed = False
        """True once the stream has said that the answer ends in an error."""
        self._begun = False

    def read(self, block: bytes) -> None:
        """Read some whole events."""
        if b"\r" in block:
            block = _with_plain_breaks(block)
        if not self._begun:
            self._begun = self.begin(block)
        if b'" :' in block:
            block = block.replace(b'" :', b'":')
        if b'": ' in block:
            block = block.replace(b'": ', b'":')
        before = self.answered
        self.scan(block)
        if self.answered and not before:
            self.call.first_chunk()

    @abstractmethod
    def begin(self, block: bytes) -> bool:
        """Read what the first events say of the answer. Returns False if they are not of it, as a keep-alive is."""

    @abstractmethod
    def scan(self, block: bytes) -> None:
        """Look for what the events say that is new."""

    def end(self) -> None:
        """Record what is known at the end, if the answer did not say it."""
        call = self.call
        if call.usage is None and not self.failed and self.pieces:
            call.record(Usage(output_tokens=self.pieces), Provenance.PARTIAL)
        if not self.complete:
            call.finish_reasons = ("error",)

    def _fail(self, error: Any) -> None:
        self.failed = True
        kind, message = failure_in(error) if isinstance(error, dict) else ("error", str(error))
        self.call.fail(kind, message or "the stream ended in an error")


class ResponseReading(StreamReading):
    """A streamed answer of the Responses API."""

    def begin(self, block: bytes) -> bool:
        """Take the id from the first event that has one."""
        begun = False
        for event in events_in(block):
            response = event.get("response")
            if isinstance(response, dict):
                begun = True
                self.call.response_id, self.call.response_model = response.get("id"), response.get("model")
        return begun

    def scan(self, block: bytes) -> None:
        """Count deltas, and read the last event, which has the usage."""
        for event in events_with(b'"response":{', block):
            if event.get("type") in _RESPONSE_ENDS and isinstance(event.get("response"), dict):
                self.complete = True
                record_response(self.call, event["response"])
        for marker in _ERRORS:
            for event in events_with(marker, block):
                if event.get("type") == "error" or event.get("error"):
                    self._fail(event.get("error") or event)
        # A summary of reasoning is not what is billed.
        deltas = block.count(b'.delta"') - block.count(b'reasoning_summary_text.delta"')
        if deltas:
            said = max(0, deltas - block.count(b'"delta":""'))
            self.pieces += said
            self.answered = self.answered or said > block.count(b'reasoning_text.delta"')
        self.answered = self.answered or b'"type":"function_call"' in block or b'"type":"custom_tool_call"' in block


class CompletionReading(StreamReading):
    """A streamed answer of Chat Completions."""

    def __init__(self, call: ModelCall) -> None:
        super().__init__(call)
        self._reasons: dict[int, str] = {}
        self._usage: Mapping[str, Any] | None = None
        """The last chunk that said what was used: some servers say so in each."""
        self._is_whole = False
        """True once a chunk had the usage alone, as one at the end has."""

    def begin(self, block: bytes) -> bool:
        """Take id and model from the first chunk that says something."""
        begun = False
        for chunk in events_in(block):
            self._describe(chunk)
            begun = begun or bool(chunk.get("choices"))
        return begun

    def scan(self, block: bytes) -> None:
        """Count deltas, and read the chunks with a reason for the end or with usage."""
        said = block.count(b'"content":"') - block.count(b'"content":""')
        said += block.count(b'"arguments":"') - block.count(b'"arguments":""')
        said = max(0, said + block.count(b'"refusal":"'))
        self.pieces += said + block.count(b'"reasoning_content":"')
        self.answered = self.answered or said > 0
        for marker in (b'"finish_reason":"', b'"usage":{', b'{"error":'):
            for chunk in events_with(marker, block):
                self._read(chunk)
        if b"data: [DONE]" in block:
            self.complete = self.complete or not self.failed

    def end(self) -> None:
        """Record the usage that was said last: of a stream that was cut, which said so in each chunk, it is a part."""
        if self._usage is not None:
            reading = read_usage(self._usage)
            if self.pieces and reading.usage is not None and not _is_used(self._usage, every=True):
                reading = read_usage([_SAYS_SOMETHING, self._usage])
            if self._reasons or self._is_whole:
                reading.record(self.call)
            elif reading.usage is not None:
                self.call.record(reading.usage, Provenance.PARTIAL)
        super().end()

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
            self._describe(chunk)
            self._is_whole = self._is_whole or not chunk.get("choices")
            if self._usage is None or _is_used(chunk):
                self._usage = chunk

    def _describe(self, chunk: Mapping[str, Any]) -> None:
        call = self.call
        call.response_id = chunk.get("id") or call.response_id
        call.response_model = chunk.get("model") or call.response_model
        call.service_tier = chunk.get("service_tier") or call.service_tier


def _is_used(chunk: Mapping[str, Any], *, every: bool = False) -> bool:
    """Tell whether a chunk says of some tokens, or of every kind, that they were used."""
    usage = chunk["usage"]
    said = (usage.get("prompt_tokens"), usage.get("completion_tokens")) if isinstance(usage, dict) else ()
    return all(said) if every else any(said)


def events_in(block: bytes) -> Iterator[dict[str, Any]]:
    """Parse the events of a block that are objects of JSON."""
    for event in block.split(b"\n\n"):
        lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        data = b"\n".join(lines)
        if data.startswith(b"{"):
            try:
                yield msgspec.json.decode(data)
            except (ValueError, RecursionError):
                continue  # what is not JSON the client will complain of


def events_with(marker: bytes, block: bytes) -> Iterator[dict[str, Any]]:
    """Parse the events of a block in which a marker is, and no others."""
    at = block.find(marker)
    while at >= 0:
        end = block.find(b"\n\n", at)
        end = len(block) if end < 0 else end
        yield from events_in(block[block.rfind(b"\n\n", 0, at) + 1 : end])
        at = block.find(marker, end)


def without_usage(block: bytes) -> bytes:
    """Take the chunk out of a block that has the usage alone, and that its caller did not ask for."""
    if _HAS_USAGE.search(block) is None:
        return block
    end = next((end for end in EVENT_ENDS if end in block), b"\n\n")
    return end.join(event for event in block.split(end) if not _has_usage_alone(event))


def _has_usage_alone(event: bytes) -> bool:
    chunks = events_in(_with_plain_breaks(event))
    return any(chunk.get("usage") is not None and not chunk.get("choices") for chunk in chunks)


def _with_plain_breaks(block: bytes) -> bytes:
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
