"""Request bodies of `multipart/form-data` (RFC 7578), as files come in."""

from email.message import Message
from email.parser import HeaderParser

import msgspec

from .errors import ApiError


class Part(msgspec.Struct, frozen=True):
    """One field of a form."""

    content: bytes
    filename: str | None = None
    """For a file."""


def read_form(body: bytes, content_type: str) -> dict[str, Part]:
    """The fields of a form, by name; the last where there are several of a name.

    Raises:
        ApiError: 400: it is no form, or not whole.
    """
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise ApiError(400, "We could not parse the body of your request: it must be multipart/form-data.")
    # The line break before a boundary belongs to the boundary, the first one's may be missing.
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode(errors="replace"))
    if not parts or not parts[-1].startswith(b"--"):
        raise ApiError(400, "We could not parse the body of your request: its last boundary is missing.")
    return dict(map(_part, parts[:-1]))


def _part(raw: bytes) -> tuple[str, Part]:
    """A part's name, and the part."""
    head, separator, content = raw.partition(b"\r\n\r\n")
    headers = HeaderParser().parsestr(head.decode(errors="replace").lstrip())
    name = headers.get_param("name", header="content-disposition")
    if not separator or not isinstance(name, str):
        raise ApiError(400, "We could not parse the body of your request: a part of it has no name.")
    return name, Part(content, headers.get_filename())
