"""The faults that wait for their requests, and those that a request's header asks for."""

import threading
from collections.abc import Iterable

import msgspec

from .errors import ApiError
from .faults import HEADER, Fault


class Faults:
    """The faults waiting for their requests, oldest first. Safe from any thread."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._waiting = [_Waiting(fault, fault.times) for fault in faults]
        self._lock = threading.Lock()

    def add(self, faults: Iterable[Fault]) -> None:
        """Append faults to those that are waiting."""
        with self._lock:
            self._waiting += [_Waiting(fault, fault.times) for fault in faults]

    def clear(self) -> None:
        """Forget the faults that are waiting."""
        with self._lock:
            self._waiting = []

    def take(
        self, endpoint: str, *, stream: bool, conversation: bool, header: str | None
    ) -> tuple[Fault | None, Fault | None]:
        """Take the latency and the other fault that hit a request: the first waiting of each, or the header's.

        Raises:
            ApiError: 400: the header is not understood, or makes no sense here.
        """
        if header:
            fault = parse_header(header)
            if not fault.hits(endpoint, stream=stream, conversation=conversation):
                message = f"X-Simulate: '{fault.kind}' makes no sense for this request to {endpoint}."
                raise ApiError(400, message, param=HEADER)
            return (fault, None) if fault.kind == "latency" else (None, fault)
        with self._lock:
            hitting = [
                waiting
                for waiting in self._waiting
                if waiting.fault.hits(endpoint, stream=stream, conversation=conversation)
            ]
            return self._first(hitting, latency=True), self._first(hitting, latency=False)

    def _first(self, hitting: Iterable["_Waiting"], *, latency: bool) -> Fault | None:
        for waiting in hitting:
            if (waiting.fault.kind == "latency") is latency and waiting.left != 0:
                if waiting.left is not None:
                    waiting.left -= 1
                self._waiting = [each for each in self._waiting if each.left != 0]
                return waiting.fault
        return None


class _Waiting(msgspec.Struct):
    fault: Fault
    left: int | None


def parse_header(value: str) -> Fault:
    """Read a header of the form `kind; name=value; …`.

    Raises:
        ApiError: 400: an unknown kind, field or value.
    """
    kind, *settings = (part.strip() for part in value.split(";"))
    fields = dict(setting.partition("=")[::2] for setting in settings)
    try:
        return msgspec.convert({"kind": kind, **fields}, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, f"X-Simulate: {value!r}: {error}", param=HEADER) from error
