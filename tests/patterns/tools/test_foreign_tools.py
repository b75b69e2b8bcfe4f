"""Functions and tools written for other frameworks: what they return and need is understood, or refused by name."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any

import pydantic
import pytest
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool
from langchain_core.tools import tool as langchain_tool
from langgraph.prebuilt import InjectedState, InjectedStore, ToolRuntime
from langgraph.types import Command
from pattern_support import Run
from typing_extensions import TypedDict

from runmeter.engine import ConfigurationError
from runmeter.patterns import Tool
from runmeter.patterns.errors import InvalidArguments
from runmeter.patterns.tools.tool import as_tool
from runmeter.patterns.tools.toolbox import CallAllowance, FunctionRequest, Toolbox

# Results as MCP's servers and clients have them


class TextContent(pydantic.BaseModel):
    type: str = "text"
    text: str


class McpOne(pydantic.BaseModel):
    """As in mcp 1: `CallToolResult`."""

    content: list[Any]
    structuredContent: dict[str, Any] | None = None  # noqa: N815 - the protocol's name
    isError: bool = False  # noqa: N815 - the protocol's name


class McpTwo(pydantic.BaseModel):
    """As in mcp 2."""

    content: list[Any]
    structured_content: dict[str, Any] | None = None
    is_error: bool = False


@dataclass
class FastMcp:
    """As in fastmcp: its client's result."""

    content: list[Any]
    structured_content: dict[str, Any] | None = None
    data: Any = None
    is_error: bool = False
    meta: dict[str, Any] = field(default_factory=dict)


TEXT = {"type": "text", "text": "no such city"}
IMAGE = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
FAILED = [
    (McpOne(content=[TextContent(text="no such city")], isError=True), "no such city"),
    (McpTwo(content=[TextContent(text="no"), TextContent(text="such")], is_error=True), "no\nsuch"),
    (FastMcp([TextContent(text="no such city")], is_error=True), "no such city"),
    ({"content": [TEXT], "isError": True}, "no such city"),
    ({"content": (TEXT,), "isError": True, "structuredContent": {"a": 1}}, "no such city"),
    ({"content": [], "structuredContent": {"why": "x"}, "isError": True}, '{"why":"x"}'),
    ({"content": [TEXT, IMAGE], "isError": True}, "image/png"),
    ({"isError": True, "error": "E7"}, "E7"),
    ({"type": "tool_result", "tool_use_id": "t", "is_error": True, "content": "no such city"}, "no such city"),
    (ToolMessage("no such city", tool_call_id="1", status="error"), "no such city"),
]


@pytest.mark.parametrize(("result", "text"), FAILED)
async def test_what_says_that_it_failed_has_failed(result: Any, text: str) -> None:
    async def handler() -> Any:
        return result

    for tool in (as_tool({"name": "weather", "handler": lambda: result}), Tool.from_function(handler)):
        run = Run()
        with run():
            [answer] = await Toolbox([tool]).answer([FunctionRequest(tool.name, "{}", "call_1")], CallAllowance(1))
        assert answer.error_type == "ToolFailed"
        assert answer.output.startswith("Error: ")
        assert text in answer.output
        assert "isError" not in answer.output or "E7" in answer.output
        [call] = run.calls
        assert call.error_type == "ToolFailed"


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (McpOne(content=[TextContent(text="sunny")]), "sunny"),
        (McpTwo(content=[TextContent(text="sunny"), TextContent(text="warm")]), "sunny\nwarm"),
        (McpTwo(content=[TextContent(text='{"sun":1}')], structured_content={"sun": 1}), '{"sun":1}'),
        (McpTwo(content=[], structured_content={"sun": 1}), '{"sun":1}'),
        ({"content": [{"type": "text", "text": "sunny"}], "isError": False}, "sunny"),
        ({"content": [IMAGE], "isError": False}, json.dumps([IMAGE], separators=(",", ":"))),
        ({"isError": False, "rain": 0}, '{"isError":false,"rain":0}'),
        ({"is_error": False, "content": "sunny", "rain": 0}, '{"is_error":false,"content":"sunny","rain":0}'),
        ({"isError": "no", "rain": 0}, '{"isError":"no","rain":0}'),
        ({"content": [TEXT]}, json.dumps({"content": [TEXT]}, separators=(",", ":"))),
        (ToolMessage("sunny", tool_call_id="1"), "sunny"),
    ],
)
async def test_what_did_its_work_is_told(result: Any, told: str) -> None:
    assert await as_tool({"name": "weather", "handler": lambda: result}).run("{}") == told


# What only a graph has


class State(TypedDict):  # typing's own is not pydantic's before Python 3.12
    messages: list[Any]


