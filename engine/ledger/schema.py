"""The ledger's schema in SQLite: its tables, its versions, and how a file is opened for writing or reading."""

import errno
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from ..errors import LedgerError
from .connection import LedgerConnection, refuse_inherited
from .faults import NOT_A_LEDGER, ledger_error

APPLICATION_ID = 0x524D_4C47
"""Marks a SQLite file as a ledger (`RMLG`), in its header."""
BUSY_TIMEOUT = 5.0
"""Seconds that a transaction waits for another program's."""
CACHE_KIB = 16_384
"""Memory for pages of the file, in KiB a connection."""
CHUNK = 500
"""Values bound to one statement, at most."""

MIGRATIONS: Sequence[str] = (
    """
    CREATE TABLE writers (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pid INTEGER NOT NULL,
        host TEXT NOT NULL,
        born TEXT,
        started_ns INTEGER NOT NULL,
        seen_ns INTEGER NOT NULL,
        ended_ns INTEGER
    ) STRICT;

    CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL UNIQUE,
        writer INTEGER NOT NULL,
        pattern TEXT,
        framework TEXT,
        root_run_id TEXT,
        parent_run_id TEXT,
        conversation_id TEXT,
        trace_id TEXT,
        tags TEXT NOT NULL DEFAULT '{}',
        start_ns INTEGER NOT NULL,
        duration_ns INTEGER,
        status TEXT,
        error_type TEXT,
        cost_low REAL NOT NULL DEFAULT 0,
        cost_high REAL DEFAULT 0
    ) STRICT;
    CREATE INDEX runs_by_start ON runs (start_ns);
    CREATE INDEX runs_by_root ON runs (root_run_id);
    CREATE INDEX runs_under_way ON runs (writer) WHERE status IS NULL;

    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        time_ns INTEGER NOT NULL,
        kind TEXT NOT NULL,
        data TEXT NOT NULL,
        UNIQUE (run, seq)
    ) STRICT;

    CREATE TABLE open_requests (
        run INTEGER NOT NULL,
        call_id INTEGER NOT NULL,
        PRIMARY KEY (run, call_id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE days (
        day INTEGER NOT NULL,
        pattern TEXT NOT NULL,
        framework TEXT NOT NULL,
        model TEXT NOT NULL,
        tags TEXT NOT NULL,
        row TEXT NOT NULL,
        inclusive TEXT NOT NULL,
        outermost TEXT NOT NULL,
        PRIMARY KEY (day, pattern, framework, model, tags)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE budgets (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        terms TEXT NOT NULL UNIQUE,
        used_ns INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE budget_spending (
        budget INTEGER NOT NULL,
        scope TEXT NOT NULL,
        start_ns INTEGER NOT NULL,
        expires_ns INTEGER NOT NULL,
        usd TEXT NOT NULL,
        tokens TEXT NOT NULL,
        calls TEXT NOT NULL,
        PRIMARY KEY (budget, scope, start_ns)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX budget_spending_by_end ON budget_spending (expires_ns);

    CREATE TABLE shared_budgets (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE
    ) STRICT;

    CREATE TABLE shared_accounts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        budget INTEGER NOT NULL,
        scope TEXT NOT NULL,
        round INTEGER NOT NULL DEFAULT 0,
        recalled_ns INTEGER NOT NULL DEFAULT 0,
        UNIQUE (budget, scope)
    ) STRICT;

    CREATE TABLE shared_spending (
        account INTEGER NOT NULL,
        start_ns INTEGER NOT NULL,
        expires_ns INTEGER NOT NULL,
        spent TEXT NOT NULL,
        PRIMARY KEY (account, start_ns)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE leases (
        account INTEGER NOT NULL,
        writer INTEGER NOT NULL,
        room TEXT NOT NULL,
        until_ns INTEGER NOT NULL,
        expires_ns INTEGER NOT NULL,
        seen INTEGER NOT NULL,
        PRIMARY KEY (account, writer)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX leases_by_writer ON leases (writer);

    CREATE TABLE lease_holds (
        account INTEGER NOT NULL,
        writer INTEGER NOT NULL,
        start_ns INTEGER NOT NULL,
        expires_ns INTEGER NOT NULL,
        reserved TEXT NOT NULL,
        PRIMARY KEY (account, writer, start_ns)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE progress (
        name TEXT PRIMARY KEY,
        through INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO progress VALUES ('days', 0);

    CREATE VIEW run_list AS SELECT
        run_id, root_run_id, parent_run_id, pattern, framework, conversation_id, trace_id, tags,
        strftime('%Y-%m-%dT%H:%M:%fZ', start_ns / 1e9, 'unixepoch') AS started,
        duration_ns, status, error_type, cost_low, cost_high
        FROM runs;

    CREATE VIEW request_list AS SELECT
        runs.run_id, runs.pattern, runs.framework, runs.tags,
        date(json_extract(data, '$.start_ns') / 1000000000, 'unixepoch') AS day,
        json_extract(data, '$.call_id') AS call_id,
        json_extract(data, '$.attempt') AS attempt,
        json_extract(data, '$.provider') AS provider,
        json_extract(data, '$.operation') AS operation,
        json_extract(data, '$.model') AS model,
        json_extract(data, '$.response_model') AS response_model,
        json_extract(data, '$.response_id') AS response_id,
        json_extract(data, '$.service_tier') AS service_tier,
        json_extract(data, '$.provenance') AS provenance,
        CASE WHEN json_type(data, '$.usage') = 'object'
            THEN coalesce(json_extract(data, '$.usage.input_tokens'), 0) END AS input_tokens,
        CASE WHEN json_type(data, '$.usage') = 'object'
            THEN coalesce(json_extract(data, '$.usage.cache_read_tokens'), 0) END AS cache_read_tokens,
        CASE WHEN json_type(data, '$.usage') = 'object'
            THEN coalesce(json_extract(data, '$.usage.output_tokens'), 0) END AS output_tokens,
        CASE WHEN json_type(data, '$.usage') = 'object'
            THEN coalesce(json_extract(data, '$.usage.reasoning_tokens'), 0) END AS reasoning_tokens,
        json_extract(data, '$.start_ns') AS start_ns,
        json_extract(data, '$.duration_ns') AS duration_ns,
        json_extract(data, '$.error_type') AS error_type
        FROM events JOIN runs ON runs.id = events.run WHERE kind = 'token_usage';

    CREATE VIEW day_list AS SELECT
        date(day * 86400, 'unixepoch') AS day, pattern, framework, nullif(model, '') AS model, tags,
        coalesce(json_extract(row, '$.executions'), 0) AS executions,
        coalesce(json_extract(row, '$.by_status.ok'), 0) AS ok,
        (SELECT coalesce(sum(value), 0) FROM json_each(row, '$.requests_by_provenance')) AS requests,
        (SELECT coalesce(sum(json_extract(value, '$.input_tokens')), 0)
            FROM json_each(row, '$.usage_by_provenance')) AS input_tokens,
        (SELECT coalesce(sum(json_extract(value, '$.output_tokens')), 0)
            FROM json_each(row, '$.usage_by_provenance')) AS output_tokens,
        coalesce(json_extract(row, '$.cost.low'), '0') AS cost_low,
        CASE WHEN json_type(row, '$.cost.high') = 'null' THEN NULL
            ELSE coalesce(json_extract(row, '$.cost.high'), '0') END AS cost_high,
        coalesce(json_extract(row, '$.cost.unpriced'), 0) AS unpriced
        FROM days;
    """,
)
"""The statements by which each version follows from the one before. Only ever added to."""


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open a ledger, which only this user may read; make it, or bring it to this version.

    Raises:
        LedgerError: it cannot be opened or written, is not a ledger, or is a newer version's.
    """
    refuse_inherited(path)
    try:
        _make(path)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, factory=LedgerConnection
        )
    except (OSError, sqlite3.Error) as error:
        raise ledger_error(path, error, "opened") from error
    try:
        connection.note(path)
        _check_kind(connection, path)
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded by a new file alone
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise LedgerError(f"the ledger {path} cannot be kept with a write-ahead log: its file system lacks one")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA secure_delete = ON")
        _migrate(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise ledger_error(path, error) from error
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open a ledger so that nothing of it can be changed. What it executes raises LedgerError, too.

    Raises:
        LedgerError: there is none, it cannot be read, or it is another version's.
    """
    if not path.is_file():
        raise LedgerError(f"there is no ledger at {path}")
    refuse_inherited(path)
    try:
        return _reading(path, "mode=ro")
    except LedgerError:
        # Reading makes a file of shared memory beside it, which a folder may not allow. Where there is no log, nobody
        # writes: then the file alone is all of it.
        log = path.with_name(path.name + "-wal")
        if os.access(path.parent, os.W_OK) or (log.exists() and log.stat().st_size):
            raise
        return _reading(path, "mode=ro&immutable=1")


