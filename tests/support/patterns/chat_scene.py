"""What the tests of LangChain models play in: a simulator, and models that ask it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient
from pattern_support import KEY
from pydantic import SecretStr
from scene_support import SimulatorScene


class ChatScene(SimulatorScene):
    """A simulator, and LangChain models that ask it."""

    def __init__(self, http: DefaultAsyncHttpxClient, sync_http: DefaultHttpxClient) -> None:
        super().__init__()
        self._http, self._sync_http = http, sync_http

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        """Run a simulator, and the HTTP clients of the models."""
        async with DefaultAsyncHttpxClient() as http:
            with DefaultHttpxClient() as sync_http:
                async with cls(http, sync_http) as scene:
                    yield scene

    def model(self, **settings: Any) -> ChatOpenAI:
        settings = {"model": "gpt-6-luna", "use_responses_api": True, "stream_usage": True, **settings}
        return ChatOpenAI(
            base_url=self.url,
            api_key=SecretStr(KEY),
            max_retries=0,
            http_async_client=self._http,
            http_client=self._sync_http,
            **settings,
        )
