"""Is what was emitted what the OpenTelemetry GenAI conventions define? Each check gives a list of what is not.

The conventions are in `data/genai_registry.json`, compiled from their YAML model at the commit it names. What is in our
own namespace, `runmeter.*`, is ours to define; everything else must be theirs.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from opentelemetry.sdk.metrics.export import HistogramDataPoint, Metric, MetricsData, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

OWN = "runmeter."
_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "int": (int,),
    "double": (float,),
    "boolean": (bool,),
    "string[]": (tuple,),
}


class AttributeDefinition(msgspec.Struct, frozen=True):
    """An attribute in the registry."""

    type: str


class SpanDefinition(msgspec.Struct, frozen=True):
    """A span type in the registry."""

    kind: str
    name_format: tuple[str, ...]
    operation_names: tuple[str, ...] | None
    attributes: Mapping[str, str]
    """Requirement level by name."""


class MetricDefinition(msgspec.Struct, frozen=True):
    """A metric in the registry."""

    instrument: str
    unit: str
    value_type: str
    attributes: Mapping[str, str]
    buckets: tuple[float, ...] | None = None


class Refinement(msgspec.Struct, frozen=True):
    """What a provider's conventions add to a span type or a metric."""

    ref: str
    changes: Mapping[str, str]


class Registry(msgspec.Struct, frozen=True):
    """The conventions."""

    commit: str
    schema_url: str
    attributes: Mapping[str, AttributeDefinition]
    external_attributes: Mapping[str, AttributeDefinition]
    spans: Mapping[str, SpanDefinition]
    metrics: Mapping[str, MetricDefinition]
    span_refinements: Mapping[str, Refinement]
    metric_refinements: Mapping[str, Refinement]


REGISTRY = msgspec.json.decode((Path(__file__).parents[1] / "data" / "genai_registry.json").read_bytes(), type=Registry)


def check_span(span: ReadableSpan) -> list[str]:
    """What is wrong with a span."""
    attributes = span.attributes or {}
    span_type, definition = _span_type(span)
    if definition is None:
        return [f"{span.name}: no span type for {attributes.get('gen_ai.operation.name')!r}, {span.kind.name}"]
    allowed = _refined(
        definition.attributes, REGISTRY.span_refinements.values(), span_type, attributes.get("gen_ai.provider.name")
    )
    wrong = [*_wrong_values(attributes), *_wrong_names(attributes, allowed)]
    if span.name not in _names(definition, attributes):
        wrong.append(f"is not named by {definition.name_format}")
    failed = span.status.status_code is StatusCode.ERROR
    if failed != ("error.type" in attributes):
        wrong.append("status and error.type disagree")
    if "server.port" in attributes and "server.address" not in attributes:
        wrong.append("server.port without server.address")
    if span.status.description is not None and not failed:
        wrong.append("a status description without an error")
    return [f"{span.name}: {what}" for what in wrong]


def check_metrics(data: MetricsData) -> list[str]:
    """What is wrong with a collection of metrics."""
    return [
        f"{metric.name}: {what}"
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for what in _wrong_metric(metric)
    ]


def _wrong_metric(metric: Metric) -> Iterator[str]:
    if metric.name.startswith(OWN):
        return
    definition = REGISTRY.metrics.get(metric.name)
    if definition is None:
        yield "unknown"
        return
    if metric.unit != definition.unit:
        yield f"its unit is {metric.unit}"
    if {"Histogram": "histogram", "Sum": "counter"}.get(type(metric.data).__name__) != definition.instrument:
        yield f"is a {type(metric.data).__name__}"
    for point in metric.data.data_points:
        attributes: Mapping[str, Any] = point.attributes or {}
        allowed = _refined(
            definition.attributes,
            REGISTRY.metric_refinements.values(),
            metric.name,
            attributes.get("gen_ai.provider.name"),
        )
        yield from _wrong_values(attributes)
        yield from _wrong_names(attributes, allowed)
        if isinstance(point, HistogramDataPoint) and tuple(point.explicit_bounds) != definition.buckets:
            yield f"its buckets are {point.explicit_bounds}"
        value = point.value if isinstance(point, NumberDataPoint) else point.sum
        if not isinstance(value, _PYTHON_TYPES[definition.value_type]):
            yield f"a value is {value!r}"


def _span_type(span: ReadableSpan) -> tuple[str, SpanDefinition | None]:
    operation, kind = (span.attributes or {}).get("gen_ai.operation.name"), span.kind.name.lower()
    for name, definition in REGISTRY.spans.items():
        if operation in (definition.operation_names or ()) and definition.kind == kind:
            return name, definition
    return "", None


def _refined(
    attributes: Mapping[str, str], refinements: Iterable[Refinement], ref: str, provider: object
) -> Mapping[str, str]:
    """The attributes, with what OpenAI's conventions add where the provider is OpenAI."""
    if provider != "openai":
        return attributes
    added = [
        refinement.changes
        for refinement in refinements
        if refinement.ref == ref and any(name.startswith("openai.") for name in refinement.changes)
    ]
    return {name: level for changes in (attributes, *added) for name, level in changes.items()}


def _names(definition: SpanDefinition, attributes: Mapping[str, Any]) -> set[str]:
    return {re.sub(r"\{(.+?)\}", lambda match: str(attributes.get(match[1])), name) for name in definition.name_format}


def _wrong_names(attributes: Mapping[str, Any], allowed: Mapping[str, str]) -> Iterator[str]:
    for name in attributes:
        if name not in allowed and not name.startswith(OWN):
            yield f"{name} is not defined there"
    for name, level in allowed.items():
        if level == "required" and name not in attributes:
            yield f"{name} is required"


def _wrong_values(attributes: Mapping[str, Any]) -> Iterator[str]:
    for name, value in attributes.items():
        definition = REGISTRY.attributes.get(name) or REGISTRY.external_attributes.get(name)
        if definition is None:
            continue  # ours, or not defined: the names say
        types = _PYTHON_TYPES.get(definition.type)
        if types is None or not isinstance(value, types) or (isinstance(value, bool) and types != (bool,)):
            yield f"{name} is {value!r}, not {definition.type}"
