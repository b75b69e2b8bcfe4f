"""What every test shares."""

import gc
import signal
from collections.abc import AsyncIterator
from functools import cache
from typing import TYPE_CHECKING

import httpcore2
import pytest
from campaign_support import FULL, SHORT
from hypothesis import settings
from loop_choice import leave_other_loops_to_campaigns

# The process that hands tests to others needs nothing of what they import: seconds in which nothing else would run.
if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from runmeter.simulator import Simulator


@pytest.hookimpl(tryfirst=True)  # before a profile is chosen
def pytest_configure() -> None:
    """Set up what modules of tests find when they are imported."""
    _set_up_hypothesis()
    _share_certificates()
    _hear_signals()


def _set_up_hypothesis() -> None:
    # How long an example takes says nothing on a machine with other work, and the first may import something.
    settings.register_profile("short", max_examples=SHORT, deadline=None)
    settings.register_profile("campaign", max_examples=FULL, deadline=None)
    settings.load_profile("short")


def _share_certificates() -> None:
    """Have HTTP clients share what they trust: 20 ms for each client otherwise, which tests make by the thousand."""
    httpcore2.default_ssl_context = cache(httpcore2.default_ssl_context)


def _hear_signals() -> None:
    """Have the commands that tests start hear signals: what a script runs in the background inherits deaf ears."""
    for told, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(told) is signal.SIG_IGN:
            signal.signal(told, usual)


@pytest.hookimpl(tryfirst=True)  # before those with the mark are deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run each case of a test on one event loop, and on the other in the campaigns."""
    leave_other_loops_to_campaigns(items)


def pytest_collection_finish() -> None:
    """Have the garbage collector leave alone what has been imported: looking at all of it takes half a second."""
    _freeze()


@pytest.fixture
def frozen_heap() -> None:
    """Have it leave alone what earlier tests have left as well: for a test that has it collect again and again."""
    _freeze()


def _freeze() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test on both event loops."""
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def time_for_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have cancelled requests get their bounds, however long their tokens take to count on a busy machine."""
    from runmeter.patterns.requests import bounds

    monkeypatch.setattr(bounds, "LATE_LIMIT", 3600)


@pytest.fixture
async def simulator() -> AsyncIterator["Simulator"]:
    """One that nobody has used yet."""
    from runmeter.simulator import Simulator

    simulator = Simulator()
    async with simulator:
        yield simulator


@pytest.fixture
async def client(simulator: "Simulator") -> AsyncIterator["AsyncOpenAI"]:
    """Its client, which refuses answers that are not as the API's."""
    from simulator_support import connect

    async with connect(simulator.url, _strict_response_validation=True) as client:
        yield client
