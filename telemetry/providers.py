"""The SDK's providers, with exporters as the settings say."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from runmeter.engine import ConfigurationError

from .accumulators import Accumulators
from .context import RandomIds
from .environment import Destination, Signal, queue_sizes, variable
from .instruments import Instruments, SdkInstruments
from .metering import AccumulatingMeterProvider
from .outlet import CountedMetricExporter, CountedSpanProcessor, Exporter, Outlet, hear_complaints

Headers: TypeAlias = Mapping[str, str] | None


def make_span_outlets(destinations: Sequence[Destination], headers: Headers) -> list[Outlet[SpanExporter]]:
    """An exporter of spans for each destination.

    Raises:
        ConfigurationError: an exporter refuses its settings.
    """
    queue_size, _ = queue_sizes()
    return [_outlet("traces", to, partial(_span_exporter, to, headers), queue_size) for to in destinations]


def make_metric_outlets(destinations: Sequence[Destination], headers: Headers) -> list[Outlet[MetricExporter]]:
    """An exporter of metrics for each destination.

    Raises:
        ConfigurationError: an exporter refuses its settings.
    """
    return [_outlet("metrics", to, partial(_metric_exporter, to, headers), 1) for to in destinations]


def make_tracer_provider(resource: Resource, outlets: Sequence[Outlet[SpanExporter]]) -> TracerProvider:
    """A provider that exports in the background, with the sampler that the variables say."""
    # Shut down by us, not by the SDK, which would wait up to 30 s for a collector that is away.
    provider = TracerProvider(resource=resource, id_generator=RandomIds(), shutdown_on_exit=False)
    _, batch_size = queue_sizes()
    for outlet in outlets:
        provider.add_span_processor(CountedSpanProcessor(outlet, batch_size))
    return provider


def make_meter_provider(
    resource: Resource, outlets: Sequence[Outlet[MetricExporter]], scope: InstrumentationScope
) -> tuple[MeterProvider, Instruments]:
    """A provider that exports in the background, as often as the variables say, and what to record for it with."""
    exporters = [CountedMetricExporter(outlet) for outlet in outlets]
    wants_exemplars = (variable("OTEL_METRICS_EXEMPLAR_FILTER") or "").lower() == "always_on"
    if wants_exemplars or not all(exporter.takes_sums_and_buckets() for exporter in exporters):
        provider = MeterProvider(_readers(exporters), resource, shutdown_on_exit=False)
        return provider, SdkInstruments(provider.get_meter(scope.name, scope.version, scope.schema_url))
    accumulators = Accumulators(scope)  # before the readers: in a forked process theirs is the later turn, too
    return AccumulatingMeterProvider(_readers(exporters), resource, accumulators), accumulators


def _readers(exporters: Sequence[MetricExporter]) -> list[MetricReader]:
    return [PeriodicExportingMetricReader(exporter) for exporter in exporters]


def _outlet(signal: Signal, destination: Destination, make: Callable[[], Exporter], capacity: int) -> Outlet[Exporter]:
    hear_complaints()
    name = f"{signal} to {_shown(destination)}"
    try:
        return Outlet(name, make, capacity)
    except Exception as error:
        raise ConfigurationError(f"cannot set up the exporter of {name}: {error}") from error


def _shown(destination: Destination) -> str:
    """Where it goes, without credentials that the URL may hold."""
    if destination.exporter == "console":
        return "console"
    endpoint = destination.endpoint
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().removeprefix("//")


def _span_exporter(destination: Destination, headers: Headers) -> SpanExporter:
    if destination.exporter == "console":
        return ConsoleSpanExporter(out=sys.stdout)
    if destination.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc(**_grpc_arguments(destination, headers))
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    return OverHttp(destination.endpoint, headers=headers)


def _metric_exporter(destination: Destination, headers: Headers) -> MetricExporter:
    if destination.exporter == "console":
        return ConsoleMetricExporter(out=sys.stdout)
    if destination.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
            OTLPMetricExporter as OverGrpc,
        )

        return OverGrpc(**_grpc_arguments(destination, headers))
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
        OTLPMetricExporter as OverHttp,
    )

    return OverHttp(destination.endpoint, headers=headers)


def _grpc_arguments(destination: Destination, headers: Headers) -> dict[str, Any]:
    """What the exporter cannot be left to read from the variables itself: it does not take `none` for a compression."""
    import grpc  # type: ignore[import-untyped] # it ships no types

    compression = {
        "none": grpc.Compression.NoCompression,
        "gzip": grpc.Compression.Gzip,
        "deflate": grpc.Compression.Deflate,
    }
    return {
        "endpoint": destination.endpoint,
        "headers": {name.lower(): value for name, value in headers.items()} if headers else None,
        "compression": compression[destination.compression],
    }
