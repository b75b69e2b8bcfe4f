"""The standard `OTEL_*` environment variables: which there are, their allowed values, and the settings they make.

The SDK itself logs a warning about a value it cannot read and goes on with another one. Here a wrong value is an error
that names the variable, the value and what is allowed: traces that silently go nowhere are worse than none.

Sources: OpenTelemetry specification, "OpenTelemetry Protocol Exporter"
(opentelemetry.io/docs/specs/otel/protocol/exporter, read 2026-11-22); for the values that the Python SDK reads, the
source of opentelemetry-sdk 1.45.2 and of its exporters. Among them times differ: those of `OTEL_EXPORTER_OTLP_*` are
seconds, all others milliseconds.
"""

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

from runmeter.engine import ConfigurationError

Signal: TypeAlias = Literal["traces", "metrics"]

DEFAULT_PROTOCOL = "http/protobuf"
"""The protocol that the specification recommends; the Python SDK's auto-configuration still takes grpc."""
DEFAULT_ENDPOINTS = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}
DEFAULT_TIMEOUT = 10.0
"""Seconds that one request may take by default."""
DEFAULT_BATCH_SIZE = 512
"""Spans in one request by default, at most."""
DEFAULT_DELAY = 5_000.0
"""Milliseconds that a span waits by default for a request to fill up."""


class Rule(NamedTuple):
    """The values that a variable may have."""

    allowed: str
    accepts: Callable[[str], bool]
    secret: bool = False
    """A secret value is not shown in errors."""


def _one_of(*values: str) -> Rule:
    return Rule(" or ".join(values), lambda value: value.lower() in values)


def _list_of(*values: str) -> Rule:
    return Rule(
        f"a list of {', '.join(values)}",
        lambda value: all(item.strip().lower() in values for item in value.split(",")),
    )


def _number(allowed: str, accepts: Callable[[float], bool], kind: type[float] = float) -> Rule:
    def check(value: str) -> bool:
        try:
            return accepts(kind(value))
        except ValueError:
            return False

    return Rule(allowed, check)


def _is_endpoint(value: str) -> bool:
    if "://" not in value:  # host:port, for gRPC
        value = f"http://{value}"
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_pairs(value: str) -> bool:
    return all("=" in item and not item.strip().startswith("=") for item in value.split(",") if item.strip())


def _is_readable(value: str) -> bool:
    return Path(value).is_file() and os.access(value, os.R_OK)


def _is_header(name: str, value: str) -> bool:
    return re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) is not None and value.isascii() and value.isprintable()


_PROTOCOL = _one_of("grpc", "http/protobuf")
_ENDPOINT = Rule("a URL with http or https, or host:port for grpc", _is_endpoint)
_HEADERS = Rule(
    "a list of name=value, the values URL-encoded",
    lambda value: _is_pairs(value) and all(_is_header(*pair) for pair in _pairs(value).items()),
    secret=True,
)
_FILE = Rule("a file that can be read", _is_readable)
_EXPORTER = _list_of("otlp", "console", "none")
_FLAG = _one_of("true", "false")
_POSITIVE = _number("a positive number", lambda number: 0 < number < float("inf"))
_COUNT = _number("a positive whole number", lambda number: number > 0, int)
_LIMIT = _number("a whole number, not negative", lambda number: number >= 0, int)

