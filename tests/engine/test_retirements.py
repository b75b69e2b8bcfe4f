"""Models that are shut down: the table, the guard in front of requests, and the simulator's word."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, NotFoundError
from openai.types import Model
from pattern_support import KEY
from process_support import output_of, python
from simulator_support import connect
from time_support import passing

from runmeter.engine import Engine, Execution, Notice, RunInfo, Runtime
from runmeter.engine.models import retirements as lifecycle
from runmeter.engine.testing import Recorder
from runmeter.patterns import OpenAIPatternConfig
from runmeter.patterns.errors import RetiredModel
from runmeter.patterns.openai.function_calling import OpenAIFunctionCallingPattern
from runmeter.patterns.openai_client.models import SunsetGuard
from runmeter.simulator import Fault, Simulator
from runmeter.simulator.model.catalogue import MODELS, is_retired

HOST = "api.openai.com"


class Day:
    """A clock that stands at noon of a day."""

    def __init__(self, day: str) -> None:
        self.day = date.fromisoformat(day)

    def time_ns(self) -> int:
        return int(datetime(self.day.year, self.day.month, self.day.day, 12, tzinfo=UTC).timestamp()) * 10**9

    def monotonic_ns(self) -> int:
        return 0


class RunOn:
    """Runs on a day, and the notices given in them."""

    def __init__(self, day: str) -> None:
        self.clock = Day(day)
        self._events: list[Any] = []

    def __call__(self) -> Execution:
        return Execution(Runtime(None, self._events.append, clock=self.clock), RunInfo("test"))

    @property
    def notices(self) -> list[Notice]:
        return [event for event in self._events if isinstance(event, Notice)]


# --- The table ---


def test_every_replacement_is_a_model_that_stays() -> None:
    for retirement in lifecycle.retirements().values():
        assert lifecycle.find(retirement.replacement) is None, retirement


def test_the_table_names_each_model_once_and_its_source() -> None:
    table = lifecycle.table()
    names = [name for shutdown in table.shutdowns for name in shutdown.models]
    assert len(names) == len(set(names)) == len(lifecycle.retirements())
    assert table.source.startswith("https://developers.openai.com/")
    assert all(str(table.checked) in retirement.source for retirement in lifecycle.retirements().values())


@pytest.mark.parametrize(
    ("model", "shutdown", "replacement"),
    [
        ("gpt-4-1106-preview", "2026-10-23", "gpt-5.6-sol"),
        ("gpt-5-mini", "2026-12-11", "gpt-6.1-terra"),
        ("gpt-5-mini-2025-08-07", "2026-12-11", "gpt-6.1-terra"),
        ("gpt-4o", "2027-01-14", "gpt-6-luna"),
        ("gpt-4o-2024-05-13", "2026-10-23", "gpt-5.6-sol"),
        ("gpt-4o-2029-01-01", "2027-01-14", "gpt-6-luna"),
        ("ft:gpt-4o-2024-08-06:acme::7p4lURel", "2027-01-14", "gpt-6-luna"),
        ("ft:gpt-3.5-turbo:acme::7p4lURel", "2026-10-23", "gpt-5.6-terra"),
        ("o4-mini-deep-research", "2026-07-23", "gpt-5.6-sol"),
        ("gpt-audio-mini-2025-10-06", "2026-07-23", "gpt-audio-1.5"),
        ("gpt-image-1.5-2025-12-16", "2026-12-01", "gpt-image-2.6-sunburst"),
        ("dall-e-3", "2026-05-12", "gpt-image-2.6-sunburst"),
        ("gpt-5.3-codex", "2027-04-01", "gpt-6.1-sol"),
    ],
)
def test_when_a_model_is_shut_down(model: str, shutdown: str, replacement: str) -> None:
    found = lifecycle.find(model)
    assert found is not None
    assert (found.shutdown.isoformat(), found.replacement) == (shutdown, replacement)


@pytest.mark.parametrize(
    "model", ["gpt-6-luna", "gpt-6.2-sol", "gpt-5.4-mini", "text-embedding-3-small", "llama", "", "ft:"]
)
def test_of_other_models_nothing_is_known(model: str) -> None:
    assert lifecycle.find(model) is None


def test_the_dates_are_those_of_the_openai_library() -> None:
    import re

    from openai.types import audio_model
    from openai.types.shared import chat_model

    said, checked = "", 0
    for module in (chat_model, audio_model):
        assert module.__file__ is not None
        with open(module.__file__, encoding="utf-8") as file:
            said += file.read().split('"""')[1]
    for group in re.split(r"\n- ", said):
        found = re.search(r"shutdown\s+date:\s+(\d{4}-\d{2}-\d{2})", group)
        for model in re.findall(r'"([^"]+)"', group) if found else ():
            retirement = lifecycle.find(model)
            assert retirement is not None, model
            assert found is not None
            assert retirement.shutdown.isoformat() == found[1], model
            checked += 1
    assert checked > 60


