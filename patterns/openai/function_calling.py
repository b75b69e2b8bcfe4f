"""Function calling: the model answers with the help of functions it may call, over the Responses API."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from runmeter.engine import ConfigurationError, current_execution

from ..base import OpenAIBasePattern, PatternConfig, PatternResult, PatternType
from ..messages import Item, to_items
from ..retry import RetryPolicy
from ..text import valid
from ..tools import FunctionRequest, FunctionResult, ToolLike
from .models import takes_temperature
from .responses import MeteredResponses
from .usage import finish_reason_of

if TYPE_CHECKING:
    from openai.types.responses import Response, ResponseOutputItem


class OpenAIFunctionCallingPattern(OpenAIBasePattern):
    """Asks the model, makes the function calls it wants, tells it their results, until it answers without a call.

    Every call is answered: one that fails, or that a limit forbids, with an error the model can read. When a limit is
    reached, tools are switched off for a last answer. The history is kept here and sent whole with each request, so
    nothing has to be stored by OpenAI.

    Of the context of a run it reads `instructions`, in place of `system_prompt`, and `previous_response_id`, an answer
    that OpenAI has stored and this run goes on from.

    Args:
        config: An `OpenAIPatternConfig`.
        tools: What the model may call.
        ws_streaming: See `BasePattern`.
        retry: When to try a request again; by default what the config says.

    Raises:
        ConfigurationError: the config is of another kind, a tool is none, or calls are required and there is no tool.
    """

    pattern_type = PatternType.OPENAI_FUNCTION_CALLING

    def __init__(
        self,
        config: PatternConfig,
        tools: Iterable[ToolLike] | None = None,
        ws_streaming: Any = None,
        *,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(config, tools, ws_streaming)
        self._definitions = [
            *(
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                    "strict": tool.strict,
                }
                for tool in self.toolbox
            ),
            *self.config.assistant_tools,
        ]
        if self.config.function_calling_mode == "required" and not self._definitions:
            raise ConfigurationError("function_calling_mode is 'required', but there are no tools")
        self._fixed = self._fixed_params()
        self._responses = MeteredResponses(
            self.clients,
            retry or RetryPolicy(max_retries=self.config.max_retries),
            timeout=self.config.request_timeout,
            estimate=self.config.enable_token_counting,
        )

    async def execute(self, messages: Any, context: Mapping[str, Any] | None = None) -> PatternResult:
        """Answer.

        Args:
            messages: A string, OpenAI dicts or LangChain messages.
            context: `instructions` and `previous_response_id`, each optional.

        Raises:
            ConfigurationError: something is no message, or there is no API key.
            RetiredModel: the model has been shut down.
            ResponseFailed: an answer ended in an error, or did not end.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        context = context or {}
        execution = current_execution()
        history = to_items(messages)
        params = self._fixed | _given(
            instructions=context.get("instructions", self.config.system_prompt),
            previous_response_id=context.get("previous_response_id"),
        )
        stream = execution.streaming or self.config.stream_responses
        new: list[Item] = []
        results: list[FunctionResult] = []
        turn = 0
        while True:
            turn += 1
            choice = self._tool_choice(turn, len(results))
            response = await self._responses.create(params | choice | {"input": history + new}, stream=stream)
            new += [_as_item(item) for item in response.output]
            answers = await self._make_calls(response, made=len(results))
            new += [_as_output(answer) for answer in answers]
            results += answers
            if not answers or response.status == "incomplete" or choice.get("tool_choice") == "none":
                break
        return PatternResult(
            content=_text_of(response),
            finish_reason=finish_reason_of(response),
            messages=tuple(new),
            turns=turn,
            function_calls=tuple(results),
            response_id=response.id,
            conversation_id=execution.info.conversation_id,
        )

    async def _make_calls(self, response: "Response", *, made: int) -> list[FunctionResult]:
        requests = [
            FunctionRequest(item.name, item.arguments or "", item.call_id)
            for item in response.output
            if item.type == "function_call"
        ]
        complete = response.status == "completed"
        return await self.toolbox.answer(requests, made=made, limit=self.config.max_function_calls, complete=complete)

    def _fixed_params(self) -> dict[str, Any]:
        """What is the same in every request."""
        config = self.config
        effort, tools = config.reasoning_effort, self._definitions or None
        temperature = config.openai_temperature if takes_temperature(config.openai_model, effort) else None
        return _given(
            model=config.openai_model,
            store=config.store,
            tools=tools,
            parallel_tool_calls=config.parallel_tool_calls if tools else None,
            max_output_tokens=config.openai_max_tokens,
            temperature=temperature,
            reasoning={"effort": effort} if effort else None,
            service_tier=config.service_tier,
        )

    def _tool_choice(self, turn: int, calls: int) -> dict[str, Any]:
        config = self.config
        if not self._definitions:
            return {}
        if turn == config.max_iterations or calls >= config.max_function_calls:
            return {"tool_choice": "none"}
        # If every answer had to call a function, there would never be a last one.
        mode = config.function_calling_mode
        return {"tool_choice": "auto" if mode == "required" and turn > 1 else mode}


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _as_item(item: "ResponseOutputItem") -> Item:
    """An item of the answer as it is sent back: all that the API said, also what the client does not know."""
    as_sent: Item = valid(item.to_dict(mode="json"))
    return as_sent


def _as_output(result: FunctionResult) -> Item:
    return {"type": "function_call_output", "call_id": result.call_id, "output": result.output}


def _text_of(response: "Response") -> str:
    """The answer's text, without what a model says while it works if it marks that; or why it refuses."""
    messages = [item for item in response.output if item.type == "message"]
    final = [message for message in messages if getattr(message, "phase", None) == "final_answer"] or messages
    return "".join(
        part.text if part.type == "output_text" else part.refusal for message in final for part in message.content
    )
