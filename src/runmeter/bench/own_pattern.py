"""One's own pattern, benched: run by an engine against called without one, on a simulated API.

The simulator answers from this process, so that its CPU time is not the pattern's.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from .errors import BenchError, CaseFailed, PeerFailed
from .question import SHIPPED, Case, PeerEntry, Question
from .record import QuestionRecord
from .runner import Desk, ask

NAME = "pattern"
SCRIPT = SHIPPED / "own_pattern.py"
ENGINE = "engine"
FIRST = "1 at once"
CASES = (FIRST, "10 at once", "100 at once")
PREFIX = "RUNMETER_BENCH_"
SECONDS, QUICK_SECONDS = 60.0, 8.0
"""Seconds for the rounds of the pattern's question."""


@dataclass(frozen=True)
class OwnPattern:
    """A pattern of the user's, and what it is asked."""

    reference: str
    """`module:object`: a class, a pattern or an async function. Modules in the working folder are found."""
    text: str = "What is honey made of?"
    """The text that it is asked."""
    settings: Path | None = None
    """A file as `runmeter run --config` takes it."""


def pattern_question(pattern: OwnPattern) -> Question:
    """Make the question that a pattern is benched by.

    Raises:
        BenchError: the reference is not `module:object`.
    """
    module, _, name = pattern.reference.partition(":")
    if not module or not name:
        raise BenchError(f"--pattern takes module:object, such as mymodule:MyPattern, not {pattern.reference!r}")
    return Question(
        name=NAME,
        title=f"What does a run of {pattern.reference} cost?",
        measures="CPU time of one run, with the client's part and without the simulated API's: the pattern called as "
        "it is, run by an engine with statistics, and an engine's run of a function that does nothing.",
        unit="run",
        baseline="bare",
        cases=tuple(Case(name=name, multiple=int(name.split()[0]), waits=True) for name in CASES),
        peers=(
            PeerEntry(name="bare", label="called without an engine"),
            PeerEntry(name=ENGINE, label="run by an engine", ours=True),
            PeerEntry(name="empty", label="an engine's empty run", ours=True),
        ),
    )


def ask_pattern(pattern: OwnPattern, question: Question, record: QuestionRecord, desk: Desk) -> None:
    """Bench a pattern by its question.

    Args:
        pattern: Which.
        question: As from `pattern_question`.
        record: Where the answers go, as they come.
        desk: With what.

    Raises:
        BenchError: the pattern cannot be made, or cannot be run.
    """
    from anyio.from_thread import start_blocking_portal

    from runmeter.simulator import Simulator

    try:
        simulator = Simulator()
    except ImportError as error:
        raise BenchError(str(error)) from None
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(simulator) as url:
        more = {peer.name: _environment(pattern, peer.name, url) for peer in question.peers}
        desk = replace(desk, script=SCRIPT, more=more)
        checks = {"events per run": _try(pattern, question, desk)}
        checks["requests per run"] = sum(simulator.statistics().requests.values())
        ask(question, record, desk, QUICK_SECONDS if desk.parameters.quick else SECONDS)
    record.peers = [
        msgspec.structs.replace(peer, checks=checks) if peer.name == ENGINE else peer for peer in record.peers
    ]


def _environment(pattern: OwnPattern, mode: str, url: str) -> Mapping[str, str]:
    own = {
        "PATTERN": pattern.reference,
        "SETTINGS": "" if pattern.settings is None else str(pattern.settings.absolute()),
        "TEXT": pattern.text,
        "MODE": mode,
    }
    own_path = [folder for folder in (os.environ.get("PYTHONPATH"),) if folder]
    python_path = os.pathsep.join([str(SHIPPED), str(Path.cwd()), *own_path])
    said = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "simulated", "PYTHONPATH": python_path}
    return {PREFIX + name: value for name, value in own.items()} | said


def _try(pattern: OwnPattern, question: Question, desk: Desk) -> float:
    """Run the pattern once, to see that it can be run. Returns how many events that made."""
    entry = next(peer for peer in question.peers if peer.name == ENGINE)
    try:
        with desk.start(question.name, entry) as peer:
            peer.ready()
            return float(sum(peer.asked(FIRST, 1)))
    except (PeerFailed, CaseFailed) as error:
        raise BenchError(f"--pattern {pattern.reference}: {error}") from None
    finally:
        desk.end()