@given(st.integers(-1000, 1000))
def test_retiring_comes_before_retired(days: int) -> None:
    retirement = lifecycle.find("gpt-4o")
    assert retirement is not None
    today = retirement.shutdown - timedelta(days=days)
    assert retirement.is_retired(today) is (days <= 0)
    assert retirement.is_retiring(today) is (0 < days <= 90)


def test_nothing_is_read_before_it_is_asked_for() -> None:
    code = (
        "import sys, runmeter; from runmeter.engine import lifecycle;"
        "assert 'tomllib' not in sys.modules; lifecycle.find('gpt-4o')"
    )
    output_of(python(code))


# --- The guard ---


def test_a_retired_model_is_refused_and_named() -> None:
    with RunOn("2026-11-22")(), pytest.raises(RetiredModel) as raised:
        SunsetGuard().check_table("gpt-4-0613-2024-01-01", HOST)
    assert str(raised.value) == ("model 'gpt-4-0613-2024-01-01' was shut down on 2026-10-23; use 'gpt-5.6-sol' instead")


def test_a_model_that_is_shut_down_soon_is_noticed_once() -> None:
    run, guard = RunOn("2026-11-22"), SunsetGuard()
    for _ in range(3):
        with run():
            guard.check_table("gpt-5", HOST)
    with run():
        guard.check_table("gpt-4o-mini", HOST)
        guard.check_table("gpt-6-luna", HOST)
        guard.check_table("gpt-5.1", HOST)  # in 130 days
    assert [(notice.kind, notice.subject) for notice in run.notices] == [
        ("model_retirement", "gpt-5"),
        ("model_retirement", "gpt-4o-mini"),
    ]
    assert run.notices[0].message == "gpt-5 will be shut down on 2026-12-11, in 19 days: use gpt-6.1-sol instead"
    with run():
        SunsetGuard().check_table("gpt-5", HOST)
    assert len(run.notices) == 3, "another pattern's own notice"


@pytest.mark.parametrize("host", ["localhost", "api.openai.com.example.org", "myapi.openai.com", "example.org"])
def test_the_table_is_about_openais_own_servers(host: str) -> None:
    run = RunOn("2026-11-22")
    with run():
        SunsetGuard().check_table("gpt-4", host)
        SunsetGuard().check_table("gpt-5", host)
    assert run.notices == []


@pytest.mark.parametrize("region", ["us", "eu", "jp", "mtls-eu"])
def test_openais_servers_in_a_region_are_its_own(region: str) -> None:
    with RunOn("2026-11-22")(), pytest.raises(RetiredModel):
        SunsetGuard().check_table("gpt-4", f"{region}.api.openai.com")


def test_a_day_before_the_shutdown_is_one_day() -> None:
    run = RunOn("2026-12-10")
    with run():
        SunsetGuard().check_table("o3", HOST)
    assert "in 1 day:" in run.notices[0].message
    with RunOn("2026-12-11")(), pytest.raises(RetiredModel):
        SunsetGuard().check_table("o3", HOST)


def test_outside_a_run_there_is_nobody_to_notice() -> None:
    SunsetGuard().check_table("gpt-6-luna", HOST)
    with pytest.raises(RetiredModel):
        SunsetGuard().check_table("gpt-4", HOST)


# --- What the API says ---


@pytest.fixture
async def asked(simulator: Simulator) -> AsyncIterator[AsyncOpenAI]:
    async with connect(simulator.url) as client:
        yield client


async def test_the_api_is_asked_once_for_each_model(simulator: Simulator, asked: AsyncOpenAI) -> None:
    run, guard = RunOn("2026-11-22"), SunsetGuard(check_shutdown_date=True)
    for model in ("gpt-5", "gpt-5", "gpt-6-luna", "gpt-6-luna", "gpt-5"):
        with run():
            await guard.check(model, asked)
    assert simulator.statistics().requests == {"GET /models/{id}": 2}
    assert [notice.subject for notice in run.notices] == ["gpt-5"]


