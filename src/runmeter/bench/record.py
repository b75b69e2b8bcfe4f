"""The record of a run: what was measured, raw, as it is kept in a file."""

from pathlib import Path

import msgspec

from .errors import BenchError
from .question import Question

FORMAT = 1


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the measurement, and of when a figure is too noisy to tell."""

    quick: bool = False
    rounds: int | None = None
    """By default as many as there is time for, from `least_rounds` to `most_rounds`."""
    least_rounds: int = 5
    most_rounds: int = 100
    seconds: float = 420
    """For the rounds of all questions there are."""
    measurement_ms: float = 60
    """Milliseconds that one measurement should take."""
    starts: int = 7
    """Number of times each peer is started for the figures of its import."""
    repeats: int = 1
    """Number of times a noisy measurement is taken anew."""
    steadiness: float = 0.3
    """Upper bound on the difference of the two calibrations around a measurement, as a share of the smaller."""
    waiting: float = 1.5
    """Upper bound on a measurement's wall time, in multiples of its CPU time, where nothing should wait."""
    least_steady: int = 5
    """Rounds that were not noisy: only these count, and with fewer a figure is not told."""
    widest: float = 0.25
    """Half of the widest interval that a figure may have, as a share of it."""
    resamples: int = 2_000
    """Number of resamples of the bootstrap."""
    seed: int = 20_261_122

    @classmethod
    def of(cls, *, quick: bool, rounds: int | None) -> "Parameters":
        """Make the usual parameters, quick or not."""
        if quick:
            return cls(
                quick=True,
                rounds=rounds,
                least_rounds=5,
                least_steady=5,
                most_rounds=9,
                seconds=60,
                measurement_ms=30,
                starts=5,
            )
        return cls(rounds=rounds)


class Machine(msgspec.Struct, frozen=True):
    """The machine that a run was measured on."""

    cpu: str
    cores: int
    memory: int
    """Bytes."""
    system: str
    python: str


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A measurement of a round: a row of numbers in the file, in this order."""

    round: int
    peer: str
    case: str
    times: int
    cpu_ns: int
    wall_ns: int
    calibration_ns: tuple[int, int]
    rss: int
    """Bytes after it; of an import, those it added."""
    peak_rss: int
    """Peak in bytes, so far in the process's life."""
    is_noisy: bool


class Failure(msgspec.Struct, frozen=True):
    """A case, or a peer, that could not be measured."""

    peer: str
    reason: str
    case: str | None = None
    """The case; None for all of the peer's."""


class PeerRecord(msgspec.Struct, frozen=True):
    """The versions, cases and checks of a peer."""

    name: str
    python: str
    versions: dict[str, str]
    cases: tuple[str, ...]
    checks: dict[str, float] = {}


class QuestionRecord(msgspec.Struct):
    """The record of a question, with what was measured. It grows round by round."""

    question: Question
    peers: list[PeerRecord] = []
    samples: list[Sample] = []
    failures: list[Failure] = []


class Record(msgspec.Struct):
    """A record of one run of the benchmarks."""

    runmeter: str
    date: str
    machine: Machine
    parameters: Parameters
    questions: list[QuestionRecord] = []
    format: int = FORMAT
    complete: bool = False
    """True if it came to its end."""

    @property
    def failures(self) -> list[tuple[str, Failure]]:
        """The failures of the run, with the question's name."""
        return [(each.question.name, failure) for each in self.questions for failure in each.failures]

    def save(self, path: Path) -> None:
        """Write the record as JSON. Raises `OSError`."""
        path.write_bytes(msgspec.json.encode(self) + b"\n")


def load_record(path: Path) -> Record:
    """Read a run that was saved.

    Raises:
        BenchError: it cannot be read, or was written by a version that kept something else.
    """
    try:
        data = path.read_bytes()
        kept = msgspec.json.decode(data, type=_Version).format
        if kept != FORMAT:
            raise BenchError(f"{path}: this is format {kept}, and this version reads {FORMAT}")
        return msgspec.json.decode(data, type=Record)
    except (OSError, msgspec.DecodeError) as error:
        raise BenchError(f"{path}: {error}") from None


class _Version(msgspec.Struct):
    format: int
