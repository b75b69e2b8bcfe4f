"""Runmeter: an async engine that runs LLM agent patterns and meters every one of them.

This package re-exports `runmeter.engine`. Beside it: `runmeter.patterns`, `runmeter.telemetry`, `runmeter.simulator`.
Importing it loads asyncio, anyio and msgspec; everything heavier is loaded when it is first used.
"""

from importlib.metadata import version as _version

from runmeter import engine as _engine
from runmeter.engine import *  # noqa: F403 - the facade is the engine: one table of contents, kept there

__version__ = _version("runmeter")
__all__ = ["__version__"]
__all__ += _engine.__all__
