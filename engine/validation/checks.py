"""The engine's door: texts and numbers from outside are cleaned, cut, or refused by name; behind it they are sound.

Models, servers and callers choose names, ids and counts, and events keep them for ever. So an event holds

- *texts* that are valid UTF-8 (half a surrogate pair becomes `?`) and not long: names at most `NAME_LIMIT` characters,
  ids `ID_LIMIT`. A longer one is cut and ends in a mark made of the whole, so that two long names stay two;
- *counts* that are whole numbers from 0 to `MOST`. Another form of such a number, as 7.0 or "7", is taken for it.

Arguments of `Engine` that make no sense are refused with `ConfigurationError`. What is said in the middle of a run
(`record`, `function_call` …) is made to fit, and raises nothing: a server's odd answer is no reason to lose it.

The usual case is told in C: `msgspec.convert` looks at types and lengths, and only UTF-8 can be encoded.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2s
from operator import index
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from ..errors import ConfigurationError
from ..events import Usage

NAME_LIMIT = 256
"""Characters of a name: of a pattern, model, function, tag, tag's value, error type …"""
ID_LIMIT = 1_024
"""Characters of an id: of a response, a conversation, a call. Gateways make some of several hundred."""
MESSAGE_LIMIT = 500
"""Characters of an error's or a notice's message."""
MOST = 2**63 - 1
"""The largest count: all of msgpack's and JSON's readers and databases take it."""

Name: TypeAlias = Annotated[str, Meta(max_length=NAME_LIMIT)]
Id: TypeAlias = Annotated[str, Meta(max_length=ID_LIMIT)]
Message: TypeAlias = Annotated[str, Meta(max_length=MESSAGE_LIMIT)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MOST)]

Counts: Any = msgspec.defstruct("Counts", [(name, Count) for name in Usage.__struct_fields__], gc=False)
"""The form of a sound `Usage`."""

encode = msgspec.msgpack.Encoder().encode
"""Raises for a text that is not valid UTF-8."""


def name_of(value: object) -> str:
    """Make a name that an event may hold, of any value."""
    return cut_text(text_of(value), NAME_LIMIT)


def id_of(value: object) -> str | None:
    """Make an id that an event may hold, of any value. None stays None."""
    return None if value is None else cut_text(text_of(value), ID_LIMIT)


def optional_name(value: object) -> str | None:
    """Make a name that an event may hold, of any value. None stays None."""
    return None if value is None else name_of(value)


def cut_text(text: str, limit: int) -> str:
    """Cut a text to valid UTF-8 of at most `limit` characters: a longer one ends in `…` and eight digits of a hash."""
    data = text.encode("utf-8", "replace")
    if len(text) <= limit:
        return data.decode()
    mark = f"…{blake2s(data, digest_size=4).hexdigest()}"
    return text[: limit - len(mark)].encode("utf-8", "replace").decode() + mark


def cut_message(text: str) -> str:
    """Cut a message to valid UTF-8 of at most `MESSAGE_LIMIT` characters: a longer one ends in `…`."""
    short = text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"
    return short.encode("utf-8", "replace").decode()


def text_of(value: object) -> str:
    """Take a value's text, as a plain `str`."""
    if isinstance(value, str):
        return str.__str__(value)
    try:
        return str.__str__(str(value))
    except Exception:
        return type(value).__name__


def count_of(value: Any) -> int | None:
    """Take a value as a count; None if it is not one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and len(value) < 20 and value.isascii() and value.isdecimal():
        value = int(value)
    try:
        number = index(value)
    except Exception:
        return None
    return number if 0 <= number <= MOST else None


def sound_usage(usage: Usage) -> tuple[Usage | None, tuple[str, ...]]:
    """Find the part of a usage that can be believed, and the names of the fields that cannot.

    Returns:
        The usage with those at 0, a lower bound; None if nothing else is known either.
    """
    try:
        msgspec.convert(usage, Counts, from_attributes=True)
    except msgspec.ValidationError:
        pass
    else:
        return usage, ()
    counts = {name: count_of(getattr(usage, name, None)) for name in Usage.__struct_fields__}
    wrong = tuple(name for name, count in counts.items() if count is None)
    sound = Usage(**{name: count or 0 for name, count in counts.items()})
    return (None if wrong and sound == Usage() else sound), wrong


# Arguments, which are refused


def check_seconds(what: str, value: object, *, positive: bool) -> None:
    """Refuse a value that is not a number of seconds.

    Raises:
        ConfigurationError: it is not a number, or NaN, or negative, or 0 where it must be positive.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{what} must be a number of seconds, is {value!r}")
    if not (value > 0 if positive else value >= 0):
        must = "must be positive" if positive else "must not be negative"
        raise ConfigurationError(f"{what} {must}, is {value}")


def check_number(what: str, value: object, hint: str = "") -> None:
    """Refuse a value that is not a whole number of at least 1.

    Raises:
        ConfigurationError: it is not such a number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{what} must be a whole number, at least 1{hint}, is {value!r}")


def check_kind(what: str, value: object, kind: type | tuple[type, ...], such_as: str) -> None:
    """Refuse an argument that is not of a kind.

    Args:
        what: The argument's name.
        value: The argument.
        kind: Its class, or several that it may be of.
        such_as: What to write in its place.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{what} takes {such_as}, not {_kind_of(value)}")


def check_methods(what: str, value: object, methods: Sequence[str], such_as: str) -> None:
    """Refuse an argument that has not the methods of a protocol, or is a class that has them.

    Args:
        what: The argument's name.
        value: The argument.
        methods: The names of the protocol's.
        such_as: What to write in its place.

    Raises:
        ConfigurationError: it has not.
    """
    missing = [name for name in methods if not callable(getattr(value, name, None))]
    if missing or isinstance(value, type):
        why = f", which has no {', '.join(missing)}" if missing and not isinstance(value, type) else ""
        raise ConfigurationError(f"{what} takes {such_as}, not {_kind_of(value)}{why}")


def _kind_of(value: object) -> str:
    """Name what was given, and quote none of it: an argument in the wrong place may be a secret."""
    return f"the class {value.__qualname__}" if isinstance(value, type) else f"one of the type {type(value).__name__}"


def check_tier(tier: object) -> str | None:
    """Take a service tier that requests are assumed to have, or None.

    Raises:
        ConfigurationError: it is not the name of a tier.
    """
    if tier is None:
        return None
    if not isinstance(tier, str) or not tier or tier == "auto":
        raise ConfigurationError(
            f"assume_tier is a service tier, such as 'default' or 'priority', or None, not {tier!r:.100}"
        )
    return name_of(tier)


def check_tags(tags: Any) -> dict[str, str]:
    """Check a run's tags, and take them as they may be kept.

    Raises:
        ConfigurationError: they are not a mapping, or one is not a string.
    """
    if not isinstance(tags, Mapping):
        raise ConfigurationError(f'tags are a mapping such as {{"tenant": "acme"}}, not {tags!r:.100}')
    for name, value in tags.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise ConfigurationError(f"a tag is a string with a name, not {name!r:.100}: {value!r:.100}")
    return {name_of(name): name_of(value) for name, value in tags.items()}


def check_id(what: str, value: object) -> str | None:
    """Check an id, and take it as it may be kept.

    Raises:
        ConfigurationError: it is neither a string nor None.
    """
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{what} must be a string or None, is {value!r:.100}")
    return id_of(value)
