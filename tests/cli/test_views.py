"""What the command line shows of events."""

import io
import re
from contextlib import suppress

import pytest
from rich.console import Console

from runmeter.cli.trace_view import trace_tree
from runmeter.cli.views import usage_table
from runmeter.engine import (
    Event,
    Execution,
    ExecutionFinished,
    ModelRequest,
    PriceBook,
    Provenance,
    RunInfo,
    RunResult,
    Runtime,
    TokenUsage,
    Usage,
    UsageAggregator,
)
from runmeter.engine.testing import CountingIds, ManualClock


def test_a_trace_shows_its_retrievals_where_they_happened() -> None:
    events: list[Event] = []
    clock = ManualClock()
    with Execution(Runtime(None, events.append, clock, CountingIds()), RunInfo("rag")) as run:
        with run.retrieval("[vs_1]", requested=5) as search:
            clock.advance(0.5)
            search.record(1_200, 0.756)
        with run.child(RunInfo("worker")) as child, child.retrieval("local"):
            clock.advance(2)
        with suppress(OSError), run.retrieval("local"):
            raise OSError("gone")
    console = Console(file=io.StringIO(), width=120)
    console.print(trace_tree(events, run.run_id, console.width))
    assert isinstance(console.file, io.StringIO)
    root, found, worker, nothing, failed = console.file.getvalue().splitlines()
    assert root.split()[0] == "rag"
    assert "retrieval [vs_1]" in found
    assert "500.0 ms" in found
    assert found.rstrip().endswith("1,200 found, top score 0.76")
    assert "worker" in worker
    assert nothing.index("retrieval local") > failed.index("retrieval local"), "within the child run"
    assert nothing.rstrip().endswith("0 found")
    assert failed.rstrip().endswith("OSError")


def test_a_trace_shows_its_notices_where_they_were_given() -> None:
    events: list[Event] = []
    clock = ManualClock()
    with Execution(Runtime(None, events.append, clock, CountingIds()), RunInfo("rag")) as run:
        with run.child(RunInfo("worker")) as child:
            clock.advance(1)
            child.notice("budget", "daily", "$8 of $10 [acme] spent")
        clock.advance(1)
        run.notice("model_retirement", "gpt-5-mini", "it retires soon")
    console = Console(file=io.StringIO(), width=120)
    console.print(trace_tree(events, run.run_id, console.width))
    assert isinstance(console.file, io.StringIO)
    _, worker, budget, retirement = console.file.getvalue().splitlines()
    assert "worker" in worker
    assert "notice daily" in budget
    assert budget.rstrip().endswith("$8 of $10 [acme] spent")
    assert "+1000.0 ms" in budget or "+1.00 s" in budget
    assert budget.index("notice") > retirement.index("notice"), "within the child run"
    assert retirement.rstrip().endswith("it retires soon")


@pytest.mark.parametrize("error", [None, "APIConnectionError"])
def test_input_that_is_not_known_is_nowhere_shown_as_none(error: str | None) -> None:
    """Of an answer that was cut often only the output is known."""
    usage = UsageAggregator(PriceBook())
    events: list[Event] = []
    run = Execution(Runtime(None, events.append, ManualClock(), CountingIds()), RunInfo("rag"))
    with run, run.model_call(ModelRequest(provider="openai", model="gpt-6-luna")) as call:
        call.record(Usage(output_tokens=1_200), Provenance.PARTIAL)
        call.error_type = error
    usage.fold(events)
    console = Console(file=io.StringIO(), width=120)
    console.print(trace_tree(events, run.run_id, console.width), usage_table(usage.snapshot(), console.width))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "≥ 1,200 tokens out" in shown
    assert "0 →" not in shown
    assert re.search(r"rag .* ≥ 0 .* ≥ 1,200 ", shown), "at least so many"
    requests = tuple(event for event in events if isinstance(event, TokenUsage))
    result = RunResult(run.run_id, None, 0, requests, (), PriceBook(), run.run_id)
    assert result.unknown_requests == 1


def test_no_name_steers_the_terminal_and_markup_is_shown_as_it_is() -> None:
    usage = UsageAggregator(PriceBook())
    events: list[Event] = []
    run = Execution(Runtime(None, events.append, ManualClock(), CountingIds()), RunInfo("<b>ask</b>\x1b[2J"))
    with run, suppress(OSError), run.function_call("[red]find[/]\x1b[31m"):
        raise OSError("gone")
    usage.fold(events)
    console = Console(file=io.StringIO(), width=160)
    console.print(trace_tree(events, run.run_id, console.width), usage_table(usage.snapshot(), console.width))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "\x1b" not in shown
    assert shown.count(r"<b>ask</b>\x1b[2J") == 2
    assert r"tool [red]find[/]\x1b[31m" in shown


def test_an_unfinished_run_and_a_request_without_an_end_have_no_duration() -> None:
    events: list[Event] = []
    clock = ManualClock()
    run = Execution(Runtime(None, events.append, clock, CountingIds()), RunInfo("rag"))
    with run, run.model_call(ModelRequest(provider="openai", model="gpt-6-luna")):
        clock.advance(1)
    events = [event for event in events if not isinstance(event, TokenUsage | ExecutionFinished)]
    console = Console(file=io.StringIO(), width=120)
    console.print(trace_tree(events, run.run_id, console.width))
    assert isinstance(console.file, io.StringIO)
    root, request = console.file.getvalue().splitlines()
    assert root.split()[-2:] == ["–", "unfinished"]
    assert request.split()[1:4] == ["chat", "gpt-6-luna", "━"]
    assert request.split()[-3:] == ["–", "never", "ended"]
