# /// script
# requires-python = ">=3.11"
# dependencies = ["genai-prices==0.2.3"]
# ///
"""What the price of a call costs: genai-prices' own `calc_price`, whose prices Runmeter takes.

It is told provider, time and tier, so that it need not guess which model is meant.
"""

from worker import Bench, serve


def load() -> Bench:
    from datetime import UTC, datetime

    from engine import call
    from genai_prices import Usage, calc_price

    at = datetime.fromtimestamp(call.NOW_NS // call.SECOND_NS, UTC)
    context = {"service_tier": call.SERVICE_TIER}

    usage = Usage(
        input_tokens=call.INPUT_TOKENS,
        output_tokens=call.OUTPUT_TOKENS,
        cache_read_tokens=call.CACHE_READ_TOKENS,
        cache_write_tokens=call.CACHE_WRITE_TOKENS,
        output_reasoning_tokens=call.REASONING_TOKENS,
    )

    def price(times: int) -> None:
        for _ in range(times):
            calc_price(usage, call.MODEL, provider_id=call.PROVIDER, genai_request_timestamp=at, price_context=context)

    return Bench({"price of a call": price})


if __name__ == "__main__":
    serve(load, ["genai-prices"])