async def test_what_the_api_says_counts_on_any_server(asked: AsyncOpenAI) -> None:
    guard = SunsetGuard(check_shutdown_date=True)
    with RunOn("2026-12-10")():
        await guard.check("gpt-5", asked)
    with (
        RunOn("2026-12-11")(),
        pytest.raises(RetiredModel, match=r"'gpt-5' was shut down on 2026-12-11; use 'gpt-6\.1-sol'"),
    ):
        await guard.check("gpt-5", asked)


@pytest.mark.parametrize(
    ("model", "other"),
    [("gpt-7", "gpt-6-luna"), ("gpt-6-luna", "gpt-6.1-terra"), ("ft:gpt-6-luna:acme::7p4l", "gpt-6.1-terra")],
)
async def test_no_model_is_its_own_replacement(
    asked: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch, model: str, other: str
) -> None:
    class Models:
        async def retrieve(self, model: str, timeout: float) -> Model:
            return Model(id=model, created=0, object="model", owned_by="openai", shutdown_date="2026-11-30")

    monkeypatch.setattr(asked, "models", Models())  # the simulator tells the table's dates only
    run = RunOn("2026-11-22")
    with run():
        await SunsetGuard(check_shutdown_date=True).check(model, asked)
    assert run.notices[0].message == f"{model} will be shut down on 2026-11-30, in 8 days: use {other} instead"


@pytest.mark.parametrize("model", ["gpt-6-luna", "no-such-model"])
async def test_an_api_that_does_not_answer_changes_nothing(
    simulator: Simulator, asked: AsyncOpenAI, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    simulator.inject(Fault("server_error"))
    run, guard = RunOn("2026-11-22"), SunsetGuard(check_shutdown_date=True)
    for _ in range(2):
        with run():
            await guard.check(model, asked)
    assert simulator.statistics().requests == {"GET /models/{id}": 1}
    assert run.notices == []
    (record,) = [record for record in caplog.records if record.name.startswith("runmeter")]
    assert record.getMessage().startswith(f"cannot ask when {model} is shut down (InternalServerError)")


async def test_a_run_that_is_cancelled_while_it_asks_leaves_the_question_open(
    simulator: Simulator, asked: AsyncOpenAI
) -> None:
    simulator.inject(Fault("latency", seconds=3600))
    guard = SunsetGuard(check_shutdown_date=True)
    with anyio.move_on_after(30) as scope, RunOn("2026-11-22")():
        async with passing(30, whenever=lambda: simulator.statistics().faults):
            await guard.check("gpt-5", asked)
    assert scope.cancelled_caught
    with RunOn("2026-12-11")(), pytest.raises(RetiredModel):
        await guard.check("gpt-5", asked)


async def test_it_is_not_asked_unless_wanted(simulator: Simulator, asked: AsyncOpenAI) -> None:
    with RunOn("2026-11-22")():
        await SunsetGuard().check("gpt-5", asked)
    assert simulator.statistics().requests == {}


async def test_a_pattern_gives_one_notice_over_all_its_runs(simulator: Simulator) -> None:
    recorder = Recorder()
    config = OpenAIPatternConfig(
        openai_model="gpt-5-mini", base_url=simulator.url, api_key=KEY, check_shutdown_date=True
    )
    async with OpenAIFunctionCallingPattern(config) as pattern, Engine(clock=Day("2026-11-22")) as engine:
        engine.subscribe(recorder, name="recorder", lane="lossless")
        await engine.map(pattern, ["one", "two", "three"])
    notices = [event for event in recorder.events if isinstance(event, Notice)]
    assert [(notice.subject, notice.kind) for notice in notices] == [("gpt-5-mini", "model_retirement")]
    assert "use gpt-6.1-terra instead" in notices[0].message


# --- The simulator ---


async def test_the_simulator_says_the_same_as_the_table(client: AsyncOpenAI) -> None:
    listed = {model.id: model.shutdown_date async for model in client.models.list()}
    assert listed.keys() == MODELS.keys()
    for model, shutdown in listed.items():
        retirement = lifecycle.find(model)
        assert shutdown == (retirement.shutdown.isoformat() if retirement else None)
    assert (await client.models.retrieve("gpt-4o")).shutdown_date == "2027-01-14"
    assert (await client.models.retrieve("gpt-6-luna")).shutdown_date is None


async def test_the_simulator_refuses_what_the_table_says_is_gone(client: AsyncOpenAI) -> None:
    assert not any(map(is_retired, MODELS))
    for model in ("gpt-4-1106-preview", "o1-mini-2024-09-12", "gpt-4o-2024-05-13"):
        with pytest.raises(NotFoundError, match="has been deprecated"):
            await client.responses.create(model=model, input="hi")
