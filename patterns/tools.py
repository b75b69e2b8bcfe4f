"""Tools: functions a model may call. Made from plain functions, LangChain tools, or schemas with a handler.

`Tool.run` runs one; `Toolbox.answer` answers everything a model asked for at once, and never raises because of a tool:
what goes wrong is the model's answer, and is recorded as the call's error. One thing does end the run: that a budget
refuses a request which a tool makes. It is not for the model to decide what to do without the money.
"""

import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, TypeVar
from uuid import UUID, uuid4

import anyio
import anyio.to_thread
import msgspec
from anyio.lowlevel import RunVar

from runmeter.engine import BudgetExceeded, ConfigurationError, UnboundedRequest, current_execution, is_own_failure

from .errors import AnswerCutOff, CallLimitReached, ToolError, ToolFailed, ToolTimeout, UnknownTool
from .schema import Arguments, Schema, arguments_from_schema, arguments_of, parse_docstring, strict
from .text import valid_text

ToolLike: TypeAlias = Any
"""A `Tool`, a plain function, a LangChain tool, or a dict with a schema and a `handler`."""

metered_tool_run: ContextVar[UUID | None] = ContextVar("runmeter_metered_tool_run", default=None)
"""LangChain's id of a tool run that is a function call already: a callback handler must not count it again."""

MAX_THREADS = 40
"""Sync tools at work at once in an event loop, those not counted that nobody waits for any longer."""
_threads: RunVar[anyio.CapacityLimiter] = RunVar("runmeter_tool_threads")
_T = TypeVar("_T")


class FunctionRequest(msgspec.Struct, frozen=True):
    """A function call, as a model asks for it."""

    name: str
    arguments: str
    """JSON."""
    call_id: str


class FunctionResult(msgspec.Struct, frozen=True):
    """A function call that was answered."""

    name: str
    call_id: str
    arguments: str
    """JSON, as the model wrote it."""
    output: str
    """What the model was told."""
    error_type: str | None = None
    """Why the call failed or was not made; None if the tool did its work."""