RULES: Mapping[str, Rule] = {
    "OTEL_SDK_DISABLED": _FLAG,
    "OTEL_TRACES_EXPORTER": _EXPORTER,
    "OTEL_METRICS_EXPORTER": _EXPORTER,
    **{
        f"OTEL_EXPORTER_OTLP_{signal}{setting}": rule
        for signal in ("", "TRACES_", "METRICS_")
        for setting, rule in (
            ("PROTOCOL", _PROTOCOL),
            ("ENDPOINT", _ENDPOINT),
            ("HEADERS", _HEADERS),
            ("TIMEOUT", _POSITIVE),
            ("COMPRESSION", _one_of("gzip", "deflate", "none")),
            ("INSECURE", _FLAG),
            ("CERTIFICATE", _FILE),
            ("CLIENT_KEY", _FILE),
            ("CLIENT_CERTIFICATE", _FILE),
        )
    },
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": _one_of("cumulative", "delta", "lowmemory"),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": _one_of(
        "explicit_bucket_histogram", "base2_exponential_bucket_histogram"
    ),
    "OTEL_RESOURCE_ATTRIBUTES": Rule("a list of name=value", _is_pairs),
    "OTEL_TRACES_SAMPLER": _one_of(
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ),
    "OTEL_TRACES_SAMPLER_ARG": _number("a number from 0 to 1", lambda number: 0 <= number <= 1),
    "OTEL_BSP_SCHEDULE_DELAY": _COUNT,
    "OTEL_BSP_EXPORT_TIMEOUT": _COUNT,
    "OTEL_BSP_MAX_QUEUE_SIZE": _COUNT,
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": _COUNT,
    "OTEL_METRIC_EXPORT_INTERVAL": _POSITIVE,
    "OTEL_METRIC_EXPORT_TIMEOUT": _POSITIVE,
    "OTEL_METRICS_EXEMPLAR_FILTER": _one_of("trace_based", "always_on", "always_off"),
    "OTEL_ATTRIBUTE_COUNT_LIMIT": _LIMIT,
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": _LIMIT,
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": _LIMIT,
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": _LIMIT,
}
"""The variables that bear on what is sent here, by name."""


class Destination(NamedTuple):
    """The destination of one signal, with its exporter's settings."""

    exporter: str
    """Kind of the exporter: `otlp` or `console`."""
    protocol: str
    endpoint: str
    compression: str
    timeout: float
    """Seconds that one request may take."""
    headers: Mapping[str, str]
    """Sent with every request, names in lower case. Secret."""
    insecure: bool
    """Requests go without TLS. Of interest to gRPC alone: a URL says it by itself."""
    certificate: str | None
    """The file of the authorities to trust; None trusts those of the system."""
    client_key: str | None
    client_certificate: str | None
    credential_provider: str | None
    """The entry point of what makes a session (HTTP) or credentials (gRPC), as the Python SDK has it."""

    @property
    def is_console(self) -> bool:
        """The destination is the standard output."""
        return self.exporter == "console"


class Batching(NamedTuple):
    """The rules by which spans are put into requests."""

    queue: float
    """Spans that may wait; infinite where only their bytes are bounded."""
    batch: int
    """Spans in a request, at most."""
    delay: float
    """Seconds that a span waits for a request to fill up."""


def variable(name: str) -> str | None:
    """Read a variable's value; None if it is unset or empty.

    Raises:
        ConfigurationError: it says something it may not say.
    """
    value = os.environ.get(name, "").strip()
    return _checked(name, value, RULES[name]) if value else None


def check_variables() -> None:
    """Check every variable that is set, those included that only the SDK reads.

    Raises:
        ConfigurationError: one says something it may not say.
    """
    for name in RULES:
        variable(name)


def is_disabled() -> bool:
    """Tell whether telemetry is disabled altogether (`OTEL_SDK_DISABLED`)."""
    return (variable("OTEL_SDK_DISABLED") or "false").lower() == "true"


def destinations(
    signal: Signal,
    exporters: str | None,
    protocol: str | None,
    endpoint: str | None,
    headers: Mapping[str, str] | None = None,
) -> tuple[Destination, ...]:
    """Find a signal's destinations. Arguments come before variables, and the signal's variables before those of all.

    Raises:
        ConfigurationError: an argument or a variable says something it may not say.
    """
    prefix = signal.upper()
    exporters = _argument(f"{signal}_exporter", exporters, _EXPORTER) or variable(f"OTEL_{prefix}_EXPORTER") or "otlp"
    protocol = _argument("protocol", protocol, _PROTOCOL) or _setting(prefix, "PROTOCOL") or DEFAULT_PROTOCOL
    protocol = protocol.lower()
    endpoint = _endpoint(signal, protocol, endpoint)
    to = Destination(
        exporter="",
        protocol=protocol,
        endpoint=endpoint,
        compression=(_setting(prefix, "COMPRESSION") or "none").lower(),
        timeout=_timeout(prefix),
        headers=_headers(prefix, headers),
        insecure=_is_insecure(prefix, endpoint),
        certificate=_setting(prefix, "CERTIFICATE"),
        client_key=_setting(prefix, "CLIENT_KEY"),
        client_certificate=_setting(prefix, "CLIENT_CERTIFICATE"),
        credential_provider=_credential_provider(prefix, protocol),
    )
    names = dict.fromkeys(name.strip().lower() for name in exporters.split(","))
    return tuple(to._replace(exporter=name) for name in names if name != "none")


