"""The destination of a command's telemetry: the `--otlp` option."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from runmeter.engine import ConfigurationError
from runmeter.telemetry import OpenTelemetry, configure


def telemetry_to(url: str | None, service_name: str) -> OpenTelemetry | None:
    """Make the telemetry that sends traces and metrics to this URL; None without one.

    OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER may say otherwise.

    Args:
        url: A collector's. Port 4318 is HTTP, any other gRPC.
        service_name: What the command is called in traces, unless OTEL_SERVICE_NAME says otherwise.

    Raises:
        ConfigurationError: it is not such a URL.
    """
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # half a bracket, or a port beyond 65535
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"--otlp {url}: give a URL such as http://localhost:4317")
    return configure(
        endpoint=url,
        protocol="http/protobuf" if port == 4318 else "grpc",
        service_name=os.environ.get("OTEL_SERVICE_NAME", service_name),
    )


@contextmanager
def shut_down_at_end(telemetry: OpenTelemetry | None) -> Iterator[None]:
    """Have what is left of the telemetry sent when the block is left, and its threads ended."""
    try:
        yield
    finally:
        if telemetry is not None:
            telemetry.shutdown()
