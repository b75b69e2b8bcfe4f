"""A real OTLP receiver for tests, over HTTP or gRPC: it decodes what arrives and keeps it."""

import gzip
import ssl
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped] # it ships no types
from google.protobuf.any_pb2 import Any as AnyMessage  # type: ignore[import-untyped] # likewise
from google.protobuf.duration_pb2 import Duration  # type: ignore[import-untyped] # likewise
from google.protobuf.message import Message  # type: ignore[import-untyped] # likewise
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped] # likewise
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped] # likewise
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
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

TLS = Path(__file__).parents[1] / "data/tls"
"""The certificates of an authority, a server and a client, and the keys of the latter two."""


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


class Answer(NamedTuple):
    """How a request is answered; with gRPC by the status that means the same."""

    status: HTTPStatus = HTTPStatus.OK
    retry_after: int | None = None
    """Seconds that the client is told to wait."""
    rejected: int = 0
    """Spans or data points that are not taken, of a request that is."""
    message: str = ""


GRPC_STATUS = {
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.UNIMPLEMENTED,
}
UNAVAILABLE = Answer(HTTPStatus.SERVICE_UNAVAILABLE, message="not now")


class Receiver:
    """What has arrived, and how the next requests are answered."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        """Of the next requests."""
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
    ) -> Answer:
        """Keep a request's content, if it is taken."""
        self.going.wait()
        answer = UNAVAILABLE if self.refusing else self.answers.pop(0) if self.answers else Answer()
        if answer.status != HTTPStatus.OK:
            self.refusals += 1
            return answer
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
        return answer


def partial_success(answer: Answer, signal: type[Any]) -> Message:
    """What is said to a request that is taken. A collector always says something of a partial success."""
    if signal is ExportTraceServiceRequest:
        return ExportTraceServiceResponse(
            partial_success=ExportTracePartialSuccess(rejected_spans=answer.rejected, error_message=answer.message)
        )
    return ExportMetricsServiceResponse(
        partial_success=ExportMetricsPartialSuccess(rejected_data_points=answer.rejected, error_message=answer.message)
    )


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


class _Server(ThreadingHTTPServer):
    """One whose closing does not wait for a client that keeps its connection, and that lets clients leave."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what broke, unless it is the client that has left."""
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError):
            super().handle_error(request, client_address)


@contextmanager
def receive_http(*, tls: bool = False, takes_metrics: bool = True) -> Iterator[Receiver]:
    """A receiver that speaks OTLP/HTTP with protobuf, gzip and deflate included; with TLS to the tests' client only."""
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
            if self.path == "/v1/metrics" and not takes_metrics:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            requests: dict[str, type[Any]] = {
                "/v1/traces": ExportTraceServiceRequest,
                "/v1/metrics": ExportMetricsServiceRequest,
            }
            request = requests[self.path]
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.take(request.FromString(body), headers, str(self.client_address))
            said = partial_success(answer, request).SerializeToString() if answer.status == HTTPStatus.OK else b""
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(said)))
            if answer.retry_after is not None:
                self.send_header("Retry-After", str(answer.retry_after))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=TLS / "ca.pem")
            context.load_cert_chain(TLS / "server.pem", TLS / "server.key")
            context.verify_mode = ssl.CERT_REQUIRED
            server.socket = context.wrap_socket(server.socket, server_side=True)
        receiver.endpoint = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="OTLP receiver")
        thread.start()
        try:
            yield receiver
        finally:
            receiver.going.set()
            server.shutdown()
            thread.join()


@contextmanager
def receive_grpc(*, tls: bool = False, takes_metrics: bool = True) -> Iterator[Receiver]:
    """A receiver that speaks OTLP/gRPC; with TLS to the tests' client alone."""
    receiver = Receiver()

    def export(request: Any, context: Any) -> Any:
        answer = receiver.take(request, dict(context.invocation_metadata()), context.peer())
        if answer.status != HTTPStatus.OK:
            if answer.retry_after is not None:
                detail = AnyMessage()
                detail.Pack(RetryInfo(retry_delay=Duration(seconds=answer.retry_after)))
                status = Status(code=14, message=answer.message, details=[detail])
                context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(GRPC_STATUS[answer.status], answer.message)
        return partial_success(answer, type(request))

    class Traces(TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
            return export(request, context)

    class Metrics(MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
            return export(request, context)

    with ThreadPoolExecutor(2, "OTLP receiver") as workers:
        server = grpc.server(workers)
        add_TraceServiceServicer_to_server(Traces(), server)  # type: ignore[no-untyped-call] # generated without types
        if takes_metrics:
            add_MetricsServiceServicer_to_server(Metrics(), server)  # type: ignore[no-untyped-call] # likewise
        if tls:
            pair = (TLS / "server.key").read_bytes(), (TLS / "server.pem").read_bytes()
            credentials = grpc.ssl_server_credentials([pair], (TLS / "ca.pem").read_bytes(), require_client_auth=True)
            receiver.endpoint = f"https://127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
        else:
            receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield receiver
        finally:
            receiver.going.set()
            server.stop(grace=None).wait()


def main(protocol: str) -> None:
    """Receive in a process of its own; at a line of input say how many spans came, and how many of them differ."""
    with {"http/protobuf": receive_http, "grpc": receive_grpc}[protocol]() as receiver:
        print(receiver.endpoint, flush=True)  # noqa: T201 - that is how it says where it is
        sys.stdin.readline()
        print(len(receiver.spans), len({received.span.span_id for received in receiver.spans}))  # noqa: T201 - likewise


if __name__ == "__main__":
    main(sys.argv[1])
