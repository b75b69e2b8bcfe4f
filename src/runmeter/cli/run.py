"""`runmeter run`: one run of one pattern, its answer on the standard output, what it took on the standard error."""

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import anyio
import msgspec
from rich.console import Console
from rich.markup import escape

from runmeter.engine import (
    Budget,
    BudgetExceeded,
    ConfigurationError,
    Delta,
    Engine,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    LedgerError,
    Notice,
    SQLiteLedger,
    Status,
    UnboundedRequest,
)
from runmeter.engine.event_log import NAME
from runmeter.patterns import BasePattern, OpenAIPatternConfig, PatternError, PatternRegistry
from runmeter.simulator import Simulator
from runmeter.telemetry import OpenTelemetry

from .command_log import CommandLog, kept_code, log_to
from .ending import INTERRUPTED, CommandError
from .otlp import shut_down_at_end, telemetry_to
from .settings import Settings, load_settings
from .trace_view import trace_tree
from .views import run_summary

LIMIT_HINT = "openai_max_tokens is a setting: give it in --config FILE."
"""A hint where a request has no room in a budget, and there is no such limit."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of the command line."""

    pattern: str
    text: str
    config: Path | None = None
    model: str | None = None
    stream: bool = False
    """Print the answer as it comes."""
    as_json: bool = False
    trace: bool = False
    simulated: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    """Seconds."""
    otlp: str | None = None
    events: Path | None = None
    """The file to append all events to."""
    ledger: Path | None = None
    """The ledger to keep all events in."""
    max_usd: str | None = None
    """US dollars that the run may cost."""

    def budgets(self) -> Sequence[Budget]:
        """The budgets that cap the run. Its answers are made shorter, where that is enough, and wait for each other.

        Raises:
            ConfigurationError: `max_usd` is not an amount of money.
        """
        if self.max_usd is None:
            return ()
        return (Budget(usd=self.max_usd, name="--max-usd", when_exceeded="lower", when_reserved="wait"),)


@dataclass
class RunOutcome:
    """The outcome of the run, and its events."""

    events: list[Event] = field(default_factory=list)
    """The events of the run, those of child runs included."""
    result: Any = None
    error: Exception | None = None
    interrupted: bool = False
    deltas: int = 0

    def receive(self, events: Sequence[Event]) -> None:
        """Take a batch of events, as a subscriber."""
        self.events += events

    @property
    def run_id(self) -> str | None:
        """The id of the run; None if it did not start."""
        return self.events[0].run_id if self.events else None

    @property
    def trace_id(self) -> str | None:
        """The id of the trace that the run is in; None if it did not start."""
        started = self.events[0] if self.events else None
        return started.trace_id if isinstance(started, ExecutionStarted) else None

    @property
    def finished(self) -> ExecutionFinished | None:
        """The event of the run's end; None if it did not come to one."""
        ends = (event for event in self.events if isinstance(event, ExecutionFinished))
        return next((end for end in ends if end.run_id == self.run_id), None)

    @property
    def duration_ns(self) -> int | None:
        """The nanoseconds from its start to its end."""
        return self.finished.duration_ns if self.finished else None

    @property
    def notices(self) -> Sequence[Notice]:
        """The notices of the run, such as a model's retirement."""
        return [event for event in self.events if isinstance(event, Notice)]

    @property
    def status(self) -> str:
        """The status of the run, as one word."""
        if self.interrupted:
            return Status.CANCELLED
        if self.error is None:
            return Status.OK
        return self.finished.status if self.finished else Status.ERROR

    @property
    def exit_code(self) -> int:
        """The exit code that the command ends with."""
        return INTERRUPTED if self.interrupted else int(self.error is not None)


def run_pattern(options: RunOptions, out: TextIO, console: Console | None = None) -> int:
    """Run a pattern once.

    Args:
        options: What to run.
        out: Where the answer goes.
        console: Where all else goes; by default the standard error.

    Returns:
        The exit code: 0, 1 if the run failed, 130 after Ctrl-C, and 74 if what came of it could not be written.

    Raises:
        CommandError: something that it needs is missing or wrong.
    """
    console = console or Console(stderr=True)
    registry = PatternRegistry()
    try:
        settings = load_settings(options.config) if options.config else Settings()
        registry.preload(options.pattern)  # before there is a loop to hold up
        simulator = Simulator() if options.simulated else None
        config = _config(registry, options, settings)
        telemetry = telemetry_to(options.otlp, "runmeter-run")
        budgets = _budgets(options)
        log = log_to(options.events, options.ledger, console)
        ledger = None if options.ledger is None else SQLiteLedger(options.ledger)
    except (ConfigurationError, PatternError, ImportError) as error:
        raise CommandError(str(error)) from None
    with log as events, shut_down_at_end(telemetry):
        arguments = (options, settings, config, registry, simulator, out, console, telemetry, events, budgets, ledger)
        try:
            code = anyio.run(_run, *arguments)
        except LedgerError as error:  # it cannot be opened
            raise CommandError(str(error)) from None
    return kept_code(code, events, ledger)


def _budgets(options: RunOptions) -> Sequence[Budget]:
    try:
        return options.budgets()
    except ConfigurationError as error:
        raise ConfigurationError(f"--max-usd: {error}") from None


