"""Clients of the OpenAI API: one for each event loop, made on first use."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import current_token

from runmeter.engine import ConfigurationError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONNECT_TIMEOUT = 5.0
"""Seconds to reach the server: the client's own default."""


class Clients:
    """The clients of one pattern. Connections belong to the event loop they were opened in, so each loop has its own.

    Args:
        api_key: A key, an async function that gets one, or None for `OPENAI_API_KEY`.
        base_url: None stands for `OPENAI_BASE_URL` or OpenAI's own.
        timeout: Seconds to wait for anything from the server.
    """

    def __init__(
        self, api_key: str | Callable[[], Awaitable[str]] | None, base_url: str | None, timeout: float
    ) -> None:
        self._api_key = api_key
        self._base_url = base_url
        self._timeout = timeout
        self._clients: WeakKeyDictionary[object, AsyncOpenAI] = WeakKeyDictionary()

    def get(self) -> "AsyncOpenAI":
        """The running event loop's client.

        Raises:
            ConfigurationError: there is no API key.
        """
        loop = current_token().native_token
        client = self._clients.get(loop)
        if client is None or client.is_closed():
            client = self._clients[loop] = self._make()
        return client

    async def aclose(self) -> None:
        """Close the running event loop's client, even while being cancelled."""
        client = self._clients.pop(current_token().native_token, None)
        if client is not None:
            with anyio.CancelScope(shield=True):
                await client.close()

    def _make(self) -> "AsyncOpenAI":
        from openai import OpenAIError, Timeout  # slow

        from .discreet import DiscreetOpenAI

        timeout = Timeout(self._timeout, connect=min(CONNECT_TIMEOUT, self._timeout))
        try:
            # Retries are our own, since each attempt is an event.
            return DiscreetOpenAI(api_key=self._api_key, base_url=self._base_url, timeout=timeout, max_retries=0)
        except OpenAIError as error:
            raise ConfigurationError(
                "there is no API key: set OPENAI_API_KEY, or give OpenAIPatternConfig(api_key=...)"
            ) from error
