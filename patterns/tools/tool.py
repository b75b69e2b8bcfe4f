"""Tools: functions a model may call. Made from plain functions, LangChain tools, or schemas with a handler."""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import anyio
import anyio.to_thread

from runmeter.engine import ConfigurationError

from ..errors import ToolTimeout
from ..functions import call_function
from .class_schemas import Schema
from .injected import check_return
from .langchain_tools import langchain_call
from .outputs import told
from .schema import Arguments, arguments_from_schema, arguments_of, parse_docstring
from .strict_form import strict

ToolLike: TypeAlias = Any
"""A `Tool`, a plain function, a LangChain tool, or a dict with a schema and a `handler`."""


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
    """True if the API makes the model keep to the schema, which it then sees in strict form."""

    def __post_init__(self) -> None:
        # Source: function tools in the API reference, developers.openai.com/api/reference (2026-11).
        name: object = self.name  # LangChain's, for one, are whatever they are
        if not isinstance(name, str) or not re.fullmatch("[a-zA-Z0-9_-]{1,64}", name):
            raise ConfigurationError(
                f"tool {self.name!r}: a tool's name has 1 to 64 letters, digits, _ and -; give it one with name="
            )
        description: object = self.description
        if not isinstance(description, str):
            raise ConfigurationError(f"tool {self.name!r}: description must be a string, is {description!r:.100}")
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
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"tool {name!r} is a generator: return a list of what it yields")
        text, texts = parse_docstring(function)
        try:
            check_return(function)
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
        """Make a tool of a LangChain tool. One with a coroutine needs asyncio; one without runs in a worker thread.

        Raises:
            ConfigurationError: it needs a graph: its state, its store, its runtime, or somebody who obeys its commands.
        """
        try:
            call = langchain_call(tool)
            shape = tool.tool_call_schema
            arguments = arguments_from_schema(shape if isinstance(shape, Mapping) else shape.model_json_schema())
        except ConfigurationError as error:
            raise ConfigurationError(f"tool {tool.name!r}: {error}") from error
        return cls(tool.name, tool.description, arguments, call, timeout)

    async def run(self, arguments: str, call_id: str = "", *, timeout: float | None = None) -> str:
        """Run the tool on arguments.

        Args:
            arguments: JSON, as the model wrote it.
            call_id: The model's id for the call.
            timeout: Seconds it may take, if the tool itself does not say.

        Returns:
            What to tell the model: a string as it is, anything else as JSON.

        Raises:
            InvalidArguments: the arguments are not what the tool takes.
            ToolFailed: what the tool returned says that it failed.
            ToolTimeout: it took longer than it may.
            Exception: whatever the tool raises.
        """
        values = self.arguments.read(arguments, null_is_absent=self.strict)
        timeout = self.timeout if self.timeout is not None else timeout
        with anyio.move_on_after(timeout) as scope:
            return told(await self.function(values, call_id))
        assert scope.cancelled_caught  # noqa: S101 - the only way here
        assert timeout is not None  # noqa: S101 - else it was not
        raise ToolTimeout(self.name, timeout)


def as_tool(tool: ToolLike) -> Tool:
    """Make a `Tool` of a value that stands for one.

    Raises:
        ConfigurationError: it does not stand for one, or cannot be described to a model.
    """
    if isinstance(tool, Tool):
        return tool
    if isinstance(tool, Mapping):
        return Tool.from_schema(tool)
    if hasattr(tool, "tool_call_schema") and hasattr(tool, "ainvoke"):
        return Tool.from_langchain(tool)
    if callable(tool) and not isinstance(tool, type):
        return Tool.from_function(tool)
    raise ConfigurationError(
        f"{tool!r} is not a tool: give a function, a LangChain tool, a dict with a schema, or a Tool"
    )


def as_tools(tools: Any) -> tuple[ToolLike, ...]:
    """Check that a value is several tools, or none.

    Raises:
        ConfigurationError: it is one tool, and not a list of one, or not a list at all.
    """
    if tools is None:
        return ()
    if not isinstance(tools, Iterable) or isinstance(tools, str | Mapping) or hasattr(tools, "tool_call_schema"):
        raise ConfigurationError(f"tools must be a list, also if there is one only; got {tools!r}")
    return tuple(tools)


def _by_name(function: Callable[..., Any]) -> Callable[[Mapping[str, Any], str], Awaitable[Any]]:
    """Call a function with arguments by name, a sync one in a worker thread."""

    async def call(arguments: Mapping[str, Any], call_id: str) -> Any:  # noqa: ARG001 - functions do not ask for it
        return await call_function(function, **arguments)

    return call
