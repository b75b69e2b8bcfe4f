"""Verdicts on a request to a collector, whichever transport it was sent by.

Sources: OpenTelemetry Protocol Specification 1.9, "Failures", "Retryable Response Codes", "Partial Success" and
"OTLP/gRPC Throttling" (opentelemetry.io/docs/specs/otlp, read 2026-11-29).
"""

from typing import Literal, NamedTuple, Protocol, TypeAlias

from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # it ships no types
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

Signal: TypeAlias = Literal["traces", "metrics"]


class Taken(NamedTuple):
    """The collector took the request, all of it or part."""

    rejected: int = 0
    """Spans or data points that it did not take, and never will."""
    message: str = ""
    """The collector's reason, in its own words."""


class Refused(NamedTuple):
    """The collector does not take the request, and never will."""

    reason: str
    is_unsupported: bool = False
    """The collector has nothing that takes this signal."""


class Unavailable(NamedTuple):
    """The collector did not take the request, but may do so later. It may have taken it nevertheless."""

    reason: str
    retry_after: float | None = None
    """Seconds that it asks to be left alone; None if it does not say."""


Verdict: TypeAlias = Taken | Refused | Unavailable


class Transport(Protocol):
    """Sends requests to one collector, one at a time, from one thread."""

    def send(self, body: bytes, timeout: float) -> Verdict:
        """Send a request once, in at most `timeout` seconds."""
        ...

    def close(self) -> None:
        """End the connection, from any thread. A request that is under way may be cut short."""
        ...


def taken(signal: Signal, answer: bytes) -> Taken:
    """Read the answer of a collector that took a request. Mostly it says nothing: it is empty, or an empty message."""
    try:
        if signal == "traces":
            traces = ExportTraceServiceResponse.FromString(answer).partial_success
            return Taken(traces.rejected_spans, traces.error_message)
        metrics = ExportMetricsServiceResponse.FromString(answer).partial_success
        return Taken(metrics.rejected_data_points, metrics.error_message)
    except DecodeError:  # a gateway's own words
        return Taken()
