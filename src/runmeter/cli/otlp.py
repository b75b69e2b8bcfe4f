"""The destination of a command's traces: the `--otlp` option."""

import os
from urllib.parse import urlsplit

from runmeter.engine import ConfigurationError
from runmeter.telemetry import OpenTelemetry, configure


def telemetry_to(url: str | None, service_name: str) -> OpenTelemetry | None:
    """Make the telemetry that sends traces to this URL; None without one.

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
        metrics_exporter="none",  # Jaeger takes traces alone
        service_name=os.environ.get("OTEL_SERVICE_NAME", service_name),
    )
