"""The bus: order, isolation, accounting, back-pressure."""

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runmeter.engine.bus import Bus
from runmeter.engine.errors import BusClosed, ConfigurationError
from runmeter.engine.events import Event, ExecutionFinished, Status
from runmeter.engine.subscription import BATCH, GIVE_UP_FAILURES, LASTING_FAILURES, LOSSY_ATTEMPTS, SubscriberStatistics
from runmeter.engine.testing import Recorder

T = TypeVar("T")


def event(seq: int, run_id: str = "0" * 32) -> Event:
    return ExecutionFinished(run_id=run_id, seq=seq, time_ns=0, status=Status.OK, duration_ns=1)


def quick_bus() -> Bus:
    return Bus(linger=0, retry_delay=0)


def seqs(recorder: Recorder) -> list[int]:
    return [event.seq for event in recorder.events]


def assert_balanced(bus: Bus) -> dict[str, SubscriberStatistics]:
    subscribers = {subscriber.name: subscriber for subscriber in bus.statistics().subscribers}
    for subscriber in subscribers.values():
        assert subscriber.published == subscriber.delivered + subscriber.dropped + subscriber.pending
    return subscribers


async def until_delivered(bus: Bus, *names: str) -> None:
    while any(s.pending for s in bus.statistics().subscribers if s.name in names):
        await anyio.lowlevel.checkpoint()


@pytest.mark.filterwarnings("error")
async def test_ten_subscribers_one_hanging_one_raising(caplog: pytest.LogCaptureFixture) -> None:
    events = 100_000
    recorders = [Recorder() for _ in range(8)]

    async def hang(_: Sequence[Event]) -> None:
        await anyio.sleep_forever()

    def fail(_: Sequence[Event]) -> None:
        raise OSError("disk full")

    async with quick_bus() as bus:
        for number, recorder in enumerate(recorders):
            bus.subscribe(recorder, name=f"good {number}", lane="lossless" if number % 2 else "lossy", capacity=events)
        bus.subscribe(hang, name="hanging", lane="lossy", capacity=5_000)
        bus.subscribe(fail, name="raising", lane="lossy", capacity=5_000)
        for seq in range(events):
            bus.publish(event(seq))
            if seq % 10_000 == 0:
                await anyio.lowlevel.checkpoint()
        good = [f"good {number}" for number in range(8)]
        await until_delivered(bus, *good)
        accounts = assert_balanced(bus)
        while accounts["hanging"].pending > 5_000 + BATCH or accounts["raising"].errors < LOSSY_ATTEMPTS:
            await anyio.lowlevel.checkpoint()
            accounts = assert_balanced(bus)
        await bus.drain(timeout=0.01)

    for recorder in recorders:
        assert seqs(recorder) == list(range(events))
    assert all(accounts[name].delivered == events and accounts[name].dropped == 0 for name in good)
    assert accounts["hanging"].delivered == 0
    assert accounts["raising"].delivered == 0
    assert accounts["raising"].errors >= LOSSY_ATTEMPTS
    assert [record.message for record in caplog.records].count(
        "subscriber 'raising' raised; it is tried again, and errors are counted"
    ) == 1
    after = assert_balanced(bus)
    assert after["hanging"].pending == after["raising"].pending == 0, "closing settles lossy accounts"


async def test_a_lossless_subscriber_that_recovers_gets_everything_in_order() -> None:
    recorder = Recorder()
    attempts = count()

    async def flaky(events: Sequence[Event]) -> None:
        if next(attempts) % 3:
            raise OSError("try again")
        recorder(events)

    async with quick_bus() as bus:
        bus.subscribe(flaky, name="flaky", lane="lossless")
        for seq in range(3 * BATCH):
            bus.publish(event(seq))
        await until_delivered(bus, "flaky")
    assert seqs(recorder) == list(range(3 * BATCH))
    (account,) = bus.statistics().subscribers
    assert account.errors > 0
    assert account.dropped == 0


