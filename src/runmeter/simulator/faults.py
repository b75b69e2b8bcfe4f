"""Misbehaviour on command: which, how often, and to which requests.

| kind | what the caller sees | billed |
|---|---|---|
| `latency` | the answer comes `seconds` late, a stream's events `between_chunks` seconds apart | in full |
| `rate_limit` | 429 `rate_limit_exceeded`, to be tried again after `retry_after` seconds | no |
| `insufficient_quota` | 429 `insufficient_quota`, which no retry will mend | no |
| `server_error` | 500 | no |
| `unavailable` | 503 | no |
| `conversation_locked` | 400 `conversation_locked`, as if another response were under way | no |
| `context_length` | 400 `context_length_exceeded`, as if the input were too long for the model | no |
| `wrong_key` | 401 `invalid_api_key`, as if nobody had this key | no |
| `drop` | the connection closes without an answer | no |
| `billed_error` | 500, though the answer had been made | in full |
| `stream_end` | the stream ends in good order after `after_events` events, without the last one | what was sent |
| `stream_cut` | the connection breaks after `after_events` events | what was sent |
| `orphaned_calls` | the same, but the conversation keeps the answer, its calls without outputs | what was sent |
| `stream_error` | an `error` event after `after_events` events, its details in the event itself | no |
| `stream_error_nested` | the same with the details under `error`, as real servers are seen to send it | no |
| `failed` | a response that says it failed; in a stream after `after_events` events. Responses API only | no |
| `incomplete` | an answer cut in the middle, as by the output limit | what was sent |
| `other_tier` | an answer served in `tier`, whichever was asked for | in full |
| `no_usage` | an answer, or a stream, that does not say what it used | in full |
| `zero_usage`, `null_usage` | an answer, or a stream, in whose usage each number is 0, or null | in full |
| `cumulative_usage` | a stream that has the usage so far in each chunk. Chat Completions only | in full |
| `null_finish_reason` | an answer whose finish reason (Responses: status) is null | in full |
| `empty_output` | a stream whose last event has no output, though output was streamed. Responses API only | in full |
| `billed_tier` | an answer that says nothing of it | in full, in `tier`, whichever the answer tells |
| `billed_12h` | an answer that says nothing of it | in full, its cache writes as written for 12 hours |
| `billed_twice` | an answer that says nothing of it | twice, as if another client had asked for the same |

`conversation_locked` and `orphaned_calls` wait for a request to `/responses` that names a conversation.
The stream's kinds wait for a request that streams. Chat Completions knows the nested error only, and sends
it for both.
"""

import math
from collections.abc import Callable, Mapping, Set
from typing import Literal, TypeAlias, get_args

import msgspec

from .errors import ApiError, context_length_exceeded

FaultKind: TypeAlias = Literal[
    "latency",
    "rate_limit",
    "insufficient_quota",
    "server_error",
    "unavailable",
    "conversation_locked",
    "context_length",
    "wrong_key",
    "drop",
    "billed_error",
    "stream_end",
    "stream_cut",
    "orphaned_calls",
    "stream_error",
    "stream_error_nested",
    "failed",
    "incomplete",
    "other_tier",
    "no_usage",
    "zero_usage",
    "null_usage",
    "cumulative_usage",
    "null_finish_reason",
    "empty_output",
    "billed_tier",
    "billed_12h",
    "billed_twice",
]
EndpointPath: TypeAlias = Literal[
    "/responses",
    "/responses/{id}",
    "/responses/{id}/cancel",
    "/responses/{id}/input_items",
    "/responses/input_tokens",
    "/conversations",
    "/conversations/{id}",
    "/conversations/{id}/items",
    "/conversations/{id}/items/{item_id}",
    "/chat/completions",
    "/embeddings",
    "/files",
    "/files/{id}",
    "/files/{id}/content",
    "/vector_stores",
    "/vector_stores/{id}",
    "/vector_stores/{id}/search",
    "/vector_stores/{id}/files",
    "/vector_stores/{id}/files/{file_id}",
    "/models",
    "/models/{id}",
    "/organization/usage/completions",
    "/organization/usage/embeddings",
    "/organization/costs",
]
HEADER = "x-simulate"
"""A request header that asks for a fault, such as `X-Simulate: rate_limit; retry_after=0.5`."""

