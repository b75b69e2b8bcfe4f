"""Request bodies of `multipart/form-data` (RFC 7578), as files come in."""

import re

import msgspec

from ..errors import ApiError

_MOST_PARTS = 100
_LONGEST_HEAD = 8_192
"""Bytes of a part's headers."""
_BOUNDARY = re.compile(r'multipart/form-data *;(?:.*;)? *boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)
_SETTING = re.compile(r'; *(name|filename)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_DISPOSITION = re.compile(r"^content-disposition: *form-data(;.*)", re.IGNORECASE | re.MULTILINE)
_ESCAPED = re.compile(r'\\(["\\])|%(22|0A|0D)')
"""Escapes by which clients write quotes and line breaks: with a backslash, or as the HTML standard has it
(html.spec.whatwg.org, "multipart form data", 2026)."""


class FormField(msgspec.Struct, frozen=True):
    """A field of a form."""

    content: bytes
    filename: str | None = None
    """For a file."""


def read_form(body: bytes, content_type: str) -> dict[str, FormField]:
    """Read the fields of a form, by name; the last where there are several of a name.

    Raises:
        ApiError: 400: it is not a form, or not whole.
    """
    found = _BOUNDARY.match(content_type)
    if not found:
        raise _unreadable("it must be multipart/form-data")
    boundary = (found[1] or found[2]).encode("latin-1", "replace")  # as headers are decoded
    # The line break before a boundary belongs to the boundary, the first one's may be missing.
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary, _MOST_PARTS + 1)
    if not parts or not parts[-1].startswith(b"--"):
        raise _unreadable(f"its last boundary is missing, or it has more than {_MOST_PARTS} parts")
    return dict(map(_part, parts[:-1]))


def _part(raw: bytes) -> tuple[str, FormField]:
    """Read a part's name, and the part."""
    head, separator, content = raw.partition(b"\r\n\r\n")
    found = _DISPOSITION.search(head[:_LONGEST_HEAD].decode(errors="replace"))
    settings = _SETTING.findall(found[1]) if found else []
    values = {name.lower(): _unescape(quoted) or plain for name, quoted, plain in settings}
    if not separator or not values.get("name"):
        raise _unreadable("a part of it has no name")
    return values["name"], FormField(content, values.get("filename"))


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda found: found[1] or chr(int(found[2], 16)), text)


def _unreadable(why: str) -> ApiError:
    return ApiError(400, f"We could not parse the body of your request: {why}.")
