"""Bodies of answers that are read as they pass on to their caller, whichever way that stops to read them."""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import httpx2

from .exchange import MeteredExchange, Within
from .streams import EVENT_ENDS, StreamReading, without_usage
from .trouble import trouble

_AT_ONCE = 200
"""How many pieces of a stream are kept to be read together: each by itself would cost more than all at once."""


class BodyReading:
    """The bytes of an answer on their way, and what is made of them.

    Args:
        exchange: What the answer is the end of.
        response: The HTTP response, of which only the head is known.
        is_decoded: Whether its encoding has been undone.
    """

    def __init__(self, exchange: MeteredExchange | Within, response: Any, *, is_decoded: bool = False) -> None:
        self._exchange = exchange
        self._status: int = response.status_code
        self._decoder = None if is_decoded else _decoder_of(response)
        self._reading: StreamReading | None = None
        self._rest = b""
        self._parts: list[bytes] = []
        """What has come of a body that is read as a whole."""
        self.kept: list[bytes] = []
        """Bytes to be read later."""
        self._is_over = False
        self._hides_usage = False
        if self._status >= 400:
            return
        exchange.opened()
        if isinstance(exchange, MeteredExchange) and "event-stream" in response.headers.get("content-type", ""):
            self._reading = exchange.streamed()
            self._hides_usage = exchange.sent.adds_usage
            if self._hides_usage:
                _say_changed(response, decoded=self._decoder is not None)

    @property
    def may_wait(self) -> bool:
        """Bytes may be kept to be read later, many at once.

        Not until the answer begins, and not where one of its events is not to be seen.
        """
        reading = self._reading
        return not self._hides_usage and reading is not None and (reading.pieces > 0 or self._is_over)

    def read_kept(self) -> None:
        """Read what was kept."""
        if self.kept:
            kept = b"".join(self.kept)
            self.kept.clear()
            self._take(self._decoded(kept))

    def take(self, data: bytes) -> bytes:
        """Read bytes that have come. Returns those to pass on, which are fewer where an event is not to be seen."""
        plain = self._decoded(data)
        if not self._hides_usage:
            self._take(plain)
            return data
        return self._shown(plain)

    def finish(self) -> bytes:
        """Take the end of the body. Returns what had been kept back."""
        self.read_kept()
        shown = b""
        if self._decoder is not None:
            tail = _joined(self._decoder.flush())
            if self._hides_usage:
                shown = self._shown(tail)
            else:
                self._take(tail)
        rest, self._rest = b"".join((*self._parts, self._rest)), b""
        self._parts.clear()
        if not self._is_over:
            self._finish(rest)
        return shown + without_usage(rest) if self._hides_usage else b""

    def _decoded(self, data: bytes) -> bytes:
        return data if self._decoder is None else _joined(self._decoder.decode(data))

    def _shown(self, data: bytes) -> bytes:
        """Read bytes. Returns the events that are whole by now, without that of the usage."""
        if not self._rest and data.endswith(b"\n\n") and b'"usage"' not in data:
            self._read(data)
            return data
        block = self._take(data)
        return without_usage(block) if block else b""

    def _take(self, data: bytes) -> bytes:
        """Read the events that are whole by now. Returns them."""
        if self._reading is None:
            self._parts.append(data)
            return b""
        block = self._rest + data
        end = _end_of_events(block)
        self._rest = block[end:]
        block = block[:end]
        if end:
            self._read(block)
        return block

    def lost(self, error: BaseException) -> None:
        """Take an error that ended the body."""
        self._end(lambda: self._exchange.lost(error))

    def left(self) -> None:
        """Take that the body is not read any more."""
        if self._status >= 400:
            self._end(lambda: self._exchange.refused(self._status, b""))
        else:
            self._end(self._exchange.left)

    async def prepare(self, error: BaseException | None = None) -> None:
        """Work out what a request used at most whose answer has not come to its end."""
        if not self._is_over:
            self.read_kept()
            await self._exchange.prepare(error)

    def prepare_here(self, error: BaseException | None = None) -> None:
        """Work it out in this thread."""
        if not self._is_over:
            self.read_kept()
            self._exchange.prepare_here(error)

    def _end(self, how: Callable[[], None]) -> None:
        if self._is_over:
            return
        self.read_kept()
        self._is_over = True
        try:
            how()
        except Exception as error:
            trouble.note(error)

    def _read(self, block: bytes) -> None:
        if self._is_over or self._reading is None:
            return
        try:
            self._reading.read(block)
        except Exception as error:
            trouble.note(error)
            self.left()

    def _finish(self, rest: bytes) -> None:
        exchange = self._exchange
        if self._status >= 400:
            self._end(lambda: exchange.refused(self._status, rest))
        elif isinstance(exchange, Within):
            self._is_over = True
        elif self._reading is None:
            self._end(lambda: exchange.answered(rest))
        else:
            if rest.strip():
                self._read(rest)
            self._end(exchange.stream_ended)