async def test_what_is_published_before_the_start_is_delivered() -> None:
    bus, recorder = quick_bus(), Recorder()
    bus.subscribe(recorder, name="early", lane="lossless")
    bus.publish(event(0))
    async with bus:
        bus.publish(event(1))
    assert seqs(recorder) == [0, 1]


async def test_a_late_subscriber_gets_only_what_comes_after_it() -> None:
    recorder = Recorder()
    async with quick_bus() as bus:
        bus.publish(event(0))
        bus.subscribe(recorder, name="late", lane="lossless")
        bus.publish(event(1))
    assert seqs(recorder) == [1]
    assert assert_balanced(bus)["late"].published == 1


async def test_unsubscribed_gets_nothing_more() -> None:
    recorder = Recorder()
    async with quick_bus() as bus:
        subscription = bus.subscribe(recorder, name="guest", lane="lossless")
        bus.publish(event(0))
        await until_delivered(bus, "guest")
        bus.unsubscribe(subscription)
        bus.publish(event(1))
    assert seqs(recorder) == [0]


async def test_lossy_drops_the_oldest_and_counts_them() -> None:
    taken, release = anyio.Event(), anyio.Event()
    recorder = Recorder()

    async def slow(events: Sequence[Event]) -> None:
        taken.set()
        await release.wait()
        recorder(events)

    async with quick_bus() as bus:
        bus.subscribe(slow, name="slow", lane="lossy", capacity=10)
        bus.publish(event(0))
        await taken.wait()
        for seq in range(1, 101):
            bus.publish(event(seq))
        while not bus.statistics().subscribers[0].dropped:
            await anyio.lowlevel.checkpoint()
        assert_balanced(bus)
        release.set()
        await until_delivered(bus, "slow")
    assert seqs(recorder) == [0, *range(92, 101)]
    assert assert_balanced(bus)["slow"].dropped == 91


async def test_admission_waits_for_a_lossless_subscriber_that_is_behind(caplog: pytest.LogCaptureFixture) -> None:
    release, admitted = anyio.Event(), anyio.Event()

    async def slow(_: Sequence[Event]) -> None:
        await release.wait()

    async def newcomer(bus: Bus) -> None:
        await bus.admission()
        admitted.set()

    caplog.set_level(logging.INFO, "runmeter")
    async with quick_bus() as bus, anyio.create_task_group() as tasks:
        bus.subscribe(slow, name="ledger", lane="lossless", capacity=10)
        for seq in range(11):
            bus.publish(event(seq))
        tasks.start_soon(newcomer, bus)
        await anyio.wait_all_tasks_blocked()
        assert not admitted.is_set()
        assert "new runs wait until these subscribers have caught up: ledger" in caplog.text
        release.set()
        await admitted.wait()


async def test_a_lossless_subscriber_that_goes_on_failing_is_a_warning_and_in_the_statistics(
    caplog: pytest.LogCaptureFixture,
) -> None:
    full, admitted, recorder = True, anyio.Event(), Recorder()

    def write(events: Sequence[Event]) -> None:
        if full:
            raise OSError(28, "No space left on device")
        recorder(events)

    async def newcomer(bus: Bus) -> None:
        await bus.admission()
        admitted.set()

    caplog.set_level(logging.INFO, "runmeter")
    async with Bus(linger=0, retry_delay=0.01) as bus, anyio.create_task_group() as tasks:
        bus.subscribe(write, name="ledger", lane="lossless", capacity=10)
        for seq in range(11):
            bus.publish(event(seq))
        while (account := assert_balanced(bus)["ledger"]).failures < LASTING_FAILURES:
            await anyio.lowlevel.checkpoint()
        assert account.last_error == "OSError: [Errno 28] No space left on device"
        assert account.blocking
        tasks.start_soon(newcomer, bus)
        while "new runs wait until" not in caplog.text:
            await anyio.lowlevel.checkpoint()
        assert not admitted.is_set()
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 2
        assert f"'ledger' has failed {LASTING_FAILURES} times in a row (OSError: [Errno 28] No space" in warnings[0]
        assert warnings[1] == "new runs wait until these subscribers have caught up: ledger"
        full = False
        await admitted.wait()
        await until_delivered(bus, "ledger")
    account = assert_balanced(bus)["ledger"]
    assert (account.failures, account.last_error, account.blocking) == (0, None, False)
    assert account.errors >= LASTING_FAILURES
    assert "subscriber 'ledger' takes events again" in caplog.text
    assert seqs(recorder) == list(range(11))


