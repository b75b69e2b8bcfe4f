"""Every close has a limit, whatever it waits for: measured in virtual time."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from virtual_time import TICK, VirtualTime

from runmeter.engine import Delta, Engine, Event, RunStream, Status, current_execution
from runmeter.engine.bus import LOSSY_GRACE, Bus
from runmeter.engine.bus import STOP_LIMIT as BUS_STOP_LIMIT
from runmeter.engine.engine import ABORT_GRACE, INTERRUPTED_GRACE, STOP_LIMIT
from runmeter.engine.stream import CLOSE_LIMIT

SLACK = 100 * TICK
"""Seconds for the turns of the loop themselves."""


class Culprit:
    """A pattern, and a subscriber, that will not end when cancelled. Until it is released, lest the loop not end."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.tick = tick
        self.released = False
        self.endings: list[str] = []

    async def swallow_once(self) -> None:
        """As `asyncio.wait_for` does in Python 3.11, when what it waits for is done just then."""
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            pass
        await anyio.sleep_forever()

    async def swallow_always(self) -> None:
        while not self.released:
            try:
                self.tick()
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                await anyio.lowlevel.cancel_shielded_checkpoint()

    async def tidy_for_ever(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                while not self.released:  # noqa: ASYNC110 - it has nothing to wait for
                    await anyio.sleep(1)

    async def go_on_talking(self) -> None:
        while not self.released:
            try:
                await current_execution().delta("again")
            except anyio.get_cancelled_exc_class():
                await anyio.lowlevel.cancel_shielded_checkpoint()

    async def run(self, messages: str, context: Any) -> None:
        try:
            await current_execution().delta("begun")
            await getattr(self, messages)()
        finally:
            self.endings.append("ended")


@pytest.fixture(params=["asyncio", "trio"])
def time(request: pytest.FixtureRequest) -> VirtualTime:
    return VirtualTime(request.param)


@pytest.fixture
def anyio_backend(time: VirtualTime) -> tuple[str, dict[str, Any]]:
    return time.backend


@pytest.fixture
async def culprit(time: VirtualTime) -> AsyncIterator[Culprit]:
    culprit = Culprit(time.tick)
    yield culprit
    culprit.released = True  # what was left behind ends with its loop


async def began(stream: RunStream) -> None:
    async for item in stream:
        if isinstance(item, Delta):
            return


ENDING = ["swallow_once", "go_on_talking"]
"""What ends by being cancelled again, or by its next delta."""
ENDLESS = ["swallow_always", "tidy_for_ever"]


@pytest.mark.parametrize("kind", ENDING)
async def test_a_stream_s_run_that_loses_its_cancellation_ends_all_the_same(culprit: Culprit, kind: str) -> None:
    async with Engine() as engine:
        stream = engine.stream(culprit.run, kind, buffer=1)
        await began(stream)
        await stream.aclose()
        assert culprit.endings == ["ended"]
        assert engine.usage().total.by_status == {Status.CANCELLED: 1}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_leaving_a_stream_waits_no_longer_than_its_limit(
    culprit: Culprit, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(drain_timeout=0) as engine:
        stream = engine.stream(culprit.run, kind)
        await began(stream)
        start = anyio.current_time()
        await stream.aclose()
        assert CLOSE_LIMIT <= anyio.current_time() - start <= CLOSE_LIMIT + SLACK
        assert culprit.endings == []
        culprit.released = True
    assert culprit.endings == ["ended"]
    assert "has not ended within 5 s" in caplog.text


@pytest.mark.parametrize("kind", [*ENDING, *ENDLESS])
@pytest.mark.parametrize("drain_timeout", [0, 2])
async def test_closing_an_engine_waits_for_streams_no_longer_than_its_limit(
    culprit: Culprit, kind: str, drain_timeout: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(drain_timeout=drain_timeout) as engine:
        await began(engine.stream(culprit.run, kind))
        start = anyio.current_time()
    took = anyio.current_time() - start
    limit = drain_timeout + min(drain_timeout, ABORT_GRACE) + STOP_LIMIT
    assert took <= limit + SLACK
    if kind in ENDLESS:
        assert "left behind" in caplog.text
        assert "stream of Culprit.run" in caplog.text


@pytest.mark.parametrize("kind", [*ENDING, *ENDLESS])
async def test_an_engine_that_is_left_by_an_exception_closes_at_once(culprit: Culprit, kind: str) -> None:
    start = 0.0
    with pytest.raises(OSError, match="broken"):
        async with Engine() as engine:
            await began(engine.stream(culprit.run, kind))
            start = anyio.current_time()
            raise OSError("broken")
    assert anyio.current_time() - start <= INTERRUPTED_GRACE + STOP_LIMIT + SLACK


@pytest.mark.parametrize("kind", ENDLESS)
async def test_closing_an_engine_waits_for_runs_no_longer_than_its_limit(culprit: Culprit, kind: str) -> None:
    async def run(engine: Engine) -> None:
        with pytest.raises(BaseException):  # noqa: B017, PT011 - cancelled, aborted, or done: it ends after the engine
            await engine.run(culprit.run, kind)
            raise AssertionError

    async with anyio.create_task_group() as tasks:
        async with Engine(drain_timeout=2) as engine:
            tasks.start_soon(run, engine)
            await anyio.sleep(1)
            start = anyio.current_time()
        assert anyio.current_time() - start <= 2 + ABORT_GRACE + SLACK
        culprit.released = True


@pytest.mark.parametrize("kind", ["swallow_once", "swallow_always", "tidy_for_ever"])
@pytest.mark.parametrize("lane", ["lossy", "lossless"])
async def test_closing_a_bus_waits_for_subscribers_no_longer_than_its_limit(
    culprit: Culprit, kind: str, lane: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def receive(_: Sequence[Event]) -> None:
        await getattr(culprit, kind)()

    async def nothing(messages: str, context: Any) -> None:
        pass

    async with Engine(drain_timeout=3) as engine:
        engine.subscribe(receive, name="culprit", lane=lane)
        await engine.run(nothing, "")
        await anyio.sleep(1)
        start = anyio.current_time()
    took = anyio.current_time() - start
    limit = 3 if lane == "lossless" else LOSSY_GRACE
    assert limit <= took <= limit + BUS_STOP_LIMIT + SLACK
    assert ("left behind" in caplog.text) is (kind != "swallow_once")


async def test_a_failure_in_the_background_is_told_and_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(BaseException):
        pass

    def receive(_: Sequence[Event]) -> None:
        raise Broken

    def forward(events: Sequence[Event]) -> None:
        for event in events:
            bus.publish(event)

    bus = Bus(linger=0)
    with pytest.raises(Broken):
        async with bus:
            bus.subscribe(receive, name="broken", lane="lossy")
            async with Engine() as engine:
                engine.subscribe(forward, name="forward")

                async def nothing(messages: str, context: Any) -> None:
                    pass

                await engine.run(nothing, "")
                await anyio.sleep(1)
    assert "runmeter bus has failed" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_program_reaches_who_listens(kind: type[BaseException]) -> None:
    async def pattern(messages: str, context: Any) -> None:
        raise kind

    async with Engine() as engine:
        with pytest.raises(kind):
            async for _ in engine.stream(pattern, ""):
                pass


def test_loops_do_not_wait_for_virtual_time() -> None:
    async def sleep() -> float:
        start = anyio.current_time()
        await anyio.sleep(1e4)
        return anyio.current_time() - start

    for backend in ("asyncio", "trio"):
        name, options = VirtualTime(backend).backend
        assert anyio.run(sleep, backend=name, backend_options=options) == pytest.approx(1e4, abs=1)
