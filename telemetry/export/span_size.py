"""Size of a span once it is encoded: estimated, because encoding it takes so much longer."""

from collections.abc import Mapping
from typing import Any

import msgspec
from opentelemetry.sdk.trace import ReadableSpan

SPAN = 120
"""Bytes of a span without its texts and attributes: ids, times, kind, flags, counts, and the tags of all of them."""
ATTRIBUTE = 8
"""Bytes that an attribute takes more in an OTLP request than in MessagePack, as a rule."""
PART = 60
"""Bytes of an event or a link without its texts and attributes."""

_pack = msgspec.msgpack.Encoder().encode


def span_size(span: ReadableSpan) -> int:
    """Estimate the bytes of a span in an OTLP request: some 10 % more than they come to, as a rule."""
    # All of it as it is kept: the properties make a proxy, which cannot be packed, and copies.
    attributes, events, links = span._attributes, span._events, span._links  # noqa: SLF001 - see above
    size = SPAN + _size(span.name, attributes or {})
    for event in events:
        size += PART + _size(event.name, event.attributes or {})
    for link in links:
        size += PART + _size("", link.attributes or {})
    return size


def _size(name: str, attributes: Mapping[str, Any]) -> int:
    try:
        packed = len(_pack((name, attributes)))
    except (TypeError, ValueError, OverflowError):  # no dictionary, or something in it that MessagePack has not
        packed = len(repr((name, dict(attributes))))
    return packed + ATTRIBUTE * len(attributes)
