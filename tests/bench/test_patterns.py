"""The benchmark of the patterns on LangGraph: each peer asks the model as often as its graph has nodes."""

import json
import os
import sys
from pathlib import Path

import pytest
from process_support import output_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NODES = {
    "augmented_llm": 1,
    "prompt_chaining": 2,
    "routing": 2,
    "parallelization": 4,
    "orchestrator_workers": 6,
    "evaluator_optimizer": 2,
}


@pytest.mark.campaign
@pytest.mark.parametrize("peer", ["runmeter", "runmeter_all_sinks"])
def test_the_model_is_asked_once_a_node(peer: str) -> None:
    cases = [case for name in NODES for case in (f"{name}, bare", name)]
    commands = [{"case": case, "times": 3, "asked": True} for case in cases]
    told = output_of(
        [sys.executable, BENCHMARKS / "patterns" / f"{peer}.py"],
        text="".join(json.dumps(command) + "\n" for command in commands),
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
    )
    ready, *answers = map(json.loads, told.splitlines())
    assert ready["cases"] == cases
    assert answers == [{"asked": [3 * nodes]} for nodes in NODES.values() for _ in ("bare", "pattern")]
