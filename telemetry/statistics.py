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
    """Refused by the collector; of a collection of metrics all or part."""
    dropped: int
    """Given up here: more than may wait, for longer than they may, or not sent before telemetry was shut down."""
    pending: int
    """Waiting to be sent, or to be sent again, or under way."""


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
