"""Questions of the benchmarks: their cases and peers, as its `question.toml` says, and what each peer's script needs.

The format is described in benchmarks/README.md. A script declares its dependencies itself (PEP 723, "Inline script
metadata", accepted 2024-01-08).
"""

import re
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from .errors import BenchError

SHIPPED = Path(__file__).parent.parent / "benchmarks"
"""The questions that come with the package."""
FILE = "question.toml"
HEADER = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
"""PEP 723's reference expression, for the one type there is."""


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Some work that all peers do, and how it is shown."""

    name: str
    caption: str = ""
    """As shown; by default the name."""
    unit: str = ""
    """What its figures are given for; by default the question's."""
    per: float = 1
    """Units that one of `times` makes; of a derived case, what the difference is divided by."""
    baseline: str | None = None
    """The peer that ratios are taken against; by default the question's."""
    multiple: int = 1
    """`times` is a multiple of it."""
    times: int | None = None
    """Exactly so many times, and not as many as fill the time of a measurement."""
    rounds: int | None = None
    """At most so many rounds."""
    slow: bool = False
    """Left out by a quick run."""
    waits: bool = False
    """True if it may wait, so that wall time beyond CPU time is not a sign of noise."""
    memory: bool = False
    """The process's memory after it is a figure, too."""
    hidden: bool = False
    """Measured for others' sake: neither in tables nor in charts."""
    minuend: str | None = None
    """A derived case is (minuend − subtrahend) / per, within the round."""
    subtrahend: str | None = None

    @property
    def title(self) -> str:
        """The case's name, as it is shown."""
        return self.caption or self.name

    @property
    def is_derived(self) -> bool:
        """True if the case is computed from others."""
        return self.minuend is not None


class PeerEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A peer that is measured."""

    name: str
    """Its script's, without `.py`."""
    label: str = ""
    """As shown; by default the name."""
    note: str = ""
    ours: bool = False
    """True if it is Runmeter."""

    @property
    def title(self) -> str:
        """The peer's name, as it is shown."""
        return self.label or self.name


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question of the benchmarks: the cases that are measured, and their peers."""

    title: str
    measures: str
    unit: str
    cases: tuple[Case, ...]
    peers: tuple[PeerEntry, ...]
    baseline: str | None = None
    """The peer that ratios are taken against."""
    figures: Literal["ratio", "added"] = "ratio"
    """The comparison of peers with the baseline: by ratio, or by what they add to it."""
    share: float = 1
    """Share of the time that a run takes, against the other questions'."""
    imports: bool = True
    """True if the cost of its peers' imports is told, too."""
    name: str = ""
    """Its folder's."""

    @property
    def derived(self) -> Sequence[Case]:
        """The cases that are computed from others."""
        return [case for case in self.cases if case.is_derived]

    def case(self, name: str) -> Case:
        """Find the case of a name. Raises `KeyError`."""
        return next((case for case in self.cases if case.name == name), None) or _raise(name)

    def baseline_of(self, case: Case) -> str | None:
        """The peer that a case's ratios are taken against."""
        return case.baseline or self.baseline

    def unit_of(self, case: Case) -> str:
        """The unit that a case's figures are given for."""
        return case.unit or self.unit

    def only(self, peers: Collection[str]) -> "Question":
        """Make the same question for some of its peers; those that they are compared with stay, too."""
        kept = {*peers, self.baseline, *(case.baseline for case in self.cases)}
        return msgspec.structs.replace(self, peers=tuple(peer for peer in self.peers if peer.name in kept))

    def quick(self) -> "Question":
        """Make the same question without its slow cases, and without what is derived from them."""
        slow = {case.name for case in self.cases if case.slow}
        slow |= {case.name for case in self.derived if {case.minuend, case.subtrahend} & slow}
        return msgspec.structs.replace(self, cases=tuple(case for case in self.cases if case.name not in slow))


def _raise(name: str) -> Case:
    raise KeyError(name)


