"""Reading a streamed answer to its end, whatever its end is, and saying what is known of its usage then."""

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import anyio
import httpx2
from openai import APIConnectionError, APIError, APITimeoutError

from runmeter.engine import ModelCall, Provenance, Usage

from ...errors import ResponseFailed
from .streamed_items import CALLS, StreamedItems, as_dict, says_something
from .usage import completed, record_response

if TYPE_CHECKING:
    from openai import AsyncStream
    from openai.types.responses import Response

Deliver: TypeAlias = bool | Literal["final"]
"""Which pieces of an answer's text are handed out: all but those of messages that the model marks as commentary, none,
or only those of messages that it marks as its final answer, so that no function call will follow. Source of the marks:
openai 3.54.0, `types/responses/response_output_message.py`, `phase`."""

_SAYS_NOTHING_YET = frozenset(("response.created", "response.queued", "response.in_progress"))
_FINAL = frozenset(("response.completed", "response.incomplete", "response.failed"))
_TEXT_DELTAS = frozenset(("response.output_text.delta", "response.refusal.delta"))
_CALL_DELTAS = frozenset(
    (
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.mcp_call_arguments.delta",
        "response.code_interpreter_call_code.delta",
    )
)
_REASONING_DELTA = "response.reasoning_text.delta"
"""What the model reasons. Not the summary of it, which is not what it is billed for."""
_SAID = CALLS | {"message"}
_ITEMS = frozenset(("response.output_item.added", "response.output_item.done"))
_CLOSE_GRACE = 1.0
"""Seconds to close a stream that is left early."""


async def read_stream(
    stream: "AsyncStream[Any]", call: ModelCall, deliver: Callable[[str], Awaitable[None]], which: Deliver = True
) -> "Response":
    """Read an answer to its end, and close the stream however it is left.

    A server that does not stream, and sends the whole answer at once, is understood too.

    Args:
        stream: Of `client.responses.create(..., stream=True)`.
        call: Told when the first chunk came, and what was used.
        deliver: Takes the text's pieces.
        which: Which of them.

    Raises:
        ResponseFailed: the stream reports an error, or ends before the answer is complete; or what came is not an
            answer.
        openai.APIConnectionError: the connection was lost.
    """
    if _is_whole(stream):
        answer = await _read_whole(stream, call)
        await _Reading(call, deliver, which).take_whole(answer)
        return answer
    # Else the client raises for error events in the middle of its generators, and leaves the inner ones suspended.
    options: Any = getattr(stream, "_options", None)
    if options is not None:
        options.stream_mode = "events"
    reading = _Reading(call, deliver, which)
    try:
        async for event in _Events(stream):
            await reading.take(event)
            if reading.final is not None:
                await _finish(stream)
                return reading.final
    except BaseException as error:
        if reading.final is None:
            reading.cut(error)
        await _close(stream)
        raise
    reading.cut(None)
    raise ResponseFailed("stream_cut", "the stream ended before the answer was complete")


