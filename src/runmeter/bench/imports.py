"""The cost of importing a peer: each is started a few times, and only asked whether it is ready.

It makes a question of its own, whose peers are those of all questions. The calibration runs in this process, around the
start.
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from .errors import BenchError, PeerFailed
from .peer import Measurement, prepare
from .question import Case, PeerEntry, Question
from .record import Failure, PeerRecord, QuestionRecord
from .runner import Desk, is_noisy, sample_of

NAME = "import"
CASE = Case(name=NAME, caption="import", memory=True, waits=True)
CALIBRATION_LOOPS = 100_000


def import_question(questions: Sequence[Question]) -> Question:
    """Make the question of what imports take, for the peers of the questions that say so, each as `question.peer`."""
    peers = [
        msgspec.structs.replace(
            peer, name=f"{question.name}.{peer.name}", label=f"{question.name}: {peer.title}", note=""
        )
        for question in questions
        if question.imports
        for peer in question.peers
    ]
    return Question(
        name=NAME,
        title="What does an import take?",
        measures="CPU time and memory that a peer's script takes to import all that it needs, once Python itself has "
        "started. All modules are compiled already.",
        unit="import",
        cases=(CASE,),
        peers=tuple(peers),
    )


def ask_imports(question: Question, record: QuestionRecord, desk: Desk) -> None:
    """Start each peer so many times as the parameters say, in turns.

    Args:
        question: As from `import_question`.
        record: Where the answers go, as they come.
        desk: With what.
    """
    starts = desk.parameters.starts
    order = random.Random(desk.parameters.seed)  # noqa: S311 - the order must be the same again
    peers = list(question.peers)
    desk.watch.begin(f"{question.name}: setting up {len(peers)} peers", len(peers))
    for entry in tuple(peers):
        try:
            prepare(_script(entry, desk))
            with desk.start(*_named(entry)) as peer:  # the first start compiles modules
                peer.ready()
        except (PeerFailed, BenchError) as error:
            peers.remove(entry)
            record.failures.append(Failure(entry.name, str(error)))
        desk.watch.step()
    desk.watch.begin(f"{question.name}: {starts} rounds", starts * len(peers))
    try:
        for number in range(starts):
            order.shuffle(peers)
            for entry in tuple(peers):
                try:
                    _start(number, entry, record, desk)
                except (PeerFailed, BenchError) as error:
                    peers.remove(entry)
                    record.failures.append(Failure(entry.name, str(error)))
                desk.watch.step()
    finally:
        desk.end()


def _named(entry: PeerEntry) -> tuple[str, PeerEntry]:
    """Name a peer's question, and the peer as it is called there."""
    folder, _, name = entry.name.partition(".")
    return folder, PeerEntry(name=name)


def _script(entry: PeerEntry, desk: Desk) -> Path:
    return desk.script_of(*_named(entry))


def _start(number: int, entry: PeerEntry, record: QuestionRecord, desk: Desk) -> None:
    before = calibrate()
    with desk.start(*_named(entry)) as peer:
        ready = peer.ready()
    measured = Measurement(1, ready.import_cpu_ns, ready.import_wall_ns, (before, calibrate()), ready.import_rss, 0)
    noisy = is_noisy(measured, CASE, desk.parameters)
    record.samples.append(sample_of(number, entry.name, CASE, measured, noisy=noisy))
    if entry.name not in {peer.name for peer in record.peers}:
        record.peers.append(PeerRecord(entry.name, ready.python, ready.versions, (CASE.name,)))


def calibrate() -> int:
    """Measure the CPU time of the loop that peers run, in ns of this thread."""
    start = time.thread_time_ns()
    total = 0
    for number in range(CALIBRATION_LOOPS):
        total += number & 7
    return time.thread_time_ns() - start
