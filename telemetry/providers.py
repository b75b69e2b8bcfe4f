"""The SDK's providers, with exporters as the settings say."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from runmeter.engine import ConfigurationError

from .accumulators import Accumulators
from .context import RandomIds
from .environment import Destination, Signal, batching, variable
from .export.console_transport import ConsoleTransport
from .export.exporter import Exporter
from .export.queue import Bounds, Item
from .export.queuing import QueuingMetricExporter, QueuingSpanProcessor
from .export.verdict import Transport
from .instruments import Instruments, SdkInstruments
from .meter_provider import AccumulatingMeterProvider

MAX_WAITING = 32 << 20
"""Bytes of spans that may wait: some 50,000 of them, which take 120 MB of memory."""
MAX_METRICS_WAITING = 8 << 20
"""Bytes of collections of metrics that may wait."""
MAX_AGE = 300.0
"""Seconds that something may wait: as long as the OpenTelemetry Collector itself goes on trying by default (its
`exporterhelper`, `retry_on_failure::max_elapsed_time`, read 2026-11-29)."""
MAX_REQUEST = 7 << 19
"""Bytes of a request: 3.5 MiB, which leaves room for the resource below the 4 MiB that gRPC servers take by default. By
HTTP the Collector takes 20 MiB (`confighttp`, `max_request_body_size`)."""


def make_span_exporters(destinations: Sequence[Destination]) -> list[Exporter[ReadableSpan]]:
    """Make an exporter of spans for each destination, not yet started.

    Raises:
        ConfigurationError: one of them cannot be set up.
    """
    queue, batch, delay = batching()
    bounds = Bounds(MAX_WAITING, MAX_AGE, batch, MAX_REQUEST, delay, queue)
    return [_exporter("traces", to, bounds, _print_spans if to.is_console else _encode_spans) for to in destinations]


def make_metric_exporters(destinations: Sequence[Destination]) -> list[Exporter[bytes]]:
    """Make an exporter of encoded collections of metrics for each destination, not yet started.

    Raises:
        ConfigurationError: one of them cannot be set up.
    """
    bounds = Bounds(MAX_METRICS_WAITING, MAX_AGE, batch_count=1, batch_size=MAX_METRICS_WAITING, delay=0)
    return [_exporter("metrics", to, bounds, b"".join) for to in destinations]


def make_tracer_provider(resource: Resource, exporters: Sequence[Exporter[ReadableSpan]]) -> TracerProvider:
    """Make a provider that exports in the background, with the sampler that the variables name."""
    # Shut down by us, not by the SDK, which would not wait for what is sent in the background.
    provider = TracerProvider(resource=resource, id_generator=RandomIds(), shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(QueuingSpanProcessor(exporter))
    return provider


def make_meter_provider(
    resource: Resource,
    destinations: Sequence[Destination],
    exporters: Sequence[Exporter[bytes]],
    scope: InstrumentationScope,
) -> tuple[MeterProvider, Instruments]:
    """Make a provider that exports in the background, as often as the variables say, and its instruments."""
    queuing = [
        QueuingMetricExporter(
            exporter, _print_metrics if to.is_console else _encode_metrics, by_the_variables=not to.is_console
        )
        for to, exporter in zip(destinations, exporters, strict=True)
    ]
    wants_exemplars = (variable("OTEL_METRICS_EXEMPLAR_FILTER") or "").lower() == "always_on"
    if wants_exemplars or not all(each.takes_sums_and_buckets() for each in queuing):
        provider = MeterProvider(_readers(queuing), resource, shutdown_on_exit=False)
        return provider, SdkInstruments(provider.get_meter(scope.name, scope.version, scope.schema_url))
    accumulators = Accumulators(scope)  # before the readers: in a forked process theirs is the later turn, too
    return AccumulatingMeterProvider(_readers(queuing), resource, accumulators), accumulators


def _readers(exporters: Sequence[QueuingMetricExporter]) -> list[MetricReader]:
    return [PeriodicExportingMetricReader(exporter) for exporter in exporters]


def _exporter(
    signal: Signal, to: Destination, bounds: Bounds, encode: Callable[[Sequence[Item]], bytes]
) -> Exporter[Item]:
    name = f"{signal} to {_shown(to)}"
    try:
        return Exporter(name, bounds, encode, partial(_connect, signal, to), to.timeout)
    except Exception as error:
        raise ConfigurationError(f"cannot set up the exporter of {name}: {error}") from error


def _shown(to: Destination) -> str:
    """Show a destination without the credentials that its URL may hold."""
    if to.is_console:
        return "console"
    parts = urlsplit(to.endpoint if "://" in to.endpoint else f"//{to.endpoint}")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl().removeprefix("//")


def _connect(signal: Signal, to: Destination) -> Transport:
    if to.is_console:
        return ConsoleTransport(sys.stdout)
    provided = _provided(to.credential_provider) if to.credential_provider is not None else None
    if to.protocol == "grpc":
        from .export.grpc_transport import GrpcTransport

        return GrpcTransport(signal, to, provided)
    from .export.http_transport import HttpTransport

    return HttpTransport(signal, to, provided)


def _provided(name: str) -> Any:
    """Load an installed package's credentials, as the Python SDK does (opentelemetry-sdk 1.45)."""
    group = "opentelemetry_otlp_credential_provider"
    for entry_point in entry_points(group=group, name=name):
        return entry_point.load()()
    raise ConfigurationError(f"no installed package has an entry point {name!r} in {group}")


def _encode_spans(spans: Sequence[ReadableSpan]) -> bytes:
    return bytes(encode_spans(spans).SerializeToString())


def _encode_metrics(metrics: MetricsData) -> bytes:
    return bytes(encode_metrics(metrics).SerializeToString())


def _print_spans(spans: Sequence[ReadableSpan]) -> bytes:
    return "".join(f"{span.to_json()}\n" for span in spans).encode()


def _print_metrics(metrics: MetricsData) -> bytes:
    return f"{metrics.to_json()}\n".encode()
