# /// script
# requires-python = ">=3.11"
# dependencies = ["runmeter"]
# ///
"""What a run costs after 10, 100 … 1,000,000 of them, and what happens to events that come faster than they are taken.

A run is an empty pattern that records one model call; one engine, from its start to its close, does as many as a case
says, one after the other. Its statistics stay in memory until the next case, so that the memory after a case holds what
an engine keeps of that many runs. The million is done once: it takes about half a minute.

For the overload see `overload.py`. How the events fared is in the checks, and a case fails where the account is wrong.
"""

from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from worker import Bench, Work, serve

if TYPE_CHECKING:
    from runmeter.engine import PriceBook

COUNTS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
CHECKED = 2_000
"""Runs of the overload that the checks tell of."""


def load() -> Bench:
    from growth.overload import LANES, overload

    from runmeter.engine import Engine, ModelRequest, Usage, current_execution

    request, used = ModelRequest(provider="openai", model="gpt-6-luna"), Usage(1_000, 100)
    kept: list[Engine] = []

    async def one_call(messages: object, context: object) -> None:
        with current_execution().model_call(request) as call:
            call.record(used)

    async def runs(count: int, times: int) -> None:
        if times % count:
            raise ValueError(f"{times} is no multiple of {count}")
        for _ in range(times // count):
            async with Engine(prices=_price_book()) as engine:
                for _ in range(count):
                    await engine.run(one_call, "")
            total = engine.usage().total
            if (total.executions, total.requests, total.in_flight) != (count, count, 0):
                raise RuntimeError(f"{count} runs were counted as {total}")
            kept[:] = [engine]

    async def overloaded(lane: Any, times: int) -> None:
        await overload(_price_book(), lane, times)

    def checks() -> Mapping[str, int]:
        import asyncio

        figures: dict[str, int] = {}
        for lane in LANES:
            account = asyncio.run(overload(_price_book(), lane, CHECKED))
            figures |= {f"overload, {lane}: {name}": value for name, value in account.items()}
        return figures

    cases: dict[str, Work] = {f"{count:,} runs": partial(runs, count) for count in COUNTS}
    cases |= {f"overload, {lane}": partial(overloaded, lane) for lane in LANES}
    return Bench(cases, checks=checks, collects=True)


@cache
def _price_book() -> "PriceBook":
    from runmeter.engine import PriceBook

    book = PriceBook()
    book.load()
    return book


if __name__ == "__main__":
    serve(load, ["runmeter", "msgspec", "anyio"])
