"""`runmeter bench`: asks, shows what came of it, and keeps it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from runmeter.cli.ending import INTERRUPTED

from .charts import check_drawing, save_charts
from .errors import BenchError
from .goals import load_goals
from .imports import NAME as IMPORT
from .imports import ask_imports, import_question
from .machine import this_machine
from .own_pattern import OwnPattern, ask_pattern, pattern_question
from .progress import Watch
from .question import SHIPPED, Question, known_questions, load_question, select
from .record import Parameters, QuestionRecord, Record, load_record
from .results import page
from .runner import Desk, ask
from .summary import Summary, summarise
from .tables import show

WIDTH = 132
"""Characters of a table where the output is not a terminal."""
CHARTS = "charts"
PROC = Path("/proc/self/statm")


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Options of the command line."""

    questions: Sequence[str] = ()
    peers: Sequence[str] = ()
    quick: bool = False
    rounds: int | None = None
    json: Path | None = None
    """The file to save what was measured in."""
    svg: Path | None = None
    """The folder for charts."""
    compare: Path | None = None
    """An earlier run."""
    results: Path | None = None
    """The folder for RESULTS.md, results.json and charts/."""
    folder: Path = SHIPPED
    """The folder of the questions."""
    pattern: OwnPattern | None = None
    """The user's own pattern, instead of questions."""


def run_bench(options: BenchOptions, console: Console | None = None, watch: Watch | None = None) -> int:
    """Run the benchmarks that the options ask for.

    Args:
        options: What to run.
        console: Where tables go; by default the standard output.
        watch: Shows how far it is; by default on the standard error.

    Returns:
        The exit code: 0, 1 if something could not be measured, 130 after Ctrl-C.

    Raises:
        BenchError: something that it needs is missing or wrong.
    """
    if not PROC.exists():
        raise BenchError("the benchmarks need Linux: they read the memory of processes from /proc")
    earlier = None if options.compare is None else load_record(options.compare)
    goals = load_goals(options.folder)
    asked = _asked(options)
    _check_places(options)
    record = _new_record(Parameters.of(quick=options.quick, rounds=options.rounds))
    interrupted = False
    try:
        with watch or Watch() as watching:
            _ask_all(asked, options, record, watching)
        record.complete = True
    except KeyboardInterrupt:
        interrupted = True
    summary = summarise(record, goals, earlier)
    console = console or _console()
    show(summary, console)
    if any(each.samples for each in record.questions):
        _keep(summary, options)
    if interrupted:
        console.print("interrupted: this is what was measured until then", style="yellow")
        return INTERRUPTED
    return 0 if not record.failures and all(each.samples for each in record.questions) else 1


@dataclass(frozen=True)
class _Asked:
    """The questions that are asked, and how."""

    question: Question
    ask: Callable[[Question, QuestionRecord, Desk], None]


def _asked(options: BenchOptions) -> Sequence[_Asked]:
    if options.pattern is not None:
        pattern = options.pattern
        return [_Asked(pattern_question(pattern), lambda *rest: ask_pattern(pattern, *rest))]
    names = [name for name in options.questions if name != IMPORT]
    known = known_questions(options.folder)
    for name in names:
        if name not in known:
            raise BenchError(f"there is no question {name!r}: there are {', '.join([*known, IMPORT])}")
    everything = names or (known if not options.questions else ())
    shares = sum(load_question(options.folder / name).share for name in known)
    seconds = Parameters.of(quick=options.quick, rounds=None).seconds

    def ask_its_share(question: Question, record: QuestionRecord, desk: Desk) -> None:
        ask(question, record, desk, seconds * question.share / shares)

    chosen = select(options.folder, everything, options.peers, quick=options.quick) if everything else []
    asked = [_Asked(question, ask_its_share) for question in chosen if question.cases]
    # A question without cases is about imports alone. A quick run leaves them out unless they are asked for.
    if IMPORT in options.questions:
        chosen = chosen or select(options.folder, (), options.peers, quick=options.quick)
    elif options.questions or options.quick:
        chosen = [question for question in chosen if not question.cases]
    return [*asked, _Asked(import_question(chosen), ask_imports)] if chosen else asked


def _check_places(options: BenchOptions) -> None:
    if options.svg is not None or options.results is not None:
        check_drawing()
    for folder in (options.svg, options.results, options.json and options.json.absolute().parent):
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchError(f"{folder}: {error.strerror}") from None


def _new_record(parameters: Parameters) -> Record:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Record(version("runmeter"), now, this_machine(), parameters)


def _ask_all(asked: Sequence[_Asked], options: BenchOptions, record: Record, watch: Watch) -> None:
    desk = Desk(record.parameters, watch, options.folder)
    for each in asked:
        own = QuestionRecord(each.question)
        record.questions.append(own)
        each.ask(each.question, own, desk)


def _keep(summary: Summary, options: BenchOptions) -> None:
    """Write the files that were asked for.

    Raises:
        BenchError: it cannot be written.
    """
    try:
        if options.json is not None:
            summary.record.save(options.json)
        if options.svg is not None:
            save_charts(summary.results, options.svg)
        if options.results is not None:
            summary.record.save(options.results / "results.json")
            save_charts(summary.results, options.results / CHARTS)
            (options.results / "RESULTS.md").write_text(page(summary, CHARTS), encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{error.filename}: {error.strerror}") from None


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)
