"""A lock between the processes of one host, in a file of its own. It ends with its process, however that ends.

SQLite locks for itself; but before 3.51.3 a race between a commit and a checkpoint in another process can damage a file
with a write-ahead log (SQLite, "WAL-reset bug", release notes of 3.51.3). Under this lock the two never meet.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class FileLock:
    """An exclusive lock.

    Args:
        path: The lock's file. It is made, and stays: removing one that another process waits for would make two locks.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, waiting for it if another process does."""
        if sys.platform == "win32":
            yield  # SQLite's own locks alone: its bug needs several processes and bad luck
            return
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock's file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
