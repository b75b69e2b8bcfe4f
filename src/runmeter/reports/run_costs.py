"""Costs of single runs, by themselves and with the runs within them, from their events."""

from collections.abc import Iterable, Mapping

import msgspec

from runmeter.engine import (
    CostEstimate,
    Event,
    ExecutionStarted,
    ModelCallStarted,
    PriceBook,
    RunReported,
    TokenUsage,
)
from runmeter.engine.usage.cell import reported_request

from .unended import unanswered

NOTHING = CostEstimate()


class RunCost(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a run, in USD."""

    own: CostEstimate = NOTHING
    """Of the run's own requests that have ended."""
    inclusive: CostEstimate = NOTHING
    """With those of the runs within it."""
    requests: int = 0
    """Requests of the run and the runs within it that have ended."""
    unended: int = 0
    """Requests of these that have not."""
    unended_cost: CostEstimate = NOTHING
    """What they may cost: from 0 to their upper bounds."""


def run_costs(events: Iterable[Event], prices: PriceBook) -> Mapping[str, RunCost]:
    """Compute the cost of each run that has a request, or a run within it that has, by run id.

    Args:
        events: All events of whole trees of runs.
        prices: What tokens cost.
    """
    parents: dict[str, str | None] = {}
    ended: list[tuple[str, CostEstimate]] = []
    under_way: dict[tuple[str, int], ModelCallStarted] = {}
    for event in events:
        match event:
            case ExecutionStarted():
                parents[event.run_id] = event.parent_run_id
            case ModelCallStarted():
                under_way[event.run_id, event.call_id] = event
            case TokenUsage():
                under_way.pop((event.run_id, event.call_id), None)
                ended.append((event.run_id, prices.cost(event)))
            case RunReported() if (request := reported_request(event)) is not None:
                ended.append((event.run_id, prices.cost(request)))
    costs: dict[str, RunCost] = {}
    for run_id, cost in ended:
        for each in _around(run_id, parents):
            so_far = costs.get(each, RunCost())
            costs[each] = msgspec.structs.replace(
                so_far,
                own=so_far.own + cost if each == run_id else so_far.own,
                inclusive=so_far.inclusive + cost,
                requests=so_far.requests + 1,
            )
    for (run_id, _), started in under_way.items():
        cost = prices.cost(unanswered(started))
        for each in _around(run_id, parents):
            so_far = costs.get(each, RunCost())
            unended, total = so_far.unended + 1, so_far.unended_cost + cost
            costs[each] = msgspec.structs.replace(so_far, unended=unended, unended_cost=total)
    return costs


def _around(run_id: str, parents: Mapping[str, str | None]) -> list[str]:
    """List a run and those that it is within, from the inside out."""
    chain: list[str] = []
    each: str | None = run_id
    while each is not None and each not in chain:
        chain.append(each)
        each = parents.get(each)
    return chain
