"""Events to bytes and back, as msgpack (compact) or JSON (readable).

The decoders are kept: msgspec builds the tables of a tagged union once per `Decoder`, which costs a hundred times one
decode.
"""

from typing import Any, Protocol, get_args

import msgspec

from .events import Event, KnownEvent, UnknownEvent

_BASE = frozenset(("run_id", "seq", "time_ns"))
_REQUIRED = {
    str(kind.__struct_config__.tag): frozenset(field.name for field in msgspec.structs.fields(kind) if field.required)
    for kind in get_args(KnownEvent)
}
"""The fields without a default, which every version writes, by kind."""


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
        """Decode an event from bytes. What only a newer version understands is kept as `UnknownEvent`.

        That is a kind that this version does not know, or a known kind with a value that it does not: a new status, or
        null where this version writes a default.

        Raises:
            msgspec.DecodeError: the bytes are not an event: broken, truncated, or without fields that all versions
                write.
        """
        try:
            try:
                event: Event = self._decoder.decode(data)
            except msgspec.ValidationError as error:
                return _unknown(self._untyped.decode(data), error)
        except (UnicodeDecodeError, RecursionError) as error:
            raise msgspec.DecodeError(str(error)) from None
        return event


def _unknown(fields: Any, error: msgspec.ValidationError) -> UnknownEvent:
    """Keep an event that has all fields of one; else let the decoder's error speak."""
    kind = fields.get("type") if isinstance(fields, dict) else None
    if not isinstance(kind, str) or not _REQUIRED.get(kind, _BASE) <= fields.keys():
        raise error
    return UnknownEvent(
        run_id=msgspec.convert(fields["run_id"], str),
        seq=_whole(fields["seq"]),
        time_ns=_whole(fields["time_ns"]),
        kind=kind,
        fields=fields,
    )


def _whole(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():  # other languages have no other form
        return int(value)
    return msgspec.convert(value, int)


MSGPACK = Codec(msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(KnownEvent), msgspec.msgpack.Decoder())
JSON = Codec(msgspec.json.Encoder(), msgspec.json.Decoder(KnownEvent), msgspec.json.Decoder())
