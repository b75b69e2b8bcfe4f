"""A marked secret goes in wherever one can; by default it is in nothing that comes out: events, log, spans, reports."""

import io
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from contract_support import CASES, EACH_PATTERN, no_sleep
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient
from otlp_receiver import receive_http
from pydantic import SecretStr
from telemetry_support import no_variables

from runmeter.cli.advise import advise
from runmeter.engine import JSON, Budget, Engine, Event, ExecutionFinished
from runmeter.engine.event_log import NAME, EventLog, read_events
from runmeter.engine.testing import Recorder
from runmeter.patterns import MeteringHandler, OpenAIPatternConfig, PatternRegistry, PatternType, RetryPolicy
from runmeter.simulator import Fault, Simulator
from runmeter.simulator.faults import FaultKind
from runmeter.telemetry import configure

__all__ = ["no_variables"]
pytestmark = pytest.mark.usefixtures("no_variables")

MARK = "MARKED0123456789"
KEY = f"sk-proj-{MARK}"
WORDS = "dinner with Ann"
"""Content: it looks like no secret, and is in nothing that comes out, either."""
SECRET = f"{KEY} {WORDS}"
QUESTION = f"Please add 19 and 23, and say what honey is made of. {SECRET}"
FAULTS: tuple[FaultKind, ...] = get_args(FaultKind)
Case = tuple[PatternType, str]


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    raise ValueError(f"cannot add {a} and {b}: {SECRET}")


class Socket:
    """A WebSocket that its client leaves, with words."""

    async def send_json(self, message: dict[str, Any]) -> None:
        """Take nothing."""
        raise ConnectionResetError(SECRET)