@dataclass(frozen=True)
class Tool:
    """A function a model may call. Make one with `from_function`, `from_schema`, `from_langchain`, or `as_tool`."""

    name: str
    description: str
    arguments: Arguments
    function: Callable[[Mapping[str, Any], str], Awaitable[Any]]
    """Does the work, given the arguments by name and the model's id for the call."""
    timeout: float | None = None
    """Seconds it may take; None leaves that to the pattern."""
    strict: bool = False
    """Whether the API makes the model keep to the schema, which it then sees in strict form."""

    def __post_init__(self) -> None:
        # Source: function tools in the API reference, developers.openai.com/api/reference (2026-11).
        name: object = self.name  # LangChain's, for one, are whatever they are
        if not isinstance(name, str) or not re.fullmatch("[a-zA-Z0-9_-]{1,64}", name):
            raise ConfigurationError(
                f"tool {self.name!r}: a tool's name has 1 to 64 letters, digits, _ and -; give it one with name="
            )
        timeout: object = self.timeout
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise ConfigurationError(f"tool {self.name!r}: timeout must be a positive number, is {timeout!r}")
        try:
            _ = self.parameters
        except ConfigurationError as error:
            raise ConfigurationError(f"tool {self.name!r}: {error}") from error

    @property
    def parameters(self) -> Schema:
        """The JSON schema of the arguments, as the model sees it."""
        return strict(self.arguments.schema) if self.strict else self.arguments.schema

    @classmethod
    def from_function(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        strict: bool = False,
    ) -> Self:
        """Make a tool of a plain function, sync or async. A sync one runs in a worker thread.

        A thread cannot be stopped: after a timeout or a cancellation it goes on, and its result is dropped. One that
        never returns keeps the process from exiting.

        Args:
            function: Its type hints become the schema. Its docstring describes it, a Google-style `Args:` section or
                `Annotated[int, "how many"]` its parameters.
            name: By default the function's.
            description: By default the docstring's text before its sections.
            timeout: Seconds a call may take; None leaves that to the pattern.
            strict: Have the API hold the model to the schema. Not every schema can be strict.

        Raises:
            ConfigurationError: the signature or a type in it cannot be described to a model, or there is no name.
        """
        name = name or getattr(function, "__name__", None) or type(function).__name__
        text, texts = parse_docstring(function)
        try:
            arguments = arguments_of(function, texts)
        except ConfigurationError as error:
            raise ConfigurationError(f"tool {name!r}: {error}") from error
        description = text if description is None else description
        return cls(name, description, arguments, _by_name(function), timeout, strict)

    @classmethod
    def from_schema(
        cls, definition: Mapping[str, Any], *, timeout: float | None = None, strict: bool | None = None
    ) -> Self:
        """Make a tool of a schema in the form of MCP or OpenAI, and a function that does the work.

        Args:
            definition: `name`, `description`, the JSON schema under `inputSchema` or `parameters`, and under `handler`
                a function, sync or async, that takes the arguments by name.
            timeout: Seconds a call may take; None leaves that to the pattern.
            strict: As in `from_function`; by default what the definition says.

        Raises:
            ConfigurationError: the definition has no name or handler, or its schema is not that of an object.
        """
        nested = definition.get("function")
        definition = {**definition, **(nested if isinstance(nested, Mapping) else {})}
        name, handler = definition.get("name"), definition.get("handler")
        if not isinstance(name, str) or not callable(handler):
            raise ConfigurationError(
                f"a tool given as a dict needs a 'name' and a callable 'handler'; got the keys {sorted(definition)}"
            )
        schema = definition.get("inputSchema") or definition.get("input_schema") or definition.get("parameters") or {}
        try:
            arguments = arguments_from_schema(schema)
        except ConfigurationError as error:
            raise ConfigurationError(f"tool {name!r}: {error}") from error
        if strict is None:
            strict = bool(definition.get("strict", False))
        description = definition.get("description") or ""
        return cls(name, description, arguments, _by_name(handler), timeout, strict)

    @classmethod
    def from_langchain(cls, tool: Any, *, timeout: float | None = None) -> Self:
        """Make a tool of a LangChain tool. One with a coroutine needs asyncio; one without runs in a worker thread."""
        shape = tool.tool_call_schema
        schema = shape if isinstance(shape, Mapping) else shape.model_json_schema()
        return cls(tool.name, tool.description, arguments_from_schema(schema), _langchain_call(tool), timeout)

    async def run(self, arguments: str, call_id: str = "", *, timeout: float | None = None) -> str:
        """Run it.

        Args:
            arguments: JSON, as the model wrote it.
            call_id: The model's id for the call.
            timeout: Seconds it may take, if the tool itself does not say.

        Returns:
            What to tell the model: a string as it is, anything else as JSON.

        Raises:
            InvalidArguments: the arguments are not what the tool takes.
            ToolTimeout: it took longer than it may.
            Exception: whatever the tool raises.
        """
        values = self.arguments.read(arguments, null_is_absent=self.strict)
        timeout = self.timeout if self.timeout is not None else timeout
        with anyio.move_on_after(timeout) as scope:
            return render(await self.function(values, call_id))
        assert scope.cancelled_caught  # noqa: S101 - the only way here
        assert timeout is not None  # noqa: S101 - else it was not
        raise ToolTimeout(self.name, timeout)


def as_tool(tool: ToolLike) -> Tool:
    """Make a `Tool` of whatever stands for one.

    Raises:
        ConfigurationError: it is none, or cannot be described to a model.
    """
    if isinstance(tool, Tool):
        return tool
    if isinstance(tool, Mapping):
        return Tool.from_schema(tool)
    if hasattr(tool, "tool_call_schema") and hasattr(tool, "ainvoke"):
        return Tool.from_langchain(tool)
    if callable(tool) and not isinstance(tool, type):
        return Tool.from_function(tool)
    raise ConfigurationError(f"{tool!r} is no tool: give a function, a LangChain tool, a dict with a schema, or a Tool")


