"""The benchmarks' asking side, with peers that are processes: what they say, how they fail, what comes of it."""

import signal
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from bench_support import TWO_CASES, toml_of, write_question
from process_support import eventually, is_gone, started
from rich.console import Console

from runmeter.bench.command import BenchOptions, run_bench
from runmeter.bench.errors import BenchError, CaseFailed, PeerFailed
from runmeter.bench.goals import load_goals, split
from runmeter.bench.peer import Peer, command_for, environment_of
from runmeter.bench.progress import Watch
from runmeter.bench.question import (
    SHIPPED,
    dependencies,
    known_questions,
    load_question,
    needs_own_environment,
    select,
)
from runmeter.bench.record import Record, load_record

BASELINE = 'baseline = "base"'
UNENDING = """
    def light(times):
        import time
        while True:
            time.sleep(0.01)

    return Bench({"light": light})
"""


def bench(folder: Path, *questions: str, **options: object) -> tuple[int, Record, str]:
    """Run quickly, and return the exit code, the record and what was shown."""
    out, file = StringIO(), folder / "run.json"
    known = BenchOptions(questions=questions or ("made",), quick=True, folder=folder, json=file)
    given = replace(known, **options)  # type: ignore[arg-type] # by name
    code = run_bench(given, Console(file=out, width=160), Watch(Console(file=StringIO())))
    return code, load_record(file), out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A question of two cases and two peers."""
    return write_question(
        tmp_path, toml_of(["light", "heavy"], ["base", "peer"], BASELINE), base=TWO_CASES, peer=TWO_CASES
    )


def start(folder: Path, name: str) -> Peer:
    return Peer(command_for(folder / "made" / f"{name}.py"), environment_of(folder))


# One peer


def test_a_peer_says_what_it_can_do_measures_and_tells_what_was_asked(tmp_path: Path) -> None:
    body = """
    said = []
    print("libraries may print")

    async def light(times):
        said.extend(["hello"] * times)

    def asked():
        heard = said[:]
        said.clear()
        return heard

    return Bench({"light": light}, asked=asked)
"""
    write_question(tmp_path, toml_of(["light"], ["base"]), base=body)
    with start(tmp_path, "base") as peer:
        assert peer.ready().cases == ("light",)
        measured = peer.measure("light", 1_000)
        assert measured.times == 1_000
        assert measured.cpu_ns > 0 < min(measured.calibration_ns)
        assert peer.asked("light", 3) == ["hello"] * 3
        with pytest.raises(CaseFailed, match="KeyError"):
            peer.measure("no such case", 1)
        assert peer.measure("light", 1).times == 1  # it lives on


def test_what_skews_some_peers_does_not_reach_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("PYTHONDEVMODE", "1")
    monkeypatch.setenv("SOME_PATH", "kept")
    environment = environment_of(SHIPPED)
    assert "LANGSMITH_TRACING" not in environment
    assert "PYTHONDEVMODE" not in environment
    assert environment["SOME_PATH"] == "kept"
    assert environment["PYTHONHASHSEED"] == "0"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('    raise RuntimeError("no luck")', r"exit code 1\): RuntimeError: no luck"),
        ("    import os\n    os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    ],
)
def test_a_peer_that_cannot_start_says_why(tmp_path: Path, body: str, reason: str) -> None:
    write_question(tmp_path, toml_of(["light"], ["base"]), base=body)
    peer = start(tmp_path, "base")
    with pytest.raises(PeerFailed, match=reason):
        peer.ready()
    peer.kill()


def test_a_peer_that_talks_nonsense(tmp_path: Path) -> None:
    peer = Peer([sys.executable, "-c", "print('hello')"], environment_of(tmp_path))
    with pytest.raises(PeerFailed, match="protocol"):
        peer.ready()
    peer.kill()


def test_killing_a_peer_kills_what_it_started(tmp_path: Path) -> None:
    body = f"""
    import subprocess
    child = subprocess.Popen([{sys.executable!r}, "-c", "import time; time.sleep(600)"])
    return Bench({{str(child.pid): lambda times: None}})
