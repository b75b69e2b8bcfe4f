"""A ledger's file on a bad day: one clear error each, and nothing that was acknowledged is lost."""

import json
import os
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from faulty_ledger import BOOK, asking, folded, open_file, whole_run
from process_support import output_of, python, started

from runmeter.engine import ConfigurationError, Engine, Event, LedgerError, LedgerReader, SQLiteLedger
from runmeter.engine.ledger import schema, writer
from runmeter.engine.ledger.file_lock import FileLock
from runmeter.engine.ledger.ledger_file import LedgerFile


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have writers try again soon."""
    monkeypatch.setattr(writer, "FIRST_RETRY", 0.001)
    monkeypatch.setattr(writer, "LAST_RETRY", 0.001)


def store_of(ledger: SQLiteLedger) -> LedgerFile:
    assert ledger._writer is not None
    store = ledger._writer._store
    assert isinstance(store, LedgerFile)
    return store


# While a ledger is in use. Each fault begins, and gives the function that ends it.


def disk_is_full(path: Path, store: LedgerFile) -> Callable[[], object]:
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: store.connection.execute("PRAGMA max_page_count = 1000000")


def locked_by_a_program(path: Path, store: LedgerFile) -> Callable[[], object]:
    store.connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


def locked_by_a_writer(path: Path, store: LedgerFile) -> Callable[[], object]:
    store._lock._patience = 0.001
    other = FileLock(store._lock._path)
    held = other.held()
    held.__enter__()

    def let_go() -> None:
        held.__exit__(None, None, None)
        store._lock._patience = 60
        other.close()

    return let_go


def moved(path: Path, store: LedgerFile) -> Callable[[], object]:
    elsewhere = path.with_name("elsewhere.db")
    path.rename(elsewhere)
    return lambda: elsewhere.rename(path)


def replaced(path: Path, store: LedgerFile) -> Callable[[], object]:
    elsewhere = path.with_name("elsewhere.db")
    path.rename(elsewhere)
    path.touch()
    return lambda: elsewhere.replace(path)


def read_only(path: Path, store: LedgerFile) -> Callable[[], object]:
    store.connection.execute("PRAGMA query_only = ON")  # permissions are looked at on opening alone
    return lambda: store.connection.execute("PRAGMA query_only = OFF")


FAULTS = {
    disk_is_full: "its disk is full: make room there",
    locked_by_a_program: "another program has held it locked",
    locked_by_a_writer: "another program has held it locked",
    moved: "was moved, removed or replaced while in use: put it back",
    replaced: "was moved, removed or replaced while in use: put it back",
    read_only: "may not be written by this user",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_what_befalls_it_in_use(tmp_path: Path, fault: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "runs.db"
    ledger = SQLiteLedger(path, commit="run")
    events: list[Event] = []
    async with Engine(ledger=ledger) as engine:
        engine.subscribe(events.extend, name="test", lane="lossless")
        first = await engine.run(asking, "hi", tags={"text": "long" * 50})
        assert first.durable
        end = fault(path, store_of(ledger))
        error = None
        for _ in range(100):  # a page has room for some events
            result = await engine.run(asking, "hi", tags={"text": "long" * 50})
            assert result.value == "answer"
            if not result.durable:
                error = ledger.statistics().last_error
                break
        assert error is not None
        assert FAULTS[fault] in error
        assert str(path) in error
        if fault is moved:
            with LedgerReader(tmp_path / "elsewhere.db") as reader:
                assert [run.run_id for run in reader.runs()] == [first.run_id], "what was acknowledged went along"
        end()
        assert (await engine.run(asking, "hi")).durable
    assert len([record for record in caplog.records if FAULTS[fault] in record.getMessage()]) == 1
    with LedgerReader(path, BOOK) as reader:
        assert reader.replay() == folded(events)


def test_removed_in_use(tmp_path: Path) -> None:
    store = open_file(tmp_path / "runs.db")
    store.append(whole_run(1))
    store.path.unlink()
    with pytest.raises(LedgerError, match="removed or replaced while in use"):
        store.append(whole_run(2))
    with pytest.raises(LedgerError, match="removed"):
        store.close()


# On opening.


def text(path: Path) -> None:
    path.write_text("runs of this week: 12\n" * 100)


def another_program_s(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (id)")
        connection.commit()


def folder(path: Path) -> None:
    path.mkdir()


def newer(path: Path) -> None:
    open_file(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def damaged(path: Path) -> None:
    store = open_file(path)
    store.append([event for number in range(2_000) for event in whole_run(number)])
    store.close()
    with path.open("r+b") as file:  # closed everywhere: no lock can be lost
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (text, "is not a ledger of Runmeter's: give another path"),
        (another_program_s, "is not a ledger of Runmeter's: give another path"),
        (folder, "is a folder|there is no ledger"),
        (newer, "has version 99, this Runmeter knows 1: upgrade Runmeter"),
        (damaged, "is damaged: move it away together with"),
    ],
)
def test_what_cannot_be_a_ledger(tmp_path: Path, make: Any, said: str) -> None:
    path = tmp_path / "runs.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(LedgerError, match=said):
        store = open_file(path)
        store.append(whole_run(1))
    with pytest.raises(LedgerError, match=said), LedgerReader(path) as reader:
        reader.replay()
    if make is not damaged:
        assert before == (path.read_bytes() if path.is_file() else None), "it is left as it was"


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger at"):
        LedgerReader(tmp_path / "runs.db")
    with pytest.raises(LedgerError, match="its folder is not there: make it"):
        open_file(tmp_path / "none" / "runs.db")
    assert not list(tmp_path.iterdir())


async def test_an_engine_does_not_start_on_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    text(path)
    engine = Engine(ledger=path)
    with pytest.raises(LedgerError, match="is not a ledger"):
        await engine.__aenter__()
    path.unlink()
    async with engine:  # what kept it from starting has gone
        await engine.run(asking, "hi")


def test_its_files_are_this_user_s_alone(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        store = open_file(tmp_path / "runs.db")
        store.append(whole_run(1))
    finally:
        os.umask(mask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {f"runs.db{end}": 0o600 for end in ("", "-wal", "-shm", "-lock")}
    store.close()
    assert {path.name for path in tmp_path.iterdir()} == {"runs.db", "runs.db-lock"}


_AS_NOBODY = """
import json, os, sys, urllib.parse
from pathlib import Path
from runmeter.engine import ExecutionFinished, LedgerError, LedgerReader, SystemClock
from runmeter.engine.ledger.ledger_file import LedgerFile
path = Path(sys.argv[1])
if os.geteuid() == 0:  # who may do all
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
def told(work):
    try:
        return str(work())
    except LedgerError as error:
        return str(error)
