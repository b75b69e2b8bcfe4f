"""Requests to the OpenAI API other than for answers: with a deadline, and again after errors that may pass."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self, TypeVar

import anyio

from ...config import OpenAIPatternConfig
from ...errors import ResponseFailed
from ...openai_client.clients import Clients
from ...requests.retry import RetryPolicy, with_retries

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")


class Requests:
    """Sends requests to the OpenAI API, and again after errors that may pass.

    Args:
        clients: Where the client comes from.
        policy: When to try again.
        timeout: Seconds an attempt may take, its answer included.
        own_clients: Whether `aclose` closes the clients.
    """

    def __init__(self, clients: Clients, policy: RetryPolicy, timeout: float, *, own_clients: bool = False) -> None:
        self.clients = clients
        self.policy = policy
        self._timeout = timeout
        self._own_clients = own_clients

    @classmethod
    def of(cls, config: OpenAIPatternConfig, retry: RetryPolicy | None = None, clients: Clients | None = None) -> Self:
        """Make one for a config, over clients of its own unless there are others to use."""
        return cls(
            clients or Clients(config.api_key, config.base_url, config.request_timeout),
            retry or RetryPolicy(max_retries=config.max_retries),
            config.request_timeout,
            own_clients=clients is None,
        )

    async def aclose(self) -> None:
        """Close the clients if they are its own."""
        if self._own_clients:
            await self.clients.aclose()

    async def send(self, request: Callable[["AsyncOpenAI"], Awaitable[T]]) -> T:
        """Send a request, and again after errors that may pass.

        Args:
            request: Sends it once.

        Raises:
            ConfigurationError: there is no API key.
            ResponseFailed: there was no answer in time, or the clients were closed, for the last time.
            openai.APIError: the request was refused, or the connection failed, for the last time.
        """
        return await with_retries(lambda _: self.attempt(request), self.policy)

    async def attempt(self, request: Callable[["AsyncOpenAI"], Awaitable[T]]) -> T:
        """Send a request once. Raises what `send` raises."""
        client = self.clients.get()
        try:
            with anyio.move_on_after(self._timeout):
                return await request(client)
        except RuntimeError as error:
            if not client.is_closed():
                raise
            raise ResponseFailed("client_closed", "aclose() was called before the request left") from error
        raise ResponseFailed("request_timeout", f"there was no answer within {self._timeout:g} s")
