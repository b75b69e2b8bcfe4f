"""Toolboxes: they answer all the function calls that a model asks for.

`Toolbox.answer` never raises because of a tool: what goes wrong is the model's answer, and is recorded as the call's
error. One thing does end the run: that a budget refuses a request which a tool makes. It is not for the model to decide
what to do without the money.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import anyio
import msgspec

from runmeter.engine import BudgetExceeded, ConfigurationError, UnboundedRequest, current_execution, is_own_failure

from ..errors import AnswerCutOff, CallLimitReached, ToolError, UnknownTool
from ..text import valid_text
from .tool import Tool, ToolLike, as_tool, as_tools


class FunctionRequest(msgspec.Struct, frozen=True):
    """A function call, as a model asks for it."""

    name: str
    arguments: str
    """The arguments as JSON."""
    call_id: str


class FunctionResult(msgspec.Struct, frozen=True):
    """A function call that was answered."""

    name: str
    call_id: str
    arguments: str
    """JSON, as the model wrote it."""
    output: str
    """The text that the model was told."""
    error_type: str | None = None
    """The reason why the call failed or was not made; None if the tool did its work."""


@dataclass
class CallAllowance:
    """The function calls that a run may make, in all its steps together."""

    limit: int
    made: int = 0

    @property
    def left(self) -> int:
        """The number of calls that may still be made."""
        return self.limit - self.made

    def take(self, calls: int) -> int:
        """Take so many of them, or as many as there are: at once, so that steps at work together share one limit."""
        granted = min(calls, self.left)
        self.made += granted
        return granted


class Toolbox:
    """The tools of a pattern, by name.

    Args:
        tools: Whatever stands for a tool.
        timeout: Seconds a call may take where its tool does not say.
        parallel: Whether the calls of one answer run at once, or one after the other.

    Raises:
        ConfigurationError: two tools have one name, or one of `tools` is not a tool.
    """

    def __init__(
        self, tools: Iterable[ToolLike] | None = None, *, timeout: float | None = None, parallel: bool = True
    ) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in map(as_tool, as_tools(tools)):
            if tool.name in self._tools:
                raise ConfigurationError(f"there are two tools {tool.name!r}")
            self._tools[tool.name] = tool
        self._timeout = timeout
        self._parallel = parallel

    def __len__(self) -> int:
        return len(self._tools)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    async def answer(
        self, requests: Sequence[FunctionRequest], allowance: CallAllowance, *, complete: bool = True
    ) -> list[FunctionResult]:
        """Answer function calls, every one of them. What a tool raises becomes the answer.

        Args:
            requests: What the model asked for in one answer.
            allowance: How many calls may still be made: what goes beyond is refused.
            complete: False if the answer was cut off, so that no call can be relied on: none is made.

        Returns:
            One result for each request, in their order.

        Raises:
            BudgetExceeded, UnboundedRequest: a budget refused a request that a tool made. The calls still at work are
                cancelled.
        """
        results: dict[int, FunctionResult] = {}

        async def put(number: int, request: FunctionRequest) -> None:
            results[number] = await self._call(request)

        allowed = allowance.take(len(requests)) if complete else 0
        if self._parallel and len(requests[:allowed]) > 1:
            try:
                async with anyio.create_task_group() as tasks:
                    for number, request in enumerate(requests[:allowed]):
                        tasks.start_soon(put, number, request, name=f"tool {request.name}")
            except ExceptionGroup as group:
                refused = refusal_in(group)
                if refused is None:
                    raise
                raise refused from None
        else:
            for number, request in enumerate(requests[:allowed]):
                await put(number, request)
        refusal = CallLimitReached(allowance.limit) if complete else AnswerCutOff()
        return [
            results[number] if number < allowed else _failure(request, refusal)
            for number, request in enumerate(requests)
        ]

    async def _call(self, request: FunctionRequest) -> FunctionResult:
        with current_execution().function_call(request.name, request.call_id) as call:
            try:
                tool = self._tools.get(request.name)
                if tool is None:
                    raise UnknownTool(request.name, self._tools)
                output = await tool.run(request.arguments, request.call_id, timeout=self._timeout)
            except BaseException as error:
                refused = refusal_in(error)
                if refused is error or not is_own_failure(error):
                    raise
                if refused is not None:
                    raise refused from None  # out of a group of the tool's own
                result = _failure(request, error)
                call.fail(type(error).__qualname__, _message_of(error))
                return result
        return FunctionResult(request.name, request.call_id, request.arguments, output)


def refusal_in(error: BaseException) -> BudgetExceeded | UnboundedRequest | None:
    """Find a budget's refusal, if an exception is one, or a group with one among them."""
    if isinstance(error, BudgetExceeded | UnboundedRequest):
        return error
    nested = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    refusals = (refusal_in(each) for each in nested)
    return next((refusal for refusal in refusals if refusal is not None), None)


def _failure(request: FunctionRequest, error: BaseException) -> FunctionResult:
    name, message = type(error).__qualname__, _message_of(error)
    output = f"Error: {message}" if isinstance(error, ToolError) else f"Error: {name}: {message}"
    return FunctionResult(request.name, request.call_id, request.arguments, output, name)


def _message_of(error: BaseException) -> str:
    try:
        return valid_text(str(error))
    except Exception:  # in the error's __str__: no reason for the run to fail
        return ""
