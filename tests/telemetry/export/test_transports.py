"""What becomes of a request, by HTTP and by gRPC, of a real collector whatever it answers."""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import create_server
from typing import Any

import certifi
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from otlp_receiver import TLS, Answer, Receiver, receive_grpc, receive_http
from telemetry_support import no_variables

from runmeter.engine import ConfigurationError
from runmeter.telemetry import configure
from runmeter.telemetry.environment import destinations
from runmeter.telemetry.export.http_transport import HttpTransport, seconds
from runmeter.telemetry.export.verdict import Refused, Taken, Transport, Unavailable, taken
from runmeter.telemetry.providers import _connect

__all__ = ["no_variables"]
pytestmark = pytest.mark.usefixtures("no_variables")

RECEIVERS: dict[str, Callable[..., AbstractContextManager[Receiver]]] = {
    "http/protobuf": receive_http,
    "grpc": receive_grpc,
}
REQUEST = ExportTraceServiceRequest(
    resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[Span(name="one"), Span(name="two")])])]
).SerializeToString()
GENEROUS = 60.0


@pytest.fixture(params=list(RECEIVERS))
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def receiver(protocol: str) -> Iterator[Receiver]:
    with RECEIVERS[protocol]() as receiver:
        yield receiver


def connect(endpoint: str, protocol: str, **headers: str) -> Transport:
    [to] = destinations("traces", "otlp", protocol, endpoint, headers)
    return _connect("traces", to)


@pytest.fixture
def transport(receiver: Receiver, protocol: str) -> Iterator[Transport]:
    with closing(connect(receiver.endpoint, protocol)) as transport:
        yield transport


def test_a_request_is_taken(receiver: Receiver, transport: Transport) -> None:
    assert transport.send(REQUEST, GENEROUS) == Taken()
    assert transport.send(REQUEST, GENEROUS) == Taken()
    assert [received.span.name for received in receiver.spans] == ["one", "two"] * 2
    assert len({received.peer for received in receiver.spans}) == 1  # the connection is kept
    assert all("Runmeter-OTLP-Exporter-Python/" in headers["user-agent"] for headers in receiver.headers)


def test_part_of_it_is_rejected(receiver: Receiver, transport: Transport) -> None:
    receiver.answers.append(Answer(rejected=1, message="a span without a trace"))
    assert transport.send(REQUEST, GENEROUS) == Taken(1, "a span without a trace")


@pytest.mark.parametrize("status", [HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND])
def test_it_is_refused(receiver: Receiver, transport: Transport, status: HTTPStatus) -> None:
    receiver.answers.append(Answer(status))
    assert isinstance(transport.send(REQUEST, GENEROUS), Refused)


@pytest.mark.parametrize("status", [HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS])
def test_the_collector_says_when_to_come_again(receiver: Receiver, transport: Transport, status: HTTPStatus) -> None:
    receiver.answers.append(Answer(status, retry_after=60))
    verdict = transport.send(REQUEST, GENEROUS)
    assert isinstance(verdict, Unavailable)
    assert verdict.retry_after == 60.0


def test_the_collector_does_not_say_when_to_come_again(receiver: Receiver, transport: Transport) -> None:
    receiver.refusing = True
    verdict = transport.send(REQUEST, GENEROUS)
    assert isinstance(verdict, Unavailable)
    assert verdict.retry_after is None
    receiver.refusing = False
    assert transport.send(REQUEST, GENEROUS) == Taken()


def test_a_request_that_is_too_large_for_a_grpc_server_is_refused() -> None:
    large = ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[Span(name="x" * (4 << 20))])])]
    ).SerializeToString()
    with receive_grpc() as receiver, closing(connect(receiver.endpoint, "grpc")) as transport:
        verdict = transport.send(large, GENEROUS)
    assert isinstance(verdict, Refused)
    assert verdict.reason.startswith("RESOURCE_EXHAUSTED")


def test_nobody_listens(protocol: str) -> None:
    with closing(create_server(("127.0.0.1", 0))) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with closing(connect(f"{endpoint}/?key=secret", protocol)) as transport:
        verdict = transport.send(REQUEST, GENEROUS)
    assert isinstance(verdict, Unavailable)
    assert "refused" in verdict.reason
    assert "secret" not in verdict.reason


