"""`runmeter bench --pattern`: a pattern of the user's own, on the simulated API."""

import signal
import sys
from pathlib import Path

import pytest
from process_support import output_of, run_command, started

from runmeter.bench.own_pattern import CASES
from runmeter.bench.record import Record, load_record

pytestmark = pytest.mark.campaign  # each measures

MODULE = """
from runmeter.patterns import OpenAIFunctionCallingPattern as FunctionCalling

async def answer(messages, context):
    return messages.upper()

class Plain:
    async def execute(self, messages, context=None):
        return messages

class Broken:
    async def execute(self, messages, context=None):
        raise ValueError("no luck")

"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mymodule.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "settings.toml").write_text('openai_model = "gpt-6-luna"\n', encoding="utf-8")
    return tmp_path


def command(pattern: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "runmeter", "bench", "--quick", "--rounds", "1", "--pattern", pattern, *more]


def bench(folder: Path, pattern: str, *more: str) -> Record:
    output_of(command(pattern, "--json", "run.json", *more), cwd=folder)
    return load_record(folder / "run.json")


def test_a_pattern_is_measured_with_and_without_an_engine(folder: Path) -> None:
    record = bench(folder, "mymodule:FunctionCalling", "--config", "settings.toml", "--text", "Hello")
    (own,) = record.questions
    assert {(each.peer, each.case) for each in own.samples} == {
        (peer, case) for peer in ("bare", "engine", "empty") for case in CASES
    }
    checks = next(peer.checks for peer in own.peers if peer.name == "engine")
    assert checks == {"events per run": 4, "requests per run": 1}
    times = {each.times % 100 for each in own.samples if each.case == "100 at once"}
    assert times == {0}


@pytest.mark.parametrize("pattern", ["mymodule:answer", "mymodule:Plain"])
def test_a_function_and_any_object_are_patterns_too(folder: Path, pattern: str) -> None:
    (own,) = bench(folder, pattern).questions
    assert next(peer.checks for peer in own.peers if peer.name == "engine") == {
        "events per run": 2,
        "requests per run": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mymodule"], "--pattern takes module:object"),
        (["nomodule:Plain"], "ModuleNotFoundError: No module named 'nomodule'"),
        (["mymodule:Nothing"], "has no attribute 'Nothing'"),
        (["mymodule:Broken"], "--pattern mymodule:Broken: ValueError: no luck"),
        (["mymodule:Plain", "bus"], "--pattern is benched by itself"),
        (["mymodule:FunctionCalling", "--config", "bad.toml"], "no_such_field"),
    ],
)
def test_what_cannot_be_benched_gets_one_line_and_exit_code_2(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "bad.toml").write_text("no_such_field = 1\n", encoding="utf-8")
    done = run_command(command(*arguments), cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_ends_it(folder: Path) -> None:
    with started(command("mymodule:Plain", "--rounds", "1000"), cwd=folder) as process:
        assert process.stderr is not None
        while "1000 rounds" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, error = process.communicate()
    assert process.returncode == 130
    assert "interrupted: this is what was measured until then" in out
    assert "Traceback" not in error
