"""How long exporters are waited for, by a clock that only the test moves."""

from collections.abc import Callable

import pytest

from runmeter.telemetry.export.drain import PATIENCE, POLL, SILENT_PATIENCE, Drain
from runmeter.telemetry.open_telemetry import SHUTDOWN_TIMEOUT, NoTracing, OpenTelemetry


class Exporter:
    """Holds a number of requests, and lets go of them as the test has it."""

    def __init__(self, pending: int = 0) -> None:
        self.in_trouble = False
        self.answers = 0
        self.pending = pending
        self.hurried = 0

    def hurry(self) -> float:
        self.hurried += 1
        return 0.0

    def is_settled(self, until: float) -> bool:
        return not self.pending

    def answer(self) -> None:
        self.answers += 1
        self.pending -= 1


class Watch:
    """Makes a drain's pauses, and tells what they come to."""

    def __init__(self, *exporters: Exporter) -> None:
        self.now = 100.0
        self.drain = Drain(exporters, lambda: self.now)

    def waits(
        self,
        timeout: float,
        meanwhile: Callable[[float], None] = lambda _: None,
        collected: Callable[[], bool] = lambda: True,
    ) -> float:
        """Seconds that it waits; `meanwhile` is told after each pause how many they were until then."""
        started = self.now
        for pause in self.drain.pauses(timeout, collected):
            self.now += pause
            meanwhile(self.now - started)
        return self.now - started


class Slow(Exporter):
    """Answers each second, and never comes to an end."""

    stopped = False

    def __init__(self, watch: Watch) -> None:
        super().__init__(1)
        self._watch = watch

    @property
    def answers(self) -> int:
        return int(self._watch.now)

    @answers.setter
    def answers(self, _: int) -> None: ...

    def stop(self) -> None:
        self.stopped = True


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=2 * POLL)


def test_where_there_is_nothing_to_send_there_is_nothing_to_wait_for() -> None:
    exporter = Exporter()
    assert Watch(exporter).waits(30) == 0
    assert exporter.hurried
    assert Watch().waits(30) == 0


def test_it_waits_until_all_is_sent() -> None:
    first, second = Exporter(3), Exporter(1)

    def meanwhile(seconds: float) -> None:
        if second.pending and seconds > 0.5:
            second.answer()
        if first.pending and seconds > 1.2 * (first.answers + 1):
            first.answer()

    watch = Watch(first, second)
    assert watch.waits(30, meanwhile) == about(3.6)
    assert watch.drain.waited == 0


def test_a_collector_in_trouble_is_waited_for_as_long_as_a_first_retry_takes() -> None:
    exporter = Exporter(1)
    exporter.in_trouble = True
    assert Watch(exporter).waits(30) == about(PATIENCE)


def test_one_that_says_nothing_is_waited_for_a_little_longer() -> None:
    assert Watch(Exporter(1)).waits(30) == about(SILENT_PATIENCE)


def test_trouble_that_is_heard_of_late_ends_it_at_once() -> None:
    exporter = Exporter(1)

    def meanwhile(seconds: float) -> None:
        exporter.in_trouble = seconds >= 3

    assert Watch(exporter).waits(30, meanwhile) == about(3)


def test_who_answers_slowly_is_waited_for_until_time_is_up() -> None:
    exporter = Exporter(100)

    def meanwhile(seconds: float) -> None:
        if seconds > 4 * (exporter.answers + 1):
            exporter.answer()

    assert Watch(exporter).waits(30, meanwhile) == about(30)
    assert exporter.answers == 7


def test_one_in_trouble_does_not_keep_others_from_sending_theirs() -> None:
    dead, alive = Exporter(1), Exporter(10)
    dead.in_trouble = True

    def meanwhile(seconds: float) -> None:
        if alive.pending and seconds > alive.answers + 1:
            alive.answer()

    assert Watch(dead, alive).waits(30, meanwhile) == about(10)
    assert alive.pending == 0


def test_the_time_is_up_when_it_is_up() -> None:
    assert Watch(Exporter(1)).waits(0.2) == about(0.2)
    assert Watch(Exporter(1)).waits(0) == 0


@pytest.mark.parametrize("in_trouble", [False, True])
def test_patience_is_one_for_flushing_and_shutting_down(in_trouble: bool) -> None:
    exporter = Exporter(1)
    exporter.in_trouble = in_trouble
    watch = Watch(exporter)
    patience = PATIENCE if in_trouble else SILENT_PATIENCE
    assert watch.waits(1.0) == about(1.0)
    watch.now += 60  # in which nobody waits
    assert watch.waits(30) == about(patience - 1.0)
    assert watch.waits(30) == 0
    assert watch.drain.waited == about(patience)
    exporter.answers += 1  # it is there again
    assert watch.waits(30) == about(patience)


def test_what_was_waited_in_vain_is_told_until_all_is_sent() -> None:
    exporter = Exporter(2)
    watch = Watch(exporter)
    watch.waits(3)
    assert watch.drain.waited == about(3)
    watch.waits(3, lambda _: exporter.answer() if exporter.pending else None)
    assert watch.drain.waited == 0


def test_what_is_handed_over_meanwhile_is_waited_for_too() -> None:
    exporter, collected = Exporter(), False

    def meanwhile(seconds: float) -> None:
        nonlocal collected
        if not collected and seconds > 1:
            collected, exporter.pending = True, 1
        if exporter.pending and seconds > 2:
            exporter.answer()

    assert Watch(exporter).waits(30, meanwhile, lambda: collected) == about(2)
    assert exporter.hurried == 2


def test_who_hands_over_nothing_is_waited_for_as_long_as_a_silent_collector() -> None:
    assert Watch(Exporter()).waits(30, collected=lambda: False) == about(SILENT_PATIENCE)
    assert Watch(Exporter(1)).waits(30, collected=lambda: False) == about(SILENT_PATIENCE)


def test_a_wait_that_is_cancelled_counts() -> None:
    exporter = Exporter(1)
    watch = Watch(exporter)
    pauses = watch.drain.pauses(30)
    for _ in range(101):
        watch.now += next(pauses)
    pauses.close()
    assert watch.drain.waited == about(101 * POLL)


def test_what_a_flush_has_waited_is_not_waited_again_when_telemetry_is_shut_down() -> None:
    watch = Watch()

    def sleep(seconds: float) -> None:
        watch.now += seconds

    for flushed, shutting_down in ((0, SHUTDOWN_TIMEOUT), (4, SHUTDOWN_TIMEOUT - 4), (30, 0)):
        slow = Slow(watch)
        telemetry = OpenTelemetry(NoTracing(), exporters=[slow], clock=lambda: watch.now, sleep=sleep)  # type: ignore[list-item] # as far as it goes
        for pause in telemetry._drain.pauses(flushed):
            sleep(pause)
        started = watch.now
        telemetry.shutdown()
        assert watch.now - started == about(shutting_down)
        assert slow.stopped


def test_it_waits_in_a_thread() -> None:
    assert Drain([Exporter()]).wait(30)
    assert not Drain([Exporter(1)]).wait(0.0)
