"""The ledger's file as its writer sees it: groups of events, each in one transaction, and each event once."""

import os
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ..clock import Clock
from ..codec import JSON
from ..errors import LedgerError
from ..events import (
    Event,
    ExecutionFinished,
    ExecutionStarted,
    ModelCallStarted,
    RunReported,
    TokenUsage,
    UnknownEvent,
)
from .faults import OF_AN_EVENT, ledger_error
from .file_lock import FileLock
from .processes import birth_of
from .schema import BUSY_TIMEOUT, CHUNK, open_for_writing

CHECKPOINT_BYTES = 16 * 2**20
"""Size of the write-ahead log at which it is copied into the file."""
KNOWN_RUNS = 10_000
"""Runs whose number in the file is remembered."""

_ADD_RUN = """
    INSERT INTO runs (run_id, writer, start_ns) VALUES (?, ?, ?) ON CONFLICT (run_id) DO NOTHING"""
_START_RUN = """
    INSERT INTO runs (run_id, writer, start_ns, pattern, framework, root_run_id, parent_run_id, conversation_id,
        trace_id, tags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (run_id) DO UPDATE SET start_ns = excluded.start_ns, pattern = excluded.pattern,
        framework = excluded.framework, root_run_id = excluded.root_run_id, parent_run_id = excluded.parent_run_id,
        conversation_id = excluded.conversation_id, trace_id = excluded.trace_id, tags = excluded.tags
    WHERE pattern IS NULL"""
_END_RUN = """
    UPDATE runs SET status = ?, duration_ns = ?, error_type = ? WHERE id = ? AND status IS NULL"""
_ADD_EVENT = """
    INSERT INTO events (run, seq, time_ns, kind, data) VALUES (?, ?, ?, ?, ?) ON CONFLICT (run, seq) DO NOTHING"""
_OPEN_REQUEST = """
    INSERT INTO open_requests (run, call_id) VALUES (?, ?) ON CONFLICT (run, call_id) DO NOTHING"""
_CLOSE_REQUEST = "DELETE FROM open_requests WHERE run = ? AND call_id = ?"
_SETTLE_REQUESTS = """
    DELETE FROM open_requests WHERE EXISTS (SELECT 1 FROM events WHERE events.run = open_requests.run
        AND events.kind = 'token_usage' AND json_extract(events.data, '$.call_id') = open_requests.call_id)"""

encode_tags = msgspec.json.Encoder(order="sorted").encode


