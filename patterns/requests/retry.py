"""Trying again: one policy for all patterns. The clients' own retries are switched off, since each attempt is an event.

Errors are judged by what they say, not by their class, so that no client library need be loaded to judge them, and
those of any provider whose client is built like OpenAI's are understood.

Sources: openai 3.54.0 `_base_client.py` (headers, statuses, delays); OpenAI's error codes guide,
developers.openai.com/api/docs/guides/error-codes (2026-11).
"""

import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import anyio

from runmeter.engine import ConfigurationError, current_execution

T = TypeVar("T")

logger = logging.getLogger("runmeter")

current_attempt: ContextVar[int] = ContextVar("runmeter_attempt", default=1)
"""The number of the attempt that is being made, for code that is not handed it: callback handlers."""

PERMANENT_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    }
)
"""Codes that come with status 429 like a rate limit, but do not pass."""
TRANSIENT_CODES = frozenset(
    {
        "rate_limit_exceeded",
        "slow_down",
        "server_error",
        "vector_store_timeout",
        "conversation_locked",
        "request_timeout",
        "stream_cut",
        "client_closed",
    }
)
"""Codes of errors that pass, whatever status they come with; in a stream with none. The last three are ours."""
_TRANSIENT_STATUSES = (408, 409, 429)
_CONNECTION_ERRORS = frozenset({"APIConnectionError", "TransportError", "ConnectionError", "TimeoutError"})
"""Names of error classes: the client's, httpx's and Python's own."""
_NO_CONNECTION = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
"""Names of httpx's errors that say that there never was one. Clients raise their own errors from them."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """A policy of retries: when to try again, and after how long.

    Raises:
        ConfigurationError: a number is negative, or not a number.
    """

    max_retries: int = 2
    first_delay: float = 0.5
    """Seconds before the first retry; doubled for each further one."""
    max_delay: float = 8.0
    """Seconds at most, unless the server asks for more."""
    max_retry_after: float = 120.0
    """Seconds that a server may ask to wait; if it asks for more, the error is final."""
    sleep: Callable[[float], Awaitable[Any]] = anyio.sleep
    random: Callable[[], float] = random.random
    """Between 0 and 1: delays vary by a quarter, lest all clients come back at once."""

    def __post_init__(self) -> None:
        for name in ("max_retries", "first_delay", "max_delay", "max_retry_after"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value >= 0:  # NaN is not, either
                raise ConfigurationError(f"RetryPolicy.{name}: expected a number that is not negative, is {value!r}")

    def delay(self, error: BaseException, attempt: int) -> float | None:
        """Seconds to wait before trying again; None if the error is final.

        Args:
            error: What the attempt ended in.
            attempt: Its number, from 1.
        """
        if attempt > self.max_retries or not is_transient(error):
            return None
        backoff = min(self.first_delay * 2.0 ** min(attempt - 1, 60), self.max_delay)
        asked = _retry_after(error)
        if asked is None:
            return backoff * (1 - self.random() / 4)
        if asked > self.max_retry_after:
            return None
        # What the server asks is a lower bound: coming back earlier would be refused again.
        return asked + backoff * self.random() / 4


async def with_retries(
    send: Callable[[int], Awaitable[T]], policy: RetryPolicy, *, repeatable: Callable[[], bool] = lambda: True
) -> T:
    """Send a request until it succeeds or its error is final.

    Args:
        send: Does it, given the attempt's number, from 1.
        policy: When to try again.
        repeatable: Whether it may be done again: not once a part of its outcome was given away.

    Raises:
        Exception: the last attempt's.
    """
    attempt = 1
    while True:
        outer = current_attempt.set(attempt)
        try:
            return await send(attempt)
        except Exception as error:
            may_repeat = repeatable()
            delay = policy.delay(error, attempt) if may_repeat else None
            _log_decision(error, attempt, delay, may_repeat=may_repeat)
            if delay is None:
                raise
        finally:
            current_attempt.reset(outer)
        await policy.sleep(delay)
        attempt += 1


def _log_decision(error: Exception, attempt: int, delay: float | None, *, may_repeat: bool) -> None:
    """Log what comes of an attempt that failed, but not what its error says: servers quote what they were sent."""
    if delay is not None:
        verdict = f"tried again in {delay:.3f} s"
    else:
        verdict = "final" if may_repeat else "final, as a part of its answer was handed out"
    status = status_code(error)
    logger.debug(
        "run %s: attempt %d ended in %s%s: %s",
        current_execution().run_id,
        attempt,
        type(error).__name__,
        "" if status is None else f" ({status})",
        verdict,
    )


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed later."""
    said = _headers(error).get("x-should-retry")
    if said in ("true", "false"):
        return bool(said == "true")
    said_codes = (getattr(error, "code", None), getattr(error, "type", None))
    codes = {code for code in said_codes if isinstance(code, str)}
    if codes & PERMANENT_CODES:
        return False
    if codes & TRANSIENT_CODES:
        return True
    status = status_code(error)
    if status is not None:
        return status in _TRANSIENT_STATUSES or status >= 500
    return is_connection_loss(error)


def is_connection_loss(error: BaseException) -> bool:
    """Tell whether the answer, or the rest of it, did not come for lack of a connection or of time."""
    return any(base.__name__ in _CONNECTION_ERRORS for base in type(error).__mro__)


def used_nothing(error: BaseException) -> bool:
    """Tell whether the request was refused by the API, or never reached it, so that it cost nothing."""
    status = status_code(error)
    if status is not None:
        return 400 <= status < 500 and status != 408
    return getattr(error, "code", None) == "client_closed" or _never_left(error)


def _never_left(error: BaseException | None) -> bool:
    """Tell whether there was no connection on which to send the request."""
    if error is None:
        return False
    return any(base.__name__ in _NO_CONNECTION for base in type(error).__mro__) or _never_left(error.__cause__)


def status_code(error: BaseException) -> int | None:
    """Read the HTTP status an error came with, if it came with one."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _headers(error: BaseException) -> Any:
    return getattr(getattr(error, "response", None), "headers", None) or {}


def _retry_after(error: BaseException) -> float | None:
    """Read the seconds the server asks to wait: `Retry-After-Ms`, or `Retry-After` as seconds or as a date."""
    headers = _headers(error)
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name)) / divisor
        except (TypeError, ValueError):
            continue
        if not math.isnan(seconds) and seconds >= 0:
            return seconds
    try:
        seconds = parsedate_to_datetime(headers.get("retry-after")).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(seconds, 0.0)
