"""Threads: the conversations that OpenAI keeps. They are made, read and deleted here.

Sources: openai 3.54.0 `resources/conversations/`; migration guide,
developers.openai.com/api/docs/assistants/migration; both 2026-11.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
from openai import APIError

from runmeter.engine import ConfigurationError

from ...context import checked_id
from ...errors import ConversationLocked, ResponseFailed, UnknownConversation
from ...messages import Item
from ...openai_client.clients import Clients
from ...requests.retry import RetryPolicy, status_code, with_retries
from ...text import valid

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")

INTERRUPTED = "Error: the run was interrupted before this call was answered; it may have been made, or not."
"""What the model is told of a call that was never answered."""
CLEANUP_TIMEOUT = 5.0
"""Seconds that deleting threads at the end of a run or pattern may take, also while it is being cancelled."""
PAGE = 100
"""Items a request may list: the API's limit."""
_DELETED_AT_ONCE = 8
_LEAST_DELAY = 0.1
"""Seconds between two looks at a locked conversation, also where a policy would not wait at all."""
_LOCKED = "conversation_locked"
_LEGACY = {"thread_": "thread", "asst_": "assistant", "run_": "run"}
_UNANSWERED = "No tool output found for"
"""How the API's error begins where a call was never answered (openai/openai-agents-python#673). It has no code."""

logger = logging.getLogger("runmeter")

_waits: ContextVar[int] = ContextVar("runmeter_lock_waits", default=0)
"""The number of times the request being made has found its conversation locked: no attempt of the base policy's."""


def check_id(source: str, value: object) -> str:
    """Check that an id can be a conversation's.

    Args:
        source: Where it comes from.
        value: A string that is not empty.

    Raises:
        ConfigurationError: it is not an id, or is one of the Assistants API.
    """
    checked = checked_id(source, value)
    for prefix, kind in _LEGACY.items():
        if checked.startswith(prefix):
            raise ConfigurationError(
                f"{source} {checked!r} is a {kind} of the Assistants API, which ended on 2026-08-26: "
                "threads are conversations now (ids begin with 'conv_'), and assistants are configured in code"
            )
    return checked


@dataclass(frozen=True, kw_only=True)
class LockPatience(RetryPolicy):
    """A policy that waits longer where a conversation is locked by another request.

    The delays it asks for add up to the patience at most; how long requests take does not count.
    """

    base: RetryPolicy
    """Judges all other errors, and counts no attempts but those that ended in them."""
    lock_timeout: float = 30.0
    """Seconds."""

    def delay(self, error: BaseException, attempt: int) -> float | None:
        """Seconds to wait before trying again; None if the error is final."""
        waits = _waits.get() if attempt > 1 else 0  # what is there at first is an earlier request's
        locked = is_locked(error)
        _waits.set(waits + locked)
        if not locked:
            return self.base.delay(error, attempt - waits)
        backoff, waited = max(self.base.first_delay, _LEAST_DELAY), 0.0
        for _ in range(waits):
            waited += backoff
            backoff = max(min(backoff * 2, self.base.max_delay), _LEAST_DELAY)
            if waited >= self.lock_timeout:
                return None
        backoff = min(backoff, self.lock_timeout - waited)
        return backoff * (1 - self.base.random() / 4) if backoff > 0 else None


def is_locked(error: BaseException) -> bool:
    """Tell whether an error says that another request has locked the conversation."""
    return getattr(error, "code", None) == _LOCKED


def is_unanswered(error: BaseException) -> bool:
    """Tell whether a request was refused because calls in its conversation have no outputs."""
    return isinstance(error, APIError | ResponseFailed) and _UNANSWERED in str(error)


@contextmanager
def clear_errors(thread_id: str, lock_timeout: float) -> Iterator[None]:
    """Raise errors of their own where a thread is locked or unknown.

    Raises:
        ConversationLocked: another request has locked it.
        UnknownConversation: it does not exist.
    """
    try:
        yield
    except (APIError, ResponseFailed) as error:
        if is_locked(error):
            raise ConversationLocked(thread_id, lock_timeout) from error
        if _is_unknown(error, thread_id):
            hint = "" if thread_id.startswith("conv_") else " Ids of OpenAI's conversations begin with 'conv_'."
            raise UnknownConversation(thread_id, f"OpenAI says: {getattr(error, 'message', error)}{hint}") from error
        raise


