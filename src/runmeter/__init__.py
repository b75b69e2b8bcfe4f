"""Runmeter: an async engine that runs LLM agent patterns and meters every one of them.

This package re-exports `runmeter.engine`. Beside it: `runmeter.patterns`, `runmeter.telemetry`, `runmeter.simulator`.
Importing it loads asyncio, anyio and msgspec; everything heavier is loaded when it is first used.
"""

from runmeter import engine as _engine
from runmeter.engine import *  # noqa: F403 - the facade is the engine: one table of contents, kept there

__version__: str
__all__ = ["__version__"]
__all__ += _engine.__all__


def __getattr__(name: str) -> str:
    """The version, looked up when asked for: `importlib.metadata` takes as long to import as the engine itself."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("runmeter")
