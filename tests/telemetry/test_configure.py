"""Setting telemetry up: what the variables say, what arguments override, and what is refused."""

import json

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import NoOpTracerProvider
from process_support import output_of, python
from telemetry_support import no_variables

from runmeter.engine import ConfigurationError, Event, Execution, ModelRequest, RunInfo, Runtime, Telemetry
from runmeter.telemetry import OpenTelemetry, configure
from runmeter.telemetry.meter_provider import AccumulatingMeterProvider

__all__ = ["no_variables"]
pytestmark = pytest.mark.usefixtures("no_variables")


def exporters(telemetry: OpenTelemetry) -> list[str]:
    """Where it exports to."""
    names = [exporter.name for exporter in telemetry.statistics().exporters]
    telemetry.shutdown()
    return names


def test_it_is_what_an_engine_takes() -> None:
    telemetry: Telemetry = configure(traces_exporter="none", metrics_exporter="none")
    assert isinstance(telemetry, OpenTelemetry)
    telemetry.shutdown()


@pytest.mark.parametrize(
    ("variables", "traces", "metrics"),
    [
        ({}, ["http://localhost:4318/v1/traces"], ["http://localhost:4318/v1/metrics"]),
        ({"PROTOCOL": "grpc"}, ["http://localhost:4317"], ["http://localhost:4317"]),
        ({"METRICS_PROTOCOL": "grpc"}, ["http://localhost:4318/v1/traces"], ["http://localhost:4317"]),
        ({"ENDPOINT": "http://c:1/base/"}, ["http://c:1/base/v1/traces"], ["http://c:1/base/v1/metrics"]),
        ({"TRACES_ENDPOINT": "http://c:1/mine"}, ["http://c:1/mine"], ["http://localhost:4318/v1/metrics"]),
        ({"ENDPOINT": "c:4317", "PROTOCOL": "grpc", "INSECURE": "true"}, ["c:4317"], ["c:4317"]),
        ({"ENDPOINT": "http://user:secret@c:1"}, ["http://c:1/v1/traces"], ["http://c:1/v1/metrics"]),
        ({"ENDPOINT": "", "PROTOCOL": " "}, ["http://localhost:4318/v1/traces"], ["http://localhost:4318/v1/metrics"]),
    ],
)
def test_where_it_goes_by_the_variables(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], traces: list[str], metrics: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    assert exporters(configure()) == [f"traces to {to}" for to in traces] + [f"metrics to {to}" for to in metrics]


@pytest.mark.parametrize(
    ("traces", "metrics", "names"),
    [
        ("none", "none", []),
        ("console", "none", ["traces to console"]),
        ("otlp, console,otlp", "none", ["traces to http://localhost:4318/v1/traces", "traces to console"]),
        ("NONE", "Console", ["metrics to console"]),
    ],
)
def test_which_exporters_by_the_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], traces: str, metrics: str, names: list[str]
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", traces)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", metrics)
    assert exporters(configure()) == names


def test_arguments_come_before_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://variable:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "variable")
    telemetry = configure(
        endpoint="http://argument:2", protocol="grpc", metrics_exporter="none", service_name="argument"
    )
    assert telemetry.tracer_provider is not None
    assert telemetry.tracer_provider.resource.attributes["service.name"] == "argument"
    assert exporters(telemetry) == ["traces to http://argument:2"]


def test_the_resource_is_what_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other")
    telemetry = configure(traces_exporter="none", metrics_exporter="none")
    assert telemetry.tracer_provider is not None
    attributes = telemetry.tracer_provider.resource.attributes
    assert attributes["service.name"] == "shop"
    assert attributes["deployment.environment.name"] == "test"
    telemetry.shutdown()


