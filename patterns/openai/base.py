"""What the patterns on the OpenAI API share: clients, retries, metered requests, and a loop of tool calls."""

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..base import BasePattern
from ..config import OpenAIPatternConfig, PatternConfig
from ..openai_client.clients import Clients, load_library
from ..openai_client.models import SunsetGuard
from ..requests.retry import RetryPolicy
from ..tools.tool import ToolLike

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from .responses.metered import MeteredResponses
    from .responses.tool_loop import ToolLoop


class OpenAIBasePattern(BasePattern):
    """Base class of the patterns on the OpenAI API, with one client for each event loop, made on first use.

    A pattern of one's own derives from it and implements `execute`, with `responses` for single requests or with
    `tool_loop` for answers that may call tools.

    Args:
        config: An `OpenAIPatternConfig`.
        tools: What the model may call.
        ws_streaming: See `BasePattern`.
        retry: When to try a request again; by default what the config says.
        client: The client to ask with, such as `AsyncAzureOpenAI(...)` or one with proxies, certificates or headers of
            its own; by default one that the config describes. The pattern does not close it.

    Raises:
        ConfigurationError: the config is of another kind, or a tool is not one.
    """

    framework = "openai"
    accepted_config = OpenAIPatternConfig
    config_type: ClassVar[type[PatternConfig]] = OpenAIPatternConfig
    config: OpenAIPatternConfig

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        retry: RetryPolicy | None = None,
        client: "AsyncOpenAI | None" = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming)
        self.clients = Clients(self.config.api_key, self.config.base_url, self.config.request_timeout, client)
        self.retry = retry or RetryPolicy(max_retries=self.config.max_retries)

    # Both are made on first use, because they import the OpenAI client, which a class that derives from this need not.

    @cached_property
    def responses(self) -> "MeteredResponses":
        """The sender of requests to the Responses API, each attempt metered."""
        from .responses.metered import MeteredResponses

        return MeteredResponses(
            self.clients,
            self.retry,
            timeout=self.config.request_timeout,
            estimate=self.config.enable_token_counting,
            recover=self.config.recover_usage,
            delivery=self.delivery,
            guard=SunsetGuard(check_shutdown_date=self.config.check_shutdown_date),
        )

    @cached_property
    def tool_loop(self) -> "ToolLoop":
        """The loop that asks the model, makes the calls it wants, and asks again."""
        from .responses.tool_loop import ToolLoop

        return ToolLoop(self.config, self.toolbox, self.responses, self.delivery)

    @property
    def openai_config(self) -> OpenAIPatternConfig:
        """The pattern's config, of its own class."""
        return self.config

    @classmethod
    def preload(cls) -> None:
        """Import the OpenAI client now."""
        load_library()

    async def aclose(self) -> None:
        """Close the pattern's clients. The pattern makes new ones if it is used again."""
        await self.clients.aclose()
