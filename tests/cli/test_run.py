"""`runmeter run`: any pattern, once, from the command line."""

import io
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from otlp_receiver import receive_grpc
from pattern_support import KEY
from process_support import eventually, run_command, started
from rich.console import Console

from runmeter.cli.ending import CommandError
from runmeter.cli.run import RunOptions, run_pattern
from runmeter.cli.settings import load_settings
from runmeter.patterns import PatternType
from runmeter.simulator import Fault, Reply, Simulator

RAMBLING = "Honey is made of nectar. " * 100
"""An answer of some 600 tokens."""


class Ran:
    """A run of the command in this process, and what it wrote."""

    def __init__(self, pattern: str, text: str = "What is honey made of?", **options: Any) -> None:
        out, shown = io.StringIO(), io.StringIO()
        console = Console(file=shown, width=100)
        self.code = run_pattern(RunOptions(pattern=pattern, text=text, **options), out, console)
        self.out, self.shown = out.getvalue(), shown.getvalue()

    @property
    def lines(self) -> list[Any]:
        """The JSON objects that it printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulator that the environment names as the API. Its first answer is the fixture's parameter, if it has one."""
    simulator = Simulator(script=[Reply(text=getattr(request, "param", "Honey is made of nectar."))])
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(simulator) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield simulator


@pytest.mark.parametrize("pattern", PatternType)
def test_every_pattern_answers(pattern: PatternType) -> None:
    ran = Ran(pattern, simulated=True)
    assert ran.code == 0
    nothing = "No passages were found for this question.\n"
    assert ran.out == nothing if pattern == "openai_rag" else 'You asked: "What is honey made of?"\n'
    assert "tokens · $" in ran.shown


@pytest.mark.parametrize("pattern", PatternType)
def test_every_pattern_streams(pattern: PatternType) -> None:
    ran = Ran(pattern, simulated=True, stream=True, as_json=True)
    *deltas, result = ran.lines
    assert ran.code == 0
    assert {each["type"] for each in deltas} == {"delta"}
    assert "".join(each["text"] for each in deltas) == result["result"]["content"]


def test_the_answer_goes_out_and_the_rest_aside(served: Simulator) -> None:
    ran = Ran("openai_function_calling")
    assert ran.out == "Honey is made of nectar.\n"
    used = served.statistics().total
    assert f"{used.input_tokens:,} (0 cached) → {used.output_tokens:,} tokens" in ran.shown
    assert "1 request · 0 tool calls" in ran.shown


def test_a_streamed_answer_ends_with_a_line_break(served: Simulator) -> None:
    assert Ran("openai_streaming", stream=True).out == "Honey is made of nectar.\n"


def test_json_says_it_all(served: Simulator) -> None:
    ran = Ran("openai_function_calling", as_json=True, tags={"team": "bees"})
    [report] = ran.lines
    assert (report["type"], report["status"]) == ("result", "ok")
    assert report["result"]["content"] == "Honey is made of nectar."
    used = served.statistics().total
    assert (report["usage"]["input_tokens"], report["usage"]["output_tokens"]) == (
        used.input_tokens,
        used.output_tokens,
    )
    assert report["requests"] == 1
    assert report["cost_usd"]["low"] == report["cost_usd"]["known"] == report["cost_usd"]["high"] > 0
    assert report["duration_ns"] > 0
    assert len(report["run_id"]) == 32
    assert report["trace_id"] == report["run_id"]
    assert ran.shown == ""


def test_a_failed_run_is_exit_code_1_and_says_why(served: Simulator) -> None:
    served.inject(Fault("insufficient_quota", times=None))
    ran = Ran("openai_function_calling")
    assert (ran.code, ran.out) == (1, "")
    assert "RateLimitError" in ran.shown
    assert "exceeded your current quota" in ran.shown
    [report] = Ran("openai_function_calling", as_json=True).lines
    assert (report["status"], report["error_type"], report["result"]) == ("error", "RateLimitError", None)
    assert "quota" in report["error"]


def test_a_run_that_would_cost_more_is_refused_and_says_what_helps(served: Simulator) -> None:
    ran = Ran("openai_function_calling", max_usd="0.000001")
    assert (ran.code, ran.out) == (1, "")
    assert "BudgetExceeded: budget '--max-usd' allows $0.000001" in ran.shown
    assert "openai_max_tokens is a setting: give it in --config FILE." in ran.shown
    [report] = Ran("openai_function_calling", as_json=True, max_usd="0").lines
    assert (report["status"], report["error_type"], report["requests"]) == ("budget_exceeded", "BudgetExceeded", 0)
    assert served.statistics().total.input_tokens == 0


