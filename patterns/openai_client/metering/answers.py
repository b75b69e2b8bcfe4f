"""Answers as a server sent them, in bytes: what they say of themselves, and what they used."""

import json
from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from runmeter.engine import ModelCall

from ...requests.finish import finish_reason_of
from ...requests.plain_usage import PlainCompletion, PlainResponse, usage_of
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


class _Choice(msgspec.Struct, gc=False):
    finish_reason: Annotated[str, Meta(min_length=1)] | None = None


class _Completion(PlainCompletion, gc=False, kw_only=True):
    """A completion as nearly all are."""

    id: str
    choices: list[_Choice]
    model: str | None = None
    service_tier: str | None = None


class _Response(PlainResponse, gc=False, kw_only=True):
    """A response as nearly all are."""

    id: str
    status: Literal["completed"]
    error: None = None
    model: str | None = None
    service_tier: str | None = None


class _Completed(msgspec.Struct, gc=False):
    """The last event of a streamed response."""

    type: Literal["response.completed"]
    response: _Response


_vectors = msgspec.json.Decoder(_Vectors)
_completion = msgspec.json.Decoder(_Completion)
_response = msgspec.json.Decoder(_Response)
_completed = msgspec.json.Decoder(_Completed)
_type_of, _reason_of = attrgetter("type"), attrgetter("finish_reason")


def record_answer(call: ModelCall, api: Api, body: bytes) -> None:
    """Record on a call what an answer says that came at once.

    One that is no object of JSON leaves the usage unknown, with a notice: pages of proxies come with status 200, too.
    """
    if api == "embeddings":
        vectors = _vectors_in(body)
        if vectors is not None:
            read_usage(vectors).record(call, response_model=vectors.model)
            return
    elif _record_plain(call, api, body):
        return
    answer = decoded(body)
    if answer is None:
        call.notice("unreadable_answer", "an answer is no object of JSON: what it used is not known, but for its bound")
    elif api == "responses":
        record_response(call, answer)
    else:
        _record_completion(call, answer)


def _record_plain(call: ModelCall, api: Api, body: bytes) -> bool:
    """Record an answer as nearly all are, of which no more is decoded than is told. Returns False of any other."""
    try:
        if api == "responses":
            return _take_response(call, _response.decode(body))
        return _take_completion(call, _completion.decode(body))
    except (ValueError, RecursionError):
        return False


def record_completed(call: ModelCall, event: bytes) -> bool:
    """Record the last event of a streamed response, as nearly all are. Returns False of any other."""
    try:
        return _take_response(call, _completed.decode(event).response)
    except (ValueError, RecursionError):
        return False


def _take_response(call: ModelCall, said: _Response) -> bool:
    return _take(call, said, ("tool_calls",) if "function_call" in map(_type_of, said.output) else ("stop",))


def _take_completion(call: ModelCall, said: _Completion) -> bool:
    return _take(call, said, tuple(filter(None, map(_reason_of, said.choices))))


def _take(call: ModelCall, said: _Response | _Completion, finish_reasons: tuple[str, ...]) -> bool:
    usage = usage_of(said)
    if usage is None:
        return False
    call.record(
        usage,
        response_id=said.id,
        response_model=said.model,
        service_tier=said.service_tier,
        finish_reasons=finish_reasons,
    )
    return True


def _vectors_in(body: bytes) -> _Vectors | None:
    try:
        return _vectors.decode(body)
    except (ValueError, RecursionError):
        return None


def decoded(body: bytes) -> dict[str, Any] | None:
    """Decode an object of JSON, and what the client takes for such: half a surrogate pair, numbers that are none.

    Returns:
        The object; None if it is something else.
    """
    answer: Any
    try:
        answer = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return None
    return answer if isinstance(answer, dict) else None


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
    choices = choices if isinstance(choices, list) else ()
    reasons = (choice.get("finish_reason") for choice in choices if isinstance(choice, dict))
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
    said = decoded(body)
    unnamed = _UNNAMED.get(status) or ("InternalServerError" if status >= 500 else "APIStatusError")
    if said is None:
        return unnamed, None
    error = said.get("error", said)
    kind, message = failure_in(error) if isinstance(error, dict) else ("error", str(error))
    return (unnamed if kind == "error" else kind), message


def failure_in(error: Mapping[str, Any]) -> tuple[str, str | None]:
    """Read the code and the message of an error as the API writes it."""
    code, message = error.get("code"), error.get("message")
    return (code if code and isinstance(code, str) else "error"), (message if isinstance(message, str) else None)
