"""Connections to a ledger: their errors in a reader's words, and what a forked process must not open."""

import os
import sqlite3
from pathlib import Path
from typing import Any
from weakref import WeakSet

from ..errors import LedgerError
from .faults import ledger_error


class LedgerConnection(sqlite3.Connection):
    """A connection to a ledger, which knows the file that it has opened."""

    file: tuple[int, int] | None = None
    reads: Path | None = None
    """The ledger, where it is only read: then its errors are in a reader's words."""

    def note(self, path: Path) -> None:
        """Note which file it has opened."""
        stat = path.stat()
        self.file = stat.st_dev, stat.st_ino
        _connections.add(self)

    def close(self) -> None:
        """Close it: a process that is forked from now on inherits nothing of it."""
        super().close()
        _connections.discard(self)

    def cursor(self, factory: Any = None) -> Any:
        """Make a cursor."""
        cursor = super().cursor(factory or _Cursor)
        cursor.reads = self.reads
        return cursor


class _Cursor(sqlite3.Cursor):
    reads: Path | None = None

    def execute(self, *arguments: Any) -> Any:
        try:
            return super().execute(*arguments)
        except sqlite3.Error as error:
            raise self._put(error) from error

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except sqlite3.Error as error:
            raise self._put(error) from error

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except sqlite3.Error as error:
            raise self._put(error) from error

    def _put(self, error: sqlite3.Error) -> Exception:
        return error if self.reads is None else ledger_error(self.reads, error, "read")


_connections: WeakSet[LedgerConnection] = WeakSet()
_inherited: set[tuple[int, int]] = set()
"""Files that were open in the process that this one was forked from."""


def _inherit() -> None:
    _inherited.update(connection.file for connection in _connections if connection.file is not None)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_inherit)


def refuse_inherited(path: Path) -> None:
    """Refuse a file that was open when this process was forked: SQLite believes to hold the locks of its parent."""
    if not _inherited or not path.exists():
        return
    stat = path.stat()
    if (stat.st_dev, stat.st_ino) in _inherited:
        raise LedgerError(
            f"the ledger {path} was open when this process was forked, and SQLite's locks do not survive that:"
            " fork first and open it then, or start processes by spawn"
        )