@pytest.mark.parametrize("served", [RAMBLING], indirect=True)
def test_an_answer_is_made_as_short_as_its_cap_demands(served: Simulator, settings: Path) -> None:
    settings.write_text("openai_max_tokens = 2_000")
    ran = Ran("openai_function_calling", config=settings, max_usd="0.0001", as_json=True)
    [report] = ran.lines
    assert report["result"]["finish_reason"] == "length"
    assert report["usage"]["output_tokens"] < 200
    assert 0 < report["cost_usd"]["high"] <= 0.0001


def test_under_a_cap_what_goes_on_at_once_takes_turns() -> None:
    """Each of three votes reserves all that the cap allows."""
    ran = Ran("parallelization", simulated=True, max_usd="0.01", as_json=True)
    [report] = ran.lines
    assert (report["status"], report["requests"]) == ("ok", 4)


@pytest.mark.parametrize("served", [RAMBLING], indirect=True)
def test_a_cap_that_is_nearly_spent_is_told(served: Simulator, settings: Path) -> None:
    settings.write_text('service_tier = "default"')  # or else half of the cap is for a tier twice as dear
    ran = Ran("openai_function_calling", config=settings, max_usd="0.00028")
    assert "the answer was cut off at its limit of output tokens" in ran.shown
    assert re.search(r"--max-usd: \$0\.\d+ of \$0\.00028 spent", ran.shown)


@pytest.mark.parametrize(("amount", "message"), [("$5", "not '$5'"), ("-1", "not negative"), ("nan", "finite")])
def test_what_is_no_amount_of_money_is_named(amount: str, message: str) -> None:
    with pytest.raises(CommandError, match=f"^--max-usd: .*{re.escape(message)}"):
        Ran("openai_function_calling", simulated=True, max_usd=amount)


def test_a_chain_that_a_gate_stopped_says_why(settings: Path) -> None:
    step = '{ name = "facts", prompt = "List facts about {input}", gate = { must_contain = "wasps" } }'
    settings.write_text(f"steps = [{step}]")
    ran = Ran("prompt_chaining", config=settings, simulated=True)
    assert "no answer: " in ran.shown
    assert "wasps" in ran.shown


def test_a_trace_shows_what_happened(served: Simulator) -> None:
    ran = Ran("openai_rag", trace=True)
    assert "openai_rag" in ran.shown
    assert "chat gpt-6-luna" in ran.shown


def test_a_collector_of_traces_alone_is_one_line_and_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    with receive_grpc(takes_metrics=False) as receiver:
        ran = Ran("routing", simulated=True, otlp=receiver.endpoint)
    assert ran.code == 0
    assert receiver.spans
    assert [record.getMessage().partition(" takes ")[2][:10] for record in caplog.records] == ["no metrics"]


def test_its_trace_is_found_under_the_id_that_is_shown() -> None:
    with receive_grpc() as receiver:
        ran = Ran("orchestrator_workers", simulated=True, otlp=receiver.endpoint)
    shown = re.search(r"^trace ([0-9a-f]{32})$", ran.shown, flags=re.MULTILINE)
    assert shown
    assert {received.span.trace_id.hex() for received in receiver.spans} == {shown[1]}
    assert "runmeter.cost" in {received.metric.name for received in receiver.metrics}
    assert len(receiver.spans) > 4


# --- Settings ---

TOOLS = """
from datetime import datetime

def look_up(word: str) -> str:
    "Look a word up."
    return f"{word}: made by bees"

class Nested:
    limit = 3
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A settings file to be written, beside a module of the user's own."""
    (tmp_path / "my_tools.py").write_text(TOOLS)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path / "settings.toml"
    sys.modules.pop("my_tools", None)


def test_settings_configure_the_pattern(settings: Path, served: Simulator) -> None:
    settings.write_text(
        """
        name = "bees"
        system_prompt = "Be brief."
        max_function_calls = 3
        tools = ["@my_tools:look_up"]

        [context]
        instructions = "Be very brief."
        """
    )
    ran = Ran("openai_function_calling", config=settings, trace=True)
    assert ran.code == 0
    assert "bees" in ran.shown
    loaded = load_settings(settings)
    assert [tool.__name__ for tool in loaded.tools] == ["look_up"]
    assert loaded.config == {"name": "bees", "system_prompt": "Be brief.", "max_function_calls": 3}
    assert loaded.context == {"instructions": "Be very brief."}


