"""The command line as its users meet it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import pytest
from campaign_support import shortly
from openai import OpenAI
from process_support import output_of, python, run_command, started

import runmeter
from runmeter.cli import main as cli
from runmeter.cli.demo.documents import Documents
from runmeter.patterns import PatternType

QUIET = {"OTEL_SDK_DISABLED": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}


Run: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


def run_apart(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_command([sys.executable, "-m", "runmeter", *arguments], env=os.environ | QUIET)


@pytest.fixture(params=["here", pytest.param("apart", marks=pytest.mark.campaign)])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process, which has imported what takes long, or in one of its own."""

    def run_here(*arguments: str) -> "subprocess.CompletedProcess[str]":
        for name, value in QUIET.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ending:
            cli.run(list(arguments))
        code = ending.value.code
        return subprocess.CompletedProcess(arguments, code if isinstance(code, int) else 0, *capfd.readouterr())

    return run_here if request.param == "here" else run_apart


def test_version() -> None:
    assert run_apart("--version").stdout.strip() == f"runmeter {runmeter.__version__}"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_teaches(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    assert "runmeter demo --live" in done.stdout


@pytest.mark.parametrize(
    "command",
    ["demo", "run", "simulator", "patterns", "models", "advise", "usage", "runs", "export", "import", "reprice"],
)
def test_every_command_has_help(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"Usage: runmeter {command}" in done.stdout


def test_patterns_lists_all_twelve(run: Run) -> None:
    done = run("patterns")
    assert done.returncode == 0
    assert done.stdout.count("langgraph") == done.stdout.count(" openai ") == 6
    assert done.stdout.count(" available") == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["demo", "--runs", "0"], "0 is not in the range"),
        (["demo", "--runs", "many"], "'many' is not a valid integer"),
        (["demo", "/no/such/folder"], "does not exist"),
        (["demo", "--live"], "set OPENAI_API_KEY"),
        (["demo", "--svg", "/no/such/folder/x.svg"], "cannot write to that folder"),
        (["demo", "--otlp", "http://[bad"], "give a URL such as"),
        (["demo", "--otlp", "http://here:99999"], "give a URL such as"),
        (["demo", "--otlp", "nonsense"], "give a URL such as http://localhost:4317"),
        (["demo", "--model", "gpt-4-1106-preview", "--runs", "1"], "gpt-4-1106-preview"),
        (["run", "routing", "x", "--simulated", "--max-usd", "five"], "--max-usd: usd is an amount such as '0.50'"),
        (["simulator", "--port", "99999"], "is not in the range"),
        (["simulator", "--speed", "9"], "No such option"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(run: Run, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("runmeter")


def test_an_empty_folder_gets_one_line_and_exit_code_2(run: Run, tmp_path: Path) -> None:
    done = run("demo", str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no text in" in done.stderr


def test_demo_over_a_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bees.txt").write_text("Bees make honey. " * 300)
    done = run("demo", str(tmp_path), "--runs", "24", "--concurrency", "3")
    assert done.returncode == 0, done.stderr
    for pattern in PatternType:
        assert re.search(rf"{pattern}\s+2\s+0", done.stdout)
    assert "tool find_passages" in done.stdout
    assert done.stdout.count("✓") == 3
    assert "✗" not in done.stdout


def test_demo_without_a_collector_says_what_was_lost(run: Run) -> None:
    done = run("demo", "--runs", "2", "--otlp", "http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "not delivered" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("missing", "arguments", "advice"),
    [
        ("rich", ["--version"], "pip install 'runmeter[cli]'"),
        ("uvicorn", ["demo"], "pip install 'runmeter[simulator]'"),
        ("starlette", ["simulator"], "pip install 'runmeter[simulator]'"),
    ],
)
def test_a_missing_extra_is_named(missing: str, arguments: list[str], advice: str) -> None:
    code = (
        "import importlib.util as util, sys; find = util.find_spec;"
        f"util.find_spec = lambda name, *rest: None if name == {missing!r} else find(name, *rest);"
        f"sys.argv[1:] = {arguments!r}; from runmeter.__main__ import main; main()"
    )
    done = run_command(python(code))
    assert done.returncode in (1, 2)
    assert advice in done.stderr
    assert len(done.stderr.splitlines()) == 1


def start(*arguments: str) -> AbstractContextManager["subprocess.Popen[str]"]:
    return started([sys.executable, "-u", "-m", "runmeter", *arguments], env=os.environ | QUIET)


@pytest.mark.campaign  # in short it ends in this process: see test_demo.py
def test_ctrl_c_ends_the_demo(tmp_path: Path) -> None:
    (tmp_path / "bees.txt").write_text("Bees make honey. " * 300)
    with start("demo", str(tmp_path), "--runs", "100000") as process:
        assert process.stdout is not None
        assert "100,000 runs over 1 document on a simulated API" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "✗" not in output


@pytest.mark.parametrize(("told", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str)
def test_other_signals_end_the_demo_as_ctrl_c_does(
    tmp_path: Path,
    told: signal.Signals,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bees.txt").write_text("Bees make honey. " * 300)
    count_words = Documents.count_words

    def end(self: Documents, text: str) -> dict[str, int]:
        """Count the words of a text."""
        signal.raise_signal(told)
        return count_words(self, text)

    monkeypatch.setattr(Documents, "count_words", end)
    with pytest.raises(SystemExit) as ended:
        cli.run(["demo", str(tmp_path), "--runs", "100000"])
    assert ended.value.code == code
    assert "interrupted: this is what was counted until then" in capsys.readouterr().out
    assert signal.getsignal(told) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    (tmp_path / "bees.txt").write_text("Bees make honey. " * 300)
    command = ["nohup", sys.executable, "-u", "-m", "runmeter", "demo", str(tmp_path), "--runs", "100000"]
    with started(command, stdin=subprocess.DEVNULL, env=os.environ | QUIET) as process:
        assert process.stdout is not None
        assert "100,000 runs" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 143


def test_sigterm_ends_a_command_that_a_script_runs_in_the_background() -> None:
    # A shell without job control has its background commands ignore Ctrl-C.
    code = (
        "import signal, os; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "from runmeter.cli.ending import ended_like_ctrl_c\n"
        "with ended_like_ctrl_c() as ending:\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "    except KeyboardInterrupt:\n"
        "        print(ending.code(130), ending.code(1), ending.code(0))"
    )
    assert output_of(python(code)) == "143 1 0\n"


@pytest.mark.parametrize("arguments", [["patterns"], ["run", "openai_streaming", "hi", "--simulated"]])
def test_output_that_cannot_be_written_is_one_line_and_exit_code_74(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "runmeter", *arguments]
    with Path("/dev/full").open("w") as full:
        done = run_command(command, stdout=full, env=os.environ | QUIET)
    assert done.returncode == 74
    assert done.stderr == "runmeter: [Errno 28] No space left on device\n"


def test_signs_that_the_outputs_encoding_lacks_are_escapes() -> None:
    """As on a Windows console, or where a locale says so."""
    command = [sys.executable, "-m", "runmeter", "run", "augmented_llm", "Is the sea 4 \u2103 cold?", "--simulated"]
    assert r"Is the sea 4 \u2103 cold?" in output_of(command, env=os.environ | QUIET | {"PYTHONIOENCODING": "ascii"})


def test_a_closed_output_takes_nothing_and_is_no_failure() -> None:
    command = ["sh", "-c", 'exec "$0" -m runmeter usage --help >&-', sys.executable]
    done = run_command(command, env=os.environ | QUIET)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("told", shortly([signal.SIGINT, signal.SIGTERM], signal.SIGINT.__eq__), ids=str)
def test_the_simulator_serves_until_ctrl_c_and_shows_its_account(told: signal.Signals) -> None:
    with start("simulator", "--port", "0") as process:
        assert process.stdout is not None
        url = re.search(r"http://\S+/v1", process.stdout.readline())
        assert url
        with OpenAI(base_url=url[0], api_key="any") as client:
            response = client.responses.create(model="gpt-6-luna", input="hello")
        process.send_signal(told)
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert response.usage is not None
    assert "1 requests answered" in output
    assert f"gpt-6-luna: {response.usage.input_tokens} tokens in, {response.usage.output_tokens} out" in output


def test_a_port_in_use_gets_one_line_and_exit_code_2(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("simulator", "--port", port)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert port in done.stderr
