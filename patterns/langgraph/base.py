"""What the LangGraph patterns share: the event loop they need, and the model they ask."""

import asyncio
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable

from ..base import BasePattern, OpenAIPatternConfig, PatternConfig
from ..errors import AsyncioRequired
from ..openai.client import Clients, load_library
from ..openai.models import check_not_retired, takes_temperature
from ..retry import RetryPolicy
from ..tools import Tool, ToolLike

if TYPE_CHECKING:
    from collections.abc import Mapping

ToolChoice: TypeAlias = Literal["auto", "any", "none"]
"""Whether the model may call tools, must, or has none."""


class LangGraphBasePattern(BasePattern):
    """A pattern on LangGraph. It needs asyncio.

    Args:
        config: A `PatternConfig`. An `OpenAIPatternConfig` describes the default model as well.
        tools: What the model may call.
        ws_streaming: See `BasePattern`.
        model: Any LangChain chat model; by default OpenAI's, over the Responses API.
        retry: When to try a request again; by default what the config says. A model's own retries come on top.

    Raises:
        ConfigurationError: the config is of another kind, or a tool is none.
    """

    framework = "langgraph"

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        model: BaseChatModel | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming)
        if model is None:
            import_module("langchain_openai")  # takes its second here, and not in the first run
        self._given_model = model
        self._retry = retry or RetryPolicy(max_retries=config.max_retries)
        self._openai = config if isinstance(config, OpenAIPatternConfig) else OpenAIPatternConfig()
        self._clients = Clients(self._openai.api_key, self._openai.base_url, config.request_timeout)
        self._definitions: list[dict[str, Any]] = [
            *map(_definition, self.toolbox),
            *map(dict, self._openai.assistant_tools),
        ]
        self._default_model: tuple[Any, BaseChatModel] | None = None
        self._bound: dict[ToolChoice, tuple[BaseChatModel, Runnable[Any, BaseMessage]]] = {}

    @property
    def model(self) -> BaseChatModel:
        """The chat model. The default one is made on first use, and anew for another event loop.

        Raises:
            ConfigurationError: there is no API key.
            RetiredModel: the default model's name is of one that has been shut down.
        """
        if self._given_model is not None:
            return self._given_model
        client = self._clients.get()
        default = self._default_model  # once: another thread, with a loop of its own, may replace it meanwhile
        if default is None or default[0] is not client:
            check_not_retired(self._openai.openai_model, client.base_url.host)
            default = self._default_model = client, _make_model(self._openai, client)
        return default[1]

    @classmethod
    def preload(cls) -> None:
        """Import the default model's libraries now; LangGraph came with this class."""
        import langchain_openai  # noqa: F401

        load_library()

    async def aclose(self) -> None:
        """Close the default model's client. A model that was given stays open: it is its owner's."""
        await self._clients.aclose()

    def _model_with_tools(self, choice: ToolChoice) -> Runnable[Any, BaseMessage]:
        model = self.model
        if choice == "none" or not self._definitions:
            return model
        bound = self._bound.get(choice)
        if bound is None or bound[0] is not model:
            settings: dict[str, Any] = {"tool_choice": "any"} if choice == "any" else {}
            if not self._openai.parallel_tool_calls:
                settings["parallel_tool_calls"] = False
            bound = self._bound[choice] = model, model.bind_tools(self._definitions, **settings)
        return bound[1]

    def _check_loop(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise AsyncioRequired(self.name) from None


def _make_model(config: OpenAIPatternConfig, client: Any) -> BaseChatModel:
    """OpenAI's model over our own client, whose errors hide the key and which leaves retries to the pattern."""
    from langchain_openai import ChatOpenAI  # only where no other model is given

    effort = config.reasoning_effort
    settings: Mapping[str, Any] = {
        "model": config.openai_model,
        "temperature": config.openai_temperature if takes_temperature(config.openai_model, effort) else None,
        "max_tokens": config.openai_max_tokens,
        "reasoning": {"effort": effort} if effort else None,
        "service_tier": config.service_tier,
        "store": config.store,
    }
    return ChatOpenAI(
        **{name: value for name, value in settings.items() if value is not None},
        base_url=str(client.base_url),
        async_client=client.chat.completions,
        root_async_client=client,
        max_retries=0,
        use_responses_api=True,
        stream_usage=True,  # else there is none with a base URL of one's own
    )


def _definition(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": {**function, "strict": True} if tool.strict else function}
