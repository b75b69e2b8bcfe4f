"""Delivery of an answer's pieces: to the stream of the run, and to a WebSocket."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio

from runmeter.engine import ConfigurationError, current_execution

from .errors import ListenerGone
from .text import valid_text

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[Any]]


class Delivery:
    """Hands out the pieces of a pattern's answers, in order, as fast as they are taken.

    A WebSocket gets one JSON message for each: `{"type": "delta", "run_id": …, "text": …}`. An error it raises, as it
    does when its client has gone, ends the run with `ListenerGone`.

    Args:
        socket: Anything with an async `send_json`, or else `send_text`; None if there is none.

    Raises:
        ConfigurationError: it has neither.
    """

    def __init__(self, socket: Any = None) -> None:
        self._send = None if socket is None else _sender(socket)
        self._turn = anyio.Lock()

    @property
    def wanted(self) -> bool:
        """True if a stream or a WebSocket takes pieces: then a pattern streams its answer if it can."""
        return self._send is not None or current_execution().streaming

    async def delta(self, text: str) -> None:
        """Hand out a piece of the current run's answer; waits while those who take it are behind.

        Raises:
            ListenerGone: the WebSocket does not take it.
        """
        execution = current_execution()
        text = valid_text(text)  # models send what no socket takes
        await self.tell({"type": "delta", "run_id": execution.run_id, "text": text})
        await execution.delta(text)

    async def tell(self, message: dict[str, Any]) -> None:
        """Send the WebSocket a message, if there is one.

        Raises:
            ListenerGone: it does not take it.
        """
        if self._send is not None:
            async with self._turn:  # one socket may serve several runs, and takes one message at a time
                try:
                    await self._send(message)
                except Exception as error:
                    raise ListenerGone(type(error).__name__) from error


def _sender(socket: Any) -> Send:
    send: Any = getattr(socket, "send_json", None)
    if callable(send):
        as_json: Send = send
        return as_json
    send_text: Any = getattr(socket, "send_text", None)
    if not callable(send_text):
        raise ConfigurationError(f"ws_streaming needs send_json or send_text, which {type(socket).__name__!r} has not")

    async def send_as_text(message: dict[str, Any]) -> None:
        await send_text(json.dumps(message, ensure_ascii=False))

    return send_as_text
