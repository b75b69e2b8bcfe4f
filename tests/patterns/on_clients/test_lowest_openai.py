"""The lowest version of `openai` that is allowed: patterns and metered clients work with it, not only with ours."""

import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from process_support import output_of

from runmeter.bench.peer import find_uv

ROOT = Path(__file__).parents[3]
TESTED = (
    "on_openai/test_responses.py",
    "on_openai/test_streaming.py",
    "on_openai/test_given_clients.py",
    "on_clients/test_matrix.py",
    "on_clients/test_meter.py",
    "test_failed_answers.py",
)


def lowest() -> str:
    """The version that the package's metadata names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [needed] = [each for each in project["dependencies"] if each.startswith("openai>=")]
    return str(needed).removeprefix("openai>=")


def test_one_version_is_named_and_the_pages_say_the_same() -> None:
    for page in ("docs/meter.md", "docs/already.md"):
        assert f"openai {lowest()}" in (ROOT / page).read_text().replace("`", "")


@pytest.mark.campaign
def test_patterns_and_metered_clients_work_with_it(tmp_path: Path) -> None:
    pins = re.sub(r"(?m)^openai==.*$", f"openai=={lowest()}.0", (ROOT / "constraints.txt").read_text())
    (constraints := tmp_path / "constraints.txt").write_text(pins)
    uv, python = find_uv(), str(tmp_path / "venv" / "bin" / "python")
    output_of([uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")])
    pinned = ["-c", str(constraints), "-e", f"{ROOT}[dev]"]
    output_of([uv, "pip", "install", "--quiet", "--python", python, *pinned])
    installed = output_of([python, "-c", "import openai; print(openai.__version__)"]).strip()
    assert installed.startswith(lowest())
    tests = [str(ROOT / "tests" / "patterns" / name) for name in TESTED]
    said = output_of([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], env=dict(os.environ), cwd=ROOT)
    assert " passed" in said.splitlines()[-1]
    assert "failed" not in said
