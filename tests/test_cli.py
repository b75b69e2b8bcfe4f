"""The command line as its users meet it: in a process of its own."""

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from openai import OpenAI

import runmeter
from runmeter.patterns import PatternType

QUIET = {"OTEL_SDK_DISABLED": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}


def run(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runmeter", *arguments]
    return subprocess.run(  # noqa: S603 - our own command
        command, capture_output=True, text=True, timeout=timeout, check=False, env=os.environ | QUIET
    )


def test_version() -> None:
    assert run("--version").stdout.strip() == f"runmeter {runmeter.__version__}"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_teaches(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    assert "runmeter demo --live" in done.stdout


@pytest.mark.parametrize("command", ["demo", "run", "simulator", "patterns", "models", "advise"])
def test_every_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"Usage: runmeter {command}" in done.stdout


def test_patterns_lists_all_twelve() -> None:
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
def test_wrong_input_gets_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("runmeter")


def test_an_empty_folder_gets_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = run("demo", str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no text in" in done.stderr


def test_demo_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "bees.txt").write_text("Bees make honey. " * 300)
    done = run("demo", str(tmp_path), "--runs", "24", "--concurrency", "3")
    assert done.returncode == 0, done.stderr
    for pattern in PatternType:
        assert re.search(rf"{pattern}\s+2\s+0", done.stdout)
    assert "tool find_passages" in done.stdout
    assert done.stdout.count("✓") == 3
    assert "✗" not in done.stdout


def test_demo_without_a_collector_says_what_was_lost() -> None:
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own code
    assert done.returncode in (1, 2)
    assert advice in done.stderr
    assert len(done.stderr.splitlines()) == 1


def start(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-u", "-m", "runmeter", *arguments]
    return subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | QUIET
    )


def test_ctrl_c_ends_the_demo(tmp_path: Path) -> None:
    (tmp_path / "bees.txt").write_text("Bees make honey. " * 300)
    with start("demo", str(tmp_path), "--runs", "100000") as process:
        assert process.stdout is not None
        assert "100,000 runs over 1 document on a simulated API" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "✗" not in output


def test_the_simulator_serves_until_ctrl_c_and_shows_its_account() -> None:
    with start("simulator", "--port", "0") as process:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 60)
        assert ready
        url = re.search(r"http://\S+/v1", process.stdout.readline())
        assert url
        with OpenAI(base_url=url[0], api_key="any") as client:
            response = client.responses.create(model="gpt-6-luna", input="hello")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert response.usage is not None
    assert "1 requests answered" in output
    assert f"gpt-6-luna: {response.usage.input_tokens} tokens in, {response.usage.output_tokens} out" in output


def test_a_port_in_use_gets_one_line_and_exit_code_2() -> None:
    with start("simulator", "--port", "0") as process:
        assert process.stdout is not None
        port = re.search(r":(\d+)/v1", process.stdout.readline())
        assert port
        done = run("simulator", "--port", port[1])
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert port[1] in done.stderr
