"""What does metering add to a call: that all peers make the same requests, and that each of them is metered."""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any, TypeAlias

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from runmeter.bench.errors import PeerFailed
from runmeter.bench.peer import Peer, Ready, command_for, environment_of, prepare
from runmeter.bench.question import SHIPPED, dependencies, load_question
from runmeter.benchmarks import stub
from runmeter.engine import Engine, ModelRequest, current_execution

FOLDER = SHIPPED / "metering"
QUESTION = load_question(FOLDER)
PEERS = [peer.name for peer in QUESTION.peers]
CASES = [case.name for case in QUESTION.cases if not case.is_derived]
SHARED = ("openai", "httpx2", "pydantic", "opentelemetry-sdk")
"""What decides how long a call takes in any peer that has it."""
NO_NETWORK = re.compile(r"fetch|dns|connect|network|download", re.IGNORECASE)
TIMES = 3

Asked: TypeAlias = Sequence[Mapping[str, Any]]


@pytest.fixture
def anyio_backend() -> str:
    """The benchmarks run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="module", params=PEERS)
def peer(request: pytest.FixtureRequest) -> Iterator[tuple[Peer, Ready]]:
    script = FOLDER / f"{request.param}.py"
    try:
        prepare(script)
    except PeerFailed as error:
        if NO_NETWORK.search(str(error)):
            pytest.skip(f"{request.param}: {error}")
        raise
    with Peer(command_for(script), environment_of(SHIPPED)) as peer:
        yield peer, peer.ready()


# --- The peers ---


# A case fails by itself if not all of its calls are metered: then `asked` raises.
@pytest.mark.campaign
@pytest.mark.parametrize("case", CASES)
def test_all_peers_ask_the_same_and_meter_it(peer: tuple[Peer, Ready], case: str) -> None:
    expected = {"input": stub.QUESTION, "tools": [], "stream": "stream" in case}
    assert peer[0].asked(case, TIMES) == [expected] * TIMES
    assert peer[0].asked(case, 1) == [expected], "a case leaves nothing for the next one"


@pytest.mark.campaign
def test_a_peer_has_the_cases_of_the_question(peer: tuple[Peer, Ready]) -> None:
    assert list(peer[1].cases) == CASES


@pytest.mark.campaign
def test_a_peer_has_the_client_that_is_installed(peer: tuple[Peer, Ready]) -> None:
    for library in {*SHARED} & peer[1].versions.keys():
        assert peer[1].versions[library] == version(library)


@pytest.mark.parametrize("name", PEERS)
def test_a_dependency_is_pinned_or_our_own(name: str) -> None:
    needed = dependencies(FOLDER / f"{name}.py")
    assert needed == ("runmeter",) or all(re.fullmatch(r"[\w.-]+==[\d.]+(b\d+)?", each) for each in needed)


@pytest.mark.parametrize("name", [name for name in PEERS if name.endswith(("_encoded", "_content"))])
def test_a_variant_has_the_versions_of_what_it_is_a_variant_of(name: str) -> None:
    if name.startswith("runmeter"):
        return
    original = FOLDER / f"{name.rpartition('_')[0]}.py"
    assert {*dependencies(original)} <= {*dependencies(FOLDER / f"{name}.py")}


# --- What makes a case fail ---


@pytest.fixture
def sinks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """It imports its neighbours as a peer's script does."""
    monkeypatch.syspath_prepend(str(SHIPPED))
    return import_module("metering.sinks")


def send(sink: Any, *spans: Mapping[str, Any]) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(sink))
    for attributes in spans:
        provider.get_tracer("test").start_span("chat", attributes=attributes).end()


METERED = {"gen_ai.usage.input_tokens": 40}


@pytest.mark.parametrize(
    ("spans", "complaint"),
    [
        ([], "made 0 spans"),
        ([METERED], "made 1 spans"),
        ([METERED, METERED, METERED], "made 3 spans"),
        ([METERED, {"gen_ai.request.model": "gpt-6-luna"}], "made 1 spans"),
        ([METERED, {"gen_ai.usage.input_tokens": 0}], "input tokens"),
        ([METERED, METERED | {"gen_ai.input.messages": stub.QUESTION}], "no content"),
    ],
)
async def test_spans_that_are_not_as_they_should_be(
    sinks: ModuleType, spans: Sequence[Mapping[str, Any]], complaint: str
) -> None:
    sink = sinks.SpanSink()
    send(sink, *spans)
    with pytest.raises(RuntimeError, match=complaint):
        await sink.settle(lambda: None)(2)


async def test_spans_that_are_as_they_should_be(sinks: ModuleType) -> None:
    sink = sinks.SpanSink(encode=True)
    settle = sink.settle(lambda: send(sink, METERED, METERED))
    for _ in range(2):
        await settle(2)


async def test_content_that_is_missing(sinks: ModuleType) -> None:
    sink = sinks.SpanSink(content=True)
    send(sink, METERED | {"gen_ai.output.messages": f"[{stub.ANSWER}]"})
    await sink.settle(lambda: None)(1)
    send(sink, METERED)
    with pytest.raises(RuntimeError, match="some content"):
        await sink.settle(lambda: None)(1)


async def test_a_run_that_records_no_usage(sinks: ModuleType) -> None:
    own, hosting = import_module("metering.runmeter"), import_module("hosting")

    async def forget(messages: str, context: object) -> None:
        with current_execution().model_call(ModelRequest(provider="openai", model=stub.MODEL)):
            pass

    host = hosting.Host(Engine)
    with pytest.raises(RuntimeError, match="with 40 tokens"):
        await own._repeated(forget, host, None)(2)
    await host.close()


async def test_a_run_that_makes_no_call(sinks: ModuleType) -> None:
    own, hosting = import_module("metering.runmeter"), import_module("hosting")

    async def idle(messages: str, context: object) -> None:
        pass

    host = hosting.Host(Engine)
    with pytest.raises(RuntimeError, match="should be 8 events"):
        await own._repeated(idle, host, None)(2)
    await host.close()
