"""Tools: made of what users have, run in time, and never a reason for a run to fail."""

import asyncio
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import Mock

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
import pydantic
import pytest
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, ToolException
from langchain_core.tools import tool as langchain_tool
from pattern_support import Run

from runmeter.engine import ConfigurationError, current_execution
from runmeter.patterns import Tool
from runmeter.patterns.errors import InvalidArguments, ToolFailed, ToolTimeout
from runmeter.patterns.tools.outputs import render
from runmeter.patterns.tools.tool import as_tool
from runmeter.patterns.tools.toolbox import CallAllowance, FunctionRequest, Toolbox


def find(number: int, unit: str = "kg") -> dict[str, Any]:
    """Find a parcel.

    Args:
        number: Its number.
    """
    return {"number": number, "unit": unit, "thread": threading.current_thread().name}


async def afind(number: int) -> str:
    """Find a parcel, waiting for it."""
    await anyio.lowlevel.checkpoint()
    return f"{number} found"


def requests(*pairs: tuple[str, str]) -> list[FunctionRequest]:
    return [FunctionRequest(name, arguments, f"call_{n}") for n, (name, arguments) in enumerate(pairs)]


async def test_a_function_becomes_a_tool() -> None:
    tool = as_tool(find)
    assert (tool.name, tool.description) == ("find", "Find a parcel.")
    assert tool.parameters["properties"]["number"] == {"type": "integer", "description": "Its number."}
    value = msgspec.json.decode(await tool.run('{"number": 3}'))
    assert (value["number"], value["unit"]) == (3, "kg")
    assert value["thread"] != threading.current_thread().name, "a sync function does not block the event loop"
    assert await as_tool(afind).run('{"number": 4}') == "4 found"
    with pytest.raises(InvalidArguments):
        await tool.run("{}")


async def test_any_callable_will_do() -> None:
    class Finder:
        """Finds."""

        async def __call__(self, number: int) -> int:
            return number

    assert await as_tool(Finder()).run('{"number": 4}') == "4"
    assert as_tool(Finder()).name == "Finder"
    late = Tool.from_function(partial(afind, number=3), name="late")
    assert await late.run("{}") == "3 found"
    assert await Tool.from_function(lambda number: afind(number + 0), name="indirect").run('{"number": 5}') == "5 found"


async def test_a_dict_with_a_schema_and_a_handler_becomes_a_tool() -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}

    async def search(**arguments: Any) -> Mapping[str, Any]:
        return arguments

    for definition in (
        {"name": "search", "description": "Search.", "inputSchema": schema, "handler": search},
        {"type": "function", "name": "search", "description": "Search.", "parameters": schema, "handler": search},
        {
            "type": "function",
            "function": {"name": "search", "description": "Search.", "parameters": schema},
            "handler": search,
        },
    ):
        tool = as_tool(definition)
        assert (tool.name, tool.description, tool.parameters) == ("search", "Search.", {**schema})
        assert await tool.run('{"q": "x", "more": 1}') == '{"q":"x","more":1}'
        with pytest.raises(InvalidArguments):
            await tool.run('{"q": 1}')
    assert as_tool(
        {"name": "x", "strict": True, "handler": search, "inputSchema": {**schema, "additionalProperties": False}}
    ).strict


@pytest.mark.parametrize("thing", [3, {"name": "x"}, {"handler": print}, {"name": "x", "handler": 1}, int, None])
def test_what_is_no_tool_is_refused(thing: Any) -> None:
    with pytest.raises(ConfigurationError):
        as_tool(thing)


def test_what_is_wrong_with_a_tool_is_said_with_its_name() -> None:
    def bad(value: complex) -> None: ...
    def free(value: dict[str, int]) -> None: ...

    with pytest.raises(ConfigurationError, match="tool 'bad': type complex"):
        as_tool(bad)
    with pytest.raises(ConfigurationError, match="tool 'free': strict"):
        Tool.from_function(free, strict=True)
    with pytest.raises(ConfigurationError, match="timeout must be a positive number"):
        Tool.from_function(find, timeout=0)
    with pytest.raises(ConfigurationError, match="two tools 'find'"):
        Toolbox([find, find])