async def test_a_lossless_subscriber_that_never_takes_its_events_holds_back_runs_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone, recorder = True, Recorder()

    def write(events: Sequence[Event]) -> None:
        if gone:
            raise OSError(28, "No space left on device")
        recorder(events)

    async with quick_bus() as bus:
        bus.subscribe(write, name="ledger", lane="lossless", capacity=10)
        for seq in range(1_000):
            bus.publish(event(seq))
        await bus.admission()
        account = assert_balanced(bus)["ledger"]
        assert account.failures >= GIVE_UP_FAILURES
        assert (account.dropped, account.blocking) == (1_000, False)
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert "1000 events are set aside, and new runs wait for it no more" in warnings[-1]
        for seq in range(1_000, 3_000):
            bus.publish(event(seq))
        while assert_balanced(bus)["ledger"].pending > 10:
            await anyio.lowlevel.checkpoint()
        await bus.admission()
        gone = False
        bus.publish(event(3_000))
        await until_delivered(bus, "ledger")
    assert seqs(recorder)[-1] == 3_000
    account = assert_balanced(bus)["ledger"]
    assert account.dropped + len(recorder.events) == 3_001
    assert (account.failures, account.blocking) == (0, False)


async def test_a_batch_that_is_never_taken_is_set_aside_and_the_rest_goes_on() -> None:
    recorder = Recorder()

    def write(events: Sequence[Event]) -> None:
        if any(event.seq == 3 for event in events):
            raise ValueError("event 3 has no form here")
        recorder(events)

    async with quick_bus() as bus:
        bus.subscribe(write, name="ledger", lane="lossless", batch=2)
        for seq in range(10):
            bus.publish(event(seq))
        await until_delivered(bus, "ledger")
    assert seqs(recorder) == [0, 1, 4, 5, 6, 7, 8, 9]
    assert assert_balanced(bus)["ledger"].dropped == 2


async def test_what_a_subscriber_could_not_keep_is_in_the_statistics() -> None:
    class Log:
        skipped = 0

        def __call__(self, events: Sequence[Event]) -> None:
            self.skipped += len(events)

    async with quick_bus() as bus:
        bus.subscribe(Log(), name="log", lane="lossless")
        bus.publish(event(0))
        await until_delivered(bus, "log")
        assert assert_balanced(bus)["log"].set_aside == 1


async def test_admission_is_open_for_lossy_backlogs() -> None:
    async def hang(_: Sequence[Event]) -> None:
        await anyio.sleep_forever()

    async with quick_bus() as bus:
        bus.subscribe(hang, name="view", lane="lossy", capacity=1)
        for seq in range(100):
            bus.publish(event(seq))
        await bus.admission()
        await bus.drain(timeout=0.01)


async def test_publishing_from_foreign_threads() -> None:
    threads, each = 8, 2_000
    recorder = Recorder()

    def publish(number: int) -> None:
        for seq in range(each):
            bus.publish(event(seq, run_id=str(number)))

    async with quick_bus() as bus:
        bus.subscribe(recorder, name="all", lane="lossless")
        async with anyio.create_task_group() as tasks:
            for number in range(threads):
                tasks.start_soon(anyio.to_thread.run_sync, publish, number)
        await until_delivered(bus, "all")
    for number in range(threads):
        assert [event.seq for event in recorder.of(str(number))] == list(range(each))


