"""What does a framework cost: that all peers do the same work, told by what their model is asked."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any, TypeAlias

import pytest

from runmeter.bench.errors import CaseFailed, PeerFailed
from runmeter.bench.peer import Peer, Ready, command_for, environment_of, prepare
from runmeter.bench.question import SHIPPED, Case, dependencies, load_question
from runmeter.benchmarks import stub
from runmeter.engine import Engine, EngineNotRunning, Event, ExecutionFinished

FOLDER = SHIPPED / "frameworks"
QUESTION = load_question(FOLDER)
BASELINE = "asyncio_client"
PEERS = [peer.name for peer in QUESTION.peers if peer.name != BASELINE]
NO_NETWORK = re.compile(r"fetch|dns|connect|network|download", re.IGNORECASE)

Asked: TypeAlias = Sequence[Mapping[str, Any]]


class Started:
    """A peer that is ready."""

    def __init__(self, name: str, peer: Peer) -> None:
        self.name = name
        self.ready: Ready = peer.ready()
        self._peer = peer

    def asked(self, case: Case) -> Asked:
        """What its model was asked, in an order that concurrency does not change."""
        asked: Asked = self._peer.asked(case.name, times_of(case))
        return sorted(asked, key=lambda each: str(each["input"]))


def times_of(case: Case) -> int:
    """Twice where that is quick: a peer that remembers a run would ask something else in the next one."""
    return max(2, case.multiple)


def start(name: str) -> Iterator[Started]:
    script = FOLDER / f"{name}.py"
    try:
        prepare(script)
    except PeerFailed as error:
        if NO_NETWORK.search(str(error)):
            pytest.skip(f"{name}: {error}")
        raise
    with Peer(command_for(script), environment_of(SHIPPED)) as peer:
        yield Started(name, peer)


@pytest.fixture(scope="module")
def baseline() -> Iterator[Started]:
    yield from start(BASELINE)


@pytest.fixture(scope="module")
def expected(baseline: Started) -> Mapping[str, Asked]:
    """By case, what the baseline asks."""
    return {case.name: baseline.asked(case) for case in QUESTION.cases}


@pytest.fixture(scope="module", params=PEERS)
def peer(request: pytest.FixtureRequest) -> Iterator[Started]:
    yield from start(request.param)


# --- The same work ---


@pytest.mark.campaign
@pytest.mark.parametrize("case", QUESTION.cases, ids=lambda case: case.name)
def test_a_peer_asks_what_the_baseline_asks(peer: Started, expected: Mapping[str, Asked], case: Case) -> None:
    if case.name not in peer.ready.cases:
        assert peer.name == "runmeter_all_sinks", "the others do all cases"
        return
    assert peer.asked(case) == expected[case.name]


@pytest.mark.campaign
def test_a_peer_has_no_case_that_the_question_has_not(peer: Started) -> None:
    assert set(peer.ready.cases) <= {case.name for case in QUESTION.cases}


@pytest.mark.campaign
def test_a_peer_has_the_client_that_the_baseline_has(peer: Started, baseline: Started) -> None:
    assert peer.ready.versions["openai"] == baseline.ready.versions["openai"]
    assert peer.ready.python == baseline.ready.python


# --- What the baseline asks ---


def said(asked: Asked) -> Sequence[tuple[str, list[str], bool]]:
    return [(each["input"], each["tools"], each["stream"]) for each in asked]


def once(asked: Asked, times: int) -> Asked:
    """What one run asks, of those that did the same so many times."""
    first = asked[::times]
    assert asked == sorted([*first] * times, key=lambda each: str(each["input"]))
    return first


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("case", "questions"),
    [
        ("one turn", [(stub.QUESTION, [], False)]),
        ("50-chunk stream", [(stub.QUESTION, [], True)]),
        ("eight-way fan-out", [(part, [], False) for part in stub.PARTS]),
        ("three-step chain", [(step.format(answer=stub.ANSWER), [], False) for step in stub.STEPS]),
        (
            "tool round",
            [(stub.WEATHER, ["get_weather"], False), (stub.WEATHER_QUESTION, ["get_weather"], False)],
        ),
        ("instant turn", []),
    ],
)
def test_what_a_case_asks(
    expected: Mapping[str, Asked], case: str, questions: Sequence[tuple[str, list[str], bool]]
) -> None:
    assert said(once(expected[case], 2)) == questions


@pytest.mark.campaign
def test_the_handoff_asks_one_agent_with_a_transfer_and_then_one_without(expected: Mapping[str, Asked]) -> None:
    assert sorted(said(expected["handoff"])) == [
        (stub.BILLING_QUESTION, [], False),
        (stub.BILLING_QUESTION, [], False),
        (stub.BILLING_QUESTION, ["transfer_to_billing"], False),
        (stub.BILLING_QUESTION, ["transfer_to_billing"], False),
    ]


@pytest.mark.campaign
@pytest.mark.parametrize("number", [10, 100, 1000])
def test_runs_at_once_ask_once_each(expected: Mapping[str, Asked], number: int) -> None:
    times = max(2, number)
    assert said(expected[f"{number} runs at once"]) == [(stub.QUESTION, [], False)] * times


@pytest.mark.campaign
def test_a_case_that_a_peer_has_not_is_an_error(baseline: Started) -> None:
    with pytest.raises(CaseFailed, match="KeyError"):
        baseline.asked(Case(name="no such case"))


# --- The environments ---


@pytest.mark.parametrize("name", ["langgraph", "asyncio_client"])
def test_what_our_patterns_are_built_on_has_the_versions_that_are_installed(name: str) -> None:
    for dependency in dependencies(FOLDER / f"{name}.py"):
        library, _, pinned = dependency.partition("==")
        assert pinned == version(library)


@pytest.mark.parametrize("name", [BASELINE, *PEERS])
def test_a_dependency_is_pinned_or_our_own(name: str) -> None:
    needed = dependencies(FOLDER / f"{name}.py")
    assert list(needed) == ["runmeter"] or all(re.fullmatch(r"[\w.\[\]-]+==[\d.]+", each) for each in needed)


# --- The engine between measurements ---


@pytest.fixture
def anyio_backend() -> str:
    """The benchmarks run on asyncio."""
    return "asyncio"


@pytest.fixture
def hosting(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """It imports its neighbour as a peer's script does."""
    monkeypatch.syspath_prepend(str(SHIPPED))
    return import_module("hosting")