def known_questions(folder: Path) -> Sequence[str]:
    """List the names of the questions in a folder."""
    return sorted(path.parent.name for path in folder.glob(f"*/{FILE}"))


def load_question(folder: Path) -> Question:
    """Read a question from its folder.

    Raises:
        BenchError: it is not as it should be.
    """
    path = folder / FILE
    try:
        question = msgspec.toml.decode(path.read_bytes(), type=Question)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.DecodeError) as error:
        raise BenchError(f"{path}: {error}") from None
    for complaint in _complaints(question, folder):
        raise BenchError(f"{path}: {complaint}")
    return msgspec.structs.replace(question, name=folder.name, measures=" ".join(question.measures.split()))


def _complaints(question: Question, folder: Path) -> Sequence[str]:
    cases = {case.name: case for case in question.cases}
    peers = {peer.name for peer in question.peers}
    complaints = []
    if len(cases) < len(question.cases) or len(peers) < len(question.peers):
        complaints.append("two cases or two peers have the same name")
    complaints += [f"peer {name!r} has no script {name}.py" for name in peers if not (folder / f"{name}.py").exists()]
    for baseline in {question.baseline, *(case.baseline for case in question.cases)} - {None}:
        if baseline not in peers:
            complaints.append(f"the baseline {baseline!r} is not a peer")
    for case in question.cases:
        if (case.minuend is None) != (case.subtrahend is None):
            complaints.append(f"case {case.name!r}: a derived case has a minuend and a subtrahend")
        for part in {case.minuend, case.subtrahend} - {None}:
            if part not in cases or cases[str(part)].is_derived:
                complaints.append(f"case {case.name!r} is derived from {part!r}, which is not measured")
        if case.per <= 0 or case.multiple < 1 or (case.times or 1) < 1 or (case.rounds or 1) < 1:
            complaints.append(f"case {case.name!r}: per, multiple, times and rounds are above 0")
    if question.figures == "added" and question.baseline is None:
        complaints.append("what peers add is added to a baseline: name it")
    return complaints


def select(folder: Path, names: Sequence[str], peers: Collection[str], *, quick: bool) -> Sequence[Question]:
    """Choose the questions to ask.

    Args:
        folder: Where they are.
        names: Which; none means all.
        peers: Of which peers; none means all. Peers that those are compared with are added.
        quick: Whether slow cases are left out.

    Raises:
        BenchError: there is no such question or peer.
    """
    known = known_questions(folder)
    for name in names:
        if name not in known:
            raise BenchError(f"there is no question {name!r}: there are {', '.join(known) or 'none'}")
    questions = [load_question(folder / name) for name in names or known]
    at_hand = {peer.name for question in questions for peer in question.peers}
    for peer in peers:
        if peer not in at_hand:
            raise BenchError(f"there is no peer {peer!r}: there are {', '.join(sorted(at_hand))}")
    if peers:
        wanted = [question for question in questions if {peer.name for peer in question.peers} & set(peers)]
        questions = [question.only(peers) for question in wanted]
    return [question.quick() for question in questions] if quick else questions


def dependencies(script: Path) -> Sequence[str]:
    """Read what a script declares that it needs; nothing, if it has no header.

    Raises:
        BenchError: the header is no TOML.
    """
    found = HEADER.search(script.read_text(encoding="utf-8"))
    if found is None:
        return ()
    content = "".join(line.removeprefix("#").removeprefix(" ") for line in found["content"].splitlines(keepends=True))
    try:
        return tuple(tomllib.loads(content).get("dependencies", ()))
    except tomllib.TOMLDecodeError as error:
        raise BenchError(f"{script}: {error}") from None


def needs_own_environment(script: Path) -> bool:
    """Tell whether a script needs more than what Runmeter itself is installed with."""
    return not {re.split(r"[^\w.-]", each)[0] for each in dependencies(script)} <= {"runmeter"}
