"""A client whose errors keep the API key to themselves: servers quote it when they refuse it."""

from typing import Any

import httpx2
from openai import APIStatusError, AsyncOpenAI

HIDDEN = "***"


class DiscreetOpenAI(AsyncOpenAI):
    """OpenAI's client, but that no error of it says the key."""

    def _make_status_error(self, err_msg: str, *, body: object, response: httpx2.Response) -> APIStatusError:
        error = super()._make_status_error(err_msg, body=_hide(body, self.api_key), response=response)
        error.message = _hide(error.message, self.api_key)
        error.args = tuple(_hide(arg, self.api_key) for arg in error.args)
        return error


def _hide(value: Any, key: str) -> Any:
    """A JSON value without the key."""
    if not key:
        return value
    if isinstance(value, str):
        return value.replace(key, HIDDEN)
    if isinstance(value, list):
        return [_hide(each, key) for each in value]
    if isinstance(value, dict):
        return {name: _hide(each, key) for name, each in value.items()}
    return value
