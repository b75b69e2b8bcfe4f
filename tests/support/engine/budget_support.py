"""What the tests of budgets share: prices that can be reckoned in one's head, and runs without an engine."""

from decimal import Decimal
from typing import Any

from runmeter.engine import (
    Budget,
    BudgetStatus,
    CostEstimate,
    ModelRequest,
    Notice,
    PriceBook,
    Provenance,
    TokenUsage,
    Usage,
)
from runmeter.engine.budgets.budgets import Budgets
from runmeter.engine.runs.execution import Execution
from runmeter.engine.runtime import RunInfo, Runtime
from runmeter.engine.testing import ManualClock

MICRO = Decimal(1).scaleb(-6)
HOUR = 3_600 * 10**9


class FlatPrices(PriceBook):
    """One micro-dollar for a token of input, two for one of output; `free-form` has no price."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    @property
    def loaded(self) -> bool:
        return True

    def cost(self, event: TokenUsage) -> CostEstimate:
        if event.model == "free-form":
            return CostEstimate(high_units=None, unpriced=1)
        if event.provenance is Provenance.REPORTED:
            assert event.usage is not None
            return CostEstimate.between(price := price_of(event.usage), price)
        low = Decimal(0) if event.usage is None else price_of(event.usage)
        return CostEstimate.between(low, None if event.bound is None else price_of(event.bound))

    def upper_bound(
        self, provider: str, model: str, service_tier: str | None, bound: Usage, at_ns: int
    ) -> Decimal | None:
        self.asked += 1
        return None if model == "free-form" else price_of(bound)


def price_of(usage: Usage) -> Decimal:
    return (usage.input_tokens + 2 * usage.output_tokens) * MICRO


def request(read: int = 100, written: int | None = 50, **fields: Any) -> ModelRequest:
    """A request that reads and writes so many tokens at the most: 200 micro-dollars, unless told otherwise."""
    fields = {"model": "gpt-6-luna", "max_output_tokens": written} | fields
    bound = None if written is None else Usage(input_tokens=read, output_tokens=written)
    given: dict[str, Any] = {"provider": "openai", "bound": bound} | fields
    return ModelRequest(**given)


def amounts(*numbers: Decimal | int) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, numbers))


class Stage:
    """Runs under budgets, without an engine."""

    def __init__(self, *budgets: Budget) -> None:
        self.clock = ManualClock()
        self.events: list[Any] = []
        self.prices = FlatPrices()
        self.budgets = Budgets(budgets, self.prices, self.clock)
        self.runtime = Runtime(self, self.events.append, self.clock, budgets=self.budgets)

    def run(self, pattern: str = "support", **tags: str) -> Execution:
        return Execution(self.runtime, RunInfo(pattern, tags=tags))

    def status(self, scope: str | None = None) -> BudgetStatus:
        [status] = [status for status in self.budgets.status() if status.scope == scope]
        return status

    def notices(self) -> list[Notice]:
        return [event for event in self.events if isinstance(event, Notice)]


def use(execution: Execution, asked: ModelRequest | None = None, usage: Usage | None = None) -> None:
    """Make a request that uses this, or what it may at the most."""
    asked = asked or request()
    with execution.model_call(asked) as call:
        call.record(usage or asked.bound or Usage())
