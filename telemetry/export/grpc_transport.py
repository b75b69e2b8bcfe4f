"""Requests to a collector by OTLP over gRPC."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped] # it ships no types
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped] # likewise
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped] # likewise

from ..environment import Destination
from .user_agent import USER_AGENT
from .verdict import Refused, Signal, Unavailable, Verdict, taken

RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""The statuses after which a request may be sent again (OTLP specification 1.9, "Failures"). `RESOURCE_EXHAUSTED` is
one only where the collector says when: without that the request is too large."""

_METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
_COMPRESSION = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}
_OPTIONS = (
    ("grpc.primary_user_agent", USER_AGENT),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel tries to connect at once, whatever became of the old one
)


class GrpcTransport:
    """Sends requests of one signal to one collector.

    Args:
        signal: What the requests are about.
        to: Where they go.
        credentials: Of the channel; by default as the destination says.
    """

    def __init__(self, signal: Signal, to: Destination, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._signal: Signal = signal
        parts = urlsplit(to.endpoint if "://" in to.endpoint else f"//{to.endpoint}")
        self._target = parts.netloc.rpartition("@")[2]
        self._credentials = credentials or (None if to.insecure else _credentials(to))
        self._compression = _COMPRESSION[to.compression]
        self._metadata = tuple(to.headers.items())
        self._channel: grpc.Channel | None = None
        self._closed = False

    def send(self, body: bytes, timeout: float) -> Verdict:
        """Send a request to the collector, once."""
        channel = self._channel = self._channel or self._connect()
        if self._closed:
            self._disconnect()
            return Refused("closed")
        export = channel.unary_unary(_METHODS[self._signal])  # bytes in, bytes out
        try:
            return taken(self._signal, export(body, timeout=timeout, metadata=self._metadata))
        except grpc.RpcError as error:
            self._disconnect()  # gRPC itself would stay with a connection that is dead
            return _verdict(error)

    def _connect(self) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(self._target, _OPTIONS, self._compression)
        return grpc.secure_channel(self._target, self._credentials, _OPTIONS, self._compression)

    def _disconnect(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Close the channel, and cut short the request that is under way."""
        self._closed = True
        self._disconnect()


def _credentials(to: Destination) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(_read(to.certificate), _read(to.client_key), _read(to.client_certificate))


def _read(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _verdict(error: Any) -> Verdict:
    reason = f"{error.code().name}: {error.details()}"
    retry_after = _retry_after(error)
    if error.code() in RETRYABLE or retry_after is not None:
        return Unavailable(reason, retry_after)
    # A server has a service for each signal that it takes: Jaeger none for metrics (jaegertracing/jaeger#2620).
    return Refused(reason, error.code() is grpc.StatusCode.UNIMPLEMENTED)


def _retry_after(error: Any) -> float | None:
    """Find the seconds that a collector asks to be left alone for, in the `RetryInfo` of its status."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return float(info.retry_delay.ToTimedelta().total_seconds())
    return None
