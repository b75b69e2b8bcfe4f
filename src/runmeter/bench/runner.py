"""Asks the questions: peers live side by side, and take turns round by round, so that none has the better hour.

In a round each case is measured by each peer once, in an order that is drawn anew each time. A measurement during which
the machine changed its pace is taken again.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import BenchError, CaseFailed, PeerFailed
from .peer import Measurement, Peer, Ready, command_for, environment_of, interrupts_held, prepare
from .progress import Watch
from .question import SHIPPED, Case, PeerEntry, Question
from .record import Failure, Parameters, PeerRecord, QuestionRecord, Sample

GROWTH = 10
"""Factor by which the next try does a case more often, while the right number is sought: the first are still slow."""
ENOUGH = 0.7
"""The share of a measurement's time from which on the number is right."""
LONG = 20
"""Times of a measurement's time from which on the first try counts, whatever it had to import."""
AVERAGING_S = 2.0
"""Seconds of a measurement from which on it has seen all the machine's paces, however it began and ended."""
OVERHEAD_S = 0.02
"""Seconds that a measurement takes beyond itself: two calibrations and a garbage collection."""


@dataclass
class Desk:
    """The tools and settings that asking a question needs.

    Args:
        parameters: How it is measured.
        watch: Shows how far it is.
        folder: Where the questions are, and `worker.py`.
        script: What all peers run; by default each its own.
        more: Environment variables for peers, by name.
        started: All peers that may still live.
    """

    parameters: Parameters
    watch: Watch
    folder: Path = SHIPPED
    script: Path | None = None
    more: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    started: list[Peer] = field(default_factory=list)

    def script_of(self, question: str, peer: PeerEntry) -> Path:
        """Find the script a peer runs."""
        return self.script or self.folder / question / f"{peer.name}.py"

    def start(self, question: str, peer: PeerEntry) -> Peer:
        """Start the process of a peer.

        Raises:
            PeerFailed: it cannot be started.
        """
        try:
            command = command_for(self.script_of(question, peer))
            with interrupts_held():
                started = Peer(command, environment_of(self.folder, self.more.get(peer.name)))
                self.started.append(started)
        except OSError as error:
            raise PeerFailed(f"cannot be started: {error}") from None
        return started

    def end(self) -> None:
        """Kill all peers that may still live: what they had to say they have said."""
        with interrupts_held():
            while self.started:
                self.started.pop().kill()


def ask(question: Question, record: QuestionRecord, desk: Desk, seconds: float) -> None:
    """Ask a question of its peers.

    Args:
        question: Which.
        record: Where the answers go, as they come.
        desk: With what.
        seconds: What there is for its rounds.
    """
    try:
        asking = _Asking(question, record, desk)
        asking.begin()
        asking.tell_what_nobody_does()
        asking.find_times()
        rounds = asking.rounds_in(seconds)
        desk.watch.begin(f"{question.name}: {rounds} rounds", rounds * len(asking.times))
        for number in range(rounds):
            asking.go_round(number)
    finally:
        desk.end()


