"""A real OTLP receiver for tests, over HTTP or gRPC: it decodes what arrives and keeps it."""

import gzip
import threading
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped] # it ships no types
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class ReceivedSpan(NamedTuple):
    """A span as it came over the wire."""

    resource: Mapping[str, Any]
    scope: InstrumentationScope
    schema_url: str
    span: Span
    peer: str
    """The connection that it came by."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        return decoded(self.span.attributes)


class ReceivedMetric(NamedTuple):
    """A metric as it came over the wire."""

    resource: Mapping[str, Any]
    scope: InstrumentationScope
    metric: Metric


class Receiver:
    """What has arrived, and how the next requests are answered."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.metrics: list[ReceivedMetric] = []
        self.headers: list[Mapping[str, str]] = []
        """Of each request, names in lower case."""
        self.refusals = 0
        """How many requests were refused."""
        self.refusing = False
        """Answer that the service is unavailable."""
        self.going = threading.Event()
        """Cleared, requests hang until it is set again."""
        self.going.set()
        self.endpoint = ""

    def take(
        self,
        request: ExportTraceServiceRequest | ExportMetricsServiceRequest,
        headers: Mapping[str, str],
        peer: str,
    ) -> bool:
        """Keep a request's content; False refuses it."""
        self.going.wait()
        if self.refusing:
            self.refusals += 1
            return False
        self.headers.append(headers)
        if isinstance(request, ExportTraceServiceRequest):
            for resource in request.resource_spans:
                about = decoded(resource.resource.attributes)
                for scope in resource.scope_spans:
                    self.spans += (
                        ReceivedSpan(about, scope.scope, scope.schema_url, span, peer) for span in scope.spans
                    )
        else:
            for collection in request.resource_metrics:
                about = decoded(collection.resource.attributes)
                for part in collection.scope_metrics:
                    self.metrics += (ReceivedMetric(about, part.scope, metric) for metric in part.metrics)
        return True


def decoded(attributes: Any) -> Mapping[str, Any]:
    """Attributes as Python values; a name that comes twice is an error."""
    pairs: list[KeyValue] = list(attributes)
    values = {pair.key: _value(pair.value) for pair in pairs}
    assert len(values) == len(pairs)
    return values


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    assert kind is not None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def receive_http() -> Iterator[Receiver]:
    """A receiver that speaks OTLP/HTTP with protobuf, gzip and deflate included."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            encoding = self.headers.get("Content-Encoding")
            if encoding == "gzip":
                body = gzip.decompress(body)
            elif encoding == "deflate":
                body = zlib.decompress(body)
            else:
                assert encoding is None
            assert self.headers["Content-Type"] == "application/x-protobuf"
            messages: dict[str, tuple[Any, Any]] = {
                "/v1/traces": (ExportTraceServiceRequest, ExportTraceServiceResponse),
                "/v1/metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
            }
            request, response = messages[self.path]
            headers = {name.lower(): value for name, value in self.headers.items()}
            taken = receiver.take(request.FromString(body), headers, str(self.client_address))
            answer = response().SerializeToString() if taken else b""
            self.send_response(HTTPStatus.OK if taken else HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True  # closing must not wait for a client that keeps its connection
        receiver.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="OTLP receiver")
        thread.start()
        try:
            yield receiver
        finally:
            receiver.going.set()
            server.shutdown()
            thread.join()


@contextmanager
def receive_grpc() -> Iterator[Receiver]:
    """A receiver that speaks OTLP/gRPC."""
    receiver = Receiver()

    def take(request: Any, context: Any) -> None:
        if not receiver.take(request, dict(context.invocation_metadata()), context.peer()):
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    class Traces(TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:  # noqa: N802 - the protocol's name
            take(request, context)
            return ExportTraceServiceResponse()

    class Metrics(MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> ExportMetricsServiceResponse:  # noqa: N802 - the protocol's name
            take(request, context)
            return ExportMetricsServiceResponse()

    with ThreadPoolExecutor(2, "OTLP receiver") as workers:
        server = grpc.server(workers)
        add_TraceServiceServicer_to_server(Traces(), server)  # type: ignore[no-untyped-call] # generated without types
        add_MetricsServiceServicer_to_server(Metrics(), server)  # type: ignore[no-untyped-call] # likewise
        receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield receiver
        finally:
            receiver.going.set()
            server.stop(grace=None).wait()