class AsyncBody(httpx2.AsyncByteStream):
    """The body of an answer of an async client, read as it passes."""

    def __init__(self, stream: Any, reading: BodyReading) -> None:
        self._stream = stream
        self._reading = reading

    @property
    def elapsed(self) -> Any:
        """The time that the answer took, as the HTTP library measures it."""
        return self._stream.elapsed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reading, stream = self._reading, self._stream.__aiter__()
        try:
            reading.read_kept()  # the client reads what follows the answer in a second turn (openai 3.54.0)
            async for data in stream:
                if passed := reading.take(data):
                    yield passed
                if reading.may_wait:
                    break
            async for data in stream:
                reading.kept.append(data)
                yield data
                if len(reading.kept) > _AT_ONCE:
                    reading.read_kept()
            if rest := reading.finish():
                yield rest
        except GeneratorExit:
            raise
        except BaseException as error:
            await reading.prepare(error)
            reading.lost(error)
            raise
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    async def aclose(self) -> None:
        """Close the body, read or not."""
        try:
            await self._stream.aclose()
        finally:
            await self._reading.prepare()
            self._reading.left()

    def __del__(self) -> None:
        with suppress(AttributeError):
            self._reading.left()


class SyncBody(httpx2.SyncByteStream):
    """The body of an answer of a sync client, read as it passes."""

    def __init__(self, stream: Any, reading: BodyReading) -> None:
        self._stream = stream
        self._reading = reading

    @property
    def elapsed(self) -> Any:
        """The time that the answer took, as the HTTP library measures it."""
        return self._stream.elapsed

    def __iter__(self) -> Iterator[bytes]:
        reading = self._reading
        try:
            reading.read_kept()
            stream = iter(self._stream)
            for data in stream:
                if passed := reading.take(data):
                    yield passed
                if reading.may_wait:
                    break
            for data in stream:
                reading.kept.append(data)
                yield data
                if len(reading.kept) > _AT_ONCE:
                    reading.read_kept()
            if rest := reading.finish():
                yield rest
        except GeneratorExit:
            raise
        except BaseException as error:
            reading.prepare_here(error)
            reading.lost(error)
            raise

    def close(self) -> None:
        """Close the body, read or not."""
        try:
            self._stream.close()
        finally:
            self._reading.prepare_here()
            self._reading.left()

    def __del__(self) -> None:
        with suppress(AttributeError):
            self._reading.left()


def read_in_passing(response: Any, body: Any, reading: BodyReading) -> None:
    """Have the body of a response read as it passes to its caller."""
    response.stream = _of_library(body, _library_of(response))(response.stream, reading)


def read_at_once(response: Any, reading: BodyReading) -> None:
    """Read the body of a response that has come already, and leave the caller what is to be seen of it."""
    content = response.content
    shown = reading.take(content) + reading.finish()
    if shown != content:
        # What a response has read already is given to its callers from here; the library has no public way to set it.
        response._content = shown  # noqa: SLF001
        vars(response).pop("_text", None)


@cache
def _of_library(body: Any, library: Any) -> Any:
    """Make a kind of body whose HTTP library knows it for one: each looks for classes of its own."""
    if library is httpx2:
        return body
    own = library.AsyncByteStream if issubclass(body, AsyncBody) else library.SyncByteStream
    return type(body.__name__, (body, own), {})


def _library_of(response: Any) -> Any:
    """Find the HTTP library that a response is of: the client takes those of httpx as well (openai 3.54.0)."""
    older = sys.modules.get("httpx")
    return older if older is not None and isinstance(response, older.Response) else httpx2


def _say_changed(response: Any, *, decoded: bool) -> None:
    """Take out of a response's head what is not true of the body that is passed on."""
    response.headers.pop("content-length", None)
    if decoded:
        response.headers.pop("content-encoding", None)


def _end_of_events(block: bytes) -> int:
    """Find the end of the last event that is whole: a blank line, with any kind of line break."""
    if block.endswith(b"\n\n"):
        return len(block)
    return max(at + len(end) if (at := block.rfind(end)) >= 0 else 0 for end in EVENT_ENDS)


def _decoder_of(response: Any) -> Any:
    """Make what undoes a body's encoding; None where it has none."""
    encoding = response.headers.get("content-encoding")
    if not encoding or encoding.strip().lower() == "identity":
        return None
    # A response of its own, since one decoder cannot serve two readers; the library has no public way to make one.
    return _library_of(response).Response(200, headers={"content-encoding": encoding})._get_content_decoder()  # noqa: SLF001


def _joined(decoded: Any) -> bytes:
    return decoded if isinstance(decoded, bytes) else b"".join(decoded)
