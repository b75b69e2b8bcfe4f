"""What does the price of a call cost? Run: .venv/bin/python benchmarks/pricing.py

Every figure is a ratio to genai-prices' `calc_price` of the same call in the same round, CPU time, and the median over
rounds: machines differ and are noisy, ratios travel.
"""

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import genai_prices
import msgspec

from runmeter.engine import PriceBook, Provenance, TokenUsage, Usage

ROUNDS = 15
CALLS = 10_000
THEIR_CALLS = 200
NOW = 1_795_305_600 * 10**9
AT = datetime.fromtimestamp(NOW // 10**9, UTC)
MODEL = "gpt-6.1-terra"
USAGE = Usage(100_000, 2_000, 60_000, 10_000, 0, 500)
REPORTED = TokenUsage(
    run_id="1" * 32,
    seq=1,
    time_ns=NOW,
    call_id=1,
    provider="openai",
    operation="chat",
    model=MODEL,
    provenance=Provenance.REPORTED,
    usage=USAGE,
    start_ns=NOW,
    duration_ns=0,
    response_model=MODEL,
    service_tier="default",
)
BOUND = Usage(300_000, 4_000)
CUT = msgspec.structs.replace(REPORTED, provenance=Provenance.PARTIAL, bound=BOUND)
UNKNOWN_MODEL = msgspec.structs.replace(REPORTED, response_model="no-such-model")


def calc_price() -> object:
    usage = genai_prices.Usage(
        input_tokens=USAGE.input_tokens,
        output_tokens=USAGE.output_tokens,
        cache_read_tokens=USAGE.cache_read_tokens,
        cache_write_tokens=USAGE.cache_write_tokens,
        output_reasoning_tokens=USAGE.reasoning_tokens,
    )
    context = {"service_tier": "default"}
    return genai_prices.calc_price(
        usage, MODEL, provider_id="openai", genai_request_timestamp=AT, price_context=context
    ).total_price


def cpu_ns(work: Callable[..., object], *args: object, calls: int = CALLS) -> float:
    """CPU time of one call in ns, without the loop's own."""
    start = time.process_time_ns()
    for _ in range(calls):
        work(*args)
    middle = time.process_time_ns()
    for _ in range(calls):
        pass
    return (2 * middle - start - time.process_time_ns()) / calls


def main() -> None:
    book = PriceBook()
    assert book.cost(REPORTED).usd == calc_price()
    ours: dict[str, tuple[Callable[..., object], tuple[object, ...]]] = {
        "reported usage": (book.cost, (REPORTED,)),
        "a cut stream with a bound": (book.cost, (CUT,)),
        "no price": (book.cost, (UNKNOWN_MODEL,)),
        "upper_bound": (book.upper_bound, ("openai", MODEL, "default", BOUND, NOW)),
    }
    ratios: dict[str, list[float]] = {name: [] for name in ours}
    absolute: list[float] = []
    for _ in range(ROUNDS):
        for name, (work, args) in ours.items():
            theirs = cpu_ns(calc_price, calls=THEIR_CALLS)
            ratios[name].append(theirs / cpu_ns(work, *args))
            absolute.append(theirs)
    print(f"calc_price {statistics.median(absolute) / 1000:.0f} µs; of that a price takes (median of {ROUNDS} rounds)")
    for name, found in ratios.items():
        print(f"  {name:28} 1/{statistics.median(found):.0f}")


if __name__ == "__main__":
    main()