class LedgerFile:
    """A ledger's file, open for writing. Used by one thread at a time.

    Args:
        path: The file. It is made if there is none.
        clock: Tells when this process was last seen to write.

    Raises:
        LedgerError: the file cannot be opened or written, is not a ledger, or is a newer version's.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._lock = FileLock(path.with_name(path.name + "-lock"))
        self._runs: dict[str, int] = {}
        self._checkpoint_at = CHECKPOINT_BYTES
        try:
            with self._lock.held():
                self.connection = open_for_writing(path)
        except OSError as error:
            raise ledger_error(path, error, "opened") from error
        try:
            self._file = _identity(path)
            with self.transaction():
                self.writer = self._enlist()
        except BaseException:
            self.connection.close()
            self._lock.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Change the file: all that the block does, on disk when it ends, or nothing.

        Raises:
            LedgerError: nothing was changed.
            sqlite3.Error: a value has no form in the ledger, and nothing was changed.
        """
        connection = self.connection
        try:
            with self._lock.held():
                self._check_place()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    # SQLite has rolled back by itself when the disk is full, and has not at other errors.
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except OF_AN_EVENT:
            raise
        except (sqlite3.Error, OSError) as error:
            raise ledger_error(self.path, error) from error

    def append(self, events: Sequence[Event]) -> int:
        """Add a group of events. Those that are there already are not added again.

        Returns:
            How many were added.

        Raises:
            LedgerError: none was added.
        """
        with self.transaction() as connection:
            runs = self._add_runs(connection, events)
            added = connection.executemany(
                _ADD_EVENT,
                [
                    (runs[each.run_id], each.seq, each.time_ns, _kind(each), JSON.encode(each).decode())
                    for each in events
                ],
            ).rowcount
            self._track_requests(connection, runs, events)
            connection.executemany(
                _END_RUN,
                [
                    (each.status, each.duration_ns, getattr(each, "error_type", None), runs[each.run_id])
                    for each in events
                    if isinstance(each, ExecutionFinished | RunReported)
                ],
            )
            connection.execute(
                "UPDATE writers SET seen_ns = max(seen_ns, ?) WHERE id = ?", (self._clock.time_ns(), self.writer)
            )
        self._remember(runs, events)
        return added

    def settle_requests(self) -> None:
        """Take from the account of requests under way those whose end is in the ledger: it may have come before.

        Raises:
            LedgerError: nothing was changed.
        """
        with self.transaction() as connection:
            connection.execute(_SETTLE_REQUESTS)

    def checkpoint(self) -> None:
        """Copy the write-ahead log into the file and empty it, once it is long."""
        log = self.path.with_name(self.path.name + "-wal")
        try:
            if log.stat().st_size < self._checkpoint_at:
                return
            self.empty_log()
            # One that somebody still reads cannot be emptied: the next try comes when it has grown as much again.
            self._checkpoint_at = log.stat().st_size + CHECKPOINT_BYTES
        except (sqlite3.Error, OSError):
            pass  # the log keeps all of it, and the next commit tells what is wrong

    def close(self) -> None:
        """Say that this process writes no more, and close the file.

        Raises:
            LedgerError: it could not be said, or the log not be copied into the file: it stays beside it.
        """
        try:
            with self.transaction() as connection:
                connection.execute("UPDATE writers SET ended_ns = ? WHERE id = ?", (self._clock.time_ns(), self.writer))
            with self._lock.held():
                self._empty_log()
                self.connection.close()  # the last one removes the log, which is a checkpoint too
        except (sqlite3.Error, OSError) as error:
            raise ledger_error(self.path, error) from error
        finally:
            self.connection.close()
            self._lock.close()

    def empty_log(self) -> bool:
        """Copy the write-ahead log into the file, as far as no reader needs it, and empty it if that was all.

        Returns:
            Whether it is empty.

        Raises:
            OSError: another process holds the lock.
            sqlite3.Error: the file cannot be written.
        """
        with self._lock.held():
            return self._empty_log()

    def _empty_log(self) -> bool:
        self.connection.execute("PRAGMA busy_timeout = 0")
        try:
            [(busy, _, _)] = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return not busy
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")

    def _remember(self, runs: dict[str, int], events: Sequence[Event]) -> None:
        """Remember the numbers of the runs that go on: those that have ended may be deleted, by any process."""
        for each in events:
            if isinstance(each, ExecutionFinished | RunReported):
                runs.pop(each.run_id, None)
        self._runs = runs if len(runs) <= KNOWN_RUNS else dict(list(runs.items())[-KNOWN_RUNS // 2 :])

    def _enlist(self) -> int:
        now = self._clock.time_ns()
        cursor = self.connection.execute(
            "INSERT INTO writers (pid, host, born, started_ns, seen_ns) VALUES (?, ?, ?, ?, ?)",
            (os.getpid(), socket.gethostname(), birth_of(os.getpid()), now, now),
        )
        assert cursor.lastrowid is not None  # noqa: S101 - a row was inserted
        return cursor.lastrowid

    def _check_place(self) -> None:
        """See that the path still leads to this file: SQLite itself would go on writing to one that was moved away."""
        if _identity(self.path) == self._file:
            return
        # What was acknowledged lies in the log of the old path: the moved file takes it along.
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        raise LedgerError(f"the ledger {self.path} was moved, removed or replaced while in use: put it back")

    def _add_runs(self, connection: sqlite3.Connection, events: Sequence[Event]) -> dict[str, int]:
        """Add the runs that begin in a group, and find the numbers of all of its runs.

        Returns:
            The numbers of these runs and of earlier ones, by run id.
        """
        starts = [_run_row(each, self.writer) for each in events if isinstance(each, ExecutionStarted | RunReported)]
        connection.executemany(_START_RUN, starts)
        runs = dict(self._runs)
        missing = [run_id for run_id in {each.run_id: None for each in events} if run_id not in runs]
        _find_runs(connection, missing, runs)
        strangers = {each.run_id: each.time_ns for each in reversed(events) if each.run_id not in runs}
        if strangers:  # their start was not handed over, or comes later
            rows = [(run_id, self.writer, time_ns) for run_id, time_ns in strangers.items()]
            connection.executemany(_ADD_RUN, rows)
            _find_runs(connection, list(strangers), runs)
        return runs

    def _track_requests(self, connection: sqlite3.Connection, runs: dict[str, int], events: Sequence[Event]) -> None:
        """Keep account of the requests that have left and not ended."""
        opened = {(runs[each.run_id], each.call_id): None for each in events if type(each) is ModelCallStarted}
        ended: list[tuple[int, int]] = []
        for each in events:
            if type(each) is TokenUsage:
                key = (runs[each.run_id], each.call_id)
                if key in opened:
                    del opened[key]
                else:
                    ended.append(key)
        connection.executemany(_OPEN_REQUEST, opened)
        connection.executemany(_CLOSE_REQUEST, ended)


def _kind(event: Event) -> str:
    return event.kind if type(event) is UnknownEvent else str(type(event).__struct_config__.tag)


def _run_row(event: ExecutionStarted | RunReported, writer: int) -> tuple[Any, ...]:
    if isinstance(event, RunReported):
        start_ns = event.time_ns - (event.duration_ns or 0)
        return (event.run_id, writer, start_ns, event.pattern, event.framework, event.run_id, None, None, None, "{}")
    return (
        event.run_id,
        writer,
        event.time_ns,
        event.pattern,
        event.framework,
        event.root_run_id,
        event.parent_run_id,
        event.conversation_id,
        event.trace_id,
        encode_tags(event.tags).decode(),
    )


def _find_runs(connection: sqlite3.Connection, run_ids: Sequence[str], found: dict[str, int]) -> None:
    for start in range(0, len(run_ids), CHUNK):
        some = run_ids[start : start + CHUNK]
        marks = ",".join("?" * len(some))
        found.update(connection.execute(f"SELECT run_id, id FROM runs WHERE run_id IN ({marks})", some))  # noqa: S608 - marks


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