async def test_a_sleeping_bus_is_woken_by_a_foreign_thread() -> None:
    received = anyio.Event()

    async def receive(_: Sequence[Event]) -> None:
        received.set()

    async with quick_bus() as bus:
        bus.subscribe(receive, name="one", lane="lossless")
        await anyio.wait_all_tasks_blocked()
        thread = threading.Thread(target=bus.publish, args=(event(0),))
        thread.start()
        await received.wait()
        thread.join()


async def test_catch_up_reads_what_is_pending_at_once() -> None:
    recorder = Recorder()
    async with Bus(linger=3600) as bus:
        subscription = bus.subscribe(recorder, name="usage", lane="lossless")
        for seq in range(2 * BATCH):
            bus.publish(event(seq))
        assert not recorder.events
        subscription.catch_up()
        assert seqs(recorder) == list(range(2 * BATCH))
        assert assert_balanced(bus)["usage"].pending == 0


async def test_catch_up_leaves_a_receiver_that_raises_for_later() -> None:
    recorder = Recorder()
    broken = True

    def receive(events: Sequence[Event]) -> None:
        if broken:
            raise OSError
        recorder(events)

    async with quick_bus() as bus:
        subscription = bus.subscribe(receive, name="usage", lane="lossless")
        bus.publish(event(0))
        subscription.catch_up()
        assert subscription.statistics().errors == 1
        broken = False
    assert seqs(recorder) == [0]


async def test_memory_is_bounded_by_the_slowest_subscriber() -> None:
    async with quick_bus() as bus:
        bus.subscribe(Recorder(), name="quick", lane="lossless")
        for seq in range(10 * BATCH):
            bus.publish(event(seq))
        await until_delivered(bus, "quick")
        assert bus.statistics().retained <= BATCH
        assert bus.statistics().published == 10 * BATCH


async def test_a_bus_without_subscribers_keeps_nothing() -> None:
    async with quick_bus() as bus:
        bus.publish(event(0))
        while bus.statistics().retained:
            await anyio.lowlevel.checkpoint()


async def test_publishing_after_the_end_says_so() -> None:
    async with quick_bus() as bus:
        bus.publish(event(0))
    with pytest.raises(BusClosed, match="has closed"):
        bus.publish(event(1))
    assert bus.statistics().published == 1


async def test_an_error_of_the_body_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with quick_bus():
            raise ZeroDivisionError


async def test_a_lossless_subscriber_that_never_takes_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def hang(_: Sequence[Event]) -> None:
        await anyio.sleep_forever()

    async with quick_bus() as bus:
        bus.subscribe(hang, name="ledger", lane="lossless")
        bus.publish(event(0))
        await bus.drain(timeout=0.01)
    assert "subscriber 'ledger' did not take its last 1 events" in caplog.text
    assert assert_balanced(bus)["ledger"].pending == 1


@pytest.mark.parametrize(("lane", "capacity"), [("lossless", 0), ("other", 1)])
def test_bad_subscriptions_are_refused(lane: str, capacity: int) -> None:
    with pytest.raises(ConfigurationError, match="subscriber 'x'"):
        Bus().subscribe(print, name="x", lane=lane, capacity=capacity)  # type: ignore[arg-type] # on purpose


async def test_publish_leaves_nothing_for_the_collector() -> None:
    """What publish allocates beyond the log's own slot does not depend on the number of subscribers."""

    async def allocated(subscribers: int) -> int:
        async with Bus(linger=3600) as bus:
            for number in range(subscribers):
                bus.subscribe(Recorder(), name=str(number), lane="lossless")
            one = event(0)
            bus.publish(one)
            gc.collect()
            before = sys.getallocatedblocks()
            for _ in range(100):
                bus.publish(one)
            return sys.getallocatedblocks() - before

    assert await allocated(1) <= 5
    assert await allocated(10) <= 5


