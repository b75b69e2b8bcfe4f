"""What the patterns on the Responses API share."""

from collections.abc import Iterable
from typing import Any

from ..base import OpenAIBasePattern
from ..config import PatternConfig
from ..retry import RetryPolicy
from ..tools import ToolLike
from .models import SunsetGuard
from .responses import MeteredResponses
from .tool_loop import ToolLoop


class ResponsesPattern(OpenAIBasePattern):
    """A pattern on the Responses API.

    Args:
        config: An `OpenAIPatternConfig`.
        tools: What the model may call.
        ws_streaming: See `BasePattern`.
        retry: When to try a request again; by default what the config says.

    Raises:
        ConfigurationError: the config is of another kind, or a tool is none.
    """

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming)
        self.retry = retry or RetryPolicy(max_retries=self.config.max_retries)
        self.guard = SunsetGuard(check_shutdown_date=self.config.check_shutdown_date)
        self.responses = MeteredResponses(
            self.clients,
            self.retry,
            timeout=self.config.request_timeout,
            estimate=self.config.enable_token_counting,
            recover=self.config.recover_usage,
            delivery=self.delivery,
            guard=self.guard,
        )
        self.tool_loop = ToolLoop(self.config, self.toolbox, self.responses, self.delivery)