@pytest.mark.parametrize(
    ("sampler", "argument", "share"),
    [("always_off", "", 0), ("always_on", "", 1), ("parentbased_traceidratio", "0.5", 0.5), ("traceidratio", "0", 0)],
)
def test_the_sampler_is_what_the_variables_say(
    monkeypatch: pytest.MonkeyPatch, sampler: str, argument: str, share: float
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    telemetry = configure(traces_exporter="none", metrics_exporter="none")
    sampled = 0
    for _ in range(400):
        trace, token = telemetry.start_span()
        telemetry.end_span(token)
        assert trace is not None
        sampled += trace.sampled
    assert abs(sampled - 400 * share) <= (60 if 0 < share < 1 else 0)  # six standard deviations
    telemetry.shutdown()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("OTEL_SDK_DISABLED", "yes", "true or false"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp, console, none"),
        ("OTEL_METRICS_EXPORTER", "otlp,prometheus", "otlp, console, none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http", "grpc or http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector", "a URL with http or https"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:port", "a URL with http or https"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://", "a URL with http or https"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "a positive number"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "a positive number"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zip", "gzip or deflate or none"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "1", "true or false"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_always_on"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "a number from 0 to 1"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", "a number from 0 to 1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "a positive whole number"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "a positive whole number"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "a positive number"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team", "name=value"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-5", "not negative"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "both", "cumulative"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        configure()
    assert name in str(refused.value)
    assert repr(value) in str(refused.value)
    assert allowed in str(refused.value)


def test_headers_are_secret_even_if_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Bearer sk-secret")
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_HEADERS") as refused:
        configure()
    assert "sk-secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "udp"}, "protocol='udp': allowed is grpc or http/protobuf"),
        ({"endpoint": "collector:4318"}, "such as http://collector:4318"),
        ({"endpoint": "nonsense://x"}, "endpoint='nonsense://x'"),
        ({"traces_exporter": "jaeger"}, "traces_exporter='jaeger'"),
        ({"tracer_provider": NoOpTracerProvider()}, "TracerProvider of opentelemetry.sdk"),
        ({"meter_provider": "none"}, "MeterProvider of opentelemetry.sdk"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace("(", r"\(")):
        configure(**arguments)  # type: ignore[arg-type] # wrong on purpose


def test_a_batch_must_fit_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    telemetry = configure()  # the default batch is cut to fit
    telemetry.shutdown()
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "101")
    with pytest.raises(ConfigurationError, match=r"OTEL_BSP_MAX_EXPORT_BATCH_SIZE=101.*is 100"):
        configure()


def test_an_applications_providers_are_used_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    tracer_provider = TracerProvider(ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    meter_provider = MeterProvider(shutdown_on_exit=False)
    telemetry = configure(tracer_provider=tracer_provider, meter_provider=meter_provider)
    assert telemetry.tracer_provider is tracer_provider
    assert telemetry.meter_provider is meter_provider
    assert telemetry.statistics().exporters == ()
    trace, token = telemetry.start_span()
    telemetry.end_span(token)
    assert trace is not None
    assert not trace.sampled
    telemetry.shutdown()
    meter_provider.get_meter("still open").create_counter("c").add(1)
    meter_provider.shutdown()  # would warn had we shut it down already


def test_the_console_shows_spans(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = configure(traces_exporter="console", metrics_exporter="none")
    events: list[Event] = []
    runtime = Runtime(None, events.append, tracing=telemetry)
    request = ModelRequest(provider="openai", model="gpt-6-luna")
    with Execution(runtime, RunInfo("support")) as run, run.model_call(request):
        pass
    telemetry.receive(events)
    telemetry.shutdown()
    shown = capsys.readouterr().out
    assert '"name": "chat gpt-6-luna"' in shown
    assert '"name": "invoke_agent support"' in shown


@pytest.mark.parametrize(
    ("exporter", "variable", "value", "accumulated"),
    [
        ("otlp", "OTEL_METRICS_EXEMPLAR_FILTER", "trace_based", True),
        ("otlp,console", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", True),
        ("none", "OTEL_METRICS_EXEMPLAR_FILTER", "always_off", True),
        ("otlp", "OTEL_METRICS_EXEMPLAR_FILTER", "always_on", False),
        (
            "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            "base2_exponential_bucket_histogram",
            False,
        ),
    ],
)
def test_measurements_are_accumulated_unless_only_the_sdk_can_do_what_is_asked(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    exporter: str,
    variable: str,
    value: str,
    accumulated: bool,
) -> None:
    monkeypatch.setenv(variable, value)
    telemetry = configure(traces_exporter="none", metrics_exporter=exporter)
    assert isinstance(telemetry.meter_provider, AccumulatingMeterProvider) == accumulated
    telemetry.shutdown()


def test_the_console_shows_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = configure(traces_exporter="none", metrics_exporter="console", service_name="shop")
    events: list[Event] = []
    with Execution(Runtime(None, events.append, tracing=telemetry), RunInfo("support")):
        pass
    telemetry.receive(events)
    telemetry.shutdown()
    [about] = json.loads(capsys.readouterr().out)["resource_metrics"]
    assert about["resource"]["attributes"]["service.name"] == "shop"
    [scope] = about["scope_metrics"]
    assert "gen_ai.invoke_agent.duration" in {metric["name"] for metric in scope["metrics"]}


def test_importing_is_light_and_configuring_loads_what_it_needs() -> None:
    script = """
import json, sys
import runmeter
light = sorted(name for name in sys.modules if name.partition(".")[0] == "opentelemetry")
import runmeter.telemetry
after_import = sorted(name for name in sys.modules if name.startswith(("opentelemetry.", "grpc")))
from runmeter.telemetry import configure
telemetry = configure()
configured = "opentelemetry.sdk.trace" in sys.modules, "grpc" in sys.modules
telemetry.shutdown()
print(json.dumps([light, after_import, configured]))
"""
    assert json.loads(output_of(python(script))) == [[], [], [True, False]]
