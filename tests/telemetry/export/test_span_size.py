"""What a span is estimated to take, against what it does take."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, TraceFlags
from telemetry_support import Captured, captured, no_variables

from runmeter.engine import ModelRequest, Usage
from runmeter.telemetry.export.span_size import span_size

__all__ = ["captured", "no_variables"]

CONTEXT = SpanContext((1 << 128) - 1, (1 << 64) - 1, False, TraceFlags(1))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
NUMBERS = st.integers(0, 2**63 - 1) | st.floats() | st.booleans()
ATTRIBUTES = st.dictionaries(TEXTS, TEXTS | NUMBERS | st.lists(TEXTS, max_size=5).map(tuple), max_size=20)


def encoded_size(span: ReadableSpan) -> int:
    [resource] = encode_spans([span]).resource_spans
    [encoded] = resource.scope_spans[0].spans
    return int(encoded.ByteSize())


@given(TEXTS, ATTRIBUTES, st.lists(ATTRIBUTES, max_size=2), st.lists(ATTRIBUTES, max_size=2))
def test_it_is_never_far_below(name: str, attributes: Any, events: list[Any], links: list[Any]) -> None:
    span = ReadableSpan(
        name,
        CONTEXT,
        CONTEXT,
        attributes=attributes,
        events=[Event("retry", each, 1 << 60) for each in events],
        links=[Link(CONTEXT, each) for each in links],
        start_time=1 << 60,
        end_time=1 << 61,
    )
    assert span_size(span) >= encoded_size(span) * 0.95


def test_it_is_little_above_for_spans_of_ours(captured: Captured) -> None:
    with (
        captured.execution(tags={"tenant": "acme"}) as run,
        run.model_call(ModelRequest(provider="openai", model="gpt-6-luna")) as call,
    ):
        call.record(Usage(1_000, 100, cache_read_tokens=500), response_id="resp_0123456789", finish_reasons=("stop",))
    captured.receive()
    for span in captured.spans:
        assert encoded_size(span) < span_size(span) < encoded_size(span) * 1.25


@pytest.mark.parametrize(
    "attributes",
    [{"text": "\ud800"}, {"number": 1 << 70}, {"thing": object()}, BoundedAttributes(9, {"text": "x" * 99})],
)
def test_what_is_not_for_messagepack_has_a_size_too(attributes: Any) -> None:
    assert 120 < span_size(ReadableSpan("odd", CONTEXT, attributes=attributes)) < 350
