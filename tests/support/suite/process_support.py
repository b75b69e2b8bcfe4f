"""Commands in processes of their own, none of which outlives its test, or a test run that was killed."""

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

Command = Sequence[str | Path]

_GUARD = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


@contextmanager
def started(command: Command, **settings: Any) -> Iterator["subprocess.Popen[str]"]:
    """Start a command, with pipes for its output, and kill what is left of it and of what it started.

    Args:
        command: The program and its arguments.
        settings: Those of `subprocess.Popen`.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **(pipes | settings)) as process:  # noqa: S603 - our own
        guard = _guard()
        _tell(guard, f"+{process.pid}")
        try:
            yield process
        finally:
            with suppress(ProcessLookupError, PermissionError):  # the latter is how macOS calls a group that has ended
                os.killpg(process.pid, signal.SIGKILL)
            _tell(guard, f"-{process.pid}")


def run_command(command: Command, *, text: str | None = None, **settings: Any) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, however long that takes: the test suite's limit finds one that hangs.

    Args:
        command: The program and its arguments.
        text: What it reads.
        settings: Those of `subprocess.Popen`.
    """
    stdin = subprocess.DEVNULL if text is None else subprocess.PIPE
    with started(command, stdin=stdin, **settings) as process:
        out, error = process.communicate(text)
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def output_of(command: Command, **settings: Any) -> str:
    """What a command writes that must succeed. The arguments are those of `run_command`."""
    done = run_command(command, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(code: str, *flags: str) -> Command:
    """The command that runs code in an interpreter of its own."""
    return [sys.executable, *flags, "-c", code]


def eventually(condition: Callable[[], bool]) -> None:
    """Ask until it is so. Another process makes it so: nothing here is told, and asking all the time would slow it."""
    while not condition():
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process has ended. It may still be there for a while after a signal has killed it."""
    if not Path("/proc/self/stat").exists():  # as on macOS
        return run_command(["ps", "-o", "stat=", "-p", str(pid)]).stdout.strip()[:1] in ("", "Z")
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


@cache
def _guard() -> "subprocess.Popen[str]":
    """The process that kills what was started here, should this one be killed: it notices, as its input ends then."""
    process = subprocess.Popen(  # noqa: S603 - our own code
        python(_GUARD, "-I", "-S"), stdin=subprocess.PIPE, text=True, start_new_session=True
    )
    atexit.register(_dismiss, process)
    return process


def _dismiss(guard: "subprocess.Popen[str]") -> None:
    with guard:
        pass


def _tell(guard: "subprocess.Popen[str]", line: str) -> None:
    assert guard.stdin is not None
    print(line, file=guard.stdin, flush=True)  # one write of a few bytes, which threads do not tear apart
