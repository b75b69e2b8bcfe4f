"""Events to metrics: what is measured, by which attributes, and what is not claimed."""

from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from semconv_check import REGISTRY, check_metrics
from telemetry_support import Captured, captured, no_variables

from runmeter.engine import CostEstimate, Engine, Execution, ModelRequest, Provenance, RunInfo, TokenUsage, Usage
from runmeter.engine.testing import ManualClock
from runmeter.telemetry import semconv
from runmeter.telemetry.semconv import Metric

__all__ = ["captured", "no_variables"]

LUNA = ModelRequest(
    provider="openai", model="gpt-6-luna", stream=True, server_address="api.openai.com", server_port=443
)
OF_THE_REQUEST = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-6-luna",
    "server.address": "api.openai.com",
    "server.port": 443,
    "runmeter.pattern": "support",
}
METRICS = [value for value in vars(semconv).values() if isinstance(value, Metric)]


def two_dollars(event: TokenUsage) -> CostEstimate:
    known = event.usage is not None and event.provenance is Provenance.REPORTED
    return CostEstimate.between(Decimal(2), Decimal(2)) if known else CostEstimate(high_units=None)


def by(points: list[Any], name: str) -> Mapping[Any, Any]:
    """A counter's values by one of its attributes."""
    return {point.attributes[name]: point.value for point in points}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_instrument_is_as_the_registry_has_it(metric: Metric) -> None:
    if metric.name.startswith("runmeter."):
        assert metric.unit.startswith("{")
        return
    definition = REGISTRY.metrics[metric.name]
    assert metric.unit == definition.unit
    assert (metric.buckets is None) == (definition.instrument == "counter")
    assert metric.buckets == definition.buckets


def test_the_check_finds_what_is_wrong() -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("test")
    meter.create_counter("gen_ai.client.token.usage", "{token}").add(1)
    meter.create_histogram("gen_ai.client.inference.duration", "ms").record(1, {"gen_ai.tool.name": "x"})
    data = reader.get_metrics_data()
    assert data is not None
    found = "\n".join(check_metrics(data))
    for wrong in (
        "token.usage: unknown",
        "unit is ms",
        "tool.name is not defined",
        "is required",
        "buckets",
        "value is 1",
    ):
        assert wrong in found


@pytest.mark.usefixtures("no_variables")
def test_a_request_is_measured() -> None:
    captured = Captured(price=two_dollars)
    clock = ManualClock()
    with Execution(captured.runtime(clock), RunInfo("support")) as run, run.model_call(LUNA) as call:
        clock.advance(0.5)
        call.first_chunk()
        clock.advance(1)
        usage = Usage(1000, 200, cache_read_tokens=600, cache_write_tokens=30, reasoning_tokens=50)
        call.record(usage, response_model="gpt-6-luna-2026-09-01", service_tier="default")
    captured.receive()
    measured = captured.measured()
    described = {**OF_THE_REQUEST, "gen_ai.response.model": "gpt-6-luna-2026-09-01"}
    served = {**described, "openai.response.service_tier": "default"}
    usage_metrics = "gen_ai.client.inference.usage."
    assert {
        name.removeprefix(usage_metrics): [(point.value, dict(point.attributes)) for point in points]
        for name, points in measured.items()
        if name.startswith(usage_metrics)
    } == {
        kind: [(tokens, {**served, "gen_ai.token.modality": "unknown"})]
        for kind, tokens in (
            ("input_tokens", 1000),
            ("output_tokens", 200),
            ("cache_read.input_tokens", 600),
            ("cache_write.input_tokens", 30),
            ("reasoning.output_tokens", 50),
        )
    }
    for name, value, attributes in (
        ("gen_ai.client.inference.duration", 1.5, served),
        ("gen_ai.client.inference.time_to_first_chunk", 0.5, described),
        ("gen_ai.client.inference.operation.input_tokens", 1000, served),
        ("gen_ai.client.inference.operation.output_tokens", 200, served),
    ):
        [point] = measured[name]
        assert (point.count, point.sum, dict(point.attributes)) == (1, value, attributes), name
    [cost] = measured["runmeter.cost"]
    assert (cost.value, dict(cost.attributes)) == (2.0, described)
    assert "runmeter.unpriced_requests" not in measured


def test_tokens_are_split_by_the_modality_that_is_known(captured: Captured) -> None:
    usage = Usage(
        100,
        50,
        cache_read_tokens=30,
        audio_input_tokens=40,
        audio_cache_read_tokens=20,
        audio_output_tokens=50,
        image_input_tokens=10,
    )
    with captured.execution() as run, run.model_call(LUNA) as call:
        call.record(usage)
    captured.receive()
    measured, split = captured.measured(), "gen_ai.token.modality"
    counted = {name: by(points, split) for name, points in measured.items() if ".inference.usage." in name}
    assert counted == {
        "gen_ai.client.inference.usage.input_tokens": {"unknown": 50, "audio": 40, "image": 10},
        "gen_ai.client.inference.usage.output_tokens": {"audio": 50},
        "gen_ai.client.inference.usage.cache_read.input_tokens": {"unknown": 10, "audio": 20},
    }


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize(("count_unreported", "counted"), [(False, 1), (True, 1 + 10 + 100)])
def test_tokens_that_no_api_reported_count_only_where_asked_for(count_unreported: bool, counted: int) -> None:
    captured = Captured(price=two_dollars, count_unreported=count_unreported)
    with captured.execution() as run:
        for tokens, provenance in (
            (1, Provenance.REPORTED),
            (10, Provenance.ESTIMATED),
            (100, Provenance.PARTIAL),
        ):
            with run.model_call(LUNA) as call:
                call.record(Usage(tokens, tokens), provenance)
        with run.model_call(LUNA):
            pass  # and nothing is known of this one
    captured.receive()
    measured = captured.measured()
    [tokens_in] = measured["gen_ai.client.inference.usage.input_tokens"]
    assert tokens_in.value == counted
    [cost] = measured["runmeter.cost"]
    [unpriced] = measured["runmeter.unpriced_requests"]
    assert (cost.value, unpriced.value) == (2.0, 3)


