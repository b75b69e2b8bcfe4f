"""Files as they are kept."""

import msgspec

LARGEST = 16_000_000
"""Upper bound on a file's size in bytes. The real service takes 512 MB, too much for the memory of a test."""


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    """The API's description of a file."""

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
        """Tell whether its time is over, in seconds since the Unix epoch."""
        return self.expires_at is not None and self.expires_at <= now


class Upload(msgspec.Struct, frozen=True):
    """A file that was uploaded."""

    description: FileObject
    content: bytes