def batching() -> Batching:
    """Read the rules by which spans are put into requests.

    Raises:
        ConfigurationError: a variable says something it may not say, or more at once than may wait.
    """
    queue = float(variable("OTEL_BSP_MAX_QUEUE_SIZE") or math.inf)
    batch = int(variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or min(DEFAULT_BATCH_SIZE, queue))
    if batch > queue:
        raise ConfigurationError(
            f"OTEL_BSP_MAX_EXPORT_BATCH_SIZE={batch}: allowed is at most OTEL_BSP_MAX_QUEUE_SIZE, which is {queue:.0f}"
        )
    return Batching(queue, batch, float(variable("OTEL_BSP_SCHEDULE_DELAY") or DEFAULT_DELAY) / 1e3)


def _timeout(prefix: str) -> float:
    """Choose the shorter timeout, of the exporter's and of those who hand over to it. Only the latter is in ms."""
    timeout = float(_setting(prefix, "TIMEOUT") or DEFAULT_TIMEOUT)
    handing_over = variable("OTEL_BSP_EXPORT_TIMEOUT" if prefix == "TRACES" else "OTEL_METRIC_EXPORT_TIMEOUT")
    return timeout if handing_over is None else min(timeout, float(handing_over) / 1e3)


def _headers(prefix: str, argument: Mapping[str, str] | None) -> Mapping[str, str]:
    headers = _pairs(_setting(prefix, "HEADERS") or "")
    for name, value in (argument or {}).items():
        if not _is_header(name, value):
            raise ConfigurationError(f"headers={{{name!r}: (not shown)}}: allowed are names and values in plain ASCII")
        headers[name.lower()] = value
    return headers


def _pairs(value: str) -> dict[str, str]:
    pairs = (item.partition("=") for item in value.split(",") if item.strip())
    return {unquote(name).strip().lower(): unquote(said).strip() for name, _, said in pairs}


def _is_insecure(prefix: str, endpoint: str) -> bool:
    """Tell whether gRPC goes without TLS. The variable counts only where the endpoint has no scheme, as specified."""
    if "://" in endpoint:
        return endpoint.startswith("http://")
    return (_setting(prefix, "INSECURE") or "false").lower() == "true"


def _credential_provider(prefix: str, protocol: str) -> str | None:
    name = f"OTEL_PYTHON_EXPORTER_OTLP_{'GRPC' if protocol == 'grpc' else 'HTTP'}"
    return os.environ.get(f"{name}_CREDENTIAL_PROVIDER") or os.environ.get(f"{name}_{prefix}_CREDENTIAL_PROVIDER")


def _setting(prefix: str, name: str) -> str | None:
    return variable(f"OTEL_EXPORTER_OTLP_{prefix}_{name}") or variable(f"OTEL_EXPORTER_OTLP_{name}")


def _endpoint(signal: Signal, protocol: str, argument: str | None) -> str:
    """Find a signal's endpoint: its own as it is, or the one for all signals, with HTTP completed by a path."""
    own = variable(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT") if argument is None else None
    base = _argument("endpoint", argument, _ENDPOINT) or own or variable("OTEL_EXPORTER_OTLP_ENDPOINT")
    base = base or DEFAULT_ENDPOINTS[protocol]
    if protocol == "grpc":
        return base
    if "://" not in base:
        raise ConfigurationError(f"endpoint {base!r}: allowed with http/protobuf is a URL, such as http://{base}")
    return base if own else f"{base.rstrip('/')}/v1/{signal}"


def _argument(name: str, value: str | None, rule: Rule) -> str | None:
    return None if value is None else _checked(name, value, rule)


def _checked(name: str, value: str, rule: Rule) -> str:
    if not rule.accepts(value):
        shown = "(not shown)" if rule.secret else repr(value)
        raise ConfigurationError(f"{name}={shown}: allowed is {rule.allowed}")
    return value
