"""The tool loop on the Responses API: ask, make the calls, tell their results, until an answer comes without a call."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from runmeter.engine import current_execution

from ...base import PatternResult
from ...call_ids import CallIds
from ...config import OpenAIPatternConfig
from ...delivery import Delivery
from ...messages import Item
from ...openai_client.models import takes_temperature
from ...requests.finish import finish_reason_of
from ...text import valid, valid_text
from ...tools.hosted import hosted_tools
from ...tools.toolbox import CallAllowance, FunctionRequest, FunctionResult, Toolbox
from .metered import MeteredResponses
from .stream import Deliver

if TYPE_CHECKING:
    from openai.types.responses import Response, ResponseOutputItem

R = TypeVar("R", bound=PatternResult)
Kept: TypeAlias = Literal["here", "response", "conversation"]
"""The place where what was said is kept between requests: here, so that each request sends all of it; in the answer
before, to which the next request refers by `previous_response_id`; or in a conversation of the API's."""


@dataclass(frozen=True, slots=True)
class LoopOutcome:
    """The outcome of a tool loop: the last answer, and all items and calls of it."""

    response: "Response"
    """The last answer."""
    items: tuple[Item, ...]
    """What it added to the conversation: all answers, and the outputs of the calls."""
    function_calls: tuple[FunctionResult, ...]
    turns: int

    @property
    def text(self) -> str:
        """The text of the last answer."""
        return text_of(self.response)

    @property
    def finish_reason(self) -> str:
        """The reason why the last answer ended, in the words of Chat Completions."""
        return finish_reason_of(self.response)

    @property
    def response_id(self) -> str:
        """The last answer's id, as a text that can be sent."""
        response_id: str = valid(self.response.id)
        return response_id

    def as_result(self, result: Callable[..., R], **fields: Any) -> R:
        """Make a pattern's result of the outcome.

        Args:
            result: The result's class.
            fields: What the result says beyond, or otherwise.
        """
        same: dict[str, Any] = {
            "content": self.text,
            "finish_reason": self.finish_reason,
            "messages": self.items,
            "turns": self.turns,
            "function_calls": self.function_calls,
            "response_id": self.response_id,
            "conversation_id": current_execution().info.conversation_id,
        }
        return result(**same | fields)


