"""Putting the parts together. Needs the SDK; `configure` does not until it comes here."""

from importlib.metadata import version
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanLimits, Tracer, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from runmeter.engine import ConfigurationError

from . import semconv
from .context import RandomIds, SpanTracing
from .environment import Destination
from .export.backpressure import Backpressure
from .export.exporter import Exporter
from .instruments import Instruments, SdkInstruments
from .metrics import Metrics
from .open_runs import OpenRuns, Price
from .open_telemetry import OpenTelemetry
from .projection import Projection
from .providers import make_meter_provider, make_metric_exporters, make_span_exporters, make_tracer_provider
from .spans import SpanBuilder


def assemble(
    traces: TracerProvider | tuple[Destination, ...],
    metrics: MeterProvider | tuple[Destination, ...],
    service_name: str | None,
    price: Price,
    *,
    count_unreported: bool,
    max_open_runs: int,
) -> OpenTelemetry:
    """Put telemetry together, for providers of the application or for ones of our own to these destinations.

    Raises:
        ConfigurationError: what was given is not a provider of the SDK, or a destination cannot be set up.
    """
    for provider, kind in ((traces, TracerProvider), (metrics, MeterProvider)):
        if not isinstance(provider, tuple | kind):
            raise ConfigurationError(f"not a {kind.__name__} of opentelemetry.sdk: {provider!r}")
    span_exporters = [] if isinstance(traces, TracerProvider) else make_span_exporters(traces)
    metric_exporters = [] if isinstance(metrics, MeterProvider) else make_metric_exporters(metrics)
    exporters: list[Exporter[Any]] = [*span_exporters, *metric_exporters]
    resource = Resource.create({SERVICE_NAME: service_name} if service_name else None)
    tracer_provider = traces if isinstance(traces, TracerProvider) else make_tracer_provider(resource, span_exporters)
    scope = InstrumentationScope(semconv.SCOPE, version("runmeter"), semconv.SCHEMA_URL)
    meter_provider: MeterProvider
    instruments: Instruments
    if isinstance(metrics, MeterProvider):
        meter_provider = metrics
        instruments = SdkInstruments(metrics.get_meter(scope.name, scope.version, scope.schema_url))
    else:
        meter_provider, instruments = make_meter_provider(resource, metrics, metric_exporters, scope)
    for exporter in exporters:
        exporter.start()
    owned = [
        provider for provider in (tracer_provider, meter_provider) if provider is not traces and provider is not metrics
    ]

    tracer = tracer_provider.get_tracer(scope.name, scope.version, scope.schema_url)
    assert isinstance(tracer, Tracer)  # noqa: S101 - it is where the SDK is not disabled
    projection = Projection(
        OpenRuns(price, max_open_runs),
        SpanBuilder(scope, SpanLimits()),
        Metrics(instruments, count_unreported=count_unreported),
        tracer if traces else None,
        Backpressure(span_exporters),
    )
    ids = tracer_provider.id_generator
    tracing = SpanTracing(tracer_provider.sampler, RandomIds() if type(ids) is RandomIdGenerator else ids)
    return OpenTelemetry(tracing, projection, tracer_provider, meter_provider, exporters, owned)
