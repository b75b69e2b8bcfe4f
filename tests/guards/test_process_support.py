"""The suite's own limit: a test that hangs is named, the others run, and no process of it is left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from process_support import eventually, is_gone, python, run_command, started

ROOT = Path(__file__).parents[2]
MADE = """
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from process_support import python, started

@pytest.fixture
async def stuck():
    threading.Event().wait()

stack = ExitStack()
child = stack.enter_context(started(python("import time; time.sleep(3600)")))  # before any limit runs
Path(f"{child.pid}.child").touch()

@pytest.mark.timeout(6)
def test_hangs():
    child.wait()

@pytest.mark.timeout(6)
async def test_hangs_in_a_fixture(stuck):
    pass

async def test_is_fine():
    pass

def test_fails():
    assert not "a reason"
"""


@pytest.mark.campaign
def test_a_hanging_test_ends_by_the_limit_and_so_does_what_it_started(tmp_path: Path) -> None:
    (tmp_path / "test_made.py").write_text(MADE)
    workers = ["-n", "2", "--dist", "worksteal", "-o", "faulthandler_timeout=2"]
    place = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    done = run_command(
        [sys.executable, "-m", "pytest", "-q", *workers, *place, "test_made.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests/support/suite")},
    )
    assert done.returncode == 1, done.stderr
    failed = {line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == {
        "FAILED test_made.py::test_hangs",
        "FAILED test_made.py::test_hangs_in_a_fixture[asyncio]",
        "FAILED test_made.py::test_hangs_in_a_fixture[trio]",
        "FAILED test_made.py::test_fails",
    }
    assert "4 failed, 2 passed" in done.stdout
    assert "in test_hangs" in done.stderr
    assert "in stuck" in done.stderr
    children = [int(path.stem) for path in tmp_path.glob("*.child")]
    assert len(children) > 2, "one of each worker, the first two of which have died"
    eventually(lambda: all(map(is_gone, children)))


def test_a_process_and_what_it_started_end_with_the_block() -> None:
    code = (
        "import subprocess, sys, time\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)']).pid, flush=True)\n"
        "time.sleep(3600)"
    )
    with started(python(code)) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert not is_gone(child)
    assert process.returncode == -9
    eventually(lambda: is_gone(child))


def test_a_process_ends_with_the_one_that_started_it() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from process_support import python, started\n"
        "with started(python('import time; time.sleep(3600)')) as process:\n"
        "    print(process.pid, flush=True)\n"
        "    process.wait()"
    )
    command = [*python(code), str(ROOT / "tests/support/suite")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own code
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
    eventually(lambda: is_gone(child))
