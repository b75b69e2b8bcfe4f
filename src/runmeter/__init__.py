"""Runmeter: an async engine that runs LLM agent patterns and meters every one of them.

This package re-exports `runmeter.engine`, and has `meter` and `unmeter` for clients that exist already. Beside it:
`runmeter.patterns`, `runmeter.telemetry`, `runmeter.simulator`.
Importing it loads asyncio, anyio and msgspec; everything heavier is loaded when it is first used.
"""

from typing import TYPE_CHECKING, Any

from runmeter import engine as _engine

if TYPE_CHECKING:
    from runmeter.engine import *  # noqa: F403 - the facade is the engine: one table of contents, kept there

    from .advice import Advice as Advice
    from .advice import Advisor as Advisor
    from .patterns.openai_client.metering.meter import meter as meter
    from .patterns.openai_client.metering.meter import unmeter as unmeter

__version__: str
__all__ = ["__version__", "meter", "unmeter"]
__all__ += _engine.__all__


def __getattr__(name: str) -> Any:
    """Look up a name in the engine, some of which is imported only when it is asked for, and so is the version.

    `importlib.metadata` takes as long to import as the engine itself.
    """
    if name == "__version__":
        from importlib.metadata import version

        return version("runmeter")
    if name in ("meter", "unmeter"):
        from .patterns.openai_client.metering import meter as metering

        return getattr(metering, name)
    if name not in _engine.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_engine, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
