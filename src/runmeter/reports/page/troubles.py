"""Troubles of requests, told from the requests themselves: what failed, was tried again, or is not known exactly."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from runmeter.engine import CostEstimate, ModelCallStarted, PriceBook, Provenance, Status, TokenUsage
from runmeter.engine.ledger.reader import RequestRecord, RunRecord

from .costs import RequestCost

UNPRICED = "no published price"
CONTRADICTION = "usage that contradicts itself"
TERMS = "reported usage, at a service tier or cache rate that is not known"
NEVER_ENDED = "never ended: its process has gone"
UNDER_WAY = "under way"
_REASONS = {
    Provenance.PARTIAL: "a stream that was cut: its usage is a lower bound",
    Provenance.ESTIMATED: "usage estimated, as the API reported none",
    Provenance.UNKNOWN: "no answer: it may have been billed all the same",
    Provenance.REPORTED: TERMS,
}


class UnendedRequest(msgspec.Struct, frozen=True):
    """A request that has not ended: it may have been billed."""

    run: RunRecord
    started: ModelCallStarted
    lost: bool
    """It never will: its process has gone."""
    cost: CostEstimate
    """Its possible cost, from nothing to what its bound costs. USD."""

    @property
    def reason(self) -> str:
        """The reason why its cost is not known."""
        return NEVER_ENDED if self.lost else UNDER_WAY


class Troubles(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the requests that left in a time."""

    failed: Mapping[tuple[str, str], RequestCost]
    """Requests that failed, by type of error and model."""
    retries: RequestCost
    """Requests that tried again what had failed, well or not."""
    failed_runs: Mapping[Status, RequestCost]
    """Requests in outermost runs that did not end well, and in the runs within these, by the outermost run's status."""
    doubts: Mapping[tuple[str, str], RequestCost]
    """Requests whose cost is not known exactly, by reason and model."""


def read_troubles(
    requests: Iterable[RequestRecord],
    unended: Iterable[UnendedRequest],
    failed_roots: Mapping[str, Status],
    prices: PriceBook,
) -> Troubles:
    """Sum up what went wrong.

    Args:
        requests: The requests that have ended.
        unended: Those that have not.
        failed_roots: The outermost runs that ended otherwise than well, by run id.
        prices: What tokens cost.
    """
    failed: defaultdict[tuple[str, str], RequestCost] = defaultdict(RequestCost)
    failed_runs: defaultdict[Status, RequestCost] = defaultdict(RequestCost)
    doubts: defaultdict[tuple[str, str], RequestCost] = defaultdict(RequestCost)
    retries = RequestCost()
    for request in requests:
        event = request.ended
        if event is None:
            continue
        cost = prices.cost(event)
        spent = RequestCost.of(1, cost)
        if event.error_type:
            failed[event.error_type, event.model] += spent
        if event.attempt > 1:
            retries += spent
        if (status := failed_roots.get(request.run.root_run_id or request.run.run_id)) is not None:
            failed_runs[status] += spent
        if cost.usd_units is None:
            doubts[reason_of(event, cost), event.model] += spent
    for open_request in unended:
        doubts[open_request.reason, open_request.started.model] += RequestCost.of(1, open_request.cost)
    return Troubles(failed=dict(failed), retries=retries, failed_runs=dict(failed_runs), doubts=dict(doubts))


def reason_of(event: TokenUsage, cost: CostEstimate) -> str:
    """Tell why a request's cost is not known exactly."""
    if cost.unpriced:
        return UNPRICED
    if event.contradiction is not None:
        return CONTRADICTION
    return _REASONS[event.provenance]