def read():
    with LedgerReader(path) as reader:
        return len(reader.runs())
def leave_a_log():
    event = ExecutionFinished(run_id="a", seq=0, time_ns=1, status="ok", duration_ns=1)
    LedgerFile(path, SystemClock()).append([event])
    os._exit(0)
said = {"none": told(lambda: LedgerFile(path, SystemClock()).close())}
path.chmod(0o400)
said["file"] = told(lambda: LedgerFile(path, SystemClock()))
path.chmod(0o600)
path.parent.chmod(0o500)
said["folder"] = told(lambda: LedgerFile(path.with_name("other.db"), SystemClock()))
said["reading"] = told(read)
path.parent.chmod(0o700)
if (child := os.fork()) == 0:
    leave_a_log()
assert os.waitpid(child, 0)[1] == 0
path.parent.chmod(0o500)
said["log"] = told(read)
path.parent.chmod(0o700)
path.with_name(path.name + "-shm").unlink()
path.parent.chmod(0o500)
said["log alone"] = told(read)
path.parent.chmod(0o700)
said["again"] = told(read)
print(json.dumps(said))
"""


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """One that other users get to, too."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        inner = Path(folder) / "ledgers"
        inner.mkdir()
        if os.geteuid() == 0:
            os.chown(inner, 65534, 65534)
        yield inner


def test_where_this_user_may_not_write(shared_folder: Path) -> None:
    said = json.loads(output_of([*python(_AS_NOBODY), shared_folder / "runs.db"]))
    assert said["none"] == "None"
    assert "may not be written by this user: change their permissions" in said["file"]
    assert "may not be written by this user: change their permissions" in said["folder"]
    assert said["reading"] == "0", "a folder that is only read has ledgers that can be"
    assert said["log"] == said["again"] == "1", "with the log of a process that was killed, too"
    assert "see to its folder" in said["log alone"], "the log is never left out"


# Versions.


def test_a_newer_version_brings_a_file_to_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.db"
    with closing(open_file(path)) as store:
        store.append(whole_run(1))
    old = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", (*old, "CREATE TABLE more (id INTEGER) STRICT;\n", "CREATE nonsense"))
    with pytest.raises(LedgerError, match="has version 1, this Runmeter reads 3: an engine that writes to it, once"):
        LedgerReader(path)
    with pytest.raises(LedgerError, match="nonsense"):
        open_file(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,), "all of it, or nothing"
        assert not connection.execute("SELECT * FROM sqlite_master WHERE name = 'more'").fetchall()
    monkeypatch.setattr(schema, "MIGRATIONS", (*old, "CREATE TABLE more (id INTEGER) STRICT;\n"))
    with closing(open_file(path)) as store:
        store.append(whole_run(2))
        assert store.connection.execute("SELECT count(*) FROM more").fetchone() == (0,)
    with LedgerReader(path) as reader:
        assert len(reader.runs()) == 2
    monkeypatch.setattr(schema, "MIGRATIONS", old)
    for opens in (open_file, LedgerReader):
        with pytest.raises(LedgerError, match="has version 2, this Runmeter knows 1: upgrade Runmeter"):
            opens(path)


# Several processes.

_WRITER = """
import sys, anyio
from runmeter.engine import Engine, SQLiteLedger
async def nothing(messages, context): pass
async def main():
    sys.stdin.readline()
    async with Engine(ledger=SQLiteLedger(sys.argv[1], commit="run")) as engine:
        for _ in range(5):
            assert (await engine.run(nothing, "")).durable
anyio.run(main)
"""


