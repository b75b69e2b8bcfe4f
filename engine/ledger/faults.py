"""What SQLite and the system say of a ledger's file, in one sentence: the file, the cause and the way out."""

import errno
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from ..errors import LedgerError

_FULL = "its disk is full: make room there"
_FORBIDDEN = "the file, one beside it or their folder may not be written by this user: change their permissions"
_LOCKED = "another program has held it locked for seconds: end that program, or its transaction"
_DAMAGED = (
    "the file is damaged: move it away together with those ending in -wal and -shm;"
    ' what is left of it can be read by `sqlite3 FILE ".recover"`'
)

_CAUSES: Mapping[int, str] = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: _FORBIDDEN,
    sqlite3.SQLITE_PERM: _FORBIDDEN,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_CANTOPEN: "the file, or one beside it, is not there or may not be opened: see to its folder",
    sqlite3.SQLITE_IOERR: "its disk failed: see that it is in order, mounted and not full",
}
_SYSTEM_CAUSES: Mapping[int, str] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "this user's share of its disk is used up: make room there",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.ETIMEDOUT: _LOCKED,
    errno.ENOENT: "its folder is not there: make it",
    errno.EISDIR: "it is a folder: give the path of a file",
}

NOT_A_LEDGER = "{} is not a ledger of Runmeter's: give another path, or move that file away"
OF_AN_EVENT = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""Errors of SQLite's that a value has caused, and not the file."""


def ledger_error(path: Path, error: sqlite3.Error | OSError, doing: str = "written") -> LedgerError:
    """Make the error that says what is wrong with a ledger's file, and what to do.

    Args:
        path: The file.
        error: The error that SQLite or the system has raised.
        doing: What could not be done: `opened`, `read` or `written`.
    """
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest is detail
        if code == sqlite3.SQLITE_NOTADB:
            return LedgerError(NOT_A_LEDGER.format(path))
        cause = _CAUSES.get(code)
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    else:
        cause = _SYSTEM_CAUSES.get(error.errno or 0)
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    detail = f"({error}; {name})" if isinstance(error, sqlite3.Error) else f"({name})"
    return LedgerError(f"the ledger {path} cannot be {doing}: {cause or error} {detail}")