async def test_langchain_tools(anyio_backend: str) -> None:
    @langchain_tool
    def weather(city: str) -> str:
        """Tell the weather."""
        if city == "nowhere":
            raise ToolException("there is no such city")
        return f"sunny in {city}"

    tool = as_tool(weather)
    assert (tool.name, tool.description) == ("weather", "Tell the weather.")
    assert tool.parameters["required"] == ["city"]
    assert await tool.run('{"city": "Rome"}') == "sunny in Rome", "sync ones work on any event loop"
    with pytest.raises(ToolException):
        await tool.run('{"city": "nowhere"}')
    with pytest.raises(InvalidArguments):
        await tool.run("{}")
    lenient = StructuredTool.from_function(weather.func, name="weather", handle_tool_error=True)  # type: ignore[attr-defined] # it has
    with pytest.raises(ToolFailed, match="no such city"):
        await as_tool(lenient).run('{"city": "nowhere"}')
    if anyio_backend == "asyncio":

        @langchain_tool
        async def reply(text: str, call_id: Annotated[str, InjectedToolCallId()]) -> str:
            """Reply."""
            return f"{text} to {call_id}"

        assert await as_tool(reply).run('{"text": "hi"}', "call_9") == "hi to call_9"


async def test_a_tool_that_takes_too_long_is_left_alone() -> None:
    release = threading.Event()

    async def forever() -> None:
        await anyio.sleep_forever()

    def stuck() -> None:
        release.wait()

    try:
        for function in (forever, stuck):
            with pytest.raises(ToolTimeout, match=r"within 0\.01 s"):
                await Tool.from_function(function, timeout=0.01).run("{}")
            with pytest.raises(TimeoutError):
                await Tool.from_function(function).run("{}", timeout=0.01)
    finally:
        release.set()


async def test_every_call_is_answered_and_recorded() -> None:
    def fail() -> None:
        raise KeyError("lost")

    async def late() -> None:
        await anyio.sleep_forever()

    box = Toolbox([find, afind, fail, Tool.from_function(late, timeout=0.01)])
    run = Run()
    asked = requests(
        ("afind", '{"number": 1}'),
        ("fail", ""),
        ("late", "{}"),
        ("find", "{x"),
        ("nope", "{}"),
        ("find", '{"number": 2}'),
    )
    with run():
        results = await box.answer(asked, CallAllowance(10))
    assert [result.call_id for result in results] == [request.call_id for request in asked]
    assert [result.error_type for result in results] == [
        None,
        "KeyError",
        "ToolTimeout",
        "InvalidArguments",
        "UnknownTool",
        None,
    ]
    assert results[1].output == "Error: KeyError: 'lost'"
    assert results[4].output == "Error: there is no tool 'nope'; the tools are: find, afind, fail, late"
    assert {(call.call_id, call.error_type) for call in run.calls} == {
        (result.call_id, result.error_type) for result in results
    }


async def test_the_calls_of_one_answer_run_at_once() -> None:
    together = 0
    everybody = anyio.Event()

    async def meet() -> str:
        nonlocal together
        together += 1
        if together == 3:
            everybody.set()
        await everybody.wait()
        return "met"

    asked = requests(*[("meet", "{}")] * 3)
    with Run()():
        results = await Toolbox([meet]).answer(asked, CallAllowance(10))
    assert [result.output for result in results] == ["met"] * 3


async def test_one_after_the_other_if_they_must_not() -> None:
    running = 0

    async def alone() -> None:
        nonlocal running
        running += 1
        await anyio.lowlevel.checkpoint()
        assert running == 1
        running -= 1

    with Run()():
        results = await Toolbox([alone], parallel=False).answer(requests(*[("alone", "")] * 3), CallAllowance(9))
    assert [result.error_type for result in results] == [None] * 3


async def test_calls_beyond_the_limit_are_refused_and_not_made() -> None:
    run = Run()
    with run():
        results = await Toolbox([afind]).answer(requests(*[("afind", '{"number": 1}')] * 4), CallAllowance(5, 3))
        over = await Toolbox([afind]).answer(requests(("afind", '{"number": 1}')), CallAllowance(5, 7))
        cut = await Toolbox([afind]).answer(requests(("afind", '{"num')), CallAllowance(5), complete=False)
    assert [result.error_type for result in results + over + cut] == [
        None,
        None,
        *["CallLimitReached"] * 3,
        "AnswerCutOff",
    ]
    assert "limit of 5 function calls" in results[2].output
    assert len(run.calls) == 2


