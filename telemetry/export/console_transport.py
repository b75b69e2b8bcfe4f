"""Requests to the standard output."""

from typing import TextIO

from .verdict import Taken, Verdict


class ConsoleTransport:
    """Writes what it is to send.

    Args:
        out: Where to.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def send(self, body: bytes, timeout: float) -> Verdict:
        """Write."""
        self._out.write(body.decode())
        self._out.flush()
        return Taken()

    def close(self) -> None:
        """Leave what was written to open."""
