"""A lock between the processes of one host, in a file of its own. It ends with its process, however that ends.

SQLite locks for itself; but before 3.51.3 a race between a commit and a checkpoint in another process can damage a file
with a write-ahead log (SQLite, "WAL-reset bug", release notes of 3.51.3). Under this lock the two never meet.
"""

import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakSet

if sys.platform != "win32":
    import fcntl

PATIENCE = 5.0
"""Seconds to wait for another process's commit."""


class FileLock:
    """An exclusive lock. Used by one thread at a time.

    Args:
        path: The lock's file. It is made, and stays.
        patience: Seconds to wait for it.
    """

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience
        self._descriptor = -1
        self._wait: _Wait | None = None
        _locks.add(self)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, waiting for it if another process does.

        Raises:
            OSError: the file cannot be made, or another process does not let go of the lock.
        """
        if sys.platform == "win32":
            yield  # SQLite's own locks alone: its bug needs several processes and bad luck
            return
        self._take()
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock's file, and so let go of it."""
        descriptor, self._descriptor = self._descriptor, -1
        wait, self._wait = self._wait, None
        if descriptor >= 0 and not (wait and wait.inherits()):
            os.close(descriptor)

    if sys.platform != "win32":

        def _take(self) -> None:
            while True:
                if self._descriptor < 0:
                    self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                wait = self._wait if self._wait is not None and self._wait.goes_on() else None
                self._wait = None
                if wait is not None or not self._is_taken_at_once():
                    self._await(wait or _Wait(self._descriptor))
                if self._is_in_place():
                    return
                self.close()  # another has removed the file: what holds this one keeps nobody out

        def _is_taken_at_once(self) -> bool:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        def _await(self, wait: "_Wait") -> None:
            if not wait.succeeds(self._patience):
                self._wait = wait
                raise TimeoutError(errno.ETIMEDOUT, "another process has held its lock", str(self._path))

        def _is_in_place(self) -> bool:
            try:
                return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
            except FileNotFoundError:
                return False


if sys.platform != "win32":

    class _Wait:
        """A thread that waits for a lock, as the call that does knows no limit."""

        def __init__(self, descriptor: int) -> None:
            self._descriptor = descriptor
            self._changed = threading.Condition()
            self._taken = self._inherited = False
            self._wanted = True
            threading.Thread(target=self._work, name="runmeter ledger lock", daemon=True).start()

        def goes_on(self) -> bool:
            """Want the lock again, unless it was taken meanwhile, and let go of."""
            with self._changed:
                self._wanted = not self._taken
                return self._wanted

        def succeeds(self, limit: float) -> bool:
            """Wait until the lock is held. Where that takes too long the thread goes on, and lets go of it at once."""
            with self._changed:
                self._wanted = self._changed.wait_for(lambda: self._taken, limit)
                return self._wanted

        def inherits(self) -> bool:
            """Leave the descriptor to the thread, if that still waits."""
            with self._changed:
                self._inherited = not self._taken
                return self._inherited

        def _work(self) -> None:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            with self._changed:
                self._taken = True
                if self._inherited:
                    os.close(self._descriptor)
                elif not self._wanted:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                self._changed.notify()


_locks: WeakSet[FileLock] = WeakSet()


def _forget_locks() -> None:
    """Close what a forked process has inherited: it would hold its parent's lock beyond that one's end."""
    for lock in _locks:
        descriptor, lock._descriptor, lock._wait = lock._descriptor, -1, None  # noqa: SLF001 - of this module
        if descriptor >= 0:
            os.close(descriptor)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_forget_locks)