def _reading(path: Path, how: str) -> LedgerConnection:
    connection: LedgerConnection | None = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{how}",
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            uri=True,
            check_same_thread=False,
            factory=LedgerConnection,
        )
        connection.note(path)
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        version = _check_kind(connection, path)
        connection.reads = path
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise ledger_error(path, error, "read") from error
        raise
    if version == 0:
        connection.close()
        raise LedgerError(NOT_A_LEDGER.format(path))
    if version < len(MIGRATIONS):
        connection.close()
        raise LedgerError(
            f"the ledger {path} has version {version}, this Runmeter reads {len(MIGRATIONS)}:"
            " an engine that writes to it, once, brings it there"
        )
    return connection


def marks(values: Sequence[object]) -> str:
    """Write the question marks that stand for values in a statement."""
    return ",".join("?" * len(values))


def _make(path: Path) -> None:
    """Make the file, for this user alone, and so its log. One that is there is not opened, not even to look.

    Closing a file drops all locks that this process has on it, those of another connection as well (SQLite, "How To
    Corrupt An SQLite Database File", 2.2).
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        if not os.access(path, os.W_OK):  # SQLite would go on, and leave files beside it that nobody may write
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _check_kind(connection: sqlite3.Connection, path: Path) -> int:
    """Tell a ledger's version, 0 of a new file; refuse what is none, and what only a newer version understands."""
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if empty and version == 0:
        return 0
    if mark != APPLICATION_ID:
        raise LedgerError(NOT_A_LEDGER.format(path))
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"the ledger {path} has version {version}, this Runmeter knows {len(MIGRATIONS)}: upgrade Runmeter"
        )
    return int(version)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to this version, in one transaction, however many processes start at once."""
    if _check_kind(connection, path) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(_check_kind(connection, path), len(MIGRATIONS)):
            for statement in MIGRATIONS[version].split(";\n"):
                if statement.strip():
                    connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
