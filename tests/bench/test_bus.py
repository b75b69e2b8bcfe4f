"""The bus benchmark: every peer delivers every event."""

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from campaign_support import shortly
from process_support import output_of, run_command

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QUESTION = tomllib.loads((BENCHMARKS / "bus" / "question.toml").read_text())
PEERS = [peer["name"] for peer in QUESTION["peers"]]
CASES = {case["name"]: case for case in QUESTION["cases"]}
DELIVERY = {name for name in CASES if name.startswith("delivery")}
PUBLISHING = {name for name in CASES if name.startswith("publish")}
IMMEDIATE = {"direct", "blinker", "pyee"}
"""They have no publishing apart from delivery."""
TIMES = 1_050
"""More than one batch, and the last one smaller."""
SLOW = {"autogen_core": 60, "bubus": 60, "bubus_short": 60, "anyio_send": 60}
"""More than the bubus queue holds."""


def command(peer: str) -> list[str]:
    script = BENCHMARKS / "bus" / f"{peer}.py"
    if peer == "runmeter":
        return [sys.executable, str(script)]
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("uv is not installed, and the peer needs an environment of its own")
    chosen = ["-q", "--python", sys.executable, "--script", str(script)]
    made = run_command([str(uv), "sync", *chosen])
    if made.returncode:
        assert "there is no version of" not in made.stderr, (
            made.stderr
        )  # a pin that cannot be: no matter of the network
        pytest.skip(f"uv cannot make the peer's environment, perhaps without network: {made.stderr.strip()[-300:]}")
    return [str(uv), "run", *chosen]


def ask(command: list[str], *questions: dict[str, Any]) -> list[dict[str, Any]]:
    """The peer's handshake and its answers."""
    asked = "".join(json.dumps(question) + "\n" for question in questions)
    told = output_of(command, text=asked, env=os.environ | {"PYTHONPATH": str(BENCHMARKS)})
    return [json.loads(line) for line in told.splitlines()]


@pytest.mark.parametrize("peer", shortly(PEERS, "runmeter".__eq__))
def test_every_subscriber_receives_every_event(peer: str) -> None:
    times = SLOW.get(peer, TIMES)
    (ready, *answers) = ask(command(peer), *({"case": name, "times": times} for name in CASES))
    missing = set(CASES) - set(ready["cases"])
    assert set(ready["cases"]) <= set(CASES)
    assert not missing & DELIVERY
    assert bool(missing & PUBLISHING) == (peer in IMMEDIATE | {"anyio_nowait"})
    for name, answer in zip(CASES, answers, strict=True):
        if name in missing:
            assert answer["error"].startswith("KeyError")
        else:
            assert answer.get("error") is None, f"{name}: {answer}"  # a count that is wrong is one
            assert answer["times"] == times


def test_a_wrong_count_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "loses_one.py"
    script.write_text(
        "from functools import partial\n"
        "from bus.counting import cases, check, make_event, subscribers\n"
        "from worker import Bench, serve\n"
        "def deliver(count, times):\n"
        "    receivers = subscribers(count)\n"
        "    for receiver in receivers:\n"
        "        receiver.take_batch([make_event()] * (times - 1))\n"
        "    check(receivers, times)\n"
        "serve(lambda: Bench(cases(deliver)), [])\n"
    )
    _, answer = ask([sys.executable, str(script)], {"case": "delivery, 3 subscribers", "times": 7})
    assert answer["error"] == "RuntimeError: 6 events where 7 were published"


def test_figures_are_for_one_event_at_one_subscriber() -> None:
    for name in DELIVERY:
        assert CASES[name].get("per", 1) == int(name.split()[1])


def test_peers_and_files_agree() -> None:
    helpers = {"counting"}
    assert {path.stem for path in (BENCHMARKS / "bus").glob("*.py")} - helpers == set(PEERS)