@given(actions=st.lists(st.sampled_from(["publish", "catch up 0", "catch up 1", "subscribe"]), max_size=60))
def test_every_subscriber_sees_every_event_since_it_joined(actions: list[str]) -> None:
    bus = Bus()
    joined: list[tuple[int, Recorder]] = []
    subscriptions = []
    published = 0
    for action in actions:
        if action == "publish":
            bus.publish(event(published))
            published += 1
        elif action == "subscribe":
            recorder = Recorder()
            joined.append((published, recorder))
            subscriptions.append(bus.subscribe(recorder, name="any", lane="lossless"))
        elif len(subscriptions) > (index := int(action[-1])):
            subscriptions[index].catch_up()
        for subscriber in bus.statistics().subscribers:
            assert subscriber.published == subscriber.delivered + subscriber.dropped + subscriber.pending
    for subscription in subscriptions:
        subscription.catch_up()
    for since, recorder in joined:
        assert seqs(recorder) == list(range(since, published))


# What must not go wrong


async def test_nobody_waits_for_admission_once_the_bus_has_closed() -> None:
    async def hang(_: Sequence[Event]) -> None:
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks, quick_bus() as bus:
        bus.subscribe(hang, name="ledger", lane="lossless", capacity=1)
        bus.publish(event(0))
        bus.publish(event(1))
        tasks.start_soon(bus.admission)
        await anyio.wait_all_tasks_blocked()
        await bus.drain(timeout=0.01)