def _config(registry: PatternRegistry, options: RunOptions, settings: Settings) -> OpenAIPatternConfig:
    given = dict(settings.config)
    if options.model is not None:
        given["openai_model"] = options.model
    config = registry.pattern_class(options.pattern).config_type.from_data(given)
    assert isinstance(config, OpenAIPatternConfig)  # noqa: S101 - as the config of each of the twelve patterns is
    is_keyless = config.api_key is None and not os.environ.get("OPENAI_API_KEY")
    if is_keyless and not options.simulated and "model" not in settings.options:
        raise ConfigurationError("there is no API key: set OPENAI_API_KEY, or try it with --simulated")
    return config


async def _run(
    options: RunOptions,
    settings: Settings,
    config: OpenAIPatternConfig,
    registry: PatternRegistry,
    simulator: Simulator | None,
    out: TextIO,
    console: Console,
    telemetry: OpenTelemetry | None,
    events: CommandLog | None,
    budgets: Sequence[Budget],
    ledger: SQLiteLedger | None,
) -> int:
    outcome = RunOutcome()
    async with simulator or nullcontext() as url:
        if url is not None:
            config = replace(config, base_url=url, api_key="simulated")
        try:
            pattern = registry.create_pattern(options.pattern, config, settings.tools, **settings.options)
        except (ConfigurationError, PatternError, ImportError, TypeError) as error:  # TypeError: an unknown option
            raise CommandError(str(error)) from None
        async with Engine(usage=registry.usage, telemetry=telemetry, budgets=budgets, ledger=ledger) as engine:
            engine.subscribe(outcome.receive, name="command line", lane="lossy", capacity=1_000_000)
            if events is not None:
                engine.subscribe(events, name=NAME, lane="lossless")
            await _until_ctrl_c(engine, pattern, options, settings, outcome, out)
        await registry.aclose()
    _show(options, engine, outcome, out, console)
    if isinstance(outcome.error, BudgetExceeded | UnboundedRequest) and config.openai_max_tokens is None:
        console.print(LIMIT_HINT, style="yellow", soft_wrap=True)
    return outcome.exit_code


async def _until_ctrl_c(
    engine: Engine, pattern: BasePattern, options: RunOptions, settings: Settings, outcome: RunOutcome, out: TextIO
) -> None:
    async def stop_on_ctrl_c() -> None:
        with anyio.open_signal_receiver(signal.SIGINT) as signals:
            async for _ in signals:
                outcome.interrupted = True
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_on_ctrl_c)
        await _execute(engine, pattern, options, settings, outcome, out)
        tasks.cancel_scope.cancel()


async def _execute(
    engine: Engine, pattern: BasePattern, options: RunOptions, settings: Settings, outcome: RunOutcome, out: TextIO
) -> None:
    told: dict[str, Any] = {"context": settings.context, "tags": options.tags, "timeout": options.timeout}
    try:
        if not options.stream:
            outcome.result = (await engine.run(pattern, options.text, **told)).value
            return
        async with engine.stream(pattern, options.text, **told) as stream:
            async for item in stream:
                if isinstance(item, Delta):
                    outcome.deltas += 1
                    _write(out, _json(type="delta", text=item.text) + "\n" if options.as_json else item.text)
            outcome.result = stream.result.value
    except Exception as error:  # shown, and told by the exit code
        outcome.error = error


def _show(options: RunOptions, engine: Engine, outcome: RunOutcome, out: TextIO, console: Console) -> None:
    if options.as_json:
        _write(out, _json(**_report(options, engine, outcome)) + "\n")
    elif outcome.result is not None:
        _write(out, f"{'' if outcome.deltas else outcome.result.content}\n")
    elif outcome.deltas:
        _write(out, "\n")
    if options.trace and outcome.run_id is not None:
        console.print(trace_tree(outcome.events, outcome.run_id, console.width))
    if not options.as_json:
        if (reason := getattr(outcome.result, "reason", None)) and not outcome.result.content:
            console.print(f"no answer: {escape(str(reason))}", style="yellow")
        if getattr(outcome.result, "finish_reason", None) == "length":
            console.print("the answer was cut off at its limit of output tokens", style="yellow")
        for notice in outcome.notices:
            console.print(f"{escape(notice.subject)}: {escape(notice.message)}", style="yellow", soft_wrap=True)
        row = engine.usage().total
        took = outcome.duration_ns
        console.print(run_summary(row, took, outcome.status, outcome.error, outcome.trace_id, console.width))


def _report(options: RunOptions, engine: Engine, outcome: RunOutcome) -> dict[str, Any]:
    row = engine.usage().total
    report = {
        "type": "result",
        "status": outcome.status,
        "pattern": options.pattern,
        "run_id": outcome.run_id,
        "trace_id": outcome.trace_id,
        "result": outcome.result,
        "usage": row.usage,
        "requests": row.requests,
        "cost_usd": {"known": row.cost.usd, "low": row.cost.low, "high": row.cost.high},
        "duration_ns": outcome.duration_ns,
        "notices": [{"kind": each.kind, "subject": each.subject, "message": each.message} for each in outcome.notices],
    }
    if outcome.error is not None:
        report |= {"error_type": type(outcome.error).__name__, "error": str(outcome.error)}
    return report


def _json(**values: Any) -> str:
    return _ENCODER.encode(values).decode()


def _plain(value: Any) -> Any:
    """Convert what msgspec cannot encode: LangChain's messages, and whatever a handler gives back."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)


_ENCODER = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number")


def _write(out: TextIO, text: str) -> None:
    out.write(text)
    out.flush()