def test_no_answer_comes(receiver: Receiver, transport: Transport) -> None:
    assert transport.send(REQUEST, GENEROUS) == Taken()
    receiver.going.clear()
    assert isinstance(transport.send(REQUEST, 0.05), Unavailable)
    receiver.going.set()
    assert transport.send(REQUEST, GENEROUS) == Taken()
    assert transport.send(REQUEST, GENEROUS) == Taken()
    by_old, by_new = receiver.spans[0].peer, receiver.spans[-1].peer
    assert by_old != by_new  # the old one may have been dead


def test_closing_cuts_a_grpc_request_short() -> None:
    with receive_grpc() as receiver:
        receiver.going.clear()
        transport = connect(receiver.endpoint, "grpc")
        threading.Timer(0.05, transport.close).start()
        assert isinstance(transport.send(REQUEST, GENEROUS * 10), Unavailable)
        assert isinstance(transport.send(REQUEST, GENEROUS * 10), Refused)  # it stays closed


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_what_is_compressed_arrives(protocol: str, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", compression)
    with RECEIVERS[protocol]() as receiver, closing(connect(receiver.endpoint, protocol)) as transport:
        assert transport.send(REQUEST, GENEROUS) == Taken()
        assert len(receiver.spans) == 2


def test_headers_come_from_the_variable_and_the_argument(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20sk%3D1, X-Tenant=other")
    with (
        RECEIVERS[protocol]() as receiver,
        closing(connect(receiver.endpoint, protocol, **{"X-Tenant": "acme"})) as transport,
    ):
        transport.send(REQUEST, GENEROUS)
        [headers] = receiver.headers
        assert (headers["authorization"], headers["x-tenant"]) == ("Bearer sk=1", "acme")


def test_who_is_trusted_and_who_we_are_is_as_the_variables_say(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())  # what requests prefers to what its session says
    with RECEIVERS[protocol](tls=True) as receiver:
        with closing(connect(receiver.endpoint, protocol)) as transport:
            assert isinstance(transport.send(REQUEST, GENEROUS), Unavailable)  # an authority that nobody knows
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(TLS / "ca.pem"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", str(TLS / "client.pem"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(TLS / "client.key"))
        with closing(connect(receiver.endpoint, protocol)) as transport:
            assert transport.send(REQUEST, GENEROUS) == Taken()


@pytest.mark.parametrize(
    ("endpoint", "insecure", "is_insecure"),
    [
        ("collector:4317", "", False),
        ("collector:4317", "true", True),
        ("http://collector:4317", "false", True),  # the scheme says it
        ("https://collector:4317", "true", False),
    ],
)
def test_grpc_without_a_scheme_is_secure_unless_the_variable_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, insecure: str, is_insecure: bool
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", insecure)
    [to] = destinations("traces", "otlp", "grpc", endpoint)
    assert to.insecure == is_insecure


@pytest.mark.parametrize(
    ("signal", "variables", "timeout"),
    [
        ("traces", {}, 10.0),
        ("traces", {"OTEL_EXPORTER_OTLP_TIMEOUT": "3"}, 3.0),
        ("metrics", {"OTEL_EXPORTER_OTLP_TIMEOUT": "3", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "4"}, 4.0),
        ("traces", {"OTEL_BSP_EXPORT_TIMEOUT": "2500"}, 2.5),
        ("traces", {"OTEL_BSP_EXPORT_TIMEOUT": "60000"}, 10.0),
        ("metrics", {"OTEL_BSP_EXPORT_TIMEOUT": "2500"}, 10.0),
        ("metrics", {"OTEL_METRIC_EXPORT_TIMEOUT": "500"}, 0.5),
    ],
)
def test_a_request_takes_as_long_as_the_variables_say(
    monkeypatch: pytest.MonkeyPatch, signal: Any, variables: dict[str, str], timeout: float
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    [to] = destinations(signal, "otlp", None, None)
    assert to.timeout == timeout


def test_an_entry_point_provides_what_authenticates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER", "nobody_has_this")
    with pytest.raises(ConfigurationError, match="nobody_has_this"):
        configure(metrics_exporter="none")


# HTTP alone


class Scripted:
    """What a server answers: status, headers and body of one request after the other."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.requests = 0
        self.hang_up_after = 0
        """The request after which the connection is closed without a word."""
        self.hang_up_on = 0
        """The request that is not answered: its connection is closed instead."""
        self.closed = threading.Semaphore(0)
        """Released once for each connection that is closed, by either side."""


@pytest.fixture
def scripted() -> Iterator[tuple[Scripted, HttpTransport]]:
    script = Scripted()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            script.requests += 1
            if script.requests == script.hang_up_on:
                self.close_connection = True
                return
            status, headers, body = script.answers.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            if script.requests == script.hang_up_after:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

        def finish(self) -> None:
            super().finish()
            script.closed.release()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        [to] = destinations("traces", "otlp", "http/protobuf", f"http://127.0.0.1:{server.server_port}")
        transport = HttpTransport("traces", to)
        yield script, transport
        transport.close()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304, 401, 403, 413, 500, 501])
def test_any_other_status_is_a_refusal(scripted: tuple[Scripted, HttpTransport], status: int) -> None:
    script, transport = scripted
    script.answers = [(status, {"Location": "http://127.0.0.1:1/elsewhere"}, b"")]
    verdict = transport.send(REQUEST, GENEROUS)
    assert isinstance(verdict, Refused)
    assert verdict.reason.startswith(str(status))
    assert script.requests == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_the_specification_calls_retryable_is_tried_again(
    scripted: tuple[Scripted, HttpTransport], status: int
) -> None:
    script, transport = scripted
    script.answers = [(status, {}, b"try later")]
    assert isinstance(transport.send(REQUEST, GENEROUS), Unavailable)
    assert script.requests == 1  # by the queue, not here


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/json", b'{"partialSuccess": {}}'), ("text/html", b"<p>OK"), ("application/x-protobuf", b"\xff")],
)
def test_a_gateway_s_own_words_are_no_partial_success(
    scripted: tuple[Scripted, HttpTransport], content_type: str, body: bytes
) -> None:
    script, transport = scripted
    script.answers = [(200, {"Content-Type": content_type}, body)]
    assert transport.send(REQUEST, GENEROUS) == Taken()


def test_a_connection_that_the_collector_has_closed_meanwhile_is_replaced(
    scripted: tuple[Scripted, HttpTransport],
) -> None:
    script, transport = scripted
    script.answers = [(200, {}, b"")] * 2
    script.hang_up_after = 1
    assert transport.send(REQUEST, GENEROUS) == Taken()
    assert transport.send(REQUEST, GENEROUS) == Taken()


def test_connections_close_with_the_transport_even_after_an_error(scripted: tuple[Scripted, HttpTransport]) -> None:
    script, transport = scripted
    script.answers = [(200, {}, b"")] * 2
    script.hang_up_on = 2
    gc.disable()  # an error keeps the pool in a reference cycle, so collecting it would close the connection, too
    try:
        assert transport.send(REQUEST, GENEROUS) == Taken()
        assert transport.send(REQUEST, GENEROUS) == Taken()
        assert script.closed.acquire(timeout=GENEROUS)  # by the server
        transport.close()
        assert script.closed.acquire(timeout=GENEROUS)
    finally:
        gc.enable()


def test_a_header_that_cannot_be_sent_is_refused_before_and_not_shown() -> None:
    with pytest.raises(ConfigurationError) as refused:
        configure(headers={"authorization": "Bearer sk-secret\r\nX-Evil: 1"})
    assert "authorization" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_retry_after_is_seconds_or_a_date() -> None:
    assert seconds(None) is None
    assert seconds("120") == 120.0
    assert seconds("soon") is None
    assert seconds("-5") is None
    assert seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    in_a_minute = seconds(format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True))
    assert in_a_minute is not None
    assert 500 < in_a_minute <= 600


def test_a_message_that_says_nothing_says_nothing() -> None:
    assert taken("traces", b"") == taken("metrics", b"") == taken("metrics", b"\xff") == Taken()
