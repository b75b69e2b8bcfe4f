"""OpenTelemetry: the traces and metrics of an engine's runs.

    from runmeter.telemetry import configure

    async with Engine(telemetry=configure()) as engine:
        ...

`telemetry` imports the engine's public names, never a pattern. The OpenTelemetry SDK is imported by `configure`.
"""

from . import semconv
from .configure import configure
from .open_telemetry import OpenTelemetry
from .statistics import ExporterStatistics, TelemetryStatistics

__all__ = ["ExporterStatistics", "OpenTelemetry", "TelemetryStatistics", "configure", "semconv"]
