"""`runmeter demo`: all patterns at work on real texts, and what the engine has to say about it."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import anyio
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from runmeter.engine import ConfigurationError, Engine, LedgerError, SQLiteLedger, Usage
from runmeter.engine.event_log import NAME
from runmeter.engine.formats import format_count
from runmeter.patterns import BasePattern, PatternError, PatternRegistry, PatternType
from runmeter.simulator import Simulator
from runmeter.telemetry import OpenTelemetry

from ..command_log import CommandLog, kept_code, log_to
from ..ending import INTERRUPTED, CommandError
from ..otlp import shut_down_at_end, telemetry_to
from ..trace_view import trace_tree
from ..views import bus_table, error_summary, export_summary, usage_table, verdict
from .documents import Documents, load_documents
from .mishaps import show_mishaps
from .patterns import make_pattern, make_patterns
from .run_keeper import RunKeeper


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of the command line."""

    folder: Path | None
    runs: int
    concurrency: int
    model: str
    live: bool
    otlp: str | None
    svg: Path | None = None
    """The file to save a picture of what is shown in."""
    events: Path | None = None
    """The file to append all events to."""
    ledger: Path | None = None
    """The ledger to keep all events in."""


@dataclass(frozen=True)
class DemoOutcome:
    """The outcome of the demo's runs."""

    errors: list[Exception]
    """What failed runs raised."""
    interrupted: bool


def run_demo(options: DemoOptions, console: Console | None = None) -> int:
    """Run the demo's patterns, and show what was counted.

    Returns:
        The exit code: 0, 1 if the counts disagree or a run failed, 130 after Ctrl-C, and 74 if what came of it could
        not be written.

    Raises:
        CommandError: something that it needs is missing or wrong, so that no run can succeed.
    """
    console = console or make_console(record=options.svg is not None)
    if options.live and not os.environ.get("OPENAI_API_KEY"):
        raise CommandError("--live needs an API key: set OPENAI_API_KEY")
    try:
        documents = load_documents(options.folder)
        telemetry = telemetry_to(options.otlp, "runmeter-demo")
        simulator = None if options.live else Simulator()
        registry = PatternRegistry()
        registry.preload(*PatternType)  # before there is a loop to hold up, and while Ctrl-C still ends all at once
        log = log_to(options.events, options.ledger, console)
        ledger = None if options.ledger is None else SQLiteLedger(options.ledger)
    except (ConfigurationError, ImportError, PatternError) as error:
        raise CommandError(str(error)) from None
    if options.svg is not None and not os.access(options.svg.absolute().parent, os.W_OK):
        raise CommandError(f"--svg {options.svg}: cannot write to that folder, or there is none")
    with log as events, shut_down_at_end(telemetry):
        try:
            code = anyio.run(_demo, options, documents, registry, telemetry, simulator, console, events, ledger)
        except LedgerError as error:  # it cannot be opened
            raise CommandError(str(error)) from None
    code = kept_code(code, events, ledger)
    if options.svg is not None:
        console.save_svg(str(options.svg), title="runmeter demo")
    return code


def make_console(*, record: bool) -> Console:
    """Make the standard output's console; without a terminal or a set width, wide enough for all columns."""
    is_known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if is_known else 120, record=record)


async def _demo(
    options: DemoOptions,
    documents: Documents,
    registry: PatternRegistry,
    telemetry: OpenTelemetry | None,
    simulator: Simulator | None,
    console: Console,
    events: CommandLog | None,
    ledger: SQLiteLedger | None,
) -> int:
    keeper = RunKeeper()
    where = "the OpenAI API" if options.live else "a simulated API"
    texts = format_count(len(documents.texts), "document")
    console.print(f"{options.runs:,} runs over {texts} on {where}, {options.concurrency} at a time")
    async with simulator or nullcontext() as url:
        try:
            patterns = make_patterns(registry, documents, options.model, url)
            async with Engine(
                usage=registry.usage, telemetry=telemetry, max_concurrent_runs=options.concurrency, ledger=ledger
            ) as engine:
                engine.subscribe(keeper, name="trace view", lane="lossy", capacity=100_000)
                if events is not None:
                    engine.subscribe(events, name=NAME, lane="lossless")
                outcome = await _work(engine, patterns, documents.questions(options.runs), options.concurrency, console)
            if len(outcome.errors) == options.runs:
                raise CommandError(f"every run failed: {outcome.errors[0]}")
            _show(console, engine, keeper)
            usage = engine.usage().total.usage
            agreed = simulator is None or outcome.interrupted or _compare(console, usage, simulator)
            if simulator is not None and not outcome.interrupted:

                def make(kind: PatternType, limit: int) -> BasePattern:
                    return make_pattern(registry, kind, documents, options.model, url, openai_max_tokens=limit)

                await show_mishaps(console, make, documents.questions(1)[0], simulator, telemetry, events, ledger)
        finally:
            await registry.aclose()
    if telemetry is not None:
        console.print(export_summary(telemetry.statistics(), str(options.otlp)))
    return _conclude(console, outcome, agreed=agreed)


def _conclude(console: Console, outcome: DemoOutcome, *, agreed: bool) -> int:
    """Say what failed, and give the exit code."""
    if outcome.errors:
        console.print(error_summary(outcome.errors))
    if outcome.interrupted:
        console.print("[yellow]interrupted: this is what was counted until then[/]")
        return INTERRUPTED
    return 0 if agreed and not outcome.errors else 1


async def _work(
    engine: Engine, patterns: Sequence[BasePattern], questions: Sequence[str], concurrency: int, console: Console
) -> DemoOutcome:
    """Have each pattern answer its share of the questions, all at the same time, until done or Ctrl-C."""
    errors: list[Exception] = []
    interrupted = False
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())

    async def answer(pattern: BasePattern, share: Sequence[str]) -> None:
        outcomes = await engine.map(
            pattern,
            share,
            concurrency=concurrency,
            on_error="collect",
            progress=lambda *_: progress.advance(bar),
        )
        errors.extend(outcome for outcome in outcomes if isinstance(outcome, Exception))

    async def stop_on_ctrl_c(work: anyio.CancelScope) -> None:
        nonlocal interrupted
        with anyio.open_signal_receiver(signal.SIGINT) as signals:
            async for _ in signals:
                interrupted = True
                work.cancel()

    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("running", total=len(questions))
        async with anyio.create_task_group() as watching:
            async with anyio.create_task_group() as working:
                watching.start_soon(stop_on_ctrl_c, working.cancel_scope)
                for number, pattern in enumerate(patterns):
                    working.start_soon(answer, pattern, questions[number :: len(patterns)])
            watching.cancel_scope.cancel()
    return DemoOutcome(errors, interrupted)


def _show(console: Console, engine: Engine, keeper: RunKeeper) -> None:
    usage = engine.usage()
    console.print(usage_table(usage, console.width))
    console.print(Group("", bus_table(engine.statistics().bus, console.width)))
    if run := keeper.busiest():
        title = Text(f"A run's trace, {run.trace_id}", style="bold")
        console.print(Group("", title, trace_tree(run.events, run.run_id, console.width), ""))


def _compare(console: Console, usage: Usage, simulator: Simulator) -> bool:
    """Hold what was metered against the simulator's own account."""
    billed = simulator.statistics().total
    for label, metered, expected in (
        ("input tokens", usage.input_tokens, billed.input_tokens),
        ("cached tokens", usage.cache_read_tokens, billed.cache_read_tokens),
        ("output tokens", usage.output_tokens, billed.output_tokens),
    ):
        console.print(verdict(f"{label} as the simulator billed them", metered, expected))
    return usage == billed
