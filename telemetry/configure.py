"""Setting telemetry up: from arguments, and where those say nothing from the standard `OTEL_*` variables."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from runmeter.engine import PriceBook

from .environment import check_variables, destinations, is_disabled
from .open_telemetry import NoTracing, OpenTelemetry

if TYPE_CHECKING:  # the SDK is slow to import
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from .open_runs import Price


def configure(
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    headers: Mapping[str, str] | None = None,
    service_name: str | None = None,
    traces_exporter: str | None = None,
    metrics_exporter: str | None = None,
    tracer_provider: "TracerProvider | None" = None,
    meter_provider: "MeterProvider | None" = None,
    price: "Price | None" = None,
    count_unreported: bool = False,
    max_open_runs: int = 10_000,
) -> OpenTelemetry:
    """Set telemetry up, for `Engine(telemetry=configure())`.

    What is not given is read from the standard variables: `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER` and
    `OTEL_METRICS_EXPORTER` (`otlp`, `console`, `none`, or several with commas), `OTEL_EXPORTER_OTLP_*`,
    `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`, `OTEL_METRIC_EXPORT_*` and the
    SDK's limits. With none of them set, traces and metrics go by OTLP over HTTP to port 4318 of this machine.

    Args:
        endpoint: The collector's URL, such as `http://localhost:4318`, for traces and metrics.
        protocol: `grpc` or `http/protobuf`.
        headers: Sent with every export.
        service_name: What this application is called.
        traces_exporter: As `OTEL_TRACES_EXPORTER`.
        metrics_exporter: As `OTEL_METRICS_EXPORTER`.
        tracer_provider: The application's own, used as it is: its sampler, its resource, its span processors.
        meter_provider: The application's own, used as it is.
        price: What a request cost; by default `PriceBook().cost`. Give the engine's, if it has prices of its own.
        count_unreported: Have metrics count tokens too that no API reported in full: of cut streams, and estimates.
        max_open_runs: How many runs that have not ended are remembered at once.

    Raises:
        ConfigurationError: an argument or a variable says something it may not say.
    """
    if is_disabled():
        return OpenTelemetry(NoTracing())
    check_variables()
    from .sdk_setup import assemble

    return assemble(
        tracer_provider or destinations("traces", traces_exporter, protocol, endpoint, headers),
        meter_provider or destinations("metrics", metrics_exporter, protocol, endpoint, headers),
        service_name,
        price or PriceBook().cost,
        count_unreported=count_unreported,
        max_open_runs=max_open_runs,
    )
