"""Requests that have not ended: nothing is known of what they used, but the bound that they left with."""

from runmeter.engine import ModelCallStarted, Provenance, TokenUsage


def unanswered(started: ModelCallStarted) -> TokenUsage:
    """Make the end of a request that has none: unanswered, so that it costs from nothing to what its bound costs."""
    return TokenUsage(
        run_id=started.run_id,
        seq=started.seq,
        time_ns=started.time_ns,
        call_id=started.call_id,
        provider=started.provider,
        operation=started.operation,
        model=started.model,
        provenance=Provenance.UNKNOWN,
        usage=None,
        start_ns=started.time_ns,
        duration_ns=0,
        attempt=started.attempt,
        service_tier=started.service_tier,
        bound=started.bound,
    )
