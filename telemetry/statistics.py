"""What telemetry says about itself."""

import msgspec


class ExporterStatistics(msgspec.Struct, frozen=True):
    """One exporter's account since the process began or forked: `taken = sent + failed + dropped + pending`."""

    name: str
    """What it exports and where to."""
    taken: int
    """Spans, or collections of metrics."""
    sent: int
    failed: int
    """Refused by the collector, or given up."""
    dropped: int
    """Not even tried, because as many were pending as may be, or because the exporter had closed."""
    pending: int


class TelemetryStatistics(msgspec.Struct, frozen=True):
    """What became of the events."""

    spans: int
    """Spans built. Each exporter of spans takes all of them."""
    open_runs: int
    """Runs that have not ended."""
    forgotten_runs: int
    """Runs that were forgotten before they ended, because there were too many."""
    errors: int
    """Events that could not be made into telemetry."""
    exporters: tuple[ExporterStatistics, ...]
    """Empty where an application's own providers export: what becomes of spans there is not known here."""