async def echo(messages: str, context: object) -> str:
    return messages


@pytest.mark.parametrize("times", [1, 7])
async def test_a_measurement_ends_when_subscribers_have_all_events(hosting: ModuleType, times: int) -> None:
    events: list[Event] = []
    engines: list[Engine] = []

    @asynccontextmanager
    async def make() -> AsyncIterator[Engine]:
        async with Engine() as engine:
            engine.subscribe(events.extend, name="listener", lane="lossless")
            yield engine

    async def run(engine: Engine) -> None:
        engines.append(engine)
        await engine.run(echo, "a")

    host = hosting.Host(make)
    for work in (host.in_a_row(run), host.at_once(run, 1)):  # each in a task of its own, as measurements are
        events.clear()
        await asyncio.create_task(work(times))
        assert sum(isinstance(event, ExecutionFinished) for event in events) == times
    assert len(set(engines)) == 1
    await host.close()
    with pytest.raises(EngineNotRunning):
        await engines[0].run(echo, "a")


async def test_runs_at_once_are_in_flight_together(hosting: ModuleType) -> None:
    most = 0

    async def wait(messages: str, context: object) -> None:
        nonlocal most
        await asyncio.sleep(0)
        most = max(most, engine.statistics().running)

    host = hosting.Host(Engine)
    engine = await host.engine()
    await host.at_once(lambda engine: engine.run(wait, "a"), 5)(10)
    await host.close()
    assert most == 5


async def test_an_engine_that_cannot_start_says_why(hosting: ModuleType) -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[Engine]:
        raise LookupError("no engine today")
        yield Engine()  # type: ignore[unreachable]  # what makes it a generator

    kind: AbstractAsyncContextManager[Engine] = make()
    host = hosting.Host(lambda: kind)
    with pytest.raises(LookupError, match="today"):
        await host.engine()
