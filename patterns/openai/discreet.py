"""A client whose errors keep the API key to themselves: servers quote it when they refuse it."""

import json
from typing import Any

import httpx2
from openai import APIStatusError, AsyncOpenAI
from openai._streaming import ServerSentEvent, SSEDecoder

HIDDEN = "***"
_SHORTEST_SECRET = 8
"""Characters. What is shorter stands in for a key where none is needed, and hiding it would tear words apart."""


class DiscreetOpenAI(AsyncOpenAI):
    """OpenAI's client, but that no error of it says the key, nor what an answer or a stream says of an error."""

    def _make_status_error(self, err_msg: str, *, body: object, response: httpx2.Response) -> APIStatusError:
        error = super()._make_status_error(err_msg, body=_hide(body, self.api_key), response=response)
        error.message = _hide(error.message, self.api_key)
        error.args = tuple(_hide(arg, self.api_key) for arg in error.args)
        return error

    def _process_response_data(self, *, data: object, cast_to: Any, response: httpx2.Response) -> Any:
        return super()._process_response_data(
            data=_hide_in_errors(data, self.api_key), cast_to=cast_to, response=response
        )

    def _make_sse_decoder(self) -> SSEDecoder:
        return _DiscreetDecoder(self)


class _DiscreetDecoder(SSEDecoder):
    """Reads a stream, in which the client raises what an event says of an error before anybody else sees it."""

    def __init__(self, client: AsyncOpenAI) -> None:
        super().__init__()
        self._client = client

    def decode(self, line: str) -> ServerSentEvent | None:
        event = super().decode(line)
        key = self._client.api_key
        if event is None or not key or key not in event.data:
            return event
        try:
            data = json.dumps(_hide_in_errors(event.json(), key))
        except ValueError:
            data = _hide(event.data, key)
        return ServerSentEvent(event=event.event, data=data, id=event.id, retry=event.retry)


def _hide_in_errors(data: Any, key: str) -> Any:
    """An answer, or an event of a stream, without the key in what it says of an error. All else is the model's."""
    if not isinstance(data, dict):
        return data
    if data.get("type") == "error":
        return _hide(data, key)
    hidden = {"error": _hide, "response": _hide_in_errors}
    return {name: hidden[name](value, key) if name in hidden else value for name, value in data.items()}


def _hide(value: Any, key: str) -> Any:
    """A JSON value without the key."""
    if len(key) < _SHORTEST_SECRET:
        return value
    if isinstance(value, str):
        return value.replace(key, HIDDEN)
    if isinstance(value, list):
        return [_hide(each, key) for each in value]
    if isinstance(value, dict):
        return {name: _hide(each, key) for name, each in value.items()}
    return value
