"""Statistics of the telemetry itself: of its spans, its runs and its exporters."""

import msgspec


class ExporterStatistics(msgspec.Struct, frozen=True):
    """The account of one exporter since the process began or forked: `taken = sent + failed + dropped + pending`."""

    name: str
    """The exported signal, and its destination."""
    taken: int
    """Items taken from their maker: spans, or collections of metrics."""
    sent: int
    failed: int
    """Items refused by the collector; of a collection of metrics all or part."""
    dropped: int
    """Items given up here: more than may wait, for longer than they may, or not sent before telemetry was shut down."""
    pending: int
    """Items waiting to be sent, or to be sent again, or under way."""
    unsupported: bool = False
    """Whether the collector takes nothing of this kind, as Jaeger takes no metrics."""


class TelemetryStatistics(msgspec.Struct, frozen=True):
    """Counts of the events that telemetry was made of, and each exporter's account."""

    spans: int
    """Number of spans built. Each exporter of spans takes all of them."""
    open_runs: int
    """Number of runs that have not ended."""
    forgotten_runs: int
    """Runs that were forgotten before they ended, because there were too many."""
    errors: int
    """Events that could not be made into telemetry."""
    exporters: tuple[ExporterStatistics, ...]
    """Accounts of the exporters; empty where an application's own providers export, which do not tell it."""