class Heard(logging.Handler):
    """Keeps all that Runmeter logs, as a file would have it, with tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.text += self.format(record) + "\n"


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, logger = Heard(), logging.getLogger("runmeter")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture(params=EACH_PATTERN, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


@pytest.fixture
def anyio_backend(case: Case) -> str:
    return case[1]


def create(case: Case, url: str, folder: Path, **more: Any) -> Any:
    """A pattern that has been told the secret in each way there is."""
    (folder / "honey.md").write_text(f"Honey is made of nectar. {SECRET}\n")
    given: dict[str, Any] = {"base_url": url, "api_key": KEY, "max_retries": 1, "system_prompt": f"Be brief. {SECRET}"}
    if case[0] is PatternType.OPENAI_RAG:
        given["sources"] = [str(folder)]
    registry = PatternRegistry()
    config = registry.pattern_class(case[0]).config_type.from_data(given)
    assert isinstance(config, OpenAIPatternConfig)
    retry = RetryPolicy(max_retries=1, sleep=no_sleep)
    return registry.create_pattern(case[0], config, [add], retry=retry, **more)


@asynccontextmanager
async def watched(folder: Path, heard: Heard, error_messages: Any = "masked") -> AsyncIterator[Engine]:
    """An engine all of whose outlets are looked at once it has closed."""
    recorder, path = Recorder(), folder / "events.jsonl"
    with receive_http() as receiver:
        telemetry = configure(endpoint=receiver.endpoint, protocol="http/protobuf")
        with EventLog(path) as log:
            budgets = [Budget(calls=10_000, per="run")]
            async with Engine(telemetry=telemetry, budgets=budgets, error_messages=error_messages) as engine:
                engine.subscribe(recorder, name="recorder", lane="lossless")
                engine.subscribe(log, name=NAME, lane="lossless")
                yield engine
                outlets = {"statistics": f"{engine.usage()} {engine.budgets()} {engine.statistics()}"}
        telemetry.shutdown()
        outlets["spans"] = str([(span.resource, span.span) for span in receiver.spans])
        outlets["metrics"] = str([(each.resource, each.metric) for each in receiver.metrics])
    events: Sequence[Event] = recorder.events
    assert list(read_events(path, lambda *_: pytest.fail("damaged"))) == events
    finished = sum(isinstance(event, ExecutionFinished) for event in events)
    assert finished
    assert outlets["spans"].count("runmeter.") >= finished
    outlets["bus"] = repr(events) + str([JSON.encode(event) for event in events])
    outlets["event log"] = path.read_text()
    outlets["advice"] = _advice(path)
    outlets["log"] = heard.text
    found = {
        name: text[max(at - 300, 0) : at + 50]
        for name, text in outlets.items()
        for secret in (MARK, WORDS)
        if (at := text.find(secret)) >= 0
    }
    if error_messages == "full":
        assert found.keys() >= {"bus", "event log", "spans"}, "else none of this would find anything"
    else:
        assert not found


def _advice(path: Path) -> str:
    out = io.StringIO()
    for as_json in (False, True):
        advise(path, None, out, as_json=as_json)
    return out.getvalue()


async def run(engine: Engine, pattern: Any, *, stream: bool) -> None:
    """A run, whatever comes of it. Its caller gets the error with all its words, as without Runmeter."""
    try:
        if stream:
            async with engine.stream(pattern, QUESTION, {"user": SECRET}) as items:
                _ = [item async for item in items]
        else:
            await engine.run(pattern, QUESTION, {"user": SECRET})
    except (AssertionError, TypeError, AttributeError, KeyError):
        raise
    except Exception:
        return


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        pytest.param(
            case,
            kind,
            id=f"{case[0]}-{case[1]}-{kind}",
            marks=() if (number + offset) % len(FAULTS) == 0 else pytest.mark.campaign,  # each case, and each fault
        )
        for number, case in enumerate(CASES)
        for offset, kind in enumerate(FAULTS)
    ],
)
async def test_no_failure_tells_a_secret(
    case: Case, kind: FaultKind, simulator: Simulator, tmp_path: Path, heard: Heard
) -> None:
    async with create(case, simulator.url, tmp_path) as pattern, watched(tmp_path, heard) as engine:
        for times in (1, None):
            for stream in (False, True):
                simulator.inject(Fault(kind, times=times, seconds=0, after_events=3))
                await run(engine, pattern, stream=stream)
                simulator.recover()
        await run(engine, pattern, stream=False)


@pytest.mark.parametrize("case", [(PatternType.OPENAI_FUNCTION_CALLING, "asyncio")], ids=["control"])
async def test_where_all_words_are_wanted_they_come_out(
    case: Case, simulator: Simulator, tmp_path: Path, heard: Heard
) -> None:
    async with create(case, simulator.url, tmp_path) as pattern, watched(tmp_path, heard, "full") as engine:
        await run(engine, pattern, stream=False)


async def test_neither_does_a_listener_that_leaves(
    case: Case, simulator: Simulator, tmp_path: Path, heard: Heard
) -> None:
    pattern = create(case, simulator.url, tmp_path, ws_streaming=Socket())
    async with pattern, watched(tmp_path, heard) as engine:
        await run(engine, pattern, stream=False)


@pytest.mark.parametrize("case", [(PatternType.AUGMENTED_LLM, "asyncio")], ids=["own"])
@pytest.mark.parametrize("fault", [None, "server_error", "failed", "stream_error", "wrong_key", "drop"])
async def test_nor_do_functions_and_graphs_of_ones_own(
    case: Case, fault: Any, simulator: Simulator, tmp_path: Path, heard: Heard
) -> None:
    """What they raise is the caller's; its words are in none of Runmeter's outlets."""

    async def fails(messages: Any, context: Any) -> None:
        raise ValueError(f"{messages} {context}")

    async def asks(messages: Any, context: Any) -> Any:
        async with DefaultAsyncHttpxClient() as http:
            model = ChatOpenAI(
                model="gpt-6-luna",
                base_url=simulator.url,
                api_key=SecretStr(KEY),
                max_retries=0,
                http_async_client=http,
                use_responses_api=True,
            )
            with MeteringHandler() as meter:
                return [chunk async for chunk in model.astream(messages, {"callbacks": [meter]})]

    async with watched(tmp_path, heard) as engine:
        for pattern in (fails, asks):
            for stream in (False, True):
                if fault:
                    simulator.inject(Fault(fault))
                await run(engine, pattern, stream=stream)
                simulator.recover()