class _Asking:
    """A question while it is asked: its living peers, and how often each does each case."""

    def __init__(self, question: Question, record: QuestionRecord, desk: Desk) -> None:
        self._question = question
        self._record = record
        self._desk = desk
        self._parameters = desk.parameters
        self._random = random.Random(desk.parameters.seed)  # noqa: S311 - the order must be the same again
        self._living: dict[str, Peer] = {}
        self._cases = [case for case in question.cases if not case.is_derived]
        self.times: dict[tuple[str, str], int] = {}
        """By case and peer, all that are measured."""
        self._round_s: dict[tuple[str, str], float] = {}

    def begin(self) -> None:
        """Make the environments, start the peers, and wait until all are ready."""
        peers = self._question.peers
        self._desk.watch.begin(f"{self._question.name}: setting up {len(peers)} peers", len(peers))
        for entry in peers:
            try:
                prepare(self._desk.script_of(self._question.name, entry))
                self._living[entry.name] = self._desk.start(self._question.name, entry)
            except (PeerFailed, BenchError) as error:
                self._lose(entry.name, str(error))
            self._desk.watch.step()
        for entry in peers:
            if entry.name in self._living:
                try:
                    self._take(entry, self._living[entry.name].ready())
                except PeerFailed as error:
                    self._lose(entry.name, str(error))

    def _take(self, entry: PeerEntry, ready: Ready) -> None:
        self._record.peers.append(PeerRecord(entry.name, ready.python, ready.versions, ready.cases, ready.checks))
        for case in self._cases:
            if case.name in ready.cases:
                self.times[case.name, entry.name] = case.times or case.multiple

    def tell_what_nobody_does(self) -> None:
        """Tell of cases that no peer has, which may be misspelt."""
        for case in self._cases:
            if self._living and case.name not in {name for name, _ in self.times}:
                self._desk.watch.tell(f"{self._question.name}: no peer does {case.name!r}")

    def find_times(self) -> None:
        """Find how often each peer does each case in the time of a measurement. This also warms up."""
        self._desk.watch.begin(f"{self._question.name}: warming up", len(self.times))
        for case_name, peer in list(self.times):
            case = self._question.case(case_name)
            with self._losing(case, peer):
                self._find(case, peer)
            self._desk.watch.step()

    def _find(self, case: Case, peer: str) -> None:
        target = self._parameters.measurement_ms * 1e6
        times = self.times[case.name, peer]
        if case.times is not None and case.rounds is not None:
            return  # it tells what it takes from the start, without a rehearsal
        took = self._wall_ns(case, peer, times)
        if case.times is None and took < LONG * target:
            took = self._wall_ns(case, peer, times)  # the first may have had to import something
        while case.times is None and took < ENOUGH * target:
            wanted = min(times * GROWTH, math.ceil(times * target / took))
            times = math.ceil(wanted / case.multiple) * case.multiple
            took = self._wall_ns(case, peer, times)
        self.times[case.name, peer] = times
        self._round_s[case.name, peer] = took / 1e9 + OVERHEAD_S

    def _wall_ns(self, case: Case, peer: str, times: int) -> int:
        return max(1, self._living[peer].measure(case.name, times).wall_ns)

    def rounds_in(self, seconds: float) -> int:
        """Compute how many rounds there are in that time."""
        parameters = self._parameters
        if parameters.rounds is not None:
            return parameters.rounds
        once = sum(took for (case, _), took in self._round_s.items() if self._question.case(case).rounds is None)
        seconds -= sum(took * (self._question.case(case).rounds or 0) for (case, _), took in self._round_s.items())
        fitting = int(seconds / once) if once else parameters.most_rounds
        return min(max(fitting, parameters.least_rounds), parameters.most_rounds)

    def go_round(self, number: int) -> None:
        """Have each peer measure each case."""
        for case in self._cases:
            peers = [peer for each, peer in self.times if each == case.name]
            self._random.shuffle(peers)
            for peer in peers:
                if case.rounds is None or number < case.rounds:
                    with self._losing(case, peer):
                        self._record.samples.append(self._sample(number, case, peer))
                self._desk.watch.step()

    def _sample(self, number: int, case: Case, peer: str) -> Sample:
        tries = 1 if case.times is not None else self._parameters.repeats + 1
        for _ in range(tries):
            measured = self._living[peer].measure(case.name, self.times[case.name, peer])
            noisy = is_noisy(measured, case, self._parameters)
            if not noisy:
                break
        return sample_of(number, peer, case, measured, noisy=noisy)

    def _losing(self, case: Case, peer: str) -> "_Losing":
        return _Losing(self, case.name, peer)

    def lose_case(self, case: str, peer: str, reason: str) -> None:
        """Record that a peer cannot do a case; it goes on with the others."""
        self.times.pop((case, peer), None)
        self._round_s.pop((case, peer), None)
        self._fail(Failure(peer, reason, case))

    def lose_peer(self, peer: str, reason: str) -> None:
        """Record that a peer is lost; the others go on."""
        for pair in [pair for pair in self.times if pair[1] == peer]:
            self.times.pop(pair)
            self._round_s.pop(pair, None)
        self._lose(peer, reason)

    def _lose(self, peer: str, reason: str) -> None:
        if peer in self._living:
            self._living.pop(peer).kill()
        self._fail(Failure(peer, reason))

    def _fail(self, failure: Failure) -> None:
        self._record.failures.append(failure)
        where = f"{self._question.name}, {failure.peer}" + (f", {failure.case}" if failure.case else "")
        self._desk.watch.tell(f"{where}: {failure.reason}")


@dataclass(frozen=True)
class _Losing:
    """A context in which a failure is a loss, and not the end."""

    asking: _Asking
    case: str
    peer: str

    def __enter__(self) -> None:
        return

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: object) -> bool:
        if isinstance(exc, CaseFailed):
            self.asking.lose_case(self.case, self.peer, str(exc))
            return True
        if isinstance(exc, PeerFailed):
            self.asking.lose_peer(self.peer, str(exc))
            return True
        return False


def is_noisy(measured: Measurement, case: Case, parameters: Parameters) -> bool:
    """Tell whether the machine changed its pace meanwhile, or other processes had it."""
    before, after = measured.calibration_ns
    short = measured.wall_ns < AVERAGING_S * 1e9
    uneven = short and abs(before - after) > parameters.steadiness * min(before, after)
    waited = measured.wall_ns > parameters.waiting * max(1, measured.cpu_ns)
    return uneven or (waited and not case.waits)


def sample_of(number: int, peer: str, case: Case, measured: Measurement, *, noisy: bool) -> Sample:
    """Make a measurement a row of the record."""
    return Sample(
        number,
        peer,
        case.name,
        measured.times,
        measured.cpu_ns,
        measured.wall_ns,
        measured.calibration_ns,
        measured.rss,
        measured.peak_rss,
        noisy,
    )