_RESPONSES = frozenset({"/responses"})
_GENERATING = frozenset({"/responses", "/chat/completions"})
_BILLED = _GENERATING | {"/embeddings"}
_ENDPOINTS: Mapping[FaultKind, Set[str]] = {
    "conversation_locked": _RESPONSES,
    "orphaned_calls": _RESPONSES,
    "failed": _RESPONSES,
    "empty_output": _RESPONSES,
    "cumulative_usage": frozenset({"/chat/completions"}),
    "context_length": _GENERATING,
    "incomplete": _GENERATING,
    "other_tier": _GENERATING,
    "null_finish_reason": _GENERATING,
    "billed_error": _BILLED,
    "no_usage": _BILLED,
    "zero_usage": _BILLED,
    "null_usage": _BILLED,
    "billed_tier": _BILLED,
    "billed_12h": _GENERATING,
    "billed_twice": _BILLED,
}
"""Where a kind makes sense, if not everywhere."""
_STREAMS = frozenset[FaultKind](
    {
        *("stream_end", "stream_cut", "stream_error", "stream_error_nested", "orphaned_calls"),
        *("cumulative_usage", "empty_output"),
    }
)
"""Kinds that wait for a stream."""
_IN_CONVERSATIONS = frozenset[FaultKind]({"conversation_locked", "orphaned_calls"})
"""Kinds that wait for a response in a conversation."""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of misbehaviour, for as many requests as `times` says.

    Raises:
        ValueError: An unknown kind or endpoint, or a number out of range.
    """

    kind: FaultKind
    times: int | None = 1
    """The number of requests it hits; None for every one."""
    endpoint: EndpointPath | None = None
    """Which requests it hits, by path; None for all to which it makes sense."""
    seconds: float = 1.0
    """For `latency`: before the answer."""
    between_chunks: float = 0.0
    """For `latency`: seconds before each of a stream's events."""
    retry_after: float = 1.0
    """For `rate_limit`: seconds."""
    after_events: int = 3
    """For those that end a stream: how many events still come. The last one never does."""
    tier: Literal["default", "flex", "scale", "priority", "ultrafast"] = "priority"
    """For `other_tier` and `billed_tier`: the service tier that serves."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"unknown fault {self.kind!r}: one of {', '.join(get_args(FaultKind))}")
        if self.endpoint is not None and self.endpoint not in get_args(EndpointPath):
            raise ValueError(f"unknown endpoint {self.endpoint!r}: one of {', '.join(get_args(EndpointPath))}")
        numbers = (self.times or 0, self.seconds, self.between_chunks, self.retry_after, self.after_events)
        if not all(0 <= number < math.inf for number in numbers):  # so that NaN is refused too
            raise ValueError(f"a fault's numbers must be finite and cannot be negative: {self}")

    def hits(self, endpoint: str, *, stream: bool, conversation: bool) -> bool:
        """Tell whether it makes sense for such a request: does it stream, does it name a conversation."""
        if self.endpoint is not None and self.endpoint != endpoint:
            return False
        return (
            endpoint in _ENDPOINTS.get(self.kind, {endpoint})
            and (stream or self.kind not in _STREAMS)
            and (conversation or self.kind not in _IN_CONVERSATIONS)
        )

    def error(self, endpoint: str) -> ApiError | None:
        """Make the error it answers with, if that is what it does."""
        make = _ERRORS.get(self.kind)
        return make(self, endpoint) if make else None


def conversation_locked() -> ApiError:
    """Make the error of a request while another response is under way (as reported: paulgmiller/careme#379, 2026)."""
    message = "Another process is currently operating on this conversation. Please retry in a few seconds."
    return ApiError(400, message, param="conversation", code="conversation_locked")


def server_error() -> ApiError:
    """Make the error of a service that failed."""
    message = "The server had an error while processing your request. Sorry about that!"
    return ApiError(500, message, kind="server_error")


def _wrong_key() -> ApiError:
    """Make the error of a key that nobody has. The real one shows the key, most of it hidden."""
    message = (
        "Incorrect API key provided: ********. You can find your API key at "
        "https://platform.openai.com/account/api-keys."
    )
    return ApiError(401, message, code="invalid_api_key")


def _rate_limited(retry_after: float) -> ApiError:
    message = (
        f"Rate limit reached for requests per min (RPM): Limit 500, Used 500, Requested 1. "
        f"Please try again in {retry_after:g}s."
    )
    headers = {
        "retry-after": str(-int(-retry_after // 1)),  # whole seconds, upwards
        "retry-after-ms": str(round(retry_after * 1000)),
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": f"{retry_after:g}s",
    }
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", headers=headers)


def _quota_exceeded() -> ApiError:
    message = (
        "You exceeded your current quota, please check your plan and billing details. For more information "
        "on this error, read the docs: https://developers.openai.com/api/docs/guides/error-codes."
    )
    return ApiError(429, message, kind="insufficient_quota", code="insufficient_quota")


def _unavailable() -> ApiError:
    message = "The engine is currently overloaded, please try again later."
    return ApiError(503, message, kind="server_error")


_ERRORS: Mapping[FaultKind, Callable[[Fault, str], ApiError]] = {
    "rate_limit": lambda fault, _: _rate_limited(fault.retry_after),
    "insufficient_quota": lambda *_: _quota_exceeded(),
    "server_error": lambda *_: server_error(),
    "unavailable": lambda *_: _unavailable(),
    "conversation_locked": lambda *_: conversation_locked(),
    "context_length": lambda _, endpoint: context_length_exceeded(chat=endpoint == "/chat/completions"),
    "wrong_key": lambda *_: _wrong_key(),
}
"""The errors of the kinds that are answered with one, and with nothing else."""
