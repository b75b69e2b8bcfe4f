"""A vector store as it is kept: its files in chunks, and the search among them.

Source of the shapes: openai 3.54.0, `types/vector_store.py`, `types/vector_stores/vector_store_file.py` and
`types/vector_store_search_response.py` (2026-11). Failures' words: openai/openai-openapi#300, openai/openai-node#1496.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from ..model.ranking import RankedDocument, Ranking
from .chunking import ChunkSize, cut
from .filters import Attribute, Filter
from .upload import Upload

MOST_FILES = 10_000
"""Upper bound on the files of one vector store, as in the real service."""
_DAY = 86_400


class LastError(msgspec.Struct, frozen=True):
    """The reason why a file could not be read."""

    code: str
    message: str


class VectorStoreFile(msgspec.Struct, frozen=True, kw_only=True):
    """The API's description of a file in a vector store."""

    id: str
    object: str = "vector_store.file"
    created_at: int
    vector_store_id: str
    status: str
    last_error: LastError | None
    usage_bytes: int
    attributes: dict[str, Attribute]
    chunking_strategy: dict[str, Any]


class IndexedFile(msgspec.Struct, frozen=True):
    """A file in a vector store."""

    description: VectorStoreFile
    filename: str
    chunks: Sequence[RankedDocument]


class Expiry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The time at which a vector store ends."""

    anchor: Literal["last_active_at"]
    days: Annotated[int, msgspec.Meta(ge=1, le=365)]


class FileCounts(msgspec.Struct, frozen=True):
    """Counts of files by status. They are read at once, so that none is ever in progress."""

    completed: int
    failed: int
    total: int
    in_progress: int = 0
    cancelled: int = 0


class VectorStoreObject(msgspec.Struct, frozen=True, kw_only=True):
    """The API's description of a vector store."""

    id: str
    object: str = "vector_store"
    created_at: int
    name: str
    usage_bytes: int
    file_counts: FileCounts
    status: str
    expires_after: Expiry | None
    expires_at: int | None
    last_active_at: int
    metadata: dict[str, str]


class Hit(msgspec.Struct, frozen=True):
    """A chunk that a search found."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, Attribute]
    content: list[dict[str, str]]


class VectorStore:
    """A store of files, to be searched."""

    def __init__(
        self, store_id: str, name: str, metadata: dict[str, str], expires_after: Expiry | None, now: int
    ) -> None:
        self.id = store_id
        self._name = name
        self._metadata = metadata
        self._expires_after = expires_after
        self._created = self._last_active = now
        self._files: dict[str, IndexedFile] = {}
        self._ranking: Ranking | None = None
        """The ranking of the chunks there are now; None until the first search."""

    @property
    def files(self) -> Mapping[str, IndexedFile]:
        """The files of the store by id, in the order in which they came."""
        return self._files

    def add(self, upload: Upload, attributes: dict[str, Attribute], size: ChunkSize, now: int) -> IndexedFile:
        """Take a file in, or take it in anew."""
        file = _index(upload, self.id, attributes, size, now)
        self._files.pop(file.description.id, None)
        self._files[file.description.id] = file
        self._ranking, self._last_active = None, now
        return file

    def remove(self, file_id: str) -> None:
        """Take a file out, if it is here."""
        if self._files.pop(file_id, None) is not None:
            self._ranking = None

    def search(self, queries: Sequence[str], wanted: Filter | None, now: int) -> list[Hit]:
        """Find the chunks of all files that pass a filter, the best first. One that fits any of the queries fits."""
        self._last_active = now
        places = [(file, chunk) for file in self._files.values() for chunk in file.chunks]
        if self._ranking is None:
            self._ranking = Ranking([chunk for _, chunk in places])
        scores = map(max, zip(*map(self._ranking.scores, queries), strict=True))
        hits = [
            _hit(file, chunk, score)
            for (file, chunk), score in zip(places, scores, strict=True)
            if wanted is None or wanted.holds(file.description.attributes)
        ]
        return sorted(hits, key=lambda hit: -hit.score)

    def describe(self, now: int) -> VectorStoreObject:
        """Describe the store in the API's words."""
        descriptions = [file.description for file in self._files.values()]
        failed = sum(description.status == "failed" for description in descriptions)
        return VectorStoreObject(
            id=self.id,
            created_at=self._created,
            name=self._name,
            usage_bytes=sum(description.usage_bytes for description in descriptions),
            file_counts=FileCounts(len(descriptions) - failed, failed, len(descriptions)),
            status="expired" if self.expired(now) else "completed",
            expires_after=self._expires_after,
            expires_at=self._expires_at,
            last_active_at=self._last_active,
            metadata=self._metadata,
        )

    def expired(self, now: int) -> bool:
        """Tell whether the store's time is over."""
        return self._expires_at is not None and self._expires_at <= now

    @property
    def _expires_at(self) -> int | None:
        return self._last_active + self._expires_after.days * _DAY if self._expires_after else None


def _index(upload: Upload, store_id: str, attributes: dict[str, Attribute], size: ChunkSize, now: int) -> IndexedFile:
    text = _read(upload.content)
    chunks = [] if isinstance(text, LastError) else cut(text, size)
    description = VectorStoreFile(
        id=upload.description.id,
        created_at=now,
        vector_store_id=store_id,
        status="failed" if isinstance(text, LastError) else "completed",
        last_error=text if isinstance(text, LastError) else None,
        usage_bytes=sum(len(chunk.text.encode()) for chunk in chunks),
        attributes=attributes,
        chunking_strategy={"type": "static", "static": size},
    )
    return IndexedFile(description, upload.description.filename, chunks)


def _read(content: bytes) -> str | LastError:
    """Read a file's text. Only plain text is read."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return LastError("unsupported_file", "The file type is not supported.")
    return text if text.strip() else LastError("invalid_file", "The file could not be parsed because it is empty.")


def _hit(file: IndexedFile, chunk: RankedDocument, score: float) -> Hit:
    text = [{"type": "text", "text": chunk.text}]
    return Hit(file.description.id, file.filename, score, file.description.attributes, text)
