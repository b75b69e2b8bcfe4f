"""Function calling: the model answers with the help of functions it may call, over the Responses API."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runmeter.engine import ConfigurationError

from ..base import PatternResult
from ..config import Name, OpenAIPatternConfig, PatternConfig, PatternType
from ..context import instructions_of
from ..messages import to_items
from ..requests.retry import RetryPolicy
from ..tools.tool import ToolLike
from .base import OpenAIBasePattern
from .responses.tool_loop import given

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass(frozen=True, kw_only=True)
class OpenAIFunctionCallingConfig(OpenAIPatternConfig):
    """Settings of function calling, beyond those of every OpenAI pattern."""

    first_function: Name | None = None
    """The function that the first answer must call."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first_function is not None and self.function_calling_mode == "none":
            raise ConfigurationError("first_function: function_calling_mode 'none' forbids what it asks for")


class OpenAIFunctionCallingPattern(OpenAIBasePattern):
    """Asks the model, makes the function calls it wants, tells it their results, until it answers without a call.

    Every call is answered: one that fails, or that a limit forbids, with an error the model can read. When a limit is
    reached, tools are switched off for a last answer. The history is kept here and sent whole with each request, so
    nothing has to be stored by OpenAI.

    Of the context of a run it reads `instructions`, in place of `system_prompt`, and `previous_response_id`, an answer
    that OpenAI has stored and this run goes on from.

    Args:
        config: An `OpenAIPatternConfig`, or an `OpenAIFunctionCallingConfig`.
        tools: What the model may call.
        ws_streaming: See `BasePattern`.
        retry: When to try a request again; by default what the config says.
        client: The client to ask with, such as `AsyncAzureOpenAI(...)` or one with proxies, certificates or headers of
            its own; by default one that the config describes. The pattern does not close it.

    Raises:
        ConfigurationError: the config is of another kind, one of `tools` is not a tool, or calls are required and there
            is no tool.
    """

    pattern_type = PatternType.OPENAI_FUNCTION_CALLING
    config_type = OpenAIFunctionCallingConfig
    config: OpenAIFunctionCallingConfig

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        retry: RetryPolicy | None = None,
        client: "AsyncOpenAI | None" = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming, retry=retry, client=client)
        if self.config.function_calling_mode == "required" and not self.tool_loop.definitions:
            raise ConfigurationError("function_calling_mode is 'required', but there are no tools")
        first = self.config.first_function
        if first is not None and first not in {tool.name for tool in self.toolbox}:
            raise ConfigurationError(f"first_function is {first!r}, but there is no such tool")
        self._first_choice = {"type": "function", "name": first} if first else None

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> PatternResult:
        """Answer messages, with the help of function calls.

        Args:
            messages: A string, OpenAI dicts or LangChain messages.
            context: `instructions` and `previous_response_id`, each optional.

        Raises:
            ConfigurationError: a message is not valid, or there is no API key.
            RetiredModel: the model has been shut down.
            ResponseFailed: an answer ended in an error, or did not end.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        context = context or {}
        params = given(
            instructions=instructions_of(context, self.config.system_prompt),
            previous_response_id=context.get("previous_response_id"),
        )
        outcome = await self.tool_loop.run(to_items(messages), params=params, first_choice=self._first_choice)
        return outcome.as_result(PatternResult)