class _Reading:
    """The parts of a streamed answer that have come so far."""

    def __init__(self, call: ModelCall, deliver: Callable[[str], Awaitable[None]], which: Deliver) -> None:
        self._call = call
        self._deliver = deliver
        self._which = which
        self._pieces = 0
        """Deltas with something in them: of a token each, or more. That is certain, which a count of their text is not:
        a model may have cut it into fewer tokens than tiktoken does."""
        self._items = StreamedItems()
        self.final: Response | None = None

    async def take(self, event: Any) -> None:
        """Take the next event. They are a union of sixty classes: what each has is told by its type."""
        kind = event.type
        if kind in _SAYS_NOTHING_YET:
            self._call.response_id = getattr(event.response, "id", None)
            return
        if kind in _TEXT_DELTAS or kind in _CALL_DELTAS:
            if piece := getattr(event, "delta", None):
                await self._take_piece(kind, event, piece)
        elif kind == _REASONING_DELTA:
            self._pieces += bool(getattr(event, "delta", None))
        elif kind in _ITEMS or kind == "response.function_call_arguments.done":
            self._take_item(kind, event)
        elif kind in _FINAL:
            self.final = self._complete(event.response)
            record_response(self._call, self.final)  # it is known from here on, whatever comes
            if any(map(_is_said, self.final.output)):
                self._call.first_chunk()
        elif kind == "error" or (kind is None and getattr(event, "error", None)):  # some servers do not say a type
            raise _failure(event)

    async def _take_piece(self, kind: str, event: Any, piece: str) -> None:
        self._pieces += 1
        self._call.first_chunk()
        if kind in _TEXT_DELTAS:
            phase = self._items.write_text(event, piece)
            if self._is_wanted(phase):
                await self._deliver(piece)
        elif kind == "response.function_call_arguments.delta":
            self._items.write_arguments(event, piece)

    def _take_item(self, kind: str, event: Any) -> None:
        item = getattr(event, "item", None)
        if getattr(item, "type", None) in CALLS or _is_said(item):
            self._call.first_chunk()
        if kind == "response.function_call_arguments.done":
            self._items.end_arguments(event)
        elif getattr(item, "type", None) is None:
            return  # no item
        elif kind == "response.output_item.added":
            self._items.begin(event)
        else:
            self._items.finish(event)

    def _complete(self, answer: Any) -> "Response":
        """The answer, with what came on the way where its last event says nothing of it, as some servers have it."""
        from openai.types.responses import Response  # slow, but loaded by now

        output = getattr(answer, "output", None) or ()
        says_nothing = isinstance(output, list | tuple) and not any(map(says_something, output))
        if isinstance(answer, Response) and says_nothing and (items := self._items.complete()):
            answer = Response.construct(**{**as_dict(answer), "output": items})
        return completed(answer, self._call)

    async def take_whole(self, answer: "Response") -> None:
        """Take an answer that came at once: each message's text is one piece."""
        record_response(self._call, answer)  # it is known from here on, whatever comes
        for item in answer.output:
            if item.type == "message" and self._is_wanted(getattr(item, "phase", None)):
                texts = (getattr(part, "text", None) or getattr(part, "refusal", None) or "" for part in item.content)
                if text := "".join(texts):
                    await self._deliver(text)

    def _is_wanted(self, phase: str | None) -> bool:
        if self._which == "final":
            return phase == "final_answer"
        return self._which and phase != "commentary"

    def cut(self, error: BaseException | None) -> None:
        """Record a lower bound of what was used. What the API calls a failure it may not bill: that stays unknown."""
        self._call.finish_reasons = ("error",)
        if self._pieces and not _is_said_by_api(error):
            self._call.record(Usage(output_tokens=self._pieces), Provenance.PARTIAL)


def _is_said(item: Any) -> bool:
    """Tell whether an item is a part of the answer: a message or a call, and not news of how it comes about."""
    return getattr(item, "type", None) in _SAID and says_something(item)


class _Events:
    """A stream's events without the generator that `async for` on the stream itself would leave suspended behind it."""

    def __init__(self, stream: "AsyncStream[Any]") -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._stream.__anext__()


def _is_whole(stream: "AsyncStream[Any]") -> bool:
    """Tell whether a server answers with JSON where it was asked for a stream."""
    response = getattr(stream, "response", None)
    return response is not None and "json" in response.headers.get("content-type", "").lower()


async def _read_whole(stream: "AsyncStream[Any]", call: ModelCall) -> "Response":
    """Read an answer that comes at once, as the client reads one that was not to be streamed."""
    from openai.types.responses import Response  # slow, but loaded by now

    try:
        data = json.loads(await stream.response.aread())
    except httpx2.TimeoutException as error:
        raise APITimeoutError(request=stream.response.request) from error
    except httpx2.RequestError as error:
        raise APIConnectionError(request=stream.response.request) from error
    except (ValueError, RecursionError) as error:
        raise ResponseFailed("invalid_response", "the server's answer is not JSON") from error
    finally:
        await _close(stream)
    read = stream._client._process_response_data  # noqa: SLF001 - as the client reads others; it knows what to hide
    return completed(read(data=data, cast_to=Response, response=stream.response), call)


def _failure(event: Any) -> ResponseFailed:
    """Make the error of an error event: told in itself, as documented, or under `error`, as real servers send it."""
    return ResponseFailed.said(getattr(event, "error", None) or event, "the stream ended in an error")


def _is_said_by_api(error: BaseException | None) -> bool:
    if isinstance(error, APIError):
        return not isinstance(error, APIConnectionError)
    return isinstance(error, ResponseFailed)


async def _finish(stream: "AsyncStream[Any]") -> None:
    """Let a stream end whose answer is complete, so that its connection can be used again."""
    with anyio.move_on_after(_CLOSE_GRACE) as scope:
        try:
            async for _ in _Events(stream):
                pass
        except Exception:
            return  # the answer is complete: what comes after it is of no matter
    if scope.cancelled_caught:
        await _close(stream)


async def _close(stream: "AsyncStream[Any]") -> None:
    """Close a stream that is left early, and have its generators end here and not when they are collected."""
    with anyio.move_on_after(_CLOSE_GRACE, shield=True):
        await stream.close()
        try:
            async for _ in _Events(stream):
                pass
        except Exception:  # noqa: S110 - it is closed: that reading fails is what ends the generators
            pass
