"""Events to bytes and back, as msgpack (compact) or JSON (readable).

The decoders are kept: msgspec builds the tables of a tagged union once per `Decoder`, which costs a hundred times one
decode.
"""

from typing import Any, Protocol, get_args

import msgspec

from .events import Event, KnownEvent, UnknownEvent

_KINDS = frozenset(kind.__struct_config__.tag for kind in get_args(KnownEvent))


class _Encoder(Protocol):
    def encode(self, obj: Any, /) -> bytes: ...


class _Decoder(Protocol):
    def decode(self, buf: bytes, /) -> Any: ...


class Codec:
    """Encodes and decodes events in one format. Safe to share between threads."""

    def __init__(self, encoder: _Encoder, decoder: _Decoder, untyped: _Decoder) -> None:
        self._encoder = encoder
        self._decoder = decoder
        self._untyped = untyped

    def encode(self, event: Event) -> bytes:
        """Encode an event as bytes; an unknown event becomes just what it was read from."""
        return self._encoder.encode(event.fields if type(event) is UnknownEvent else event)

    def decode(self, data: bytes) -> Event:
        """Decode an event from bytes, one of a kind that only a newer version knows as `UnknownEvent`.

        Raises:
            msgspec.DecodeError: the bytes are not an event: broken, truncated, or fields of the wrong type.
        """
        try:
            event: Event = self._decoder.decode(data)
        except msgspec.ValidationError:
            return self._decode_unknown(data)
        return event

    def _decode_unknown(self, data: bytes) -> UnknownEvent:
        try:
            fields = self._untyped.decode(data)
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(str(error)) from None
        kind = fields.get("type") if isinstance(fields, dict) else None
        if not isinstance(kind, str) or kind in _KINDS:
            self._decoder.decode(data)  # a known kind, or none at all: let the error speak
        try:
            return UnknownEvent(
                run_id=msgspec.convert(fields["run_id"], str),
                seq=msgspec.convert(fields["seq"], int),
                time_ns=msgspec.convert(fields["time_ns"], int),
                kind=str(kind),
                fields=fields,
            )
        except KeyError as missing:
            raise msgspec.ValidationError(f"an event without {missing}") from None


MSGPACK = Codec(msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(KnownEvent), msgspec.msgpack.Decoder())
JSON = Codec(msgspec.json.Encoder(), msgspec.json.Decoder(KnownEvent), msgspec.json.Decoder())