def test_references_are_looked_up_wherever_they_stand(settings: Path) -> None:
    settings.write_text('a = "@my_tools:Nested.limit"\nb = ["@my_tools:look_up"]\nc = "me@example.com"\nd.e = "@home"')
    config = load_settings(settings).config
    assert config["a"] == 3
    assert callable(config["b"][0])
    assert (config["c"], config["d"]) == ("me@example.com", {"e": "@home"})


def test_parts_of_a_pattern_are_tables(settings: Path) -> None:
    settings.write_text(
        """
        steps = [
            { name = "facts", prompt = "List facts about {input}" },
            { name = "poem", prompt = "Make a poem of {facts}" },
        ]
        """
    )
    [report] = Ran("prompt_chaining", config=settings, simulated=True, as_json=True).lines
    assert [step["name"] for step in report["result"]["steps"]] == ["facts", "poem"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a =", "settings.toml: Invalid value"),
        ("max_iteration = 3", "no 'max_iteration': did you mean 'max_iterations'?"),
        ("max_iterations = 0", "OpenAIFunctionCallingConfig.max_iterations: Expected `int` >= 1"),
        ('tools = "@my_tools:look_up"', "settings.toml: tools must be a list"),
        ("context = 3", "settings.toml: context must be a table"),
        ('tools = ["@my_tools:nothing"]', "@my_tools:nothing: AttributeError"),
        ('tools = ["@no_such_module:x"]', "@no_such_module:x: ModuleNotFoundError"),
        ("tools = [3]", "tool"),
        ("options = { colour = 1 }", "colour"),
        ("context = { x = " + "[" * 20_000 + "]" * 20_000 + " }", "settings.toml: it nests deeper than 100 levels"),
        ("context = " + "{ a = " * 20_000 + "1" + " }" * 20_000, "settings.toml: it nests deeper than 100 levels"),
        ("context." + ".".join(["a"] * 2_000) + " = 1", "settings.toml: it nests deeper than 100 levels"),
        ("[" + ".".join(["options"] * 200) + "]", "settings.toml: it nests deeper than 100 levels"),
        ("max_iterations = " + "1" * 5_000, "settings.toml: Exceeds the limit"),
    ],
)
def test_wrong_settings_are_named(settings: Path, text: str, message: str) -> None:
    settings.write_text(text)
    with pytest.raises(CommandError) as caught:
        Ran("openai_function_calling", config=settings, simulated=True)
    assert message in str(caught.value)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(CommandError, match="set OPENAI_API_KEY, or try it with --simulated"):
        Ran("openai_function_calling")
    with pytest.raises(CommandError, match="pattern 'bogus' is not registered; available are: augmented_llm"):
        Ran("bogus")
    with pytest.raises(CommandError, match="give a URL such as"):
        Ran("openai_function_calling", simulated=True, otlp="bogus")


# --- As a process ---

ENVIRONMENT: Mapping[str, str] = {"OTEL_SDK_DISABLED": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "runmeter", "run", *arguments]


def test_a_text_may_come_from_the_standard_input() -> None:
    done = run_command(
        command("openai_function_calling", "-", "--simulated", "--tag", "team=bees"),
        text="What is honey made of?",
        env=os.environ | ENVIRONMENT,
    )
    assert "honey" in done.stdout
    assert re.search(r"1 request · 0 tool calls\ntrace [0-9a-f]{32}\n$", done.stderr)


def test_a_wrong_tag_is_exit_code_2() -> None:
    done = run_command(command("routing", "x", "--tag", "bees"))
    assert done.returncode == 2
    assert done.stderr == "runmeter run: --tag takes NAME=VALUE (see runmeter run --help)\n"


@pytest.mark.parametrize(
    ("told", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.campaign)],
    ids=str,
)
def test_ctrl_c_and_its_like_show_what_was_used(
    served: Simulator, told: signal.Signals, code: int, tmp_path: Path
) -> None:
    log = tmp_path / "events.jsonl"
    served.inject(Fault("latency", seconds=0, between_chunks=3600))
    asking = command("openai_streaming", "What is honey made of?", "--stream", "--events", str(log))
    with started(asking, env=os.environ | {"OTEL_SDK_DISABLED": ""}) as running:
        eventually(lambda: bool(served.statistics().requests.get("POST /responses")) or running.poll() is not None)
        running.send_signal(told)
        _, shown = running.communicate()
    assert running.returncode == code
    assert json.loads(log.read_text().splitlines()[-1])["status"] == "cancelled"
    assert "cancelled: this is what was used until then" in shown
    assert "Traceback" not in shown