@langchain_tool
def with_state(q: str, state: Annotated[State, InjectedState]) -> str:
    """Look."""
    return q


@langchain_tool
def with_field(q: str, messages: Annotated[list[Any], InjectedState("messages")]) -> str:
    """Look."""
    return q


@langchain_tool
def with_store(q: str, store: Annotated[Any, InjectedStore()]) -> str:
    """Look."""
    return q


@langchain_tool
async def with_runtime(q: str, runtime: ToolRuntime) -> str:
    """Look."""
    return q


@langchain_tool
def with_typed_runtime(q: str, runtime: ToolRuntime[dict[str, Any], State]) -> str:
    """Look."""
    return q


@langchain_tool
def with_user(q: str, user: Annotated[str, InjectedToolArg]) -> str:
    """Look."""
    return q


class Look(BaseTool):
    name: str = "look"
    description: str = "Look."

    def _run(self, q: str, state: Annotated[State, InjectedState]) -> str:
        return q


class LookArguments(pydantic.BaseModel):
    q: str
    state: Annotated[dict[str, Any], InjectedState]


def look_at(q: str, state: dict[str, Any]) -> str:
    return q


with_schema = StructuredTool.from_function(look_at, name="with_schema", description="Look.", args_schema=LookArguments)


@langchain_tool
def hand_over(q: str) -> Command[Any]:
    """Hand over."""
    return Command(goto="other")


@pytest.mark.parametrize(
    "tool",
    [with_state, with_field, with_store, with_runtime, with_typed_runtime, with_user, Look(), with_schema],
    ids=lambda tool: tool.name,
)
def test_a_tool_that_needs_a_graph_is_refused_when_it_is_made(tool: BaseTool) -> None:
    with pytest.raises(ConfigurationError, match=rf"tool '{tool.name}': only LangGraph fills in '\w+'"):
        as_tool(tool)


@pytest.mark.parametrize("annotation", [Annotated[dict[str, Any], InjectedState], ToolRuntime, RunnableConfig])
def test_a_function_that_needs_a_graph_is_refused_and_its_default_is_not_shown(annotation: Any) -> None:
    def look(q: str, given: Any) -> str:
        return q

    def may_look(q: str, given: Any = None) -> str:
        return f"{q} {given}"

    look.__annotations__["given"] = annotation
    may_look.__annotations__["given"] = annotation | None
    with pytest.raises(ConfigurationError, match=r"tool 'look': only Lang\w+ fills in 'given'"):
        as_tool(look)
    assert list(as_tool(may_look).parameters["properties"]) == ["q"]


async def test_what_may_be_filled_in_is_not_the_models_to_give() -> None:
    @langchain_tool
    def look(q: str, tenant: Annotated[str, InjectedToolArg] = "acme") -> str:
        """Look."""
        return f"{q} for {tenant}"

    def plain(q: str, tenant: Annotated[str, InjectedToolArg] = "acme") -> str:
        return f"{q} for {tenant}"

    for tool in (as_tool(look), as_tool(plain)):
        assert await tool.run('{"q": "x"}') == "x for acme"
        with pytest.raises(InvalidArguments, match="tenant"):
            await tool.run('{"q": "x", "tenant": "evil"}')


async def test_what_langchain_fills_in_itself_is_no_hindrance() -> None:
    @langchain_tool
    def look(q: str, config: RunnableConfig, call_id: Annotated[str, InjectedToolCallId]) -> str:
        """Look."""
        return f"{q} {type(config).__name__} {call_id}"

    assert await as_tool(look).run('{"q": "x"}', "call_1") == "x dict call_1"


async def test_a_command_is_refused() -> None:
    def plain() -> Command[Any]:
        return Command(goto="other")

    for tool in (hand_over, plain):
        with pytest.raises(ConfigurationError, match=r"tool '\w+': it returns a Command"):
            as_tool(tool)

    def untyped(several: bool) -> Any:
        return [Command(goto="other"), Command(goto="third")] if several else Command(goto="other")

    for given in (untyped, langchain_tool(description="Hand over.")(untyped)):
        for several in ("true", "false"):
            with pytest.raises(ConfigurationError, match="a tool returned a Command"):
                await as_tool(given).run(f'{{"several": {several}}}')


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pydantic_ai._run_context", "RunContext"),
        ("agents.run_context", "RunContextWrapper"),
        ("fastmcp.server", "Context"),
    ],
)
def test_contexts_of_other_frameworks_are_refused_by_name(module: str, name: str) -> None:
    def look(context: Any, q: str) -> str:
        return q

    look.__annotations__["context"] = type(name, (), {"__module__": module})
    with pytest.raises(ConfigurationError, match="fills in 'context'"):
        as_tool(look)
