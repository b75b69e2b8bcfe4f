"""Events to a file and back, and what `--events` and `runmeter advise` make of it."""

import io
import json
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from campaign_support import examples
from hypothesis import given
from rich.console import Console
from strategies import event_streams

from runmeter.cli import main as cli
from runmeter.cli.advise import advise
from runmeter.cli.demo.command import DemoOptions, run_demo
from runmeter.cli.demo.documents import Documents
from runmeter.cli.ending import NOT_WRITTEN, CommandError
from runmeter.cli.run import RunOptions, run_pattern
from runmeter.engine import (
    JSON,
    Engine,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    Notice,
    Provenance,
    Status,
    TokenUsage,
    UnknownEvent,
    Usage,
)
from runmeter.engine.event_log import NAME, EventLog, read_events
from runmeter.engine.testing import Recorder


def notice(number: int) -> Event:
    return Notice(run_id="1" * 32, seq=number, time_ns=number, kind="budget", subject="all", message="line\nbreak ü")


def read(path: Path) -> list[Event]:
    damaged: list[Any] = []
    events = list(read_events(path, lambda line, error: damaged.append((line, error))))
    assert not damaged
    return events


@given(events=event_streams())
@examples(30)
def test_what_is_written_is_read(events: Sequence[Event], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    with EventLog(path) as log:
        log(events[:3])
        log(events[3:])
    assert read(path) == events
    assert len(path.read_bytes().splitlines()) == len(events)


def test_each_batch_is_there_when_the_call_returns(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        for number in range(3):
            log([notice(number)])
            assert len(read(path)) == number + 1


def test_a_log_is_continued_and_a_cut_last_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for number in range(2):
        with EventLog(path) as log:
            log([notice(number)])
    path.write_bytes(path.read_bytes()[:-10])
    with EventLog(path) as log:
        log([notice(2)])
    damaged: list[int] = []
    assert list(read_events(path, lambda line, _: damaged.append(line))) == [notice(0), notice(2)]
    assert damaged == [2]


def test_a_disk_that_is_full_for_a_while_tears_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    batch = [notice(0), notice(1)]
    with EventLog(path) as log:
        file = log._file

        class Full:
            calls = 0

            def write(self, data: bytes) -> int:
                self.calls += 1
                if self.calls == 2:
                    raise OSError(28, "No space left on device")
                return file.write(data[:50])

        monkeypatch.setattr(log, "_file", Full())
        with pytest.raises(OSError, match="No space left"):
            log(batch)
        log(batch)
        log([notice(2)])
        monkeypatch.undo()
    assert read(path) == [*batch, notice(2)]


def test_a_batch_that_is_given_up_is_counted_and_tears_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        file = log._file

        class Full:
            calls = 0

            def write(self, data: bytes) -> int:
                self.calls += 1
                if self.calls > 1:
                    raise OSError(28, "No space left on device")
                return file.write(data[:50])

        monkeypatch.setattr(log, "_file", Full())
        for batch in ([notice(0), notice(1), notice(2)], [notice(3), notice(4)]):
            for _ in range(2):
                with pytest.raises(OSError, match="No space left"):
                    log(batch)
        monkeypatch.undo()
        log([notice(5)])
        assert log.skipped == 4
    assert read(path) == [notice(0), notice(5)]


def test_an_event_that_has_no_form_in_json_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.jsonl"
    broken = Notice(run_id="1" * 32, seq=1, time_ns=1, kind="budget", subject="\udcff", message="")
    with EventLog(path) as log:
        log([notice(0), broken, notice(2)])
        log([broken, notice(3)])
        assert log.skipped == 2
    assert read(path) == [notice(0), notice(2), notice(3)]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "line",
    [b"{", b"null", b"\xff\xfe", b'{"type":"token_usage"}', b"[" * 100_000, b'{"type":"new","run_id":1}'],
    ids=["cut", "null", "binary", "no fields", "deep", "wrong type"],
)
def test_a_damaged_line_is_told_with_its_number_and_skipped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(JSON.encode(notice(0)) + b"\n\n" + line + b"\r\n" + JSON.encode(notice(1)))
    damaged: list[tuple[int, str]] = []
    seen: list[int] = []
    assert list(read_events(path, lambda number, why: damaged.append((number, why)), seen.append)) == [
        notice(0),
        notice(1),
    ]
    assert [number for number, _ in damaged] == [3]
    assert damaged[0][1]
    assert sum(seen) == path.stat().st_size


def test_events_of_unknown_kinds_pass(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    fields = {"type": "handoff", "run_id": "1" * 32, "seq": 1, "time_ns": 2, "to": "sales"}
    path.write_text(json.dumps(fields) + "\n")
    (event,) = read(path)
    assert isinstance(event, UnknownEvent)
    assert event.fields == fields


async def test_a_subscriber_among_others_writes_what_they_see(tmp_path: Path) -> None:
    recorder = Recorder()

    async def pattern(messages: object, context: object) -> str:
        return "done"

    with EventLog(tmp_path / "events.jsonl") as log:
        async with Engine() as engine:
            engine.subscribe(recorder, name="recorder", lane="lossless")
            engine.subscribe(log, name=NAME, lane="lossless")
            for _ in range(20):
                await engine.run(pattern, "go")
    assert read(tmp_path / "events.jsonl") == recorder.events


# The commands


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo logged with two models, often enough for a comparison."""
    return logged(tmp_path_factory.mktemp("demo"), 252)


@pytest.fixture(scope="module")
def short_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logged(tmp_path_factory.mktemp("demo"), 12)


def logged(folder: Path, runs: int) -> Path:
    (folder / "bees.txt").write_text("\n\n".join(f"Paragraph {n} is about bees. " * 60 for n in range(20)))
    path = folder / "events.jsonl"
    for model in ("gpt-6-luna", "gpt-6.1-terra"):
        options = DemoOptions(folder=folder, runs=runs, concurrency=32, model=model, live=False, otlp=None, events=path)
        assert run_demo(options, Console(file=io.StringIO(), width=120)) == 0
    return path


class Advised:
    """What the command said about a log."""

    def __init__(self, path: Path, by: str | None = None, *, as_json: bool = False) -> None:
        out, shown = io.StringIO(), io.StringIO()
        self.code = advise(path, by, out, Console(file=shown, width=100), as_json=as_json)
        self.out, self.shown = out.getvalue(), shown.getvalue()


@pytest.mark.campaign
def test_advice_on_what_the_demo_did(log: Path) -> None:
    advised = Advised(log)
    assert advised.code == 0
    assert not advised.shown
    assert advised.out.startswith("510 finished runs in ")
    assert "cheaper than gpt-6.1-terra on pattern augmented_llm, 21 and 21 runs" in advised.out
    assert "Reading from the prompt cache saved $" in advised.out
    assert advised.out.count("\nCheaper\n") == 1
    assert "No event tells whether the answers were as good" in advised.out


@pytest.mark.campaign
def test_advice_as_json(log: Path) -> None:
    report = json.loads(Advised(log, as_json=True).out)
    assert report["runs"] == 510
    assert report["damaged"] == []
    cheaper = [each for each in report["advice"] if each["kind"] == "cheaper"]
    # Of the twelve, one may vary so much from run to run that the data do not bear it out.
    assert 11 <= len({each["subject"] for each in cheaper}) == len(cheaper) <= 12
    for each in cheaper:
        # Their rates differ by ten; what the cache held for either varies with the time that requests took.
        assert 2 < each["figures"]["ratio_low"] < each["figures"]["ratio_high"] < 50
    saved = next(each for each in report["advice"] if each["kind"] == "caching_saved")
    requests = [event for event in read(log) if isinstance(event, TokenUsage)]
    by_hand = sum(
        event.usage.cache_read_tokens * (0.09 if event.model == "gpt-6-luna" else 0.95) / 1e6
        for event in requests
        if event.usage
    )
    assert saved["figures"]["saved_usd"] == pytest.approx(by_hand)


def test_a_damaged_line_in_the_demo_s_log_loses_nothing_else(short_log: Path, tmp_path: Path) -> None:
    lines = short_log.read_bytes().splitlines(keepends=True)
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join([*lines[:100], b"{broken\n", *lines[100:]]))
    advised = Advised(path)
    assert ", line 101: skipped, " in advised.shown.replace("\n", "")
    assert advised.out.splitlines()[1:] == Advised(short_log).out.splitlines()[1:]


def test_too_little_data_is_said_plainly(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    options = RunOptions(pattern="augmented_llm", text="What is honey?", simulated=True, events=path)
    assert run_pattern(options, io.StringIO(), Console(file=io.StringIO())) == 0
    assert sum(isinstance(event, ExecutionFinished) for event in read(path)) == 1
    advised = Advised(path)
    assert advised.code == 0
    assert "Too little to go by" in advised.out
    path.write_text("nonsense\n" * 30)
    advised = Advised(path)
    assert advised.code == 1
    assert "0 finished runs" in advised.out
    assert "20 more lines skipped" in advised.shown


def test_names_in_a_log_do_not_steer_the_terminal(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for number in range(20):
        usage = TokenUsage(
            run_id=str(number),
            seq=1,
            time_ns=2,
            call_id=0,
            provider="openai",
            operation="chat",
            model="gpt-6-luna\x1b[2J\nCheaper",
            provenance=Provenance.REPORTED,
            usage=Usage(input_tokens=10, output_tokens=1),
            start_ns=1,
            duration_ns=1,
        )
        started = ExecutionStarted(
            run_id=str(number), seq=0, time_ns=1, pattern="ask", framework="python", root_run_id=str(number)
        )
        finished = ExecutionFinished(run_id=str(number), seq=2, time_ns=3, status=Status.OK, duration_ns=1)
        log([started, usage, finished])
    log.close()
    out = Advised(tmp_path / "events.jsonl").out
    assert r"Prompts of ask to gpt-6-luna\x1b[2J\nCheaper took 100 %" in out
    assert "\x1b" not in out


def test_ctrl_c_leaves_a_log_of_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bees.txt").write_text("Bees make honey. " * 300)
    calls = 0
    count_words = Documents.count_words

    def interrupt(self: Documents, text: str) -> dict[str, int]:
        """Count the words of a text."""
        nonlocal calls
        calls += 1
        if calls == 5:
            signal.raise_signal(signal.SIGINT)
        return count_words(self, text)

    monkeypatch.setattr(Documents, "count_words", interrupt)
    path = tmp_path / "events.jsonl"
    options = DemoOptions(
        folder=tmp_path, runs=10_000, concurrency=8, model="gpt-6-luna", live=False, otlp=None, events=path
    )
    assert run_demo(options, Console(file=io.StringIO(), width=120)) == 130
    assert any(isinstance(event, ExecutionFinished) for event in read(path))


def test_a_log_that_cannot_be_written_or_read_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "bees.txt").write_text("Bees make honey. " * 300)
    nowhere = tmp_path / "none" / "events.jsonl"
    with pytest.raises(CommandError, match="No such file"):
        run_demo(
            DemoOptions(
                folder=tmp_path, runs=1, concurrency=1, model="gpt-6-luna", live=False, otlp=None, events=nowhere
            )
        )
    with pytest.raises(CommandError, match="No such file"):
        run_pattern(RunOptions(pattern="augmented_llm", text="x", simulated=True, events=nowhere), io.StringIO())
    with pytest.raises(CommandError, match="No such file"):
        Advised(nowhere)


FULL = Path("/dev/full")
"""A file that opens, and takes nothing."""


def test_a_full_disk_holds_up_neither_the_answer_nor_the_end(caplog: pytest.LogCaptureFixture) -> None:
    out, shown = io.StringIO(), io.StringIO()
    options = RunOptions(pattern="augmented_llm", text="What is honey?", simulated=True, events=FULL)
    assert run_pattern(options, out, Console(file=shown, width=100)) == NOT_WRITTEN
    assert "honey" in out.getvalue()
    lines = shown.getvalue().splitlines()
    assert lines[0] == "--events /dev/full: No space left on device: what happens from here on is not in it"
    assert lines[-1] == "--events /dev/full: 4 of 4 events are not in it"
    assert "did not take" not in caplog.text, "nothing waited for it"


def test_the_demo_says_at_once_that_its_log_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bees.txt").write_text("Bees make honey. " * 300)
    shown = io.StringIO()
    options = DemoOptions(
        folder=tmp_path, runs=12, concurrency=12, model="gpt-6-luna", live=False, otlp=None, events=FULL
    )
    assert run_demo(options, Console(file=shown, width=120)) == NOT_WRITTEN
    said = shown.getvalue()
    assert said.index("No space left on device") < said.index("Usage by pattern")
    (lost, taken) = re.findall(r"(\d+) of (\d+) events are not in it", said)[0]
    assert lost == taken
    assert "did not take" not in caplog.text


def test_a_failed_run_is_told_by_its_own_exit_code_though_the_log_is_lost() -> None:
    shown = io.StringIO()
    options = RunOptions(pattern="augmented_llm", text="What is honey?", simulated=True, events=FULL, timeout=1e-9)
    assert run_pattern(options, io.StringIO(), Console(file=shown, width=100)) == 1
    assert "events are not in it" in shown.getvalue()


def test_half_a_surrogate_pair_from_the_command_line_is_cleaned(tmp_path: Path) -> None:
    path, shown = tmp_path / "events.jsonl", io.StringIO()
    options = RunOptions(
        pattern="augmented_llm", text="What is honey?", simulated=True, tags={"team": "\udcff"}, events=path
    )
    assert run_pattern(options, io.StringIO(), Console(file=shown, width=100)) == 0
    assert "events are not in it" not in shown.getvalue()
    started, *rest = read(path)
    assert isinstance(started, ExecutionStarted)
    assert started.tags == {"team": "?"}
    assert [type(event).__name__ for event in rest] == ["ModelCallStarted", "TokenUsage", "ExecutionFinished"]


def test_the_command_line_takes_it(short_log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(["advise", str(short_log), "--by", "task"])
    assert ended.value.code == 0
    # 24, and those that show what goes wrong.
    assert "30 runs of 30 had no tag task and were not compared." in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["/no/such/file"], ["/dev/null", "--by", ""], []])
def test_wrong_input_is_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(["advise", *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("runmeter advise: ")