def test_notices_are_counted_by_kind(captured: Captured) -> None:
    with captured.execution() as run:
        for kind in ("budget", "model_retirement", "budget"):
            run.notice(kind, "gpt-5-mini", "it nears its end")
    captured.receive()
    points = captured.measured()["runmeter.notices"]
    assert by(points, "runmeter.notice.kind") == {"budget": 2, "model_retirement": 1}
    assert {frozenset(point.attributes) for point in points} == {
        frozenset({"runmeter.pattern", "runmeter.notice.kind"})
    }


def test_a_failed_request_is_measured_by_its_error(captured: Captured) -> None:
    with captured.execution() as run, suppress(ConnectionError), run.model_call(LUNA):
        raise ConnectionError
    captured.receive()
    measured = captured.measured()
    [duration] = measured["gen_ai.client.inference.duration"]
    assert dict(duration.attributes) == {**OF_THE_REQUEST, "error.type": "ConnectionError"}
    assert not [name for name in measured if "tokens" in name]


def test_embeddings_have_metrics_of_their_own(captured: Captured) -> None:
    request = ModelRequest(provider="openai", model="text-embedding-3-small", operation="embeddings")
    with captured.execution() as run, run.model_call(request) as call:
        call.record(Usage(77), service_tier="default")
    captured.receive()
    measured = captured.measured()
    [tokens] = measured["gen_ai.client.embeddings.operation.input_tokens"]
    assert tokens.sum == 77
    [duration] = measured["gen_ai.client.embeddings.duration"]
    assert duration.count == 1
    assert not [name for name in measured if "inference." in name]


def test_agents_workflows_and_tools_are_measured(captured: Captured) -> None:
    clock = ManualClock()
    with Execution(captured.runtime(clock), RunInfo("desk", operation="invoke_workflow")) as workflow:
        with workflow.child(RunInfo("support")) as run:
            with run.model_call(LUNA), suppress(KeyError), run.function_call("find"):
                clock.advance(2)
                raise KeyError("x")
            with run.assistant_run("clerk"):
                clock.advance(1)
        with suppress(ConnectionError), workflow.child(RunInfo("support")):
            raise ConnectionError
        clock.advance(10)
    captured.receive()
    measured = captured.measured()
    [whole] = measured["gen_ai.invoke_workflow.duration"]
    assert (whole.sum, dict(whole.attributes)) == (
        13,
        {"gen_ai.workflow.name": "desk", "runmeter.pattern": "desk"},
    )
    agents = {
        (point.attributes["gen_ai.agent.name"], point.attributes.get("error.type")): point.sum
        for point in measured["gen_ai.invoke_agent.duration"]
    }
    assert agents == {("support", None): 3, ("support", "ConnectionError"): 0, ("clerk", None): 1}
    [tool] = measured["gen_ai.execute_tool.duration"]
    assert dict(tool.attributes) == {
        "gen_ai.tool.name": "find",
        "gen_ai.tool.type": "function",
        "gen_ai.agent.name": "support",
        "runmeter.pattern": "support",
        "error.type": "KeyError",
    }
    for name in ("gen_ai.invoke_agent.inference_calls", "gen_ai.invoke_agent.tool_calls"):
        [calls] = measured[name]
        assert (calls.count, calls.sum) == (2, 1)  # one a run, the one that failed before it called anything included
        assert dict(calls.attributes) == {"gen_ai.agent.name": "support", "runmeter.pattern": "support"}


def test_a_retrieval_is_measured(captured: Captured) -> None:
    clock = ManualClock()
    with Execution(captured.runtime(clock), RunInfo("support")) as run:
        with run.retrieval("vs_1") as search:
            clock.advance(0.5)
            search.record(3)
        with suppress(TimeoutError), run.retrieval("local"):
            clock.advance(2)
            raise TimeoutError
    captured.receive()
    of_retrievals = {"gen_ai.operation.name": "retrieval", "runmeter.pattern": "support"}
    points = captured.measured()["gen_ai.client.operation.duration"]
    assert [(point.sum, dict(point.attributes)) for point in points] == [
        (0.5, of_retrievals),
        (2, {**of_retrievals, "error.type": "TimeoutError"}),
    ]


async def test_the_metrics_of_an_engine_are_the_engines_statistics(captured: Captured) -> None:
    from runmeter.engine import current_execution

    async def pattern(messages: Any, context: Any) -> None:
        with current_execution().model_call(LUNA) as call:
            call.record(Usage(10, 3))

    async with Engine(telemetry=captured.telemetry) as engine:
        results = await engine.map(pattern, range(50))
        cost = [result.cost.usd for result in results if not isinstance(result, Exception)]
    measured = captured.measured()
    [tokens_in] = measured["gen_ai.client.inference.usage.input_tokens"]
    [dollars] = measured["runmeter.cost"]
    assert tokens_in.value == 500
    assert dollars.value == pytest.approx(float(sum(usd for usd in cost if usd is not None)))
    assert len(cost) == 50