def as_tools(tools: Any) -> tuple[ToolLike, ...]:
    """Several tools, or none.

    Raises:
        ConfigurationError: it is one tool, and not a list of one, or none at all.
    """
    if tools is None:
        return ()
    if not isinstance(tools, Iterable) or isinstance(tools, str | Mapping) or hasattr(tools, "tool_call_schema"):
        raise ConfigurationError(f"tools must be a list, also if there is one only; got {tools!r}")
    return tuple(tools)


@dataclass
class CallAllowance:
    """The function calls that a run may make, in all its steps together."""

    limit: int
    made: int = 0

    @property
    def left(self) -> int:
        """How many may still be made."""
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
        ConfigurationError: two tools have one name, or something is no tool.
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
    """A budget's refusal, if an exception is one, or a group with one among them."""
    if isinstance(error, BudgetExceeded | UnboundedRequest):
        return error
    nested = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    refusals = (refusal_in(each) for each in nested)
    return next((refusal for refusal in refusals if refusal is not None), None)


def render(value: Any) -> str:
    """What a tool returned, as the model is told it: a string as it is, anything else as JSON."""
    if isinstance(value, str):
        return valid_text(value)
    try:
        return msgspec.json.encode(value, enc_hook=_to_plain).decode()
    except (TypeError, ValueError, RecursionError):
        return valid_text(str(value))


def _to_plain(value: Any) -> Any:
    """What msgspec does not write itself: pydantic models, and the rest as text."""
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else str(value)


def _failure(request: FunctionRequest, error: BaseException) -> FunctionResult:
    name, message = type(error).__qualname__, _message_of(error)
    output = f"Error: {message}" if isinstance(error, ToolError) else f"Error: {name}: {message}"
    return FunctionResult(request.name, request.call_id, request.arguments, output, name)


def _message_of(error: BaseException) -> str:
    try:
        return valid_text(str(error))
    except Exception:  # in somebody's __str__: no reason for the run to fail
        return ""


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Do it in a thread. Whoever is cancelled waits no longer; the thread goes on.

    The threads of tools are counted by themselves, so that tools that hang keep nobody else from working.
    """
    limiter = _threads.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(MAX_THREADS)
        _threads.set(limiter)
    async with limiter:
        # The second one is for trio, which holds a place until the thread itself ends.
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))


def _by_name(function: Callable[..., Any]) -> Callable[[Mapping[str, Any], str], Awaitable[Any]]:
    """Call a function with arguments by name, a sync one in a worker thread."""
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)

    async def call(arguments: Mapping[str, Any], call_id: str) -> Any:  # noqa: ARG001 - functions do not ask for it
        if is_async:
            return await function(**arguments)
        # In a tuple: what the thread returns may be awaitable, and trio would take that for a mistake.
        (result,) = await _in_thread(lambda: (function(**arguments),))
        return await result if inspect.isawaitable(result) else result

    return call


def _langchain_call(tool: Any) -> Callable[[Mapping[str, Any], str], Awaitable[Any]]:
    # LangChain gives sync tools to asyncio's thread pool, which trio has not: they go to anyio's.
    if hasattr(tool, "coroutine"):
        sync = tool.coroutine is None
    else:
        sync = getattr(getattr(type(tool), "_arun", None), "__qualname__", "") == "BaseTool._arun"

    async def call(arguments: Mapping[str, Any], call_id: str) -> Any:
        request = {"type": "tool_call", "name": tool.name, "args": dict(arguments), "id": call_id}
        run_id = uuid4()
        config = {"run_id": run_id}
        token = metered_tool_run.set(run_id)
        try:
            if sync:
                message = await _in_thread(functools.partial(tool.invoke, request, config))
            else:
                message = await tool.ainvoke(request, config)
        finally:
            metered_tool_run.reset(token)
        if getattr(message, "status", None) == "error":
            raise ToolFailed(render(message.content))
        return getattr(message, "content", message)

    return call
