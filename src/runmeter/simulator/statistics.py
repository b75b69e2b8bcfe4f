"""Figures of what the simulator has seen and billed: its own account, kept apart from anything a client says."""

import threading
from collections import Counter
from collections.abc import Mapping

import msgspec

from runmeter.engine import Usage


class SimulatorStatistics(msgspec.Struct, frozen=True):
    """Figures of a simulator since it was made: of all API keys, or of one. They add up."""

    requests: Mapping[str, int] = {}
    """Requests that arrived, refused ones too, by endpoint, such as `POST /responses`."""
    usage: Mapping[str, Usage] = {}
    """Tokens billed, by model. A plain answer counts in full, even if its client did not wait for it; a stream that its
    client left, or whose connection broke, counts what it had generated; what was refused or failed does not count."""
    faults: int = 0
    """Requests that were hit by a fault on command."""
    tool_calls: int = 0
    """Tool calls asked for in answers that were billed in full."""

    @property
    def total(self) -> Usage:
        """The sum of tokens billed over all models."""
        return sum(self.usage.values(), Usage())

    def __add__(self, other: "SimulatorStatistics") -> "SimulatorStatistics":
        """Add up the figures of two accounts."""
        models = dict.fromkeys((*self.usage, *other.usage))
        return SimulatorStatistics(
            dict(Counter(self.requests) + Counter(other.requests)),
            {model: self.usage.get(model, Usage()) + other.usage.get(model, Usage()) for model in models},
            self.faults + other.faults,
            self.tool_calls + other.tool_calls,
        )


class Bill:
    """The account of one API key, which adds up. Written by the simulator's thread, read from any."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._requests = Counter[str]()
        self._usage: dict[str, Usage] = {}
        self._faults = 0
        self._tool_calls = 0

    def request(self, endpoint: str) -> None:
        """Count a request that arrived."""
        with self._lock:
            self._requests[endpoint] += 1

    def fault(self) -> None:
        """Count a request that was hit by a fault."""
        with self._lock:
            self._faults += 1

    def bill(self, model: str, usage: Usage, *, tool_calls: int = 0) -> None:
        """Bill a request that was answered, in full or in part."""
        with self._lock:
            self._usage[model] = self._usage.get(model, Usage()) + usage
            self._tool_calls += tool_calls

    def read(self) -> SimulatorStatistics:
        """Read the figures of the account now. Whoever calls it holds the lock."""
        return SimulatorStatistics(dict(self._requests), dict(self._usage), self._faults, self._tool_calls)


class Accounts:
    """The accounts of all API keys, read from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bills: dict[str, Bill] = {}

    def of(self, api_key: str) -> Bill:
        """Find the account of a key, or open it. Requests without a key have the empty one."""
        with self._lock:
            return self._bills.setdefault(api_key, Bill(self._lock))

    def statistics(self, api_key: str | None = None) -> SimulatorStatistics:
        """Read the figures of one key, or of all, now."""
        with self._lock:
            bills = self._bills.values() if api_key is None else filter(None, [self._bills.get(api_key)])
            return sum((bill.read() for bill in bills), SimulatorStatistics())
