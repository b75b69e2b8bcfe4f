"""Files as they are kept."""

import msgspec

LARGEST = 16_000_000
"""Bytes of one. The real service takes 512 MB, which nobody wants in the memory of a test."""


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    """What the API says of a file."""

    id: str
    object: str = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: str = "processed"
    status_details: None = None

    def expired(self, now: float) -> bool:
        """Whether its time is over, in seconds since the Unix epoch."""
        return self.expires_at is not None and self.expires_at <= now


class Upload(msgspec.Struct, frozen=True):
    """A file."""

    description: FileObject
    content: bytes
