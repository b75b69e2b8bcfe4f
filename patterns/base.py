"""The base class of patterns, and the base class of their results."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

import msgspec

from .config import OpenAIPatternConfig, PatternConfig, check_config, specialise
from .delivery import Delivery
from .tools.tool import ToolLike
from .tools.toolbox import FunctionResult, Toolbox


class PatternResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result that every pattern returns, or derives its own from."""

    content: str
    """The answer's text."""
    finish_reason: str = "stop"
    """The reason the last answer ended: `stop`, `length`, `content_filter`, `tool_calls` …"""
    messages: tuple[Any, ...] = ()
    """Messages that the run added to the conversation: Responses items as dicts, or LangChain messages."""
    turns: int = 0
    """Answers of the model, retries not counted."""
    function_calls: tuple[FunctionResult, ...] = ()
    """Function calls that the model asked for, also those that failed or were refused, in order."""
    response_id: str | None = None
    """The API's id of the last answer."""
    conversation_id: str | None = None


class BasePattern(ABC):
    """Base class of all patterns: `execute` does the work. It may be run many times, and many times at once.

    Args:
        config: What to do and how.
        tools: Functions, LangChain tools, dicts with a schema and a `handler`, or `Tool`s.
        ws_streaming: A WebSocket that the pieces of answers are sent to, as they come: anything with an async
            `send_json` or `send_text`. See `Delivery`.

    Raises:
        ConfigurationError: the config is not of the kind the pattern needs, or one of `tools` is not a tool.
    """

    pattern_type: ClassVar[str]
    framework: ClassVar[str]
    operation: ClassVar[Literal["invoke_agent", "invoke_workflow"]] = "invoke_agent"
    accepted_config: ClassVar[type[PatternConfig]] = PatternConfig
    """The most general config class that the pattern accepts."""
    config_type: ClassVar[type[PatternConfig]] = PatternConfig
    """The pattern's own kind of config. A more general one is made into it, with defaults for the rest."""

    def __init__(
        self, config: PatternConfig, tools: Iterable[ToolLike] | None = None, ws_streaming: Any = None
    ) -> None:
        check_config(self.pattern_type, self.accepted_config, config)
        self.config = config = specialise(self.pattern_type, self.config_type, config)
        parallel = not isinstance(config, OpenAIPatternConfig) or config.parallel_tool_calls
        self.toolbox = Toolbox(tools, timeout=config.tool_timeout, parallel=parallel)
        self.ws_streaming = ws_streaming
        self.delivery = Delivery(ws_streaming)

    @property
    def name(self) -> str:
        """The pattern's name in statistics and traces."""
        return self.config.name or str(self.pattern_type)

    @abstractmethod
    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> PatternResult:
        """Run the pattern on messages, and return its result.

        Args:
            messages: A string, OpenAI dicts or LangChain messages.
            context: What this run is told beyond its messages; each pattern says what it reads.
        """

    @classmethod  # noqa: B027 - a pattern may be built on nothing
    def preload(cls) -> None:
        """Import the libraries a pattern is built on, which takes a second, now and not in its first run."""

    async def aclose(self) -> None:
        """Close the clients and connections a pattern holds open. It opens anew if it is used again."""
        return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"
