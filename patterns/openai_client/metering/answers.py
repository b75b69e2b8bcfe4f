"""Answers as a server sent them, in bytes: what they say of themselves, and what they used."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from runmeter.engine import ModelCall

from ...requests.finish import finish_reason_of
from ...requests.usage import read_usage
from .sent import Api

_UNNAMED = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}
"""Errors without a code, by status, as the client calls them (openai 3.54.0, `_client.py`, `_make_status_error`)."""


class _Vectors(msgspec.Struct, gc=False):
    """An answer of the embeddings API, whose vectors are skipped."""

    data: msgspec.Raw = msgspec.Raw(b"")
    model: Any = None
    usage: Any = None


_vectors = msgspec.json.Decoder(_Vectors)


def record_answer(call: ModelCall, api: Api, body: bytes) -> None:
    """Record on a call what an answer says that came at once.

    Raises:
        ValueError: it is not JSON.
    """
    if api == "embeddings":
        vectors = _vectors.decode(body)
        read_usage(vectors).record(call, response_model=vectors.model)
        return
    answer = _decode(body)
    if not isinstance(answer, dict):
        return
    if api == "responses":
        record_response(call, answer)
    else:
        _record_completion(call, answer)


def _decode(body: bytes) -> Any:
    """Decode JSON, and what the client takes for such: half a surrogate pair, numbers that are none."""
    try:
        return msgspec.json.decode(body)
    except ValueError:
        return json.loads(body)


def record_response(call: ModelCall, response: Mapping[str, Any]) -> None:
    """Record on a call what an answer of the Responses API says."""
    _describe(call, response)
    call.finish_reasons = (finish_reason_of(response),)
    error = response.get("error")
    if response.get("status") == "failed" and isinstance(error, dict):
        call.fail(*failure_in(error))
    read_usage(response).record(call)


def _record_completion(call: ModelCall, completion: Mapping[str, Any]) -> None:
    _describe(call, completion)
    choices = completion.get("choices")
    reasons = (choice.get("finish_reason") for choice in (choices or ()) if isinstance(choice, dict))
    call.finish_reasons = tuple(reason for reason in reasons if isinstance(reason, str))
    read_usage(completion).record(call)


def _describe(call: ModelCall, answer: Mapping[str, Any]) -> None:
    call.response_id = answer.get("id")
    call.response_model = answer.get("model")
    call.service_tier = answer.get("service_tier")


def failure_of(status: int, body: bytes) -> tuple[str, str | None]:
    """Find the type and message of the error that a server answered with.

    Args:
        status: Of HTTP.
        body: Of the answer, as far as it is known.
    """
    try:
        said = msgspec.json.decode(body) if body else None
    except ValueError:
        said = None
    unnamed = _UNNAMED.get(status) or ("InternalServerError" if status >= 500 else "APIStatusError")
    if not isinstance(said, dict):
        return unnamed, None
    error = said.get("error", said)
    kind, message = failure_in(error) if isinstance(error, dict) else ("error", str(error))
    return (unnamed if kind == "error" else kind), message


def failure_in(error: Mapping[str, Any]) -> tuple[str, str | None]:
    """Read the code and the message of an error as the API writes it."""
    code, message = error.get("code"), error.get("message")
    return (code if code and isinstance(code, str) else "error"), (message if isinstance(message, str) else None)
