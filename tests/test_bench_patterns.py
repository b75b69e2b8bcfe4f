"""The benchmark of the patterns on LangGraph: each peer asks the model as often as its graph has nodes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NODES = {
    "augmented_llm": 1,
    "prompt_chaining": 2,
    "routing": 2,
    "parallelization": 4,
    "orchestrator_workers": 6,
    "evaluator_optimizer": 2,
}


@pytest.mark.parametrize("peer", ["runmeter", "runmeter_all_sinks"])
def test_the_model_is_asked_once_a_node(peer: str) -> None:
    cases = [case for name in NODES for case in (f"{name}, bare", name)]
    commands = [{"case": case, "times": 3, "asked": True} for case in cases]
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, BENCHMARKS / "patterns" / f"{peer}.py"],
        input="".join(json.dumps(command) + "\n" for command in commands),
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    ready, *answers = map(json.loads, done.stdout.splitlines())
    assert ready["cases"] == cases
    assert answers == [{"asked": [3 * nodes]} for nodes in NODES.values() for _ in ("bare", "pattern")]
