"""Questions with peers that are scripts of a few lines, and measurements that were never made."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from runmeter.bench.question import SHIPPED, Question
from runmeter.bench.record import Machine, Parameters, PeerRecord, QuestionRecord, Record, Sample

LOOP_NS = 1_000_000
"""What the calibration takes in made-up measurements."""
MACHINE = Machine("a processor", 2, 8_000_000_000, "a system", "CPython 3.11.7")
FAST = Parameters(resamples=200)

PEER = """
from worker import Bench, serve

def load():
{body}

serve(load, [])
"""
TWO_CASES = """
    def light(times):
        for _ in range(times):
            sum(range(50))

    def heavy(times):
        for _ in range(times):
            sum(range(500))

    return Bench({"light": light, "heavy": heavy})
"""


def write_question(folder: Path, toml: str, **peers: str) -> Path:
    """A folder of questions with one in it, `made`, whose peers have these bodies of `load`. Returns the folder."""
    own = folder / "made"
    own.mkdir(parents=True, exist_ok=True)
    shutil.copy(SHIPPED / "worker.py", folder)
    (own / "question.toml").write_text(toml, encoding="utf-8")
    for name, body in peers.items():
        (own / f"{name}.py").write_text(PEER.format(body=body), encoding="utf-8")
    return folder


def toml_of(cases: Sequence[str], peers: Sequence[str], head: str = "") -> str:
    """A question's file. A case or a peer is a name, or its lines."""
    lines = ['title = "What?"', 'measures = "This."', 'unit = "run"', head]
    for kind, entries in (("cases", cases), ("peers", peers)):
        for entry in entries:
            lines += [f"[[{kind}]]", entry if "=" in entry else f'name = "{entry}"']
    return "\n".join(lines)


def question_of(cases: Sequence[str], peers: Sequence[str], head: str = "") -> Question:
    """The same, read, and called `made`."""
    question = msgspec.toml.decode(toml_of(cases, peers, head), type=Question)
    return msgspec.structs.replace(question, name="made")


def samples(peer: str, case: str, costs_ns: Iterable[float], *, pace: float = 1, noisy: int = 0) -> list[Sample]:
    """One measurement a round, of 100 times, at those CPU times for one of them.

    Args:
        peer: Whose.
        case: Of what.
        costs_ns: By round.
        pace: How much slower than usual the machine was.
        noisy: How many of the first rounds were noisy.
    """
    loop = int(LOOP_NS * pace)
    return [
        Sample(
            number,
            peer,
            case,
            100,
            round(cost * 100 * pace),
            round(cost * 100 * pace),
            (loop, loop),
            10,
            20,
            number < noisy,
        )
        for number, cost in enumerate(costs_ns)
    ]


def record_of(question: Question, *measured: Iterable[Sample], machine: Machine = MACHINE) -> Record:
    """A run that asked one question."""
    peers = [PeerRecord(peer.name, "3.11.7", {"a-library": "1.0"}, ()) for peer in question.peers]
    own = QuestionRecord(question, peers, [sample for each in measured for sample in each])
    return Record("0.1.0", "2026-11-22T00:00:00+00:00", machine, FAST, [own], complete=True)
