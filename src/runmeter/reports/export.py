"""Export of a ledger: as JSON Lines, in the form of an event log, or as Parquet."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runmeter.engine import LedgerReader

BATCH = 1_000
"""Events that are written at once."""


def export_lines(ledger: LedgerReader, file: BinaryIO, progress: Callable[[int], None] = lambda _: None) -> int:
    """Write all events as JSON Lines, in the order in which they were written to the ledger.

    Args:
        ledger: The ledger.
        file: Where to write.
        progress: Told now and then how many events were written since the last time.

    Returns:
        How many events there are.

    Raises:
        OSError: they cannot be written.
    """
    count, lines = 0, list[str]()

    def write() -> None:
        file.write("".join(lines).encode())
        progress(len(lines))
        lines.clear()

    for line in ledger.lines():
        lines.append(line + "\n")
        count += 1
        if len(lines) == BATCH:
            write()
    write()
    return count


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """Give a path to write a file at, which takes its place once it is whole; else none is left.

    Args:
        path: The file's place. A file that is there is replaced.

    Raises:
        OSError: the file cannot be made or moved there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # readable as the ledger is
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
