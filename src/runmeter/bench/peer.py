"""A peer's process, and talking to it: a line of JSON each way."""

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from .errors import CaseFailed, PeerFailed
from .question import needs_own_environment

T = TypeVar("T")
SKEWING = ("OTEL_", "OPENAI_", "LANGSMITH_", "LANGCHAIN_", "LANGFUSE_", "LOGFIRE_", "TRACELOOP_", "PYTHON")
"""Beginnings of environment variables that would make some peers do something else than the rest."""
START_LIMIT = 120.0
"""Seconds that a peer may take to import what it needs."""
ANSWER_LIMIT = 900.0
"""Seconds that a peer may take for one measurement."""
STOP_LIMIT = 5.0
"""Seconds that a peer may take to end by itself."""


class Ready(msgspec.Struct, frozen=True):
    """A peer's message that it is ready."""

    cases: tuple[str, ...]
    versions: dict[str, str]
    python: str
    import_cpu_ns: int
    import_wall_ns: int
    import_rss: int
    """Bytes that the import added."""
    checks: dict[str, float] = {}


class Measurement(msgspec.Struct, frozen=True):
    """A measurement by a peer."""

    times: int
    cpu_ns: int
    wall_ns: int
    calibration_ns: tuple[int, int]
    rss: int
    peak_rss: int


class _Answer(msgspec.Struct):
    error: str | None = None


class _Asked(msgspec.Struct):
    asked: list[Any]


def find_uv() -> str:
    """Find the path of uv.

    Raises:
        PeerFailed: it is not installed.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        raise PeerFailed("its environment is made by uv: pip install 'runmeter[bench]'") from None


def command_for(script: Path) -> Sequence[str]:
    """Make the command of a script: this interpreter, or uv in an environment of the script's own.

    Raises:
        PeerFailed: uv is needed and not installed.
    """
    if not needs_own_environment(script):
        return [sys.executable, str(script)]
    return [find_uv(), "run", "--quiet", "--python", sys.executable, "--script", str(script)]


def environment_of(folder: Path, more: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Make the environment variables of a peer.

    Args:
        folder: Where `worker.py` is.
        more: What is set beyond that.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SKEWING)}
    return kept | {"PYTHONPATH": str(folder), "PYTHONHASHSEED": "0"} | dict(more or {})


def prepare(script: Path) -> None:
    """Make the environment that a script needs, if it is not there yet.

    Raises:
        PeerFailed: it cannot be made.
    """
    if not needs_own_environment(script):
        return
    # From what is there already, if that is all: asking the index takes seconds for each script.
    if _sync(script, "--offline") is not None and (said := _sync(script)) is not None:
        raise PeerFailed(f"its environment cannot be made: {said}")


def _sync(script: Path, *options: str) -> str | None:
    """Have uv make a script's environment. Returns what it said if it could not."""
    command = [find_uv(), "sync", "--quiet", *options, "--python", sys.executable, "--script", str(script)]
    process = None
    try:
        with interrupts_held():
            process = subprocess.Popen(  # noqa: S603 - uv, with our own script
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        said, _ = process.communicate()
    except BaseException:
        if process is not None:
            _kill(process)
        raise
    return _last(said.decode(errors="replace"), 3) if process.returncode else None


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Put Ctrl-C off until the end, so that what is begun inside cannot get lost half done."""
    if threading.current_thread() is not threading.main_thread():  # where Ctrl-C does not come
        yield
        return
    came = False

    def remember(*_: object) -> None:
        nonlocal came
        came = True

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            raise KeyboardInterrupt


class Peer:
    """The process of a peer. It has a session of its own, so that Ctrl-C reaches it only through `kill`.

    Args:
        command: What starts it.
        environment: Its environment variables.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(  # noqa: S603 - the questions' own scripts
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=environment,
            bufsize=0,
            start_new_session=True,
        )
        self._received = b""
        self._killed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is None:
            self.close()
        else:
            self.kill()

    def ready(self) -> Ready:
        """Wait until the peer is ready. To be called once, first.

        Raises:
            PeerFailed: it never was.
        """
        try:
            return msgspec.json.decode(self._line(START_LIMIT), type=Ready)
        except msgspec.DecodeError as error:
            raise PeerFailed(f"it does not keep the protocol: {error}") from None

    def measure(self, case: str, times: int) -> Measurement:
        """Have the peer measure a case.

        Raises:
            CaseFailed: it could not do that.
            PeerFailed: it ended or hung.
        """
        return self._ask({"case": case, "times": times}, Measurement)

    def asked(self, case: str, times: int) -> list[Any]:
        """Have the peer do a case, and say what its model was asked.

        Raises:
            CaseFailed: it could not do that.
            PeerFailed: it ended or hung.
        """
        return self._ask({"case": case, "times": times, "asked": True}, _Asked).asked

    def close(self) -> None:
        """Let the peer end, and kill it if it does not."""
        stdin = self._process.stdin
        try:
            if stdin is not None:
                stdin.close()
            self._process.wait(STOP_LIMIT)
        except (OSError, subprocess.TimeoutExpired):
            pass  # it is killed next
        self.kill()

    def kill(self) -> None:
        """End the peer, and all that it started, at once. May be called again."""
        if not self._killed:
            self._killed = True
            _kill(self._process)
            self._complaints.close()

    def _ask(self, command: Mapping[str, Any], kind: type[T]) -> T:
        stdin = self._process.stdin
        try:
            if stdin is not None:
                stdin.write(msgspec.json.encode(command) + b"\n")
        except OSError:
            pass  # it has ended: the answer says why
        line = self._line(ANSWER_LIMIT)
        try:
            if (error := msgspec.json.decode(line, type=_Answer).error) is not None:
                raise CaseFailed(error)
            return msgspec.json.decode(line, type=kind)
        except msgspec.DecodeError as error:
            raise PeerFailed(f"it does not keep the protocol: {error}") from None

    def _line(self, limit: float) -> bytes:
        stdout = self._process.stdout
        if stdout is None:
            raise PeerFailed("it has no output")
        deadline = time.monotonic() + limit
        while b"\n" not in self._received:
            if not select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise PeerFailed(f"no answer for {limit:.0f} s")
            piece = os.read(stdout.fileno(), 65_536)
            if not piece:
                raise PeerFailed(self._why())
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _why(self) -> str:
        try:
            code = self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        self._complaints.seek(0)
        said = _last(self._complaints.read().decode(errors="replace"), 1)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"it ended ({how}): {said}" if said else f"it ended ({how})"


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended, and so has all that it started
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _last(said: str, lines: int) -> str:
    """Find the last lines that say something."""
    return " ".join([line.strip() for line in said.splitlines() if line.strip()][-lines:])
