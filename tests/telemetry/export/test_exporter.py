"""A queue with a thread: what becomes of what is put there, whatever the collector says."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pytest
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value

from runmeter.telemetry import ExporterStatistics
from runmeter.telemetry.export.exporter import KEEPS_UP, Exporter
from runmeter.telemetry.export.queue import Bounds
from runmeter.telemetry.export.verdict import Refused, Taken, Unavailable, Verdict

BOUNDS = Bounds(size=1_000, age=300.0, batch_count=4, batch_size=100, delay=1e6, count=20)
AWAY = Unavailable("nobody listens")
GOES_ON = "(the work goes on; further failures are only counted)"


class Transport:
    """Holds each request until the test says what becomes of it."""

    def __init__(self) -> None:
        self.requests: SimpleQueue[bytes] = SimpleQueue()
        self.verdicts: SimpleQueue[Verdict | Exception] = SimpleQueue()
        self.is_closed = False
        self.suppressed: object = None

    def send(self, body: bytes, timeout: float) -> Verdict:
        self.suppressed = get_value(_SUPPRESS_INSTRUMENTATION_KEY)
        self.requests.put(body)
        verdict = self.verdicts.get()
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    def close(self) -> None:
        self.is_closed = True
        self.verdicts.put(Refused("closed"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def encode(items: Sequence[str]) -> bytes:
    return "".join(items).encode()


@contextmanager
def exporting(
    transport: Transport, bounds: Bounds = BOUNDS, clock: Callable[[], float] | None = None
) -> Iterator[Exporter[str]]:
    exporter = Exporter[str]("traces to nowhere", bounds, encode, lambda: transport, 10.0, clock or Clock())
    exporter.start()
    try:
        yield exporter
    finally:
        exporter.stop()
        assert exporter._thread is not None
        exporter._thread.join()


def put(exporter: Exporter[str], items: str) -> None:
    for item in items:
        exporter.put(item, 1)


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.001)


def settled(exporter: Exporter[str]) -> ExporterStatistics:
    """The account once nothing is pending."""
    until = exporter.hurry()
    wait_until(lambda: exporter.is_settled(until))
    account = exporter.statistics()
    assert account.taken == account.sent + account.failed + account.dropped + account.pending
    return account


def test_requests_leave_back_to_back_and_what_is_left_when_there_is_hurry() -> None:
    transport = Transport()
    with exporting(transport) as exporter:
        put(exporter, "abcdefghij")
        for body in (b"abcd", b"efgh"):
            assert transport.requests.get() == body
            transport.verdicts.put(Taken())
        assert transport.suppressed is True
        exporter.hurry()
        assert transport.requests.get() == b"ij"
        transport.verdicts.put(Taken())
        assert settled(exporter).sent == 10
        assert exporter.answers == 3


@pytest.mark.parametrize(
    ("verdict", "sent", "failed"),
    [
        (Taken(), 4, 0),
        (Taken(rejected=1, message="odd"), 3, 1),
        (Refused("404 Not Found"), 0, 4),
        (ValueError("out of order"), 0, 4),
    ],
)
def test_what_the_collector_says_is_counted_and_told(
    verdict: Verdict | Exception, sent: int, failed: int, caplog: pytest.LogCaptureFixture
) -> None:
    transport = Transport()
    with exporting(transport) as exporter:
        put(exporter, "abcd")
        transport.verdicts.put(verdict)
        account = settled(exporter)
        assert (account.sent, account.failed) == (sent, failed)
        assert exporter.in_trouble == (sent == 0)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == bool(failed)
    assert all(message.startswith("telemetry does not arrive: traces to nowhere: ") for message in messages)


def test_a_collector_that_takes_the_signal_after_all_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    transport = Transport()
    with exporting(transport) as exporter:
        for verdict, unsupported in ((Refused("404 Not Found", is_unsupported=True), True), (Taken(), False)):
            put(exporter, "abcd")
            transport.verdicts.put(verdict)
            assert settled(exporter).unsupported is unsupported
    [record] = caplog.records
    assert record.getMessage().startswith("nowhere takes no traces (404 Not Found)")


def test_a_collector_that_is_away_gets_the_same_request_again_and_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    transport = Transport()
    with exporting(transport) as exporter:
        put(exporter, "abcd")
        for failures in (1, 2, 3):
            assert transport.requests.get() == b"abcd"
            transport.verdicts.put(AWAY)
            wait_until(lambda: exporter._queue._failures == failures)  # noqa: B023 - it is called at once
            exporter.hurry()
        assert exporter.in_trouble
        assert transport.requests.get() == b"abcd"
        transport.verdicts.put(Taken())
        assert settled(exporter).sent == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"telemetry does not arrive: traces to nowhere: nobody listens {GOES_ON}",
        "telemetry arrives again: traces to nowhere",
    ]


def test_one_item_that_cannot_be_encoded_is_no_reason_to_lose_the_others(caplog: pytest.LogCaptureFixture) -> None:
    transport = Transport()
    with exporting(transport) as exporter:
        put(exporter, "ab\ud800d")
        assert transport.requests.get() == b"abd"
        transport.verdicts.put(Taken())
        account = settled(exporter)
        assert (account.sent, account.failed) == (3, 1)
        put(exporter, "\ud800\ud801\ud802\ud803")
        assert settled(exporter).failed == 5
        exporter.refuse(ValueError("no number"))
        assert settled(exporter).failed == 6
    assert len(caplog.records) == 1


def test_a_request_that_came_out_larger_than_it_may_be_is_sent_in_parts() -> None:
    transport = Transport()
    with exporting(transport) as exporter:
        for item in ("a" * 60, "b" * 60, "c" * 30, "d" * 120):
            exporter.put(item, 1)  # far too little
        for length in (60, 60, 30, 120):
            assert len(transport.requests.get()) == length
            transport.verdicts.put(Taken())
            exporter.hurry()
        assert settled(exporter).sent == 4


def test_when_it_stops_what_is_pending_is_dropped_and_told(caplog: pytest.LogCaptureFixture) -> None:
    transport = Transport()
    with exporting(transport) as exporter:
        put(exporter, "abcdef")
        transport.requests.get()
        exporter.stop()
        exporter.stop()
        assert transport.is_closed
        put(exporter, "gh")
        account = exporter.statistics()
        assert (account.taken, account.dropped, account.pending) == (8, 8, 0)
        assert exporter.is_settled(exporter.hurry())
    assert [record.getMessage() for record in caplog.records] == [
        "telemetry is dropped: traces to nowhere: 6 not sent in time"
    ]


def test_drops_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    transport = Transport()
    with exporting(transport) as exporter:
        put(exporter, "x" * 30)
        assert exporter.statistics().dropped == 10
        put(exporter, "x" * 30)
        assert exporter.statistics().dropped == 40
        [record] = caplog.records
    assert record.getMessage().startswith("telemetry is dropped: traces to nowhere: more than may wait")


def test_only_a_collector_that_keeps_up_is_worth_waiting_for() -> None:
    transport, clock = Transport(), Clock()
    with exporting(transport, clock=clock) as exporter:
        seen = [exporter.is_crowded]
        put(exporter, "x" * 16)
        seen.append(exporter.is_crowded)
        transport.requests.get()
        clock.now += KEEPS_UP  # and no answer
        seen.append(exporter.is_crowded)
        transport.verdicts.put(Taken())
        transport.requests.get()
        put(exporter, "x" * 4)
        seen.append(exporter.is_crowded)
        transport.verdicts.put(AWAY)
        wait_until(lambda: exporter.in_trouble)
        seen.append(exporter.is_crowded)
        assert seen == [False, True, False, True, False]


def test_a_delay_that_is_over_is_noticed() -> None:
    transport = Transport()
    hasty = Bounds(size=1_000, age=300.0, batch_count=4, batch_size=100, delay=1e-3)
    with exporting(transport, hasty, time.monotonic) as exporter:
        put(exporter, "a")
        assert transport.requests.get() == b"a"
        transport.verdicts.put(Taken())


def test_nothing_is_connected_before_it_is_known_that_it_can_be() -> None:
    def refuse() -> Any:
        raise OSError("no such file")

    before = threading.active_count()
    with pytest.raises(OSError, match="no such file"):
        Exporter[str]("traces to nowhere", BOUNDS, encode, refuse, 10.0)
    assert threading.active_count() == before