async def test_admission_opens_when_the_culprit_leaves() -> None:
    async def hang(_: Sequence[Event]) -> None:
        await anyio.sleep_forever()

    async with quick_bus() as bus:
        culprit = bus.subscribe(hang, name="ledger", lane="lossless", capacity=1)
        bus.publish(event(0))
        bus.publish(event(1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.admission)
            await anyio.wait_all_tasks_blocked()
            bus.unsubscribe(culprit)


async def test_whatever_a_plain_receiver_returns_it_has_taken_its_batch() -> None:
    seen: list[int] = []

    def receive(events: Sequence[Event]) -> Any:
        seen.extend(event.seq for event in events)
        return ["rubbish"]

    async with quick_bus() as bus:
        bus.subscribe(receive, name="odd", lane="lossless")
        for seq in range(3):
            bus.publish(event(seq))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_receiver_that_awaits_something_cancelled_elsewhere_has_failed_and_no_more() -> None:
    recorder = Recorder()
    attempts = count()

    async def stray(events: Sequence[Event]) -> None:
        if next(attempts) == 0:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        recorder(events)

    async with quick_bus() as bus:
        bus.subscribe(stray, name="stray", lane="lossless")
        bus.publish(event(0))
        await until_delivered(bus, "stray")
    assert seqs(recorder) == [0]
    assert bus.statistics().subscribers[0].errors == 1


async def test_closing_tries_again_what_was_backing_off() -> None:
    recorder = Recorder()
    down = True

    def receive(events: Sequence[Event]) -> None:
        if down:
            raise OSError
        recorder(events)

    async with Bus(linger=0, retry_delay=3600) as bus:
        bus.subscribe(receive, name="ledger", lane="lossless")
        bus.publish(event(0))
        while not bus.statistics().subscribers[0].errors:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        down = False
        await bus.drain(timeout=5)
        assert seqs(recorder) == [0]


async def test_what_comes_late_is_handed_on_where_somebody_takes_it() -> None:
    late: list[Event] = []
    recorder = Recorder()
    async with Bus(linger=0, late=late.append) as bus:
        bus.subscribe(recorder, name="usual", lane="lossless")
        bus.publish(event(0))
    bus.publish(event(1))
    assert [e.seq for e in late] == [1]
    assert seqs(recorder) == [0]
    assert assert_balanced(bus)["usual"].published == 1


async def test_a_batch_is_no_larger_than_asked_for() -> None:
    sizes: list[int] = []
    async with quick_bus() as bus:
        bus.subscribe(lambda events: sizes.append(len(events)), name="small", lane="lossless", batch=7)
        for seq in range(20):
            bus.publish(event(seq))
    assert sizes == [7, 7, 6]


async def test_a_closed_bus_takes_no_subscriber() -> None:
    async with quick_bus() as bus:
        pass
    with pytest.raises(BusClosed):
        bus.subscribe(Recorder(), name="late", lane="lossy")


async def test_a_slow_plain_subscriber_keeps_up_with_whatever_a_turn_makes() -> None:
    """Some turns of the loop make many times what a batch holds, as hundreds of runs at once do: nothing piles up."""
    recorder = Recorder()
    behind: list[int] = []
    made = 700

    async with quick_bus() as bus:
        subscription = bus.subscribe(recorder, name="slow", lane="lossy", capacity=10 * made, batch=50)
        for turn in range(200):
            for seq in range(made):
                bus.publish(event(turn * made + seq))
            await anyio.lowlevel.checkpoint()
            behind.append(subscription.pending)
        await until_delivered(bus, "slow")
        assert_balanced(bus)
        assert subscription.statistics().dropped == 0
    assert max(behind) <= 4 * made
    assert seqs(recorder) == list(range(200 * made))


@pytest.mark.parametrize("elsewhere", ["thread", "loop"])
async def test_subscribers_come_and_go_from_other_threads(elsewhere: str) -> None:
    recorder, other = Recorder(), Recorder()

    def away(function: Callable[[], T]) -> T:
        if elsewhere == "thread":
            return function()

        async def in_a_loop() -> T:
            return function()

        return anyio.run(in_a_loop)

    async with quick_bus() as bus:
        subscription = await anyio.to_thread.run_sync(
            away, lambda: bus.subscribe(recorder, name="away", lane="lossless", capacity=1)
        )
        await anyio.to_thread.run_sync(away, lambda: bus.subscribe(other, name="other", lane="lossy"))
        for seq in range(3):
            bus.publish(event(seq))
        await until_delivered(bus, "away", "other")
        for _ in range(2):
            await anyio.to_thread.run_sync(away, lambda: bus.unsubscribe(subscription))
        bus.unsubscribe(subscription)
        bus.publish(event(3))
        await until_delivered(bus, "other")
        await bus.admission()
        assert set(assert_balanced(bus)) == {"other"}
    assert seqs(recorder) == [0, 1, 2]
    assert seqs(other) == [0, 1, 2, 3]


async def test_a_lossless_subscriber_that_leaves_from_a_thread_holds_back_no_run() -> None:
    async def hang(_: Sequence[Event]) -> None:
        await anyio.sleep_forever()

    async with quick_bus() as bus:
        subscription = bus.subscribe(hang, name="hanging", lane="lossless", capacity=1, batch=1)
        for seq in range(3):
            bus.publish(event(seq))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.admission)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(bus.unsubscribe, subscription)


async def test_a_subscriber_that_leaves_before_it_was_told_anything_leaves_no_task() -> None:
    recorder = Recorder()
    async with quick_bus() as bus:
        bus.unsubscribe(bus.subscribe(recorder, name="brief", lane="lossless"))
        bus.publish(event(0))
        await anyio.wait_all_tasks_blocked()
        assert not [task for task in anyio.get_running_tasks() if "brief" in (task.name or "")]
    assert not recorder.events


def test_subscribing_to_a_bus_whose_loop_has_ended_is_refused_and_changes_nothing() -> None:
    bus = Bus()

    async def start() -> None:
        await bus.__aenter__()

    anyio.run(start)
    assert not bus.statistics().subscribers
    with pytest.raises(BusClosed):
        bus.subscribe(Recorder(), name="late", lane="lossless")
    assert not bus.statistics().subscribers
