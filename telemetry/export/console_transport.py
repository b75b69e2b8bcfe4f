"""A transport that writes requests to the standard output."""

from typing import TextIO

from .verdict import Taken, Verdict


class ConsoleTransport:
    """Writes requests to a text stream.

    Args:
        out: Where to.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def send(self, body: bytes, timeout: float) -> Verdict:
        """Write a request as text."""
        self._out.write(body.decode())
        self._out.flush()
        return Taken()

    def close(self) -> None:
        """Leave what was written to open."""
