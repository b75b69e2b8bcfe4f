"""Clients of the OpenAI API: one for each event loop, made on first use."""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, cast

import anyio
from anyio.lowlevel import current_token

from runmeter.engine import ConfigurationError

from .hosts import HOOK, provider_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONNECT_TIMEOUT = 30.0
"""Seconds to reach the server. The client's own default is 5, which many runs that begin at once can exceed without
any fault of the server's: the event loop is busy with the others."""


class Clients:
    """The clients of one pattern. Connections belong to the event loop they were opened in, so each loop has its own.

    Args:
        api_key: A key, an async function that gets one, or None for `OPENAI_API_KEY`.
        base_url: None stands for `OPENAI_BASE_URL` or OpenAI's own.
        timeout: Seconds to wait for anything from the server.
        client: The one to use in their place, on whatever loop: then the others say nothing, and nothing closes it.
    """

    def __init__(
        self,
        api_key: str | Callable[[], Awaitable[str]] | None,
        base_url: str | None,
        timeout: float,
        client: "AsyncOpenAI | None" = None,
    ) -> None:
        self._given = None if client is None else _discreet(client)
        self._api_key = api_key
        self._base_url = base_url
        self._timeout = timeout
        self._clients: dict[Any, AsyncOpenAI] = {}

    def get(self) -> "AsyncOpenAI":
        """The client of the running event loop.

        Raises:
            ConfigurationError: there is no API key, or it cannot be one.
        """
        if self._given is not None:
            return self._given
        loop = current_token().native_token
        client = self._clients.get(loop)
        if client is None or client.is_closed():
            for other in list(self._clients):
                if _has_ended(other):
                    self._clients.pop(other, None)
            client = self._clients[loop] = self._make()
        return client

    def provider_and_model(self, model: str) -> tuple[str, str]:
        """Name the provider whose prices a request has, and its model: by a client that is given, or else OpenAI's."""
        if self._given is None:
            return "openai", model
        hook = getattr(self._given._client, HOOK, None)  # noqa: SLF001 - where it is metered
        url = self._given.base_url
        return (provider_of(url.host, url.port), model) if hook is None else hook.provider_and_model(url, model)

    def key_at_hand(self) -> AbstractAsyncContextManager[None]:
        """Have the key before a request is metered: what getting it takes, and that it fails, is not the request's.

        Raises:
            ConfigurationError: on entering, what the function returned cannot be sent.
            TimeoutError: on entering, it has not returned in time.
            Exception: on entering, whatever it raises.
        """
        return self._with_key() if callable(self._api_key) and self._given is None else nullcontext()

    @asynccontextmanager
    async def _with_key(self) -> AsyncIterator[None]:
        outer = _at_hand.set((self, await self._ask_for_key()))
        try:
            yield
        finally:
            try:
                _at_hand.reset(outer)
            except ValueError:
                pass  # left in another context than entered: that one never saw the key

    async def _key(self) -> str:
        at_hand = _at_hand.get()
        return at_hand[1] if at_hand is not None and at_hand[0] is self else await self._ask_for_key()

    async def _ask_for_key(self) -> str:
        assert callable(self._api_key)  # noqa: S101 - asked before
        awaitable: Any = self._api_key()
        if not isawaitable(awaitable):
            raise ConfigurationError("the api_key function must be async")
        with anyio.move_on_after(self._timeout):
            key = await awaitable
            check_key("what the api_key function returned", key)
            return str(key)
        raise TimeoutError(f"the api_key function has returned no key within {self._timeout:g} s")

    async def aclose(self) -> None:
        """Close the running event loop's client, even while being cancelled."""
        client = self._clients.pop(current_token().native_token, None)
        if client is not None:
            with anyio.CancelScope(shield=True):
                await client.close()

    def _make(self) -> "AsyncOpenAI":
        from openai import OpenAIError, Timeout  # slow

        from .redaction import DiscreetOpenAI

        if self._api_key is None and os.environ.get("OPENAI_API_KEY"):
            check_key("OPENAI_API_KEY", os.environ["OPENAI_API_KEY"])
        key = self._key if callable(self._api_key) else self._api_key
        timeout = Timeout(self._timeout, connect=min(CONNECT_TIMEOUT, self._timeout))
        try:
            # Retries are our own, since each attempt is an event.
            return DiscreetOpenAI(api_key=key, base_url=self._base_url, timeout=timeout, max_retries=0)
        except OpenAIError as error:
            raise ConfigurationError(
                "there is no API key: set OPENAI_API_KEY, or give OpenAIPatternConfig(api_key=...)"
            ) from error


_at_hand: ContextVar[tuple[Clients, str] | None] = ContextVar("runmeter_api_key", default=None)
"""The key for the request that is about to be made, and whose it is."""


def _discreet(client: Any) -> "AsyncOpenAI":
    if not (hasattr(client, "with_options") and hasattr(client, "responses") and hasattr(client._client, "aclose")):  # noqa: SLF001
        said = type(client).__name__  # its own words may have a key in them
        raise ConfigurationError(
            f"client takes an async client such as openai.AsyncOpenAI(), not one of the type {said}"
        )
    from .redaction import discreet_copy  # slow, if the client were not there

    return discreet_copy(cast("AsyncOpenAI", client))


def check_key(source: str, key: object) -> None:
    """Check that a key can be sent. What the HTTP library says of one that cannot be quotes it.

    Args:
        source: Where it comes from, to be named in place of the key itself.
        key: A string.

    Raises:
        ConfigurationError: it is not a string, or has other characters than visible ASCII ones.
    """
    if not isinstance(key, str):
        raise ConfigurationError(f"{source}: expected a string or an async function, got {type(key).__name__}")
    if not re.fullmatch("[!-~]+", key):
        raise ConfigurationError(
            f"{source}: a key has visible ASCII characters only; this one is empty, or has a blank, a line break or "
            "another character in it: strip() it if it was read from a file"
        )


def _has_ended(loop: Any) -> bool:
    """Tell whether an event loop has ended: asyncio's loop says so, trio's token refuses to take work."""
    if hasattr(loop, "is_closed"):
        return bool(loop.is_closed())
    try:
        loop.run_sync_soon(_do_nothing)
    except RuntimeError:
        return True
    return False


def _do_nothing() -> None:
    """Do nothing, in an event loop that is asked to in order to find out whether it still does anything."""


def load_library() -> None:
    """Import the OpenAI client, which takes the better part of a second."""
    import openai
    import openai.types.responses  # noqa: F401
