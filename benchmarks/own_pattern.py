"""What a run costs: a pattern of one's own, called without an engine, run by an engine, and an engine's run of nothing.

`runmeter bench --pattern` starts this file three times, with what to do in the environment: PATTERN, `module:object`;
SETTINGS, a file for it, or nothing; TEXT, what it is asked; MODE, `bare`, `engine` or `empty`. OPENAI_BASE_URL is a
simulated API's.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from hosting import Host
from worker import Bench, Work, serve

NUMBERS = (1, 10, 100)
PREFIX = "RUNMETER_BENCH_"


def load() -> Bench:
    from runmeter import Engine

    engines: list[Engine] = []

    def make() -> Engine:
        engines.append(Engine())
        return engines[-1]

    text, mode = os.environ[PREFIX + "TEXT"], os.environ[PREFIX + "MODE"]
    pattern = _nothing if mode == "empty" else _make_pattern()
    if mode == "bare":
        execute = getattr(pattern, "execute", pattern)
        return Bench({f"{number} at once": _at_once(lambda: execute(text, None), number) for number in NUMBERS})
    host = Host(make)
    published = 0

    def events() -> list[int]:
        """How many were published since the last time."""
        nonlocal published
        before, published = published, sum(engine.statistics().bus.published for engine in engines)
        return [published - before]

    cases = {f"{number} at once": host.at_once(lambda engine: engine.run(pattern, text), number) for number in NUMBERS}
    return Bench(cases, asked=events, close=host.close)


async def _nothing(messages: Any, context: Any) -> None:
    return


def _make_pattern() -> Any:
    from dataclasses import fields
    from pathlib import Path
    from pkgutil import resolve_name

    from runmeter.cli.settings import Settings, load_settings

    path = os.environ[PREFIX + "SETTINGS"]
    settings = load_settings(Path(path)) if path else Settings()
    found = resolve_name(os.environ[PREFIX + "PATTERN"])
    if not isinstance(found, type):
        return found
    config_type = getattr(found, "config_type", None)
    if config_type is None:
        return found(**settings.options)
    simulated = {"base_url": os.environ["OPENAI_BASE_URL"], "api_key": "simulated"}
    known = {field.name for field in fields(config_type)}
    config = config_type.from_data(
        {**settings.config, **{name: value for name, value in simulated.items() if name in known}}
    )
    return found(config, settings.tools, **settings.options)


def _at_once(run: Callable[[], Awaitable[object]], number: int) -> Work:
    async def work(times: int) -> None:
        for _ in range(0, times, number):
            await asyncio.gather(*[run() for _ in range(number)])

    return work


if __name__ == "__main__":
    serve(load, ["runmeter"])
