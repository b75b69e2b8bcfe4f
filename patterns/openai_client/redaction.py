"""A client whose errors keep the API key to themselves: servers quote it when they refuse it."""

import json
from typing import Any

import httpx2
from openai import APIStatusError, AsyncOpenAI
from openai._streaming import ServerSentEvent, SSEDecoder

from .servers import missing_api

HIDDEN = "***"
_SHORTEST_SECRET = 8
"""Characters. What is shorter stands in for a key where none is needed, and hiding it would tear words apart."""


class DiscreetOpenAI(AsyncOpenAI):
    """OpenAI's client, but that no error of it says the key, nor what an answer or a stream says of an error."""

    def _make_status_error(self, err_msg: str, *, body: object, response: httpx2.Response) -> APIStatusError:
        key = _key_sent(response)
        if (missing := missing_api(response, body)) is not None:
            err_msg = f"{missing}. It says: {err_msg}"
        error = super()._make_status_error(err_msg, body=_hide(body, key), response=response)
        error.message = _hide(error.message, key)
        error.args = tuple(_hide(arg, key) for arg in error.args)
        return error

    def _process_response_data(self, *, data: object, cast_to: Any, response: httpx2.Response) -> Any:
        data = _hide_in_errors(data, _key_sent(response))
        return super()._process_response_data(data=data, cast_to=cast_to, response=response)

    def _make_sse_decoder(self) -> SSEDecoder:
        return _DiscreetDecoder(self.api_key)


def discreet_copy(client: AsyncOpenAI) -> AsyncOpenAI:
    """Copy a client, its kind and connections included, so that no error of the copy says its key.

    The copy does not try again: retries are the patterns' own, since each attempt is an event.
    """
    copy = client.with_options(max_retries=0)
    if isinstance(copy, AsyncOpenAI):
        copy.__class__ = _discreet_kind(type(copy))
    return copy


def _discreet_kind(kind: type[AsyncOpenAI]) -> type[AsyncOpenAI]:
    """Make the discreet kind of a client: Azure's, or a user's own, stays that."""
    if issubclass(kind, DiscreetOpenAI):
        return kind
    return DiscreetOpenAI if kind is AsyncOpenAI else type(f"Discreet{kind.__name__}", (DiscreetOpenAI, kind), {})


class _DiscreetDecoder(SSEDecoder):
    """Reads a stream, in which the client raises what an event says of an error before other code sees it."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def decode(self, line: str) -> ServerSentEvent | None:
        event = super().decode(line)
        # The key may be written with escapes: then it is not found as it is.
        if event is None or not self._key or not ("error" in event.data or self._key in event.data):
            return event
        try:
            data = json.dumps(_hide_in_errors(event.json(), self._key))
        except ValueError:
            data = _hide(event.data, self._key)
        return ServerSentEvent(event=event.event, data=data, id=event.id, retry=event.retry)


def _key_sent(response: httpx2.Response) -> str:
    """The key that was sent for a response. The client's own may be a newer one, if a function gives keys out."""
    headers = response.request.headers
    return str(headers.get("api-key") or headers.get("authorization", "")).removeprefix(
        "Bearer "
    )  # Azure's, or others'


def _hide_in_errors(data: Any, key: str) -> Any:
    """Hide the key in what an answer, or an event of a stream, says of an error. All else is the model's."""
    if not isinstance(data, dict):
        return data
    if data.get("type") == "error":
        return _hide(data, key)
    hidden = {"error": _hide, "response": _hide_in_errors}
    return {name: hidden[name](value, key) if name in hidden else value for name, value in data.items()}


def _hide(value: Any, key: str) -> Any:
    """Replace the key in a JSON value."""
    if len(key) < _SHORTEST_SECRET:
        return value
    if isinstance(value, str):
        return value.replace(key, HIDDEN)
    if isinstance(value, list):
        return [_hide(each, key) for each in value]
    if isinstance(value, dict):
        return {name: _hide(each, key) for name, each in value.items()}
    return value