def test_several_processes_make_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    command = [*python(_WRITER), path]
    with (
        started(command, stdin=-1) as one,
        started(command, stdin=-1) as two,
        started(command, stdin=-1) as three,
    ):
        for each in (one, two, three):
            assert each.stdin is not None
            print(file=each.stdin, flush=True)
        for each in (one, two, three):
            assert each.wait() == 0, each.stderr
    with LedgerReader(path) as reader:
        assert len(reader.runs(status=None)) == 15
        assert not reader.unended_runs()


def test_a_second_connection_takes_no_lock_from_the_first(tmp_path: Path) -> None:
    """Else another process that ends would take itself for the last, and remove the log that this one writes."""
    path = tmp_path / "runs.db"
    first = open_file(path)
    second = open_file(path)
    with LedgerReader(path) as reader:
        assert not reader.runs()
    log = path.with_name("runs.db-wal")
    first.append(whole_run(1))
    same = log.stat().st_ino
    output_of([*python(_WRITER), path])
    assert log.stat().st_ino == same
    first.append(whole_run(2))
    second.close()
    first.close()
    with LedgerReader(path) as reader:
        assert len(reader.runs()) == 7


def test_a_lock_that_was_given_up_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    one, other, third = FileLock(path), FileLock(path, 0), FileLock(path)
    with one.held(), pytest.raises(TimeoutError), other.held():
        pass
    with third.held(), pytest.raises(TimeoutError), other.held():  # not held by the thread that waited in vain
        pass
    path.unlink()
    with one.held():
        assert path.exists(), "what holds a file that was removed keeps nobody out"
        with pytest.raises(TimeoutError), other.held():
            pass
    other._patience = 60
    with other.held():
        pass
    for lock in (one, other, third):
        lock.close()


_FORKING = """
import os, sys, warnings
import anyio
from runmeter.engine import Engine, LedgerError, LedgerReader, SQLiteLedger
warnings.simplefilter("ignore", DeprecationWarning)
path = sys.argv[1]
async def nothing(messages, context): pass
def opening():
    try:
        LedgerReader(path)
    except LedgerError as error:
        return "was open when this process was forked" in str(error)
async def main():
    ledger = SQLiteLedger(path, commit="run")
    async with Engine(ledger=ledger) as engine:
        await engine.run(nothing, "")
        if (child := os.fork()) == 0:
            told = []
            ledger.put(())
            ledger.sync(told.append)
            ledger.when_ready(lambda: told.append("ready"))
            os._exit(0 if told == [True, "ready"] and not ledger.is_ready and opening() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert (await engine.run(nothing, "")).durable
    assert ledger.statistics().pending == 0
def in_a_child():
    if (child := os.fork()) == 0:
        anyio.run(main)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
in_a_child()  # before it is open: as uvicorn's workers
anyio.run(main)
with LedgerReader(path) as reader:
    assert len(reader.runs()) == 4
kept = reader
in_a_child()  # and once it is closed
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_processes(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    output_of([*python(_FORKING), path])
    with LedgerReader(path) as reader:
        assert len(reader.runs(status=None)) == 6
        assert not reader.unended_runs()


_INTERRUPTED = """
import sys, anyio
from runmeter.engine import Engine, ModelRequest, SQLiteLedger, current_execution
from runmeter.engine.ledger.recording import Recording
def interrupted(recording):
    raise KeyboardInterrupt
Recording.on_disk_now = interrupted
async def ask(messages, context):
    with current_execution().model_call(ModelRequest(provider="openai", model="gpt-6-luna")):
        print("left")
async def main():
    async with Engine(ledger=SQLiteLedger(sys.argv[1], commit="request")) as engine:
        await engine.run(ask, "")
try:
    anyio.run(main, backend=sys.argv[2])
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ctrl_c_while_a_request_waits_to_leave(tmp_path: Path, backend: str) -> None:
    """Raised where the thread waits: a real signal may come just before it blocks, and is then heard when it wakes."""
    path = tmp_path / "runs.db"
    assert output_of([*python(_INTERRUPTED), path, backend]) == "interrupted\n"
    with LedgerReader(path) as reader:
        [run] = reader.runs()
        assert run.status == "cancelled"
        assert not reader.unended_requests()


async def test_a_process_may_change_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    ledger = SQLiteLedger("runs.db", commit="run")
    monkeypatch.chdir("elsewhere")
    async with Engine(ledger=ledger) as engine:
        assert (await engine.run(asking, "before")).durable
        monkeypatch.chdir("/")
        assert (await engine.run(asking, "after")).durable
        assert ledger.usage().total.executions == 2
    with LedgerReader(tmp_path / "runs.db") as reader:
        assert len(reader.runs()) == 2


@pytest.mark.parametrize("path", ["", ".", "a\0b"])
def test_a_path_without_a_name_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="names no file: give one such as"):
        SQLiteLedger(path)
