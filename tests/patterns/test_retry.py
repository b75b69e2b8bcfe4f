"""Trying again: what may pass, what may not, and how long to wait."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runmeter.engine import ConfigurationError
from runmeter.patterns import RetryPolicy
from runmeter.patterns.errors import ResponseFailed
from runmeter.patterns.requests.retry import current_attempt, is_transient, used_nothing, with_retries

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/responses")


def status_error(status: int, code: str | None = None, **headers: str) -> openai.APIStatusError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, headers=names, request=REQUEST)
    return openai.APIStatusError("no", response=response, body={"code": code, "type": None})


def without_connection(cause: Exception) -> Exception:
    """The client's error where no connection came about."""
    error = openai.APITimeoutError(request=REQUEST)
    error.__cause__ = cause
    return error


class Waits:
    """Remembers what it was told to wait."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def policy(waits: Waits, **settings: Any) -> RetryPolicy:
    return RetryPolicy(sleep=waits, random=lambda: 0.0, **settings)


class Failing:
    """Fails with these errors in turn, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts: list[tuple[int, int]] = []

    async def __call__(self, attempt: int) -> str:
        self.attempts.append((attempt, current_attempt.get()))
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.mark.parametrize(
    ("error", "transient", "free"),
    [
        (status_error(429, "rate_limit_exceeded"), True, True),
        (status_error(429), True, True),
        (status_error(429, "insufficient_quota"), False, True),
        (status_error(429, "credit_balance_exhausted"), False, True),
        (status_error(400, "invalid_prompt"), False, True),
        (status_error(400, "conversation_locked"), True, True),
        (status_error(401), False, True),
        (status_error(404, "model_not_found"), False, True),
        (status_error(408), True, False),
        (status_error(409), True, True),
        (status_error(500), True, False),
        (status_error(503), True, False),
        (status_error(500, x_should_retry="false"), False, False),
        (status_error(400, x_should_retry="true"), True, True),
        (openai.APIConnectionError(request=REQUEST), True, False),
        (openai.APITimeoutError(request=REQUEST), True, False),
        (openai.APIError("no", REQUEST, body={"code": "server_error"}), True, False),
        (openai.APIError("no", REQUEST, body={"type": "server_error"}), True, False),
        (openai.APIError("no", REQUEST, body=None), False, False),
        (ResponseFailed("stream_cut", "cut"), True, False),
        (ResponseFailed("rate_limit_exceeded", "later"), True, False),
        (ResponseFailed("invalid_prompt", "no"), False, False),
        (httpx2.ReadError("gone"), True, False),
        (httpx2.ConnectError("refused"), True, True),
        (without_connection(httpx2.ConnectTimeout("slow")), True, True),
        (without_connection(httpx2.PoolTimeout("full")), True, True),
        (without_connection(httpx2.ReadTimeout("slow")), True, False),
        (ResponseFailed("client_closed", "closed"), True, True),
        (ConnectionResetError(), True, False),
        (TimeoutError(), True, False),
        (ValueError(), False, False),
    ],
)
def test_errors_are_judged_by_what_they_say(error: Exception, transient: bool, free: bool) -> None:
    assert is_transient(error) is transient
    assert used_nothing(error) is free


async def test_it_tries_again_until_it_succeeds() -> None:
    waits, failing = Waits(), Failing(status_error(500), openai.APIConnectionError(request=REQUEST))
    assert await with_retries(failing, policy(waits)) == "done"
    assert failing.attempts == [(1, 1), (2, 2), (3, 3)]
    assert waits.seconds == [0.5, 1.0]
    assert current_attempt.get() == 1


async def test_it_gives_up_after_so_many_retries() -> None:
    waits, failing = Waits(), Failing(*[status_error(500)] * 9)
    with pytest.raises(openai.APIStatusError):
        await with_retries(failing, policy(waits, max_retries=5, max_delay=3))
    assert len(failing.attempts) == 6
    assert waits.seconds == [0.5, 1, 2, 3, 3]


@pytest.mark.parametrize("error", [status_error(401), status_error(429, "insufficient_quota"), KeyError()])
async def test_what_will_not_pass_is_raised_at_once(error: Exception) -> None:
    waits, failing = Waits(), Failing(error)
    with pytest.raises(type(error)):
        await with_retries(failing, policy(waits))
    assert len(failing.attempts) == 1
    assert waits.seconds == []


async def test_nothing_is_repeated_once_a_part_was_given_away() -> None:
    failing = Failing(status_error(500))
    with pytest.raises(openai.APIStatusError):
        await with_retries(failing, policy(Waits()), repeatable=lambda: False)
    assert len(failing.attempts) == 1


async def test_a_cancellation_is_no_error_to_try_again_after() -> None:
    attempts = 0

    async def hang(_: int) -> None:
        nonlocal attempts
        attempts += 1
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await with_retries(hang, policy(Waits()))
    assert scope.cancelled_caught
    assert attempts == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after_ms": "1500", "retry_after": "7"}, 1.5),
        ({"retry_after": "0"}, 0),
        ({"retry_after": "120"}, 120),
        ({"retry_after": "121"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "nan"}, 0.5),
        ({"retry_after": "-1"}, 0.5),
        ({"retry_after": "soon"}, 0.5),
        ({}, 0.5),
    ],
)
def test_the_server_says_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert policy(Waits()).delay(status_error(429, **headers), 1) == seconds


def test_the_server_may_name_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    delay = policy(Waits()).delay(status_error(503, retry_after=date), 1)
    assert delay is not None
    assert 55 < delay <= 60


@given(st.integers(1, 50), st.floats(0, 1))
def test_delays_vary_but_stay_in_bounds(attempt: int, chance: float) -> None:
    some = RetryPolicy(max_retries=50, random=lambda: chance)
    delay = some.delay(status_error(500), attempt)
    assert delay is not None
    assert 0.375 <= delay <= 8
    asked = some.delay(status_error(429, retry_after="3"), attempt)
    assert asked is not None
    assert 3 <= asked <= 5


def test_a_policy_with_negative_numbers_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        RetryPolicy(max_retries=-1)
    with pytest.raises(ConfigurationError):
        RetryPolicy(first_delay=float("nan"))
    wrong: Any = "3"
    with pytest.raises(ConfigurationError, match=r"RetryPolicy\.max_delay: expected a number"):
        RetryPolicy(max_delay=wrong)