"""
    write_question(tmp_path, toml_of(["light"], ["base"]), base=body)
    peer = start(tmp_path, "base")
    child = int(peer.ready().cases[0])
    peer.kill()
    peer.kill()
    eventually(lambda: is_gone(child))


# All of them


def test_a_run_measures_each_case_of_each_peer_in_each_round(folder: Path) -> None:
    code, record, shown = bench(folder, rounds=4)
    assert code == 0
    assert record.complete
    (own,) = record.questions
    rounds = {(sample.peer, sample.case, sample.round) for sample in own.samples}
    assert rounds == {(p, c, r) for p in ("base", "peer") for c in ("light", "heavy") for r in range(4)}
    assert len(own.samples) == len(rounds)
    assert "Peak memory: base" in shown


@pytest.mark.campaign
def test_the_order_of_peers_is_drawn_anew_and_the_same_in_each_run(folder: Path) -> None:
    orders = []
    for _ in range(2):
        _, record, _ = bench(folder, rounds=8)
        orders.append([(sample.round, sample.case, sample.peer) for sample in record.questions[0].samples])
    assert orders[0] == orders[1]
    firsts = {peer for (_, case, peer), (_, before, _) in zip(orders[0][1:], orders[0], strict=False) if case != before}
    assert firsts == {"base", "peer"}


@pytest.mark.campaign
def test_times_are_multiples_or_as_many_as_said(tmp_path: Path) -> None:
    cases = ['name = "light"\nmultiple = 7', 'name = "heavy"\ntimes = 11\nrounds = 2']
    write_question(tmp_path, toml_of(cases, ["base"]), base=TWO_CASES)
    _, record, _ = bench(tmp_path, rounds=3)
    times = {case: [s.times for s in record.questions[0].samples if s.case == case] for case in ("light", "heavy")}
    assert len(times["light"]) == 3
    assert {number % 7 for number in times["light"]} == {0}
    assert min(times["light"]) > 7
    assert times["heavy"] == [11, 11]


def test_a_quick_run_leaves_out_slow_cases_and_what_is_derived_from_them(tmp_path: Path) -> None:
    cases = ["light", 'name = "heavy"\nslow = true', 'name = "more"\nminuend = "heavy"\nsubtrahend = "light"']
    write_question(tmp_path, toml_of(cases, ["base"]), base=TWO_CASES)
    (quick,), (full,) = (select(tmp_path, ["made"], (), quick=quick) for quick in (True, False))
    assert [case.name for case in quick.cases] == ["light"]
    assert [case.name for case in full.cases] == ["light", "heavy", "more"]


@pytest.mark.campaign
def test_a_peer_that_crashes_is_left_out_and_the_others_go_on(folder: Path) -> None:
    crashing = TWO_CASES.replace("sum(range(500))", "__import__('os')._exit(7)")
    write_question(folder, toml_of(["light", "heavy"], ["base", "peer", "third"], BASELINE), third=crashing)
    code, record, shown = bench(folder, rounds=2)
    assert code == 1
    (failure,) = record.questions[0].failures
    assert (failure.peer, failure.case, failure.reason) == ("third", None, "it ended (exit code 7)")
    assert {sample.peer for sample in record.questions[0].samples} == {"base", "peer"}
    assert "left out: made, third: it ended (exit code 7)" in shown


@pytest.mark.campaign
def test_a_case_that_fails_is_left_out_and_its_peer_goes_on(folder: Path) -> None:
    failing = TWO_CASES.replace("sum(range(500))", "1 / 0")
    write_question(folder, toml_of(["light", "heavy"], ["base", "peer"], BASELINE), peer=failing)
    code, record, _ = bench(folder, rounds=2)
    assert code == 1
    (failure,) = record.questions[0].failures
    assert (failure.peer, failure.case) == ("peer", "heavy")
    assert failure.reason.startswith("ZeroDivisionError")
    assert {(s.peer, s.case) for s in record.questions[0].samples if s.peer == "peer"} == {("peer", "light")}


@pytest.mark.campaign
def test_a_peer_whose_environment_cannot_be_made_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    header = '# /// script\n# dependencies = ["no-such-library-there-is==1.0"]\n# ///\n'
    script = folder / "made" / "peer.py"
    script.write_text(header + script.read_text(encoding="utf-8"), encoding="utf-8")
    code, record, _ = bench(folder, rounds=2)
    assert code == 1
    (failure,) = record.questions[0].failures
    assert failure.reason.startswith("its environment cannot be made")
    assert "no-such-library-there-is" in failure.reason


@pytest.mark.campaign
def test_imports_are_measured_by_starting_anew(folder: Path) -> None:
    code, record, shown = bench(folder, "import")
    assert code == 0
    (own,) = record.questions
    assert [(peer.name, peer.title) for peer in own.question.peers] == [
        ("made.base", "made: base"),
        ("made.peer", "made: peer"),
    ]
    assert len(own.samples) == 2 * record.parameters.starts
    assert "What does an import take?" in shown


@pytest.mark.campaign
def test_only_some_peers_and_their_baseline(folder: Path) -> None:
    write_question(folder, toml_of(["light"], ["base", "peer", "third"], BASELINE), third=TWO_CASES)
    _, record, _ = bench(folder, rounds=1, peers=("third",))
    assert {sample.peer for sample in record.questions[0].samples} == {"base", "third"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"questions": ("bogus",)}, "no question 'bogus': there are made, import"),
        ({"peers": ("bogus",)}, "no peer 'bogus': there are base, peer"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known(folder: Path, options: dict[str, tuple[str]], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        run_bench(BenchOptions(folder=folder, **options))  # type: ignore[arg-type] # by name


@pytest.mark.campaign
def test_results_charts_and_comparison(folder: Path) -> None:
    goals = '[[goals]]\ntext = "as light as the other"\nlimit = 1000\n'
    goals += 'numerator = "made/peer/light"\ndenominator = "made/base/light"\n'
    (folder / "goals.toml").write_text(goals, encoding="utf-8")
    bench(folder, rounds=3)
    (folder / "run.json").rename(folder / "old.json")
    out = folder / "out"
    _, _, shown = bench(folder, rounds=3, results=out, svg=folder / "svg", compare=folder / "old.json")
    assert "Changes beyond noise" in shown
    page = (out / "RESULTS.md").read_text(encoding="utf-8")
    assert "| as light as the other | ≤ 1,000 |" in page
    assert "charts/made-dark.svg" in page
    assert load_record(out / "results.json").complete
    for path in (out / "charts" / "made-light.svg", out / "charts" / "made-dark.svg", folder / "svg" / "made-dark.svg"):
        assert ">heavy<" in path.read_text(encoding="utf-8").replace(" ", "")


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("stopped", "told", "code"),
    [("made", signal.SIGINT, 130), ("import", signal.SIGINT, 130), ("made", signal.SIGTERM, 143)],
    ids=str,
)
def test_ctrl_c_shows_what_there_is_and_leaves_nobody_behind(
    folder: Path, stopped: str, told: signal.Signals, code: int
) -> None:
    body = UNENDING if stopped == "made" else "    import time\n    time.sleep(600)"
    write_question(folder, toml_of(["light"], ["base", "peer"], BASELINE), peer=body)
    command = [sys.executable, "-m", "runmeter", "bench", stopped, "--quick", "--folder", str(folder)]
    wanted = "warming up" if stopped == "made" else "import: setting up"
    with started(command) as process:
        assert process.stderr is not None
        while wanted not in process.stderr.readline():
            assert process.poll() is None
        children = wait_for_children(process.pid)
        process.send_signal(told)
        out, error = process.communicate()
    assert process.returncode == code
    assert "interrupted: this is what was measured until then" in out
    assert "Traceback" not in error
    eventually(lambda: all(map(is_gone, children)))


def wait_for_children(pid: int) -> list[int]:
    while True:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        if found:
            return [int(child) for child in found]


# Questions


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("title = ", "Invalid"),
        (toml_of(["a"], ["base"], "colour = 1"), "unknown field `colour`"),
        (toml_of(["a"], ["nobody"]), "peer 'nobody' has no script nobody.py"),
        (toml_of(["a"], ["base"], 'baseline = "peer"'), "the baseline 'peer' is not a peer"),
        (toml_of(["a", "a"], ["base"]), "the same name"),
        (toml_of(["a", 'name = "b"\nminuend = "c"\nsubtrahend = "a"'], ["base"]), "derived from 'c'"),
        (toml_of(["a", 'name = "b"\nminuend = "a"'], ["base"]), "has a minuend and a subtrahend"),
        (toml_of(['name = "a"\nper = 0'], ["base"]), "are above 0"),
        (toml_of(["a"], ["base"], 'figures = "added"'), "added to a baseline"),
    ],
)
def test_a_question_that_is_none(tmp_path: Path, toml: str, message: str) -> None:
    write_question(tmp_path, toml, base=TWO_CASES)
    with pytest.raises(BenchError, match=message):
        load_question(tmp_path / "made")


def test_what_a_script_needs(tmp_path: Path) -> None:
    script = tmp_path / "peer.py"
    for header, needed, own in (
        ("", (), False),
        ('# /// script\n# dependencies = ["runmeter"]\n# ///\n', ("runmeter",), False),
        ('# /// script\n# dependencies = [\n#   "pyee==1.0",\n# ]\n# ///\n', ("pyee==1.0",), True),
        ('# /// script\n# dependencies = ["runmeter", "pyee"]\n# ///\n', ("runmeter", "pyee"), True),
    ):
        script.write_text(header + "x = 1\n", encoding="utf-8")
        assert dependencies(script) == needed
        assert needs_own_environment(script) == own


@pytest.mark.parametrize("name", known_questions(SHIPPED))
def test_the_shipped_questions_can_be_read(name: str) -> None:
    question = load_question(SHIPPED / name)
    for peer in question.peers:
        dependencies(SHIPPED / name / f"{peer.name}.py")


def test_the_shipped_goals_are_about_what_is_asked() -> None:
    questions = {name: load_question(SHIPPED / name) for name in known_questions(SHIPPED)}
    known = {
        f"{name}/{peer.name}/{case.name}"
        for name, question in questions.items()
        for peer in question.peers
        for case in question.cases
    }
    known |= {f"import/{name}.{peer.name}/import" for name, each in questions.items() for peer in each.peers}
    goals = load_goals(SHIPPED)
    assert len(goals) > 10
    references = {reference for goal in goals for term in goal.terms for reference in term.references}
    assert references <= known, sorted(references - known)
    assert all(split(reference) for reference in references)