async def test_a_cancelled_call_leaves_nothing_open() -> None:
    run = Run()
    started = anyio.Event()

    async def forever() -> None:
        started.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            with run():
                await Toolbox([forever, afind]).answer(requests(("forever", ""), ("forever", "")), CallAllowance(9))

        tasks.start_soon(call)
        await started.wait()
        tasks.cancel_scope.cancel()
    assert len(run.calls) == 2
    assert all(call.error_type for call in run.calls)


class Mute(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("mute")


async def test_no_error_of_a_tool_ends_the_run(anyio_backend: str) -> None:
    async def stray() -> None:
        if anyio_backend == "trio":
            raise ValueError("trio has none")
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def mute() -> None:
        raise Mute

    async def surrogate() -> None:
        raise OSError("a\udcff")

    async def missing() -> None:
        raise FileNotFoundError

    box = [stray, mute, surrogate, missing]
    asked = requests(*((function.__name__, "{}") for function in box))
    expected = ["ValueError" if anyio_backend == "trio" else "CancelledError", "Mute", "OSError", "FileNotFoundError"]
    for parallel in (True, False):
        run = Run()
        with run():
            results = await Toolbox(box, parallel=parallel).answer(asked, CallAllowance(10))
        assert [result.error_type for result in results] == expected
        assert results[2].output == "Error: OSError: a?"
        assert sorted(str(call.error_type) for call in run.calls) == sorted(expected)
    with Run()():
        [alone] = await Toolbox([stray]).answer(requests(("stray", "")), CallAllowance(10))
    assert alone.error_type == expected[0]


@pytest.mark.parametrize("name", ["<lambda>", "find it", "é", "x" * 65, "", None, "find\n"])
def test_a_name_the_api_refuses_is_refused_here(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="name="):
        Tool(name, "", as_tool(find).arguments, afind)  # type: ignore[arg-type] # it is not called
    if name == "<lambda>":
        with pytest.raises(ConfigurationError, match="<lambda>"):
            as_tool(lambda: 1)


@pytest.mark.parametrize("timeout", ["5", 0, -1, float("nan")])
def test_a_timeout_is_a_positive_number(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="tool 'find': timeout must be a positive number"):
        Tool.from_function(find, timeout=timeout)


@pytest.mark.parametrize(
    "thing",
    [
        min,
        Mock(),
        {"name": "x", "function": print},
        {"name": "x", "handler": print, "parameters": {"properties": None}},
        {"name": "x", "handler": print, "parameters": {"required": None}},
    ],
)
def test_what_cannot_be_described_is_refused(thing: Any) -> None:
    with pytest.raises(ConfigurationError):
        as_tool(thing)


async def test_a_langchain_tool_with_a_sync_method_alone_works_on_any_event_loop() -> None:
    class Weather(BaseTool):
        name: str = "weather"
        description: str = "Tell the weather."

        def _run(self, city: str) -> str:
            return f"sunny in {city}, {threading.current_thread() is threading.main_thread()}"

    assert await as_tool(Weather()).run('{"city": "Rome"}') == "sunny in Rome, False"


async def test_tools_that_hang_keep_nobody_from_working(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runmeter.patterns.functions.MAX_THREADS", 2)
    release = threading.Event()
    hanging = Tool.from_function(release.wait, name="hanging", timeout=0.01)
    try:
        for _ in range(5):
            with pytest.raises(ToolTimeout):
                await hanging.run("{}")
        await as_tool(find).run('{"number": 3}')
        assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    finally:
        release.set()


async def test_a_tool_knows_the_run_it_is_part_of() -> None:
    def who() -> str:
        return current_execution().run_id

    async def awho() -> str:
        return current_execution().run_id

    with Run()() as execution:
        results = await Toolbox([who, awho]).answer(requests(("who", ""), ("awho", "")), CallAllowance(9))
    assert [result.output for result in results] == [execution.run_id] * 2


def test_what_a_tool_returns_is_told_as_text_or_json() -> None:
    class Model(pydantic.BaseModel):
        x: int

    class Struct(msgspec.Struct):
        y: int

    loop: list[Any] = []
    loop.append(loop)
    assert render("as it is") == "as it is"
    assert render("\ud800") == "?"
    assert render(["\ud800", 2**70]) == f'["?",{2**70}]'
    assert render(None) == "null"
    assert render([Model(x=1), Struct(2), 3.5, {"a": b"b"}]) == '[{"x":1},{"y":2},3.5,{"a":"Yg=="}]'
    assert render({"path": Path("a")}) == '{"path":"a"}'
    for wrong in (loop, {"path": pytest}):
        with pytest.raises(ConfigurationError):
            render(wrong)
