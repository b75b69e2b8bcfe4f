"""The simulator's accounts: what each API key asked for, what it was billed for it, and when.

An account is of an API key and a project: the one that the request's `OpenAI-Project` header names, as for keys that
may be used in several.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Literal, TypeAlias

import msgspec

from runmeter.engine import Usage

from .faults import Fault
from .statistics import SimulatorStatistics

Operation: TypeAlias = Literal["completions", "embeddings"]
"""Kinds of requests to a model, as the endpoints of usage tell them apart."""
USUAL_PROJECT = "proj_default"
"""Project of the requests that name none."""
ADMIN_PREFIX = "sk-admin-"
"""Beginning of the keys that read usage and costs, and ask no model."""
LONG_PROMPT = 272_000
"""Input tokens beyond which a prompt is dearer, with those models that have such a price (openai.com/api/pricing as in
genai-prices 0.2.3, 2026-11)."""


class BilledRequest(msgspec.Struct, frozen=True):
    """A request to a model as it is billed, whatever its answer said."""

    operation: Operation
    model: str
    usage: Usage
    tier: str
    time: float
    """The time that it arrived: seconds since the Unix epoch."""

    def under(self, fault: Fault | None) -> "Sequence[BilledRequest]":
        """Bill it as the fault has it, in a way that its answer does not tell."""
        if fault is None:
            return [self]
        match fault.kind:
            case "billed_tier":
                return [msgspec.structs.replace(self, tier=fault.tier)]
            case "billed_12h":
                usage = self.usage
                written = msgspec.structs.replace(usage, cache_write_12h_tokens=usage.cache_write_tokens)
                return [msgspec.structs.replace(self, usage=written)]
            case "billed_twice":
                return [self, self]
            case _:
                return [self]


class Group(msgspec.Struct, frozen=True):
    """The traits by which billed requests are told apart."""

    minute: int
    """Start of the minute in which they arrived: seconds since the Unix epoch."""
    project_id: str
    api_key_id: str
    operation: Operation
    model: str
    tier: str
    long: bool
    """Their prompts are beyond `LONG_PROMPT`."""


class Charge(msgspec.Struct, frozen=True):
    """The billed requests of one group."""

    group: Group
    requests: int
    usage: Usage


class Bill:
    """The account of one API key in one project. Written from the simulator's thread, read from any."""

    def __init__(self, lock: threading.Lock, api_key: str, project: str) -> None:
        self._lock = lock
        self._api_key_id = f"key_{blake2b(api_key.encode(), digest_size=8).hexdigest()}"
        self._project = project
        self._requests = Counter[str]()
        self._usage: dict[str, Usage] = {}
        self._charges: dict[Group, Charge] = {}
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

    def bill(self, request: BilledRequest, fault: Fault | None, *, tool_calls: int = 0) -> None:
        """Bill a request that was answered, in full or in part: to the organization in the way that a fault has it."""
        with self._lock:
            self._usage[request.model] = self._usage.get(request.model, Usage()) + request.usage
            for billed in request.under(fault):
                self._charge(billed)
            self._tool_calls += tool_calls

    def read(self) -> SimulatorStatistics:
        """Read the figures of the account now. Whoever calls it holds the lock."""
        return SimulatorStatistics(dict(self._requests), dict(self._usage), self._faults, self._tool_calls)

    def charges(self) -> Sequence[Charge]:
        """Read what was billed to the organization. Whoever calls it holds the lock."""
        return list(self._charges.values())

    def _charge(self, request: BilledRequest) -> None:
        group = Group(
            minute=int(request.time // 60) * 60,
            project_id=self._project,
            api_key_id=self._api_key_id,
            operation=request.operation,
            model=request.model,
            tier=request.tier,
            long=request.operation == "completions" and request.usage.input_tokens > LONG_PROMPT,
        )
        before = self._charges.get(group) or Charge(group, 0, Usage())
        self._charges[group] = Charge(group, before.requests + 1, before.usage + request.usage)


class Accounts:
    """The accounts of all API keys, read from any thread."""

    def __init__(self, clock: Callable[[], float], billing_delay: float) -> None:
        self._clock = clock
        self._billing_delay = billing_delay
        self._lock = threading.Lock()
        self._bills: dict[tuple[str, str], Bill] = {}

    def of(self, api_key: str, project: str | None = None) -> Bill:
        """Find the account of a key in a project, or open it. Requests without a key have the empty one."""
        project = project or USUAL_PROJECT
        with self._lock:
            return self._bills.setdefault((api_key, project), Bill(self._lock, api_key, project))

    def statistics(self, api_key: str | None = None) -> SimulatorStatistics:
        """Read the figures of one key, or of all, now."""
        with self._lock:
            bills = [bill for (key, _), bill in self._bills.items() if api_key in {None, key}]
            return sum((bill.read() for bill in bills), SimulatorStatistics())

    def charges(self) -> Sequence[Charge]:
        """Read all charges that are old enough to be told."""
        until = self._clock() - self._billing_delay
        with self._lock:
            told = [charge for bill in self._bills.values() for charge in bill.charges()]
        return [charge for charge in told if charge.group.minute <= until]