def _is_unknown(error: Exception, thread_id: str) -> bool:
    """Tell whether the API does not know the conversation, or not by an id like this."""
    status = status_code(error)
    if status == 404:
        return thread_id in str(error)  # a model may be unknown as well
    return status == 400 and getattr(error, "param", None) in ("conversation", "conversation.id", "conversation_id")


class Threads:
    """Makes, reads and deletes threads. None of its requests uses tokens.

    Args:
        clients: Where the client comes from.
        policy: When to try again.
    """

    def __init__(self, clients: Clients, policy: LockPatience) -> None:
        self._clients = clients
        self._policy = policy

    async def create(self, metadata: Mapping[str, str] | None = None) -> str:
        """Make a new thread.

        Returns:
            Its id.

        Raises:
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        given: dict[str, Any] = {} if metadata is None else {"metadata": dict(metadata)}
        conversation = await self._send(lambda client: client.conversations.create(**given))
        return conversation.id

    async def delete(self, thread_id: str) -> None:
        """Delete a thread by its id.

        Raises:
            UnknownConversation: it does not exist.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        with clear_errors(thread_id, self._policy.lock_timeout):
            await self._send(lambda client: client.conversations.delete(thread_id))

    async def items(
        self, thread_id: str, *, order: Literal["asc", "desc"] = "asc", limit: int | None = None
    ) -> tuple[Item, ...]:
        """List what was said in a thread, as Responses items.

        Args:
            thread_id: Its id.
            order: `asc` for the oldest first.
            limit: How many at most; None for all.

        Raises:
            UnknownConversation: it does not exist.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        items: list[Item] = []
        after: dict[str, Any] = {}
        with clear_errors(thread_id, self._policy.lock_timeout):
            while limit is None or len(items) < limit:
                size = PAGE if limit is None else min(PAGE, limit - len(items))
                page = await self._page(thread_id, {"order": order, "limit": size, **after})
                items += (valid(item.to_dict(mode="json")) for item in page.data or ())
                if not page.has_more or not page.last_id:
                    break
                after = {"after": page.last_id}
        return tuple(items)

    async def discard(self, thread_ids: Iterable[str]) -> None:
        """Delete threads that will not go on, as far as that is done soon. What fails is logged, and left there."""
        left = set(thread_ids)
        limiter = anyio.CapacityLimiter(_DELETED_AT_ONCE)

        async def delete(thread_id: str) -> None:
            async with limiter:
                try:
                    await self.delete(thread_id)
                except UnknownConversation:
                    pass
                except Exception as error:
                    logger.warning("conversation %s could not be deleted: %r", thread_id, error)
            left.discard(thread_id)

        with anyio.move_on_after(CLEANUP_TIMEOUT, shield=True):
            async with anyio.create_task_group() as tasks:
                for thread_id in sorted(left):
                    tasks.start_soon(delete, thread_id)
        if left:
            logger.warning("%d conversations could not be deleted within %g s", len(left), CLEANUP_TIMEOUT)

    async def _page(self, thread_id: str, params: dict[str, Any]) -> Any:
        async def get(client: "AsyncOpenAI") -> Any:
            return await client.conversations.items.list(thread_id, **params)

        return await self._send(get)

    async def _send(self, request: "Callable[[AsyncOpenAI], Awaitable[T]]") -> T:
        return await with_retries(lambda _: request(self._clients.get()), self._policy)


def missing_outputs(thread: Iterable[Item], given: Iterable[Item]) -> list[Item]:
    """Make an output for each call in a thread that has none, to say that it came to nothing.

    Args:
        thread: What was said, oldest first.
        given: What a run is about to say: it may have some of the outputs.
    """
    calls: dict[str, str] = {}
    for item in (*thread, *given):
        kind = item.get("type", "message")
        if kind in ("function_call", "custom_tool_call"):
            calls[item["call_id"]] = kind
        elif kind in ("function_call_output", "custom_tool_call_output"):
            calls.pop(item["call_id"], None)
    return [{"type": f"{kind}_output", "call_id": call_id, "output": INTERRUPTED} for call_id, kind in calls.items()]