class ToolLoop:
    """Asks one model, with one set of tools.

    Every call is answered: one that fails, or that a limit forbids, with an error the model can read. When a limit is
    reached, tools are switched off for a last answer.

    Args:
        config: Which model, how, and the limits.
        toolbox: What the model may call.
        responses: Sends the requests.
        delivery: Tells whether pieces of the answer are wanted.
    """

    def __init__(
        self, config: OpenAIPatternConfig, toolbox: Toolbox, responses: MeteredResponses, delivery: Delivery
    ) -> None:
        self._config = config
        self._toolbox = toolbox
        self._responses = responses
        self._delivery = delivery
        self.definitions = [*_functions(toolbox), *hosted_tools(config.assistant_tools)]
        self._fixed = self._fixed_params()

    async def run(
        self,
        history: Sequence[Item],
        *,
        allowance: CallAllowance | None = None,
        params: Mapping[str, Any] | None = None,
        kept: Kept = "here",
        first_choice: Any = None,
        stop_after: Collection[str] = (),
        on_turn: Callable[[], None] | None = None,
        deliver: Deliver = True,
    ) -> LoopOutcome:
        """Have the model answer, and make the calls it asks for.

        Args:
            history: What it is told.
            allowance: The function calls that may still be made; by default the config's.
            params: What `client.responses.create` takes beyond the config's, such as `instructions`,
                `previous_response_id` or `conversation`.
            kept: Where what was said is kept between requests.
            first_choice: `tool_choice` of the first request; by default the config's mode.
            stop_after: Tools after whose success the loop ends, without another answer.
            on_turn: Told that a request is about to leave.
            deliver: Which of the answer's pieces are handed out: none if it is but a step on the way.

        Raises:
            BudgetExceeded: a budget has no room for a request, of this loop or of a run that one of its functions
                makes. It ends the loop, since what such a run is worth to the model is no longer to be paid for.
            ConfigurationError: there is no API key.
            RetiredModel: the model has been shut down.
            ResponseFailed: an answer ended in an error, or did not end.
            openai.APIError: a request was refused, or the connection failed, for the last time.
        """
        allowance = allowance or CallAllowance(self._config.max_function_calls)
        stream = (bool(deliver) and self._delivery.wanted) or self._config.stream_responses
        asked = {**self._fixed, **(params or {})}
        call_ids = CallIds(str(item.get("call_id")) for item in history)
        items: list[Item] = []
        results: list[FunctionResult] = []
        unsent = list(history)
        turn = 0
        while True:
            turn += 1
            if on_turn is not None:
                on_turn()
            choice = self._tool_choice(turn, allowance, first_choice)
            if self.definitions:
                asked["tool_choice"] = choice
            asked["input"] = [*history, *items] if kept == "here" else unsent
            response = await self._responses.create(asked, stream=stream, deliver=deliver)
            if kept == "here":  # what a server keeps has the ids that it gave
                response = _with_own_call_ids(response, call_ids)
            items += map(as_item, response.output)
            # Not every server keeps its model from calling what it must not.
            answers = await self._make_calls(response, CallAllowance(0) if choice == "none" else allowance)
            unsent = [_as_output(answer) for answer in answers]
            items += unsent
            results += answers
            if kept == "response":
                asked["previous_response_id"] = valid(response.id)
            stopped = any(answer.name in stop_after and answer.error_type is None for answer in answers)
            if stopped or not answers or response.status == "incomplete" or choice == "none":
                break
        return LoopOutcome(response, tuple(items), tuple(results), turn)

    async def _make_calls(self, response: "Response", allowance: CallAllowance) -> list[FunctionResult]:
        requests = [
            FunctionRequest(item.name, item.arguments or "", item.call_id)
            for item in response.output
            if item.type == "function_call"
        ]
        return await self._toolbox.answer(requests, allowance, complete=response.status == "completed")

    def _fixed_params(self) -> dict[str, Any]:
        """The parameters that are the same in every request."""
        config, tools = self._config, self.definitions or None
        effort = config.reasoning_effort
        return given(
            model=config.openai_model,
            store=config.store,
            tools=tools,
            parallel_tool_calls=config.parallel_tool_calls if tools else None,
            max_tool_calls=config.max_tool_calls if config.assistant_tools else None,
            max_output_tokens=config.openai_max_tokens,
            temperature=config.openai_temperature if takes_temperature(config.openai_model, effort) else None,
            reasoning={"effort": effort} if effort else None,
            service_tier=config.service_tier,
        )

    def _tool_choice(self, turn: int, allowance: CallAllowance, first: Any) -> Any:
        if turn >= self._config.max_iterations or allowance.left <= 0:
            return "none"
        mode = self._config.function_calling_mode
        if turn == 1:
            return first or mode
        # If every answer had to call a function, there would never be a last one.
        return "auto" if mode == "required" else mode


def given(**params: Any) -> dict[str, Any]:
    """Leave out the parameters that are None."""
    return {name: value for name, value in params.items() if value is not None}


def as_item(item: "ResponseOutputItem") -> Item:
    """Write an item of an answer as it is sent back: all that the API said, also what the client does not know."""
    as_sent: Item = valid(item.to_dict(mode="json", warnings=False))
    return as_sent


def text_of(response: "Response") -> str:
    """Read an answer's text, without what a model says while it works if it marks that; or why it refuses."""
    messages = [item for item in response.output if item.type == "message"]
    final = [message for message in messages if getattr(message, "phase", None) == "final_answer"] or messages
    return valid_text("".join(_text_of_part(part) for message in final for part in message.content))


def _text_of_part(part: Any) -> str:
    """Read the text of a message's part. Either may be missing: the client does not check what servers send."""
    return getattr(part, "text", None) or getattr(part, "refusal", None) or ""


def _with_own_call_ids(response: "Response", call_ids: CallIds) -> "Response":
    """Give each call of an answer an id that no other call in the conversation has."""
    calls = [item for item in response.output if item.type == "function_call"]
    own = {id(call): call_ids.call(getattr(call, "call_id", None), call.name) for call in calls}
    if all(getattr(call, "call_id", None) == own[id(call)] for call in calls):
        return response
    output = [
        item.model_copy(update={"call_id": own[id(item)]}) if item.type == "function_call" else item
        for item in response.output
    ]
    return response.model_copy(update={"output": output})


def _functions(toolbox: Toolbox) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            "strict": tool.strict,
        }
        for tool in toolbox
    ]


def _as_output(result: FunctionResult) -> Item:
    return {"type": "function_call_output", "call_id": valid_text(result.call_id), "output": result.output}
