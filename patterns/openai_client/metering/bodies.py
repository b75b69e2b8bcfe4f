"""Bodies of answers that are read as they pass on to their caller, whichever way that stops to read them."""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from io import BufferedWriter
from typing import Any, cast

import httpx2

from .exchange import MeteredExchange, Within
from .streams import EVENT_ENDS, StreamReading, without_usage
from .trouble import trouble

_AT_ONCE = 32_768
"""Bytes of a stream that are kept to be read together: each piece by itself would cost more than all at once."""
_NO_EVENTS = b"{", b"<"
"""Beginnings of what comes in the place of a stream of events: an answer all at once, or a proxy's page."""
_TIMED = frozenset(("BoundAsyncStream", "BoundSyncStream"))
"""The HTTP libraries' own layers around each body (httpx2 2.16.2, httpx 0.28.1, `_client.py`)."""


class BodyReading:
    """The bytes of an answer on their way, and what is made of them.

    They are kept, and read many at once: at first whenever the answer may begin in them, then once they are many.
    Where one of the events is not to be seen by the caller, each piece is read as it comes.

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
        self._is_over = False
        self._is_seen = False
        """True once something has come that shows what kind of body it is."""
        self._hides_usage = False
        self.may_wait = True
        """What comes may just be kept: not until the answer begins, and never where an event is not to be seen."""
        self._sink = sink = _Sink(self._take)
        self._kept: BufferedWriter[Any] = BufferedWriter(cast("Any", sink), _AT_ONCE)
        self.keep: Callable[[bytes], object] = self._kept.write
        """Keeps bytes that are passed on, to be read later."""
        if self._status >= 400:
            return
        exchange.opened()
        if isinstance(exchange, MeteredExchange) and _is_stream(exchange, response):
            self._reading = exchange.streamed()
            self.may_wait = False
            self._hides_usage = exchange.sent.adds_usage
            if self._hides_usage:
                _say_changed(response, decoded=self._decoder is not None)

    def read_kept(self) -> None:
        """Read what was kept."""
        with suppress(ValueError):  # what garbage collection has closed has handed it on
            self._kept.flush()

    def take(self, data: bytes) -> bytes:
        """Take bytes that have come. Returns those to pass on: without the event that is not to be seen."""
        if self._hides_usage:
            return self._shown(self._decoded(data))
        self.keep(data)
        reading = self._reading
        if reading is not None and not self._is_over:
            if self._decoder is not None or not data.endswith(b"\n\n") or reading.beginning.search(data) is not None:
                self.read_kept()
            self.may_wait = reading.answered
        return data

    def finish(self) -> bytes:
        """Take the end of the body. Returns what had been kept back."""
        self.read_kept()
        shown = b""
        if self._decoder is not None:
            if self._hides_usage:
                shown = self._shown(_joined(self._decoder.flush()))
            else:
                self._take_decoded(self._decoder.flush)
        rest, self._rest = self._rest, b""
        body = b"".join((*self._parts, rest))
        self._parts.clear()
        if not self._is_over:
            self._finish(body)
        return shown + without_usage(rest) if self._hides_usage else b""

    def _take(self, kept: bytes) -> None:
        if self._decoder is None:
            self._read_events(kept)
        else:
            self._take_decoded(partial(self._decoder.decode, kept))

    def _take_decoded(self, decode: Callable[[], Any]) -> None:
        """Read what is encoded. Where that is broken the caller finds out itself, if it is read decoded."""
        try:
            data = _joined(decode())
        except Exception as error:
            how = partial(self._exchange.lost, error)
            self._close(partial(self._without_body, how))
        else:
            self._read_events(data)

    def _decoded(self, data: bytes) -> bytes:
        return data if self._decoder is None else _joined(self._decoder.decode(data))

    def _shown(self, data: bytes) -> bytes:
        """Read bytes. Returns the events that are whole by now, without that of the usage."""
        if self._reading is None:
            return self._read_events(data)
        if self._is_seen and not self._rest and data.endswith(b"\n\n") and b'"usage"' not in data:
            self._read(data)
            return data
        block = self._read_events(data)
        return without_usage(block) if block and self._reading is not None else block

    def _read_events(self, data: bytes) -> bytes:
        """Read the events that are whole by now. Returns them, or all of what is no stream of events."""
        if not self._is_seen and (start := data.lstrip()):
            self._is_seen = True
            if start.startswith(_NO_EVENTS) and isinstance(self._exchange, MeteredExchange):
                self._reading = self._exchange.reading = None  # all at once, though a stream was asked for
                data, self._rest = self._rest + data, b""
        if self._reading is None:
            self._parts.append(data)
            return data
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
        self._end(partial(self._without_body, self._exchange.left))

    def _without_body(self, how: Callable[[], None]) -> None:
        if self._status >= 400:
            self._exchange.refused(self._status, b"")
        else:
            how()

    async def prepare(self, error: BaseException | None = None) -> None:
        """Work out what a request used at most whose answer has not come to its end."""
        if not self._is_over:
            self._catch_up()
            await self._exchange.prepare(error)

    def prepare_here(self, error: BaseException | None = None) -> None:
        """Work it out in this thread."""
        if not self._is_over:
            self._catch_up()
            self._exchange.prepare_here(error)

    def _catch_up(self) -> None:
        """Read all that has come: it may have told the usage."""
        self.read_kept()
        try:
            if self._reading is not None:
                self._reading.end()
        except Exception as error:
            trouble.note(error)

    def _end(self, how: Callable[[], None]) -> None:
        if not self._is_over:
            self.read_kept()
            self._close(how)

    def _close(self, how: Callable[[], None]) -> None:
        self._is_over = True
        self._sink.take = None
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
            self._close(self._exchange.left)

    def _finish(self, rest: bytes) -> None:
        exchange = self._exchange
        if self._status >= 400:
            self._end(lambda: exchange.refused(self._status, rest))
        elif isinstance(exchange, Within):
            self._close(exchange.left)
        elif self._reading is None:
            self._end(lambda: exchange.answered(rest))
        else:
            if rest.strip():
                self._read(rest)
            self._end(exchange.stream_ended)


class _Sink:
    """The end of a buffer of bytes: as much of a raw file as a buffer needs, and none that garbage collection closes.

    Args:
        take: Takes the bytes.
    """

    closed = False

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self.take: Callable[[bytes], object] | None = take
        """None once they are of no more use."""

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, kept: memoryview) -> int:
        """Take all bytes."""
        if self.take is not None:
            self.take(bytes(kept))
        return len(kept)

    def flush(self) -> None:
        """Keep nothing back."""

    def close(self) -> None:
        """Stay open: what is dropped with its buffer may be read after that."""


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
        reading, stream = self._reading, _inner(self._stream).__aiter__()
        try:
            async for data in stream:
                if passed := reading.take(data):
                    yield passed
                if reading.may_wait:
                    break
            keep = reading.keep
            async for data in stream:
                keep(data)
                yield data
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
        reading, stream = self._reading, iter(_inner(self._stream))
        try:
            for data in stream:
                if passed := reading.take(data):
                    yield passed
                if reading.may_wait:
                    break
            keep = reading.keep
            for data in stream:
                keep(data)
                yield data
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


def _inner(stream: Any) -> Any:
    """Find what a layer of the library passes on that does no more than note when it is closed: one layer fewer."""
    return getattr(stream, "_stream", stream) if type(stream).__name__ in _TIMED else stream


def _is_stream(exchange: MeteredExchange, response: Any) -> bool:
    """Tell whether an answer may be streamed: it was asked for so, or its head says so. What comes will tell."""
    return exchange.sent.body.stream is True or "event-stream" in response.headers.get("content-type", "")


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
    if "content-encoding" not in response.headers:
        return None
    encoding = response.headers["content-encoding"]
    if not encoding or encoding.strip().lower() == "identity":
        return None
    # A response of its own, since one decoder cannot serve two readers; the library has no public way to make one.
    return _library_of(response).Response(200, headers={"content-encoding": encoding})._get_content_decoder()  # noqa: SLF001


def _joined(decoded: Any) -> bytes:
    return decoded if isinstance(decoded, bytes) else b"".join(decoded)
