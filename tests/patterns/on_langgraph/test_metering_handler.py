"""The callback handler: what any LangChain graph does becomes events, however it ends."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import anyio
import httpx2
import openai
import pytest
from chat_scene import ChatScene
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt
from pattern_support import Run
from telemetry_support import Captured
from time_support import passing, until

from runmeter.engine import ModelCallStarted, Provenance, Usage, current_execution
from runmeter.patterns import MeteringHandler
from runmeter.patterns.langgraph.metering.requests import describe_request
from runmeter.patterns.langgraph.metering.usage import read_answer
from runmeter.simulator import Fault, Reply

TEXT = "It is in Berlin, where it waits for the customs officer to come back from a very long lunch."


@pytest.fixture
def anyio_backend() -> str:
    """LangChain needs asyncio."""
    return "asyncio"


class State(TypedDict):
    messages: Annotated[list[BaseMessage], add_messages]


def graph_of(*nodes: Any) -> Any:
    """A graph of these nodes, one after the other."""
    graph = StateGraph(State)
    last = START
    for number, node in enumerate(nodes):
        graph.add_node(name := f"node{number}", node)
        graph.add_edge(last, name)
        last = name
    graph.add_edge(last, END)
    return graph.compile()


INPUT = {"messages": [HumanMessage("Where is parcel AB-1?")]}


@pytest.fixture
async def scene() -> AsyncIterator[ChatScene]:
    async with ChatScene.open() as scene:
        yield scene


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("settings", "api"),
    [
        ({}, "responses"),
        ({"model": "gpt-4.1", "use_responses_api": False, "temperature": 0.5, "max_tokens": 30}, "chat_completions"),
        ({"model": "gpt-4.1", "use_responses_api": None}, None),
    ],
)
async def test_a_request_is_described_and_its_usage_counted(
    scene: ChatScene, settings: dict[str, Any], api: str | None, stream: bool
) -> None:
    model = scene.model(**settings)

    async def ask(state: State) -> State:
        if not stream:
            return {"messages": [await model.ainvoke(state["messages"])]}
        chunks = [chunk async for chunk in model.astream(state["messages"])]
        return {"messages": [chunks[0] + chunks[1:]]}

    run = Run()
    with run(), MeteringHandler(stream=stream) as meter:
        await graph_of(ask).ainvoke(INPUT, {"callbacks": [meter]})
    [started], [request] = run.of(ModelCallStarted), run.requests
    assert (started.provider, started.operation, started.model) == ("openai", "chat", model.model_name)
    assert (started.api, started.stream, started.attempt) == (api, stream, 1)
    assert (started.temperature, started.max_output_tokens) == (settings.get("temperature"), settings.get("max_tokens"))
    assert started.server_address == "127.0.0.1"
    assert request.usage == scene.simulator.statistics().total
    assert request.provenance is Provenance.REPORTED
    assert request.response_model == model.model_name
    assert request.service_tier == "default"
    assert request.finish_reasons == ("stop",)
    assert (request.first_chunk_ns is not None) is stream
    assert request.response_id or (stream and api != "responses"), "LangChain keeps no id of streamed completions"


async def test_details_of_the_usage_are_kept(scene: ChatScene) -> None:
    model = scene.model(reasoning={"effort": "low"}, service_tier="priority")
    run = Run()
    with run(), MeteringHandler() as meter:
        for text in ("The parcel is late. " * 400, "The parcel is late. " * 400 + "Why?"):
            await model.ainvoke(text, {"callbacks": [meter]})
    billed = scene.simulator.statistics().total
    assert min(billed.cache_read_tokens, billed.cache_write_tokens, billed.reasoning_tokens) > 0
    assert run.reported == billed
    assert {request.service_tier for request in run.requests} == {"priority"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "error", "provenance"),
    [
        (Fault("rate_limit"), "rate_limit_exceeded", Provenance.REPORTED),
        (Fault("insufficient_quota"), "insufficient_quota", Provenance.REPORTED),
        (Fault("server_error"), "OpenAIAPIError", Provenance.UNKNOWN),
        (Fault("drop"), "OpenAIConnectionError", Provenance.UNKNOWN),
        (Fault("failed", after_events=7), "server_error", Provenance.UNKNOWN),
    ],
)
async def test_a_failed_request_has_an_end(
    scene: ChatScene, fault: Fault, error: str, provenance: Provenance, stream: bool
) -> None:
    scene.simulator.inject(fault)
    model = scene.model()

    async def ask(state: State) -> State:
        if stream:
            return {"messages": [chunk async for chunk in model.astream(state["messages"])]}
        return {"messages": [await model.ainvoke(state["messages"])]}

    run = Run()
    with pytest.raises((openai.APIError, ValueError)), run(), MeteringHandler() as meter:
        await graph_of(ask).ainvoke(INPUT, {"callbacks": [meter]})
    [request] = run.requests
    assert (request.error_type, request.provenance) == (error, provenance)
    assert request.usage == (Usage() if provenance is Provenance.REPORTED else None)


@pytest.mark.parametrize(("kind", "error"), [("stream_cut", "OpenAIConnectionError"), ("stream_end", "stream_cut")])
async def test_a_cut_stream_used_at_least_what_came(scene: ChatScene, kind: Any, error: str) -> None:
    scene.simulator.script(Reply(TEXT))
    scene.simulator.inject(Fault(kind, after_events=8))
    run = Run()
    try:
        with run(), MeteringHandler() as meter:
            async for _ in scene.model().astream("Where is it?", {"callbacks": [meter]}):
                pass
    except openai.APIConnectionError:
        assert kind == "stream_cut"
    [request] = run.requests
    assert (request.error_type, request.provenance) == (error, Provenance.PARTIAL)
    assert request.usage is not None
    assert 0 < request.usage.output_tokens <= scene.simulator.statistics().total.output_tokens


ASKED = httpx2.Request("POST", "http://gateway.test/v1/chat/completions")
BROKEN = [
    RuntimeError("the model fell over"),
    openai.APIError("Busy.", ASKED, body={"code": "server_error", "message": "Busy."}),
    openai.RateLimitError("Slower.", response=httpx2.Response(429, request=ASKED), body=None),
]


@pytest.mark.parametrize("used", [None, {"input_tokens": 40, "output_tokens": 2, "total_tokens": 42}])
@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
async def test_what_a_stream_had_used_when_it_failed_is_a_lower_bound(error: Exception, used: Any) -> None:
    class Failing(GenericFakeChatModel):
        def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
            yield ChatGenerationChunk(message=AIMessageChunk(content="In", usage_metadata=used))
            for text in (" Lyon", "."):
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
            raise error

    run = Run()
    with pytest.raises(type(error)), run(), MeteringHandler() as meter:
        async for _ in Failing(messages=iter(())).astream("Where is it?", {"callbacks": [meter]}):
            pass
    [request] = run.requests
    if used or not isinstance(error, openai.APIError):
        assert request.provenance is Provenance.PARTIAL
        assert request.usage == Usage(input_tokens=40 if used else 0, output_tokens=3)
    else:
        assert request.provenance is Provenance.UNKNOWN, "what the API calls a failure it may not bill"


@pytest.mark.parametrize("by", ["scope", "task", "wait_for"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_request_has_an_end(scene: ChatScene, by: str, stream: bool) -> None:
    scene.simulator.script(Reply(TEXT))
    scene.simulator.inject(Fault("latency", seconds=0 if stream else 3600, between_chunks=0.05 if stream else 0))
    model = scene.model()
    begun = anyio.Event()

    async def ask(state: State) -> State:
        if not stream:
            return {"messages": [await model.ainvoke(state["messages"])]}
        async for chunk in model.astream(state["messages"]):
            if chunk.text:
                begun.set()
        raise AssertionError

    graph = graph_of(ask)
    run = Run()

    def has_begun() -> bool:
        return begun.is_set() if stream else scene.simulator.statistics().faults > 0

    async def work() -> None:
        with run(), MeteringHandler() as meter:
            await graph.ainvoke(INPUT, {"callbacks": [meter]})

    if by == "scope":
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await until(has_begun)
            tasks.cancel_scope.cancel()
    else:
        task = asyncio.create_task(work())
        with pytest.raises((TimeoutError, asyncio.CancelledError)):
            await until(has_begun)
            if by == "wait_for":
                await asyncio.wait_for(task, 0.02)
            else:
                task.cancel()
                await task
    [request] = run.requests
    assert request.error_type == "CancelledError"
    assert request.provenance is (Provenance.PARTIAL if stream else Provenance.UNKNOWN)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_with_block_ends_a_bare_models_cancelled_request(scene: ChatScene, stream: bool) -> None:
    scene.simulator.inject(Fault("latency", seconds=3600))
    model = scene.model(streaming=stream)
    run = Run()
    async with passing(30, whenever=lambda: scene.simulator.statistics().faults):
        with pytest.raises(TimeoutError), run(), MeteringHandler() as meter:
            await asyncio.wait_for(model.ainvoke("Where is it?", {"callbacks": [meter]}), 30)
    [request] = run.requests
    assert (request.error_type, request.provenance) == ("TimeoutError", Provenance.UNKNOWN)


async def test_without_a_with_block_the_graphs_end_ends_what_was_cancelled(scene: ChatScene) -> None:
    scene.simulator.inject(Fault("latency", seconds=3600))
    model = scene.model()

    async def impatient(state: State) -> State:
        try:
            async with passing(30, whenever=lambda: scene.simulator.statistics().faults):
                await asyncio.wait_for(model.ainvoke("Where is it?"), 30)
        except TimeoutError:
            return {"messages": []}
        raise AssertionError

    run = Run()
    with run():
        await graph_of(impatient).ainvoke(INPUT, {"callbacks": [MeteringHandler()]})
    [request] = run.requests
    assert (request.error_type, request.provenance) == ("abandoned", Provenance.UNKNOWN)


# Tools


@tool
async def outer(number: str) -> str:
    """Find a parcel by asking a model."""
    answer = await FakeListChatModel(responses=[f"{number} found"]).ainvoke("find it")
    return str(answer.text)


@tool
def broken(number: str) -> str:
    """Fail."""
    raise LookupError(number)


def asking_for(*names: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": {"number": "1"}, "id": f"call_{name}"} for name in names])


async def test_tools_are_function_calls(scene: ChatScene) -> None:
    run = Run()
    with run(), MeteringHandler() as meter:
        node = ToolNode([outer, broken], handle_tool_errors=True)
        await graph_of(node).ainvoke({"messages": [asking_for("outer", "broken")]}, {"callbacks": [meter]})
    assert {(call.name, call.call_id, call.error_type) for call in run.calls} == {
        ("outer", "call_outer", None),
        ("broken", "call_broken", "LookupError"),
    }
    assert [request.provenance for request in run.requests] == [Provenance.ESTIMATED], "this model does not say"


async def test_a_tool_that_returns_its_error_has_failed() -> None:
    lenient = broken.model_copy(update={"handle_tool_error": True, "handle_validation_error": True})
    run = Run()
    with run(), MeteringHandler() as meter:
        await lenient.ainvoke(
            {"type": "tool_call", "name": "broken", "args": {}, "id": "call_1"}, {"callbacks": [meter]}
        )
    assert [call.error_type for call in run.calls] == ["ToolFailed"]


async def test_a_cancelled_tool_has_an_end() -> None:
    begun = anyio.Event()

    @tool
    async def hang() -> str:
        """Hang."""
        begun.set()
        await anyio.sleep_forever()
        return ""

    run = Run()

    async def work() -> None:
        with run(), MeteringHandler() as meter:
            await graph_of(ToolNode([hang])).ainvoke({"messages": [asking_for("hang")]}, {"callbacks": [meter]})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await begun.wait()
        tasks.cancel_scope.cancel()
    assert [call.error_type for call in run.calls] == ["CancelledError"]


# Threads, batches, caches, other models


def test_sync_graphs_are_metered_too() -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("one two"), AIMessage("three")]))

    def ask(state: State) -> State:
        return {"messages": [model.invoke(state["messages"])]}

    run = Run()
    with run(), MeteringHandler() as meter:
        graph_of(ask, ask).invoke(INPUT, {"callbacks": [meter]})
    assert len(run.requests) == 2


async def test_callbacks_from_threads_without_context_find_their_run() -> None:
    captured = Captured()
    model = FakeListChatModel(responses=["ok"])

    def ask(state: State, config: Any) -> State:
        with ThreadPoolExecutor(1) as pool:  # no context goes along, but LangChain's callbacks do
            assert pool.submit(current_execution).result() is not current_execution()
            return {"messages": [pool.submit(model.invoke, state["messages"], config).result()]}

    with captured.execution(), MeteringHandler() as meter:
        await graph_of(RunnableLambda(ask)).ainvoke(INPUT, {"callbacks": [meter]})
    captured.receive()
    [run] = [span for span in captured.spans if span.parent is None]
    [chat] = [span for span in captured.spans if span.parent is not None]
    assert run.context is not None
    assert chat.parent is not None
    assert chat.parent.span_id == run.context.span_id


async def test_every_prompt_of_a_batch_is_a_request(scene: ChatScene) -> None:
    run = Run()
    with run(), MeteringHandler() as meter:
        await scene.model().abatch(["One.", "Two.", "Three."], {"callbacks": [meter]})
    assert len(run.requests) == 3
    assert run.reported == scene.simulator.statistics().total


async def test_choices_share_one_usage(scene: ChatScene) -> None:
    answer = AIMessage("x", usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
    answer.response_metadata = {"finish_reason": "length"}
    result = LLMResult(generations=[[ChatGeneration(message=answer), ChatGeneration(message=answer)]])
    read = read_answer(result)
    assert read.usage == Usage(3, 4)
    assert read.finish_reasons == ("length", "length")


async def test_an_answer_from_the_cache_used_nothing(scene: ChatScene) -> None:
    model = scene.model(cache=InMemoryCache())
    run = Run()
    with run(), MeteringHandler() as meter:
        for _ in range(2):
            await model.ainvoke("Where is it?", {"callbacks": [meter]})
    assert [request.usage for request in run.requests] == [scene.simulator.statistics().total, Usage()]


async def test_models_for_plain_text_are_requests_too() -> None:
    run = Run()
    with run(), MeteringHandler() as meter:
        await FakeListLLM(responses=["ok"]).ainvoke("x", {"callbacks": [meter]})
    [started] = run.of(ModelCallStarted)
    assert started.operation == "text_completion"
    result = LLMResult(generations=[[]], llm_output={"token_usage": {"prompt_tokens": 2, "completion_tokens": 1}})
    assert read_answer(result).usage == Usage(2, 1)


@pytest.mark.parametrize(
    ("details", "usage"),
    [
        (
            {"priority": 5, "priority_cache_read": 2, "priority_cache_creation": 1},
            Usage(10, 6, cache_read_tokens=2, cache_write_tokens=1),
        ),
        ({"flex_cache_read": 2}, Usage(10, 6, cache_read_tokens=2)),
        (
            {"cache_creation": 0, "ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 1},
            Usage(10, 6, cache_write_tokens=4),
        ),
        ({"audio": 4, "image": 1}, Usage(10, 6, audio_input_tokens=4, image_input_tokens=1)),
    ],
)
def test_details_are_found_under_all_their_names(details: Any, usage: Usage) -> None:
    message = AIMessage(
        "x",
        usage_metadata={
            "input_tokens": 10,
            "output_tokens": 6,
            "total_tokens": 16,
            "input_token_details": details,
        },
    )
    assert read_answer(LLMResult(generations=[[ChatGeneration(message=message)]])).usage == usage


def test_searches_are_counted() -> None:
    search = {"type": "web_search_call", "action": {"type": "search"}}
    opened = {"type": "web_search_call", "action": {"type": "open_page"}}
    message = AIMessage(
        [search, opened, {"type": "file_search_call"}, {"type": "text", "text": "x"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
    )
    usage = read_answer(LLMResult(generations=[[ChatGeneration(message=message)]])).usage
    assert usage is not None
    assert (usage.web_searches, usage.file_searches) == (1, 1)


@pytest.mark.parametrize(
    ("metadata", "provider", "model"),
    [
        ({"ls_provider": "amazon_bedrock", "ls_model_name": "claude"}, "aws.bedrock", "claude"),
        ({"ls_provider": "anthropic", "ls_model_name": "claude"}, "anthropic", "claude"),
        ({}, "unknown", "from-params"),
    ],
)
def test_providers_have_the_names_of_the_conventions(metadata: dict[str, str], provider: str, model: str) -> None:
    request = describe_request(None, {"model": "from-params"}, metadata, operation="chat", stream=False)
    assert (request.provider, request.model, request.api) == (provider, model, None)


def usage_reported(**usage: Any) -> Usage | None:
    """What is read from an answer with this usage."""
    total = usage["input_tokens"] + usage["output_tokens"]
    message = AIMessage(usage.pop("text", "x"), usage_metadata={"total_tokens": total, **usage})
    return read_answer(LLMResult(generations=[[ChatGeneration(message=message)]])).usage


def test_what_was_not_reported_is_not_nothing() -> None:
    assert usage_reported(input_tokens=0, output_tokens=0) is None, "LangChain's reading of null"
    assert usage_reported(input_tokens=5, output_tokens=0) is None, "a text took tokens"
    assert usage_reported(input_tokens=5, output_tokens=0, text="") == Usage(5, 0)
    assert usage_reported(input_tokens=0, output_tokens=0, total_cost=0) == Usage(), "from the cache"


@pytest.mark.parametrize("reported", [None, {}, {"prompt_tokens": 2}, {"prompt_tokens": None, "completion_tokens": 1}])
def test_nor_is_it_for_models_for_plain_text(reported: Any) -> None:
    assert read_answer(LLMResult(generations=[[]], llm_output={"token_usage": reported})).usage is None


def test_details_that_are_no_counts_are_left_alone() -> None:
    details = {"cache_read": 3, "by_modality": {"text": 7}, "note": "x"}
    usage = usage_reported(input_tokens=10, output_tokens=5, input_token_details=details)
    assert usage == Usage(10, 5, cache_read_tokens=3)


async def test_a_request_whose_usage_was_not_reported_is_estimated() -> None:
    answer = AIMessage("x", usage_metadata={"input_tokens": 0, "output_tokens": 0, "total_tokens": 0})
    run = Run()
    with run(), MeteringHandler() as meter:
        await GenericFakeChatModel(messages=iter([answer])).ainvoke("x", {"callbacks": [meter]})
    [request] = run.requests
    assert (request.usage, request.provenance) == (Usage(8, 1), Provenance.ESTIMATED)


# Several handlers, one graph


async def test_what_several_handlers_see_is_counted_once(scene: ChatScene) -> None:
    model = scene.model()

    async def ask(state: State) -> State:
        return {"messages": [await model.ainvoke("Where is it?")]}

    async def call(state: State) -> State:
        return {"messages": [asking_for("weigh")]}

    @tool
    async def weigh(number: str) -> str:
        """Weigh a parcel by asking a model."""
        return str((await model.ainvoke(number)).text)

    run = Run()
    with run(), MeteringHandler() as first, MeteringHandler() as second:
        graph = graph_of(ask, call, ToolNode([weigh]))
        await graph.ainvoke(INPUT, {"callbacks": [first, second]})
        assert not any(value for meter in (first, second) for value in vars(meter).values() if isinstance(value, dict))
    assert len(run.requests) == 2
    assert [call.name for call in run.calls] == ["weigh"]
    assert run.reported == scene.simulator.statistics().total


async def test_so_are_the_chunks_of_a_request_that_was_cut(scene: ChatScene) -> None:
    partial: list[Usage | None] = []
    for count in (1, 2):
        scene.simulator.script(Reply(TEXT))
        scene.simulator.inject(Fault("stream_cut", after_events=8))
        run = Run()
        meters: list[Any] = [MeteringHandler() for _ in range(count)]
        with pytest.raises(openai.APIConnectionError), run():
            async for _ in scene.model().astream("Where is it?", {"callbacks": meters}):
                pass
        [request] = run.requests
        assert request.provenance is Provenance.PARTIAL
        partial.append(request.usage)
    assert partial[0] == partial[1]


# One handler, many graphs


async def test_one_handler_serves_many_graphs_at_once_and_keeps_nothing() -> None:
    model = FakeListChatModel(responses=["ok"], sleep=0.001)

    async def ask(state: State) -> State:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = graph_of(ask, ask)
    meter = MeteringHandler()
    run = Run()

    async def work(number: int) -> None:
        with run(tags={"number": str(number)}):
            await graph.ainvoke(INPUT, {"callbacks": [meter]})

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(work, number)
    assert len(run.requests) == 100
    assert {id(value) for value in vars(meter).values() if value == {}} == {
        id(value) for value in vars(meter).values() if isinstance(value, dict)
    }


async def test_outside_a_run_it_does_nothing(scene: ChatScene) -> None:
    with MeteringHandler() as meter:
        answer = await scene.model().ainvoke("Where is it?", {"callbacks": [meter]})
        assert answer.text
        meter.abandon(uuid4(), None)
        meter.on_llm_end(LLMResult(generations=[]), run_id=uuid4())
        meter.on_llm_new_token("x", run_id=uuid4())
        meter.on_tool_end("x", run_id=uuid4())


# Spans


def spans_of(captured: Captured) -> Iterator[tuple[str, str | None]]:
    """Each span's name, and its parent's."""
    captured.receive()
    names = {span.context.span_id: span.name for span in captured.spans if span.context}
    for span in captured.spans:
        yield span.name, names[span.parent.span_id] if span.parent else None


async def test_spans_nest_as_the_work_does() -> None:
    captured = Captured()
    model = FakeListChatModel(responses=["ok"])
    node = ToolNode([outer])

    async def ask_twice(state: State) -> State:
        await model.ainvoke(state["messages"])
        with current_execution().function_call("own"):
            pass
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def call(state: State) -> State:
        return {"messages": [asking_for("outer")]}

    with captured.execution("work"), MeteringHandler() as meter:
        await graph_of(ask_twice, call, node, ask_twice).ainvoke(INPUT, {"callbacks": [meter]})
    run, chat = "invoke_agent work", "chat unknown"
    assert sorted(spans_of(captured), key=str) == sorted(
        [
            (run, None),
            *[(chat, run)] * 4,
            *[("execute_tool own", run)] * 2,
            ("execute_tool outer", run),
            (chat, "execute_tool outer"),
        ],
        key=str,
    )


async def test_chunks_are_counted_by_what_they_say() -> None:
    run = Run()
    with run(), MeteringHandler() as meter:
        run_id = uuid4()
        meter.on_chat_model_start({}, [[]], run_id=run_id)
        for token, chunk in (
            ("", AIMessageChunk(content="")),
            ([], AIMessageChunk(content=[])),
            ("a", AIMessageChunk(content="a")),
            ([{"type": "text", "text": "b"}], AIMessageChunk(content="b")),
            ([{"type": "reasoning", "summary": []}], AIMessageChunk(content="")),
            ("", AIMessageChunk(content="", tool_call_chunks=[{"name": "f", "args": "{", "id": "1", "index": 0}])),
            ("", AIMessageChunk(content="", tool_call_chunks=[{"name": "f", "args": "", "id": "1", "index": 0}])),
        ):
            meter.on_llm_new_token(token, chunk=ChatGeneration(message=chunk), run_id=run_id)
        meter.on_llm_error(ConnectionResetError(), run_id=run_id)
    [request] = run.requests
    assert request.usage == Usage(output_tokens=3)


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ([(8, 0), (0, 1), (0, 2), (0, 3)], Usage(8, 6)),
        ([(8, 1), (8, 2), (8, 3)], Usage(8, 3)),
        ([(8, 1), (0, 2)], Usage(8, 3)),
    ],
    ids=["news, as LangChain has it", "totals, as the input is told again", "two pieces of news"],
)
async def test_chunks_tell_what_is_new_unless_they_tell_the_input_again(told: Any, usage: Usage) -> None:
    class Telling(GenericFakeChatModel):
        def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
            for read, written in told:
                used: Any = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
                yield ChatGenerationChunk(message=AIMessageChunk(content="a", usage_metadata=used))

    run = Run()
    with run(), MeteringHandler() as meter:
        async for _ in Telling(messages=iter(())).astream("Where is it?", {"callbacks": [meter]}):
            pass
    [request] = run.requests
    assert (request.provenance, request.usage) == (Provenance.REPORTED, usage)


async def test_a_tool_that_interrupts_its_graph_has_not_failed() -> None:
    @tool
    def ask_human(question: str) -> str:
        """Ask a human."""
        return str(interrupt(question))

    call = {"name": "ask_human", "args": {"question": "ok?"}, "id": "call_1", "type": "tool_call"}
    graph = StateGraph(State)
    graph.add_node("tools", ToolNode([ask_human]))
    graph.add_edge(START, "tools")
    graph.add_edge("tools", END)
    compiled: Any = graph.compile(checkpointer=InMemorySaver())
    run = Run()
    with run(), MeteringHandler() as meter:
        config = {"callbacks": [meter], "configurable": {"thread_id": "1"}}
        await compiled.ainvoke({"messages": [AIMessage("", tool_calls=[call])]}, config)
        await compiled.ainvoke(Command(resume="yes"), config)
    assert [(each.name, each.error_type) for each in run.calls] == [("ask_human", None)] * 2
