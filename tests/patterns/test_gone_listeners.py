"""A WebSocket whose client has gone ends the run with one error, whichever pattern streams to it."""

from pathlib import Path
from typing import Any

import pytest
from contract_support import EACH_PATTERN, Watcher, create

from runmeter.engine import ExecutionFinished, Status
from runmeter.patterns import ListenerGone, PatternType
from runmeter.simulator import Simulator


class Gone(Exception):
    """What some framework's WebSocket raises."""


class Socket:
    """A WebSocket whose client has gone."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def send_json(self, message: dict[str, Any]) -> None:
        """Take nothing."""
        raise self.error


@pytest.fixture(params=EACH_PATTERN, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[PatternType, str]:
    chosen: tuple[PatternType, str] = request.param
    return chosen


@pytest.fixture
def anyio_backend(case: tuple[PatternType, str]) -> str:
    return case[1]


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), Gone(), ValueError("server_error: gone")])
async def test_a_listener_that_has_gone_is_one_error(
    case: tuple[PatternType, str], simulator: Simulator, tmp_path: Path, error: Exception
) -> None:
    (tmp_path / "honey.md").write_text("Honey is made of nectar.\n")
    watcher = Watcher()
    socket = Socket(error)
    async with create(case[0], simulator.url, tmp_path, ws_streaming=socket) as pattern, watcher.engine() as engine:
        with pytest.raises(ListenerGone) as raised:
            await engine.run(pattern, "Please add 19 and 23, and say what honey is made of.")
    assert raised.value.reason == type(error).__name__
    assert raised.value.__cause__ is error
    [finished] = [event for event in watcher.events if isinstance(event, ExecutionFinished)][-1:]
    assert (finished.status, finished.error_type) == (Status.ERROR, "ListenerGone")
    assert finished.error_message == str(raised.value)
    watcher.check_against(simulator)
